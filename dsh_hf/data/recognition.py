"""Which data set a folder is: Sketchy, TU-Berlin, or one's own class folders."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dsh_hf.data import sketchy, tu_berlin
from dsh_hf.data.folders import load_folders, open_folder
from dsh_hf.data.layout import find_parts, open_root
from dsh_hf.data.published import SKETCHY, TU_BERLIN, PublishedSet
from dsh_hf.data.scan import visible_folders

if TYPE_CHECKING:
    from datasets import DatasetDict

OWN = "class folders"
_MOSTLY = 0.5  # of the class names: a folder called png is TU-Berlin's if so many of its classes are


@dataclass
class FoundSet:
    """What a folder turned out to hold.

    Attributes:
        root: the folder, or the one that its archive was unpacked into.
        version: ``"Sketchy"``, ``"Sketchy Extended"``, ``"TU-Berlin"``, ``"TU-Berlin Extended"`` or
            ``"class folders"``.
        published: what its authors say of it; None for one's own.
        domains: the folder of class folders of each domain.
        gallery: the domain that is searched; None if there is one domain.
        faults: what went wrong on the way.
    """

    root: Path
    version: str
    published: PublishedSet | None
    domains: dict[str, Path]
    gallery: str | None
    faults: list[str] = field(default_factory=list)


def find_set(root: str | Path) -> FoundSet:
    """Find out which set a folder or an archive holds, complete or not.

    Args:
        root: what the loaders take; or a folder with ``sketches`` and ``images``, each with class folders; or one
            folder of class folders.

    Raises:
        FileNotFoundError: no such folder, or none of these sets in it.
        ArchiveError: the root itself is an archive that cannot be opened.
    """
    place = open_root(root)
    for find in (_find_sketchy, _find_tu_berlin, _find_folders):
        found = find(place)
        if found is not None:
            return found
    raise FileNotFoundError(
        f"{root}: no data set found: expected Sketchy's 256x256, TU-Berlin's png, or <class>/<picture>"
    )


def find_pair(sketches: str | Path, images: str | Path) -> FoundSet:
    """Find one's own class folders in two places.

    Raises:
        FileNotFoundError: no such folder, or no class folders in it.
        ArchiveError: an archive cannot be opened.
    """
    domains = {}
    for name, root in (("sketches", sketches), ("images", images)):
        domains[name] = open_folder(root)
        if not visible_folders(domains[name]):
            raise FileNotFoundError(f"{root}: no class folders: expected <class>/<picture>")
    return FoundSet(domains["sketches"].parent, OWN, None, domains, "images")


def load_found(found: FoundSet) -> "DatasetDict":
    """Load the set that was found.

    Returns:
        ``sketches`` and ``images``, as the loaders give them.

    Raises:
        ValueError: it has one domain only, or the loader refuses it.
        FileNotFoundError: the loader misses something.
    """
    if found.published is SKETCHY:
        return sketchy.load_sketchy(found.root)
    if found.published is TU_BERLIN:
        return tu_berlin.load_tu_berlin(found.root)
    if "sketches" not in found.domains:
        raise ValueError(f"{found.root} has class folders of one kind: say which are --sketches and which --images")
    return load_folders(sketches=found.domains["sketches"], images=found.domains["images"])


def _find_sketchy(place: Path) -> FoundSet | None:
    parts = {"sketches": sketchy.SKETCHES, "photographs": sketchy.PHOTOGRAPHS, "extended images": sketchy.EXTENDED}
    domains, faults = _parts("Sketchy", place, parts)
    if not domains:
        return None
    extended = "extended images" in domains
    needed = ["sketches", "extended images" if extended else "photographs"]
    faults += [f"no folder of the {domain}: {parts[domain]}" for domain in needed if domain not in domains]
    return FoundSet(place, "Sketchy Extended" if extended else "Sketchy", SKETCHY, domains, needed[1], faults)


def _find_tu_berlin(place: Path) -> FoundSet | None:
    parts = {"sketches": tu_berlin.SKETCHES, "images": tu_berlin.EXTENDED}
    domains, faults = _parts("TU-Berlin", place, parts)
    names = [folder.name for domain in domains.values() for folder in visible_folders(domain)]
    if "images" not in domains and TU_BERLIN.share_of(names) < _MOSTLY:
        return None
    faults += [] if "sketches" in domains else [f"no folder of the sketches: {parts['sketches']}"]
    extended = "images" in domains
    version = "TU-Berlin Extended" if extended else "TU-Berlin"
    return FoundSet(place, version, TU_BERLIN, domains, "images" if extended else None, faults)


def _find_folders(place: Path) -> FoundSet | None:
    place = open_folder(place)
    domains = {name: place / name for name in ("sketches", "images") if (place / name).is_dir()}
    if len(domains) == 2 and all(visible_folders(folder) for folder in domains.values()):
        return FoundSet(place, OWN, None, domains, "images")
    return FoundSet(place, OWN, None, {"pictures": place}, None) if visible_folders(place) else None


def _parts(title: str, place: Path, parts: dict[str, str]) -> tuple[dict[str, Path], list[str]]:
    """Find the folders that are there; one that is there twice, or in a damaged archive, is a fault."""
    domains, faults = {}, []
    for domain, part in parts.items():
        try:
            domains[domain] = find_parts(title, place, [part])[0]
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            faults.append(str(error))
    return domains, faults
