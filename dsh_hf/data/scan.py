"""Class folders, and the pictures in them: found, listed and measured without opening a file."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsh_hf.data.spelling import spelling
from dsh_hf.processing import PICTURE_SUFFIXES

_NAMED = 5
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "$RECYCLE.BIN"})


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of one class.

    Attributes:
        path: the folder.
        names: of the files, sorted.
        sizes: in bytes, int64 of shape ``(n,)``.
        times: of the last change, in nanoseconds, int64 of shape ``(n,)``.
    """

    path: Path
    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)


def digest_of(folders: Iterable[PictureFolder]) -> str:
    """Give what tells lists of files apart by their names, sizes and times."""
    digest = hashlib.sha256()
    for folder in folders:
        digest.update("\0".join([str(folder.path), *folder.names]).encode())
        digest.update(folder.sizes.tobytes() + folder.times.tobytes())
    return digest.hexdigest()


def first_of(items: Sequence[str]) -> str:
    """Name the first few, and say how many more there are."""
    more = f"; and {len(items) - _NAMED:,} more" if len(items) > _NAMED else ""
    return "; ".join(items[:_NAMED]) + more


def is_clutter(name: str) -> bool:
    """Tell the files and folders that systems leave behind: hidden, AppleDouble (``._*``), ``__MACOSX``."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def visible_folders(folder: Path) -> list[Path]:
    """List the folders in a folder by name, clutter left out."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if not is_clutter(entry.name) and entry.is_dir())


def class_folders(folder: Path) -> dict[str, Path]:
    """Give each class's folder by the class's name, sorted.

    Raises:
        FileNotFoundError: there are none.
    """
    found = {path.name: path for path in visible_folders(folder)}
    if not found:
        raise FileNotFoundError(f"no class folders in {folder}: expected <class>/<picture> there")
    return found


def by_spelling(classes: Mapping[str, Path]) -> dict[str, str]:
    """Give the names of classes by their spelling.

    Raises:
        ValueError: a class is there twice, under two spellings.
    """
    names: dict[str, str] = {}
    for name in classes:
        other = names.setdefault(spelling(name), name)
        if other != name:
            raise ValueError(
                f"the same class twice, in two spellings: {classes[other]} and {classes[name]}; "
                "merge them, or rename one"
            )
    return names


def is_picture(name: str) -> bool:
    """Tell by its suffix whether a file is a picture, and no clutter."""
    return name[name.rfind(".") :].lower() in PICTURE_SUFFIXES and name[0] != "."


def list_pictures(folders: Iterable[Path]) -> list[PictureFolder]:
    """List the pictures in class folders: the files with a picture's suffix, clutter left out.

    Raises:
        FileNotFoundError: folders without a picture; all of them are named.
        ValueError: a file's name is not UTF-8.
    """
    listed = [_list(folder) for folder in folders]
    empty = [str(folder.path) for folder in listed if not folder.names]
    if empty:
        raise FileNotFoundError(
            f"no pictures in {first_of(empty)}: unpack or copy the set again, or leave the class out"
        )
    return listed


def _list(folder: Path) -> PictureFolder:
    # os.scandir's entries, and threads, were measured slower than this on 200,000 files.
    names = sorted(name for name in os.listdir(folder) if is_picture(name))
    try:
        f"{folder}{''.join(names)}".encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{os.fsencode(folder)!r}: it or a file in it has a name that is not UTF-8: rename") from error
    start = f"{folder}{os.sep}"
    numbers = [_size_and_time(start + name) for name in names]
    sizes, times = np.array(numbers, dtype=np.int64).reshape(-1, 2).T.copy()
    return PictureFolder(folder, tuple(names), sizes, times)


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:  # a link to nothing is found, and named, when its content is looked at
        return 0, 0
    return status.st_size, status.st_mtime_ns
