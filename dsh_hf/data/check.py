"""Everything that can be found wrong with a data set, found in one go: ``dsh-hf data check``."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm.auto import tqdm

from dsh_hf.data.columns import class_names
from dsh_hf.data.recognition import FoundSet
from dsh_hf.data.scan import PictureFolder, is_clutter, list_pictures, visible_folders
from dsh_hf.data.spelling import spelling
from dsh_hf.processing import PICTURE_SUFFIXES, PictureError, open_picture

if TYPE_CHECKING:
    from datasets import IterableDataset

_SHOWN = 5  # of a kind, in the printed report; JSON has all
_LONGEST = 300  # letters of an item there
_CHUNK = 1024  # files that are handed to the threads at a time


@dataclass
class Finding:
    """One thing that was found.

    Attributes:
        about: what it is, in a few words.
        items: the paths or classes that it is about, all of them.
    """

    about: str
    items: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = f", and {len(self.items) - _SHOWN:,} more" if len(self.items) > _SHOWN else ""
        shown = ", ".join(item if len(item) <= _LONGEST else f"{item[:_LONGEST]}..." for item in self.items[:_SHOWN])
        return self.about + (f": {shown}{more}" if self.items else "")


@dataclass
class Domain:
    """What one domain holds.

    Attributes:
        folder: where its class folders are.
        counts: pictures in each class.
        published: how many pictures there should be; where two figures circulate, both.
        published_classes: how many classes there should be, None where nobody says.
    """

    folder: str
    counts: dict[str, int]
    published: list[int]
    published_classes: int | None


@dataclass
class Report:
    """The result of a check.

    Attributes:
        version: which set it is.
        root: where it is.
        domains: by their names.
        faults: what has to be put right.
        notes: what is good to know.
    """

    version: str
    root: str
    domains: dict[str, Domain] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Tell whether there are no faults."""
        return not self.faults

    def fault(self, about: str, items: Sequence[str] = ()) -> None:
        """Add something that has to be put right."""
        self.faults.append(Finding(about, list(items)))

    def note(self, about: str, items: Sequence[str] = ()) -> None:
        """Add something that is good to know."""
        self.notes.append(Finding(about, list(items)))

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON knows it."""
        return {"sound": self.sound, **asdict(self)}

    def text(self) -> str:
        """Give it for people: the domains, then notes, then faults, each with its first items."""
        lines = [f"{self.version} in {self.root}"]
        for name, domain in self.domains.items():
            counts = sorted(domain.counts.values()) or [0]
            spread = f"{counts[0]:,} to {counts[-1]:,} a class, median {median(counts):g}"
            lines.append(
                f"  {name}: {_counted(sum(counts), 'picture')} in {_counted(len(domain.counts), 'class')}, {spread}"
            )
            if domain.published:
                figures = " or ".join(f"{figure:,}" for figure in domain.published)
                lines.append(f"    published: {figures} pictures in {domain.published_classes} classes")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"FAULT: {fault}" for fault in self.faults]
        lines.append("sound" if self.sound else _counted(len(self.faults), "fault"))
        return "\n".join(lines)


def check_data(found: FoundSet, workers: int | None = None) -> Report:
    """Check a data set: its classes and counts, and each picture, decoded to its last pixel.

    Args:
        found: what :func:`dsh_hf.data.recognition.find_set` found.
        workers: threads that decode; by default one for each core.

    Returns:
        All that was found; nothing that is wrong with the pictures stops the check.
    """
    report = Report(found.version, str(found.root), faults=[Finding(fault) for fault in found.faults])
    listed = {name: _list_domain(name, folder, report) for name, folder in found.domains.items()}
    for name, folders in listed.items():
        published = found.published
        report.domains[name] = Domain(
            str(found.domains[name]),
            {folder.path.name: len(folder) for folder in folders},
            list(published.pictures[name]) if published else [],
            len(published.classes) if published else None,
        )
    _compare_with_published(found, report)
    _compare_domains(found, report)
    pictures = (
        _Picture(domain, folder.path.name, f"{folder.path}{os.sep}{name}")
        for domain, folders in listed.items()
        for folder in folders
        for name in folder.names
    )
    total = sum(len(folder) for folders in listed.values() for folder in folders)
    _look_at_pictures(pictures, total, workers, report)
    return report


def check_rows(sources: Mapping[str, "IterableDataset"], workers: int | None = None) -> Report:
    """Check data sets of rows: parquet, WebDataset, the Hub.

    Args:
        sources: one for each domain, streamed, as :func:`dsh_hf.data.sources.open_source` gives them.
        workers: threads that decode; by default one for each core.

    Returns:
        All that was found; nothing that is wrong with the pictures stops the check.
    """
    from datasets import Image

    report = Report("rows", ", ".join(sources))
    for domain, rows in sources.items():
        names = class_names(rows)
        report.domains[domain] = Domain(domain, dict.fromkeys(names, 0), [], None)
        if not names:
            report.note(f"{domain}: no column of classes")

    def pictures() -> Iterator[_Picture]:
        for domain, rows in sources.items():
            counts, names = report.domains[domain].counts, class_names(rows)
            for row in rows.cast_column("image", Image(decode=False)):
                label = names[row["label"]] if names else ""
                counts[label] = counts.get(label, 0) + 1
                yield _Picture(domain, label, row["id"], row["image"])

    _look_at_pictures(pictures(), None, workers, report)
    for domain in report.domains:
        empty = [name for name, count in report.domains[domain].counts.items() if not count]
        if empty:
            report.fault(f"{domain}: {_counted(len(empty), 'class')} without pictures", empty)
    if len(sources) > 1 and all(class_names(rows) for rows in sources.values()):
        _tell_lonely(report, *sources)
    return report


def _list_domain(name: str, place: Path, report: Report) -> list[PictureFolder]:
    """List a domain's pictures by class; note what is left out, and find empty and doubled classes."""
    folders: list[PictureFolder] = []
    spellings: dict[str, list[str]] = {}
    for place_of_class in visible_folders(place):
        spellings.setdefault(spelling(place_of_class.name), []).append(place_of_class.name)
        try:
            folders += list_pictures([place_of_class])
        except (OSError, ValueError) as error:
            report.fault(str(error))
    twice = [" and ".join(names) for names in spellings.values() if len(names) > 1]
    if twice:
        report.fault(f"{name}: the same class twice in different spelling", twice)
    _note_left_out(name, place, report)
    return folders


def _note_left_out(name: str, place: Path, report: Report) -> None:
    clutter, others = 0, []
    for folder, _, files in os.walk(place):
        of_class = os.path.dirname(folder) == str(place)
        in_clutter = any(is_clutter(part) for part in Path(folder).relative_to(place).parts)
        for file in files:
            if in_clutter or is_clutter(file):
                clutter += 1
            elif not of_class or os.path.splitext(file)[1].lower() not in PICTURE_SUFFIXES:
                others.append(os.path.join(folder, file))
    if clutter:
        report.note(f"{name}: ignored: {_counted(clutter, 'hidden or AppleDouble file')}")
    if others:
        left_out = _counted(len(others), "file")
        what = f"{name}: {left_out} left out, not in a class folder or no picture by its suffix"
        report.note(what, sorted(others))


def _compare_with_published(found: FoundSet, report: Report) -> None:
    published = found.published
    if published is None:
        return
    known = {spelling(name): name for name in published.classes}
    for name, domain in report.domains.items():
        there = {spelling(given): given for given in domain.counts}
        missing = [known[key] for key in known if key not in there]
        extra = [there[key] for key in there if key not in known]
        for what, items in (("missing", missing), ("not in the published set", extra)):
            if items:
                report.fault(f"{name}: {_counted(len(items), 'class')} {what}", items)
        each = published.per_class.get(name)
        other = [f"{given} {count}" for given, count in domain.counts.items() if each not in (None, count)]
        if other:
            report.fault(f"{name}: {_counted(len(other), 'class')} without the published {each} pictures", other)
        total = sum(domain.counts.values())
        if total not in domain.published:
            figures = " or ".join(f"{figure:,}" for figure in domain.published)
            report.fault(f"{name}: {_counted(total, 'picture')}, published are {figures}")


def _compare_domains(found: FoundSet, report: Report) -> None:
    """Find the classes that are in one domain only."""
    if found.gallery in report.domains and "sketches" in report.domains:
        _tell_lonely(report, "sketches", found.gallery)


def _tell_lonely(report: Report, sketches: str, images: str) -> None:
    drawn, shown = ({spelling(name): name for name in report.domains[d].counts} for d in (sketches, images))
    for here, there, what in ((drawn, shown, "sketches but no images"), (shown, drawn, "images but no sketches")):
        alone = sorted(here[key] for key in here.keys() - there.keys())
        if alone:
            report.fault(f"{_counted(len(alone), 'class')} with {what}", alone)


class _Picture(NamedTuple):
    domain: str
    label: str
    path: str  # or the row's id
    held: dict[str, Any] | None = None  # of a row: bytes, or another path


def _look_at_pictures(pictures: Iterable[_Picture], total: int | None, workers: int | None, report: Report) -> None:
    """Decode every picture; find those that cannot be read, and those that are there twice."""
    pictures = iter(pictures)
    first: dict[bytes, _Picture] = {}
    again: dict[bytes, list[_Picture]] = {}
    broken = []
    with (
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
        tqdm(total=total, desc="decode", unit="picture") as bar,
    ):
        while chunk := list(islice(pictures, _CHUNK)):
            for picture, (digest, fault) in zip(chunk, pool.map(_look, chunk), strict=True):
                if fault:
                    broken.append(fault)
                if digest in first:
                    again.setdefault(digest, [first[digest]]).append(picture._replace(held=None))
                elif digest:
                    first[digest] = picture._replace(held=None)
            bar.update(len(chunk))
    if broken:
        report.fault(f"{_counted(len(broken), 'picture')} cannot be read", broken)
    _tell_doubles(again.values(), report)


def _look(picture: _Picture) -> tuple[bytes, str | None]:
    """Give what tells a file's content apart, and what is wrong with it."""
    try:
        held = picture.held or {"bytes": None, "path": picture.path}
        content = Path(held["path"]).read_bytes() if held["bytes"] is None else held["bytes"]
    except OSError as error:
        return b"", f"{picture.path} cannot be read ({error.strerror})"
    try:
        open_picture({"bytes": content, "path": picture.path})
    except PictureError as error:
        return b"", str(error)
    return hashlib.blake2b(content, digest_size=16).digest(), None


def _tell_doubles(groups: Iterable[list[_Picture]], report: Report) -> None:
    """Sort pictures of the same bytes: those to expect, those that do no harm, those that contradict each other."""
    expected, harmless = 0, []
    contradictions: dict[str, list[str]] = {}
    for group in groups:
        domains = Counter(picture.domain for picture in group)
        if domains["photographs"] and domains["extended images"]:
            expected += domains["photographs"]
            group = [picture for picture in group if picture.domain != "photographs"]
        if len(group) < 2:
            continue
        paths = " = ".join(picture.path for picture in group)
        if len({spelling(picture.label) for picture in group}) > 1:
            contradictions.setdefault("the same picture in several classes", []).append(paths)
        elif len({picture.domain for picture in group}) > 1:
            contradictions.setdefault("the same picture as sketch and as image", []).append(paths)
        else:
            harmless.append(paths)
    for about, items in contradictions.items():
        report.fault(f"{about} ({_counted(len(items), 'case')})", items)
    if harmless:
        report.note(f"the same picture several times in a class ({_counted(len(harmless), 'case')})", harmless)
    if expected:
        photographs = sum(report.domains["photographs"].counts.values())
        report.note(
            f"{expected:,} of the {photographs:,} photographs are among the extended images, too: this is "
            "expected, and the extended images alone are the gallery"
        )


def _counted(count: int, thing: str) -> str:
    plural = thing if count == 1 else f"{thing}{'es' if thing.endswith('s') else 's'}"
    return f"{count:,} {plural}"
