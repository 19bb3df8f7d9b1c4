"""However a drawing was made, the networks see the same ink on the same paper; images are seen whole."""

import io
import os
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from dsh_hf import processing
from dsh_hf.ink import find_ink
from dsh_hf.processing import (
    EmptySketchError,
    PictureError,
    open_picture,
    prepare_image,
    prepare_sketch,
    sketch_to_tensor_layout,
)

SIZE = 112
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
OUTLINES = {
    "house": [
        [(60, 110), (60, 210), (200, 210), (200, 110), (60, 110)],
        [(50, 115), (130, 40), (210, 115)],
        [(110, 210), (110, 150), (150, 150), (150, 210)],
    ],
    "fish": [
        [(50, 135), (90, 100), (150, 92), (206, 135), (150, 178), (90, 170), (50, 135)],
        [(206, 135), (240, 100), (240, 170), (206, 135)],
        [(80, 125), (90, 125), (90, 135), (80, 135), (80, 125)],
    ],
}


def draw(subject="house", side=256, width=5.0, ink=BLACK, paper=WHITE) -> Image.Image:
    """Draw a subject with lines of ``width`` where the paper's side is 256."""
    scale = side / 256
    picture = Image.new("RGB", (side, side), paper)
    pen = ImageDraw.Draw(picture)
    for line in OUTLINES[subject]:
        pen.line([(x * scale, y * scale) for x, y in line], fill=ink, width=max(1, round(width * scale)), joint="curve")
    return picture


def as_file(picture: Image.Image, kind: str, **options) -> dict:
    """Store a picture in memory, as an undecoded ``datasets`` column has it."""
    stored = io.BytesIO()
    picture.save(stored, kind, **options)
    return {"bytes": stored.getvalue(), "path": f"drawing.{kind.lower()}"}


def transparent(subject, ink, beneath, side=256, width=5.0):
    """Give ink on nothing; ``beneath`` is the colour that the fully transparent pixels happen to have."""
    alpha = ImageOps.invert(draw(subject, side, width).convert("L"))
    picture = Image.new("RGB", alpha.size, beneath)
    picture.paste(ink, mask=alpha)
    picture.putalpha(alpha)
    return as_file(picture, "PNG")


def grey_and_alpha(subject):
    alpha = ImageOps.invert(draw(subject).convert("L"))
    return as_file(Image.merge("LA", [Image.new("L", alpha.size, 0), alpha]), "PNG")


def with_rounded_corners(subject):
    page = draw(subject, paper=(250, 245, 220)).convert("RGBA")
    page.paste((0, 0, 0, 0), (0, 0, 6, 6))
    return page


def sixteen_bit(subject, ink, paper):
    grey = ink + np.asarray(draw(subject).convert("L")) / 255 * (paper - ink)
    return as_file(Image.fromarray(grey.astype(np.uint16)), "PNG")


def turned_by_exif(subject, orientation):
    """Store a drawing as a phone does: the pixels as the sensor was held, and how to turn them back."""
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return as_file(draw(subject).transpose(turn), "JPEG", quality=90, exif=exif)


def in_the_corner(subject, sheet):
    page = Image.new("RGB", sheet, WHITE)
    page.paste(draw(subject, side=300), (sheet[0] - 320, sheet[1] - 310))
    return page


def photographed(subject, size=(1200, 900), noise=6.0, shade=90.0, contrast=0.75):
    """Photograph a drawing on yellowish paper: darker to one corner, a little blurred, noisy, as a JPEG."""
    width, height = size
    ink = Image.new("L", size, 0)
    if subject is not None:
        side = min(size) * 7 // 10
        ink.paste(
            ImageOps.invert(draw(subject, side, width=4).convert("L")), ((width - side) // 3, (height - side) // 2)
        )
    ink = np.asarray(ink.filter(ImageFilter.GaussianBlur(width / 900)), dtype=np.float32) / 255
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    light = (235 - shade * (0.6 * x + 0.4 * y**2)) * (1 - contrast * ink)
    light = light + np.random.default_rng(0).normal(0, noise, light.shape)
    colours = np.clip(light[..., None] * [1, 0.97, 0.88], 0, 255).astype(np.uint8)
    return as_file(Image.fromarray(colours), "JPEG", quality=85)


def framed(subject, grey, width, inset):
    page = draw(subject)
    ImageDraw.Draw(page).rectangle((inset, inset, 255 - inset, 255 - inset), outline=(grey,) * 3, width=width)
    return page


def on_a_desk(subject, left=0, top=0, right=0, bottom=0, side=256, colour=(120, 90, 60), **options):
    picture = Image.new("RGB", (left + side + right, top + side + bottom), colour)
    picture.paste(draw(subject, side, **options), (left, top))
    return picture


def photographed_on_a_desk(subject, angle=0, noise=6.0, shade=60.0, **margins):
    """Photograph a page that lies on a darker desk, perhaps askew."""
    scene = on_a_desk(subject, **margins).rotate(angle, Image.Resampling.BICUBIC, fillcolor=(120, 90, 60))
    height, width = scene.height, scene.width
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    light = (245 - shade * (0.6 * x + 0.4 * y**2)) / 255
    pixels = np.asarray(scene) * light[..., None] + np.random.default_rng(0).normal(0, noise, (height, width, 1))
    return as_file(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), "JPEG", quality=85)


def under_a_title_bar(subject):
    screenshot = on_a_desk(subject, top=24, colour=(40, 44, 52))
    ImageDraw.Draw(screenshot).text((10, 6), "Untitled", fill=(230, 230, 230))
    return screenshot


def inside_a_transparent_margin(subject, **options):
    picture = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    picture.paste(draw(subject, **options), (72, 72))
    return picture


def small_on_a_sheet(subject, sheet, side):
    page = Image.new("RGB", sheet, WHITE)
    page.paste(draw(subject, side=side), (sheet[0] // 3, sheet[1] // 4))
    return page


# How far (mean absolute difference, 0..1) a drawing may be from the same one in black on white.
# About 0.14 separates the two subjects. The coarse ways differ in the lines' width, which cannot be told apart.
EXACT, SCALED, COARSE = 0.003, 0.045, 0.085
ALL_SIDES = ("left", "top", "right", "bottom")
FRAMED = {
    f"a frame {width} wide, grey {grey}, {inset} from the edge": (
        partial(framed, grey=grey, width=width, inset=inset),
        EXACT,
    )
    for grey in (0, 128, 200)
    for width in (1, 3)
    for inset in (0, 5)
}
DESKS = {
    f"on a desk, {margin} of it {', '.join(sides)}{', photographed' if photo else ''}": (
        partial(photographed_on_a_desk if photo else on_a_desk, **dict.fromkeys(sides, margin)),
        SCALED,
    )
    for margin in (20, 100)
    for sides in (ALL_SIDES, ("left",), ("bottom",), ("left", "top"), ("left", "right"))
    for photo in (False, True)
}

WAYS = {
    "white on black": (lambda s: draw(s, ink=WHITE, paper=BLACK), EXACT),
    "red on white": (lambda s: draw(s, ink=(220, 30, 30)), EXACT),
    "yellow on white": (lambda s: draw(s, ink=(240, 210, 0)), EXACT),
    "blue on yellow": (lambda s: draw(s, ink=(30, 30, 200), paper=(255, 240, 150)), EXACT),
    "red on equally bright green": (lambda s: draw(s, ink=(200, 0, 0), paper=(0, 102, 0)), EXACT),
    "black on nothing": (partial(transparent, ink=BLACK, beneath=BLACK), EXACT),
    "black on transparent white": (partial(transparent, ink=BLACK, beneath=WHITE), EXACT),
    "white on nothing": (partial(transparent, ink=WHITE, beneath=BLACK), EXACT),
    "white on transparent white": (partial(transparent, ink=WHITE, beneath=WHITE), EXACT),
    "thin lines on a large transparent sheet": (
        partial(transparent, ink=BLACK, beneath=WHITE, side=1400, width=3.5),
        SCALED,
    ),
    "a page with transparent corners": (with_rounded_corners, EXACT),
    "grey with alpha": (grey_and_alpha, EXACT),
    "palette": (lambda s: as_file(draw(s, ink=(200, 0, 0)).quantize(8), "PNG"), EXACT),
    "palette with a transparent colour": (
        lambda s: as_file(draw(s).quantize(2), "GIF", transparency=draw(s).quantize(2).getpixel((0, 0))),
        EXACT,
    ),
    "one bit": (lambda s: as_file(draw(s).convert("1"), "PNG"), EXACT),
    "16-bit grey": (partial(sixteen_bit, ink=20000, paper=65535), EXACT),
    "16-bit grey, dim": (partial(sixteen_bit, ink=0, paper=30000), EXACT),
    "CMYK JPEG": (lambda s: as_file(draw(s).convert("CMYK"), "JPEG", quality=90), EXACT),
    "poor JPEG": (lambda s: as_file(draw(s), "JPEG", quality=40), EXACT),
    "uint8 array": (lambda s: np.asarray(draw(s)), EXACT),
    "grey float array": (lambda s: np.asarray(draw(s).convert("L"), dtype=np.float32) / 255, EXACT),
    "boolean array of ink": (lambda s: np.asarray(draw(s).convert("L")) == 0, EXACT),
    "array with a channel of one": (lambda s: np.asarray(draw(s).convert("L"))[..., None], EXACT),
    "EXIF: mirrored": (partial(turned_by_exif, orientation=2), EXACT),
    "EXIF: upside down": (partial(turned_by_exif, orientation=3), EXACT),
    "EXIF: flipped": (partial(turned_by_exif, orientation=4), EXACT),
    "EXIF: transposed": (partial(turned_by_exif, orientation=5), EXACT),
    "EXIF: on its left side": (partial(turned_by_exif, orientation=6), EXACT),
    "EXIF: transversed": (partial(turned_by_exif, orientation=7), EXACT),
    "EXIF: on its right side": (partial(turned_by_exif, orientation=8), EXACT),
    "large": (lambda s: draw(s, side=1200), SCALED),
    "small": (lambda s: draw(s, side=100), COARSE),
    "hairlines on a large sheet": (lambda s: draw(s, side=1600, width=0.7), COARSE),
    "in the corner of a large sheet": (partial(in_the_corner, sheet=(1600, 1200)), COARSE),
    "in the corner of a very large sheet": (partial(in_the_corner, sheet=(3000, 2000)), COARSE),
    "photographed": (photographed, SCALED),
    "photographed, noisy and dark": (partial(photographed, noise=12, shade=140), SCALED),
    "photographed pencil": (partial(photographed, contrast=0.3), SCALED),
    "photographed upright with a phone": (partial(photographed, size=(1200, 1600)), SCALED),
    "float picture in 0..1": (lambda s: Image.fromarray(np.asarray(draw(s).convert("L"), np.float32) / 255), EXACT),
    "a screenshot with a title bar": (under_a_title_bar, EXACT),
    "a dark page in a white margin": (
        partial(on_a_desk, **dict.fromkeys(ALL_SIDES, 20), colour=WHITE, paper=(30, 34, 40), ink=WHITE),
        EXACT,
    ),
    "a page in a transparent margin": (inside_a_transparent_margin, EXACT),
    "a dark page in a transparent margin": (
        partial(inside_a_transparent_margin, paper=BLACK, ink=WHITE),
        EXACT,
    ),
    "small on a large sheet": (partial(small_on_a_sheet, sheet=(3000, 2200), side=150), SCALED),
    **FRAMED,
    **DESKS,
}


def difference(a, b) -> float:
    return float(np.abs(a.astype(float) - b).mean() / 255)


@pytest.fixture(scope="module")
def canonical():
    return {subject: prepare_sketch(draw(subject), SIZE) for subject in OUTLINES}


@pytest.mark.parametrize("subject", OUTLINES)
@pytest.mark.parametrize("way", WAYS)
def test_however_a_drawing_was_made_it_becomes_the_same_sketch(canonical, way, subject):
    make, bound = WAYS[way]
    sketch = prepare_sketch(make(subject), SIZE)
    (other,) = OUTLINES.keys() - {subject}
    assert difference(sketch, canonical[subject]) < bound
    assert difference(sketch, canonical[subject]) < 0.75 * difference(sketch, canonical[other])


@pytest.mark.parametrize("size", [32, 112, 200])
def test_a_sketch_is_dark_ink_on_white_paper_centred_and_filling_the_canvas(size):
    page = Image.new("RGB", (500, 300), WHITE)
    page.paste(draw(), (240, 40))
    sketch = prepare_sketch(page, size)
    assert sketch.shape == (size, size)
    assert sketch.dtype == np.uint8
    assert sketch[0, 0] == 255
    assert np.median(sketch) == 255
    assert sketch.min() < 40
    rows, columns = np.flatnonzero((sketch < 128).any(axis=1)), np.flatnonzero((sketch < 128).any(axis=0))
    for first, last in [(rows[0], rows[-1]), (columns[0], columns[-1])]:
        assert abs(first - (size - 1 - last)) <= 2  # centred
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(0.86 * size, abs=0.03 * size)


def test_proportions_are_kept():
    wide = Image.new("L", (400, 300), 255)
    ImageDraw.Draw(wide).ellipse((50, 100, 350, 200), outline=0, width=6)  # three to one
    sketch = prepare_sketch(wide, SIZE)
    height, width = (np.ptp(np.flatnonzero((sketch < 128).any(axis=axis))) for axis in (1, 0))
    assert width / height == pytest.approx(3, rel=0.1)


def test_hairlines_do_not_fade():
    sketch = prepare_sketch(draw(side=1600, width=0.2), SIZE)
    assert np.percentile(sketch[sketch < 255], 25) < 100


def test_the_given_picture_is_left_as_it_was():
    picture = draw(side=700)
    before = picture.tobytes()
    prepare_sketch(picture, SIZE)
    prepare_image(picture, SIZE)
    assert picture.size == (700, 700)
    assert picture.tobytes() == before


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("side", [90, 256, 700])
def test_greys_are_read_as_their_colours_would_be(mode, side):
    drawing = draw("house", side=side, width=max(2, side / 50)).convert("L").convert(mode)
    np.testing.assert_array_equal(prepare_sketch(drawing, 112), prepare_sketch(drawing.convert("RGB"), 112))


def test_greys_of_an_uneven_or_framed_page_are_read_as_their_colours_would_be():
    for page in (open_picture(photographed("house", size=(600, 450))), on_a_desk("house", left=60, top=50, right=40)):
        grey = page.convert("L")
        np.testing.assert_array_equal(prepare_sketch(grey, 112), prepare_sketch(grey.convert("RGB"), 112))


def test_a_palette_of_colours_is_not_taken_for_greys():
    drawing = draw("house", ink=(200, 30, 30), paper=(190, 200, 255))
    paletted = drawing.quantize(200, dither=Image.Dither.NONE)
    np.testing.assert_array_equal(prepare_sketch(paletted, 112), prepare_sketch(paletted.convert("RGB"), 112))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_lines_are_thickened_as_pillow_would(steps):
    ink = np.zeros((40, 30), np.float32)
    ink[5:35, 12] = ink[20, 3:25] = 1
    ink[8, 4] = 0.7
    drawing = Image.fromarray((ink * 255).astype(np.uint8))
    thick = processing._thicken(drawing, ink, 1.2 + 2 * steps)
    expected = ImageOps.expand(drawing, border=steps, fill=0).filter(ImageFilter.MaxFilter(2 * steps + 1))
    np.testing.assert_array_equal(np.asarray(thick), np.asarray(expected))


def test_ink_is_found_where_the_lines_are():
    ink = find_ink(draw())
    lines = np.asarray(draw().convert("L")) == 0
    assert ink.dtype == np.float32
    assert ink[lines].min() == 1
    assert ink[~lines].max() == 0
    assert find_ink(draw(side=2000)).shape == (512, 512)


def test_the_networks_get_three_equal_channels(canonical):
    layout = sketch_to_tensor_layout(canonical["house"])
    assert layout.shape == (SIZE, SIZE, 3)
    assert all(np.array_equal(layout[..., channel], canonical["house"]) for channel in range(3))


def dot(side):
    picture = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(picture).rectangle((100, 100, 99 + side, 99 + side), fill=0)
    return picture


@pytest.mark.parametrize(
    "blank",
    [
        Image.new("RGB", (300, 200), WHITE),
        Image.new("L", (300, 200), 0),
        Image.new("RGBA", (300, 200), (0, 0, 0, 0)),
        dot(1),
        dot(3),
        draw(ink=(245, 245, 245)),  # too faint to be meant
        Image.new("L", (1, 1), 255),
        np.random.default_rng(0).integers(0, 255, (2, 2, 3), dtype=np.uint8),
    ],
    ids=["white", "black", "transparent", "one dot", "a speck", "faint", "one pixel", "four pixels"],
)
def test_a_sketch_without_ink_is_an_error(blank):
    with pytest.raises(EmptySketchError, match=r"^the sketch is empty: no ink was found on it; draw something first"):
        prepare_sketch(blank, SIZE)


@pytest.mark.parametrize(("noise", "shade"), [(0, 120), (4, 0), (6, 90), (12, 120)])
def test_a_photograph_of_an_empty_page_is_empty(noise, shade):
    with pytest.raises(EmptySketchError):
        prepare_sketch(photographed(None, noise=noise, shade=shade), SIZE)


def with_shapes(draw_shapes) -> Image.Image:
    page = Image.new("RGB", (256, 256), WHITE)
    draw_shapes(ImageDraw.Draw(page))
    return page


# Each looks like a frame or a page, but is the drawing.
OBJECTS = {
    "a square near the edges": lambda pen: pen.rectangle((6, 6, 249, 249), outline=0, width=3),
    "a window": lambda pen: [
        pen.rectangle((12, 14, 240, 244), outline=0, width=4),
        pen.line((128, 14, 128, 244), fill=0, width=4),
        pen.line((12, 128, 240, 128), fill=0, width=4),
    ],
    "an envelope": lambda pen: [
        pen.rectangle((8, 30, 248, 220), outline=0, width=4),
        pen.line((8, 30, 128, 130, 248, 30), fill=0, width=4),
    ],
    "a large house": lambda pen: [
        pen.rectangle((6, 90, 249, 250), outline=0, width=4),
        pen.line((2, 94, 128, 4, 253, 94), fill=0, width=4),
        pen.rectangle((100, 170, 150, 250), outline=0, width=4),
    ],
    "a television": lambda pen: [
        pen.rectangle((14, 40, 242, 220), outline=0, width=4),
        pen.rectangle((30, 56, 180, 204), outline=0, width=4),
    ],
    "a filled square": lambda pen: pen.rectangle((30, 30, 220, 220), fill=0),
    "a filled disc": lambda pen: pen.ellipse((10, 10, 245, 245), fill=0),
    "a bus": lambda pen: [
        pen.rectangle((20, 60, 236, 190), fill=(20, 40, 140)),
        pen.ellipse((50, 165, 95, 215), fill=0),
        pen.ellipse((160, 165, 205, 215), fill=0),
        pen.rectangle((35, 80, 110, 120), fill=WHITE),
    ],
    "lines out of the picture": lambda pen: [
        pen.ellipse((-60, -40, 200, 220), outline=0, width=6),
        pen.line((0, 250, 255, 120), fill=0, width=6),
        pen.line((150, 0, 150, 255), fill=0, width=6),
    ],
    "a ground line": lambda pen: [
        pen.line((0, 240, 255, 240), fill=0, width=5),
        pen.line((128, 60, 128, 240), fill=0, width=5),
    ],
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_drawing_is_not_taken_for_a_frame_or_a_page(name):
    page = with_shapes(OBJECTS[name])
    marks = (np.asarray(page) != 255).any(axis=2)
    assert np.array_equal(find_ink(page) > 0.4, marks)


@pytest.mark.parametrize("angle", [-3, 3])
def test_a_page_askew_on_a_desk_is_cut_out(angle):
    margins = dict.fromkeys(ALL_SIDES, 40)
    straight = draw(side=320, width=4)
    straight.paste(WHITE, (0, 0, 320, 320))
    straight.paste(draw(), (32, 32))
    expected = prepare_sketch(straight.rotate(angle, Image.Resampling.BICUBIC, fillcolor=WHITE), SIZE)
    assert difference(prepare_sketch(photographed_on_a_desk("house", angle, **margins), SIZE), expected) < SCALED


def test_a_small_drawing_on_a_large_sheet_is_sharp():
    sketch = prepare_sketch(small_on_a_sheet("house", (4000, 3000), 200), SIZE)
    assert np.mean((sketch > 80) & (sketch < 175)) < 0.05


@pytest.mark.parametrize("size", [(256, 256), (1200, 900)])
@pytest.mark.parametrize("noise", [25, 60])
def test_a_very_noisy_photograph_of_an_empty_page_is_empty(noise, size):
    with pytest.raises(EmptySketchError):
        prepare_sketch(photographed(None, size=size, noise=noise), SIZE)


def test_a_dot_that_was_meant_is_a_sketch():
    assert prepare_sketch(dot(8), SIZE).min() == 0


@pytest.mark.parametrize("given_as", [str, lambda path: path, Image.open], ids=["str", "Path", "PIL image"])
def test_an_empty_sketch_is_named(tmp_path, given_as):
    path = tmp_path / "empty.png"
    Image.new("L", (50, 50), 255).save(path)
    with pytest.raises(EmptySketchError, match=r"empty\.png is empty"):
        prepare_sketch(given_as(path), SIZE)


def test_an_image_is_squeezed_whole_to_a_square():
    colours = [(200, 0, 0), (0, 180, 0), (0, 0, 160), (90, 90, 90)]
    wide = Image.new("RGB", (400, 100))
    for column, colour in enumerate(colours):
        wide.paste(colour, (column * 100, 0, column * 100 + 100, 100))
    image = prepare_image(wide, 64)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    # all four columns are there, each a quarter of the width and the whole height
    for column, colour in enumerate(colours):
        assert np.abs(image[:, column * 16 + 4 : column * 16 + 12].astype(int) - colour).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_images_of_every_mode_become_rgb(mode):
    grey = Image.new("L", (40, 30), 255)
    picture = grey.convert("RGB").convert(mode) if mode in ("HSV", "CMYK", "YCbCr") else grey.convert(mode)
    assert prepare_image(picture, 32).tolist() == np.full((32, 32, 3), 255).tolist()


def test_sixteen_bits_are_reduced_to_eight_not_clipped():
    grey = (np.arange(0, 256, 4, dtype=np.uint16) * 257)[None].repeat(64, axis=0)
    prepared = prepare_image(as_file(Image.fromarray(grey), "PNG"), 64)
    assert prepared[5, :, 0].tolist() == list(range(0, 256, 4))


def test_transparent_parts_of_an_image_are_white():
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((10, 200, 30, 255), (0, 0, 32, 64))
    prepared = prepare_image(as_file(image, "PNG"), 64)
    assert prepared[10, 10].tolist() == [10, 200, 30]
    assert prepared[10, 50].tolist() == [255, 255, 255]


def test_half_transparent_parts_of_an_image_are_mixed_with_white():
    prepared = prepare_image(Image.new("RGBA", (40, 40), (255, 0, 0, 128)), 32)
    assert np.abs(prepared[5, 5].astype(int) - [255, 127, 127]).max() <= 1


def test_an_image_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (80, 60), "white")
    picture.paste("black", (0, 0, 80, 30))  # upper half as stored, right half when upright
    prepared = prepare_image(as_file(picture, "JPEG", exif=exif), 32)
    assert prepared[:, :12].min() > 240
    assert prepared[:, 20:].max() < 15


def test_a_large_jpeg_decoded_smaller_looks_the_same():
    photograph = Image.effect_noise((1600, 1200), 90).filter(ImageFilter.GaussianBlur(12)).convert("RGB")
    stored = as_file(photograph, "JPEG", quality=95)
    assert open_picture(stored, least_size=200).size < (1600, 1200)
    assert min(open_picture(stored, least_size=200).size) >= 200
    assert difference(prepare_image(stored, 100), prepare_image(photograph, 100)) < 0.01


def noise(kind="PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    return as_file(Image.fromarray(pixels), kind)["bytes"]


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("prepare", [prepare_image, prepare_sketch])
def test_a_truncated_file_is_named(tmp_path, prepare, kind):
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(noise(kind)[: len(noise(kind)) // 2])
    with pytest.raises(PictureError, match=rf"half\.{kind.lower()} is damaged or truncated .*: save or copy it again$"):
        prepare(path, SIZE)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", noise()[:7]])
def test_what_is_no_picture_is_named(tmp_path, content):
    path = tmp_path / "note.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=r"note\.png is not a picture that can be read"):
        prepare_image(str(path), SIZE)


def test_a_truncated_picture_that_was_opened_elsewhere_is_named(tmp_path):
    (tmp_path / "half.png").write_bytes(noise()[:5000])
    with pytest.raises(PictureError, match=r"half\.png is damaged or truncated"):
        prepare_image(Image.open(tmp_path / "half.png"), SIZE)


def test_bytes_without_a_path_are_the_picture():
    with pytest.raises(PictureError, match=r"^the picture is not a picture"):
        prepare_image({"bytes": b"no", "path": None}, SIZE)


def test_a_folder_is_named(tmp_path):
    with pytest.raises(PictureError, match=f"{tmp_path} is a folder: give the pictures in it"):
        prepare_image(tmp_path, SIZE)


@pytest.mark.parametrize("given_as", [str, lambda path: path, lambda path: {"bytes": None, "path": str(path)}])
def test_a_missing_file_is_named(tmp_path, given_as):
    with pytest.raises(FileNotFoundError, match=r"missing\.png: no such picture; check the path"):
        prepare_sketch(given_as(tmp_path / "missing.png"), SIZE)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(processing, "MAX_PIXELS", 160 * 120)
    path = tmp_path / "huge.png"
    path.write_bytes(noise())
    assert prepare_image(path, 32).shape == (32, 32, 3)  # as many as are allowed
    monkeypatch.setattr(processing, "MAX_PIXELS", 160 * 120 - 1)
    path.write_bytes(noise()[:2000])  # its pixels are not even there
    with pytest.raises(PictureError, match=r"huge\.png has more than 19,199 pixels: make it smaller"):
        prepare_image(path, 32)


def test_a_decompression_bomb_is_refused(tmp_path):
    # a header that promises 60,000 x 60,000 pixels
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = noise()
    (tmp_path / "bomb.png").write_bytes(content[:12] + header + content[29:])
    with pytest.raises(PictureError, match=r"bomb\.png"):
        prepare_image(tmp_path / "bomb.png", 32)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((3, 40, 40), np.uint8), r"shape .* got \(3, 40, 40\)"),  # channels first
        (np.zeros((2, 40, 40, 3), np.uint8), r"shape .* got \(2, 40, 40, 3\)"),
        (np.zeros((0, 40), np.uint8), r"shape .* got \(0, 40\)"),
        (np.zeros((40, 40), np.int64), "must be uint8, bool or floats in 0..1, got int64"),
        (np.full((40, 40), 255.0), "floats must lie in 0..1"),
        (np.full((40, 40), -0.1), "floats must lie in 0..1"),
        (np.full((40, 40), np.nan), "floats must lie in 0..1"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array, complaint):
    with pytest.raises(PictureError, match=complaint):
        prepare_image(array, SIZE)


@pytest.mark.parametrize("thing", [3, None, [1, 2]])
def test_what_could_not_be_a_picture_is_a_type_error(thing):
    with pytest.raises(TypeError, match=f"a picture is a path, a PIL image or an array, not {type(thing).__name__}"):
        prepare_image(thing, SIZE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_cost_the_picture(kind):
    broken = as_file(draw(), kind, exif=b"Exif\0\0not TIFF at all")
    assert prepare_image(broken, SIZE).shape == (SIZE, SIZE, 3)
    assert prepare_sketch(broken, SIZE).min() < 40


def test_one_image_given_to_many_threads_is_decoded_by_one_at_a_time(tmp_path):
    (tmp_path / "a.png").write_bytes(noise())
    shared = Image.open(tmp_path / "a.png")  # not decoded yet
    decode, decoding, decoded = shared.load, [], []

    def slow_load():
        if not decoded:
            decoding.append(threading.current_thread().name)
            time.sleep(0.05)
            decode()
            decoded.append(True)

    shared.load = slow_load
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: prepare_image(shared, 32), range(8)))
    assert len(decoding) == 1
    expected = prepare_image(tmp_path / "a.png", 32)
    assert all(np.array_equal(result, expected) for result in results)


def test_every_suffix_listed_can_be_read(tmp_path):
    for suffix in processing.PICTURE_SUFFIXES:
        draw().save(tmp_path / f"a{suffix}")
        assert prepare_image(tmp_path / f"a{suffix}", 32).shape == (32, 32, 3)
        assert prepare_image(os.fspath(tmp_path / f"a{suffix}"), 32).shape == (32, 32, 3)
