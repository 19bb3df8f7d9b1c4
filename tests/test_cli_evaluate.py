"""``dsh-hf evaluate``: which split it takes, from a folder or the Hub, and what it may write where."""

import json
import shutil

import pytest
from folder_trees import sketchy_tree
from loopback_hub import Fault, LoopbackHub, Repo
from PIL import Image, ImageDraw
from tiny_checkpoint import tiny_model

from dsh_hf.cli import main
from dsh_hf.cli.evaluate import split_of
from dsh_hf.data import Split
from dsh_hf.hub import DownloadError

SPLIT = Split("open", 7, query_sketches=("cat/n1_10-1", "car_(sedan)/n1_11-1"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    tiny_model().save_pretrained(folder)
    SPLIT.save(folder / "split.json")
    return folder


@pytest.fixture
def checkpoint(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "checkpoint")


@pytest.fixture
def sketchy(tmp_path):
    root = sketchy_tree(tmp_path / "client-x" / "sketchy")
    for path in (root / "256x256" / "sketch").rglob("*.png"):
        drawing = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(drawing).ellipse((8, 8, 50, 40), outline="black", width=3)
        drawing.save(path)
    return root


@pytest.fixture
def hub(monkeypatch, tmp_path, trained):
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home")
        hub.repos["org/model"] = Repo()
        hub.repos["org/model"].commit("main", {path.name: path.read_bytes() for path in trained.iterdir()}, "first")
        yield hub


def without_split(hub: LoopbackHub) -> dict[str, bytes]:
    return {name: data for name, data in hub.repos["org/model"].files().items() if name != "split.json"}


def test_what_is_written_does_not_tell_where_the_data_lie(checkpoint, sketchy, tmp_path):
    assert main(["evaluate", str(checkpoint), "--sketchy", str(sketchy), "--device=cpu"]) == 0
    told = json.loads((checkpoint / "evaluation.json").read_text())["command"]
    assert told == "dsh-hf evaluate checkpoint --sketchy sketchy --device=cpu"
    for name in ("evaluation.json", "probes.json"):
        assert "client-x" not in (checkpoint / name).read_text(), name


def test_a_sheet_is_written_where_it_is_wanted(checkpoint, sketchy, tmp_path):
    arguments = ["evaluate", str(checkpoint), "--sketchy", str(sketchy), "--sheet", str(tmp_path / "mine.png")]
    assert main(arguments) == 0
    with Image.open(tmp_path / "mine.png") as sheet:
        assert sheet.width > 5 * 112 and sheet.height > 2 * 112
    assert not (checkpoint / "sheet.png").exists()


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("checkpoint/sheet.png", "may not be yours to publish"),
        ("checkpoint/mine/sheet.png", "may not be yours to publish"),
        ("sheet.jpg", "give a .png file"),
        ("none/sheet.png", "in a folder that exists"),
    ],
)
def test_a_sheet_that_cannot_be_or_might_be_published_is_refused_at_once(checkpoint, tmp_path, capsys, sheet, message):
    (checkpoint / "mine").mkdir()
    assert main(["evaluate", str(checkpoint), "--sketchy", "none", "--sheet", str(tmp_path / sheet)]) == 2
    assert message in capsys.readouterr().err
    assert not (checkpoint / "evaluation.json").exists()


def test_the_split_comes_from_the_hub_at_the_commit_of_the_weights(hub, sketchy, tmp_path):
    assert main(["evaluate", "org/model", "--sketchy", str(sketchy), "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["seed"] == 7
    commit = hub.repos["org/model"].refs["main"]
    asked = [request for request in hub.requests if request.endswith("/split.json")]
    assert asked and all(commit in request for request in asked)


def test_a_checkpoint_on_the_hub_without_a_split_has_none(hub):
    hub.repos["org/model"].commit("main", without_split(hub), "second")
    assert split_of("org/model") is None


def test_a_hub_that_fails_is_not_a_checkpoint_without_a_split(hub):
    hub.faults = [Fault("(GET|HEAD) /org/model/resolve/[^/]+/split.json", 403, times=99)]
    with pytest.raises(DownloadError, match=r"split\.json of org/model: .* 403 .*; or say with --split what"):
        split_of("org/model")


def test_what_was_opened_once_opens_without_the_hub(hub):
    assert split_of("org/model") == SPLIT
    hub.stop()
    assert split_of("org/model") == SPLIT


def test_without_the_hub_a_split_that_was_never_fetched_is_one_plain_line(hub, sketchy, tmp_path, capsys):
    from dsh_hf import DSHModel

    DSHModel.from_pretrained("org/model")
    hub.stop()
    assert main(["evaluate", "org/model", "--sketchy", str(sketchy), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "split.json of org/model: no such folder here, it is not in the local cache, and the Hub was not rea" in told
    assert "say with --split what to measure on" in told


def test_the_clients_requests_are_no_lines_of_the_log(tmp_path):
    import logging

    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    assert main(["evaluate", "./none", "--sketchy", "x", "--out", str(tmp_path)]) == 2
    assert [logging.getLogger(name).level for name in ("httpx", "httpx2")] == [logging.WARNING] * 2
