"""Search by the triangle inequality: most codes are left out unseen, and no near one among them.

Codes lie in rings around pivots: a ring is what is at one distance, its radius, from its nearest pivot. What is
within T of a query that is d away from a pivot has a radius between d - T and d + T. A model's codes gather around
the classes, so few rings remain.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsh_hf.index.arrays import Places, Words, place_dtype, to_codes, to_words
from dsh_hf.index.scan import (
    NOTHING,
    Near,
    Part,
    distances_to,
    distances_to_parts,
    hide,
    kth_smallest,
    nearest,
    parts_within,
    scan,
)

BLOCK = 8_192  # codes whose pivots are found at a time
SAMPLE, ROUNDS = 40, 5  # of k-means: codes a pivot, and how often the pivots are moved
RING_BITS = 23  # of a sorting key, in front of the code's number
WORTH = 0.6  # of all codes; where more of them remain, all are compared: block by block that is as fast

Empty = Places | None  # codes to be passed over, ascending


class Rings(NamedTuple):
    """The rings of codes that are sorted by (pivot, radius).

    Attributes:
        pivots: codes of shape ``(words, pivots)``.
        starts: where each ring starts and the last one ends; ``bits + 1`` rings a pivot, by radius.
        bits: length of the codes.
    """

    pivots: Words
    starts: NDArray[Any]
    bits: int

    def near(self, words: Words, query: NDArray[np.uint64], k: int, empty: Empty = None) -> Near:
        """Find the ``k`` codes nearest to a query and their ties, as :func:`scan` does."""
        away = self._away(query)
        home = self._home(away, k)
        at_home = self._all_of(home)
        if self._too_many(at_home):
            return scan(words, query, self.bits, k, empty)
        far = _compare(words, query, at_home, empty)
        reach = kth_smallest(far, k, self.bits)
        others = self._between(away, reach, home)
        if self._too_many(others):
            return scan(words, query, reach, k, empty)
        places, far = parts_within(far, at_home, reach)
        if others:
            more, more_far = parts_within(_compare(words, query, others, empty), others, reach)
            places, far = np.concatenate([places, more]), np.concatenate([far, more_far])
        return nearest(places, far, k, reach)

    def within(self, words: Words, query: NDArray[np.uint64], r: int, empty: Empty = None) -> Near:
        """Find the codes within distance ``r`` of a query, as :func:`scan` does."""
        parts = self._between(self._away(query), r, [])
        if self._too_many(parts):
            return scan(words, query, r, empty=empty)
        if not parts:
            return NOTHING
        return parts_within(_compare(words, query, parts, empty), parts, r)

    def share(self, words: Words, queries: Words, k: int) -> float:
        """Measure which share of the codes is compared for a query, on average."""
        compared = 0
        for query in queries.T:
            away = self._away(query)
            home = self._home(away, k)
            at_home = self._all_of(home)
            reach = kth_smallest(_compare(words, query, at_home), k, self.bits)
            compared += sum(stop - start for start, stop in at_home + self._between(away, reach, home))
        return compared / (queries.shape[1] * words.shape[1])

    def numbers(self) -> NDArray[np.int32]:
        """Give the ring of every code."""
        return np.repeat(np.arange(self.starts.size - 1, dtype=np.int32), np.diff(self.starts))

    def _away(self, query: NDArray[np.uint64]) -> NDArray[np.int64]:
        return distances_to(query, self.pivots).astype(np.int64)

    def _home(self, away: NDArray[np.int64], k: int) -> list[int]:
        """Give the nearest pivot, or so many of the nearest that ``k`` codes are theirs."""
        edges = self.starts[:: self.bits + 1]
        first = int(away.argmin())
        if edges[first + 1] - edges[first] >= k:
            return [first]
        order = np.argsort(away, kind="stable")
        held = np.cumsum((edges[1:] - edges[:-1])[order])
        return order[: np.searchsorted(held, k) + 1].tolist()

    def _all_of(self, pivots: list[int]) -> list[Part]:
        edges = self.starts[:: self.bits + 1]
        return [(int(edges[pivot]), int(edges[pivot + 1])) for pivot in pivots]

    def _between(self, away: NDArray[np.int64], reach: int, seen: list[int]) -> list[Part]:
        """Give the rings that may hold a code within ``reach``, without those of the pivots ``seen``."""
        first = np.arange(0, self.starts.size - 1, self.bits + 1)
        starts = self.starts[first + np.maximum(away - reach, 0)]
        stops = self.starts[first + np.minimum(away + reach, self.bits) + 1]
        remain = stops > starts
        remain[seen] = False
        return list(zip(starts[remain].tolist(), stops[remain].tolist(), strict=True))

    def _too_many(self, parts: list[Part]) -> bool:
        return sum([stop - start for start, stop in parts]) > WORTH * self.starts[-1]


def _compare(words: Words, query: NDArray[np.uint64], parts: list[Part], empty: Empty = None) -> NDArray[Any]:
    far = distances_to_parts(query, words, parts)
    if empty is not None and parts:
        hide(far, parts, empty)
    return far


def most_pivots(bits: int) -> int:
    """Give how many pivots there may be."""
    return (1 << RING_BITS) // (bits + 1)


def ring_numbers(words: Words, pivots: Words, bits: int) -> NDArray[np.int32]:
    """Give the ring of each code: ``bits + 1`` rings a pivot, by the distance from it."""
    rings = np.empty(words.shape[1], np.int32)
    count = pivots.shape[1]
    for start in range(0, words.shape[1], BLOCK):
        block = words[:, start : start + BLOCK]
        best = np.full(block.shape[1], np.iinfo(np.uint32).max, np.uint32)
        key = np.empty_like(best)
        for pivot in range(count):
            key[:] = distances_to(pivots[:, pivot], block)
            key *= count
            key += pivot
            np.minimum(best, key, out=best)
        radius, which = np.divmod(best, count)
        rings[start : start + BLOCK] = which * (bits + 1) + radius
    return rings


def make_rings(rings: NDArray[np.int32], pivots: Words, bits: int) -> tuple[Rings, Places]:
    """Sort codes, given the ring of each; give the rings and the order of the codes in them."""
    number = place_dtype(rings.size)
    keys = rings.astype(np.int64)
    keys <<= 63 - RING_BITS
    keys |= np.arange(rings.size, dtype=number)
    keys.sort()  # much faster than to argsort
    keys &= (1 << 63 - RING_BITS) - 1
    sizes = np.bincount(rings, minlength=pivots.shape[1] * (bits + 1))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(number)
    return Rings(pivots, starts, bits), keys.astype(number)


def learn_pivots(words: Words, bits: int) -> Words:
    """Find pivots by k-means on a sample of codes: the mean of codes is their majority, bit by bit."""
    count = 1 << max(1, round(np.log2(words.shape[1]) / 2 - 2.3))  # 256 for a million codes, 512 for ten
    count = min(count, most_pivots(bits))
    draws = np.random.default_rng(0)
    sample = words[:, draws.choice(words.shape[1], min(words.shape[1], SAMPLE * count), replace=False)]
    pivots = _spread(sample, count, draws)
    signs = np.unpackbits(to_codes(sample, 8 * len(sample)), axis=1)
    for _ in range(ROUNDS):
        which = ring_numbers(sample, pivots, bits) // (bits + 1)
        order = np.argsort(which, kind="stable")
        held, first, sizes = np.unique(which[order], return_index=True, return_counts=True)
        votes = np.add.reduceat(signs[order], first, axis=0, dtype=np.int64)
        pivots[:, held] = to_words(np.packbits(2 * votes > sizes[:, None], axis=1))
    return np.unique(pivots, axis=1)


def _spread(sample: Words, count: int, draws: np.random.Generator) -> Words:
    """Draw codes far from each other: each with the square of its distance from those drawn before."""
    chosen = [0]
    gap = distances_to(sample[:, 0], sample)
    while len(chosen) < count and gap.any():
        weights = np.cumsum(gap.astype(np.int64) ** 2)
        chosen.append(int(np.searchsorted(weights, draws.integers(weights[-1]), side="right")))
        np.minimum(gap, distances_to(sample[:, chosen[-1]], sample), out=gap)
    return sample[:, chosen]
