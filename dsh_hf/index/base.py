"""What every search engine for codes offers, and the checks that none of them should have to repeat."""

import operator
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsh_hf.codes import Codes, check_codes

Ids = NDArray[Any]  # int64, or Python strs in an array of dtype object
GivenIds = Sequence[int] | Sequence[str] | Ids | int | str
Found = tuple[NDArray[np.int64], Ids]  # distances and ids


class IndexFileError(ValueError):
    """The file is truncated, altered, of a newer format, or not an index at all."""


class IndexMismatchError(ValueError):
    """The index is sound, but made for another engine, code length or model."""


class IndexChangedError(ValueError):
    """The file has been saved by another process since the index was opened."""


class Index(ABC):
    """Packed binary codes under ids, searched by Hamming distance.

    Results come in the order (distance, insertion). One index holds either int or str ids. Several threads may
    use it; their calls wait for one another, searches too, and none sees half a change. A search after changes
    can take long, and the others wait: some engines put off work until then.

    Attributes:
        engine: name of the search engine.
        bits: length of the codes.
        fingerprint: fingerprint of the model that made the codes, where known.
    """

    engine: ClassVar[str]

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        if bits < 1:
            raise ValueError(f"bits must be at least 1, got {bits}")
        self.bits = bits
        self.fingerprint = fingerprint
        self._lock = threading.RLock()

    def add(self, codes: ArrayLike, ids: GivenIds | None = None) -> None:
        """Add codes.

        Args:
            codes: uint8 codes of shape ``(n, ceil(bits / 8))``, or one code of shape ``(ceil(bits / 8),)``.
            ids: one int or str each, unique in the index; running integers when left out.

        Raises:
            ValueError: codes of another shape or dtype, or ids that repeat, are in the index already, are of
                another kind than those in it, or are not one a code. Nothing has been added then.
        """
        rows, _ = self._as_rows(codes, "codes")
        checked = None if ids is None else check_ids(ids)
        if checked is not None and len(checked) != len(rows):
            raise ValueError(f"ids must be one a code: got {len(checked)} ids for {len(rows)} codes")
        if len(rows):
            with self._lock:
                self._add(rows, checked)

    def search(self, codes: ArrayLike, k: int) -> Found:
        """Find the k nearest items of every query.

        Args:
            codes: uint8 queries of shape ``(n, ceil(bits / 8))``, or one of shape ``(ceil(bits / 8),)``.
            k: how many to find, at least 1.

        Returns:
            int64 distances and ids, both of shape ``(n, k')`` with ``k' = min(k, len(index))``; of shape
            ``(k',)`` for one query.
        """
        queries, single = self._as_rows(codes, "queries")
        k = operator.index(k)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        with self._lock:
            distances, ids = self._search(queries, min(k, len(self)))
        return (distances[0], ids[0]) if single else (distances, ids)

    def search_radius(self, codes: ArrayLike, r: int) -> Found | list[Found]:
        """Find every item within Hamming distance ``r`` of each query; exact in every engine.

        Args:
            codes: uint8 queries, as in :meth:`search`.
            r: greatest distance, at least 0.

        Returns:
            A list with one pair of 1-D arrays (int64 distances, ids) a query; the pair alone for one query.
        """
        queries, single = self._as_rows(codes, "queries")
        r = operator.index(r)
        if r < 0:
            raise ValueError(f"r must be at least 0, got {r}")
        with self._lock:
            found = self._search_radius(queries, min(r, self.bits))
        return found[0] if single else found

    def remove(self, ids: GivenIds) -> None:
        """Remove items by id.

        Raises:
            KeyError: an id that is not in the index; nothing has been removed then.
        """
        checked = check_ids(ids, unique=False)
        if len(checked):
            with self._lock:
                self._remove(checked)

    def use_pivots(self, codes: ArrayLike) -> None:
        """Take codes that the collection gathers around, such as a model's class codes, for a hint.

        It changes no answer. The exact engine can be faster by it, the others have no use for it.

        Args:
            codes: uint8 codes of shape ``(n, ceil(bits / 8))``.
        """
        check_codes(codes, self.bits, "pivots")

    @abstractmethod
    def __len__(self) -> int:
        """Count the items."""

    @abstractmethod
    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to ``path``, whole or not at all; its folder is made where missing.

        Raises:
            IndexChangedError: another process has saved the file since this index was opened from it, or last
                saved to it; nothing is written then.
        """

    @classmethod
    @abstractmethod
    def load(cls, path: str | PathLike[str], *, bits: int | None = None, fingerprint: str | None = None) -> Self:
        """Open a saved index; ``bits`` and ``fingerprint``, where given, must be those it was saved with.

        Raises:
            FileNotFoundError: no such file.
            IndexFileError: the file is truncated, altered, of a newer format, or no index.
            IndexMismatchError: made by another engine, or for another code length or model.
        """

    @classmethod
    def open(cls, path: str | PathLike[str], *, bits: int, fingerprint: str | None = None) -> Self:
        """Open the index saved at ``path``, or make an empty one where there is no such file."""
        if Path(path).exists():
            return cls.load(path, bits=bits, fingerprint=fingerprint)
        return cls(bits=bits, fingerprint=fingerprint)

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Describe the index: engine, bits, fingerprint, items, distinct codes, bytes of memory beside the ids."""

    @abstractmethod
    def _add(self, codes: Codes, ids: Ids | None) -> None: ...

    @abstractmethod
    def _search(self, queries: Codes, k: int) -> Found: ...

    @abstractmethod
    def _search_radius(self, queries: Codes, r: int) -> list[Found]: ...

    @abstractmethod
    def _remove(self, ids: Ids) -> None: ...

    def _as_rows(self, codes: ArrayLike, name: str) -> tuple[Codes, bool]:
        array = np.asarray(codes)
        single = array.ndim == 1
        return check_codes(array[None] if single else array, self.bits, name), single


_TOO_GREAT = "ids that are ints must fit in 64 bits; give greater ones as strs"


def check_ids(ids: GivenIds, unique: bool = True) -> Ids:
    """Give ids as a 1-D int64 array, or as an array of dtype object that holds strs.

    Raises:
        ValueError: neither all ints nor all strs, ints beyond 64 bits, or an id that repeats.
    """
    if isinstance(ids, (str, int, np.integer)):
        values: list[Any] = [ids]  # one id, not a string of one-letter ids
    else:
        if isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind in "iu":
            return _check_numbers(ids, unique)  # of a million, in a twentieth of the time and memory
        values = np.atleast_1d(ids).tolist() if isinstance(ids, np.ndarray) else list(ids)
    if all(isinstance(value, str) for value in values):
        array = np.empty(len(values), dtype=object)
        array[:] = values
    elif all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values):
        try:
            array = np.array(values, dtype=np.int64)
        except OverflowError:
            raise ValueError(_TOO_GREAT) from None
    else:
        raise ValueError("ids must be all ints or all strs")
    if unique and len(set(values)) < len(values):
        repeated = Counter(values).most_common(1)[0][0]
        raise ValueError(f"id {repeated!r} is given more than once")
    return array


def _check_numbers(ids: NDArray[Any], unique: bool) -> Ids:
    """Do the work of :func:`check_ids` for whole numbers, without a Python object for each."""
    if ids.size and int(ids.max()) >= 2**63:
        raise ValueError(_TOO_GREAT)
    numbers = ids.astype(np.int64)
    if unique and not (numbers[1:] > numbers[:-1]).all():
        ordered = np.sort(numbers)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if repeated.size:
            raise ValueError(f"id {int(repeated[0])} is given more than once")
    return numbers
