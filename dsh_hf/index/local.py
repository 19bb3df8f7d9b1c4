"""What the engines in this process share: equal codes kept once, the items of each, and the file."""

from abc import abstractmethod
from collections.abc import Iterator
from os import PathLike
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes, code_bytes
from dsh_hf.index.arrays import GrowingArray, KeyTable, Words
from dsh_hf.index.base import Found, Ids, Index, IndexMismatchError
from dsh_hf.index.files import Tensors, read_index_file, write_index_file

Places = NDArray[np.int64]
Rows = tuple[Places, NDArray[Any]]  # rows, and their distances from a query


class Layout(NamedTuple):
    """Which items each row holds."""

    items: Places  # the live ones, row after row, a row's in order of insertion
    starts: Places  # where each row starts in items, and where the last one ends
    empty: NDArray[np.bool_]  # which rows hold none


class LocalIndex(Index):
    """An index held in memory.

    A row is a distinct code; an item is one added code with its id, and belongs to the row of its code. Rows
    and items are numbered as they come. What is removed keeps its number, unused, until more than half is so.
    An engine says which rows lie near a query; from rows to items in order is done here.
    """

    # Made when first needed after a change.
    _layout: Layout | None
    # Only changes need these: made by the first one, so that opening an index to search it stays quick.
    _rows_by_code: KeyTable | None
    _items_by_id: KeyTable | dict[str, int] | None

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        super().__init__(bits=bits, fingerprint=fingerprint)
        width = -(-code_bytes(bits) // 8)
        self._next_id = 0
        self._fill(np.empty((width, 0), np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))

    def _fill(self, words: Words, rows: Places, ids: Ids) -> None:
        """Hold these rows and items, all of the items live."""
        self._words = GrowingArray(words)
        self._sizes = GrowingArray(np.bincount(rows, minlength=words.shape[1]))
        self._rows = GrowingArray(rows)
        self._ids = GrowingArray(ids)
        self._live = GrowingArray(np.ones(rows.size, bool))
        self._count = rows.size
        self._live_rows = int(np.count_nonzero(self._sizes.array))
        self._layout = None
        self._rows_by_code = None
        self._items_by_id = None

    def __len__(self) -> int:
        return self._count

    def save(self, path: str | PathLike[str]) -> None:  # noqa: D102
        with self._lock:
            live = self._live.array
            header, tensors = self._state()
            header |= {"engine": self.engine, "bits": self.bits, "fingerprint": self.fingerprint}
            header |= {"count": len(self), "next_id": self._next_id}
            tensors["codes"] = self._codes(slice(None))
            tensors["rows"] = self._rows.array[live]
            tensors |= _ids_to_tensors(self._ids.array[live])
            write_index_file(path, header, tensors)

    @classmethod
    def load(  # noqa: D102
        cls, path: str | PathLike[str], *, bits: int | None = None, fingerprint: str | None = None
    ) -> Self:
        header, tensors = read_index_file(path)
        if header["engine"] != cls.engine:
            raise IndexMismatchError(
                f"{path} was saved by the engine {header['engine']!r}: open it as {header['engine']!r}, "
                f"or delete it and add the codes to a new index"
            )
        if bits is not None and header["bits"] != bits:
            raise IndexMismatchError(
                f"{path} holds codes of {header['bits']} bits, not {bits}: "
                f"open it with the model that made them, or encode the collection again"
            )
        if fingerprint is not None and header["fingerprint"] != fingerprint:
            raise IndexMismatchError(
                f"{path} holds codes of the model {header['fingerprint']}, not {fingerprint}: "
                f"open it with the model that made them, or encode the collection again"
            )
        index = cls(bits=header["bits"], fingerprint=header["fingerprint"])
        index._fill(to_words(tensors["codes"]), tensors["rows"], _ids_from_tensors(tensors))
        index._next_id = header["next_id"]
        index._restore(header, tensors)
        return index

    def stats(self) -> dict[str, Any]:  # noqa: D102
        with self._lock:
            arrays = (self._words, self._sizes, self._ids, self._rows, self._live)
            return {
                "engine": self.engine,
                "bits": self.bits,
                "fingerprint": self.fingerprint,
                "items": len(self),
                "distinct": self._live_rows,
                "bytes": sum(held.array.nbytes for held in arrays),
            }

    @abstractmethod
    def _rows_near(self, queries: Codes, k: int) -> Iterator[Rows]:
        """Give, a query, live rows that hold at least ``k`` items, the nearest among them; any order."""

    @abstractmethod
    def _rows_within(self, queries: Codes, r: int) -> Iterator[Rows]:
        """Give, a query, the live rows within distance ``r``; any order."""

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
        """Take up what :meth:`_state` gave."""

    def _add(self, codes: Codes, ids: Ids | None) -> None:
        ids = self._new_ids(ids, len(codes))
        words = to_words(codes)
        first, group = _distinct(words)
        rows = self._row_table().find(words[:, first], self._words.array)
        unseen = np.flatnonzero(rows < 0)
        rows[unseen] = self._sizes.array.size + np.arange(unseen.size)
        self._words.extend(words[:, first[unseen]])
        self._row_table().put(rows[unseen], self._words.array)
        self._sizes.extend(np.zeros(unseen.size, np.int64))
        woken = np.sort(rows[self._sizes.array[rows] == 0])
        self._live_rows += woken.size
        self._sizes.array[rows] += np.bincount(group)

        if ids.dtype != self._ids.array.dtype:  # the first ids of an empty index decide their kind
            self._ids = GrowingArray(np.empty(0, ids.dtype))
            self._items_by_id = None
        self._ids.extend(ids)
        self._rows.extend(rows[group])
        self._live.extend(np.ones(len(codes), bool))
        self._count += len(codes)
        if self._items_by_id is not None:
            self._enter_ids(self._items_by_id, self._live.array.size - len(codes) + np.arange(len(codes)))
        if ids.dtype != object:
            self._next_id = max(self._next_id, int(ids.max()) + 1)
        self._layout = None
        self._rows_live(woken)

    def _remove(self, ids: Ids) -> None:
        items = self._items_of(ids)
        missing = ids[items < 0].tolist()
        if missing:
            more = f" (nor are {len(missing) - 1} others)" if len(missing) > 1 else ""
            raise KeyError(f"id {missing[0]!r} is not in the index{more}; nothing was removed")
        items = np.unique(items)
        self._live.array[items] = False
        self._count -= items.size
        rows, losses = np.unique(self._rows.array[items], return_counts=True)
        self._sizes.array[rows] -= losses
        emptied = rows[self._sizes.array[rows] == 0]
        self._live_rows -= emptied.size
        self._layout = None
        self._rows_empty(emptied)
        if 2 * self._count < self._live.array.size or 2 * self._live_rows < self._sizes.array.size:
            self._compact()

    def _compact(self) -> None:
        live, used = self._live.array, self._sizes.array > 0
        renumbered = np.cumsum(used) - 1
        self._fill(self._words.array[:, used], renumbered[self._rows.array[live]], self._ids.array[live])
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
            distances, items = self._items_in_order(rows, far, len(self))
            found.append((distances, self._ids.array[items]))
        return found

    def _items_in_order(self, rows: Places, far: NDArray[Any], k: int) -> tuple[NDArray[np.int64], Places]:
        """Give the first ``k`` items of ``rows`` by (distance, insertion)."""
        items, starts = self._arranged().items, self._arranged().starts
        order = np.argsort(far, kind="stable")
        rows, far = rows[order], far[order].astype(np.int64)
        sizes = starts[rows + 1] - starts[rows]
        reached = int(np.searchsorted(np.cumsum(sizes), k))  # where k items are complete
        if reached < rows.size:  # no row beyond that distance counts
            rows = rows[: np.searchsorted(far, far[reached], side="right")]
            far, sizes = far[: rows.size], sizes[: rows.size]
        sizes = np.minimum(sizes, k)
        ends = np.cumsum(sizes)
        within = np.arange(sizes.sum()) - np.repeat(ends - sizes, sizes)
        items = items[np.repeat(starts[rows], sizes) + within]
        distances = np.repeat(far, sizes)
        order = np.lexsort((items, distances))[:k]
        return distances[order], items[order]

    def _arranged(self) -> Layout:
        if self._layout is None:
            live = np.flatnonzero(self._live.array)
            items = live[np.argsort(self._rows.array[live], kind="stable")]
            starts = np.concatenate([[0], np.cumsum(self._sizes.array)])
            self._layout = Layout(items, starts, self._sizes.array == 0)
        return self._layout

    def _new_ids(self, ids: Ids | None, count: int) -> Ids:
        held = self._ids.array
        if ids is None:
            if held.size and held.dtype == object:
                raise ValueError("the index holds str ids: give ids with the codes")
            if self._next_id + count > 2**63:
                raise ValueError("no running ids are left after the greatest id: give ids with the codes")
            return self._next_id + np.arange(count)
        if held.size and ids.dtype != held.dtype:
            kinds = ("str", "int") if held.dtype == object else ("int", "str")
            raise ValueError(f"the index holds {kinds[0]} ids and takes no {kinds[1]} ids")
        known = self._items_of(ids) >= 0
        if known.any():
            raise ValueError(f"id {ids[known].tolist()[0]!r} is in the index already: remove it first")
        return ids

    def _items_of(self, ids: Ids) -> Places:
        """Give the live item of each id, -1 where there is none."""
        held = self._ids.array
        if not held.size or ids.dtype != held.dtype:
            return np.full(ids.size, -1)
        table = self._items_by_id
        if table is None:
            table = {} if held.dtype == object else KeyTable()
            self._enter_ids(table, np.flatnonzero(self._live.array))
            self._items_by_id = table
        if isinstance(table, KeyTable):
            items = table.find(_as_keys(ids), _as_keys(held))
        else:
            items = np.array([table.get(name, -1) for name in ids], np.int64)
        return np.where(self._live.array[items], items, -1)

    def _enter_ids(self, table: KeyTable | dict[str, int], items: Places) -> None:
        if isinstance(table, KeyTable):
            table.put(items, _as_keys(self._ids.array))
        else:
            table.update(zip(self._ids.array[items], items.tolist(), strict=True))

    def _row_table(self) -> KeyTable:
        if self._rows_by_code is None:
            self._rows_by_code = KeyTable()
            self._rows_by_code.put(np.arange(self._sizes.array.size), self._words.array)
        return self._rows_by_code

    def _codes(self, rows: Any) -> Codes:
        """Give the packed codes of rows."""
        words = np.ascontiguousarray(self._words.array[:, rows].T)
        return np.ascontiguousarray(words.view(np.uint8)[:, : code_bytes(self.bits)])


def to_words(codes: Codes) -> Words:
    """Give packed codes as uint64 words of shape ``(words, n)``, filled up with zero bits."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _distinct(words: Words) -> tuple[Places, Places]:
    """Give where each distinct code first stands, in order of appearance, and which of these each code is."""
    order = np.lexsort(words)  # stable: of equal codes the first stays first
    ordered = words[:, order]
    new = np.ones(order.size, bool)
    new[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    first = order[new]
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    group = np.empty(order.size, np.int64)
    group[order] = rank[np.cumsum(new) - 1]
    return np.sort(first), group


def _as_keys(ids: Ids) -> Words:
    return ids[None].view(np.uint64)


def _ids_to_tensors(ids: Ids) -> Tensors:
    if ids.dtype != object:
        return {"ids": ids}
    texts = [name.encode("utf-8", "surrogatepass") for name in ids]  # paths that are no UTF-8 hold surrogates
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return {"id_text": np.frombuffer(b"".join(texts), np.uint8), "id_ends": ends}


def _ids_from_tensors(tensors: Tensors) -> Ids:
    if "ids" in tensors:
        return tensors["ids"]
    text, ends = tensors["id_text"].tobytes(), tensors["id_ends"].tolist()
    ids = np.empty(len(ends), dtype=object)
    starts = [0, *ends[:-1]]
    ids[:] = [text[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)]
    return ids
