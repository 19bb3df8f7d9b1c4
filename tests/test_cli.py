"""The commands, one after the other, on a small Sketchy tree: train, evaluate, index, search."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dsh_hf.cli import main
from dsh_hf.sending import check_places

TRAIN = [
    "--image-backbone=test_efficientnet",
    "--sketch-backbone=test_efficientnet",
    "--image-size=48",
    "--sketch-size=48",
    "--random-weights",
    "--rounds=2",
    "--batch-size=8",
]


def draw(path, name, rng):
    picture = Image.new("RGB", (64, 64), "white")
    shape = ImageDraw.Draw(picture).ellipse if name == "apple" else ImageDraw.Draw(picture).rectangle
    left, top = rng.integers(2, 20, 2).tolist()
    shape((left, top, left + 40, top + 40), outline="black", width=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture(scope="module")
def sketchy(tmp_path_factory):
    """Two classes of five photographs, three of which were drawn twice."""
    root, rng = tmp_path_factory.mktemp("sketchy"), np.random.default_rng(0)
    for name in ("apple", "door"):
        for photo in range(5):
            draw(root / f"256x256/photo/tx_000000000000/{name}/n0{photo}_1.jpg", name, rng)
            for sketch in range(1, 3 if photo < 3 else 0):
                draw(root / f"256x256/sketch/tx_000000000000/{name}/n0{photo}_1-{sketch}.png", name, rng)
    return root


@pytest.fixture(scope="module")
def run(sketchy, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert main(["train", "--sketchy", str(sketchy), "--out", str(out), *TRAIN]) == 0
    return out


def test_train_leaves_a_checkpoint_with_its_split_and_how_it_was_made(run):
    made = {path.name for path in (run / "checkpoint").iterdir()}
    assert {"config.json", "model.safetensors", "split.json", "training.json"} <= made
    training = json.loads((run / "checkpoint/training.json").read_text())
    assert training["command"].startswith("dsh-hf train --sketchy")
    assert training["data"][0]["name"] == "Sketchy"
    assert training["seconds"] >= 0


def test_the_split_that_is_kept_lists_no_sketch_that_was_trained_on(run, sketchy, tmp_path):
    from dsh_hf.data import Split

    assert Split.load(run / "checkpoint/split.json").validation_sketches == ()
    assert len(Split.load(run / "checkpoint/split.json").query_sketches) == 4
    assert json.loads((run / "checkpoint/training.json").read_text())["data"][0]["items"] == 18
    out = tmp_path / "run"
    assert main(["train", "--sketchy", str(sketchy), "--validate", "--out", str(out), *TRAIN]) == 0
    assert len(Split.load(out / "checkpoint/split.json").validation_sketches) == 4
    assert json.loads((out / "checkpoint/training.json").read_text())["data"][0]["items"] == 14


def test_quickdraw_adds_sketches(sketchy, tmp_path):
    for word in ("apple", "door", "zebra"):
        line = json.dumps({"word": word, "key_id": "7", "drawing": [[[0, 90, 50], [0, 40, 90]]]})
        (tmp_path / f"{word}.ndjson").write_text(line + "\n")
    out = tmp_path / "run"
    arguments = ["--sketchy", str(sketchy), "--quickdraw", str(tmp_path), "--out", str(out), *TRAIN]
    assert main(["train", *arguments]) == 0
    sources = json.loads((out / "checkpoint/training.json").read_text())["data"]
    assert sources[1] == {"name": "Quick, Draw!", "terms": "CC BY 4.0, Google", "items": 2}


@pytest.mark.parametrize("option", [["--split-seed", "0"], ["--unseen", "apple"], ["--queries-per-class", "2"]])
def test_options_of_a_split_that_is_made_are_refused_beside_a_file(run, sketchy, tmp_path, capsys, option):
    split = ["--split", str(run / "checkpoint/split.json"), *option]
    assert main(["train", "--sketchy", str(sketchy), "--out", str(tmp_path), *split, *TRAIN]) == 2
    assert f"{option[0]} would change nothing: the split in " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_does_not_tell_where_its_data_lay(run, sketchy):
    check_places((run / "checkpoint").iterdir())
    command = json.loads((run / "checkpoint/training.json").read_text())["command"]
    assert command.startswith(f"dsh-hf train --sketchy {sketchy.name} --out {run.name} ")


def test_evaluate_prints_a_table_and_writes_json_and_figure(run, sketchy, tmp_path, capsys):
    arguments = ["evaluate", str(run / "checkpoint"), "--sketchy", str(sketchy), "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert f"{result['map']:.4f}" in printed
    assert result["split"] == "open"
    assert result["queries"] == 4  # one photograph's two sketches in each class
    assert result["gallery"] == 10
    assert set(result["map_by_class"]) == {"apple", "door"}
    low, high = result["map_interval"]
    assert low <= result["map"] <= high
    with Image.open(tmp_path / "pr_curve.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 1


def test_trained_evaluated_checkpoint_can_be_published(run, sketchy, capsys):
    assert main(["evaluate", str(run / "checkpoint"), "--sketchy", str(sketchy)]) == 0
    script = Path(__file__).parents[1] / "push_to_hub.py"
    arguments = ["--checkpoint", str(run / "checkpoint"), "--repo", "org/name", "--dry-run"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing was sent" in done.stdout
    card = run / "checkpoint/README.md"
    card.write_text(card.read_text().replace("| mAP | ", "| mAP | 9"))
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "README.md is not what evaluation.json" in done.stderr


def test_any_two_sources_train_and_are_measured(sketchy, tmp_path, capsys):
    """Parquet sketches with classes of their own numbering, images in class folders."""
    from dsh_hf.data import load_sketchy

    sketches, images = tmp_path / "sketches.parquet", sketchy / "256x256/photo/tx_000000000000"
    load_sketchy(sketchy)["sketches"].remove_columns("photo_id").to_parquet(sketches)
    data = ["--sketches", str(sketches), "--images", str(images)]
    split = ["--split", "paper", "--queries-per-class", "2"]
    out = tmp_path / "run"
    vectors = tmp_path / "client-x" / "vectors.txt"
    vectors.parent.mkdir()
    vectors.write_text("apple 0.1 0.2 0.3\ndoor 0.3 -0.1 0.2\n")
    words = ["--word-vectors", str(vectors)]
    assert main(["train", *data, *split, *words, "--terms", "mine", "--out", str(out), *TRAIN]) == 0
    check_places((out / "checkpoint").iterdir())
    assert " ".join(data) in capsys.readouterr().out
    training = json.loads((out / "checkpoint/training.json").read_text())
    assert training["data"] == [{"name": f"sketches.parquet and {images.name}", "terms": "mine", "items": 18}]
    assert main(["evaluate", str(out / "checkpoint"), *data]) == 0
    assert json.loads((out / "checkpoint/evaluation.json").read_text())["queries"] == 4
    assert main(["evaluate", str(out / "checkpoint"), *data, "--split", "whole", "--out", str(tmp_path / "all")]) == 0
    assert json.loads((tmp_path / "all/evaluation.json").read_text())["queries"] == 12


def test_the_word_vectors_of_the_classes_stay_with_the_model(run):
    from dsh_hf.data.words import class_vectors, load_class_vectors

    kept = load_class_vectors(run / "checkpoint/word_vectors.safetensors")
    assert kept.names == ["apple", "door"]
    np.testing.assert_array_equal(kept.vectors, class_vectors(["apple", "door"]))


def test_device_that_is_not_there_is_one_line(run, sketchy, capsys):
    assert main(["evaluate", str(run / "checkpoint"), "--sketchy", str(sketchy), "--device", "warp"]) == 2
    assert "--device warp is not to be had here" in capsys.readouterr().err


def test_index_then_search(run, sketchy, tmp_path, capsys):
    photos, gallery = sketchy / "256x256/photo", tmp_path / "gallery"
    checkpoint = ["--checkpoint", str(run / "checkpoint")]
    assert main(["index", str(photos), "--out", str(gallery), *checkpoint]) == 0
    assert "10 pictures" in capsys.readouterr().out
    assert main(["index", str(photos), "--out", str(gallery), *checkpoint]) == 0
    assert "0 added" in capsys.readouterr().out
    sketch = next((sketchy / "256x256/sketch").rglob("*.png"))
    assert main(["search", str(sketch), "--index", str(gallery), "-k", "3", *checkpoint]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.endswith(".jpg") for line in lines)


def test_a_data_set_is_indexed_once_and_searched_by_picture_and_label(run, sketchy, tmp_path, capsys):
    from dsh_hf.data import load_sketchy

    rows, gallery = tmp_path / "photos.parquet", tmp_path / "gallery"
    load_sketchy(sketchy)["images"].to_parquet(rows)
    checkpoint = ["--checkpoint", str(run / "checkpoint")]
    assert main(["index", str(rows), "--out", str(gallery), *checkpoint]) == 0
    assert main(["index", str(rows), "--out", str(gallery), *checkpoint]) == 0
    assert "10 pictures" in (told := capsys.readouterr().out)
    assert "(0 added" in told
    picture = next((sketchy / "256x256/photo").rglob("*.jpg"))
    given = ["search", str(picture), "--index", str(gallery), "--image", "--where", "label=door", "--json", *checkpoint]
    assert main(given) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(hits) == 5
    assert {hit["metadata"]["label"] for hit in hits} == {"door"}
    given[given.index("label=door")] = "label=unicorn"
    assert main(given) == 0
    assert capsys.readouterr().err.strip() == "no picture has label=unicorn"


def test_a_photograph_that_is_taken_for_a_drawing_is_told_how_to_search(run, sketchy, tmp_path, capsys):
    Image.new("RGB", (64, 64), "white").save(tmp_path / "blank.png")
    checkpoint = ["--checkpoint", str(run / "checkpoint")]
    assert main(["index", str(sketchy / "256x256/photo"), "--out", str(tmp_path / "gallery"), *checkpoint]) == 0
    assert main(["search", str(tmp_path / "blank.png"), "--index", str(tmp_path / "gallery"), *checkpoint]) == 2
    assert capsys.readouterr().err.strip().endswith("; to search by a photograph give --image")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--sketchy", "nowhere", "--out", "out"], "nowhere"),
        (["evaluate", "./no/checkpoint", "--sketchy", "x", "--out", "y"], "./no/checkpoint: no such folder"),
        (["train", "--out", "out"], "name one data set"),
        (["train", "--sketchy", "a", "--tu-berlin", "b", "--out", "out"], "name one data set"),
        (["train", "--sketches", "a", "--out", "out"], "--sketches and --images belong together"),
        (["train", "--sketchy", "nowhere", "--rounds", "0", "--out", "out"], "rounds must be at least 1"),
        (["evaluate", "org/name", "--sketchy", "x"], "org/name is no folder here: say where to write with --out DIR"),
        (["search", "cat.png", "--index", "x", "--checkpoint", "./none"], "./none: no such folder"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"dsh-hf {arguments[0]}: ")
    assert message in errors[0]


@pytest.fixture
def server(monkeypatch):
    """A server that holds one index a URL."""
    from dsh_hf.gallery import store
    from dsh_hf.index import ExactIndex

    class Table(ExactIndex):
        def known(self, ids):
            return set(ids) & held(self)

    def held(table):
        return set(table.search(np.zeros(8, np.uint8), 1000)[1].tolist())

    tables = {"held": held}

    def open_index(spec, *, bits, path=None, fingerprint=None):
        assert path is None
        return tables.setdefault(spec, Table(bits=bits, fingerprint=fingerprint))

    monkeypatch.setattr(store, "open_index", open_index)
    return tables


def test_a_gallery_on_a_server_is_searched_where_the_command_says(run, sketchy, tmp_path, capsys, server):
    photos, gallery, url = sketchy / "256x256/photo", str(tmp_path / "gallery"), "postgresql://me:sesame@host/db"
    checkpoint = ["--checkpoint", str(run / "checkpoint")]
    for told in ("10 added", "0 added"):
        assert main(["index", str(photos), "--out", gallery, "--engine", url, *checkpoint]) == 0
        printed = capsys.readouterr().out
        assert f"({told}" in printed
        assert f"--index {gallery} --engine URL" in printed
    sketch = str(next((sketchy / "256x256/sketch").rglob("*.png")))
    assert main(["search", sketch, "--index", gallery, *checkpoint]) == 2
    assert "--engine URL" in capsys.readouterr().err
    assert main(["search", sketch, "--index", gallery, "--engine", url, *checkpoint]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert list(server) == ["held", url]


def test_two_folders_do_not_share_a_table(run, sketchy, tmp_path, capsys, server):
    given = ["--engine", "postgresql://host/db", "--checkpoint", str(run / "checkpoint")]
    assert main(["index", str(sketchy / "256x256/photo"), "--out", str(tmp_path / "one"), *given]) == 0
    before = server["held"](server["postgresql://host/db"])
    assert main(["index", str(sketchy / "256x256/sketch"), "--out", str(tmp_path / "two"), *given]) == 2
    assert "holds 10 codes already" in capsys.readouterr().err
    assert server["held"](server["postgresql://host/db"]) == before
    assert not (tmp_path / "two").exists()


def test_index_is_not_overwritten_by_another_folder(run, sketchy, tmp_path, capsys):
    checkpoint = ["--checkpoint", str(run / "checkpoint")]
    gallery = str(tmp_path / "gallery")
    assert main(["index", str(sketchy / "256x256/photo"), "--out", gallery, *checkpoint]) == 0
    assert main(["index", str(sketchy / "256x256/sketch"), "--out", gallery, *checkpoint]) == 2
    assert "holds the gallery of" in capsys.readouterr().err


@pytest.fixture(scope="module")
def lengths_run(sketchy, tmp_path_factory):
    out = tmp_path_factory.mktemp("lengths")
    assert main(["train", "--sketchy", str(sketchy), "--out", str(out), "--bits", "32", "16", *TRAIN]) == 0
    return out / "checkpoint"


def test_several_lengths_are_measured_one_by_one(lengths_run, sketchy, capsys):
    for bits, suffix in ((16, "-16"), (32, "")):
        assert main(["evaluate", str(lengths_run), "--sketchy", str(sketchy), "--bits", str(bits)]) == 0
        assert f" {bits} bits, model " in capsys.readouterr().out
        assert json.loads((lengths_run / f"evaluation{suffix}.json").read_text())["bits"] == bits
    card = (lengths_run / "README.md").read_text()
    assert "binary codes of 32 bits" in card
    assert "codes of 16, 32 bits: `from_pretrained(..., bits=16)`" in card


def test_index_and_search_take_a_length(lengths_run, sketchy, tmp_path, capsys):
    photos, gallery = sketchy / "256x256/photo", tmp_path / "gallery"
    given = ["--checkpoint", str(lengths_run), "--bits", "16"]
    assert main(["index", str(photos), "--out", str(gallery), *given]) == 0
    sketch = next((sketchy / "256x256/sketch").rglob("*.png"))
    assert main(["search", str(sketch), "--index", str(gallery), "-k", "3", *given]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["search", str(sketch), "--index", str(gallery), *given[:2]]) == 2
    assert "16 bits" in capsys.readouterr().err
    assert main(["search", str(sketch), "--index", str(gallery), *given[:2], "--bits", "64"]) == 2
    assert "makes codes of 16 and 32 bits, not 64" in capsys.readouterr().err


def test_published_networks_have_one_length(sketchy, tmp_path, capsys):
    arguments = ["--sketchy", str(sketchy), "--out", str(tmp_path), "--paper-networks", "sketchy", "--bits", "32", "64"]
    assert main(["train", *arguments]) == 2
    assert "make codes of one length" in capsys.readouterr().err
