"""The ids of an index's items, and which of the items are live."""

import sys
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.index.arrays import GrowingArray, KeyTable, Places, Words
from dsh_hf.index.base import Ids

_OBJECT_BYTES = 32  # of one int in a dict


class ItemIds:
    """Ids of items, numbered as they come. A removed item keeps its number, unused, until :meth:`compact`."""

    # Only changes need it, and not where ids ascend: made by the first change that does.
    _table: KeyTable | dict[str, int] | None

    def __init__(self, ids: Ids | None = None, next_id: int = 0) -> None:
        self.next_id = next_id
        self._hold(np.empty(0, np.int64) if ids is None else ids)

    def _hold(self, ids: Ids) -> None:
        """Hold these ids, all of their items live."""
        self._ids = GrowingArray(ids)
        self._live: GrowingArray | None = None  # made by the first removal
        self.count = ids.size
        self._ascending = ids.dtype != object and bool((ids[1:] > ids[:-1]).all())
        self._table = None

    @property
    def array(self) -> Ids:
        """Give the ids of all items, the removed ones' too."""
        return self._ids.array

    @property
    def live(self) -> NDArray[np.bool_] | None:
        """Tell which items are live; ``None`` where all are."""
        return None if self._live is None else self._live.array

    @property
    def id_bytes(self) -> int:
        """Count the bytes of the ids alone."""
        texts = sum(map(sys.getsizeof, self.array)) if self.array.dtype == object else 0
        return self._ids.nbytes + texts

    @property
    def other_bytes(self) -> int:
        """Count the bytes held beside the ids."""
        table = self._table
        held = 0 if self._live is None else self._live.nbytes
        if isinstance(table, KeyTable):
            return held + table.nbytes
        return held + (0 if table is None else sys.getsizeof(table) + _OBJECT_BYTES * len(table))

    def forget_table(self) -> None:
        """Give up what only changes need; the next one that does makes it again."""
        self._table = None

    def checked(self, ids: Ids | None, count: int) -> Ids:
        """Give the ids for ``count`` new items, running ones where ``ids`` is ``None``.

        Raises:
            ValueError: an id that is held already, or one of another kind than those held.
        """
        held = self.array
        if ids is None:
            if held.size and held.dtype == object:
                raise ValueError("the index holds str ids: give ids with the codes")
            if self.next_id + count > 2**63:
                raise ValueError("no running ids are left after the greatest id: give ids with the codes")
            return self.next_id + np.arange(count)
        if held.size and ids.dtype != held.dtype:
            kinds = ("str", "int") if held.dtype == object else ("int", "str")
            raise ValueError(f"the index holds {kinds[0]} ids and takes no {kinds[1]} ids")
        known = self.find(ids) >= 0
        if known.any():
            raise ValueError(f"id {ids[known].tolist()[0]!r} is in the index already: remove it first")
        return ids

    def extend(self, ids: Ids) -> None:
        """Append the ids of new items."""
        held = self.array
        if ids.dtype != held.dtype:  # the first ids of an empty index decide their kind
            self._hold(ids)
        else:
            first = held.size
            if self._ascending:
                after = not first or held[-1] < ids[0]
                self._ascending = bool(after and (ids[1:] > ids[:-1]).all())
            self._ids.extend(ids)
            if self._live is not None:
                self._live.extend(np.ones(ids.size, bool))
            self.count += ids.size
            if self._table is not None:
                self._enter(self._table, first + np.arange(ids.size))
        if ids.dtype != object:
            self.next_id = max(self.next_id, int(ids.max()) + 1)

    def removed(self, ids: Ids) -> NDArray[np.int64]:
        """Take the items of ``ids`` for removed, and give them.

        Raises:
            KeyError: an id that is not held; nothing is removed then.
        """
        items = self.find(ids)
        missing = ids[items < 0].tolist()
        if missing:
            more = f" (nor are {len(missing) - 1} others)" if len(missing) > 1 else ""
            raise KeyError(f"id {missing[0]!r} is not in the index{more}; nothing was removed")
        items = np.unique(items)
        if self._live is None:
            self._live = GrowingArray(np.ones(self.array.size, bool))
        self._live.array[items] = False
        self.count -= items.size
        return items

    def find(self, ids: Ids) -> NDArray[np.int64]:
        """Give the live item of each id, -1 where there is none."""
        held = self.array
        if not held.size or ids.dtype != held.dtype or (ids.dtype != object and ids.min() >= self.next_id):
            return np.full(ids.size, -1)
        if self._ascending:
            items = np.searchsorted(held, ids)
            items[items == held.size] = 0
            items[held[items] != ids] = -1
        else:
            items = self._find_in_table(ids)
        return items if self._live is None else np.where(self._live.array[items], items, -1)

    def _find_in_table(self, ids: Ids) -> NDArray[np.int64]:
        table = self._table
        if table is None:
            table = {} if ids.dtype == object else KeyTable()
            self._enter(table, np.arange(self.array.size) if self._live is None else np.flatnonzero(self._live.array))
            self._table = table
        if isinstance(table, KeyTable):
            return table.find(_as_keys(ids), _as_keys(self.array))
        return np.array([table.get(name, -1) for name in ids], np.int64)

    def _enter(self, table: KeyTable | dict[str, int], items: Places) -> None:
        if isinstance(table, KeyTable):
            table.put(items, _as_keys(self.array))
        else:
            table.update(zip(self.array[items], items.tolist(), strict=True))

    def compact(self) -> None:
        """Forget the removed items; the others are numbered anew, in their order."""
        if self._live is not None:
            self._hold(self.array[self._live.array])

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Give the ids of the live items as tensors."""
        ids = self.array if self._live is None else self.array[self._live.array]
        if ids.dtype != object:
            return {"ids": ids}
        texts = [name.encode("utf-8", "surrogatepass") for name in ids]  # paths that are no UTF-8 hold surrogates
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        return {"id_text": np.frombuffer(b"".join(texts), np.uint8), "id_ends": ends}

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[Any]], next_id: int) -> "ItemIds":
        """Take up what :meth:`to_tensors` gave."""
        if "ids" in tensors:
            return cls(tensors["ids"], next_id)
        text, ends = tensors["id_text"].tobytes(), tensors["id_ends"].tolist()
        ids = np.empty(len(ends), dtype=object)
        ids[:] = [text[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise([0, *ends])]
        return cls(ids, next_id)


def _as_keys(ids: Ids) -> Words:
    return ids[None].view(np.uint64)
