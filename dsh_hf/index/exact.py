"""Exact search with NumPy alone: around pivots where codes are clustered, else one and all."""

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsh_hf.codes import Codes, check_codes, code_bytes
from dsh_hf.index.arrays import GrowingArray, Places, Words, distinct, mixed, place_dtype, to_codes, to_words
from dsh_hf.index.base import Found, Ids
from dsh_hf.index.files import Tensors, is_permutation, starts, whole_numbers
from dsh_hf.index.memory import MemoryIndex
from dsh_hf.index.pivots import WORTH, Rings, learn_pivots, make_rings, most_pivots, ring_numbers
from dsh_hf.index.rows import in_order, open_rows
from dsh_hf.index.scan import Near, scan

LEAST_TAIL, TAIL = 4_096, 16  # the tail is sorted in once it is longer than both this and a 16th of the rest
LEAST_RINGS = 65_536  # rows; fewer are compared one and all as fast
GROWTH = 2  # how to search is decided anew where there are so many times the rows
REPEATED = 0.6  # where fewer of the codes are distinct, equal ones share a row
TRIALS, TRIAL_K = 64, 10  # searches that tell whether rings are worth it

Laid = tuple[Words, Places, Places | None, Rings | None]  # what ExactIndex._set_rows takes


class ExactIndex(MemoryIndex):
    """The exact index: always the answers of a full sort, mostly for a look at few of the codes.

    Codes are kept in rows, sorted by the rings around pivots (see :mod:`dsh_hf.index.pivots`). A row holds one
    item, or where codes repeat much, all of one code. What is added waits in a tail, unsorted, and is compared
    one and all; a search sorts it in when it has grown, and other calls wait for it meanwhile. Whether rings are
    worth it is measured then; where they are not, the rows are compared one and all too. With codes of 64 bits, up
    to 72 bytes an item are held while it is sorted, ids included, else at most 13.6 and the ids.
    """

    engine = "exact"

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        super().__init__(bits=bits, fingerprint=fingerprint)
        nothing = np.empty((-(-code_bytes(bits) // 8), 0), np.uint64)
        self._given: Words | None = None  # pivots
        self._set_rows(nothing, np.empty(0, np.int32), None, None)
        self._tail = GrowingArray(nothing)
        self._decided = 0  # how many rows there were when it was last decided how to search
        self._share: float | None = None  # of the rows that a search compares, as measured then

    def _set_rows(self, words: Words, items: Places, starts: Places | None, rings: Rings | None) -> None:
        self._words = words
        self._items = items  # row after row; the tail's items are the numbers that follow
        self._starts = starts  # where each row's items start and the last ones end; None where it is one a row
        self._rings = rings
        self._sorted_items = items.size
        self._empty: Places | None = None  # rows without an item, ascending
        self._tail_empty: Places | None = None  # the same of the tail
        self._dropped = False  # whether items were removed since

    def use_pivots(self, codes: ArrayLike) -> None:  # noqa: D102
        pivots = self._checked_pivots(codes)
        with self._lock:
            if pivots.size and (self._given is None or not np.array_equal(pivots, self._given)):
                self._given = pivots
                self._decided = 0

    def _checked_pivots(self, codes: ArrayLike) -> Words:
        """Give the distinct ones as words; those of a file are distinct and in this order."""
        pivots, most = np.unique(to_words(check_codes(codes, self.bits, "pivots")), axis=1), most_pivots(self.bits)
        if pivots.shape[1] > most:
            raise ValueError(
                f"at most {most} pivots of {self.bits} bits can be used, got {pivots.shape[1]}: give fewer"
            )
        return pivots

    def _add(self, codes: Codes, ids: Ids | None) -> None:
        ids, words = self._ids.checked(ids, len(codes)), to_words(codes)
        standing, waiting = self._ids.standing(), self._tail.array.shape[1]
        try:
            self._tail.extend(words)
            self._ids.extend(ids)
        except BaseException:  # out of memory, or interrupted: nothing has been added
            self._tail.truncate(waiting)
            self._ids.truncate(*standing)
            raise

    def _drop(self, items: Places) -> None:
        self._dropped = True
        if 2 * len(self) < self._ids.array.size:
            self._sort_in()

    def _search(self, queries: Codes, k: int) -> Found:
        self._settle()
        distances = np.empty((len(queries), k), np.int64)
        ids = np.empty((len(queries), k), self._ids.array.dtype)
        if k:
            for i, query in enumerate(to_words(queries).T):
                distances[i], items = self._find(query, self.bits, k)
                ids[i] = self._ids.array[items]
        return distances, ids

    def _search_radius(self, queries: Codes, r: int) -> list[Found]:
        self._settle()
        found = []
        for query in to_words(queries).T:
            distances, items = self._find(query, r)
            found.append((distances, self._ids.array[items]))
        return found

    def _find(self, query: NDArray[np.uint64], limit: int, k: int | None = None) -> Found:
        """Give distances and items within ``limit`` in order, with ``k`` the first k."""
        rows, far = self._rows_near(query, limit, k)
        if self._starts is None:
            items = self._items[rows]
        else:
            far, items = open_rows(rows, far, self._items, self._starts, k)
        tail = self._tail.array
        if tail.shape[1]:
            reach = int(far.max()) if k is not None and far.size >= k else limit
            more, more_far = scan(tail, query, reach, k, self._tail_empty)
            items, far = np.concatenate([items, more + self._sorted_items]), np.concatenate([far, more_far])
        return in_order(far, items, k)

    def _rows_near(self, query: NDArray[np.uint64], limit: int, k: int | None) -> Near:
        if self._rings is None:
            return scan(self._words, query, limit, k, self._empty)
        if k is None:
            return self._rings.within(self._words, query, limit, self._empty)
        return self._rings.near(self._words, query, k, self._empty)

    def _settle(self) -> None:
        """Bring rows up to date with what was added and removed, so far as it saves time."""
        waiting = self._tail.array.shape[1] + self._ids.array.size - len(self)
        undecided = self._decided == 0 and self._words.shape[1] >= LEAST_RINGS
        if waiting > max(LEAST_TAIL, self._sorted_items // TAIL) or undecided:
            self._sort_in()
        elif self._dropped:
            self._empty_rows()

    def _empty_rows(self) -> None:
        """Take what was removed out of the rows and the tail."""
        every = np.asarray(self._ids.live)
        live = every[self._items]
        if self._starts is None:
            self._empty = np.flatnonzero(~live).astype(self._items.dtype)
        else:
            kept = np.concatenate([[0], np.cumsum(live)])
            self._items, self._starts = self._items[live], kept[self._starts].astype(self._starts.dtype)
            self._empty = np.flatnonzero(self._starts[1:] == self._starts[:-1]).astype(self._items.dtype)
        self._tail_empty = np.flatnonzero(~every[self._sorted_items :])
        self._dropped = False

    def _sort_in(self) -> None:
        """Sort the tail into the rows, and forget what was removed; if that is interrupted, nothing has changed."""
        rows, tail = self._words.shape[1], self._tail.array
        anew = rows + tail.shape[1] > GROWTH * self._decided
        number = place_dtype(self._ids.array.size)
        row_of = np.arange(rows + tail.shape[1], dtype=number)
        if self._starts is not None:
            row_of = np.concatenate([np.repeat(row_of[:rows], np.diff(self._starts)), row_of[rows:]])
        items = np.concatenate([self._items, np.arange(self._sorted_items, self._ids.array.size, dtype=number)])
        words = np.concatenate([self._words, tail], axis=1) if rows else tail
        rings = None
        if self._rings is not None and not anew:
            rings = np.concatenate([self._rings.numbers(), ring_numbers(tail, self._rings.pivots, self.bits)])
        live = self._ids.live
        if live is not None:
            kept = live[items]
            items, row_of = (np.cumsum(live, dtype=number) - 1)[items[kept]], row_of[kept]
            used = np.zeros(words.shape[1], np.bool_)
            used[row_of] = True
            words, row_of = words[:, used], (np.cumsum(used, dtype=number) - 1)[row_of]
            rings = None if rings is None else rings[used]
        decision = self._decided, self._share
        if anew:
            laid, decision = self._decide(words, items, row_of)
        else:
            if self._starts is not None:
                first, group = distinct(words)
                words, row_of = words[:, first], group[row_of]
                rings = None if rings is None else rings[first]
            found, order = None, None
            if self._rings is not None and rings is not None:
                found, order = make_rings(rings, self._rings.pivots, self.bits)
            laid = _laid(words, items, row_of, found, order)
        self._ids.compact()
        self._ids.forget_table()
        self._tail = GrowingArray(np.empty((len(words), 0), np.uint64))
        self._set_rows(*laid)
        self._decided, self._share = decision

    def _decide(self, words: Words, items: Places, row_of: Places) -> tuple[Laid, tuple[int, float | None]]:
        """Lay out the rows in the way that suits these codes; tell how many rows it was for, and the share."""
        if _count_distinct(words) < REPEATED * items.size:
            first, group = distinct(words)
            words, row_of = words[:, first], group[row_of]
        elif words.shape[1] < items.size:
            words, row_of = words[:, row_of], np.arange(items.size, dtype=items.dtype)
        rows, share = words.shape[1], None
        if rows >= LEAST_RINGS:
            trials = words[:, np.random.default_rng(0).choice(rows, TRIALS)]
            for pivots in self._pivots_to_try(words):
                rings, order = make_rings(ring_numbers(words, pivots, self.bits), pivots, self.bits)
                share = rings.share(words[:, order], trials, TRIAL_K)
                if share <= WORTH:
                    return _laid(words, items, row_of, rings, order), (rows, share)
        return _laid(words, items, row_of), (max(1, rows), share)

    def _pivots_to_try(self, words: Words) -> Iterator[Words]:
        if self._given is not None:
            yield self._given
        yield learn_pivots(words, self.bits)

    def _stored(self) -> tuple[dict[str, Any], Tensors]:
        if self._ids.array.size > self._sorted_items or len(self) < self._ids.array.size:
            self._sort_in()
        width = code_bytes(self.bits)
        tensors: Tensors = {"codes": to_codes(self._words, width), "items": self._items}
        if self._starts is not None:
            tensors["row_starts"] = self._starts
        if self._rings is not None:
            tensors |= {"pivots": to_codes(self._rings.pivots, width), "ring_starts": self._rings.starts}
        if self._given is not None:
            tensors["given_pivots"] = to_codes(self._given, width)
        return {"decided": self._decided, "share": self._share}, tensors

    def _take_up(self, header: dict[str, Any], tensors: Tensors) -> None:
        words = to_words(check_codes(tensors["codes"], self.bits))
        rows, count = words.shape[1], len(self)
        if "rows" in tensors:  # format 1
            self._tail.extend(words[:, whole_numbers(tensors, "rows", count, rows)])
            return
        items = whole_numbers(tensors, "items", count, count)
        row_starts = starts(tensors, "row_starts", rows, count) if "row_starts" in tensors else None
        if not is_permutation(items) or (row_starts is None and rows != count):
            raise ValueError("its rows do not hold every item once")
        rings = None
        if "pivots" in tensors:
            pivots = self._checked_pivots(tensors["pivots"])
            rings = Rings(pivots, starts(tensors, "ring_starts", pivots.shape[1] * (self.bits + 1), rows), self.bits)
        if "given_pivots" in tensors:
            self._given = self._checked_pivots(tensors["given_pivots"])
        self._set_rows(words, items, row_starts, rings)
        self._decided = operator.index(header["decided"])
        self._share = None if header["share"] is None else float(header["share"])

    def _described(self) -> dict[str, Any]:
        self._settle()  # what is held while it searches
        words, tail = self._words, self._tail.array
        if self._empty is not None:
            words = np.delete(words, self._empty, axis=1)
        if self._tail_empty is not None:
            tail = np.delete(tail, self._tail_empty, axis=1)
        arrays = [self._words, self._items, self._starts, self._empty, self._tail_empty, self._given]
        arrays += (self._rings or ())[:2]
        return {
            "distinct": _count_distinct(np.concatenate([words, tail], axis=1)),
            "bytes": self._tail.nbytes + sum(array.nbytes for array in arrays if array is not None),
            "rows": self._words.shape[1],
            "tail": self._tail.array.shape[1],
            "pivots": 0 if self._rings is None else self._rings.pivots.shape[1],
            "share": self._share,
        }


def _laid(words: Words, items: Places, row_of: Places, rings: Rings | None = None, order: Places | None = None) -> Laid:
    """Put rows in ``order`` where given, and the items of each after those of the one before."""
    if order is not None:
        words = words[:, order]
        place = np.empty_like(order)
        place[order] = np.arange(order.size, dtype=order.dtype)
        row_of = place[row_of]
    if words.shape[1] == items.size:
        laid = np.empty(items.size, place_dtype(items.size))
        laid[row_of] = items
        return np.ascontiguousarray(words), laid, None, rings
    laid = items[np.lexsort((items, row_of))].astype(place_dtype(items.size))
    sizes = np.bincount(row_of, minlength=words.shape[1])
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(laid.dtype)
    return np.ascontiguousarray(words), laid, starts, rings


def _count_distinct(words: Words) -> int:
    """Count distinct codes, by a hash of 64 bits where they are longer."""
    keys = mixed(words)
    keys.sort()
    return min(1, keys.size) + int(np.count_nonzero(keys[1:] != keys[:-1]))
