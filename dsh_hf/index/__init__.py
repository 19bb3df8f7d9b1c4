"""Search engines for packed binary codes, all behind one interface: :class:`Index`."""

from importlib import import_module
from os import PathLike

from numpy.typing import ArrayLike

from dsh_hf.index.base import Index, IndexChangedError, IndexFileError, IndexMismatchError
from dsh_hf.index.exact import ExactIndex

__all__ = ["ExactIndex", "Index", "IndexChangedError", "IndexFileError", "IndexMismatchError", "open_index"]

# Where each engine is; but for the exact one, no module is imported until its engine is asked for.
ENGINES = {
    "exact": "dsh_hf.index.exact:ExactIndex",
    "hnsw": "dsh_hf.index.hnsw:HnswIndex",
    "faiss-flat": "dsh_hf.index.faiss:FaissFlatIndex",
    "faiss-ivf": "dsh_hf.index.faiss:FaissIvfIndex",
    "faiss-hnsw": "dsh_hf.index.faiss:FaissHnswIndex",
    "torch": "dsh_hf.index.torch:TorchIndex",
}
# The same for the schemes of URLs, behind which an index is kept by a server.
SERVERS = {
    "postgresql": "dsh_hf.index.postgres:PostgresIndex",
    "postgres": "dsh_hf.index.postgres:PostgresIndex",
    "milvus+http": "dsh_hf.index.milvus:MilvusIndex",
    "milvus+https": "dsh_hf.index.milvus:MilvusIndex",
}


def open_index(
    spec: str,
    *,
    bits: int,
    path: str | PathLike[str] | None = None,
    fingerprint: str | None = None,
    pivots: ArrayLike | None = None,
) -> Index:
    """Open an index, or make an empty one.

    Args:
        spec: the engine. "exact": every answer exact, NumPy alone. "hnsw": a graph, by hnswlib. "faiss-flat",
            "faiss-ivf", "faiss-hnsw": by FAISS. "torch": exact, for many queries at once, on a GPU where there is
            one. Or the URL of a server: "postgresql://..." (pgvector), "milvus+http://...".
        bits: length of the codes.
        path: file of the index; an empty index where it does not exist yet.
        fingerprint: fingerprint of the model that makes the codes; stored with the index.
        pivots: codes that the collection gathers around, such as the model's class codes, uint8 of shape
            ``(n, ceil(bits / 8))``; they can make the exact engine faster and change no answer.

    Raises:
        ValueError: an unknown engine, or a path beside a URL.
        IndexFileError: the file is truncated, altered, or no index.
        IndexMismatchError: the file, or the server's table, holds codes of another engine, length or model.
        ImportError: the engine's package is not installed.
    """
    engine = engine_class(spec)
    if "://" in spec:
        if path is not None:
            raise ValueError(f"an index at a URL is kept there, not at a path: leave out path={str(path)!r}")
        index = engine(url=spec, bits=bits, fingerprint=fingerprint)  # type: ignore[call-arg]
    elif path is None:
        index = engine(bits=bits, fingerprint=fingerprint)
    else:
        index = engine.open(path, bits=bits, fingerprint=fingerprint)
    if pivots is not None:
        index.use_pivots(pivots)
    return index


def engine_class(spec: str) -> type[Index]:
    """Import the engine that a name, or a URL's scheme, stands for.

    Raises:
        ValueError: an unknown engine.
    """
    scheme, separator, _ = spec.partition("://")
    known = SERVERS if separator else ENGINES
    if scheme not in known:
        names = [*ENGINES, *(f"{name}://..." for name in SERVERS)]
        raise ValueError(f"no search engine is called {scheme!r}: choose one of {', '.join(names)}")
    module, _, name = known[scheme].partition(":")
    return getattr(import_module(module), name)
