"""Sheets of pictures: a data set by its classes, and queries with what was found for them."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dsh_hf.codes import Codes, hamming_distances
from dsh_hf.files import write_atomically
from dsh_hf.processing import open_picture, prepare_image
from dsh_hf.tokens import TokenNetwork
from dsh_hf.training_data import undecoded

if TYPE_CHECKING:
    from datasets import Dataset

SIDE = 112  # of a picture, in pixels: what released models give the token network
_GAP, _HEADING = 4, 24
_BETWEEN = 5 * _GAP  # sketches, images and tokens stand apart
_BACKGROUND, _INK = "#d8d8d8", "black"
_RIGHT, _WRONG = "#1b7837", "#c51b1b"
_CROSS = 20  # side of the cross in a wrong result's corner
_RESULTS = 10
_HEADING_OF_RESULTS = f"its first {_RESULTS} results; on the left, how many of the class's pictures are among them"
_MOST_CLASSES = 250  # a sheet of more would be too tall for viewers


def draw_sheet(data: Mapping[str, "Dataset"], classes: Sequence[str], each: int = 4) -> Image.Image:
    """Draw some pictures of each class: sketches, images, and the sketch-tokens of these images.

    The pictures are spread evenly over the rows of a class, so the same data give the same sheet.

    Args:
        data: ``sketches`` and ``images``, as the loaders of :mod:`dsh_hf.data` give them.
        classes: names of the classes to show, from the top.
        each: sketches, and images, in a row.

    Returns:
        An RGB picture.

    Raises:
        ValueError: no such class, or more than 250, or ``each`` is not positive.
        PictureError: a picture cannot be read.
    """
    names = data["images"].features["label"].names
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise ValueError(f"no such class: {', '.join(unknown)}; there are {', '.join(names)}")
    if each < 1 or not 1 <= len(classes) <= _MOST_CLASSES:
        raise ValueError(f"a sheet shows 1 to {_MOST_CLASSES} classes and at least 1 picture of each")
    tokens = TokenNetwork()
    tokens.load_trained()
    sketches, images = (_some_of_each(data[domain], classes, each) for domain in ("sketches", "images"))
    rows = []
    for name in classes:
        photographs = [prepare_image(picture, SIDE) for picture in images[name]]
        rows.append(
            [
                [_fitted(picture) for picture in sketches[name]],
                [Image.fromarray(photograph) for photograph in photographs],
                draw_tokens(tokens, photographs),
            ]
        )
    return draw_table(rows, classes, dict.fromkeys(("sketches", "images", "sketch-tokens of the images"), each))


def draw_results(
    queries: "Dataset", gallery: "Dataset", query_codes: Codes, gallery_codes: Codes, credit: str = ""
) -> Image.Image:
    """Draw queries, each with its first 10 results: the right ones in a green frame, the wrong ones crossed.

    Right is a result of the query's class, by its name. A row also says how many of the first 10 are right, and how
    many could be. Results at the same distance come in the order of the gallery.

    Args:
        queries: a few rows with ``image`` and ``label``.
        gallery: rows with ``image`` and ``label``.
        query_codes: packed codes of the queries, uint8 ``(queries, bytes)``.
        gallery_codes: packed codes of the gallery, uint8 ``(gallery, bytes)``.
        credit: what the line below says of the pictures' makers.

    Returns:
        An RGB picture.

    Raises:
        PictureError: a picture cannot be read.
    """
    wanted, there = (np.asarray(_class_names(part)) for part in (queries, gallery))
    rows, names = [], []
    for query, name, code in zip(undecoded(queries), wanted, query_codes, strict=True):
        found = np.argsort(hamming_distances(code[None], gallery_codes)[0], kind="stable")[:_RESULTS]
        right = there[found] == name
        pictures = undecoded(gallery.select(found))
        results = [_judged(_fitted(picture), bool(good)) for picture, good in zip(pictures, right, strict=True)]
        rows.append([[_fitted(query)], results])
        names.append(f"{name}: {right.sum()} of {min(_RESULTS, int((there == name).sum()))}")
    return draw_table(rows, names, {"query": 1, _HEADING_OF_RESULTS: _RESULTS}, credit)


def spread_rows(labels: ArrayLike, count: int = 10) -> list[int]:
    """Choose at most ``count`` rows: the first ones of classes evenly spread, or of few classes several each."""
    _, firsts = np.unique(labels, return_index=True)
    rows = firsts if len(firsts) >= count else np.argsort(np.asarray(labels), kind="stable")
    count = min(count, len(rows))
    return [int(rows[place * len(rows) // count]) for place in range(count)]


def save_sheet(sheet: Image.Image, path: str | os.PathLike) -> None:
    """Write a sheet as a PNG of 256 colours, a third of what all its colours take."""
    file = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    write_atomically(Path(path), file.getvalue())


def spread_classes(names: Sequence[str], count: int) -> list[str]:
    """Choose at most ``count`` of the names, evenly spread."""
    count = min(count, len(names))
    return [names[place * len(names) // count] for place in range(count)]


def draw_tokens(network: TokenNetwork, photographs: Sequence[np.ndarray]) -> list[Image.Image]:
    """Draw the sketch-tokens of photographs.

    Args:
        network: with its weights.
        photographs: uint8 RGB arrays of the same shape ``(h, w, 3)``.

    Returns:
        Grey pictures of the same size: ink is black.
    """
    if not photographs:
        return []
    pixels = torch.from_numpy(np.stack(photographs)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        drawn = (network(pixels)[:, 0] * 255).round().byte().numpy()
    return [Image.fromarray(lines) for lines in drawn]


def draw_table(
    rows: Sequence[Sequence[Sequence[Image.Image]]], names: Sequence[str], groups: Mapping[str, int], credit: str = ""
) -> Image.Image:
    """Put pictures on a sheet: a row of groups under their headings, behind each row's name.

    Args:
        rows: for each row its groups of square pictures with the side ``SIDE``.
        names: of the rows.
        groups: how many places a group has, by its heading; fewer pictures leave some empty.
        credit: a line below all.

    Returns:
        An RGB picture.
    """
    font = ImageFont.load_default(14)
    left = 2 * _GAP + int(max(font.getlength(name) for name in names)) + _GAP
    step = SIDE + _GAP
    starts = [left, *(left + np.cumsum([places * step - _GAP + _BETWEEN for places in groups.values()])).tolist()]
    width, height = starts[-1] - _BETWEEN + _GAP, _HEADING + len(rows) * step + (_HEADING if credit else 0)
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for start, heading in zip(starts, groups, strict=False):
        pen.text((start, _HEADING // 2), heading, fill=_INK, font=font, anchor="lm")
    pen.text((left, height - _HEADING // 2), credit, fill=_INK, font=font, anchor="lm")
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = _HEADING + number * step
        pen.text((2 * _GAP, top + SIDE // 2), name, fill=_INK, font=font, anchor="lm")
        for start, pictures in zip(starts, row, strict=False):
            for column, picture in enumerate(pictures):
                sheet.paste(picture, (start + column * step, top))
    return sheet


def _some_of_each(dataset: "Dataset", classes: Sequence[str], each: int) -> dict[str, list[Any]]:
    """Give at most ``each`` undecoded pictures of each class, evenly spread over its rows."""
    labels = np.asarray(dataset.select_columns(["label"])[:]["label"])
    names = dataset.features["label"].names
    pictures = undecoded(dataset)
    some = {}
    for name in classes:
        rows = np.flatnonzero(labels == names.index(name))
        count = min(each, len(rows))
        some[name] = [pictures[int(rows[place * len(rows) // count])] for place in range(count)]
    return some


def _class_names(dataset: "Dataset") -> list[str]:
    names = dataset.features["label"].names
    return [names[label] for label in dataset["label"][:]]


def _judged(picture: Image.Image, right: bool) -> Image.Image:
    """Put a frame around a result, and a cross into a wrong one's corner: not everybody tells the colours apart."""
    judged, last = picture.copy(), SIDE - 1
    pen = ImageDraw.Draw(judged)
    pen.rectangle((0, 0, last, last), outline=_RIGHT if right else _WRONG, width=_GAP)
    if not right:
        pen.line((last, 0, last - _CROSS, _CROSS), fill=_WRONG, width=_GAP)
        pen.line((last - _CROSS, 0, last, _CROSS), fill=_WRONG, width=_GAP)
    return judged


def _fitted(picture: Any) -> Image.Image:
    """Give a picture as it is, scaled to fit, on white paper."""
    opened = open_picture(picture).convert("RGBA")
    paper = Image.new("RGBA", opened.size, "white")
    return ImageOps.pad(Image.alpha_composite(paper, opened).convert("RGB"), (SIDE, SIDE), color="white")
