"""Hostile pictures of every kind: cut off, mislabelled, deep, turned, tiny, endless, or no pictures at all."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {  # suffix, and how Pillow writes it
    "JPEG": (".jpg", {"quality": 90}),
    "progressive JPEG": (".jpg", {"quality": 90, "progressive": True}),
    "JPEG with restarts": (".jpg", {"quality": 90, "restart_marker_rows": 1}),
    "PNG": (".png", {}),
    "GIF": (".gif", {}),
    "BMP": (".bmp", {}),
    "TIFF": (".tif", {}),
    "TIFF, LZW": (".tif", {"compression": "tiff_lzw"}),
    "TIFF, deflate": (".tif", {"compression": "tiff_adobe_deflate"}),
    "TIFF, JPEG": (".tif", {"compression": "jpeg", "quality": 90}),
    "WebP": (".webp", {"quality": 90}),
    "WebP, lossless": (".webp", {"lossless": True}),
}
ANYTHING = "any picture or a clear error"
REFUSED = "a clear error"


@dataclass(frozen=True)
class HostilePicture:
    """One picture to try.

    Attributes:
        kind: the row of the table that it counts for.
        name: of its file, told apart from all others.
        content: bytes of the file, or an array or PIL image that is given as it is.
        meant: the same picture without its traps; or ``REFUSED``, or ``ANYTHING``.
        may_fail: a clear error will do as well.
    """

    kind: str
    name: str
    content: Any
    meant: Image.Image | str
    may_fail: bool = False


def hostile_pictures(count: int, seed: int = 0) -> Iterator[HostilePicture]:
    """Give about ``count`` pictures, every kind among them; the same ones for the same seed."""
    dice = random.Random(seed)
    fixed = [picture for make in _FIXED for picture in make()]
    yield from fixed if count >= len(fixed) else dice.sample(fixed, count // 2)
    left = count - min(len(fixed), count // 2) if count < len(fixed) else count - len(fixed)
    for number in range(left):
        make = _RANDOM[number % len(_RANDOM)]
        yield make(dice, number)


def drawing(side: int = 120) -> Image.Image:
    """Draw what looks the same in no two of its eight orientations."""
    picture = Image.new("RGB", (side * 4 // 3, side), "white")
    pen = ImageDraw.Draw(picture)
    scale = side / 120
    for line in ([(20, 100), (20, 20), (70, 20)], [(20, 55), (55, 60)], [(90, 100), (140, 30)]):
        pen.line([(x * scale, y * scale) for x, y in line], fill="black", width=max(1, round(5 * scale)))
    pen.ellipse([100 * scale, 70 * scale, 145 * scale, 110 * scale], fill="black")
    return picture


def stored(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Give a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def in_format(name: str) -> bytes:
    """Give the drawing as a file in one of ``FORMATS``."""
    return stored(
        drawing(), name.replace("progressive ", "").replace(" with", ",").partition(",")[0], **FORMATS[name][1]
    )


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Write a PNG by hand, with what Pillow would not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _cut(dice: random.Random, number: int) -> HostilePicture:
    name = dice.choice(list(FORMATS))
    content = in_format(name)
    stages = [0, 1, 3, 4, 8, 16, 40, len(content) // 2, len(content) - 3, len(content) - 2, len(content) - 1]
    at = dice.choice([dice.choice(stages), dice.randrange(len(content))])
    return HostilePicture("cut off", f"cut-{number}-{name}-{at}{FORMATS[name][0]}", content[:at], drawing(), True)


def _padded(dice: random.Random, number: int) -> HostilePicture:
    """Make a file of full size of which only the beginning arrived."""
    # In BMP and plain TIFF zeros are black pixels; a TIFF's tables for JPEG have no mark that would tell.
    packed = [name for name in FORMATS if name not in ("BMP", "TIFF", "TIFF, JPEG")]
    name = dice.choice(packed)
    content = in_format(name)
    at = dice.randrange(len(content) - 32)
    padded = content[:at].ljust(len(content), b"\0")
    return HostilePicture(
        "zeros from some byte on", f"zeros-{number}-{name}-{at}{FORMATS[name][0]}", padded, drawing(), True
    )


def _flipped(dice: random.Random, number: int) -> HostilePicture:
    name = dice.choice(list(FORMATS))
    content = bytearray(in_format(name))
    for _ in range(dice.choice([1, 3, 20])):
        content[dice.randrange(dice.choice([64, len(content)]))] = dice.choice(
            [0, 1, 127, 128, 255, dice.randrange(256)]
        )
    return HostilePicture("bytes changed", f"changed-{number}-{name}{FORMATS[name][0]}", bytes(content), ANYTHING, True)


def _spliced(dice: random.Random, number: int) -> HostilePicture:
    one, other = dice.sample(list(FORMATS), 2)
    first, second = in_format(one), in_format(other)
    content = first[: dice.randrange(len(first))] + second[dice.randrange(len(second)) :]
    return HostilePicture("half one, half another", f"spliced-{number}{FORMATS[one][0]}", content, ANYTHING, True)


def _noise(dice: random.Random, number: int) -> HostilePicture:
    starts = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBPVP8 "]
    content = dice.choice(starts) + dice.randbytes(dice.choice([1, 10, 100, 5000]))
    return HostilePicture("noise after the right first bytes", f"noise-{number}.png", content, ANYTHING, True)


def _turned(dice: random.Random, number: int) -> HostilePicture:
    kind, suffix = dice.choice([("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("TIFF", ".tif")])
    orientation = dice.choice([*TURNS, 0, 1, 9, 65535])
    picture, exif = drawing(dice.choice([60, 120, 300])), Image.Exif()
    exif[0x0112] = orientation
    held = picture.transpose(TURNS[orientation]) if orientation in TURNS else picture
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    content = stored(held, kind, exif=exif, **options)
    return HostilePicture("turned by EXIF", f"turned-{number}-{orientation}{suffix}", content, picture)


def _stretched(dice: random.Random, number: int) -> HostilePicture:
    sides = [1, 2, 3, 10, 1000, 30_000]
    size = dice.choice([(a, b) for a in sides for b in sides if a * b <= 300_000])
    kind, suffix = dice.choice([("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("BMP", ".bmp")])
    picture = Image.new("L", size, dice.choice([0, 128, 255]))
    ImageDraw.Draw(picture).line([(0, 0), (size[0] // 2, size[1] - 1)], fill=0, width=3)
    content = stored(picture, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return HostilePicture("1 x 1 to 30,000 x 10", f"size-{number}-{size[0]}x{size[1]}{suffix}", content, picture)


def _array(dice: random.Random, number: int) -> HostilePicture:
    grey = np.asarray(drawing().convert("L"))
    colours = np.asarray(drawing())
    floats = grey / 255
    nan, infinite = floats.copy(), floats.copy()
    nan[5, 5], infinite[5, 5] = np.nan, np.inf
    refused = [nan, infinite, -floats, floats * 255, np.full((9, 9), np.nan, np.float16), grey.astype(np.int64)]
    refused += [
        grey.astype(np.complex64),
        grey.astype(object),
        grey.astype("U3"),
        grey[:0],
        grey[:, :0],
        grey[None, None],
    ]
    refused += [grey.astype("datetime64[s]"), colours.transpose(2, 0, 1), colours[..., :2]]
    refused += [np.ma.masked_array(floats, np.isnan(nan)) * np.nan]
    right = [grey[::-1][::-1], np.asfortranarray(colours), floats.astype(">f4"), floats.astype(np.float16)]
    right += [
        colours[..., ::-1],
        np.ma.masked_array(grey),
        np.repeat(grey[..., None], 4, 2) | np.array([0, 0, 0, 255], np.uint8),
    ]
    right += [np.broadcast_to(grey[..., None], (*grey.shape, 3)), grey > 128, grey[..., None]]
    if dice.random() < 0.5:
        return HostilePicture("arrays", f"array-{number}", dice.choice(refused), REFUSED)
    return HostilePicture("arrays", f"array-{number}", dice.choice(right), drawing())


_RANDOM: list[Callable[[random.Random, int], HostilePicture]] = [
    *[_cut] * 5,
    *[_padded] * 2,
    *[_flipped] * 4,
    _spliced,
    _noise,
    *[_turned] * 2,
    _stretched,
    _array,
]


def _mislabelled() -> Iterator[HostilePicture]:
    suffixes = [".jpg", ".png", ".gif", ".bmp", ".tif", ".webp", ".txt", ""]
    for name in FORMATS:
        for suffix in suffixes:
            yield HostilePicture("wrong suffix", f"a {name} as{suffix}", in_format(name), drawing())
            junk = in_format(name) + b"\r\n<!-- 404 -->" * 200
            yield HostilePicture("something behind its end", f"more after {name}{suffix}", junk, drawing())


def _deep() -> Iterator[HostilePicture]:
    kind = "16 bits and more"
    grey = np.asarray(drawing().convert("L"))
    deep = grey.astype(np.uint16) * 257
    yield HostilePicture(kind, "grey16.png", stored(Image.fromarray(deep), "PNG"), drawing())
    yield HostilePicture(kind, "grey16.tif", stored(Image.fromarray(deep), "TIFF"), drawing())
    yield HostilePicture(kind, "int32.tif", stored(Image.fromarray(deep.astype(np.int32)), "TIFF"), drawing())
    for name, floats in {"float01": grey / 255, "float255": grey * 1.0, "float65535": deep * 1.0}.items():
        yield HostilePicture(kind, f"{name}.tif", stored(Image.fromarray(floats.astype(np.float32)), "TIFF"), drawing())
        yield HostilePicture(kind, f"{name} in memory", Image.fromarray(floats.astype(np.float32)), drawing())
    for channels, colour in ((3, 2), (4, 6), (2, 4)):
        pixels = np.repeat(deep[..., None], channels, axis=2)
        if channels != 3:
            pixels[..., -1] = 65535
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
        content = png(grey.shape[1], grey.shape[0], 16, colour, zlib.compress(rows))
        yield HostilePicture(kind, f"{channels} channels of 16 bits.png", content, drawing())
    for name, value in {"nan": np.nan, "infinite": np.inf, "negative": -1e30, "huge": 1e38}.items():
        floats = (grey / 255).astype(np.float32)
        floats[40:44, 60:64] = value
        yield HostilePicture(
            "floats that are no numbers", f"{name}.tif", stored(Image.fromarray(floats), "TIFF"), REFUSED
        )
        yield HostilePicture("floats that are no numbers", f"{name} in memory", Image.fromarray(floats), REFUSED)


def _colours() -> Iterator[HostilePicture]:
    kind, picture = "CMYK, YCbCr, Lab, ...", drawing()
    for mode, form, suffix in (
        ("CMYK", "JPEG", ".jpg"),
        ("CMYK", "TIFF", ".tif"),
        ("YCbCr", "TIFF", ".tif"),
        ("L", "JPEG", ".jpg"),
        ("1", "TIFF", ".tif"),
        ("1", "BMP", ".bmp"),
        ("P", "BMP", ".bmp"),
        ("P", "TIFF", ".tif"),
    ):
        quality = {"quality": 95} if form == "JPEG" else {}
        unreadable = mode == "YCbCr"  # Pillow cannot read the TIFF that it writes
        yield HostilePicture(
            kind, f"{mode}{suffix}", stored(picture.convert(mode), form, **quality), picture, unreadable
        )
    for mode in ("CMYK", "YCbCr", "HSV", "1", "L", "LA", "La", "P", "PA", "RGBA", "RGBX", "RGBa", "I", "F", "I;16"):
        via = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, "L" if mode in ("I", "F", "I;16") else mode)
        yield HostilePicture(kind, f"{mode} in memory", picture.convert(via).convert(mode), picture)
    broken = stored(picture, "JPEG", icc_profile=b"no profile at all" * 20, quality=95)
    yield HostilePicture("broken EXIF or profile", "profile.jpg", broken, picture)
    for form, suffix in (("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp")):
        for number, exif in enumerate(
            [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x"]
        ):
            options = {"quality": 95} if form != "PNG" else {}
            content = stored(picture, form, exif=exif, **options)
            yield HostilePicture("broken EXIF or profile", f"exif-{number}{suffix}", content, picture)


def _transparent() -> Iterator[HostilePicture]:
    kind, picture = "palette and transparency", drawing()
    alpha = picture.convert("L").point(lambda grey: 255 - grey)
    for beneath in ("black", "white", "red"):
        rgba = Image.new("RGB", picture.size, beneath)
        rgba.paste("black", mask=alpha)
        rgba.putalpha(alpha)
        yield HostilePicture(kind, f"on {beneath}.png", stored(rgba, "PNG"), picture)
        yield HostilePicture(kind, f"on {beneath}.webp", stored(rgba, "WEBP", lossless=True, exact=True), picture)
        yield HostilePicture(kind, f"on {beneath}.tif", stored(rgba, "TIFF"), picture)
        yield HostilePicture(kind, f"on {beneath}.gif", stored(rgba, "GIF"), picture)
    palette = picture.quantize(2)
    paper = palette.getpixel((0, 0))
    for form, suffix in (("PNG", ".png"), ("GIF", ".gif")):
        yield HostilePicture(kind, f"palette{suffix}", stored(palette, form, transparency=paper), picture)
    yield HostilePicture(
        kind, "bytes.png", stored(palette, "PNG", transparency=bytes([0, 255][:: 1 if paper == 0 else -1])), picture
    )
    yield HostilePicture(kind, "grey.png", stored(picture.convert("L"), "PNG", transparency=255), picture)
    yield HostilePicture(kind, "rgb.png", stored(picture, "PNG", transparency=(255, 255, 255)), picture)
    yield HostilePicture(kind, "one bit.png", stored(picture.convert("1"), "PNG", transparency=255), picture)
    short = bytearray(stored(palette, "PNG"))
    yield HostilePicture(kind, "no palette.png", bytes(short).replace(b"PLTE", b"PLTF"), ANYTHING, True)


def _animated() -> Iterator[HostilePicture]:
    kind, picture = "several frames: the first counts", drawing()
    others = [Image.new("RGB", picture.size, colour) for colour in ("red", "green")]
    for form, suffix, options in (
        ("GIF", ".gif", {}),
        ("WEBP", ".webp", {"lossless": True}),
        ("PNG", ".png", {}),
        ("TIFF", ".tif", {}),
        ("MPO", ".jpg", {"quality": 95}),
    ):
        content = stored(picture, form, save_all=True, append_images=others, **options)
        yield HostilePicture(kind, f"frames{suffix}", content, picture)
        yield HostilePicture("cut off", f"frames-cut-{form}{suffix}", content[: len(content) // 5], picture, True)


def _bombs() -> Iterator[HostilePicture]:
    kind = "bombs"
    for side in (12_000, 60_000, 2**31 - 1):
        yield HostilePicture(kind, f"header-{side}.png", png(side, side, 8, 2, b"x"), REFUSED)
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(20_000 // 8 + 1) * 200) for _ in range(100)) + rows.flush()
    yield HostilePicture(kind, "twenty thousand.png", png(20_000, 20_000, 1, 0, packed), REFUSED)
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000), 9))
    yield HostilePicture(kind, "text.png", png(1, 1, 8, 0, zlib.compress(b"\0\0"), text), REFUSED)
    profile = _chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(5_000_000), 9))
    yield HostilePicture(kind, "profile.png", png(1, 1, 8, 0, zlib.compress(b"\0\0"), profile), ANYTHING, True)
    gif = stored(drawing(), "GIF")
    yield HostilePicture(kind, "screen.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], REFUSED)
    bmp = stored(drawing(), "BMP")
    yield HostilePicture(kind, "wide.bmp", bmp[:18] + struct.pack("<ii", 40_000, 40_000) + bmp[26:], REFUSED)
    yield HostilePicture(kind, "negative.bmp", bmp[:18] + struct.pack("<ii", -160, 2**31 - 1) + bmp[26:], REFUSED)
    jpeg = in_format("JPEG")
    sizes = jpeg.index(b"\xff\xc0") + 5
    yield HostilePicture(kind, "large.jpg", jpeg[:sizes] + b"\xff\xdc\xff\xdc" + jpeg[sizes + 4 :], REFUSED)
    yield HostilePicture(kind, "flat.jpg", jpeg[:sizes] + b"\x00\x00" + jpeg[sizes + 2 :], REFUSED)
    tiff = stored(drawing(), "TIFF")
    yield HostilePicture(kind, "loop.tif", tiff[:4] + struct.pack("<I", 4) + tiff[8:], REFUSED)


_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9" height="9">{}</svg>'
)
_NO_PICTURES = {
    "plain.svg": _SVG.format('<path d="M0 0 9 9" stroke="black"/>'),
    "laughs.svg": '<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    + _SVG.format("<text>&b;</text>"),
    "passwords.svg": '<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + _SVG.format("<text>&x;</text>"),
    "fetching.svg": _SVG.format('<image xlink:href="http://127.0.0.1:9/x.png" width="9" height="9"/>'),
    "script.svg": _SVG.format("<script>fetch('http://127.0.0.1:9')</script>"),
    "postscript.eps": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n",
    "document.pdf": "%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF",
    "page.html": "<!doctype html><title>404</title>",
    "pointer.png": "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n",
    "list.json": "[]",
    "xpm.xpm": '/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000000", "a"};',
    "blank.png": " \n" * 50,
    "zeros.png": "\0" * 5000,
    "empty.png": "",
    "zip.png": "PK\x05\x06" + "\0" * 18,
}


def _no_pictures() -> Iterator[HostilePicture]:
    for name, text in _NO_PICTURES.items():
        kind = "SVG with entities and references" if name.endswith("svg") else "no picture at all, or empty"
        for suffix in ("", ".png", ".jpg"):
            yield HostilePicture(kind, name + suffix, text.encode("latin-1"), REFUSED)


_FIXED: list[Callable[[], Iterator[HostilePicture]]] = [
    _mislabelled,
    _deep,
    _colours,
    _transparent,
    _animated,
    _bombs,
    _no_pictures,
]
