"""Rows that hold items: from rows near a query to items in order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.index.arrays import Places

_ITEM_BITS = 40  # of a sorting key; the distance stands above them


def open_rows(
    rows: Places, far: NDArray[Any], items: Places, starts: Places, k: int | None = None
) -> tuple[NDArray[Any], Places]:
    """Give distances and items of rows; with ``k`` only of rows that can hold one of the first k.

    Args:
        rows: the rows, in any order.
        far: their distances.
        items: the items of all rows, row after row, a row's in order of insertion.
        starts: where each row starts in ``items``, and where the last one ends.
        k: how many items are wanted at most.
    """
    sizes = starts[rows + 1] - starts[rows]
    if k is not None:
        order = np.argsort(far, kind="stable")
        rows, far, sizes = rows[order], far[order], sizes[order]
        reached = int(np.searchsorted(np.cumsum(sizes), k))  # where k items are complete
        if reached < rows.size:  # no row beyond that distance counts
            rows = rows[: np.searchsorted(far, far[reached], side="right")]
            far, sizes = far[: rows.size], sizes[: rows.size]
        sizes = np.minimum(sizes, k)
    ends = np.cumsum(sizes)
    within = np.arange(sizes.sum()) - np.repeat(ends - sizes, sizes)
    return np.repeat(far, sizes), items[np.repeat(starts[rows], sizes) + within]


def in_order(far: NDArray[Any], items: Places, k: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give distances and items by (distance, insertion), with ``k`` the first k."""
    keys = far.astype(np.int64)
    keys <<= _ITEM_BITS
    keys |= items
    keys.sort()
    keys = keys[:k]
    return keys >> _ITEM_BITS, keys & ((1 << _ITEM_BITS) - 1)
