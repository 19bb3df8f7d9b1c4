"""Exact search by PyTorch, on a GPU where there is one: for many queries at once, as an evaluation has them.

The product of codes as vectors of -1 and +1 tells how many bits agree less how many differ. All its sums are
whole numbers that the dtype holds exactly, so distances are exact on every device, whatever the order of adding.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dsh_hf.codes import Codes, code_bytes
from dsh_hf.index.local import LocalIndex, Places, Rows

if TYPE_CHECKING:
    import torch

BLOCK = 8192  # codes multiplied at a time: what is computed on the way stays in the cache
QUERIES = 1024  # queries multiplied at a time, or fewer where the collection is so large that
DISTANCES = 1 << 28  # distances would be more


class TorchIndex(LocalIndex):
    """The exact index for many queries at once; the answers of the exact engine, ties included.

    Attributes:
        device: where it computes: "cuda" where there is a GPU, else "cpu".
    """

    engine = "torch"

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        import torch

        super().__init__(bits=bits, fingerprint=fingerprint)
        self._torch = torch
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Half precision holds whole numbers up to 2,048.
        self._dtype = torch.float16 if self.device.type == "cuda" and bits <= 2048 else torch.float32
        self._held = torch.empty((0, code_bytes(bits)), dtype=torch.uint8, device=self.device)
        self._empty_rows: torch.Tensor | None = None  # made when first needed after a change

    def stats(self) -> dict[str, Any]:
        """Describe the index as :meth:`Index.stats` does; the bytes count the copy that PyTorch holds too."""
        with self._lock:
            stats = super().stats()
            return stats | {"bytes": stats["bytes"] + self._held.nbytes, "device": str(self.device)}

    def _rows_near(self, queries: Codes, k: int) -> Iterator[Rows]:
        k = min(k, self._live_rows)
        for far in self._distances(queries):
            nearer = self._torch.bincount(far, minlength=self.bits + 1).cumsum(0)
            yield self._within(far, int((nearer < k).sum()))

    def _rows_within(self, queries: Codes, r: int) -> Iterator[Rows]:
        for far in self._distances(queries):
            yield self._within(far, r)

    def _within(self, far: "torch.Tensor", limit: int) -> Rows:
        """Give the rows within the limit in ascending order: so the answer hangs on no device's sorting."""
        rows = (far <= limit).nonzero()[:, 0]
        return rows.cpu().numpy(), far[rows].cpu().numpy()

    def _distances(self, queries: Codes) -> Iterator["torch.Tensor"]:
        """Give, a query, the distances to all rows; those of empty rows are beyond all bits."""
        torch = self._torch
        self._hold()
        rows = len(self._held)
        dtype = torch.uint8 if self.bits < 255 else torch.int16
        count = min(QUERIES, max(1, DISTANCES // rows))
        for start in range(0, len(queries), count):
            signs = self._signs(torch.from_numpy(queries[start : start + count]).to(self.device))
            far = torch.empty((len(signs), rows), dtype=dtype, device=self.device)
            for first in range(0, rows, BLOCK):
                products = signs @ self._signs(self._held[first : first + BLOCK]).T
                far[:, first : first + BLOCK] = (signs.shape[1] - products) / 2
            far[:, self._empty_rows] = self.bits + 1
            yield from far

    def _signs(self, codes: "torch.Tensor") -> "torch.Tensor":
        """Unpack codes of shape ``(n, bytes)`` into -1 and +1 of shape ``(n, 8 * bytes)``."""
        places = self._torch.arange(8, dtype=self._torch.uint8, device=self.device)
        ones = (codes[:, :, None] >> places) & 1
        return ones.reshape(len(codes), -1).to(self._dtype) * 2 - 1

    def _hold(self) -> None:
        """Copy to the device what it does not hold yet."""
        held = len(self._held)
        if held < self._sizes.array.size:
            new = self._torch.from_numpy(self._codes(slice(held, None))).to(self.device)
            self._held = self._torch.cat([self._held, new])
        if self._empty_rows is None:
            self._empty_rows = self._torch.from_numpy(np.flatnonzero(self._arranged().empty)).to(self.device)

    def _rows_live(self, rows: Places) -> None:
        self._empty_rows = None

    def _rows_empty(self, rows: Places) -> None:
        self._empty_rows = None

    def _rows_renumbered(self) -> None:
        self._held = self._held[:0]
        self._empty_rows = None
