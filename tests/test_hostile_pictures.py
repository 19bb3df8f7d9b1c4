"""No picture is so hostile that it is taken for another one, or stops anything without a word."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from benchmarks._hostile_pictures import drawing, hostile_pictures, in_format, stored
from benchmarks.hostile import WRONG, try_picture
from dsh_hf.damaged_files import hidden_damage
from dsh_hf.processing import PictureError, open_picture, prepare_image, prepare_sketch


@pytest.mark.parametrize("prepare", [prepare_image, prepare_sketch])
def test_each_hostile_picture_is_right_or_a_clear_error(tmp_path, prepare):
    pictures = list(hostile_pictures(160, seed=1))
    assert len(pictures) == 160
    assert len({picture.kind for picture in pictures}) >= 14
    tried = [(picture.kind, picture.name, *try_picture(picture, prepare, tmp_path)) for picture in pictures]
    assert [each for each in tried if each[2] == WRONG] == []


def test_what_must_be_refused_but_is_not_is_told():
    picture = next(p for p in hostile_pictures(2000) if p.kind == "bombs")
    assert try_picture(picture, lambda given, size: np.zeros((size, size), np.uint8), _Nowhere()) == (WRONG, "no error")


class _Nowhere:
    """A folder that keeps nothing."""

    def __truediv__(self, name):
        return self

    def write_bytes(self, content):
        pass


def test_a_png_with_zeros_from_some_byte_on_is_not_half_a_picture(tmp_path):
    content = in_format("PNG")
    path = tmp_path / "half.png"
    path.write_bytes(content[:300].ljust(len(content), b"\0"))
    Image.open(path).load()  # Pillow sees nothing
    with pytest.raises(PictureError, match=r"half\.png is damaged or truncated \(a checksum is wrong\)"):
        prepare_image(path, 32)
    with pytest.raises(PictureError, match="a checksum is wrong"):
        prepare_image({"bytes": path.read_bytes(), "path": None}, 32)


def test_a_webp_with_zeros_from_some_byte_on_is_not_half_a_picture(tmp_path):
    content = in_format("WebP")
    path = tmp_path / "half.webp"
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    Image.open(path).load()
    with pytest.raises(PictureError, match=r"half\.webp is damaged or truncated \(it ends in zeros\)"):
        prepare_image(path, 32)


@pytest.mark.parametrize("colour", ["white", "black"])
@pytest.mark.parametrize("options", [{"quality": 5}, {"quality": 100}, {"lossless": True}, {"exif": bytes(100)}])
def test_blank_pictures_are_whole(colour, options):
    blank = Image.new("RGB", (300, 200), colour)
    assert hidden_damage(stored(blank, "WEBP", **options)) is None
    assert hidden_damage(stored(blank, "PNG")) is None
    assert hidden_damage(stored(blank, "WEBP", **options) + bytes(500)) is None  # behind its end


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBP", b"", b"\xff\xd8"])
@pytest.mark.parametrize("rest", [b"", b"\0", b"\xff" * 8, bytes(40), struct.pack("<4sI", b"VP8 ", 2**32 - 1)])
def test_looking_for_damage_never_fails(start, rest):
    hidden_damage(start + rest)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -9999, 3.4e38])
def test_deep_greys_that_are_no_brightness_are_named(tmp_path, value):
    values = np.asarray(drawing().convert("L"), np.float32) / 255
    values[3, 3] = value
    Image.fromarray(values).save(tmp_path / "height.tif")
    with pytest.raises(PictureError, match=r"height\.tif has values from .*: a grey picture must lie in 0\.\.1"):
        open_picture(tmp_path / "height.tif")


def test_a_float_picture_that_was_resized_is_fine():
    edges = drawing().convert("F").resize((77, 55), Image.Resampling.LANCZOS)
    assert np.asarray(edges).min() < 0
    assert np.asarray(edges).max() > 255
    meant = prepare_image(np.clip(np.asarray(edges), 0, 255).astype(np.uint8), 32)
    for scale in (1, 1 / 255):
        found = prepare_image(Image.fromarray(np.asarray(edges) * np.float32(scale)), 32)
        assert np.abs(found.astype(int) - meant).max() <= 2


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    file = io.BytesIO()
    drawing().save(file, "EPS")
    (tmp_path / "page.png").write_bytes(file.getvalue())
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("started"))
    with pytest.raises(PictureError, match=r"page\.png is not a picture that can be read"):
        prepare_image(tmp_path / "page.png", 32)
