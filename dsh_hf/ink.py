"""Ink on paper: finding the drawing in a scan, a screenshot or a photograph of a page."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Box = tuple[int, int, int, int]  # top, left, and one past bottom and right

SOLID = 0.4  # ink stronger than this counts as drawn
MIN_INK = 12  # pixels: fewer are dust
_WORKING_SIZE = 512  # sketches larger than this are reduced before their ink is looked for
_PAGE_SIZE = 256  # and to this before a frame, a margin or a desk around the page is looked for
_MIN_CONTRAST = 24  # of 255: fainter marks are paper


def find_ink(sheet: Image.Image) -> NDArray[np.float32]:
    """Tell ink from paper: what differs from the paper around it, whatever the colours.

    A frame, a margin or the desk around the page is left out; a small drawing on a large sheet is looked at closely.

    Args:
        sheet: a picture of a drawing, RGB or grey.

    Returns:
        float32 of shape ``(h, w)`` with the longer side at most 512 pixels: 0 is paper, 1 is ink.
    """
    ink, even = _ink_on(sheet)
    for _ in range(3):  # a framed page may lie on a desk
        page = _page_of(sheet, even) if not even or _may_be_framed(ink) else None
        if page is None:
            break
        ink_of_page, even_page = _ink_on(page)
        if (ink_of_page > SOLID).sum() < MIN_INK:
            break  # a rectangle with nothing on it is the drawing itself
        sheet, ink, even = page, ink_of_page, even_page
    return _look_closer(sheet, ink)


def _ink_on(sheet: Image.Image) -> tuple[NDArray[np.float32], bool]:
    """Find the ink on a sheet of nothing but paper and ink; say whether the paper's colour is even."""
    sheet = _reduce(sheet, _WORKING_SIZE)
    bands = _bands(sheet)  # one by one: in the last axis of one array, colours take five times as long
    borders = [np.concatenate([band[0], band[-1], band[:, 0], band[:, -1]]) for band in bands]
    paper = [np.median(border) for border in borders]
    even = bool(np.mean(_farthest(borders, paper) > 8) < 0.25)
    if even:  # a drawing made or cleaned by a computer
        ink = _farthest(bands, paper)
        floor = float(_MIN_CONTRAST)
    else:  # a scan or a photograph: the paper's shade changes from place to place
        smooth = _bands(sheet.filter(ImageFilter.MedianFilter(3)))
        ink = reduce(np.maximum, (np.clip(_local_paper(band) - band, 0, None) for band in smooth))
        floor = max(_MIN_CONTRAST, 8 * float(np.median(ink)))
    strong = ink[ink > floor]
    if strong.size == 0:
        return np.zeros(ink.shape, dtype=np.float32), even
    ceiling = max(2 * floor, float(np.percentile(strong, 80)))
    return np.clip((ink - floor / 2) / (0.8 * ceiling - floor / 2), 0, 1).astype(np.float32), even


def _bands(picture: Image.Image) -> list[NDArray[np.float32]]:
    return [np.asarray(band, dtype=np.float32) for band in picture.split()]


def _farthest(bands: Sequence[NDArray[np.float32]], colour: Sequence[np.float32]) -> NDArray[np.float32]:
    """Measure how far pixels are from a colour, in the band where that is most."""
    return reduce(np.maximum, (np.abs(band - value) for band, value in zip(bands, colour, strict=True)))


def _look_closer(sheet: Image.Image, ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find the ink again where it is, on the sheet as large as it was given, if it takes little of the sheet."""
    if max(sheet.size) <= _WORKING_SIZE or not (ink > SOLID).any():
        return ink
    top, left, bottom, right = box_of(ink > SOLID)
    side = max(bottom - top, right - left)
    if side > _WORKING_SIZE // 4:
        return ink
    scale, margin = max(sheet.size) / _WORKING_SIZE, max(4, side // 2)
    left, top = (max(0, round((at - margin) * scale)) for at in (left, top))
    right, bottom = (round((at + margin) * scale) for at in (right, bottom))
    part = sheet.crop((left, top, min(sheet.width, right), min(sheet.height, bottom)))
    closer, _ = _ink_on(part)
    return closer if (closer > SOLID).sum() >= MIN_INK else ink


def _may_be_framed(ink: NDArray[np.float32]) -> bool:
    """Tell quickly whether a page is worth looking for: most drawings have little ink, and little along the edges."""
    solid = ink > SOLID
    near = [max(1, side // 16) for side in solid.shape]
    rows, columns = solid.mean(axis=1), solid.mean(axis=0)
    outer = np.concatenate([rows[: near[0]], rows[-near[0] :], columns[: near[1]], columns[-near[1] :]])
    edges = np.stack([rows[0], rows[-1], columns[0], columns[-1]])
    return bool(rows.mean() > 0.2 or edges.mean() > 0.05 or outer.max() > 0.7)


def _page_of(sheet: Image.Image, even: bool) -> Image.Image | None:
    """Cut out the page: a region of one shade with straight sides, and a frame, a margin or a desk around it."""
    small = _reduce(sheet, _PAGE_SIZE).convert("RGB")
    if np.median(_changes(small)) > 6:  # noise
        small = small.filter(ImageFilter.MedianFilter(5))
    changes = _changes(small)
    labels = _label_regions(changes <= max(12.0, 3 * float(np.median(changes))))
    names, sizes = np.unique(labels[labels > 0], return_counts=True)
    found = []
    for name in names[sizes > 0.05 * labels.size]:
        top, left, bottom, right = box = box_of(labels == name)
        area = (bottom - top) * (right - left) / labels.size
        if area > 0.15 and (bottom - top, right - left) != labels.shape:
            found.append((area, box, name))
    pixels = np.asarray(small, dtype=np.float32)
    for _, box, name in sorted(found, reverse=True):
        if _is_page(pixels, labels == name, box, even):
            return _cut(sheet, pixels, labels == name, box)
    return None


def _is_page(pixels: NDArray[np.float32], region: NDArray[np.bool_], box: Box, even: bool) -> bool:
    """Tell a page from a part of a drawing: its sides are straight, and around it is a bare desk or a thin frame."""
    top, left, bottom, right = box
    height, width = region.shape
    inside = region[top:bottom, left:right]
    sides = (inside, inside[:, ::-1], inside.T, inside.T[:, ::-1])
    if inside.mean() < 0.35 or not all(_is_straight(side) for side in sides):
        return False
    around = np.ones(region.shape, dtype=bool)
    around[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False  # 1: changes are seen that far
    if not around.any():
        return False
    page, desk = np.median(pixels[region], axis=0), np.median(pixels[around], axis=0)
    if np.abs(page - desk).max() > _MIN_CONTRAST:
        like_desk = np.abs(pixels[around] - desk).max(axis=1) < np.abs(pixels[around] - page).max(axis=1)
        return bool(like_desk.mean() > 0.75 and (even or page.mean() > desk.mean()))  # photographed paper is bright
    gaps = [top / height, left / width, 1 - bottom / height, 1 - right / width]
    return min(gaps) > 0 and max(gaps) < 0.06  # the same paper on both sides of a frame close to the edges


def _is_straight(region: NDArray[np.bool_]) -> bool:
    """Tell whether the left side of a region is a line, upright or a little slanted."""
    side = region.argmax(axis=1)
    half = len(side) // 2
    slope = np.median(side[-half:] - side[:half]) / max(1, len(side) - half)
    if abs(slope) > 0.2:
        return False
    off = side - slope * np.arange(len(side))
    return bool(np.mean(np.abs(off - np.median(off)) <= 2) > 0.8)


def _cut(sheet: Image.Image, small: NDArray[np.float32], region: NDArray[np.bool_], box: Box) -> Image.Image:
    """Crop a sheet to the page; what a slanted page leaves in the corners is painted as the page next to it."""
    height, width = region.shape
    beside = [np.maximum.accumulate(side, axis=1) for side in (region, region[:, ::-1])]
    above = [np.maximum.accumulate(side, axis=0) for side in (region, region[::-1])]
    within = (beside[0] & beside[1][:, ::-1]) | (above[0] & above[1][::-1])
    corners = Image.fromarray(~within).convert("L").filter(ImageFilter.MaxFilter(5)).resize(sheet.size)
    first, last = region.argmax(axis=1)[:, None], width - 1 - region[:, ::-1].argmax(axis=1)[:, None]
    nearest = np.clip(np.arange(width), first, last)
    paint = Image.fromarray(np.take_along_axis(small, nearest[..., None], axis=1).astype(np.uint8))
    page = Image.composite(paint.resize(sheet.size), sheet.convert("RGB"), corners)
    top, left, bottom, right = box
    inset = [at + 2 if at > 0 else 0 for at in (left, top)]  # 2: the edge is a little blurred
    inset += [at - 2 if at < end else end for at, end in ((right, width), (bottom, height))]
    scales = (sheet.width / width, sheet.height / height) * 2
    left, top, right, bottom = (round(at * scale) for at, scale in zip(inset, scales, strict=True))
    return page.crop((left, top, right, bottom))


def _reduce(picture: Image.Image, longest: int) -> Image.Image:
    if max(picture.size) <= longest:
        return picture
    picture = picture.copy()
    picture.thumbnail((longest, longest), Image.Resampling.BOX)
    return picture


def _changes(picture: Image.Image) -> NDArray[np.uint8]:
    """Measure how much the colour changes around each pixel."""
    high, low = (np.asarray(picture.filter(rank(3))) for rank in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    return (high - low).max(axis=2)


def _label_regions(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the connected regions of a mask (by rows and columns); outside them is 0."""
    labels = np.arange(1, mask.size + 1).reshape(mask.shape) * mask
    while True:
        before = labels
        for _ in range(2):  # the greatest label of each run spreads over it: along the rows, then the columns
            line = labels.ravel()
            ends = (line[1:] > 0) != (line[:-1] > 0)
            ends[labels.shape[1] - 1 :: labels.shape[1]] = True
            starts = np.concatenate([[0], np.flatnonzero(ends) + 1])
            runs = np.maximum.reduceat(line, starts)
            labels = np.repeat(runs, np.diff(starts, append=line.size)).reshape(labels.shape).T
        if np.array_equal(labels, before):
            return labels


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Find the box around a mask: top, left, and one past its bottom and right."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _local_paper(band: NDArray[np.float32], tile: int = 16) -> NDArray[np.float32]:
    """Estimate the shade of the paper behind each pixel of one band: a high percentile of tiles, smoothed."""
    height, width = band.shape
    rows, columns = height // tile, width // tile
    if rows and columns:
        blocks = band[: rows * tile, : columns * tile].reshape(rows, tile, columns, tile)
        tiles = np.percentile(blocks, 75, axis=(1, 3))
    else:
        tiles = np.percentile(band, 75, keepdims=True)
    plane = Image.fromarray(tiles.astype(np.uint8)).filter(ImageFilter.MedianFilter(5))
    return np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
