"""Two containers over plain arrays, so that millions of codes cost bytes and not Python objects."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


class GrowingArray:
    """An array that grows along its last axis, in constant time a value on average."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._buffer = values
        self._used = values.shape[-1]

    @property
    def array(self) -> NDArray[Any]:
        """Give a view of the values; :meth:`extend` may leave it behind."""
        return self._buffer[..., : self._used]

    def extend(self, values: NDArray[Any]) -> None:
        """Append ``values``, whose other axes are those of the array."""
        end = self._used + values.shape[-1]
        if end > self._buffer.shape[-1]:
            grown = np.empty((*self._buffer.shape[:-1], max(2 * self._used, end, 16)), self._buffer.dtype)
            grown[..., : self._used] = self.array
            self._buffer = grown
        self._buffer[..., self._used : end] = values
        self._used = end


class KeyTable:
    """A hash table from keys to their places in an array of keys, itself one int64 array.

    It holds places alone: ``keys``, of shape ``(words, n)``, stay with the caller, who passes them each time.
    """

    def __init__(self) -> None:
        self._slots = np.full(16, -1)  # places of keys, -1 where free; a power of two, at most half full
        self._used = 0

    def find(self, wanted: Words, keys: Words) -> NDArray[np.int64]:
        """Give the places of ``wanted`` keys, shape ``(words, n)``, in ``keys``; -1 where there is none."""
        found = np.full(wanted.shape[1], -1)
        pending = np.arange(wanted.shape[1])
        slot = self._home(wanted)
        while pending.size:
            place = self._slots[slot]
            taken = place >= 0
            pending, slot, place = pending[taken], slot[taken], place[taken]
            same = (keys[:, place] == wanted[:, pending]).all(axis=0)
            found[pending[same]] = place[same]
            pending, slot = pending[~same], self._next(slot[~same])
        return found

    def put(self, places: NDArray[np.int64], keys: Words) -> None:
        """Enter the keys at ``places``, which must differ; a key known already moves to its new place."""
        self._used += places.size
        if 2 * self._used > self._slots.size:
            entered = self._slots[self._slots >= 0]
            self._slots = np.full(4 << int(self._used).bit_length(), -1)
            self._used = places.size
            self.put(entered, keys)
        slot = self._home(keys[:, places])
        while places.size:
            held = self._slots[slot]
            open_to = (held < 0) | (keys[:, held] == keys[:, places]).all(axis=0)
            self._slots[slot[open_to]] = places[open_to]
            lost = self._slots[slot] != places  # the slot is another key's, perhaps since this very round
            places, slot = places[lost], self._next(slot[lost])

    def _home(self, keys: Words) -> NDArray[np.int64]:
        mixed = np.zeros(keys.shape[1], np.uint64)
        for word in keys:
            mixed = (mixed ^ word) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(32)
        return (mixed & np.uint64(self._slots.size - 1)).astype(np.int64)

    def _next(self, slot: NDArray[np.int64]) -> NDArray[np.int64]:
        return (slot + 1) & (self._slots.size - 1)
