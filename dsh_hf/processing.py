"""Pictures to what the networks take: images as they are, sketches as ink on paper, cropped and centred."""

import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from dsh_hf.damaged_files import hidden_damage
from dsh_hf.ink import MIN_INK, SOLID, box_of, find_ink

Picture = str | os.PathLike | Image.Image | NDArray | Mapping
Colour = tuple[int, int, int]

MAX_PIXELS = 100_000_000  # a larger picture is refused before it is decoded
PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_FILL = 0.86  # share of the canvas that the longer side of a drawing takes
_LINE = 0.018  # least width of a line, as a share of the canvas
_OVERSHOOT = 0.25  # share of a deep grey's range by which resizing may leave it, at edges
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
# Pillow reads others, too: some by starting programs (EPS), most with decoders that nobody minds.
_FORMATS = frozenset(
    {"AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP"}
)
_LOADING = threading.Lock()  # one PIL image given twice must not be decoded by two threads at once


class PictureError(ValueError):
    """A picture cannot be used; the message names it and says why."""


class EmptySketchError(PictureError):
    """A sketch has no ink on it."""


def open_picture(picture: Picture, least_size: int | None = None) -> Image.Image:
    """Open and decode a picture, turned upright as its EXIF orientation says.

    Args:
        picture: a path, a PIL image, an array of shape ``(h, w)``, ``(h, w, 3)`` or ``(h, w, 4)`` (uint8, or
            floats in 0..1), or the ``{"bytes", "path"}`` mapping of an undecoded ``datasets`` column.
        least_size: a JPEG may be decoded smaller than it is, but with both sides at least so many pixels.

    Returns:
        A decoded PIL image in its own mode.

    Raises:
        FileNotFoundError: there is no such file.
        PictureError: it is no picture, it is truncated or damaged, it is too large, or its values are no brightness.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    name = _name_of(picture, "the picture")
    source = picture if isinstance(picture, Image.Image) else _source_of(picture)
    try:
        if isinstance(source, Image.Image):
            opened = source
            with _LOADING:
                opened.load()
        else:
            opened = _decode(source, least_size)
    except Image.UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture that can be read (JPEG, PNG, WebP, GIF, ...)") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has more than {MAX_PIXELS:,} pixels: make it smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PictureError(f"{name} is damaged or truncated ({error}): save or copy it again") from error
    _check_brightness(opened, name)
    with suppress(Exception):  # EXIF is broken in many ways, and then says nothing about the orientation
        if opened is source:
            return ImageOps.exif_transpose(opened)
        ImageOps.exif_transpose(opened, in_place=True)  # our own: no copy
    return opened


def _name_of(picture: Picture, default: str) -> str:
    """Find what to call a picture in messages."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    if isinstance(picture, Mapping):
        return str(picture.get("path") or default)
    return str(getattr(picture, "filename", "") or default)


def _source_of(picture: str | os.PathLike | Mapping) -> str | io.BytesIO:
    """Find where a picture's bytes are."""
    if isinstance(picture, Mapping):
        if picture.get("bytes") is not None:
            return io.BytesIO(picture["bytes"])
    elif not isinstance(picture, str | os.PathLike):
        raise TypeError(f"a picture is a path, a PIL image or an array, not {type(picture).__name__}")
    name = _name_of(picture, "the picture")
    if os.path.isdir(name):
        raise PictureError(f"{name} is a folder: give the pictures in it, one by one or as a list")
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{name}: no such picture; check the path")
    return name


def _decode(source: str | io.BytesIO, least_size: int | None) -> Image.Image:
    opened = Image.open(source)
    if opened.format not in _FORMATS:
        raise Image.UnidentifiedImageError
    if opened.width * opened.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if opened.format in ("PNG", "WEBP"):
        content = source.getvalue() if isinstance(source, io.BytesIO) else Path(source).read_bytes()
        if damage := hidden_damage(content):
            raise OSError(damage)
    if least_size is not None:
        opened.draft(None, (least_size, least_size))  # a no-op but for JPEG
    opened.load()
    return opened


def _check_brightness(picture: Image.Image, name: str) -> None:
    """Refuse deep greys that cannot be brought to 0..255, such as marks for pixels without a value."""
    if picture.mode not in ("I", "F"):
        return
    lowest, highest = np.asarray(picture).min(), np.asarray(picture).max()
    # Comparing with NaN is false.
    if not -_OVERSHOOT * max(highest, 1) <= lowest <= highest <= (1 + _OVERSHOOT) * 65535:
        raise PictureError(
            f"{name} has values from {lowest:g} to {highest:g}: a grey picture must lie in 0..1, 0..255 or 0..65535"
        )


def prepare_image(picture: Picture, size: int) -> NDArray[np.uint8]:
    """Give a picture as the image stream sees it: the whole of it, squeezed to a square.

    Args:
        picture: anything that :func:`open_picture` takes; transparent parts become white.
        size: height and width of the result, in pixels.

    Returns:
        uint8 RGB of shape ``(size, size, 3)``.
    """
    rgb = _flatten(open_picture(picture, least_size=2 * size), _WHITE)
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))


def prepare_sketch(picture: Picture, size: int) -> NDArray[np.uint8]:
    """Give a drawing as the sketch stream sees it, however it was made.

    Black on white, white on black, coloured or transparent, scanned or photographed on paper: the ink is found
    as what differs from the paper around it, cropped, centred and scaled to fill the canvas, and lines that
    would fade are thickened.

    Args:
        picture: anything that :func:`open_picture` takes.
        size: height and width of the result, in pixels.

    Returns:
        uint8 grey of shape ``(size, size)``: 0 is ink, 255 is paper.

    Raises:
        EmptySketchError: there is no ink.
    """
    opened = open_picture(picture)
    ink = find_ink(opened.convert("L") if _is_grey(opened) else _flatten(opened, _paper_behind(opened)))
    if (ink > SOLID).sum() < MIN_INK:
        name = _name_of(picture, "the sketch")
        raise EmptySketchError(f"{name} is empty: no ink was found on it; draw something first")
    top, left, bottom, right = box_of(ink > SOLID)
    ink = ink[top:bottom, left:right]
    scale = size * _FILL / max(ink.shape)
    drawing = Image.fromarray((ink * 255).astype(np.uint8))
    drawing = _thicken(drawing, ink, size * _LINE / scale)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    drawing = drawing.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    canvas = Image.new("L", (size, size), 0)
    canvas.paste(drawing, ((size - width) // 2, (size - height) // 2))
    return 255 - np.asarray(canvas)


def prepared_batches(
    pictures: Sequence[Any], prepare: Callable[[Any], NDArray[np.uint8]], batch_size: int
) -> Iterator[NDArray[np.uint8]]:
    """Decode in threads, one batch ahead of the networks."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:

        def begin(start: int) -> list:
            return [pool.submit(prepare, picture) for picture in _pictures_at(pictures, start, start + batch_size)]

        upcoming = begin(0)
        for start in range(batch_size, len(pictures) + batch_size, batch_size):
            current, upcoming = upcoming, begin(start)
            try:
                yield np.stack([job.result() for job in current])
            except BaseException:
                for job in [*current, *upcoming]:
                    job.cancel()
                raise


def _pictures_at(pictures: Sequence[Any], start: int, stop: int) -> Sequence[Any]:
    """Give some pictures; a ``datasets`` column decodes them here, faster in one go than row by row."""
    try:
        return pictures[start:stop]
    except (OSError, SyntaxError):  # one of them: row by row it is named
        return [_picture_at(pictures, row) for row in range(start, min(stop, len(pictures)))]


def _picture_at(pictures: Sequence[Any], row: int) -> Any:
    try:
        return pictures[row]
    except (OSError, SyntaxError) as error:
        raise PictureError(
            f"the picture in row {row} is damaged or truncated ({error}): save or copy it again"
        ) from error


def sketch_to_tensor_layout(sketch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a grey sketch of shape ``(h, w)`` into the three equal channels ``(h, w, 3)`` of the networks."""
    return np.repeat(sketch[..., None], 3, axis=-1)


def _from_array(array: NDArray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or array.size == 0:
        raise PictureError(f"an array picture has the shape (h, w), (h, w, 3) or (h, w, 4), got {array.shape}")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise PictureError("an array picture of floats must lie in 0..1; scale it, or give uint8 in 0..255")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise PictureError(f"an array picture must be uint8, bool or floats in 0..1, got {array.dtype}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info


def to_eight_bits(picture: Image.Image) -> Image.Image:
    """Bring 16-bit and float greys (0..1 or 0..255) to 0..255; PIL alone would clip them."""
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;"):
        return picture
    values = np.asarray(picture, dtype=np.float64)
    brightest = values.max(initial=0)
    tops = (1, 255) if picture.mode == "F" else (255,)
    top = next((top for top in tops if brightest <= (1 + _OVERSHOOT) * top), 65535)
    return Image.fromarray(np.clip(values * (255 / top), 0, 255).astype(np.uint8))


def _is_grey(picture: Image.Image) -> bool:
    """Tell by its mode and palette whether a picture has nothing but opaque greys of eight bits, as most drawings."""
    if picture.mode == "P" and not _has_alpha(picture):
        palette = picture.getpalette() or []
        return palette[0::3] == palette[1::3] == palette[2::3]
    return picture.mode in ("1", "L") and not _has_alpha(picture)


def _with_alpha(picture: Image.Image) -> Image.Image:
    return (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")


def _flatten(picture: Image.Image, paper: Colour) -> Image.Image:
    """Convert to RGB, transparent parts filled with a colour."""
    if not _has_alpha(picture):
        return picture if picture.mode == "RGB" else to_eight_bits(picture).convert("RGB")
    rgba = _with_alpha(picture)
    canvas = Image.new("RGBA", rgba.size, (*paper, 255))
    return Image.alpha_composite(canvas, rgba).convert("RGB")


def _paper_behind(picture: Image.Image) -> Colour:
    """Choose the paper behind a transparent drawing: white or black, whichever its ink stands out from.

    A picture that is nearly all opaque is a page with a few transparent parts (rounded corners): they get its colour.
    """
    if not _has_alpha(picture):
        return _WHITE
    rgba = np.asarray(_with_alpha(picture).reduce(max(1, max(picture.size) // 256)), dtype=np.float32)
    colours, opacity = rgba[..., :3], rgba[..., 3]
    if opacity.mean() > 0.9 * 255:
        red, green, blue = np.median(colours[opacity > 127], axis=0)
        return int(red), int(green), int(blue)
    if opacity.sum() == 0:
        return _WHITE
    brightness = np.average(colours.mean(axis=2), weights=opacity)
    return _WHITE if brightness < 160 else _BLACK


def _thicken(drawing: Image.Image, ink: NDArray[np.float32], least: float) -> Image.Image:
    """Widen thin lines to ``least`` pixels, so that they survive the reduction to the canvas."""
    solid = ink > 0.5
    edges = int(np.count_nonzero(solid[1:] != solid[:-1]) + np.count_nonzero(solid[:, 1:] != solid[:, :-1]))
    # 1.2: stairs make slanted outlines longer than they are.
    line_width = 2 * int(np.count_nonzero(solid)) / max(1, edges) * 1.2
    missing = round((least - line_width) / 2)
    if missing < 1:
        return drawing
    padded = np.pad(np.asarray(drawing), missing)
    for _ in range(2):  # the rows, then the columns: that is a square, too, and quicker
        padded = _spread(padded, missing).T
    return Image.fromarray(padded)


def _spread(pixels: NDArray[np.uint8], steps: int) -> NDArray[np.uint8]:
    """Give each pixel the greatest value of its column that is so many steps away at most."""
    spread = pixels.copy()
    for step in range(1, steps + 1):
        np.maximum(spread[step:], pixels[:-step], out=spread[step:])
        np.maximum(spread[:-step], pixels[step:], out=spread[:-step])
    return spread


# Pillow must report truncated files, not fill them with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False
