"""Comparing codes one and all, block by block: what the exact engine and others fall back on."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.index.arrays import Places, Words

BLOCK = 131_072  # codes compared at a time: what is computed on the way stays in the processor's cache

Part = tuple[int, int]  # of the codes: where it starts and stops
Near = tuple[NDArray[np.int64], NDArray[Any]]  # places, and their distances from a query

NOTHING: Near = (np.empty(0, np.int64), np.empty(0, np.uint8))


class _Room(threading.local):
    """Arrays to compute in, one set a thread: to take them from the system in every search takes as long again."""

    def __init__(self) -> None:
        self.differing = np.empty(BLOCK, np.uint64)
        self.counts = np.empty(BLOCK, np.uint8)
        self.near = np.empty(BLOCK, np.bool_)


_room = _Room()


def distances_to(query: NDArray[np.uint64], words: Words) -> NDArray[Any]:
    """Give the Hamming distances of one query, of shape ``(words,)``, as uint8 where they fit, else uint16."""
    return distances_to_parts(query, words, [(0, words.shape[1])])


def distances_to_parts(query: NDArray[np.uint64], words: Words, parts: list[Part]) -> NDArray[Any]:
    """Give the distances of one query to parts of the codes, one part after the other."""
    size = _size(parts)
    far = np.empty(size, np.uint8 if len(words) < 4 else np.uint16)  # of 256 bits on
    if size <= BLOCK:
        _count_into(far, query, words, parts)
    else:
        done = 0
        for group in _groups(parts):
            end = done + _size(group)
            _count_into(far[done:end], query, words, group)
            done = end
    return far


def _count_into(far: NDArray[Any], query: NDArray[np.uint64], words: Words, parts: list[Part]) -> None:
    differing, counts = _room.differing[: far.size], _room.counts[: far.size]
    for number, wanted in enumerate(query):
        word = words[number]
        if len(parts) == 1:
            np.bitwise_xor(word[parts[0][0] : parts[0][1]], wanted, differing)
        else:  # joined first: one pass over all is several times faster than many
            np.concatenate([word[start:stop] for start, stop in parts], out=differing)
            np.bitwise_xor(differing, wanted, differing)
        if number:
            far += np.bitwise_count(differing, counts)
        elif far.dtype == np.uint8:
            np.bitwise_count(differing, far)
        else:
            far[:] = np.bitwise_count(differing, counts)


def _size(parts: list[Part]) -> int:
    return sum([stop - start for start, stop in parts])


def _groups(parts: list[Part]) -> Iterator[list[Part]]:
    """Cut and group parts so that a group has ``BLOCK`` codes, the last one perhaps fewer."""
    group, room = [], BLOCK
    for start, stop in parts:
        while start < stop:
            end = min(stop, start + room)
            group.append((start, end))
            room -= end - start
            start = end
            if not room:
                yield group
                group, room = [], BLOCK
    if group:
        yield group


def parts_within(far: NDArray[Any], parts: list[Part], reach: int) -> Near:
    """Give the places within ``reach``, and their distances, from the distances to parts."""
    hits = (far <= reach).nonzero()[0]
    if len(parts) == 1:
        return hits + parts[0][0], far[hits]
    starts, stops = np.array(parts).T
    ends = np.cumsum(stops - starts)
    which = np.searchsorted(ends, hits, side="right")
    return hits + (stops - ends)[which], far[hits]


def scan(
    words: Words, query: NDArray[np.uint64], limit: int, k: int | None = None, empty: Places | None = None
) -> Near:
    """Find the codes within ``limit`` of a query, with ``k`` the k nearest of them and their ties alone.

    Args:
        words: codes of shape ``(words, n)``.
        query: one of shape ``(words,)``.
        limit: greatest distance.
        k: how many; there need not be so many.
        empty: which codes are passed over, ascending.
    """
    places, distances, reach = [], [], limit
    for start in range(0, words.shape[1], BLOCK):
        stop = min(start + BLOCK, words.shape[1])
        far = distances_to_parts(query, words, [(start, stop)])
        if empty is not None:
            hide(far, [(start, stop)], empty)
        near = np.less_equal(far, reach, _room.near[: far.size])
        count = np.count_nonzero(near)
        if k is not None and count > 2 * k:
            reach = kth_smallest(far, k, reach)  # nothing farther can be among the k nearest
            np.less_equal(far, reach, near)
        if count:
            found = near.nonzero()[0]
            places.append(found + start)
            distances.append(far[found])
    if not places:
        return NOTHING
    return nearest(np.concatenate(places), np.concatenate(distances), k, reach)


def hide(far: NDArray[Any], parts: list[Part], empty: Places) -> None:
    """Take the distances to parts of the codes beyond every limit where the code is one of ``empty``, ascending."""
    starts, stops = np.array(parts, empty.dtype).T
    first, last = np.searchsorted(empty, starts), np.searchsorted(empty, stops)
    counts, sizes = last - first, stops - starts
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    hidden = empty[np.repeat(first, counts) + within]
    far[hidden - np.repeat(starts - (np.cumsum(sizes) - sizes), counts)] = np.iinfo(far.dtype).max


def nearest(places: NDArray[np.int64], far: NDArray[Any], k: int | None, reach: int) -> Near:
    """Keep the ``k`` nearest of these places, none beyond ``reach``, and what is as near as the k-th."""
    if k is None or far.size <= k:
        return places, far
    near = far <= kth_smallest(far, k, reach)
    return places[near], far[near]


def kth_smallest(values: NDArray[Any], k: int, greatest: int) -> int:
    """Give the k-th smallest of small whole numbers by counting, or ``greatest`` where that is less."""
    low = min(int(values.min()), greatest) if values.size else greatest
    step, high = 1, low
    while high < greatest and np.count_nonzero(values <= high) < k:  # mostly it is little above the least
        low, high, step = high + 1, high + step, 2 * step
    high = min(high, greatest)
    while low < high:
        middle = (low + high) // 2
        if np.count_nonzero(values <= middle) >= k:
            high = middle
        else:
            low = middle + 1
    return low
