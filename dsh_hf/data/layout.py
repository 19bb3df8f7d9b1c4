"""Where a data set's folders are: below the given one, unpacked by the person, or still in archives."""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from dsh_hf.data.archives import (
    ArchiveError,
    is_archive,
    is_foreign_archive,
    member_names,
    refuse_foreign,
    unpacked,
    was_unpacked,
)
from dsh_hf.data.scan import is_clutter, visible_folders

logger = logging.getLogger(__name__)

_DEPTH = 3  # an archive's own folder, one or two parents

_SHOWN = 10


def open_root(root: str | Path) -> Path:
    """Give the folder that was named, or the one that the archive that was named is unpacked into.

    Raises:
        FileNotFoundError: there is neither.
        ArchiveError: the archive is damaged, or of a kind that is not opened here.
    """
    place = Path(os.path.abspath(Path(root).expanduser()))
    refuse_foreign(place)
    if is_archive(place):
        return unpacked(place)
    if not place.is_dir():
        raise FileNotFoundError(f"no such folder: {root} (expected a folder, a zip or a tar)")
    return place


def has_part(root: Path, part: str) -> bool:
    """Tell whether one of a set's folders is there, or an archive that is called like it or holds it.

    Such an archive is unpacked, so that the answer is the same the next time.

    Args:
        root: where to look.
        part: the end of the folder's path, as ``"EXTEND_image_sketchy"``.

    Raises:
        ArchiveError: there is only an archive, and it is damaged or of a kind that is not opened here.
    """
    _refresh(root)
    if _find(root, [part]):
        return True
    for path in _files(root):
        if part.casefold() in path.name.casefold():
            refuse_foreign(path)
            if is_archive(path):
                unpacked(path)
    for archive in _archives(root):
        if _find(root, [part]):
            return True
        if not was_unpacked(archive) and _may_hold(archive, part):
            unpacked(archive)
    return bool(_find(root, [part]))


def find_parts(title: str, root: Path, parts: Sequence[str]) -> list[Path]:
    """Find a set's folders: in the root, or up to three levels down; the nearest count.

    A folder called ``<part>_ready`` (pictures already resized) is preferred to ``<part>`` beside it. If a
    folder is missing, archives in the root and one level down that hold it are unpacked.

    Args:
        title: of the data set, for messages.
        root: where to look.
        parts: the ends of the folders' paths, as ``"sketch/tx_000000000000"``.

    Returns:
        The folder of each part.

    Raises:
        FileNotFoundError: folders are missing.
        ValueError: a folder is there twice, equally near.
        ArchiveError: an archive that has to be unpacked is damaged.
    """
    _refresh(root)
    found = _find(root, parts)
    for archive in _archives(root):
        missing = [part for part in parts if part not in found]
        if missing and not was_unpacked(archive) and _holds(archive, missing):
            unpacked(archive)
            found = _find(root, parts)
    _check_complete(title, root, parts, found)
    return [found[part] for part in parts]


def _refresh(root: Path) -> None:
    """Unpack anew what has changed since it was unpacked."""
    for archive in _archives(root):
        if was_unpacked(archive):
            unpacked(archive)


def _find(root: Path, parts: Sequence[str]) -> dict[str, Path]:
    """Look level by level; folders of classes are not entered."""
    found: dict[str, Path] = {}
    level = [root]
    for depth in range(_DEPTH + 1):
        for part in parts:
            if part not in found:
                places = [place for base in level if (place := _place(base, part))]
                if len(places) > 1:
                    raise ValueError(
                        f"{part} is there twice: {places[0]} and {places[1]}; give the folder above the right one"
                    )
                if places:
                    found[part] = places[0]
        if len(found) == len(parts) or depth == _DEPTH:
            break
        ends = {found_part.name for found_part in found.values()}
        level = [folder for base in level for folder in _folders(base) if folder.name not in ends]
    return found


def _place(base: Path, part: str) -> Path | None:
    """Give the part's folder if it is in ``base`` and there are folders in it."""
    ready, plain = (place if _has_folders(place) else None for place in (base / f"{part}_ready", base / part))
    if ready and plain:
        logger.info("%s is used; %s is left out", ready, plain)
    return ready or plain


def _has_folders(place: Path) -> bool:
    return bool(_folders(place))


def _folders(place: Path) -> list[Path]:
    try:
        return visible_folders(place)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _archives(root: Path) -> list[Path]:
    return [path for path in _files(root) if is_archive(path)]


def _files(root: Path) -> Iterable[Path]:
    for folder in (root, *_folders(root)):
        with suppress(PermissionError), os.scandir(folder) as entries:
            yield from sorted(folder / e.name for e in entries if not is_clutter(e.name) and e.is_file())


def _holds(archive: Path, parts: Sequence[str]) -> bool:
    ends = tuple(f"/{part}{ready}/" for part in parts for ready in ("", "_ready"))
    return any(end in f"/{name}/" for name in member_names(archive) for end in ends)


def _may_hold(archive: Path, part: str) -> bool:
    try:
        return _holds(archive, [part])
    except ArchiveError as error:  # it may be anything: what is there already need not wait for it
        logger.warning("not looked into: %s", error)
        return False


def _check_complete(title: str, root: Path, parts: Sequence[str], found: dict[str, Path]) -> None:
    missing = [part for part in parts if part not in found]
    if not missing:
        return
    # What was found stands beside what is missing, as a rule.
    base = next((place.parents[part.count("/")] for part, place in found.items()), root)
    names = [folder.name for folder in _folders(base)]
    here = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") or "no folders"
    foreign = [str(path) for path in _files(root) if is_foreign_archive(path)]
    hint = f"; unpack {', '.join(foreign)} first (as with: 7z x)" if foreign else ""
    raise FileNotFoundError(f"{title}: expected {' and '.join(missing)} in {base}, where there is: {here}{hint}")
