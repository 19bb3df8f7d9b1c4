"""Exact search: every distinct code is compared, block by block, with NumPy alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes
from dsh_hf.index.local import LocalIndex, Rows, to_words

BLOCK = 32_768  # codes compared at a time: what is computed on the way stays in the processor's cache


class ExactIndex(LocalIndex):
    """The exact index: the answers of a full sort for one pass over the distinct codes and no sort."""

    engine = "exact"

    def _rows_near(self, queries: Codes, k: int) -> Iterator[Rows]:
        return self._scan(queries, self.bits, min(k, self._live_rows))  # every live row holds an item

    def _rows_within(self, queries: Codes, r: int) -> Iterator[Rows]:
        return self._scan(queries, r)

    def _scan(self, queries: Codes, limit: int, k: int | None = None) -> Iterator[Rows]:
        """Give, a query, the live rows within ``limit``; with ``k`` only the k nearest and their ties."""
        words = self._words.array
        dtype = np.uint8 if self.bits < 255 else np.uint16
        beyond = None
        if self._live_rows < words.shape[1]:
            # All bits set where a row is empty: or-ed into its distance, this takes it beyond every limit.
            beyond = np.negative(self._arranged().empty.astype(dtype))
        for query in to_words(queries).T:
            rows, distances, reach = [], [], limit
            for start in range(0, words.shape[1], BLOCK):
                block = words[:, start : start + BLOCK]
                far = np.bitwise_count(block[0] ^ query[0]).astype(dtype, copy=False)
                for word, wanted in zip(block[1:], query[1:], strict=True):
                    far += np.bitwise_count(word ^ wanted)
                if beyond is not None:
                    far |= beyond[start : start + BLOCK]
                near = far <= reach
                if k is not None and np.count_nonzero(near) > 2 * k:
                    reach = _kth_smallest(far, k, reach)  # nothing farther can be among the k nearest
                    near = far <= reach
                found = np.flatnonzero(near)
                rows.append(found + start)
                distances.append(far[found])
            all_rows, all_far = np.concatenate(rows), np.concatenate(distances)
            if k is not None:
                near = all_far <= _kth_smallest(all_far, k, reach)
                all_rows, all_far = all_rows[near], all_far[near]
            yield all_rows, all_far


def _kth_smallest(values: NDArray[Any], k: int, greatest: int) -> int:
    """Give the k-th smallest of small whole numbers by counting; it must be at most ``greatest``."""
    low, high = 0, greatest
    while low < high:
        middle = (low + high) // 2
        if np.count_nonzero(values <= middle) >= k:
            high = middle
        else:
            low = middle + 1
    return low
