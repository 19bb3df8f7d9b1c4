"""What the engines share that search distinct codes by a structure made elsewhere, such as a graph."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes, check_codes, code_bytes
from dsh_hf.index.arrays import GrowingArray, KeyTable, Places, Words, distinct, place_dtype, to_codes, to_words
from dsh_hf.index.base import Found, Ids
from dsh_hf.index.files import Tensors, whole_numbers
from dsh_hf.index.memory import MemoryIndex
from dsh_hf.index.rows import in_order, open_rows
from dsh_hf.index.scan import scan

Rows = tuple[Places, NDArray[Any]]  # rows, and their distances from a query


class Layout(NamedTuple):
    """Which items each row holds."""

    items: Places  # the live ones, row after row, a row's in order of insertion
    starts: Places  # where each row starts in items, and where the last one ends
    empty: NDArray[np.bool_]  # which rows hold none


class LocalIndex(MemoryIndex):
    """An index over distinct codes.

    A row is a distinct code; an item is one added code with its id, and belongs to the row of its code. Rows
    and items are numbered as they come. What is removed keeps its number, unused, until more than half is so.
    An engine says which rows lie near a query; from rows to items in order is done here.
    """

    # Made when first needed after a change.
    _layout: Layout | None
    # Only changes need it: made by the first one, so that opening an index to search it stays quick.
    _rows_by_code: KeyTable | None

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        super().__init__(bits=bits, fingerprint=fingerprint)
        width = -(-code_bytes(bits) // 8)
        self._hold_rows(np.empty((width, 0), np.uint64), np.empty(0, np.int32))

    def _hold_rows(self, words: Words, rows: Places) -> None:
        """Hold these rows and items, all of the items live."""
        dtype = place_dtype(rows.size)
        self._words = GrowingArray(words)
        self._sizes = GrowingArray(np.bincount(rows, minlength=words.shape[1]).astype(dtype))
        self._rows = GrowingArray(rows.astype(dtype, copy=False))
        self._live_rows = int(np.count_nonzero(self._sizes.array))
        self._layout = None
        self._rows_by_code = None

    def _stored(self) -> tuple[dict[str, Any], Tensors]:
        header, tensors = self._state()
        live, rows = self._ids.live, self._rows.array
        tensors["codes"] = self._codes(slice(None))
        tensors["rows"] = rows if live is None else rows[live]
        return header, tensors

    def _take_up(self, header: dict[str, Any], tensors: Tensors) -> None:
        codes = check_codes(tensors["codes"], self.bits)
        self._hold_rows(to_words(codes), whole_numbers(tensors, "rows", len(self), len(codes)))
        self._restore(header, tensors)

    def _described(self) -> dict[str, Any]:
        held = sum(array.nbytes for array in (self._words, self._sizes, self._rows))
        if self._layout is not None:
            held += sum(array.nbytes for array in self._layout)
        if self._rows_by_code is not None:
            held += self._rows_by_code.nbytes
        return {"distinct": self._live_rows, "bytes": held}

    def _rows_near(self, queries: Codes, k: int) -> Iterator[Rows]:
        """Give, a query, live rows that hold at least ``k`` items, the nearest among them; any order."""
        return self._scan(queries, self.bits, k)  # every live row holds an item

    def _rows_within(self, queries: Codes, r: int) -> Iterator[Rows]:
        """Give, a query, the live rows within distance ``r``; any order."""
        return self._scan(queries, r)

    def _rows_live(self, rows: Places) -> None:
        """Take note of rows, ascending, that are new or hold items again."""

    def _rows_empty(self, rows: Places) -> None:
        """Take note of rows that hold items no more."""

    def _rows_renumbered(self) -> None:
        """Take note that the rows are others now, all of them live."""

    def _state(self) -> tuple[dict[str, Any], Tensors]:
        """Give what the engine itself saves: plain values and tensors."""
        return {}, {}

    def _restore(self, header: dict[str, Any], tensors: Tensors) -> None:
        """Take up what :meth:`_state` gave, checked as in :meth:`_take_up`; the rows are there already."""

    def _scan(self, queries: Codes, limit: int, k: int | None = None) -> Iterator[Rows]:
        words = self._words.array
        empty = np.flatnonzero(self._arranged().empty) if self._live_rows < words.shape[1] else None
        for query in to_words(queries).T:
            yield scan(words, query, limit, k, empty)

    def _add(self, codes: Codes, ids: Ids | None) -> None:
        ids = self._ids.checked(ids, len(codes))
        words = to_words(codes)
        first, group = distinct(words)
        rows = self._row_table().find(words[:, first], self._words.array)
        unseen, seen = np.flatnonzero(rows < 0), rows[rows >= 0]
        rows[unseen] = self._sizes.array.size + np.arange(unseen.size)
        before = self._sizes.array[seen], self._sizes.array.size, self._ids.standing()
        try:
            self._words.extend(words[:, first[unseen]])
            self._row_table().put(rows[unseen], self._words.array)
            self._sizes.extend(np.zeros(unseen.size, np.int64))
            woken = np.sort(rows[self._sizes.array[rows] == 0])
            self._sizes.array[rows] += np.bincount(group).astype(self._sizes.array.dtype)
            self._rows.extend(rows[group])
            self._ids.extend(ids)
        except BaseException:  # out of memory, or interrupted: nothing has been added
            self._take_back(seen, *before)
            raise
        self._live_rows += woken.size
        self._layout = None
        self._rows_live(woken)

    def _take_back(self, seen: Places, sizes: Places, rows: int, standing: tuple[int, int, int]) -> None:
        """Forget all but the first rows and the items that stood; ``seen`` rows get their sizes again."""
        self._words.truncate(rows)
        self._sizes.truncate(rows)
        self._sizes.array[seen] = sizes
        self._rows.truncate(standing[0])
        self._ids.truncate(*standing)
        self._rows_by_code = None

    def _drop(self, items: Places) -> None:
        rows, losses = np.unique(self._rows.array[items], return_counts=True)
        self._sizes.array[rows] -= losses.astype(self._sizes.array.dtype)
        emptied = rows[self._sizes.array[rows] == 0]
        self._live_rows -= emptied.size
        self._layout = None
        self._rows_empty(emptied)
        if 2 * len(self) < self._rows.array.size or 2 * self._live_rows < self._sizes.array.size:
            self._compact()

    def _compact(self) -> None:
        live, used = self._ids.live, self._sizes.array > 0
        renumbered = np.cumsum(used) - 1
        self._hold_rows(self._words.array[:, used], renumbered[self._rows.array[live]])
        self._ids.compact()
        if not used.all():
            self._rows_renumbered()

    def _search(self, queries: Codes, k: int) -> Found:
        distances = np.empty((len(queries), k), np.int64)
        ids = np.empty((len(queries), k), self._ids.array.dtype)
        if k:
            for i, (rows, far) in enumerate(self._rows_near(queries, k)):
                distances[i], items = self._items_in_order(rows, far, k)
                ids[i] = self._ids.array[items]
        return distances, ids

    def _search_radius(self, queries: Codes, r: int) -> list[Found]:
        if not len(self):
            return [(np.empty(0, np.int64), self._ids.array[:0]) for _ in queries]
        found = []
        for rows, far in self._rows_within(queries, r):
            distances, items = self._items_in_order(rows, far)
            found.append((distances, self._ids.array[items]))
        return found

    def _items_in_order(self, rows: Places, far: NDArray[Any], k: int | None = None) -> Rows:
        """Give distances and items of ``rows`` by (distance, insertion), with ``k`` the first k."""
        layout = self._arranged()
        return in_order(*open_rows(rows, far, layout.items, layout.starts, k), k)

    def _arranged(self) -> Layout:
        if self._layout is None:
            live, rows = self._ids.live, self._rows.array
            items = np.arange(rows.size) if live is None else np.flatnonzero(live)
            items = items[np.argsort(rows[items], kind="stable")].astype(place_dtype(rows.size))
            starts = np.concatenate([[0], np.cumsum(self._sizes.array)])
            self._layout = Layout(items, starts, self._sizes.array == 0)
        return self._layout

    def _row_table(self) -> KeyTable:
        if self._rows_by_code is None:
            self._rows_by_code = KeyTable()
            self._rows_by_code.put(np.arange(self._sizes.array.size), self._words.array)
        return self._rows_by_code

    def _codes(self, rows: Any) -> Codes:
        """Give the packed codes of rows."""
        return to_codes(self._words.array[:, rows], code_bytes(self.bits))
