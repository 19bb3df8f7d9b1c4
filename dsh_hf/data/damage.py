"""Damaged pictures, found by each file's head and tail; what was found whole is remembered."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from dsh_hf.data.scan import PictureFolder, digest_of, first_of
from dsh_hf.files import replaced_atomically
from dsh_hf.processing import PictureError, open_picture

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_DIGEST = b"digest"
_THREADS = 8  # no faster than one where the files are in memory, much faster where they come from a disk
_TAIL = 1024  # cameras and editors leave a few bytes behind a picture's end


def check_pictures(folders: Sequence[PictureFolder]) -> None:
    """Look at the head and the tail of each file that was not found whole before.

    Files that look wrong are decoded, so that none is refused that can be used. A table of the whole ones, with
    their sizes and times, is kept in the cache folder of ``datasets``: only new and changed files are looked at.

    Args:
        folders: class folders that lie in one folder.

    Raises:
        PictureError: damaged pictures and files that are none; the first are named, with their number.
    """
    import pyarrow as pa

    digest = digest_of(folders).encode()
    kept = _kept_at(folders[0].path.parent)
    known = _read(kept)
    if known is not None and known.schema.metadata[_DIGEST] == digest:
        return
    table = _table(folders)
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = pool.map(_faults, folders, _unknown(folders, known))
        found = list(tqdm(looks, "look at pictures", len(folders), unit="class", disable=None, delay=2))
    faults = [fault for of_folder in found for fault in of_folder.values()]
    whole = np.concatenate([_all_but(rows, len(folder)) for rows, folder in zip(found, folders, strict=True)])
    table = pa.concat_tables([table.filter(pa.array(whole)), *_of_other_folders(folders, known)])
    _write(kept, table.replace_schema_metadata({_DIGEST: b"" if faults else digest}))
    if faults:
        raise PictureError(
            f"{len(faults):,} of {len(whole):,} pictures cannot be used: {first_of(faults)}. "
            "Remove them or copy them again; all are listed by: dsh-hf data check"
        )


def looks_whole(head: bytes, tail: bytes, size: int) -> bool:
    """Tell from its first 16 and its last bytes whether a file is a picture that ends where it should."""
    if head.startswith(b"\xff\xd8\xff"):  # JPEG
        return b"\xff\xd9" in tail
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND\xaeB`\x82" in tail
    if head.startswith((b"GIF87a", b"GIF89a")):
        return tail.rstrip(b"\0").endswith(b";")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if head.startswith(b"BM"):
        return 54 <= int.from_bytes(head[2:6], "little") <= size
    return head.startswith((b"II*\0", b"MM\0*"))  # TIFF has no mark at its end


def _table(folders: Sequence[PictureFolder]) -> "pa.Table":
    import pyarrow as pa

    paths = [path for folder in folders for path in _paths(folder)]
    sizes, times = (np.concatenate([getattr(f, column) for f in folders]) for column in ("sizes", "times"))
    return pa.table({"path": paths, "size": sizes, "time": times})


def _unknown(folders: Sequence[PictureFolder], known: "pa.Table | None") -> list[np.ndarray]:
    """Give the rows of each folder that the table of whole files lacks."""
    if known is None:
        return [np.arange(len(folder)) for folder in folders]
    whole = set(zip(*(known[name].to_pylist() for name in ("path", "size", "time")), strict=True))
    rows = []
    for folder in folders:
        files = zip(_paths(folder), folder.sizes.tolist(), folder.times.tolist(), strict=True)
        rows.append(np.array([row for row, file in enumerate(files) if file not in whole], dtype=np.intp))
    return rows


def _of_other_folders(folders: Sequence[PictureFolder], known: "pa.Table | None") -> "list[pa.Table]":
    """Give what is known of classes that were not asked for this time."""
    import pyarrow as pa

    if known is None:
        return []
    listed = {folder.path.name for folder in folders}
    return [known.filter(pa.array([path.partition("/")[0] not in listed for path in known["path"].to_pylist()]))]


def _paths(folder: PictureFolder) -> list[str]:
    start = f"{folder.path.name}/"
    return [start + name for name in folder.names]


def _faults(folder: PictureFolder, rows: np.ndarray) -> dict[int, str]:
    """Say what is wrong with those of a folder's files that are damaged, by their row."""
    start = f"{folder.path}{os.sep}"
    faults = {}
    for row in rows.tolist():
        fault = _fault(start + folder.names[row], int(folder.sizes[row]))
        if fault:
            faults[row] = fault
    return faults


def _fault(path: str, size: int) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_TAIL)
            if size > _TAIL:
                file.seek(-_TAIL, os.SEEK_END)
                tail = file.read(_TAIL)
            else:
                tail = head
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if looks_whole(head[:16], tail, size):
        return None
    if not head:
        return f"{path} is empty"
    if not tail.strip(b"\0"):  # padded after its end, or made in full size and never filled: that may decode
        content = Path(path).read_bytes().rstrip(b"\0")
        if not looks_whole(content[:16], content[-_TAIL:], len(content)):
            return f"{path} is damaged or truncated (it ends in zeros): save or copy it again"
    try:
        open_picture(path)
    except PictureError as error:
        return str(error)
    return None


def _all_but(rows: Iterable[int], count: int) -> np.ndarray:
    wanted = np.ones(count, dtype=bool)
    wanted[list(rows)] = False
    return wanted


def _kept_at(folder: Path) -> Path:
    from datasets import config

    name = hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:32]
    return Path(config.HF_DATASETS_CACHE) / "dsh_hf" / f"whole-{name}.arrow"


def _read(path: Path) -> "pa.Table | None":
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowInvalid) as error:  # costs time, not the data
        logger.debug("%s is not used: %s", path, error)
        return None
    return table if _DIGEST in (table.schema.metadata or {}) else None


def _write(path: Path, table: "pa.Table") -> None:
    import pyarrow as pa

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(path) as temporary, pa.ipc.new_file(str(temporary), table.schema) as file:
            file.write_table(table)
    except OSError as error:
        logger.debug("%s could not be kept, all files will be looked at again: %s", path, error)
