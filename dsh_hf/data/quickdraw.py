"""Drawings of Google's Quick, Draw! (CC BY 4.0): strokes from ndjson files, rendered as sketches."""

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import PIL.Image
import PIL.ImageDraw

from dsh_hf.data.spelling import spelling
from dsh_hf.files import parse_json

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# The Sketchy classes that Quick, Draw! has under another name; the rest are found by their spelling.
SKETCHY_WORDS = {
    "ape": "monkey",
    "cabin": "house",
    "car_(sedan)": "car",
    "crocodilian": "crocodile",
    "motorcycle": "motorbike",
    "racket": "tennis racquet",
    "songbird": "bird",
    "wading_bird": "flamingo",
}

# What to look up for words that have no word vector of their own.
WORD_ALIASES = {"bottlecap": "bottle cap"}

_OVERSAMPLING = 4
_RENDERING = 1  # another number here, and pictures in the cache are made anew


def sketchy_words(class_names: Iterable[str], words: Iterable[str]) -> dict[str, str]:
    """Find the Quick, Draw! word that draws each Sketchy class.

    Names are the same if they differ only in case, spaces and punctuation (``"hotdog"`` is drawn by
    ``"hot dog"``); ``SKETCHY_WORDS`` holds the others. Classes that no word draws are left out.

    Args:
        class_names: Sketchy's names.
        words: the words there are drawings of.

    Returns:
        The word for each class, in the order of the classes.
    """
    by_spelling = {spelling(word): word for word in words}
    wanted = {name: spelling(SKETCHY_WORDS.get(name, name)) for name in class_names}
    return {name: by_spelling[word] for name, word in wanted.items() if word in by_spelling}


def render_strokes(strokes: Sequence[Sequence[Sequence[float]]], size: int = 256, width: int = 3) -> PIL.Image.Image:
    """Draw strokes in black on white, centred, as large as a margin of a sixteenth of the side allows.

    Args:
        strokes: for each stroke its x and its y values; what follows them (times, in raw files) is ignored.
        size: side of the picture in pixels.
        width: of the line, in pixels.

    Returns:
        An antialiased greyscale picture (mode ``L``).

    Raises:
        ValueError: no points, x and y of different lengths, or numbers that are not finite.
    """
    lines = [line for xs, ys, *_ in strokes if (line := list(zip(xs, ys, strict=True)))]
    points = [point for line in lines for point in line]
    if not points:
        raise ValueError("the drawing has no points")
    if not math.isfinite(sum(x + y for x, y in points)):  # JSON's NaN, Infinity and 1e999
        raise ValueError("a point of the drawing has no place")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)

    side = size * _OVERSAMPLING
    pen = width * _OVERSAMPLING
    room = side - 2 * (side // 16) - pen
    scale = room / (max(right - left, bottom - top) or 1)  # a single dot has no extent
    shift_x = (side - (left + right) * scale) / 2
    shift_y = (side - (top + bottom) * scale) / 2

    picture = PIL.Image.new("L", (side, side), 255)
    draw = PIL.ImageDraw.Draw(picture)
    for line in lines:
        path = [(x * scale + shift_x, y * scale + shift_y) for x, y in line]
        draw.line(path, fill=0, width=pen, joint="curve")
        for x, y in (path[0], path[-1]):  # round ends, and the only ink of a dot
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=0)
    return picture.reduce(_OVERSAMPLING)


@overload
def load_quickdraw(folder: str | Path, classes: Mapping[str, str] | None = None) -> "Dataset": ...


@overload
def load_quickdraw(
    folder: str | Path, classes: Mapping[str, str] | None = None, *, streaming: Literal[True]
) -> "IterableDataset": ...


def load_quickdraw(
    folder: str | Path, classes: Mapping[str, str] | None = None, *, streaming: bool = False
) -> "Dataset | IterableDataset":
    """Load drawings from a folder of ``<word>.ndjson`` files, one drawing a line.

    The drawings are rendered once, as PNG of a few kB each, into the ``datasets`` cache; a word's file can hold more
    than 100,000. Changed files are rendered anew.

    Args:
        folder: where the files lie.
        classes: for each class the word that draws it; only these are loaded. Default: each word in the
            folder is a class.
        streaming: render each drawing when it is read, and keep none.

    Returns:
        The columns ``image`` (256 x 256, RGB when decoded), ``label`` (sorted class names) and ``id``
        (``"cat/5201136883597312"``: the word and the drawing's key).
        Before joining it with data that number classes otherwise: ``align_labels_with_mapping``.

    Raises:
        FileNotFoundError: no such folder, no ndjson files in it, or none for some of the words.
        ValueError: no drawings, or a line that is not one, named by file and number; in a stream, when it is read.
    """
    from datasets import ClassLabel, Dataset, DatasetInfo, Features, Image, IterableDataset, Value
    from datasets.exceptions import DatasetGenerationError

    files = word_files(Path(folder))
    classes = classes if classes is not None else {word: word for word in files}
    missing = sorted(word for word in classes.values() if word not in files)
    if missing:
        raise FileNotFoundError(f"no {', '.join(f'{word}.ndjson' for word in missing)} in {folder}")

    if not any(files[word].stat().st_size for word in classes.values()):
        raise ValueError(f"no drawings in {folder}: its files are empty, or no word is of a class wanted")

    names = sorted(classes)
    features = Features({"image": Image(mode="RGB"), "label": ClassLabel(names=names), "id": Value("string")})
    places = [str(files[classes[name]].resolve()) for name in names]
    given = {
        "labels": list(range(len(names))),
        "words": [classes[name] for name in names],
        "files": places,
        "stamps": [_stamp(place) for place in places],  # the cache goes by what is given here
    }
    if streaming:
        return IterableDataset.from_generator(_rows, features, given)
    try:
        drawn = Dataset.from_generator(_rows, features, gen_kwargs=given)
    except DatasetGenerationError as error:
        raise error.__cause__ or error from None
    return Dataset(drawn.data, DatasetInfo(features=features), fingerprint=drawn._fingerprint)


def _stamp(place: str) -> str:
    status = os.stat(place)
    return f"{status.st_size} {status.st_mtime_ns} {_RENDERING}"


def _rows(labels: list[int], words: list[str], files: list[str], stamps: list[str]) -> Iterator[dict[str, Any]]:
    for label, word, file in zip(labels, words, files, strict=True):
        for key, png in drawings_in(Path(file)):
            yield {"image": {"bytes": png, "path": None}, "label": label, "id": f"{word}/{key}"}


def word_files(folder: Path) -> dict[str, Path]:
    """Give each word's ndjson file, sorted.

    Raises:
        FileNotFoundError: no such folder, or no such files in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder} (expected one with <word>.ndjson files)")
    files = {path.stem: path for path in sorted(folder.glob("*.ndjson")) if not path.name.startswith(".")}
    if not files:
        raise FileNotFoundError(f"no <word>.ndjson files in {folder}")
    return files


def drawings_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Give the key and the PNG of each drawing in a file.

    Raises:
        ValueError: a line is no drawing; the message names file and line.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                drawing = parse_json(line)
                picture = render_strokes(drawing["drawing"])
                key = drawing["key_id"]
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise ValueError(f"{path}, line {number}: not a Quick, Draw! drawing: {error!r}") from error
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            yield key, buffer.getvalue()
