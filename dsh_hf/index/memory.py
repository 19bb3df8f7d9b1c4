"""What the engines in this process share, however they hold codes: ids, the file, and what is checked of it."""

from abc import abstractmethod
from os import PathLike
from pathlib import Path
from typing import Any, Self

from dsh_hf.index.base import Ids, Index, IndexFileError, IndexMismatchError
from dsh_hf.index.files import REMEDY, Tensors, read_index_file, write_index_file
from dsh_hf.index.ids import ItemIds

# What is raised for a file that is not sound, by our own checks, by NumPy, and by FAISS.
UNSOUND = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)


class MemoryIndex(Index):
    """An index held in memory and saved as one file.

    What another process has saved since an index was opened is not lost: :meth:`save` refuses to replace it.
    """

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        super().__init__(bits=bits, fingerprint=fingerprint)
        self._ids = ItemIds()
        self._seen: dict[Path, str | None] = {}  # the checksum of what this index read from or wrote to a file

    def __len__(self) -> int:
        return self._ids.count

    def save(self, path: str | PathLike[str]) -> None:  # noqa: D102
        place = Path(path).resolve()
        with self._lock:
            header, tensors = self._stored()
            header |= {"engine": self.engine, "bits": self.bits, "fingerprint": self.fingerprint}
            header |= {"count": len(self), "next_id": self._ids.next_id}
            tensors |= self._ids.to_tensors()
            checks = {"replaces": self._seen[place]} if place in self._seen else {}
            self._seen[place] = write_index_file(path, header, tensors, **checks)

    @classmethod
    def load(  # noqa: D102
        cls, path: str | PathLike[str], *, bits: int | None = None, fingerprint: str | None = None
    ) -> Self:
        header, tensors, checksum = read_index_file(path)
        if not _is_sound(header):
            raise IndexFileError(f"{path} does not say soundly what it holds: {REMEDY}")
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
        try:
            index._ids = ItemIds.from_tensors(tensors, header["next_id"], header["count"])
            index._take_up(header, tensors)
        except UNSOUND as error:
            detail = " ".join(str(error).split())
            raise IndexFileError(f"{path} holds what no index has ({detail}): {REMEDY}") from error
        index._seen[Path(path).resolve()] = checksum
        return index

    @classmethod
    def open(cls, path: str | PathLike[str], *, bits: int, fingerprint: str | None = None) -> Self:  # noqa: D102
        index = super().open(path, bits=bits, fingerprint=fingerprint)
        index._seen.setdefault(Path(path).resolve(), None)  # what another process saves there is not replaced
        return index

    def stats(self) -> dict[str, Any]:  # noqa: D102
        with self._lock:
            held = self._described()
            return {
                "engine": self.engine,
                "bits": self.bits,
                "fingerprint": self.fingerprint,
                "items": len(self),
                **held,
                "bytes": held["bytes"] + self._ids.other_bytes,
                "id_bytes": self._ids.id_bytes,
            }

    def _remove(self, ids: Ids) -> None:
        self._drop(self._ids.removed(ids))

    @abstractmethod
    def _drop(self, items: Any) -> None:
        """Take note that these items, ascending, are live no more."""

    @abstractmethod
    def _stored(self) -> tuple[dict[str, Any], Tensors]:
        """Give what the file holds beside the ids of the live items: plain values and tensors."""

    @abstractmethod
    def _take_up(self, header: dict[str, Any], tensors: Tensors) -> None:
        """Take up what :meth:`_stored` gave, also in an earlier version; the ids are there already.

        A checksum tells nothing about who made the file: whatever is a place in an array is checked.

        Raises:
            UNSOUND: one of these errors where it is not sound.
        """

    @abstractmethod
    def _described(self) -> dict[str, Any]:
        """Give the engine's own part of :meth:`stats`: at least distinct codes, and bytes held beside the ids."""


def _is_sound(header: dict[str, Any]) -> bool:
    kinds = {"engine": str, "bits": int, "count": int, "next_id": int, "fingerprint": str | None}
    told = all(name in header and isinstance(header[name], kind) for name, kind in kinds.items())
    return told and header["bits"] >= 1 and header["count"] >= 0 and 0 <= header["next_id"] <= 2**63
