"""``dsh-hf encode``, and ``dsh-hf index`` of what it wrote."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_checkpoint import tiny_model

from dsh_hf import SketchRetriever
from dsh_hf.cli import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def codes(checkpoint, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "codes"
    assert main(["encode", str(photos), str(out), "--checkpoint", str(checkpoint), "--part-rows", "2"]) == 0
    return out


def test_encode_tells_what_it_made(checkpoint, photos, codes, capsys):
    given = ["encode", str(photos), str(codes), "--checkpoint", str(checkpoint), "--part-rows", "2"]
    assert main(given) == 0  # again: nothing is left to do
    printed = capsys.readouterr().out
    assert f"4 codes of 60 bits in {codes} (3 files, 1 skipped: see codes.json)" in printed
    assert f"dsh-hf index {codes} --out GALLERY" in printed


def test_a_gallery_of_codes_is_that_of_the_pictures(checkpoint, photos, codes, tmp_path, capsys, monkeypatch):
    given = ["--checkpoint", str(checkpoint)]
    assert main(["index", str(photos), "--out", str(tmp_path / "direct"), *given]) == 0
    with monkeypatch.context() as without:
        without.setattr("dsh_hf.modeling.encode_pictures", None)  # nothing is encoded
        assert main(["index", str(codes), "--out", str(tmp_path / "gallery"), *given]) == 0
    assert "4 pictures in" in capsys.readouterr().out
    model = tiny_model()
    galleries = [SketchRetriever.load(tmp_path / name, model) for name in ("direct", "gallery")]
    hits = [gallery.search_image(photos / "2.png", 4) for gallery in galleries]
    assert [(hit.id, hit.distance, hit.source) for hit in hits[0]] == [(h.id, h.distance, h.source) for h in hits[1]]
    assert list(galleries[1].skipped) == ["bad.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-outputs"], "codes have no float outputs"),
        (["--out", "{photos}"], "is not empty"),
    ],
)
def test_what_codes_cannot_give_is_one_line(checkpoint, photos, codes, tmp_path, capsys, options, message):
    options = [option.format(photos=photos) for option in options]
    given = ["index", str(codes), "--out", str(tmp_path / "gallery"), "--checkpoint", str(checkpoint), *options]
    assert main(given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "gallery").exists()


def test_codes_of_another_model_make_no_gallery(codes, tmp_path, capsys):
    tiny_model(1).save_pretrained(tmp_path / "other")
    given = ["--checkpoint", str(tmp_path / "other"), "--out", str(tmp_path / "gallery")]
    assert main(["index", str(codes), *given]) == 2
    assert "open the model that made them, or encode the pictures again" in capsys.readouterr().err
    assert not (tmp_path / "gallery").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--part-rows", "0"], "part_rows must be at least 1"), (["--bits", "64"], "makes codes of 60 bits, not 64")],
)
def test_bad_input_is_one_line(checkpoint, photos, tmp_path, capsys, options, message):
    assert main(["encode", str(photos), str(tmp_path / "codes"), "--checkpoint", str(checkpoint), *options]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("dsh-hf encode: ")
    assert message in errors[-1]
    assert not (tmp_path / "codes").exists()


def test_drawings_are_said_to_be_drawings(checkpoint, photos, tmp_path):
    given = ["--checkpoint", str(checkpoint), "--sketches"]
    assert main(["encode", str(photos), str(tmp_path / "codes"), *given]) == 0
    assert json.loads((tmp_path / "codes/codes.json").read_text())["kind"] == "sketches"
