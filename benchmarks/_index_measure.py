"""The measures of the benchmark of the index: times interleaved with FAISS's flat scan, recall and bytes."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes
from dsh_hf.index import Index

KS = (10, 200)
TURN = 10  # queries that one side answers before it is the other's turn
SECONDS = 8.0  # at the most for the single queries of one engine and k; slow engines answer fewer of them
LEAST = 5  # single queries, however slow
BATCHES = 3
FEATURES, FLOAT_QUERIES = 1024, 30  # the float features beside which codes are measured


class Reference:
    """FAISS's flat scan of the same codes: the exact answers, and the times to compare with.

    Attributes:
        kth: by k, every query's exact k-th distance, shape ``(n, 1)``; ids: by k, the exact ids.
        heap: by k, which setting of ``use_heap`` is the faster one; this is the one that is compared with.
    """

    def __init__(self, codes: Codes, queries: Codes, ks: tuple[int, ...] = KS) -> None:
        import faiss

        self._flat: Any = faiss.IndexBinaryFlat(8 * codes.shape[1])
        self._flat.add(codes)
        self.kth: dict[int, NDArray[np.int32]] = {}
        self.ids: dict[int, NDArray[np.int64]] = {}
        self.heap: dict[int, bool] = {}
        with one_core():
            for k in ks:
                far, self.ids[k] = self._flat.search(queries, k)
                self.kth[k] = far[:, -1:]
                by_heap, by_count = interleaved(
                    partial(self.search, k=k, heap=True), partial(self.search, k=k, heap=False), queries, seconds=2
                )
                self.heap[k] = bool(np.median(by_heap) <= np.median(by_count))

    def search(self, query: Codes, k: int, heap: bool | None = None) -> None:
        """Search for one query, shape ``(bytes,)``."""
        self._flat.use_heap = self.heap[k] if heap is None else heap
        self._flat.search(query[None], k)


def measure(index: Index, codes: Codes, queries: Codes, reference: Reference, local: bool = True) -> dict[str, Any]:
    """Build an empty index and search it; times in seconds (build) and milliseconds (a query), bytes an item.

    Args:
        index: an empty index; its items get ids from 0 on.
        codes: what it shall hold.
        queries: codes of the same bits.
        reference: FAISS's flat scan of ``codes``.
        local: whether the index is in this process, so that its file and memory can be measured.
    """
    began = time.perf_counter()
    index.add(codes, np.arange(len(codes)))
    index.search(queries[0], KS[0])  # engines may put off work until the first search
    result: dict[str, Any] = {"build": time.perf_counter() - began}
    if local:
        result |= _bytes_an_item(index)
    with one_core():
        for k in KS:
            result[f"k{k}"] = _searches(index, codes, queries, k, reference)
        batches = []
        for _ in range(BATCHES):
            began = time.perf_counter()
            index.search(queries, KS[0])
            batches.append(time.perf_counter() - began)
    return result | {"batch": len(queries) / float(np.median(batches))}


def interleaved(
    first: Callable[[Codes], Any], second: Callable[[Codes], Any], queries: Codes, seconds: float = SECONDS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the milliseconds that two searches take, one query at a time, in turns, after one for warmth."""
    times: tuple[list[float], list[float]] = ([], [])
    first(queries[0]), second(queries[0])
    began = time.perf_counter()
    for start in range(0, len(queries), TURN):
        for search, taken in zip((first, second), times, strict=True):
            for query in queries[start : start + TURN]:
                before = time.perf_counter()
                search(query)
                taken.append(1e3 * (time.perf_counter() - before))
                if len(taken) >= LEAST and time.perf_counter() - began > seconds:
                    break
        if time.perf_counter() - began > seconds:
            break
    return np.array(times[0]), np.array(times[1])


def float_search(size: int) -> dict[str, float]:
    """Give the median milliseconds of FAISS's exact search over 1024-d float features, by k.

    The features are random: the time of a full scan does not hang on what they are.

    Raises:
        MemoryError: the features do not fit.
    """
    import faiss

    draws = np.random.default_rng(0)
    index = faiss.IndexFlatL2(FEATURES)
    index.add(draws.random((size, FEATURES), dtype=np.float32))
    queries = draws.random((FLOAT_QUERIES, FEATURES), dtype=np.float32)
    medians = {}
    with one_core():
        for k in KS:
            times = []
            for query in queries:
                began = time.perf_counter()
                index.search(query[None], k)
                times.append(1e3 * (time.perf_counter() - began))
            medians[f"k{k}"] = float(np.median(times))
    return medians


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts, on one processor core; FAISS and PyTorch to one thread."""
    import faiss
    import torch

    threads = faiss.omp_get_max_threads(), torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        faiss.omp_set_num_threads(threads[0])
        torch.set_num_threads(threads[1])


def recall(ids: NDArray[np.int64], codes: Codes, queries: Codes, kth: NDArray[np.int32], k: int) -> float:
    """Give the share of the k wanted items that were found: different ones, none farther than the exact k-th."""
    hits = 0
    for query, found, limit in zip(queries, ids, kth, strict=True):
        different = np.unique(found)
        far = np.bitwise_count(codes[different] ^ query).sum(axis=1)
        hits += min(k, int((far <= limit).sum()))
    return hits / (k * len(queries))


def _searches(index: Index, codes: Codes, queries: Codes, k: int, reference: Reference) -> dict[str, Any]:
    flat, times = interleaved(partial(reference.search, k=k), partial(index.search, k=k), queries)
    _, ids = index.search(queries, k)
    return {
        "p50": float(np.median(times)),
        "p99": float(np.quantile(times, 0.99)),
        "queries": len(times),
        "flat": float(np.median(flat)),
        "flat_heap": reference.heap[k],
        "ratio": float(np.median(times) / np.median(flat)),
        "recall": recall(ids, codes, queries, reference.kth[k], k),
        "identical": bool(np.array_equal(ids, reference.ids[k])),
    }


def _bytes_an_item(index: Index) -> dict[str, float]:
    """Give what an item takes in memory and, without its id of eight bytes, in the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index.save(path)
        disk = path.stat().st_size
    stats = index.stats()
    return {
        "disk": disk / len(index) - 8,
        "memory": stats["bytes"] / len(index),
        "distinct": stats["distinct"],
    }
