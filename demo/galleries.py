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
    from dsh_hf import DSHModel, Hit, SketchRetriever
    from dsh_hf.codes import Codes
    from dsh_hf.index import Index

OPENMOJI_CODES = Path(__file__).with_name("openmoji-codes.safetensors")
LARGEST_EMOJI = 1024  # pixels
KEPT = 4096  # thumbnails of a gallery kept in memory, 40 MB


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures that a drawing is compared with.

    Attributes:
        title: what the page calls it.
        about: what it is and who made it, in Markdown.
        index: the codes of the pictures, by id.
        name: gives what the picture of a hit is called.
        picture: opens the picture of a hit, perhaps reduced to sides of at least so many pixels, whole for
            ``None``; raises ``OSError`` or ``ValueError`` where it cannot be had.
        retriever: what knows more of each picture than its id.
        thumbnails: small JPEG files by id, those made so far.
    """

    title: str
    about: str
    index: "Index"
    name: "Callable[[Hit], str]"
    picture: "Callable[[Hit, int | None], Image.Image]"
    retriever: "SketchRetriever | None" = None
    thumbnails: dict[str, bytes] = field(default_factory=dict)

    def search(self, code: "Codes", k: int) -> "list[Hit]":
        """Find the ``k`` pictures nearest to a code, nearest first."""
        from dsh_hf import Hit

        if self.retriever is not None:
            return self.retriever.search_code(code, k)
        distances, ids = self.index.search(code, k)
        return [Hit(str(key), int(distance)) for distance, key in zip(distances, ids, strict=True)]

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
    index = _read_codes(codes, model, engine, set(names))
    if index is None:
        folder = _kept_for("openmoji-codes", "", model, engine)
        index = _read_codes(folder / codes.name, model, engine, set(names)) if folder else None
        if index is None:
            index = encode_openmoji(model, engine, list(names))
            if folder:
                _keep(index, folder / codes.name)
    about = (
        "The pictures are [OpenMoji](https://openmoji.org), the open-source emoji and icon project, "
        "licence [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/)."
    )

    def picture(hit: "Hit", size: int | None) -> Image.Image:
        return render_emoji(hit.id, LARGEST_EMOJI) if size is None else render_emoji(hit.id)

    return Gallery("OpenMoji", about, index, lambda hit: names[hit.id], picture)


def encode_openmoji(model: "DSHModel", engine: str, ids: Sequence[str]) -> "Index":
    """Encode emoji, with a progress bar."""
    from tqdm import tqdm

    from dsh_hf.data.openmoji import render_emoji
    from dsh_hf.index import open_index

    index = open_index(engine, bits=model.config.bits, fingerprint=model.fingerprint)
    with tqdm(total=len(ids), desc="encode OpenMoji, once", unit="picture") as bar:
        for start in range(0, len(ids), 32):
            batch = ids[start : start + 32]
            index.add(model.encode_images([render_emoji(code) for code in batch]), batch)
            bar.update(len(batch))
    return index


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
        retriever = SketchRetriever.from_folder(root, model, engine=engine, show_progress_bar=True)
        changed = True
    else:
        changes = retriever.sync()
        print(f"{title}: {changes['added']} pictures added, {changes['removed']} removed since the last time")
        changed = changes["added"] + changes["removed"] > 0
    if kept and changed:
        _keep(retriever, kept)
    about = f"The pictures are those in the folder {title}."
    return Gallery(title, about, retriever.index, _name, _picture, retriever)


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
        retriever = SketchRetriever.from_dataset(data, model, engine=engine, show_progress_bar=True, **columns)
        if kept:
            _keep(retriever, kept)

    files = data.cast_column("image", ImageFeature(decode=False))

    def picture(hit: "Hit", size: int | None) -> Image.Image:
        return open_picture(files[rows[hit.id]]["image"], least_size=size)

    about = f"The pictures are those of the data set {source}."
    return Gallery(source, about, retriever.index, _name, picture, retriever)


def open_retriever(folder: str | os.PathLike, model: "DSHModel") -> Gallery:
    """Open what ``SketchRetriever.save`` wrote; pictures that lie nowhere on this machine are shown by name.

    Raises:
        RetrieverError: there is none in this folder, or its files are damaged.
        IndexMismatchError: it was made by another model, or with another code length.
    """
    from dsh_hf import SketchRetriever

    retriever = SketchRetriever.load(folder, model)
    title = readable(Path(folder).expanduser().resolve().name)
    return Gallery(title, f"The gallery is {title}.", retriever.index, _name, _picture, retriever)


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
            return SketchRetriever.load(kept, model)
    return None


def _keep(codes: "Index | SketchRetriever", path: Path) -> None:
    """Save codes for the next time; where that fails, this time goes on."""
    try:
        codes.save(path)
    except (OSError, ValueError) as error:  # another demo may be saving them
        print(f"codes are not kept for the next time: {error}")


def _read_codes(file: Path, model: "DSHModel", engine: str, ids: set[str]) -> "Index | None":
    """Read an index file, or say why it is of no use."""
    from dsh_hf.codes import pack_signs
    from dsh_hf.index import IndexFileError, IndexMismatchError, open_index

    if not file.is_file():
        return None
    bits = model.config.bits
    try:
        index = open_index(engine, bits=bits, path=file, fingerprint=model.fingerprint)
    except (IndexFileError, IndexMismatchError) as error:
        print(f"not used: {error}")
        return None
    _, held = index.search_radius(pack_signs([0] * bits), bits)  # every id
    if set(held) != ids:
        print(f"not used: {file} is of another version of OpenMoji")
        return None
    return index
