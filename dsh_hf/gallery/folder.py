"""The pictures of a folder, as candidates for a gallery."""

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dsh_hf.gallery.items import Candidate, Item, RetrieverError, metadata_text
from dsh_hf.processing import PICTURE_SUFFIXES

logger = logging.getLogger(__name__)

Stamp = tuple[int, int]


def find_pictures(folder: Path) -> tuple[dict[str, Stamp], dict[str, str]]:
    """List a folder's pictures by path inside it, with a stamp (bytes, time of change) that tells a changed file.

    The second mapping is of what cannot be reached (a link to nothing, a closed folder), and why.

    Raises:
        RetrieverError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise RetrieverError(f"{folder}: no such folder; check the path")
    found: dict[str, Stamp] = {}
    skipped: dict[str, str] = {}

    def skip(error: OSError) -> None:
        skipped[Path(error.filename).relative_to(folder).as_posix()] = f"{error.filename}: {error.strerror}"
        logger.warning("skipped: %s: %s", error.filename, error.strerror)

    for root, folders, files in os.walk(folder, onerror=skip):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root) / name
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith("."):
                try:
                    status = path.stat()
                except OSError as error:
                    skip(error)
                    continue
                found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    if not found and not skipped:
        raise RetrieverError(f"{folder} has no pictures in it ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return found, skipped


def folder_candidates(folder: Path, keys: Sequence[str], stamps: Mapping[str, Stamp]) -> Iterator[Candidate]:
    """Give the pictures of a folder under these keys; the first folder inside it is the label."""
    for key in keys:
        label, inside, _ = key.partition("/")
        metadata = metadata_text({"label": label} if inside else {})
        yield Candidate(key, folder / key, Item(metadata=metadata, stamp=stamps[key]))


def lies_under(key: str, places: Collection[str]) -> bool:
    """Tell whether a path inside a folder is one of these places, or lies under one of them; "." is the folder."""
    path = PurePosixPath(key)
    return any(place.as_posix() in places for place in (path, *path.parents))
