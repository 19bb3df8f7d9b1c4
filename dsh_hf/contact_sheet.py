"""A contact sheet of a data set: a row for each class, with some sketches, images and the images' sketch-tokens."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dsh_hf.processing import open_picture, prepare_image
from dsh_hf.tokens import TokenNetwork
from dsh_hf.training_data import undecoded

if TYPE_CHECKING:
    from datasets import Dataset

SIDE = 112  # of a picture, in pixels: what released models give the token network
_GAP, _HEADING = 4, 24
_BETWEEN = 5 * _GAP  # sketches, images and tokens stand apart
_BACKGROUND, _INK = "#d8d8d8", "black"
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
    return draw_table(rows, classes, ("sketches", "images", "sketch-tokens of the images"), each)


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
    rows: Sequence[Sequence[Sequence[Image.Image]]], names: Sequence[str], headings: Sequence[str], each: int
) -> Image.Image:
    """Put pictures on a sheet: a row of groups under their headings, behind each row's name.

    Args:
        rows: for each row its groups of square pictures with the side ``SIDE``.
        names: of the rows.
        headings: of the groups.
        each: places in a group; a shorter one leaves some empty.

    Returns:
        An RGB picture.
    """
    font = ImageFont.load_default(14)
    left = 2 * _GAP + int(max(font.getlength(name) for name in names)) + _GAP
    step = SIDE + _GAP
    group = each * step - _GAP + _BETWEEN
    width, height = left + len(headings) * group - _BETWEEN + _GAP, _HEADING + len(rows) * step
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for place, heading in enumerate(headings):
        pen.text((left + place * group, _HEADING // 2), heading, fill=_INK, font=font, anchor="lm")
    for number, (name, groups) in enumerate(zip(names, rows, strict=True)):
        top = _HEADING + number * step
        pen.text((2 * _GAP, top + SIDE // 2), name, fill=_INK, font=font, anchor="lm")
        for place, pictures in enumerate(groups):
            for column, picture in enumerate(pictures):
                sheet.paste(picture, (left + place * group + column * step, top))
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


def _fitted(picture: Any) -> Image.Image:
    """Give a sketch as it is, scaled to fit, on white paper."""
    opened = open_picture(picture).convert("RGBA")
    paper = Image.new("RGBA", opened.size, "white")
    return ImageOps.pad(Image.alpha_composite(paper, opened).convert("RGB"), (SIDE, SIDE), color="white")
