"""One checkpoint of several code lengths: opened with any of them, saved with all, one fingerprint."""

import json

import numpy as np
import pytest
import torch
from tiny_checkpoint import tiny_model

from dsh_hf import DSHConfig, DSHModel, SketchRetriever
from dsh_hf.checkpoint import CheckpointError
from dsh_hf.codes import pack_signs
from dsh_hf.index import IndexMismatchError
from dsh_hf.model_card import probe_pictures

LENGTHS = (16, 24, 60)


def several(bits=24, seed=0):
    """A model of three code lengths, otherwise as ``tiny_model`` gives it."""
    one = tiny_model(seed)
    settings = one.config.to_dict() | {"bits": bits, "lengths": LENGTHS}
    torch.manual_seed(seed)
    return DSHModel(DSHConfig(**settings)).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    several().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures():
    return list(probe_pictures().values())


def test_a_checkpoint_opens_with_each_of_its_lengths(saved, pictures):
    for bits in LENGTHS:
        model = DSHModel.from_pretrained(saved, bits=bits)
        assert (model.config.bits, model.config.lengths) == (bits, LENGTHS)
        for codes, outputs in (
            (model.encode_images(pictures), model.embed_images(pictures)),
            (model.encode_sketches(pictures), model.embed_sketches(pictures)),
        ):
            assert codes.shape == (3, (bits + 7) // 8)
            assert outputs.shape == (3, bits)
            np.testing.assert_array_equal(codes, pack_signs(outputs))
        assert model.encode_images([]).shape == (0, (bits + 7) // 8)


def test_each_length_has_columns_of_its_own(saved):
    model = DSHModel.from_pretrained(saved)
    pixels = torch.rand(2, 3, 32, 32) * 255
    with torch.inference_mode():
        images, sketches = model.image_outputs_of_all_lengths(pixels), model.sketch_outputs_of_all_lengths(pixels)
        assert images.shape == sketches.shape == (2, 100)
        for bits, columns in ((16, slice(0, 16)), (24, slice(16, 40)), (60, slice(40, 100))):
            model.config.bits = bits
            assert model.config.columns(bits) == columns
            assert torch.equal(model.image_outputs(pixels), images[:, columns])
            assert torch.equal(model.sketch_outputs(pixels), sketches[:, columns])


def test_unless_told_otherwise_it_opens_with_the_length_it_was_saved_with(saved):
    assert DSHModel.from_pretrained(saved).config.bits == 24


def test_a_length_it_does_not_have_is_refused_with_those_it_has(saved):
    with pytest.raises(CheckpointError, match=r"makes codes of 16, 24 and 60 bits, not 32: open it with bits=24, or"):
        DSHModel.from_pretrained(saved, bits=32)


def test_all_lengths_have_one_fingerprint_and_one_of_another_set_differs(saved):
    prints = {DSHModel.from_pretrained(saved, bits=bits).fingerprint for bits in LENGTHS}
    assert prints == {several().fingerprint}
    model = several()
    with torch.no_grad():
        model.sketch_head.hash.weight[0, 0] += 1  # of 16 bits, while 24 are asked for
    assert model.fingerprint not in prints


def test_saved_again_it_keeps_all_lengths_and_opens_with_the_one_in_use(saved, tmp_path, pictures):
    model = DSHModel.from_pretrained(saved, bits=60)
    model.save_pretrained(tmp_path)
    again = DSHModel.from_pretrained(tmp_path)
    assert (again.config.bits, again.config.lengths, again.fingerprint) == (60, LENGTHS, model.fingerprint)
    short = DSHModel.from_pretrained(tmp_path, bits=16)
    expected = DSHModel.from_pretrained(saved, bits=16)
    np.testing.assert_array_equal(short.encode_images(pictures), expected.encode_images(pictures))


def test_a_checkpoint_of_one_length_is_stored_as_before(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert "lengths" not in settings
    assert (settings["bits"], settings["format_version"]) == (60, 1)
    assert model.config.lengths == (60,)
    assert "sketch_head.hash.weight" in model.own_tensors()


def test_earlier_versions_refuse_several_lengths(saved):
    """They know format 1, and say of format 2 that an upgrade is needed."""
    assert json.loads((saved / "config.json").read_text())["format_version"] == 2


def test_a_gallery_is_of_one_length(saved, tmp_path, pictures):
    retriever = SketchRetriever(DSHModel.from_pretrained(saved, bits=16))
    retriever.add(pictures, ["a", "b", "c"])
    retriever.save(tmp_path)
    assert len(SketchRetriever.load(tmp_path, DSHModel.from_pretrained(saved, bits=16)).search_image(pictures[0])) == 3
    with pytest.raises(IndexMismatchError, match=r"16.*60|60.*16"):
        SketchRetriever.load(tmp_path, DSHModel.from_pretrained(saved, bits=60))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"lengths": (32, 16)}, r"lengths must ascend, got \(32, 16\)"),
        ({"lengths": (32, 32)}, "lengths must ascend"),
        ({"lengths": (32, 128)}, "bits must be one of the lengths 32 and 128, got 64"),
        ({"lengths": (4, 64)}, "each of lengths must be a whole number from 8 to 4096, got 4"),
        ({"lengths": 64}, "lengths must be a list of code lengths, got 64"),
    ],
)
def test_lengths_that_cannot_be_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        DSHConfig(**settings)


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match="there are codes of 64 bits, not of 32"):
        DSHConfig().columns(32)


def test_mirrored_sketches_are_encoded_alike(tmp_path, pictures):
    model = DSHModel(DSHConfig(**tiny_model().config.to_dict() | {"mirror_sketches": True})).eval()
    model.save_pretrained(tmp_path)
    again = DSHModel.from_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 2
    assert again.fingerprint == model.fingerprint
    pixels = torch.randint(0, 256, (2, 3, model.config.sketch_size, model.config.sketch_size)).float()
    with torch.inference_mode():
        mean, mirrored = again.sketch_outputs(pixels), again.sketch_outputs(pixels.flip(3))
        again.config.mirror_sketches = False
        alone = (again.sketch_outputs(pixels) + again.sketch_outputs(pixels.flip(3))) / 2
    torch.testing.assert_close(mean, mirrored)
    torch.testing.assert_close(mean, alone)
