"""What is searched: OpenMoji, a folder, a data set, or a saved retriever; what was encoded once is kept."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures import THUMBNAIL, as_jpeg, small_copy
from PIL import Image

if TYPE_CHECKING:
    import numpy as np

    from dsh_hf import DSHModel, Hit, SketchRetriever
    from dsh_hf.index import Index

OPENMOJI_CODES = Path(__file__).with_name("openmoji-codes")  # a saved retriever
LARGEST_EMOJI = 1024  # pixels
KEPT = 4096  # thumbnails of a gallery kept in memory, 40 MB


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures that a drawing is compared with.

    Attributes:
        title: what the page calls it.
        about: what it is and who made it, in Markdown.
        retriever: the codes of the pictures, and what is known of each.
        name: gives what the picture of a hit is called.
        picture: opens the picture of a hit, perhaps reduced to sides of at least so many pixels, whole for
            ``None``; raises ``OSError`` or ``ValueError`` where it cannot be had.
        thumbnails: small JPEG files by id, those made so far.
    """

    title: str
    about: str
    retriever: "SketchRetriever"
    name: "Callable[[Hit], str]"
    picture: "Callable[[Hit, int | None], Image.Image]"
    thumbnails: dict[str, bytes] = field(default_factory=dict)

    @property
    def index(self) -> "Index":
        """The codes of the pictures, by id."""
        return self.retriever.index

    def search(self, outputs: "np.ndarray", k: int) -> "list[Hit]":
        """Find the ``k`` pictures whose codes are nearest; best first, by float outputs where they are kept."""
        return self.retriever.search_outputs(outputs, k, rerank=k if self.retriever.keep_outputs else 0)

    def thumbnail(self, hit: "Hit") -> bytes:
        """Give a small copy of the picture of a hit as a JPEG file; errors are those of ``picture``."""
        kept = self.thumbnails.get(hit.id)
        if kept is None:
            kept = as_jpeg(small_copy(self.picture(hit, THUMBNAIL), THUMBNAIL))
            if len(self.thumbnails) >= KEPT:
                self.thumbnails.clear()  # rare, and soon made again
            self.thumbnails[hit.id] = kept
        return kept


def open_openmoji(model: "DSHModel", engine: str = "exact", codes: Path = OPENMOJI_CODES) -> Gallery:
    """Open OpenMoji's colour pictures; where ``codes`` is not of this model, encode them once and keep that."""
    from dsh_hf.data.openmoji import load_openmoji, render_emoji

    names = {emoji.id: emoji.name for emoji in load_openmoji()}
    retriever = _read_codes(codes, model, engine, set(names))
    if retriever is None:
        kept = _kept_for("openmoji-codes", "", model, engine)
        retriever = _read_codes(kept, model, engine, set(names)) if kept else None
        if retriever is None:
            retriever = encode_openmoji(model, engine, list(names))
            if kept:
                _keep(retriever, kept)
    about = (
        "The pictures are [OpenMoji](https://openmoji.org), the open-source emoji and icon project, "
        "licence [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/)."
    )

    def picture(hit: "Hit", size: int | None) -> Image.Image:
        return render_emoji(hit.id, LARGEST_EMOJI) if size is None else render_emoji(hit.id)

    return Gallery("OpenMoji", about, retriever, lambda hit: names[hit.id], picture)


def encode_openmoji(model: "DSHModel", engine: str, ids: Sequence[str]) -> "SketchRetriever":
    """Encode emoji, with a progress bar."""
    from tqdm import tqdm

    from dsh_hf import SketchRetriever
    from dsh_hf.data.openmoji import render_emoji

    retriever = SketchRetriever(model, engine=engine, keep_outputs=True)
    with tqdm(total=len(ids), desc="encode OpenMoji, once", unit="picture") as bar:
        for start in range(0, len(ids), 32):
            batch = ids[start : start + 32]
            retriever.add([render_emoji(code) for code in batch], batch)
            bar.update(len(batch))
    return retriever


def open_folder(folder: str | os.PathLike, model: "DSHModel", engine: str = "exact") -> Gallery:
    """Open a folder of pictures: encoded the first time, later only what has changed in it.

    Raises:
        RetrieverError: there is no such folder, or no picture in it.
    """
    from dsh_hf import SketchRetriever

    root = Path(folder).expanduser().resolve()
    kept = _kept_for("galleries", str(root), model, engine)
    retriever = _open_kept(kept, model)
    title = readable(root.name)
    if retriever is None:
        retriever = SketchRetriever.from_folder(root, model, engine=engine, keep_outputs=True, show_progress_bar=True)
        changed = True
    else:
        changes = retriever.sync()
        print(f"{title}: {changes['added']} pictures added, {changes['removed']} removed since the last time")
        changed = changes["added"] + changes["removed"] > 0
    if kept and changed:
        _keep(retriever, kept)
    about = f"The pictures are those in the folder {title}."
    return Gallery(title, about, retriever, _name, _picture)


def open_data_set(source: str, model: "DSHModel", engine: str = "exact") -> Gallery:
    """Open a data set, from the Hub or from here; its pictures are encoded the first time.

    Args:
        source: anything that :func:`dsh_hf.data.sources.open_source` opens, such as ``"org/name:train"``.
        model: encodes the pictures.
        engine: the search engine.

    Raises:
        FileNotFoundError: there is no such data set.
        ValueError: it has no pictures, or several splits and none was named.
    """
    from datasets import Image as ImageFeature

    from dsh_hf import SketchRetriever
    from dsh_hf.data.sources import open_source
    from dsh_hf.processing import open_picture

    data: Any = open_source(source)
    rows = {str(key): row for row, key in enumerate(data["id"])}
    kept = _kept_for("galleries", f"{source}\n{data._fingerprint}", model, engine)
    retriever = _open_kept(kept, model)
    if retriever is None:
        labels = [name for name in ("label",) if name in data.column_names]
        columns: dict[str, Any] = {"image_column": "image", "id_column": "id", "metadata_columns": labels}
        columns |= {"keep_outputs": True, "show_progress_bar": True}
        retriever = SketchRetriever.from_dataset(data, model, engine=engine, **columns)
        if kept:
            _keep(retriever, kept)

    files = data.cast_column("image", ImageFeature(decode=False))

    def picture(hit: "Hit", size: int | None) -> Image.Image:
        return open_picture(files[rows[hit.id]]["image"], least_size=size)

    about = f"The pictures are those of the data set {source}."
    return Gallery(source, about, retriever, _name, picture)


def open_retriever(folder: str | os.PathLike, model: "DSHModel") -> Gallery:
    """Open what ``SketchRetriever.save`` wrote; pictures that lie nowhere on this machine are shown by name.

    Raises:
        RetrieverError: there is none in this folder, or its files are damaged.
        IndexMismatchError: it was made by another model, or with another code length.
    """
    from dsh_hf import SketchRetriever

    retriever = SketchRetriever.load(folder, model)
    title = readable(Path(folder).expanduser().resolve().name)
    return Gallery(title, f"The gallery is {title}.", retriever, _name, _picture)


def readable(name: str) -> str:
    """Give a file's name as text, whatever bytes are in it."""
    return os.fsencode(name).decode(errors="replace")


def _name(hit: "Hit") -> str:
    """Call a picture by its label, else by its file."""
    label = hit.metadata.get("label")
    return readable(str(label) if label is not None else Path(hit.id).stem)


def _picture(hit: "Hit", size: int | None) -> Image.Image:
    from dsh_hf.processing import PictureError, open_picture

    if hit.source is None:
        raise PictureError(f"nobody knows where the picture {hit.id} lies")
    return open_picture(hit.source, least_size=size)


def _kept_for(namespace: str, what: str, model: "DSHModel", engine: str) -> Path | None:
    """Give the folder to keep codes in, or say why there is none."""
    from huggingface_hub import cached_assets_path

    parts = f"{what}\n{model.fingerprint}\n{model.config.bits}\n{engine}"
    try:
        return cached_assets_path("dsh-hf", namespace, hashlib.sha256(os.fsencode(parts)).hexdigest()[:32])
    except (OSError, ValueError) as error:  # a home that is read-only, or a file where a folder should be
        print(f"codes are not kept for the next time: {error}")
        return None


def _open_kept(kept: Path | None, model: "DSHModel") -> "SketchRetriever | None":
    from dsh_hf import SketchRetriever

    if kept:
        with suppress(ValueError, OSError):  # not there yet, or damaged
            retriever = SketchRetriever.load(kept, model)
            return retriever if retriever.keep_outputs else None
    return None


def _keep(retriever: "SketchRetriever", path: Path) -> None:
    """Save codes for the next time; where that fails, this time goes on."""
    try:
        retriever.save(path)
    except (OSError, ValueError) as error:  # another demo may be saving them
        print(f"codes are not kept for the next time: {error}")


def _read_codes(folder: Path, model: "DSHModel", engine: str, ids: set[str]) -> "SketchRetriever | None":
    """Open the codes of OpenMoji that are kept in a folder, or say why they are of no use."""
    from dsh_hf import SketchRetriever
    from dsh_hf.codes import pack_signs

    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    bits = model.config.bits
    try:
        retriever = SketchRetriever.load(folder, model, engine=engine)
    except (OSError, ValueError) as error:
        print(f"not used: {error}")
        return None
    _, held = retriever.index.search_radius(pack_signs([0] * bits), bits)  # every id
    if set(held) != ids or not retriever.keep_outputs:
        print(f"not used: {folder} is of another version of OpenMoji")
        return None
    return retriever
