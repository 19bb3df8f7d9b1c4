import json

import numpy as np
import pytest

from dsh_hf.data import load_quickdraw, quickdraw
from dsh_hf.data.quickdraw import render_strokes, sketchy_words

SQUARE = [[[0, 255, 255, 0, 0], [0, 0, 255, 255, 0]]]


def line(word, key, drawing=SQUARE):
    return json.dumps({"word": word, "key_id": key, "recognized": True, "drawing": drawing}) + "\n"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    return cache


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cat.ndjson").write_text(line("cat", "11") + line("cat", "12"))
    (tmp_path / "hot dog.ndjson").write_text(line("hot dog", "21"))
    (tmp_path / "monkey.ndjson").write_text(line("monkey", "31"))
    (tmp_path / "._cat.ndjson").write_bytes(b"\x00\x05\x16\x07")
    return tmp_path


def ink_box(picture):
    rows, columns = np.nonzero(np.asarray(picture) < 128)
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_every_word_is_a_class_of_its_own(folder):
    data = load_quickdraw(folder)
    assert data.column_names == ["image", "label", "id"]
    assert data.features["label"].names == ["cat", "hot dog", "monkey"]
    assert data["label"][:] == [0, 0, 1, 2]
    assert data["id"][:] == ["cat/11", "cat/12", "hot dog/21", "monkey/31"]
    picture = data[0]["image"]
    assert (picture.mode, picture.size) == ("RGB", (256, 256))


def test_classes_choose_words_and_rename_them(folder):
    data = load_quickdraw(folder, {"hotdog": "hot dog", "ape": "monkey"})
    assert data.features["label"].names == ["ape", "hotdog"]
    assert data["label"][:] == [0, 1]
    assert data["id"][:] == ["monkey/31", "hot dog/21"]


def test_drawings_are_rendered_once_into_the_cache_and_anew_when_their_file_changes(folder, cache, monkeypatch):
    first = load_quickdraw(folder)
    assert [path["filename"] for path in first.cache_files] == [str(path) for path in cache.rglob("*.arrow")]
    before = len(list(cache.rglob("*.arrow")))
    drawn = []
    monkeypatch.setattr(
        quickdraw, "render_strokes", lambda strokes: drawn.append(strokes) or render_strokes(strokes, size=256)
    )
    assert load_quickdraw(folder)._fingerprint == first._fingerprint
    assert drawn == []
    assert len(list(cache.rglob("*.arrow"))) == before
    with (folder / "cat.ndjson").open("a") as file:
        file.write(line("cat", "13"))
    changed = load_quickdraw(folder)
    assert changed["id"][:3] == ["cat/11", "cat/12", "cat/13"]
    assert len(drawn) == 5
    assert changed._fingerprint != first._fingerprint


def test_a_stream_renders_each_drawing_when_it_is_read_and_keeps_none(folder, cache, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        quickdraw, "render_strokes", lambda strokes: drawn.append(strokes) or render_strokes(strokes, size=256)
    )
    stream = load_quickdraw(folder, streaming=True)
    assert drawn == []
    assert next(iter(stream))["id"] == "cat/11"
    assert len(drawn) == 1
    assert not list(cache.rglob("*.arrow"))
    whole = load_quickdraw(folder)
    assert stream.features == whole.features
    for row, other in zip(stream, whole, strict=True):
        assert (row["label"], row["id"]) == (other["label"], other["id"])
        assert row["image"].tobytes() == other["image"].tobytes()


def test_a_stream_names_a_broken_line_when_it_is_read(folder):
    with (folder / "cat.ndjson").open("a") as file:
        file.write("[]\n")
    rows = iter(load_quickdraw(folder, streaming=True))
    assert [next(rows)["id"], next(rows)["id"]] == ["cat/11", "cat/12"]
    with pytest.raises(ValueError, match=r"cat\.ndjson, line 3: not a Quick, Draw! drawing"):
        next(rows)


def test_a_word_without_drawings_is_a_class_without_rows(folder):
    (folder / "cat.ndjson").write_text("")
    data = load_quickdraw(folder)
    assert data.features["label"].names == ["cat", "hot dog", "monkey"]
    assert data["label"][:] == [1, 2]
    with pytest.raises(ValueError, match=r"no drawings in .*: its files are empty"):
        load_quickdraw(folder, {"cat": "cat"})
    with pytest.raises(ValueError, match=r"no drawings in .* or no word is of a class wanted"):
        load_quickdraw(folder, {})


def test_missing_folder_files_and_words_are_named(folder, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        load_quickdraw(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no <word>\.ndjson files in"):
        load_quickdraw(tmp_path_factory.mktemp("empty"))
    with pytest.raises(FileNotFoundError, match=r"no dog\.ndjson, owl\.ndjson in"):
        load_quickdraw(folder, {"owl": "owl", "cat": "cat", "dog": "dog"})


@pytest.mark.parametrize(
    "broken",
    [
        b'{"word": "cat", "drawing": [[[0',  # cut off
        b'{"word": "cat", "key_id": "13"}\n',  # no drawing
        b'{"word": "cat", "drawing": [[[0, 9], [0, 9]]]}\n',  # no key
        b'{"word": "cat", "key_id": "13", "drawing": [[[0, 9], [0]]]}\n',  # x and y differ in length
        b'{"word": "cat", "key_id": "13", "drawing": []}\n',  # nothing drawn
        b"[1, 2]\n",
        b'{"word": "\xff"}\n',  # not UTF-8
    ],
)
def test_a_broken_line_is_named_by_file_and_number(folder, broken):
    with (folder / "cat.ndjson").open("ab") as file:
        file.write(broken)
    with pytest.raises(ValueError, match=r"cat\.ndjson, line 3: not a Quick, Draw! drawing"):
        load_quickdraw(folder)


def test_strokes_are_black_on_white_and_antialiased():
    picture = render_strokes([[[0, 200], [0, 90]]], size=64, width=3)
    assert (picture.mode, picture.size) == ("L", (64, 64))
    values = np.asarray(picture)
    assert values.min() == 0
    assert values[0, -1] == 255
    assert ((values > 40) & (values < 215)).sum() > 20  # edges of a slanting line


@pytest.mark.parametrize("factor", [0.01, 1, 40])  # raw drawings come in any scale
@pytest.mark.parametrize("shift", [0, 700])
def test_drawings_are_centred_and_fill_the_picture_but_for_a_margin(factor, shift):
    xs, ys = np.array([[0, 255, 255, 0, 0], [0, 0, 127, 127, 0]]) * factor + shift
    left, top, right, bottom = ink_box(render_strokes([[xs.tolist(), ys.tolist()]], size=128, width=2))
    assert left == pytest.approx(8, abs=1)  # a sixteenth of the side
    assert right == pytest.approx(119, abs=1)
    assert top + bottom == pytest.approx(127, abs=2)
    assert (right - left) / (bottom - top) == pytest.approx(2, abs=0.05)  # proportions kept


def test_thick_lines_leave_the_margin_free():
    assert ink_box(render_strokes(SQUARE, size=128, width=20)) == pytest.approx((8, 8, 119, 119), abs=1)


def test_lines_are_as_wide_as_asked():
    def widest(width):
        return (np.asarray(render_strokes([[[0, 255], [10, 10]]], size=128, width=width)) < 128).sum(0).max()

    assert (widest(2), widest(6)) == (2, 6)


def test_a_single_dot_leaves_ink_in_the_middle():
    left, top, right, bottom = ink_box(render_strokes([[[7], [9]]], size=64, width=4))
    assert left + right == pytest.approx(63, abs=1)
    assert top + bottom == pytest.approx(63, abs=1)


def test_a_stroke_without_points_draws_nothing():
    with_one = render_strokes([[[0, 9], [0, 5]], [[], []]], size=32)
    assert with_one.tobytes() == render_strokes([[[0, 9], [0, 5]]], size=32).tobytes()


def test_times_of_raw_strokes_are_ignored():
    plain = render_strokes([[[0, 9], [0, 5]]], size=32)
    timed = render_strokes([[[0, 9], [0, 5], [0, 120]]], size=32)
    assert plain.tobytes() == timed.tobytes()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("cat", "cat"),
        ("alarm_clock", "alarm clock"),
        ("teddy_bear", "teddy-bear"),
        ("hot-air_balloon", "hot air balloon"),
        ("hotdog", "hot dog"),
        ("car_(sedan)", "car"),
        ("ape", "monkey"),
        ("motorcycle", "motorbike"),
    ],
)
def test_sketchy_classes_find_their_word(name, word):
    words = [
        "alarm clock",
        "bat",
        "car",
        "cat",
        "hot air balloon",
        "hot dog",
        "monkey",
        "motorbike",
        "teddy-bear",
    ]
    assert sketchy_words([name], words) == {name: word}


def test_classes_that_no_word_draws_are_left_out():
    assert sketchy_words(["geyser", "cat"], ["cat", "dog"]) == {"cat": "cat"}
    assert sketchy_words(["ape"], ["cat"]) == {}


def test_no_two_sketchy_classes_share_a_word():
    names = [
        "songbird",
        "seagull",
        "swan",
        "wading_bird",
        "turtle",
        "sea_turtle",
        "car_(sedan)",
        "pickup_truck",
    ]
    words = ["bird", "swan", "flamingo", "sea turtle", "car", "pickup truck"]
    found = sketchy_words(names, words)
    assert sorted(found.values()) == sorted(words)
