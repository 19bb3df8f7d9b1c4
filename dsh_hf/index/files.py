"""The file of an index: one safetensors file with a checksum, written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dsh_hf.files import parse_json, replaced_atomically
from dsh_hf.index.base import IndexChangedError, IndexFileError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

FORMAT_VERSION = 2
HEADER, CHECKSUM = "dsh_hf_index", "sha256"
ANYTHING: Final = "anything"

Tensors = dict[str, NDArray[Any]]


def write_index_file(
    path: str | PathLike[str], header: dict[str, Any], tensors: Tensors, replaces: str | None = ANYTHING
) -> str:
    """Write ``header`` (plain values) and ``tensors`` to ``path``; on any failure an earlier file stays.

    Args:
        path: the file; its folder is made where missing.
        header: plain values.
        tensors: arrays by name.
        replaces: checksum of the index that may be replaced, ``None`` for none at all.

    Returns:
        The checksum.

    Raises:
        IndexChangedError: the file holds an index with another checksum.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"version": FORMAT_VERSION, **header}
    checksum = checksum_of(json.dumps(header), tensors)
    with _locked(path):
        if replaces != ANYTHING and _checksum_in(path) not in (None, replaces):
            raise IndexChangedError(
                f"another process has saved {path} since this index was opened: open it again and repeat the change, "
                f"or save to another path"
            )
        with replaced_atomically(path) as temporary:
            # One key alone: safetensors writes several in any order, and an index saved again would be another file.
            save_file(tensors, temporary, metadata={HEADER: json.dumps({**header, CHECKSUM: checksum})})
    return checksum


def read_index_file(path: str | PathLike[str]) -> tuple[dict[str, Any], Tensors, str]:
    """Read header, tensors and checksum as :func:`write_index_file` wrote them.

    Raises:
        FileNotFoundError: no such file.
        IndexFileError: the file is truncated, altered, of a newer format, or no index.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no index file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            header, checksum = _stated(file.metadata() or {})
            if checksum is None:
                raise IndexFileError(f"{path} is a safetensors file, but not an index of dsh-hf")
            if header["version"] > FORMAT_VERSION:
                raise IndexFileError(f"{path} has the newer format {header['version']}: upgrade dsh-hf to open it")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except IndexFileError:
        raise
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IndexFileError(f"{path} is truncated or not an index: {REMEDY}") from error
    if checksum_of(json.dumps(header), tensors) != checksum:
        raise IndexFileError(f"{path} has been altered since it was saved: {REMEDY}")
    return header, tensors, checksum


def whole_numbers(tensors: Tensors, name: str, size: int, below: int) -> NDArray[Any]:
    """Give a tensor that must hold ``size`` whole numbers from 0 on, less than ``below``.

    Raises:
        KeyError: there is none of the name.
        ValueError: it is not such a one.
    """
    array = tensors[name]
    if array.shape != (size,) or array.dtype not in (np.int32, np.int64):
        raise ValueError(f"{name} has the shape {array.shape} and the type {array.dtype}")
    if size and not 0 <= array.min() <= array.max() < below:
        raise ValueError(f"{name} holds numbers out of range")
    return array


def starts(tensors: Tensors, name: str, parts: int, end: int) -> NDArray[Any]:
    """Give a tensor that must tell where each of so many parts starts, and last the ``end``.

    Raises:
        KeyError: there is none of the name.
        ValueError: it is not such a one.
    """
    array = whole_numbers(tensors, name, parts + 1, end + 1)
    if array[0] != 0 or array[-1] != end or (array[1:] < array[:-1]).any():
        raise ValueError(f"{name} does not ascend from 0 to {end}")
    return array


def is_permutation(numbers: NDArray[Any]) -> bool:
    """Tell whether each number below the size of the array, all in range, stands in it once."""
    seen = np.zeros(numbers.size, np.bool_)
    seen[numbers] = True
    return bool(seen.all())


REMEDY = "restore a copy, or delete it and add the codes again"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let no other process save this file meanwhile, where the file system knows locks; one waits its turn."""
    if fcntl is None:
        yield
        return
    place = path.with_name(f".{path.name}.lock")
    handle = _hold_lock(place)
    try:
        yield
    finally:
        place.unlink(missing_ok=True)  # while it is held, so that it is no other's
        os.close(handle)


def _hold_lock(place: Path) -> int:
    while True:
        handle = os.open(place, os.O_CREAT | os.O_RDWR, 0o666)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), place.stat()):
                return handle
        os.close(handle)  # who held it before has removed it


def _checksum_in(path: Path) -> str | None:
    """Give the checksum that an index file states; ``None`` where there is no index."""
    try:
        with safe_open(path, framework="numpy") as file:
            return _stated(file.metadata() or {})[1]
    except (OSError, SafetensorError, AttributeError, ValueError):
        return None


def _stated(metadata: dict[str, str]) -> tuple[dict[str, Any], str | None]:
    """Give the header and the checksum that a file states; ``None`` for the checksum of what is no index."""
    header = parse_json(metadata.get(HEADER, "{}"))
    return header, header.pop(CHECKSUM, metadata.get(CHECKSUM))  # in format 1 it had a key of its own


def checksum_of(header: str, tensors: Tensors) -> str:
    """Give the SHA-256, in hex, of a header as JSON and of tensors."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
