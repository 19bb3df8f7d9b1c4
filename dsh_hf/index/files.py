"""The file of an index: one safetensors file with a checksum, written whole or not at all."""

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dsh_hf.files import replaced_atomically
from dsh_hf.index.base import IndexFileError

FORMAT_VERSION = 1
HEADER, CHECKSUM = "dsh_hf_index", "sha256"

Tensors = dict[str, NDArray[Any]]


def write_index_file(path: str | PathLike[str], header: dict[str, Any], tensors: Tensors) -> None:
    """Write ``header`` (plain values) and ``tensors`` to ``path``; on any failure an earlier file stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": FORMAT_VERSION, **header})
    metadata = {HEADER: text, CHECKSUM: _checksum(text, tensors)}
    with replaced_atomically(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_index_file(path: str | PathLike[str]) -> tuple[dict[str, Any], Tensors]:
    """Read what :func:`write_index_file` wrote.

    Raises:
        FileNotFoundError: no such file.
        IndexFileError: the file is truncated, altered, of a newer format, or no index.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no index file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if HEADER not in metadata or CHECKSUM not in metadata:
                raise IndexFileError(f"{path} is a safetensors file, but not an index of dsh-hf")
            header = json.loads(metadata[HEADER])
            if header["version"] > FORMAT_VERSION:
                raise IndexFileError(f"{path} has the newer format {header['version']}: upgrade dsh-hf to open it")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise IndexFileError(f"{path} is truncated or not an index: {_REMEDY}") from error
    if _checksum(metadata[HEADER], tensors) != metadata[CHECKSUM]:
        raise IndexFileError(f"{path} has been altered since it was saved: {_REMEDY}")
    return header, tensors


_REMEDY = "restore a copy, or delete it and add the codes again"


def _checksum(header: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
