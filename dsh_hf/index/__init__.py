"""Search engines for packed binary codes, all behind one interface: :class:`Index`."""

from os import PathLike
from pathlib import Path

from dsh_hf.index.base import Index, IndexFileError, IndexMismatchError
from dsh_hf.index.exact import ExactIndex
from dsh_hf.index.hnsw import HnswIndex

__all__ = ["ExactIndex", "HnswIndex", "Index", "IndexFileError", "IndexMismatchError", "open_index"]

ENGINES: dict[str, type[Index]] = {engine.engine: engine for engine in (ExactIndex, HnswIndex)}


def open_index(
    spec: str, *, bits: int, path: str | PathLike[str] | None = None, fingerprint: str | None = None
) -> Index:
    """Open the index saved at ``path``, or make an empty one.

    Args:
        spec: the engine: "exact" (every answer exact, NumPy alone) or "hnsw" (a graph, needs hnswlib).
        bits: length of the codes.
        path: file of the index; an empty index where it does not exist yet.
        fingerprint: fingerprint of the model that makes the codes; stored with the index.

    Raises:
        ValueError: an unknown engine.
        IndexFileError: the file is truncated, altered, or no index.
        IndexMismatchError: the file holds codes of another engine, length or model.
        ImportError: the engine's package is not installed.
    """
    if spec not in ENGINES:
        raise ValueError(f"no search engine is called {spec!r}: choose one of {', '.join(ENGINES)}")
    engine = ENGINES[spec]
    if path is not None and Path(path).exists():
        return engine.load(path, bits=bits, fingerprint=fingerprint)
    return engine(bits=bits, fingerprint=fingerprint)
