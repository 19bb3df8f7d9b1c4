"""Codes and what is known of each picture, changed together, searched together, saved together."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dsh_hf.codes import Codes
from dsh_hf.gallery.files import (
    Items,
    checked_file,
    digest_of_manifest,
    is_url,
    locked_folder,
    names_of_files,
    read_items,
    read_manifest,
    remove_leftovers,
    without_password,
    write_gallery,
)
from dsh_hf.gallery.items import Item, RetrieverError, matches, metadata_keys
from dsh_hf.index import ENGINES, open_index

if TYPE_CHECKING:
    from dsh_hf.index.servers import ServerIndex

Found = tuple[str, int, Item]  # id, distance, what is known of it

_FIRST_LOOK = 100  # hits of the index that a filter looks at first


class Gallery:
    """An index and the items under its ids.

    Args:
        engine: the search engine, by name or URL.
        bits: length of the codes.
        fingerprint: that of the model that makes them.
        keep_outputs: whether items hold float outputs.

    Attributes:
        engine: the search engine, a URL without its password.
        on_server: whether the codes lie on a server, where other processes may change them, too.
        index: the codes.
        items: what is known of each picture, by id.
    """

    def __init__(self, engine: str, bits: int, fingerprint: str, keep_outputs: bool, file: Path | None = None) -> None:
        self.engine = without_password(engine)
        self.on_server = is_url(engine)
        self.keep_outputs = keep_outputs
        self.index = open_index(engine, bits=bits, path=file, fingerprint=fingerprint)
        self.items: Items = {}
        self._keys: set[str] = set()  # of all metadata
        self._facts = {"bits": bits, "fingerprint": fingerprint}
        self._opened = False  # and not made anew
        self._seen: tuple[Path, str] | None = None  # where it was last opened or saved, and the manifest's digest
        self._lock = threading.Lock()  # index and items change together
        self._saving = threading.Lock()

    def check_empty(self) -> None:
        """Check that there are no codes in it, as there may be on a server.

        Raises:
            RetrieverError: there are.
        """
        if len(self.index):
            raise RetrieverError(
                f"{self.engine} holds {len(self.index)} codes already: open their gallery with SketchRetriever.load, "
                "or give a table or collection of its own"
            )

    def add(self, codes: Codes, items: Items) -> None:
        """Add items, a code for each.

        Raises:
            ValueError: an id is in the gallery already; nothing has been added then.
        """
        if items:
            with self._lock:
                self._add(codes, items)

    def replace(self, codes: Codes, items: Items) -> int:
        """Add items in the place of those that have the same ids; give how many these were.

        Raises:
            ValueError: a server holds an id that this gallery, made anew and not opened, does not know.
        """
        if not items:
            return 0
        with self._lock:
            known = [key for key in items if key in self.items]
            # A server may hold codes of a build of this gallery that was cut short before its items were saved.
            goes_on = self.on_server and self._opened
            self._remove(list(items) if goes_on else known)
            self._add(codes, items)
        return len(known)

    def remove(self, keys: Sequence[str]) -> None:
        """Remove items by id."""
        with self._lock:
            self._remove(keys)

    def nearest(self, code: Codes, k: int, where: Mapping[str, Any] | None = None) -> list[Found]:
        """Find the ``k`` items nearest to a code; with ``where``, those that it matches.

        A match that lies far away costs a search as deep as that, with all hits before it.

        Raises:
            ValueError: ``k`` is less than 1.
            RetrieverError: ``where`` has a key that no item's metadata has.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        for key in where or {}:
            if key not in self._keys:
                known = ", ".join(sorted(self._keys)) or "there are none"
                raise RetrieverError(f"no picture of this gallery has the metadata {key!r} (known: {known})")
        # A server orders its searches itself; here, index and items must be of one moment.
        with nullcontext() if self.on_server else self._lock:
            if not where:
                return self._search(code, k)
            looks, there = max(k, _FIRST_LOOK), None
            while True:  # the index knows no metadata: look further down until enough matches are found
                found = self._search(code, looks)
                hits = [hit for hit in found if matches(hit[2], where)]
                if len(hits) >= k or len(found) < looks:
                    return hits[:k]
                if there is None:  # counted before it looks deeper: they may be fewer, or none
                    there = self._count(where)
                if len(hits) >= there:
                    return hits
                looks *= 4

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Save into a folder, whole or not at all; ``facts`` go into the manifest.

        Raises:
            RetrieverError: another process is saving there, or has done so since this gallery was opened.
        """
        path = path.resolve()
        path.mkdir(parents=True, exist_ok=True)
        with self._saving, locked_folder(path) as alone:
            there, before = digest_of_manifest(path), names_of_files(path)
            if self._seen is not None and self._seen[0] == path and there not in (None, self._seen[1]):
                raise RetrieverError(
                    f"{path} has been saved by another process since this gallery was opened: open it anew with "
                    "SketchRetriever.load, or save this one into another folder"
                )
            self._seen = (path, self.write(path, facts, mark=f"-{uuid.uuid4().hex}"))
            remove_leftovers(path, None if alone else before)

    def write(
        self, path: Path, facts: Mapping[str, Any], change: Callable[[str, Item], Item] | None = None, mark: str = ""
    ) -> str:
        """Write the files of a saved gallery, and give the manifest's digest.

        Args:
            path: a folder.
            facts: what the manifest says beside what the gallery knows itself.
            change: makes of an id and its item what is written.
            mark: part of the files' names.
        """

        def write_index(file: Path | None) -> Items:
            with self._lock:
                if file is not None:
                    self.index.save(file)
                items = dict(self.items)
            return items if change is None else {key: change(key, item) for key, item in items.items()}

        own = {"engine": self.engine, "keep_outputs": self.keep_outputs, "metadata": sorted(self._keys)}
        return write_gallery(path, self._facts | own | dict(facts), write_index, self.on_server, mark)

    @classmethod
    def open(cls, path: Path, bits: int, fingerprint: str, engine: str | None) -> "tuple[Gallery, dict[str, Any]]":
        """Open a saved gallery; give it with its manifest.

        Raises:
            RetrieverError: there is none at this path, or its files are damaged.
            IndexMismatchError: it was made by another model, or with another code length.
        """
        path = path.resolve()
        manifest, digest = read_manifest(path)
        try:
            return cls._open(path, manifest, digest, bits, fingerprint, engine), manifest
        except (ValueError, OSError):
            if digest_of_manifest(path) == digest:
                raise
        return cls.open(path, bits, fingerprint, engine)  # it was saved anew meanwhile

    @classmethod
    def _open(
        cls, path: Path, manifest: Mapping[str, Any], digest: str, bits: int, fingerprint: str, engine: str | None
    ) -> "Gallery":
        saved = manifest["engine"]
        if is_url(saved):
            # Never connect to what a file names: with the connection, passwords of the environment may go there.
            if engine is None or not is_url(engine):
                raise RetrieverError(
                    f"{path} was saved with the engine {without_password(saved)!r}, a server: "
                    "say where to connect with engine=URL (dsh-hf: --engine URL)"
                )
        elif engine is not None and engine != saved:
            given = without_password(engine)
            raise RetrieverError(f"{path} was saved with the engine {saved!r}: open it without engine={given!r}")
        elif saved not in ENGINES:
            raise RetrieverError(f"{path} was saved with the engine {saved!r}, which this version of dsh_hf has not")
        file = None if is_url(saved) else checked_file(path, manifest, "index")
        gallery = cls(engine or saved, bits, fingerprint, manifest.get("keep_outputs", False), file)
        gallery.items = read_items(checked_file(path, manifest, "items"))
        gallery._keys = set(manifest["metadata"]) if "metadata" in manifest else metadata_keys(gallery.items.values())
        gallery._opened, gallery._seen = True, (path, digest)
        if not gallery.on_server and len(gallery.index) != len(gallery.items):
            raise RetrieverError(f"{path}: index and items do not belong together: build the gallery again")
        return gallery

    def _count(self, where: Mapping[str, Any]) -> int:
        """Count the items that ``where`` matches, looking at equal metadata once."""
        counts = Counter(item.metadata for item in list(self.items.values()))
        return sum(count for text, count in counts.items() if matches(Item(metadata=text), where))

    def _search(self, code: Codes, k: int) -> list[Found]:
        distances, ids = self.index.search(code, k)
        nothing = Item()  # of what another process has put on the server
        return [
            (key, distance, self.items.get(key, nothing))
            for distance, key in zip(distances.tolist(), ids.tolist(), strict=True)
        ]

    def _add(self, codes: Codes, items: Items) -> None:
        self.index.add(codes, list(items))
        self.items.update(items)
        self._keys |= metadata_keys(items.values())

    def _remove(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        if self.on_server:
            self._remove_from_server(keys)
        else:
            self.index.remove(keys)
        for key in keys:
            self.items.pop(key, None)

    def _remove_from_server(self, keys: Sequence[str]) -> None:
        """Remove those of the keys that are there, however many others have removed before."""
        index = cast("ServerIndex", self.index)
        while known := index.known(keys):
            with suppress(KeyError):  # another process has removed some of them since: nothing was removed
                index.remove(sorted(known))
                return
