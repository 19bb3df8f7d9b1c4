"""ONNX Runtime in the place of PyTorch: the same codes, exported once, wherever the model goes."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_checkpoint import tiny_model

from dsh_hf import DSHConfig, DSHModel, SketchRetriever, onnx_backend
from dsh_hf.cli import main

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model(bits=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("assets")


@pytest.fixture(autouse=True)
def exports(kept, monkeypatch):
    """Keep exported encoders in a folder of the tests' own, and count the exports."""
    made = []
    export = onnx_backend.export_onnx
    monkeypatch.setattr("huggingface_hub.cached_assets_path", lambda *names: _made(kept / "-".join(names)))
    monkeypatch.setattr(onnx_backend, "export_onnx", lambda *given: made.append(given) or export(*given))
    return made


def _made(folder):
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(5):
        picture = Image.new("RGB", (70, 50), "white")
        points = rng.integers(2, 48, (6, 2)).tolist()
        ImageDraw.Draw(picture).line([tuple(point) for point in points], "black", 2)
        picture.save(tmp_path / f"{number}.png")
    return sorted(tmp_path.glob("*.png"))


def differing(codes, others):
    return np.bitwise_count(codes ^ others).mean() / 8


def test_codes_and_outputs_are_the_models(checkpoint, pictures):
    model, other = DSHModel.from_pretrained(checkpoint), DSHModel.from_pretrained(checkpoint, backend="onnx")
    assert other.fingerprint == model.fingerprint
    for encode, embed in (("encode_images", "embed_images"), ("encode_sketches", "embed_sketches")):
        assert differing(getattr(other, encode)(pictures, batch_size=2), getattr(model, encode)(pictures)) <= 0.005
        outputs = getattr(model, embed)(pictures)
        np.testing.assert_allclose(getattr(other, embed)(pictures), outputs, atol=1e-3 * np.abs(outputs).max())


def test_onnx_runtime_computes_them(checkpoint, pictures, monkeypatch):
    model = DSHModel.from_pretrained(checkpoint, backend="onnx")
    monkeypatch.delattr(type(model.image_head), "forward")
    assert model.encode_images(pictures[0]).shape == (8,)


def test_encoders_are_exported_once(checkpoint, exports):
    for _ in range(2):
        DSHModel.from_pretrained(checkpoint, backend="onnx")
    assert len(exports) <= 1  # an earlier test may have done it


def test_damaged_ones_are_exported_again(kept, checkpoint, exports, pictures):
    before = DSHModel.from_pretrained(checkpoint, backend="onnx").encode_images(pictures)
    exports.clear()
    (file,) = kept.glob("*/image_encoder.onnx")
    file.write_bytes(file.read_bytes()[:1000])
    after = DSHModel.from_pretrained(checkpoint, backend="onnx").encode_images(pictures)
    assert len(exports) == 1
    np.testing.assert_array_equal(after, before)


def test_each_code_length_has_its_own(tmp_path, exports, pictures):
    config = tiny_model(bits=16).config.to_dict() | {"lengths": (16, 24)}
    DSHModel(DSHConfig(**config)).save_pretrained(tmp_path / "two")
    for bits in (16, 24):
        codes = DSHModel.from_pretrained(tmp_path / "two", bits=bits, backend="onnx").encode_images(pictures)
        assert codes.shape == (5, bits // 8)
    assert len(exports) == 2


def test_no_place_to_keep_them_is_no_hindrance(checkpoint, exports, pictures, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr("huggingface_hub.cached_assets_path", refuse)
    assert DSHModel.from_pretrained(checkpoint, backend="onnx").encode_images(pictures[0]).shape == (8,)
    assert len(exports) == 1


def test_a_place_that_cannot_be_written_is_no_hindrance(checkpoint, exports, pictures, monkeypatch):
    export = onnx_backend.export_onnx

    def refuse(model, folder):
        if "assets" in str(folder):
            raise OSError("no space left")
        return export(model, folder)

    monkeypatch.setattr(onnx_backend, "export_onnx", refuse)
    monkeypatch.setattr(onnx_backend, "__version__", "another")  # whose encoders are not there yet
    assert DSHModel.from_pretrained(checkpoint, backend="onnx").encode_images(pictures[0]).shape == (8,)


def test_it_goes_along_into_other_processes(checkpoint, pictures):
    model = DSHModel.from_pretrained(checkpoint, backend="onnx")
    codes = model.encode_images(pictures)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(twin.image_outputs, onnx_backend.OnnxNetwork)
        np.testing.assert_array_equal(twin.encode_images(pictures), codes)


def test_the_commands_take_it(checkpoint, pictures, tmp_path, exports):
    DSHModel.from_pretrained(checkpoint, backend="onnx")
    given = ["--checkpoint", str(checkpoint), "--backend", "onnx"]
    assert main(["index", str(tmp_path), "--out", str(tmp_path / "gallery"), *given]) == 0
    model = DSHModel.from_pretrained(checkpoint)
    hits = SketchRetriever.load(tmp_path / "gallery", model).search_image(pictures[0], k=1)
    assert hits[0].distance <= 1
    assert main(["encode", str(tmp_path), str(tmp_path / "codes"), *given]) == 0


def test_another_backend_is_refused(checkpoint):
    with pytest.raises(ValueError, match="backend must be 'torch' or 'onnx', got 'jax'"):
        DSHModel.from_pretrained(checkpoint, backend="jax")


def test_it_computes_on_the_cpu_alone(checkpoint):
    with pytest.raises(ValueError, match="backend='onnx' computes on the CPU, not on meta"):
        DSHModel.from_pretrained(checkpoint, backend="onnx").image_outputs(torch.zeros(1, 3, 32, 32, device="meta"))
    with pytest.raises(ValueError, match="backend='onnx' computes on the CPU, not on meta"):
        DSHModel.from_pretrained(checkpoint, backend="onnx", device="meta")


def test_a_missing_package_is_named(checkpoint, kept, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[onnx\]"'):
        DSHModel.from_pretrained(checkpoint, backend="onnx")
