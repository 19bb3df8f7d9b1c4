"""Containers over plain arrays, so that millions of codes cost bytes and not Python objects."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes

Words = NDArray[np.uint64]
Places = NDArray[Any]  # int32 or int64, see place_dtype


class GrowingArray:
    """An array that grows along its last axis, in constant time a value on average."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._buffer = values
        self._used = values.shape[-1]

    @property
    def array(self) -> NDArray[Any]:
        """Give a view of the values; :meth:`extend` may leave it behind."""
        return self._buffer[..., : self._used]

    @property
    def nbytes(self) -> int:
        """Count the bytes held, with the room to grow."""
        return self._buffer.nbytes

    def extend(self, values: NDArray[Any]) -> None:
        """Append ``values``, whose other axes are those of the array."""
        end = self._used + values.shape[-1]
        if end > self._buffer.shape[-1]:
            grown = np.empty((*self._buffer.shape[:-1], max(2 * self._used, end, 16)), self._buffer.dtype)
            grown[..., : self._used] = self.array
            self._buffer = grown
        self._buffer[..., self._used : end] = values
        self._used = end

    def truncate(self, count: int) -> None:
        """Forget all values but the first ``count``."""
        self._used = min(self._used, count)


class NumberSet:
    """Some of the numbers below a count, one bit each."""

    def __init__(self, count: int) -> None:
        self._bits = GrowingArray(np.zeros(-(-count // 8), np.uint8))

    @property
    def nbytes(self) -> int:
        """Count the bytes held, with the room to grow."""
        return self._bits.nbytes

    def grow(self, count: int) -> None:
        """Take a greater count, whose new numbers are not in the set."""
        self._bits.extend(np.zeros(max(0, -(-count // 8) - self._bits.array.size), np.uint8))

    def add(self, numbers: Places) -> None:
        """Put numbers into the set."""
        np.bitwise_or.at(self._bits.array, numbers >> 3, (128 >> (numbers & 7)).astype(np.uint8))

    def has(self, numbers: Places) -> NDArray[np.bool_]:
        """Tell of each number whether it is in the set."""
        return (self._bits.array[numbers >> 3] & (128 >> (numbers & 7))) != 0

    def mask(self, count: int) -> NDArray[np.bool_]:
        """Tell of each number below ``count`` whether it is in the set."""
        return np.unpackbits(self._bits.array, count=count).view(np.bool_)


class KeyTable:
    """A hash table from keys to their places in an array of keys, itself one array of whole numbers.

    It holds places alone: ``keys``, of shape ``(words, n)``, stay with the caller, who passes them each time.
    """

    def __init__(self) -> None:
        self._slots = np.full(16, -1, np.int32)  # places of keys, -1 where free; a power of two, at most half full
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Count the bytes held."""
        return self._slots.nbytes

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

    def put(self, places: Places, keys: Words) -> None:
        """Enter the keys at ``places``, which must differ; a key known already moves to its new place."""
        self._used += places.size
        if 2 * self._used > self._slots.size:
            entered = self._slots[self._slots >= 0]
            self._slots = np.full(2 << int(self._used).bit_length(), -1, place_dtype(keys.shape[1]))
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
        return (mixed(keys) & np.uint64(self._slots.size - 1)).astype(np.int64)

    def _next(self, slot: NDArray[np.int64]) -> NDArray[np.int64]:
        return (slot + 1) & (self._slots.size - 1)


def place_dtype(count: int) -> type[np.signedinteger]:
    """Give the least type that numbers so many things."""
    return np.int32 if count < 2**31 else np.int64


def mixed(keys: Words) -> Words:
    """Give a well-mixed word for each key of shape ``(words, n)``; keys of one word keep apart."""
    words = np.zeros(keys.shape[1], np.uint64)
    for word in keys:
        words ^= word
        words *= np.uint64(0x9E3779B97F4A7C15)
        words ^= words >> np.uint64(32)
    return words


def to_words(codes: Codes) -> Words:
    """Give packed codes as uint64 words of shape ``(words, n)``, filled up with zero bits."""
    width = -(-codes.shape[1] // 8) * 8
    if width == codes.shape[1]:
        return np.ascontiguousarray(np.ascontiguousarray(codes).view(np.uint64).T)
    padded = np.zeros((len(codes), width), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return np.ascontiguousarray(padded.view(np.uint64).T)


def to_codes(words: Words, width: int) -> Codes:
    """Give words of shape ``(words, n)`` as packed codes of ``width`` bytes."""
    return np.ascontiguousarray(np.ascontiguousarray(words.T).view(np.uint8)[:, :width])


def distinct(words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
