"""One measure for codes and floats, iterative quantization, and what is kept of each query."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import hamming_distances, pack_signs
from dsh_hf.evaluation import _average_precisions, _precisions_at
from dsh_hf.files import replaced_atomically

Floats = NDArray[np.float32]

K = 10  # of precision@k
DEPTH = 200  # of a ranking that is kept
_CHUNK = 256  # queries at once


@dataclass(frozen=True, eq=False)
class Rankings:
    """What is known of each query.

    Attributes:
        average_precisions: over the whole gallery, expected over all orders of tied items, shape ``(queries,)``.
        precisions: precision@10, likewise.
        first: rows of the nearest gallery items, nearest first, tied ones in the gallery's order, ``(queries, depth)``.
        distances: theirs, of the same shape.
    """

    average_precisions: NDArray[np.float64]
    precisions: NDArray[np.float64]
    first: NDArray[np.int32]
    distances: NDArray[np.float32]

    def figures(self) -> dict[str, Any]:
        """Give the means, and the 95% bootstrap interval of the mAP over the queries."""
        low, high = interval(self.average_precisions)
        return {
            "map": float(self.average_precisions.mean()),
            "map_low": low,
            "map_high": high,
            "precision_at_10": float(self.precisions.mean()),
            "queries": len(self.precisions),
        }

    def save(self, path: Path) -> None:
        """Write everything into an ``.npz`` file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **vars(self))


def rank_codes(queries: Floats, gallery: Floats, query_labels: NDArray, gallery_labels: NDArray) -> Rankings:
    """Rank by the Hamming distance of the signs."""
    packed, others = pack_signs(queries), pack_signs(gallery)
    parts = (hamming_distances(packed[rows], others) for rows in _chunks(len(packed)))
    return _rank(parts, query_labels, gallery_labels)


def rank_floats(queries: Floats, gallery: Floats, query_labels: NDArray, gallery_labels: NDArray) -> Rankings:
    """Rank by the cosine distance."""
    units, others = unit_rows(queries), unit_rows(gallery)
    return _rank((1 - units[rows] @ others.T for rows in _chunks(len(units))), query_labels, gallery_labels)


def interval(values: NDArray, samples: int = 1000) -> tuple[float, float]:
    """Give the 95% interval of a mean over the choice of queries: percentile bootstrap."""
    draws = np.random.default_rng(0)
    means = [draws.choice(values, len(values)).mean() for _ in range(samples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def itq(train: Floats, bits: int, *others: Floats) -> list[Floats]:
    """Learn iterative quantization (Gong and Lazebnik, CVPR 2011): PCA, then the rotation nearest to the signs.

    Args:
        train: what it is learnt from, shape ``(n, d)``.
        bits: length of the codes, at most n and d.
        others: what it is applied to.

    Returns:
        For each of ``others`` real values whose signs are the code.

    Raises:
        ImportError: faiss is not installed.
        ValueError: there are fewer rows to learn from than bits.
    """
    if len(train) < bits:
        raise ValueError(f"ITQ of {bits} bits needs as many pictures to learn from, got {len(train)}")
    try:
        import faiss
    except ImportError as error:
        raise ImportError('ITQ is faiss\'s: pip install "dsh-hf[faiss]"') from error
    transform = faiss.ITQTransform(train.shape[1], bits, True)
    transform.train(unit_rows(train))
    return [transform.apply(unit_rows(values)) for values in others]


def unit_rows(values: Floats) -> Floats:
    """Scale each row to length 1."""
    return np.ascontiguousarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), np.float32)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _rank(parts: Iterator[NDArray], query_labels: NDArray, gallery_labels: NDArray) -> Rankings:
    found = []
    for rows, distances in zip(_chunks(len(query_labels)), parts, strict=True):
        same = query_labels[rows, None] == gallery_labels
        items = np.zeros(distances.shape, dtype=np.int64)
        relevant = np.zeros_like(items)
        for row, values in enumerate(distances):  # equal distances are one tie
            _, ties = np.unique(values, return_inverse=True)
            items[row] = np.bincount(ties, minlength=len(values))
            relevant[row] = np.bincount(ties, weights=same[row], minlength=len(values))
        first = np.argsort(distances, axis=1, kind="stable")[:, :DEPTH]
        nearest = np.take_along_axis(distances, first, axis=1)
        found.append((_average_precisions(items, relevant), _precisions_at(K, items, relevant), first, nearest))
    precisions, at_k, first, nearest = (np.concatenate(part) for part in zip(*found, strict=True))
    return Rankings(precisions, at_k, first.astype(np.int32), nearest.astype(np.float32))
