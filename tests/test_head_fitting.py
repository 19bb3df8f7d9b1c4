"""The heads catch up at the end of training, and a classifier teaches the trunk on the way."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import tensors_of, toy_trainer


def parts(model):
    """Give the tensors of trunks and of heads."""
    tensors = tensors_of(model)
    heads = {name: tensor for name, tensor in tensors.items() if name.split(".")[0].endswith("head")}
    return {name: tensor for name, tensor in tensors.items() if name not in heads}, heads


def same(some, others):
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def distance_to_codes(trainer, model):
    """Mean squared distance of what the sketch stream gives from the codes that training left."""
    codes = load_file(trainer.out / "state.safetensors")["codes.16.sketch"].numpy()[: len(trainer.sketches)]
    return float(np.mean((model.embed_sketches(trainer.sketches["image"]) - codes) ** 2))


def test_fitting_changes_the_heads_alone(tmp_path):
    without, fitted = (toy_trainer(tmp_path, out=str(n), head_passes=n).train() for n in (0, 4))
    (trunks, heads), (fitted_trunks, fitted_heads) = parts(without), parts(fitted)
    assert same(trunks, fitted_trunks)
    assert not any(torch.equal(tensor, heads[name]) for name, tensor in fitted_heads.items())


def test_fitted_heads_are_closer_to_the_codes(tmp_path):
    distances = []
    for passes in (0, 200):
        trainer = toy_trainer(tmp_path, out=str(passes), head_passes=passes)
        distances.append(distance_to_codes(trainer, trainer.train()))
    assert distances[1] < 0.9 * distances[0]


def test_sketches_are_fitted_without_sketch_tokens_where_these_do_not_train(tmp_path):
    trainer = toy_trainer(tmp_path, tokens_as_sketches=False)
    trainer.train()
    codes = load_file(trainer.out / "state.safetensors")["codes.16.sketch"]
    assert len(codes) == len(trainer.sketches)


@pytest.mark.parametrize("train_image_trunk", [False, True])
def test_fitting_is_the_same_each_time(tmp_path, train_image_trunk):
    trainer = toy_trainer(tmp_path, train_image_trunk=train_image_trunk)
    first = tensors_of(trainer.train())
    again = toy_trainer(tmp_path, train_image_trunk=train_image_trunk).train()  # only the heads are left to do
    assert same(first, tensors_of(again))


def test_classifier_teaches_the_trunk_and_stays_behind(tmp_path):
    without, taught = (
        toy_trainer(tmp_path, out=str(w), classifier_weight=w, head_passes=0).train() for w in (0.0, 1.0)
    )
    names = tensors_of(taught).keys()
    assert names == tensors_of(without).keys()
    assert not any("classifier" in name for name in names)
    assert not same(parts(without)[0], parts(taught)[0])


def test_validation_is_measured_again_with_the_fitted_heads(tmp_path):
    trainer = toy_trainer(tmp_path)
    trainer.validation = trainer.sketches
    trainer.train()
    assert set(trainer.history[-1]["fitted_validation_map"]) == {"16"}
    assert '"fitted_validation_map"' in (trainer.out / "log.jsonl").read_text()
