"""A gallery that sketches search: where a model, an index and what each item is come together."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes, pack_signs
from dsh_hf.gallery.building import build
from dsh_hf.gallery.dataset import dataset_candidates
from dsh_hf.gallery.files import MANIFEST_NAME
from dsh_hf.gallery.folder import find_pictures, folder_candidates, lies_under
from dsh_hf.gallery.hits import Hit, rerank_hits, to_hits
from dsh_hf.gallery.hub import download_gallery, push_gallery
from dsh_hf.gallery.items import Item, RetrieverError, check_ids, kept_outputs, metadata_text
from dsh_hf.gallery.store import Gallery
from dsh_hf.index import Index
from dsh_hf.modeling import DSHModel
from dsh_hf.processing import Picture

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["MANIFEST_NAME", "Hit", "RetrieverError", "SketchRetriever"]


class SketchRetriever:
    """A gallery of pictures that is searched by drawing, or by picture.

    Searches may run while another thread adds or syncs.

    Args:
        model: encodes the pictures and the sketches.
        engine: the search engine, by name or URL, see :func:`dsh_hf.index.open_index`. Codes under a URL lie on
            that server, and are there for every other process as soon as they are added.
        keep_outputs: keep each picture's float outputs, too (2 bytes a bit), to re-rank hits by them.

    Attributes:
        model: the model.
        folder: where the pictures lie, if the gallery was built from a folder.
        skipped: pictures that could not be used when the gallery was last built or synced, and why.

    Example:
        >>> retriever = SketchRetriever.from_folder("photos", model)  # doctest: +SKIP
        >>> for hit in retriever.search("my_sketch.png", k=5, where={"label": "cat"}):  # doctest: +SKIP
        ...     print(hit.distance, hit.source)
    """

    def __init__(self, model: DSHModel, *, engine: str = "exact", keep_outputs: bool = False) -> None:
        self._set(model, Gallery(engine, model.config.bits, model.fingerprint, keep_outputs))

    def _set(self, model: DSHModel, gallery: Gallery) -> None:
        self.model = model
        self.folder: Path | None = None
        self.skipped: dict[str, str] = {}
        self._gallery = gallery
        self._building = threading.Lock()  # one sync at a time

    def __len__(self) -> int:
        return len(self.index)

    @property
    def index(self) -> Index:
        """The index over the pictures' codes."""
        return self._gallery.index

    @property
    def engine(self) -> str:
        """The search engine, a URL without its password."""
        return self._gallery.engine

    @property
    def keep_outputs(self) -> bool:
        """Whether each picture's float outputs are kept, too."""
        return self._gallery.keep_outputs

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike,
        model: DSHModel,
        *,
        engine: str = "exact",
        keep_outputs: bool = False,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        save_to: str | os.PathLike | None = None,
    ) -> "SketchRetriever":
        """Build a gallery from every picture in a folder and the folders in it.

        A picture's id is its path inside the folder. Where the pictures lie in folders of their own, the name
        of the first one becomes ``metadata["label"]``. Files that are no pictures, or damaged ones, are skipped
        and listed in ``skipped``.

        ``save_to`` saves the gallery as it grows: if that is cut short, :meth:`load` and :meth:`sync` go on.

        Raises:
            RetrieverError: there is no such folder, or no picture in it.
        """
        retriever = cls(model, engine=engine, keep_outputs=keep_outputs)
        retriever._gallery.check_empty()
        retriever.folder = Path(folder).resolve()
        retriever.sync(batch_size=batch_size, show_progress_bar=show_progress_bar, save_to=save_to)
        return retriever

    @classmethod
    def from_dataset(
        cls,
        dataset: "Dataset | IterableDataset",
        model: DSHModel,
        *,
        engine: str = "exact",
        keep_outputs: bool = False,
        **options: Any,
    ) -> "SketchRetriever":
        """Build a gallery from a ``datasets`` data set; ``options`` are those of :meth:`add_dataset`.

        Raises:
            RetrieverError: a column has to be named, or no row has a picture that can be used.
        """
        retriever = cls(model, engine=engine, keep_outputs=keep_outputs)
        retriever._gallery.check_empty()
        retriever.add_dataset(dataset, **options)
        if not len(retriever):
            reason = next(iter(retriever.skipped.values()), "it is empty")
            raise RetrieverError(f"the data set has no picture that can be used ({reason})")
        return retriever

    def sync(
        self,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        save_to: str | os.PathLike | None = None,
    ) -> dict[str, int]:
        """Bring the gallery up to date with its folder: new, changed and vanished files.

        What cannot be reached now, such as a closed folder, keeps its place in the gallery and is listed in
        ``skipped``.

        Args:
            batch_size: pictures that go through the networks at once.
            show_progress_bar: ``None`` shows one from a thousand pictures on.
            save_to: save the gallery here as it grows, and in the end.

        Returns:
            How many were ``added``, ``removed`` and ``skipped``; a changed file counts as added and removed.

        Raises:
            RetrieverError: the gallery was not built from a folder, or the folder has no pictures.
        """
        if self.folder is None:
            raise RetrieverError("this gallery was not built from a folder, so there is nothing to sync with")
        with self._building:
            found, unreadable = find_pictures(self.folder)
            items = self._gallery.items
            new = [key for key, stamp in found.items() if key not in items or items[key].stamp != stamp]
            candidates = folder_candidates(self.folder, new, found)
            save = self._saver(save_to)
            built = build(self._gallery, self.model, candidates, len(new), batch_size, show_progress_bar, save)
            changed = [key for key, item in list(items.items()) if found.get(key) != item.stamp]
            gone = [key for key in changed if not lies_under(key, unreadable)]
            self.skipped = unreadable | built.faults
            if len(items) == len(gone):
                reason = next(iter(self.skipped.values()), "it is empty")
                raise RetrieverError(f"{self.folder} has no picture that can be used ({reason})")
            self._gallery.remove(gone)
            if save is not None:
                save()
        return {"added": built.added, "removed": built.removed + len(gone), "skipped": len(self.skipped)}

    def add_dataset(
        self,
        dataset: "Dataset | IterableDataset",
        *,
        image_column: str | None = None,
        id_column: str | None = None,
        metadata_columns: Sequence[str] | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        save_to: str | os.PathLike | None = None,
    ) -> dict[str, int]:
        """Add the rows of a ``datasets`` data set whose ids are not in the gallery yet, a few at a time.

        No pictures are kept. Damaged rows, and those whose id is an earlier row's, are listed in ``skipped``.

        Args:
            dataset: one split, map-style or streaming.
            image_column: the pictures; by default the one column of pictures there is.
            id_column: the ids; by default rows are numbered "0", "1", ...
            metadata_columns: what a hit carries; by default every other column of texts, numbers or labels.
                Labels are given by name.
            batch_size: pictures that go through the networks at once.
            show_progress_bar: ``None`` shows one from a thousand pictures on, and for streams.
            save_to: save the gallery here as it grows, and in the end.

        Returns:
            How many were ``added`` and ``skipped``.

        Raises:
            RetrieverError: a column is not there, or has to be named.
        """
        rows = dataset_candidates(dataset, image_column, id_column, metadata_columns)
        total = len(dataset) if hasattr(dataset, "__len__") else None
        with self._building:
            new = (row for row in rows if row.key not in self._gallery.items)
            save = self._saver(save_to)
            built = build(self._gallery, self.model, new, total, batch_size, show_progress_bar, save)
            self.skipped = built.faults
            if save is not None:
                save()
        return {"added": built.added, "skipped": len(self.skipped)}

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
            metadata: what a hit should carry, one mapping of JSON's values for each picture.
            batch_size: pictures that go through the networks at once.
            show_progress_bar: ``None`` shows one from a thousand pictures on.

        Raises:
            PictureError: a picture cannot be used; nothing has been added then.
            ValueError: ids repeat, are no strs, or there is not one for each picture.
        """
        check_ids(ids, pictures, metadata)  # before the long work
        outputs: NDArray[np.float32] | None = None
        if self.keep_outputs:
            outputs = self.model.embed_images(pictures, batch_size=batch_size, show_progress_bar=show_progress_bar)
            codes = pack_signs(outputs)
        else:
            codes = self.model.encode_images(pictures, batch_size=batch_size, show_progress_bar=show_progress_bar)
        sources = [os.fspath(p) if isinstance(p, str | os.PathLike) else None for p in pictures]
        self.add_codes(codes, ids, sources, metadata, outputs)

    def add_codes(
        self,
        codes: Codes,
        ids: Sequence[str],
        sources: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        outputs: NDArray[np.floating] | None = None,
    ) -> None:
        """Add pictures whose codes this gallery's model has made before, shape ``(n, ceil(bits / 8))``.

        A gallery that keeps float outputs takes them with the codes: ``outputs`` of shape ``(n, bits)``.

        Raises:
            ValueError: ids repeat, are no strs, or there is not one of everything for each code.
        """
        check_ids(ids, codes, metadata)
        if (outputs is not None) != self.keep_outputs:
            raise ValueError("outputs are given to a gallery made with keep_outputs=True, and only to such a one")
        kept = None if outputs is None else kept_outputs(outputs, len(ids))
        items = {
            key: Item(
                sources[row] if sources is not None else None,
                metadata_text(metadata[row]) if metadata is not None else "{}",
                outputs=None if kept is None else kept[row],
            )
            for row, key in enumerate(ids)
        }
        self._gallery.add(codes, items)

    def search(
        self, sketch: Picture, k: int = 10, *, where: Mapping[str, Any] | None = None, rerank: int = 0
    ) -> list[Hit]:
        """Find the ``k`` pictures nearest to a sketch, nearest first.

        Args:
            sketch: the drawing.
            k: how many to find.
            where: metadata that a hit must have, a value or a list of values for each key, such as
                ``{"label": ["cat", "dog"]}``.
            rerank: so many of the first hits are put in the order of the cosine of float outputs, if the gallery
                keeps them; 0 for none.

        Raises:
            PictureError: the sketch cannot be read, or is empty.
            RetrieverError: no picture has such metadata keys, or the gallery keeps no float outputs.
        """
        self._check(k, rerank)  # before the networks run
        return self.search_outputs(self.model.embed_sketches(sketch), k, where=where, rerank=rerank)

    def search_image(
        self, picture: Picture, k: int = 10, *, where: Mapping[str, Any] | None = None, rerank: int = 0
    ) -> list[Hit]:
        """Find the ``k`` pictures nearest to a picture, nearest first; otherwise as :meth:`search`."""
        self._check(k, rerank)
        return self.search_outputs(self.model.embed_images(picture), k, where=where, rerank=rerank)

    def search_code(self, code: Codes, k: int = 10, *, where: Mapping[str, Any] | None = None) -> list[Hit]:
        """Find the ``k`` pictures nearest to a code of shape ``(ceil(bits / 8),)``, nearest first."""
        return to_hits(self._gallery.nearest(code, k, where), self.folder)

    def search_outputs(
        self,
        outputs: NDArray[np.floating],
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        rerank: int = 0,
    ) -> list[Hit]:
        """Find the ``k`` pictures nearest to the float outputs of a sketch or picture; otherwise as :meth:`search`.

        Args:
            outputs: what the model's ``embed_sketches`` or ``embed_images`` gives, shape ``(bits,)``.
            k: how many to find.
            where: metadata that a hit must have.
            rerank: so many of the first hits are put in the order of the cosine of float outputs.

        Raises:
            ValueError: outputs of another shape.
        """
        self._check(k, rerank)
        query = np.asarray(outputs, np.float32)
        if query.shape != (self.index.bits,):
            raise ValueError(f"outputs of one picture have the shape ({self.index.bits},), got {query.shape}")
        found = self._gallery.nearest(pack_signs(query), max(k, rerank), where)
        hits = to_hits(found, self.folder)
        return (rerank_hits(hits[:rerank], found[:rerank], query) + hits[rerank:])[:k]

    def save(self, path: str | os.PathLike) -> None:
        """Save the gallery (codes, ids, sources, metadata; no pictures) into a folder, whole or not at all.

        Codes on a server stay there: what is saved then is the URL, without its password, and all but the codes.

        Raises:
            RetrieverError: another process is saving there, or has done so since this gallery was opened.
        """
        folder = str(self.folder) if self.folder else None
        self._gallery.save(Path(path), {"folder": folder, "skipped": self.skipped})

    @classmethod
    def load(cls, path: str | os.PathLike, model: DSHModel, *, engine: str | None = None) -> "SketchRetriever":
        """Open a saved gallery with the model that made its codes.

        Codes on a server need ``engine``, its URL: no connection is made to the one that a file names, since
        passwords of the environment would go with it. All other galleries do without.

        Raises:
            RetrieverError: there is none at this path, its files are damaged, or its codes lie on a server and
                ``engine`` is no URL.
            IndexMismatchError: it was made by another model, or with another code length.
        """
        gallery, manifest = Gallery.open(Path(path), model.config.bits, model.fingerprint, engine)
        retriever = cls.__new__(cls)
        retriever._set(model, gallery)
        retriever.folder = Path(manifest["folder"]) if manifest["folder"] else None
        retriever.skipped = manifest["skipped"]
        return retriever

    def push_to_hub(
        self,
        repo_id: str,
        *,
        model_id: str | None = None,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Send the gallery, with a card, to a data set repository on the Hugging Face Hub.

        No pictures are sent, and no paths of this machine: ``source`` becomes a picture's path inside the folder.

        Args:
            repo_id: ``"org/name"``; created where need be.
            model_id: the model's name on the Hub, for the card.
            private: create it as a private one.
            token: access token; by default the one you are logged in with.
            revision: branch to send to; created where need be.
            create_pr: open a pull request instead.

        Returns:
            The address of the commit or pull request.

        Raises:
            RetrieverError: the codes lie on a server.
            ValueError: the repository is public and should be private.
        """
        return push_gallery(self._gallery, repo_id, model_id, private, token, revision, create_pr)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | os.PathLike,
        model: DSHModel,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
    ) -> "SketchRetriever":
        """Open a gallery from a folder or the Hugging Face Hub; arguments as of ``DSHModel.from_pretrained``.

        Galleries whose codes lie on a server are opened by :meth:`load`.

        Raises:
            RetrieverError: there is no such gallery, it cannot be had, or its codes lie on a server.
            IndexMismatchError: it was made by another model, or with another code length.
        """
        return cls.load(download_gallery(id_or_path, revision, token, cache_dir, local_files_only), model)

    def _saver(self, path: str | os.PathLike | None) -> Callable[[], None] | None:
        return None if path is None else partial(self.save, path)

    def _check(self, k: int, rerank: int) -> None:
        if k < 1 or rerank < 0:
            raise ValueError(f"k must be at least 1 and rerank at least 0, got {k} and {rerank}")
        if rerank and not self.keep_outputs:
            raise RetrieverError("this gallery keeps no float outputs to re-rank by: build it with keep_outputs=True")
