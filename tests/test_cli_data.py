"""``dsh-hf data check`` and ``dsh-hf data sheet``: what they print, write and give back."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from dsh_hf.cli import main


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """Three classes of 2 sketches and 2 photographs."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rng = np.random.default_rng(0)
    for domain, suffix in (("sketches", "png"), ("images", "jpg")):
        for name in ("ant", "bee", "cow"):
            for number in range(2):
                path = tmp_path / domain / name / f"{number}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)).save(path)
    return tmp_path


def run(*arguments) -> int:
    try:
        return main(["data", *map(str, arguments)])
    except SystemExit as stopped:
        return stopped.code


def test_check_gives_0_for_a_sound_set(own, capsys):
    assert run("check", own) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"class folders in {own}"
    assert out.splitlines()[-1] == "sound"


def test_check_gives_1_and_names_every_fault(own, capsys):
    (own / "images/ant/0.jpg").write_bytes(b"x")
    (own / "images/bee").rename(own / "images/wasp")
    assert run("check", own) == 1
    out = capsys.readouterr().out
    assert "FAULT: 1 picture cannot be read" in out and "images/ant/0.jpg" in out
    assert "FAULT: 1 class with sketches but no images: bee" in out
    assert out.splitlines()[-1] == "3 faults"


def test_check_prints_json_alone_on_the_output(own, capsys):
    assert run("check", own, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["domains"]["images"]["counts"] == {"ant": 2, "bee": 2, "cow": 2}


def test_check_takes_two_folders(own, capsys):
    assert run("check", "--sketches", own / "sketches", "--images", own / "images") == 0
    assert "sketches: 6 pictures in 3 classes" in capsys.readouterr().out


def test_sheet_writes_a_picture(own, capsys):
    assert run("sheet", own, own / "sheet.png", "--classes", "2", "--each", "1") == 0
    with Image.open(own / "sheet.png") as small:
        assert small.format == "PNG"
        size = small.size
    assert f"2 of 3 classes, {size[0]} x {size[1]} pixels" in capsys.readouterr().out
    assert run("sheet", own, own / "sheet.png", "--classes", "ant, bee,cow", "--each", "2") == 0
    with Image.open(own / "sheet.png") as larger:
        assert larger.width > size[0] and larger.height > size[1]


def test_sheet_takes_any_two_sources(own, capsys):
    load_dataset("imagefolder", data_dir=str(own / "images"), split="train").save_to_disk(own / "saved")
    sources = ["--sketches", own / "sketches", "--images", own / "saved"]
    assert run("sheet", *sources, own / "sheet.png") == 0
    assert "3 of 3 classes" in capsys.readouterr().out


def test_sheet_of_two_sources_shows_the_classes_that_both_have(own, capsys):
    (own / "images/cow").rename(own / "images/dog")
    assert run("sheet", "--sketches", own / "sketches", "--images", own / "images", own / "sheet.png") == 0
    assert "2 of 2 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere"], "no such folder: nowhere"),
        (["check"], "name one data set"),
        (["check", ".", "--sketches", "sketches"], "name one data set"),
        (["check", "--sketches", "sketches"], "name one data set"),
        (["check", ".", "--workers", "0"], "--workers must be 1 or more"),
        (["sheet", ".", "sheet.gif"], "give a .png file"),
        (["sheet", ".", "no/sheet.png"], "in a folder that exists"),
        (["sheet", ".", "sheet.png", "--classes", "unicorn"], "no such class: unicorn"),
        (["sheet", ".", "sheet.png", "--classes", "0"], "1 to 250 classes"),
        (["sheet", "images", "sheet.png"], "say which are --sketches and which --images"),
    ],
)
def test_bad_input_is_one_line(own, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(own)
    assert run(*arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(own.glob("*.png"))


def test_help_names_both_commands_and_shows_examples(capsys):
    assert run("--help") == 0
    assert {"check", "sheet"} <= set(capsys.readouterr().out.split())
    assert run("sheet", "--help") == 0
    assert "example: dsh-hf data sheet" in capsys.readouterr().out
