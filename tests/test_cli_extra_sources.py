"""What trains beside the data set, or instead of one: Quick, Draw!, OpenMoji, more photographs, other classes."""

import json

import numpy as np
import pytest
from PIL import Image
from test_cli import TRAIN, draw, sketchy  # noqa: F401

from dsh_hf import DSHModel
from dsh_hf.cli import main
from dsh_hf.cli.extra_sources import Sources


@pytest.fixture(scope="module")
def quickdraw(tmp_path_factory):
    """Three words of four drawings; ``apple`` is a class of Sketchy, too."""
    folder = tmp_path_factory.mktemp("quickdraw")
    for word in ("apple", "line", "umbrella"):
        drawings = [
            {"word": word, "key_id": str(number), "drawing": [[[0, 200, number], [0, 255, 90]]]} for number in range(4)
        ]
        (folder / f"{word}.ndjson").write_text("\n".join(map(json.dumps, drawings)))
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(1)
    for name in ("apple", "umbrella", "unknown"):
        for number in range(3):
            draw(folder / name / f"{number}.png", name, rng)
    return folder


@pytest.fixture(scope="module")
def started(quickdraw, photographs, tmp_path_factory):
    """A training without a data set."""
    out = tmp_path_factory.mktemp("start")
    given = ["--quickdraw", str(quickdraw), "--photographs", str(photographs), "--more-classes"]
    assert main(["train", *given, "--out", str(out), *TRAIN]) == 0
    return out / "checkpoint"


def config_of(checkpoint):
    return json.loads((checkpoint / "config.json").read_text())


def test_a_start_for_other_data_is_trained_without_a_data_set(started):
    assert config_of(started)["classes"] == ["apple", "umbrella"], "of a line there is no image"
    assert not (started / "split.json").exists()
    sources = json.loads((started / "training.json").read_text())["data"]
    assert [source["items"] for source in sources] == [6, 8], "photographs of unknown classes do not train"


def test_more_classes_come_after_those_of_the_data_set(sketchy, quickdraw, photographs, tmp_path):  # noqa: F811
    given = ["--sketchy", str(sketchy), "--quickdraw", str(quickdraw), "--photographs", str(photographs)]
    assert main(["train", *given, "--more-classes", "--out", str(tmp_path), *TRAIN]) == 0
    assert config_of(tmp_path / "checkpoint")["classes"] == ["apple", "door", "umbrella"]
    assert main(["evaluate", str(tmp_path / "checkpoint"), "--sketchy", str(sketchy)]) == 0


def test_without_more_classes_the_data_set_has_the_say(sketchy, quickdraw, photographs, tmp_path):  # noqa: F811
    given = ["--sketchy", str(sketchy), "--quickdraw", str(quickdraw), "--photographs", str(photographs)]
    assert main(["train", *given, "--out", str(tmp_path), *TRAIN]) == 0
    assert config_of(tmp_path / "checkpoint")["classes"] == ["apple", "door"]
    sources = json.loads((tmp_path / "checkpoint/training.json").read_text())["data"]
    assert [source["items"] for source in sources[1:]] == [3, 4]


def test_training_goes_on_from_a_checkpoint(started, sketchy, tmp_path):  # noqa: F811
    given = ["--sketchy", str(sketchy), "--start-from", str(started), "--learning-rate", "1e-9"]
    assert main(["train", *given, "--out", str(tmp_path), *TRAIN, "--dtype", "float32", "--seed", "1"]) == 0
    before, after = (DSHModel.from_pretrained(folder).own_tensors() for folder in (started, tmp_path / "checkpoint"))
    kernel = "sketch_trunk.network.conv_stem.weight"
    np.testing.assert_allclose(after[kernel].detach(), before[kernel].detach(), atol=1e-3)
    training = json.loads((tmp_path / "checkpoint/training.json").read_text())
    told = {source["name"] for source in training["initial_weights"]}
    assert {"Quick, Draw!, which the start was trained on", "GloVe 6B word vectors"} <= told
    assert training["start"]["command"].startswith("dsh-hf train --quickdraw")


def test_a_start_of_other_networks_is_refused(started, sketchy, tmp_path, capsys):  # noqa: F811
    given = ["--sketchy", str(sketchy), "--start-from", str(started), *TRAIN, "--sketch-backbone", "test_resnet"]
    assert main(["train", *given, "--out", str(tmp_path)]) == 2
    assert "has other networks" in capsys.readouterr().err


def test_drawings_that_are_left_out_do_not_train(quickdraw, photographs, tmp_path):
    unwanted = tmp_path / "ids.txt"
    unwanted.write_text("apple/0\numbrella/3\nword that is not trained/7\n")
    given = ["--quickdraw", str(quickdraw), "--photographs", str(photographs), "--more-classes"]
    assert main(["train", *given, "--leave-out", str(unwanted), "--out", str(tmp_path), *TRAIN]) == 0
    sources = json.loads((tmp_path / "checkpoint/training.json").read_text())["data"]
    assert sources[1]["items"] == 8 - 2


def test_the_data_sets_own_sketches_can_come_more_often(sketchy, quickdraw, tmp_path):  # noqa: F811
    steps = {}
    for times in ("1", "3"):
        given = ["--sketchy", str(sketchy), "--quickdraw", str(quickdraw), "--repeat", times]
        assert main(["train", *given, "--out", str(tmp_path / times), *TRAIN]) == 0
        (prepared,) = (tmp_path / times / "prepared").glob("sketches-*.npy")
        steps[times] = len(np.load(prepared, mmap_mode="r"))
        sources = json.loads((tmp_path / times / "checkpoint/training.json").read_text())["data"]
        assert sources[0]["items"] == 18, "the card counts pictures once"
    assert steps == {"1": 8 + 4, "3": 3 * 8 + 4}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--more-classes"], "--more-classes are Quick, Draw!'s"),
        (["--leave-out", "x.txt"], "--leave-out names Quick, Draw! drawings"),
        (["--quickdraw", "{quickdraw}", "--leave-out", "{typo}"], "1 of its ids are of no drawing, such as 'apple/9'"),
        (["--repeat", "0"], "--repeat must be 1 or more, got 0"),
        (["--photographs", "{strange}"], "has none of the classes that are trained: cloud, ..."),
    ],
)
def test_what_cannot_be_meant_is_refused(given, complaint, sketchy, quickdraw, tmp_path, capsys):  # noqa: F811
    (tmp_path / "typo.txt").write_text("apple/9\n")
    (tmp_path / "strange/cloud").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "strange/cloud/1.png")
    places = {"quickdraw": quickdraw, "typo": tmp_path / "typo.txt", "strange": tmp_path / "strange"}
    given = [word.format(**places) for word in given]
    assert main(["train", "--sketchy", str(sketchy), *given, "--out", str(tmp_path / "run"), *TRAIN]) == 2
    assert complaint in capsys.readouterr().err


def test_quickdraw_alone_lacks_images(quickdraw, tmp_path, capsys):
    assert main(["train", "--quickdraw", str(quickdraw), "--more-classes", "--out", str(tmp_path), *TRAIN]) == 2
    assert "there are no images to train on: give --openmoji" in capsys.readouterr().err
    for given, complaint in (
        (["--validate"], "--validate needs a data set"),
        (["--repeat", "2"], "--repeat needs a data set"),
    ):
        given = ["--quickdraw", str(quickdraw), "--openmoji", "--more-classes", *given]
        assert main(["train", *given, "--out", str(tmp_path), *TRAIN]) == 2
        assert complaint in capsys.readouterr().err


def test_photographs_are_matched_by_the_name_of_the_class_or_of_its_drawings(photographs):
    sources = Sources(["ape", "car_(sedan)", "motorcycle"], [], [])
    assert sources._numbers(["monkey", "Motorcycle", "motorbike", "Car (sedan)", "car", "zebra"]) == [0, 2, 2, 1, 1, -1]
