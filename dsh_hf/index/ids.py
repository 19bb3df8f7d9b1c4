"""The ids of an index's items, and which of the items are live."""

import sys
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.index.arrays import GrowingArray, KeyTable, NumberSet, Places, Words
from dsh_hf.index.base import Ids, check_ids
from dsh_hf.index.files import starts

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
        self._removed: NumberSet | None = None  # made by the first removal
        self.count = ids.size
        self._ascending = ids.dtype != object and bool((ids[1:] > ids[:-1]).all())
        self._table = None

    @property
    def array(self) -> Ids:
        """Give the ids of all items, the removed ones' too."""
        return self._ids.array

    @property
    def live(self) -> NDArray[np.bool_] | None:
        """Tell which items are live, in a new array; ``None`` where all are."""
        return None if self._removed is None else ~self._removed.mask(self.array.size)

    @property
    def id_bytes(self) -> int:
        """Count the bytes of the ids alone."""
        texts = sum(map(sys.getsizeof, self.array)) if self.array.dtype == object else 0
        return self._ids.nbytes + texts

    @property
    def other_bytes(self) -> int:
        """Count the bytes held beside the ids."""
        table = self._table
        held = 0 if self._removed is None else self._removed.nbytes
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
        """Append the ids of new items; where that breaks off, :meth:`truncate` mends it."""
        held = self.array
        if ids.dtype != held.dtype:  # the first ids of an empty index decide their kind
            self._hold(ids)
        else:
            first = held.size
            if self._ascending:
                after = not first or held[-1] < ids[0]
                self._ascending = bool(after and (ids[1:] > ids[:-1]).all())
            self._ids.extend(ids)
            if self._removed is not None:
                self._removed.grow(first + ids.size)
            self.count += ids.size
            if self._table is not None:
                self._enter(self._table, first + np.arange(ids.size))
        if ids.dtype != object:
            self.next_id = max(self.next_id, int(ids.max()) + 1)

    def standing(self) -> tuple[int, int, int]:
        """Give what :meth:`truncate` goes back to: how many items there are, how many are live, the next id."""
        return self.array.size, self.count, self.next_id

    def truncate(self, size: int, count: int, next_id: int) -> None:
        """Take back what :meth:`extend` did since :meth:`standing`; takes no memory, of which there may be none."""
        if not size:
            self._hold(self.array[:0])
        elif self.array.size > size:
            self._ids.truncate(size)
            self._table = None
        self.count, self.next_id = count, next_id

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
        if self._removed is None:
            self._removed = NumberSet(self.array.size)
        self._removed.add(items)
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
        return items if self._removed is None else np.where(self._removed.has(items), -1, items)

    def _find_in_table(self, ids: Ids) -> NDArray[np.int64]:
        table = self._table
        if table is None:
            table = {} if ids.dtype == object else KeyTable()
            live = self.live
            self._enter(table, np.arange(self.array.size) if live is None else np.flatnonzero(live))
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
        live = self.live
        if live is not None:
            self._hold(self.array[live])

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Give the ids of the live items as tensors."""
        live = self.live
        ids = self.array if live is None else self.array[live]
        if ids.dtype != object:
            return {"ids": ids}
        texts = [name.encode("utf-8", "surrogatepass") for name in ids]  # paths that are no UTF-8 hold surrogates
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        return {"id_text": np.frombuffer(b"".join(texts), np.uint8), "id_ends": ends}

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[Any]], next_id: int, count: int) -> "ItemIds":
        """Take up what :meth:`to_tensors` gave.

        Raises:
            KeyError, ValueError: it is not sound.
        """
        if "ids" in tensors:
            ids = tensors["ids"]
            if ids.shape != (count,) or ids.dtype != np.int64 or (count and ids.max() >= next_id):
                raise ValueError("the ids are not those that the header tells of")
            return cls(check_ids(ids), next_id)
        text, ends = tensors["id_text"], tensors["id_ends"]
        if text.ndim != 1 or text.dtype != np.uint8:
            raise ValueError("the text of the ids is no text")
        places = starts({"id_ends": np.concatenate([[0], ends])}, "id_ends", count, text.size).tolist()
        whole = text.tobytes()
        ids = np.empty(count, dtype=object)
        ids[:] = [whole[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(places)]
        return cls(check_ids(ids), next_id)


def _as_keys(ids: Ids) -> Words:
    return ids[None].view(np.uint64)
