"""What the engines behind a server share: URLs without secrets, ids as text, second attempts, clear refusals."""

import io
import re
import time
from abc import abstractmethod
from collections.abc import Callable
from os import PathLike
from typing import Any, Self, TypeVar
from urllib.parse import unquote

import numpy as np

from dsh_hf.index.base import GivenIds, Ids, Index, IndexFileError, IndexMismatchError, check_ids

FORMAT = 1  # version of what an engine keeps on its server
PAUSES = (0.1, 1.0)  # seconds before the second and the third attempt

T = TypeVar("T")


class ServerIndex(Index):
    """An index whose codes live on a server: it is opened by URL, and there is no file.

    One object is one connection. Processes and threads that shall search at the same time open one each.

    Attributes:
        place: where the index is, without user, password or token.
    """

    place: str

    def save(self, path: str | PathLike[str]) -> None:
        """Refuse: what was added is kept by the server already.

        Raises:
            io.UnsupportedOperation: always; an OSError and a ValueError.
        """
        raise io.UnsupportedOperation(
            f"the codes live on the server, at {self.place}: there is no file to save; open the index by its URL"
        )

    @classmethod
    def load(cls, path: str | PathLike[str], *, bits: int | None = None, fingerprint: str | None = None) -> Self:
        """Refuse: there is no file to load.

        Raises:
            io.UnsupportedOperation: always; an OSError and a ValueError.
        """
        raise io.UnsupportedOperation(f"a {cls.engine} index has no file: open it by the URL of its server")

    def known(self, ids: GivenIds) -> set[Any]:
        """Give those of the ids that are in the index, in one look."""
        checked = check_ids(ids, unique=False)
        with self._lock:
            return self._known(checked) if len(checked) else set()

    @abstractmethod
    def _known(self, ids: Ids) -> set[Any]: ...

    @abstractmethod
    def close(self) -> None:
        """Close the connection; the next call opens it again."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place!r}, bits={self.bits})"

    def __del__(self) -> None:
        if hasattr(self, "place"):  # set last: without it nothing was opened
            self.close()

    def _check_made_for(self, version: int, bits: int, fingerprint: str | None) -> None:
        """Refuse what is on the server where it was made for another code length or model; take up its model."""
        if version > FORMAT:
            raise IndexFileError(f"{self.place} was written in the newer format {version}: upgrade dsh-hf")
        ways = "open it with the model that made them, or give another name in the URL and encode the collection again"
        if bits != self.bits:
            raise IndexMismatchError(f"{self.place} holds codes of {bits} bits, not {self.bits}: {ways}")
        if self.fingerprint is not None and fingerprint != self.fingerprint:
            raise IndexMismatchError(
                f"{self.place} holds codes of the model {fingerprint}, not {self.fingerprint}: {ways}"
            )
        self.fingerprint = fingerprint


def take_options(url: str, names: set[str]) -> tuple[str, dict[str, str]]:
    """Split off the query parameters that are ours: give the URL without them, and their values.

    Raises:
        ValueError: a parameter that is empty or given twice.
    """
    base, _, query = url.partition("?")
    ours: dict[str, str] = {}
    others = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in names:
            others.append(part)
        elif name in ours or not value:
            raise ValueError(f"give {name!r} once in the URL, as ?{name}=...")
        else:
            ours[name] = unquote(value)
    return (f"{base}?{'&'.join(others)}" if others else base), ours


def without_secrets(text: str, secrets: list[str]) -> str:
    """Give a server's or driver's message without passwords and tokens, on one line."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split())


def repeated(attempt: Callable[[], T], is_passing: Callable[[Exception], bool]) -> T:
    """Call ``attempt``, and again after a pause where its error is a passing one; the last error is raised."""
    for pause in PAUSES:
        try:
            return attempt()
        except Exception as error:
            if not is_passing(error):
                raise
        time.sleep(pause)
    return attempt()


# Ids as text. Servers keep UTF-8, and no NUL; paths of files may hold neither. What a server can't keep is
# written as the mark and four hexadecimal digits, so that every str has a text and no two have the same.
MARK = "\ue000"
UNKEPT = "\0\ud800-\udfff" + MARK


def to_text(name: str, unkept: str = UNKEPT) -> str:
    """Give the text that a server keeps for an id; ``unkept`` lists the characters that it can't."""
    return re.sub(f"[{unkept}]", lambda found: f"{MARK}{ord(found[0]):04x}", name)


def from_text(text: str) -> str:
    """Give the id of a text."""
    return re.sub(f"{MARK}([0-9a-f]{{4}})", lambda found: chr(int(found[1], 16)), text)


def as_array(ids: list[Any], texts: bool) -> Ids:
    """Give ids as they came from a server, ints or texts, as an array."""
    if not texts:
        return np.array(ids, np.int64)
    array = np.empty(len(ids), dtype=object)
    array[:] = [from_text(text) for text in ids]
    return array


# What every engine refuses.


def new_ids(ids: Ids | None, count: int, next_id: int, held: str | None) -> Ids:
    """Give the ids of ``count`` new codes: those given, or running ones from ``next_id`` on.

    Args:
        ids: the ids given, or None.
        count: how many are needed.
        next_id: one more than the greatest int id ever given.
        held: kind of the ids in the index, "int" or "str"; None where it holds none.

    Raises:
        ValueError: ids of another kind than ``held``, or none are left.
    """
    if ids is None:
        if held == "str":
            raise ValueError("the index holds str ids: give ids with the codes")
        if next_id + count > 2**63:
            raise ValueError("no running ids are left after the greatest id: give ids with the codes")
        return next_id + np.arange(count)
    if held not in (None, kind_of(ids)):
        raise ValueError(f"the index holds {held} ids and takes no {kind_of(ids)} ids")
    return ids


def kind_of(ids: Ids) -> str:
    """Give "int" or "str"."""
    return "str" if ids.dtype == object else "int"


def refuse_known(ids: list[Any], known: set[Any]) -> None:
    """Refuse ids of which some are in the index.

    Raises:
        ValueError: ``known`` is not empty.
    """
    if known:
        first = next(name for name in ids if name in known)
        raise ValueError(f"id {first!r} is in the index already: remove it first")


def refuse_missing(ids: list[Any], known: set[Any]) -> None:
    """Refuse ids of which some are not in the index.

    Raises:
        KeyError: an id is not among ``known``.
    """
    missing = [name for name in ids if name not in known]
    if missing:
        more = f" (nor are {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise KeyError(f"id {missing[0]!r} is not in the index{more}; nothing was removed")
