"""A gallery that sketches search: where a model, an index and what each item is come together."""

import json
import logging
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from dsh_hf.codes import Codes, code_bytes
from dsh_hf.files import write_atomically
from dsh_hf.index import Index, open_index
from dsh_hf.modeling import DSHModel
from dsh_hf.processing import PICTURE_SUFFIXES, Picture, PictureError

logger = logging.getLogger(__name__)

MANIFEST_NAME = "retriever.json"
_FORMAT_VERSION = 1
_CHUNK = 256  # pictures encoded between two looks at the progress bar


class RetrieverError(ValueError):
    """A gallery cannot be built or opened; the message names the folder or file and the way out."""


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        id: the item's id in the gallery.
        distance: Hamming distance between its code and the sketch's, in bits.
        source: where the picture lies; ``None`` where it was given without a place.
        metadata: what else is known of it, such as its label.
    """

    id: str
    distance: int
    source: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class SketchRetriever:
    """A gallery of pictures that is searched by drawing.

    Searches may run while another thread adds or syncs.

    Args:
        model: encodes the pictures and the sketches.
        engine: the search engine, see :func:`dsh_hf.index.open_index`.

    Attributes:
        model: the model.
        index: the index over the pictures' codes.
        skipped: files that could not be used when the gallery was last built or synced, and why.

    Example:
        >>> retriever = SketchRetriever.from_folder("photos", model)  # doctest: +SKIP
        >>> for hit in retriever.search("my_sketch.png", k=5):  # doctest: +SKIP
        ...     print(hit.distance, hit.source)
    """

    def __init__(self, model: DSHModel, *, engine: str = "exact") -> None:
        self.model = model
        self.engine = engine
        self.folder: Path | None = None
        self.skipped: dict[str, str] = {}
        self._fingerprint = model.fingerprint
        self.index: Index = open_index(engine, bits=model.config.bits, fingerprint=self._fingerprint)
        self._items: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()  # index and items change together

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike,
        model: DSHModel,
        *,
        engine: str = "exact",
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> "SketchRetriever":
        """Build a gallery from every picture in a folder and the folders in it.

        A picture's id is its path inside the folder. Where the pictures lie in folders of their own, the name
        of the first one becomes ``metadata["label"]``. Files that are no pictures, or damaged ones, are skipped
        and listed in ``skipped``.

        Raises:
            RetrieverError: there is no such folder, or no picture in it.
        """
        retriever = cls(model, engine=engine)
        retriever.folder = Path(folder).resolve()
        retriever.sync(batch_size=batch_size, show_progress_bar=show_progress_bar)
        return retriever

    def sync(self, *, batch_size: int = 32, show_progress_bar: bool | None = None) -> dict[str, int]:
        """Bring the gallery up to date with its folder: new, changed and vanished files.

        Returns:
            How many were ``added``, ``removed`` and ``skipped``; a changed file counts as added and removed.

        Raises:
            RetrieverError: the gallery was not built from a folder, or the folder has no pictures.
        """
        if self.folder is None:
            raise RetrieverError("this gallery was not built from a folder, so there is nothing to sync with")
        found, unreadable = _find_pictures(self.folder)
        gone = {key for key, item in self._items.items() if found.get(key, (None, None))[1] != item["stamp"]}
        new = [key for key in found if key not in self._items or key in gone]
        # Encode first: if that is interrupted, the gallery is as it was.
        codes, kept, damaged = self._encode([found[key][0] for key in new], new, batch_size, show_progress_bar)
        self.skipped = unreadable | damaged
        if len(self._items) - len(gone) + len(kept) == 0:
            reason = next(iter(self.skipped.values()), "it is empty")
            raise RetrieverError(f"{self.folder} has no picture that can be used ({reason})")
        with self._lock:
            if gone:
                self.index.remove(list(gone))
                for key in gone:
                    del self._items[key]
            self._add(codes, kept, {key: _folder_item(key, *found[key]) for key in kept})
        return {"added": len(kept), "removed": len(gone), "skipped": len(self.skipped)}

    def add(
        self,
        pictures: Sequence[Picture],
        ids: Sequence[str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> None:
        """Add pictures to the gallery.

        Args:
            pictures: paths, PIL images, arrays or a ``datasets`` column.
            ids: one str for each picture, not yet in the gallery.
            metadata: what a hit should carry, one mapping for each picture.
            batch_size: pictures that go through the networks at once.
            show_progress_bar: ``None`` shows one from a thousand pictures on.

        Raises:
            PictureError: a picture cannot be used; nothing has been added then.
            ValueError: ids repeat, are no strs, or there is not one for each picture.
        """
        _check_ids(ids)  # before the long work
        if len(ids) != len(pictures) or (metadata is not None and len(metadata) != len(pictures)):
            raise ValueError(f"{len(pictures)} pictures need as many ids and metadata, got {len(ids)} ids")
        codes = self.model.encode_images(pictures, batch_size=batch_size, show_progress_bar=show_progress_bar)
        self.add_codes(
            codes,
            ids,
            sources=[os.fspath(p) if isinstance(p, str | os.PathLike) else None for p in pictures],
            metadata=metadata,
        )

    def add_codes(
        self,
        codes: Codes,
        ids: Sequence[str],
        sources: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Add pictures whose codes this gallery's model has made before, shape ``(n, ceil(bits / 8))``.

        Raises:
            ValueError: ids repeat, are no strs, or there is not one for each code.
        """
        _check_ids(ids)
        items = {
            key: {
                "source": sources[row] if sources else None,
                "metadata": dict(metadata[row]) if metadata else {},
                "stamp": None,
            }
            for row, key in enumerate(ids)
        }
        with self._lock:
            self._add(codes, list(ids), items)

    def search(self, sketch: Picture, k: int = 10) -> list[Hit]:
        """Find the ``k`` pictures nearest to a sketch, nearest first.

        Raises:
            PictureError: the sketch cannot be read, or is empty.
        """
        return self.search_code(self.model.encode_sketches(sketch), k)

    def search_code(self, code: Codes, k: int = 10) -> list[Hit]:
        """Find the ``k`` pictures nearest to a code of shape ``(ceil(bits / 8),)``, nearest first."""
        with self._lock:
            distances, ids = self.index.search(code, k)
            items = [self._items[key] for key in ids]
        return [
            Hit(key, int(distance), item["source"], item["metadata"])
            for distance, key, item in zip(distances, ids, items, strict=True)
        ]

    def save(self, path: str | os.PathLike) -> None:
        """Save the gallery (codes, ids, sources, metadata; no pictures) into a folder, whole or not at all."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        mark = uuid.uuid4().hex  # of this save alone: another process may be saving into the same folder
        names = {"index": f"index-{mark}", "items": f"items-{mark}.json"}
        try:
            # JSON in ASCII: file names that are no UTF-8 pass through it unchanged.
            with self._lock:
                self.index.save(path / names["index"])
                items = json.dumps(self._items).encode()
            write_atomically(path / names["items"], items)
            replaced = self._write_manifest(path, names)
        except Exception:  # not KeyboardInterrupt: that may come when the manifest names them already
            _remove_files(path, list(names.values()))
            raise
        _remove_files(path, replaced)

    def _write_manifest(self, path: Path, names: dict[str, str]) -> list[Any]:
        """Make the named files those of the gallery; give the names of the files that were."""
        manifest = {
            "format_version": _FORMAT_VERSION,
            "engine": self.engine,
            "bits": self.model.config.bits,
            "fingerprint": self._fingerprint,
            "folder": str(self.folder) if self.folder else None,
            "skipped": self.skipped,
            **names,
        }
        try:
            before = _read_json(path / MANIFEST_NAME, path)
        except RetrieverError:  # there is none, or it is damaged
            before = {}
        write_atomically(path / MANIFEST_NAME, json.dumps(manifest, indent=1).encode())
        return [before.get(name) for name in names]

    @classmethod
    def load(cls, path: str | os.PathLike, model: DSHModel) -> "SketchRetriever":
        """Open a saved gallery with the model that made its codes.

        Raises:
            RetrieverError: there is none at this path, or its files are damaged.
            IndexMismatchError: it was made by another model, or with another code length.
        """
        path = Path(path)
        manifest = _read_json(path / MANIFEST_NAME, path)
        if manifest.get("format_version", 0) > _FORMAT_VERSION:
            raise RetrieverError(f"{path} was saved by a newer dsh_hf: upgrade with `pip install -U dsh-hf`")
        try:
            engine, index, items = manifest["engine"], path / manifest["index"], path / manifest["items"]
            folder, skipped = manifest["folder"], manifest["skipped"]
        except KeyError as error:
            raise RetrieverError(f"{path / MANIFEST_NAME} lacks {error}: build the gallery again") from error
        retriever = cls(model, engine=engine)
        retriever.skipped = skipped
        retriever.folder = Path(folder) if folder else None
        retriever.index = open_index(engine, bits=model.config.bits, path=index, fingerprint=retriever._fingerprint)
        retriever._items = _read_json(items, path)
        bits = model.config.bits
        _, ids = retriever.index.search_radius(np.zeros(code_bytes(bits), np.uint8), bits)  # every id
        if set(ids) != retriever._items.keys():
            raise RetrieverError(f"{path}: index and items do not belong together: build the gallery again")
        return retriever

    def _add(self, codes: Codes, ids: list[str], items: dict[str, dict[str, Any]]) -> None:
        """Add to index and items; the caller holds the lock."""
        if ids:
            self.index.add(codes, ids)
            self._items.update(items)

    def _encode(
        self, pictures: list[Path], names: list[str], batch_size: int, show_progress_bar: bool | None
    ) -> tuple[Codes, list[str], dict[str, str]]:
        """Encode files, leaving out those that cannot be used; give the codes, their names, and the others' faults."""
        parts: list[Codes] = [np.zeros((0, code_bytes(self.model.config.bits)), dtype=np.uint8)]
        kept: list[str] = []
        skipped: dict[str, str] = {}

        def encode(start: int, stop: int) -> None:
            try:
                parts.append(self.model.encode_images(pictures[start:stop], batch_size=batch_size))
                kept.extend(names[start:stop])
            except (PictureError, OSError) as error:
                if stop - start == 1:
                    skipped[names[start]] = str(error)
                    logger.warning("skipped: %s", error)
                    return
                middle = (start + stop) // 2  # halves again and again: one bad file costs a few batches
                encode(start, middle)
                encode(middle, stop)

        show = len(pictures) >= 1000 if show_progress_bar is None else show_progress_bar
        with tqdm(total=len(pictures), desc="encode gallery", unit="picture", disable=not show) as bar:
            for start in range(0, len(pictures), _CHUNK):
                stop = min(start + _CHUNK, len(pictures))
                encode(start, stop)
                bar.update(stop - start)
        return np.concatenate(parts), kept, skipped


def _find_pictures(folder: Path) -> tuple[dict[str, tuple[Path, list[int]]], dict[str, str]]:
    """List a folder's pictures by path inside it, with a stamp (bytes, time of change) that tells a changed file.

    The second mapping is of what cannot be reached (a link to nothing, a closed folder), and why.
    """
    if not folder.is_dir():
        raise RetrieverError(f"{folder}: no such folder; check the path")
    found: dict[str, tuple[Path, list[int]]] = {}
    skipped: dict[str, str] = {}

    def skip(error: OSError) -> None:
        skipped[Path(error.filename).relative_to(folder).as_posix()] = f"{error.filename}: {error.strerror}"
        logger.warning("skipped: %s: %s", error.filename, error.strerror)

    for root, folders, files in os.walk(folder, onerror=skip):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root) / name
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith("."):
                try:
                    status = path.stat()
                except OSError as error:
                    skip(error)
                    continue
                found[path.relative_to(folder).as_posix()] = (path, [status.st_size, status.st_mtime_ns])
    if not found and not skipped:
        raise RetrieverError(f"{folder} has no pictures in it ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return found, skipped


def _folder_item(key: str, path: Path, stamp: list[int]) -> dict[str, Any]:
    label, inside, _ = key.partition("/")
    return {"source": str(path), "metadata": {"label": label} if inside else {}, "stamp": stamp}


def _check_ids(ids: Sequence[str]) -> None:
    for key in ids:
        if not isinstance(key, str):
            raise ValueError(f"ids of a gallery are strs, got {key!r}: give str({key!r})")


def _remove_files(path: Path, names: list[Any]) -> None:
    """Remove what :meth:`SketchRetriever.save` wrote under these names, and nothing else."""
    for file in [*path.glob("index-*"), *path.glob("items-*.json")]:
        if file.name in names:
            file.unlink(missing_ok=True)


def _read_json(file: Path, path: Path) -> dict[str, Any]:
    if not file.is_file():
        raise RetrieverError(f"{path} holds no saved gallery ({file.name} is not there): run dsh-hf index first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RetrieverError(f"{file} is damaged ({error}): build the gallery again") from error
    if not isinstance(content, dict):
        raise RetrieverError(f"{file} is damaged: build the gallery again")
    return content
