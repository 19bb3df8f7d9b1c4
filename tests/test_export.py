"""The encoders as ONNX files: they run without PyTorch, on any number of pictures, and give the model's codes."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.onnx_parity import compare
from dsh_hf import DSHConfig, DSHModel
from dsh_hf.cli import main
from dsh_hf.export import ExportError, export_onnx, onnx_codes
from dsh_hf.processing import prepare_image, prepare_sketch, sketch_to_tensor_layout

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason=f"{package} is not installed")


def model_of(seed: int = 0, **settings) -> DSHModel:
    """Give a tiny model with wide weights, whose sketch-tokens are smaller than its images."""
    torch.manual_seed(seed)
    small = {"image_size": 48, "sketch_size": 32, "sketch_hidden": [16], "fusion_hidden": [16], "token_width": 4}
    backbones = {"image_backbone": "test_efficientnet", "sketch_backbone": "test_efficientnet"}
    model = DSHModel(DSHConfig(**small, **backbones, **settings)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    return model


@pytest.fixture(scope="module")
def model():
    """Everything that an export has to mind: several lengths, the longer one open, and sketches mirrored."""
    return model_of(bits=40, lengths=(16, 40), mirror_sketches=True)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    model.save_pretrained(tmp_path_factory.mktemp("checkpoint"))
    return {made.path.stem: made for made in export_onnx(model, tmp_path_factory.mktemp("onnx"))}


def pictures(folder):
    rng = np.random.default_rng(1)
    for number in range(3):
        picture = Image.new("RGB", (70, 50), "white")
        points = rng.integers(2, 48, (6, 2)).tolist()
        ImageDraw.Draw(picture).line([tuple(point) for point in points], ("black", "brown", "navy")[number], 2)
        picture.save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


def channels_first(prepared):
    return np.stack(prepared).transpose(0, 3, 1, 2)


def differing(codes, others):
    return np.bitwise_count(codes ^ others).mean() / 8


def test_images_get_the_models_codes(model, exported, tmp_path):
    found = pictures(tmp_path)
    pixels = channels_first([prepare_image(path, 48) for path in found])
    codes = onnx_codes(exported["image_encoder"].path, pixels)
    assert codes.shape == (3, 5)
    assert differing(codes, model.encode_images(found)) <= 0.05
    assert exported["image_encoder"].equal >= 0.995


def test_sketches_get_the_models_codes(model, exported, tmp_path):
    found = pictures(tmp_path)
    pixels = channels_first([sketch_to_tensor_layout(prepare_sketch(path, 32)) for path in found])
    codes = onnx_codes(exported["sketch_encoder"].path, pixels)
    assert differing(codes, model.encode_sketches(found)) <= 0.05
    assert exported["sketch_encoder"].equal >= 0.995


@pytest.mark.parametrize("count", [1, 5])
def test_a_batch_may_have_any_size(exported, count):
    assert onnx_codes(exported["image_encoder"].path, np.zeros((count, 3, 48, 48))).shape == (count, 5)


def test_a_file_says_what_it_is(model, exported):
    import onnx

    told = {entry.key: entry.value for entry in onnx.load(exported["sketch_encoder"].path).metadata_props}
    expected = {"bits": "40", "size": "32", "kind": "sketches", "fingerprint": model.fingerprint}
    assert expected.items() <= told.items()


def test_mirrored_sketches_get_equal_codes(exported):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32))
    codes = onnx_codes(exported["sketch_encoder"].path, pixels)
    np.testing.assert_array_equal(onnx_codes(exported["sketch_encoder"].path, pixels[..., ::-1]), codes)
    assert len(np.unique(codes, axis=0)) == 3


def test_the_benchmark_tells_how_far_the_codes_are_the_models(model, exported, tmp_path):
    found = pictures(tmp_path)
    images = compare(model, exported["image_encoder"].path, found, sketches=False)
    assert images.equal >= 0.95
    assert images.furthest <= images.largest / 100
    model_of_other_weights = model_of(bits=40, seed=1)
    others = compare(model_of_other_weights, exported["sketch_encoder"].path, found, sketches=True)
    assert others.equal < 0.95
    assert others.changed == 1


def test_a_file_that_gives_other_codes_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("dsh_hf.export.onnx_codes", lambda path, pixels: np.full((len(pixels), 2), 255, np.uint8))
    with pytest.raises(ExportError, match=r"sketch_encoder.onnx gives .*% of the model's bits"):
        export_onnx(model_of(bits=16), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model_of(bits=16).save_pretrained(tmp_path / "checkpoint")
    assert main(["export", str(tmp_path / "checkpoint"), str(tmp_path / "onnx")]) == 2
    assert 'pip install "dsh-hf[onnx]"' in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()


def test_out_must_be_a_folder(model, tmp_path):
    (tmp_path / "onnx").write_text("mine")
    with pytest.raises(ExportError, match="is a file"):
        export_onnx(model, tmp_path / "onnx")


def test_a_model_that_was_cast_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"the model is torch.float16 on cpu: export it in float32 on the CPU"):
        export_onnx(model_of(bits=16).half(), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_networks_that_cannot_be_written_are_named(model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.onnx.OnnxExporterError("many\nlines")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(ExportError, match=r"cannot write sketch_encoder.onnx, with the backbone test_efficientnet"):
        export_onnx(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_length_that_the_checkpoint_has_not_is_told(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "checkpoint")
    assert main(["export", str(tmp_path / "checkpoint"), str(tmp_path / "onnx"), "--bits", "24"]) == 2
    assert "makes codes of 16 and 40 bits, not 24" in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()
