"""Import of Caffe's weights: the same outputs as OpenCV's, damaged and foreign files refused in one line."""

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import caffe_writer as caffe
import numpy as np
import pytest
import torch

from dsh_hf import DSHConfig, DSHModel
from dsh_hf.caffe import CaffeModelError, import_caffe, read_caffemodel
from dsh_hf.cli import main
from dsh_hf.codes import pack_signs
from dsh_hf.training import Trainer, TrainingConfig

HIDDEN = (64, 32)  # in the published networks 4096 and 1024
IMAGE_MEAN = np.array([104.007, 116.669, 122.679], dtype=np.float32).reshape(3, 1, 1)  # blue, green, red
SKETCH_MEAN = 250


def write_pair(folder, image, sketch):
    folder.mkdir(exist_ok=True)
    caffe.write_caffemodel(folder / "image.caffemodel", image)
    caffe.write_caffemodel(folder / "sketch.caffemodel", sketch)
    return folder / "image.caffemodel", folder / "sketch.caffemodel"


# The same numbers as OpenCV computes from the same files: BatchNorm with its scale factor, Scale, groups, local
# normalisation, padded pooling, the order of channels, of the maps' numbers and of what is concatenated.


@pytest.fixture(scope="module", params=[(32, "sketchy"), (128, "tu-berlin")], ids=["sketchy-32", "tu-berlin-128"])
def imported(request, tmp_path_factory):
    """An imported model beside OpenCV's two networks, of 64-and-32-wide hidden layers."""
    cv2 = pytest.importorskip("cv2")
    bits, dataset = request.param
    folder = tmp_path_factory.mktemp("caffe")
    networks = caffe.random_networks(np.random.default_rng(bits), bits, HIDDEN, dataset)
    image, sketch = write_pair(folder, *networks)
    (folder / "image.prototxt").write_text(caffe.image_prototxt(bits, HIDDEN, dataset))
    (folder / "sketch.prototxt").write_text(caffe.sketch_prototxt(bits, HIDDEN, dataset))
    return SimpleNamespace(
        bits=bits,
        model=import_caffe(image, sketch, folder / "checkpoint"),
        image_net=cv2.dnn.readNetFromCaffe(str(folder / "image.prototxt"), str(image)),
        sketch_net=cv2.dnn.readNetFromCaffe(str(folder / "sketch.prototxt"), str(sketch)),
        rng=np.random.default_rng(bits + 1),
    )


def worst_relative_error(found, expected):
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_sketches_give_the_outputs_that_opencv_gives(imported):
    sketches = imported.rng.uniform(0, 255, (5, 3, 200, 200)).astype(np.float32)
    imported.sketch_net.setInput(sketches - SKETCH_MEAN)
    expected = imported.sketch_net.forward()
    with torch.inference_mode():
        found = imported.model.sketch_outputs(torch.from_numpy(sketches)).numpy()
    assert found.shape == (5, imported.bits)
    assert worst_relative_error(found, expected) <= 1e-4


def test_images_give_the_outputs_that_opencv_gives(imported):
    blots = torch.from_numpy(imported.rng.uniform(0, 255, (5, 3, 12, 12)).astype(np.float32))
    images = torch.nn.functional.interpolate(blots, size=(227, 227), mode="bilinear")
    with torch.inference_mode():
        tokens = 255 * imported.model.sketch_tokens(images).expand(-1, 3, -1, -1).numpy()
        found = imported.model.image_outputs(images).numpy()
    imported.image_net.setInput(tokens - SKETCH_MEAN, "ST")
    imported.image_net.setInput(images.numpy()[:, ::-1] - IMAGE_MEAN, "image")
    assert worst_relative_error(found, imported.image_net.forward()) <= 1e-4


# The checkpoint.


@pytest.fixture(scope="module")
def networks():
    """Weights of an image network and a sketch network of 32 bits; nobody changes them in place."""
    return caffe.random_networks(np.random.default_rng(0), 32, (16, 8))


@pytest.fixture(scope="module")
def files(networks, tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("files"), *networks)


def test_widths_bits_and_data_set_come_from_the_files(files, tmp_path, networks):
    model = import_caffe(*files, tmp_path / "out")
    assert model.config == replace(DSHConfig.paper("sketchy", 32), sketch_hidden=[16, 8], fusion_hidden=[16, 8])
    image, sketch = caffe.random_networks(np.random.default_rng(0), 64, (16, 8), "tu-berlin")
    config = import_caffe(*write_pair(tmp_path / "tu", image, sketch), tmp_path / "out-tu").config
    assert config.bits == 64
    assert config.sketch_dropout == [0.1, 0.2]
    assert config.fusion_dropout == [0.1, 0.3, 0.2, 0.3]


def test_checkpoint_opens_and_encodes(files, tmp_path):
    model = import_caffe(*files, tmp_path / "new" / "out")
    opened = DSHModel.from_pretrained(tmp_path / "new" / "out", bits=32)
    assert opened.fingerprint == model.fingerprint
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    image = np.random.default_rng(0).integers(0, 255, (227, 227, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        expected = pack_signs(model.image_outputs(pixels).numpy())
    np.testing.assert_array_equal(opened.encode_images([image]), expected)


def test_sketch_tokens_are_drawn_by_the_shipped_network(files, tmp_path):
    model = import_caffe(*files, tmp_path / "out")
    stem = model.tokens.stem.weight.clone()
    model.tokens.load_trained()
    assert torch.equal(stem, model.tokens.stem.weight)


def test_one_file_with_both_networks_may_be_given_twice(networks, files, tmp_path):
    both = tmp_path / "both.caffemodel"
    caffe.write_caffemodel(both, {**networks[0], **networks[1], "classifier": [np.ones((3, 3), np.float32)]})
    assert import_caffe(both, both, tmp_path / "out").fingerprint == fingerprint(files, tmp_path)


def test_older_form_of_the_format_and_doubles_give_the_same_weights(networks, files, tmp_path):
    image, sketch = tmp_path / "image.caffemodel", tmp_path / "sketch.caffemodel"
    caffe.write_caffemodel(image, networks[0], old_form=True)
    doubles = {name: [blob.astype(np.float64) for blob in blobs] for name, blobs in networks[1].items()}
    caffe.write_caffemodel(sketch, doubles)
    assert import_caffe(image, sketch, tmp_path / "out").fingerprint == fingerprint(files, tmp_path)


def fingerprint(files, tmp_path):
    return import_caffe(*files, tmp_path / "usual").fingerprint


def test_batchnorm_sums_of_weight_zero_count_as_zero(files, networks, tmp_path):
    """As in Caffe, where a network that was never trained has them."""
    files = write_changed(tmp_path, files, networks, "image", "BN1-S_p", 2, lambda weight: 0 * weight)
    model = import_caffe(*files, tmp_path / "out")
    assert not model.token_trunk.norm1.running_mean.any()
    assert not model.token_trunk.norm1.running_var.any()


def test_half_precision_halves_the_file(files, tmp_path):
    import_caffe(*files, tmp_path / "whole")
    model = import_caffe(*files, tmp_path / "half", dtype="float16")
    assert model.config.dtype == "float16"
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.51 * whole


def test_command_writes_a_checkpoint(files, tmp_path, capsys):
    assert main(["import-caffe", *map(str, files), "--out", str(tmp_path / "out"), "--bits", "32"]) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["image_backbone"] == "caffenet"


def test_command_refuses_in_one_line(files, tmp_path, capsys):
    assert main(["import-caffe", *map(str, files), "--out", str(tmp_path / "out"), "--bits", "64"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors == [f"dsh-hf import-caffe: {files[0]} makes codes of 32 bits, not 64"]


# What cannot be imported.


def write_changed(folder, files, networks, net, layer, blob, change):
    """Write one of the networks with one blob changed, and give it with the other."""
    layers = dict(networks[net == "sketch"])
    layers[layer] = [change(array) if index == blob else array for index, array in enumerate(layers[layer])]
    return write_one(folder, files, net, layers)


def write_one(folder, files, net, layers):
    path = folder / f"{net}.caffemodel"
    caffe.write_caffemodel(path, layers)
    return (path, files[1]) if net == "image" else (files[0], path)


def with_nan(blob):
    blob = blob.copy()
    blob.flat[0] = np.nan
    return blob


def assert_refused(image, sketch, tmp_path, *words):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((CaffeModelError, FileNotFoundError)) as error:
        import_caffe(image, sketch, tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert sorted(tmp_path.rglob("*")) == before  # nothing written


@pytest.mark.parametrize(
    ("net", "layer", "blob", "change", "why"),
    [
        ("sketch", "conv1-S", 0, lambda b: b[:, :1], "has the shape (64, 1, 14, 14), expected (64, 3, 14, 14)"),
        ("sketch", "conv3_2-S", 1, lambda b: b[:7], "has the shape (7,), expected (256,)"),
        ("image", "conv2", 0, lambda b: np.concatenate([b, b], 1), "has the shape (256, 96, 5, 5), expected (256, 48,"),
        ("image", "BN2_1-S_p", 0, lambda b: b[:5], "has the shape (5,), expected (128,)"),
        ("sketch", "BN1-S", 2, lambda b: np.repeat(b, 2), "has the shape (2,), expected (1,)"),
        ("sketch", "SC3_1-S", 1, lambda b: b[:5], "has the shape (5,), expected (256,)"),
        ("sketch", "fc_a-S", 0, lambda b: b[:, :9], "weights of shape (16, 9), expected (n, 12544)"),
        ("sketch", "fc_p-S_32", 0, lambda b: b.ravel(), "weights of shape (256,), expected (n, 8)"),
        ("sketch", "fc_b-S", 0, lambda b: b[:0], "weights of shape (0, 16), expected (n, 16)"),
        ("image", "fc_b-S_new", 0, lambda b: b[:, :3], "weights of shape (8, 3), expected (n, 32)"),
        ("image", "fc_fuse_32", 1, lambda b: b[:5], "has the shape (5,), expected (32,)"),
        ("image", "conv4", 0, with_nan, "not finite"),
        ("image", "conv2_1-S_p", 0, lambda b: b + 0.5, "differs by up to 0.5 from conv2_1-S"),
        ("image", "conv2_1-S_p", 1, lambda b: b + 0.25, "differs by up to 0.25 from conv2_1-S"),
    ],
)
def test_layers_that_do_not_fit_are_named(files, networks, tmp_path, net, layer, blob, change, why):
    image, sketch = write_changed(tmp_path, files, networks, net, layer, blob, change)
    assert_refused(image, sketch, tmp_path, f"{net}.caffemodel", layer, why)


def test_parallel_layers_of_other_widths_are_refused(files, networks, tmp_path):
    layers = {**networks[0], "fc6_new_new": [blob[:9] for blob in networks[0]["fc6_new_new"]]}
    files = write_one(tmp_path, files, "image", layers)
    assert_refused(*files, tmp_path, "image.caffemodel", "fc6_new_new", "fc_a-S_new, which has 16")


def test_code_lengths_that_no_model_has_are_refused(tmp_path):
    files = write_pair(tmp_path, *caffe.random_networks(np.random.default_rng(0), 4, (16, 8)))
    assert_refused(*files, tmp_path, "image.caffemodel", "bits", "4")


@pytest.mark.parametrize(
    ("net", "layer", "named"),
    [("image", "conv5", "conv5"), ("sketch", "SC2_2-S", "SC2_2-S"), ("image", "fc_fuse_32", "fc_fuse_")],
)
def test_missing_layer_is_named(files, networks, tmp_path, net, layer, named):
    layers = {name: blobs for name, blobs in networks[net == "sketch"].items() if name != layer}
    assert_refused(*write_one(tmp_path, files, net, layers), tmp_path, f"{net}.caffemodel", named)


def test_missing_bias_is_named(files, networks, tmp_path):
    layers = {**networks[0], "conv3": networks[0]["conv3"][:1]}
    files = write_one(tmp_path, files, "image", layers)
    assert_refused(*files, tmp_path, "image.caffemodel", "conv3", "only 1 of its blobs")


def test_networks_in_the_wrong_order_are_refused(files, tmp_path):
    assert_refused(files[1], files[0], tmp_path, "sketch.caffemodel", "not the image network", "image network first")


def test_networks_of_other_lengths_or_data_sets_do_not_go_together(files, networks, tmp_path):
    longer = caffe.random_networks(np.random.default_rng(0), 64, (16, 8))[1]
    other = caffe.random_networks(np.random.default_rng(0), 32, (16, 8), "tu-berlin")[1]
    for sketch, why in ((longer, "of 64"), (other, "of tu-berlin")):
        caffe.write_caffemodel(tmp_path / "other.caffemodel", sketch)
        assert_refused(files[0], tmp_path / "other.caffemodel", tmp_path, "image.caffemodel", "other.caffemodel", why)


def test_file_that_is_not_there_or_empty_is_named(files, tmp_path):
    (tmp_path / "empty.caffemodel").touch()
    assert_refused(files[0], tmp_path / "none.caffemodel", tmp_path, "none.caffemodel: no such file")
    assert_refused(tmp_path / "empty.caffemodel", files[1], tmp_path, "empty.caffemodel is empty")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999999])
def test_truncated_file_is_refused(files, tmp_path, share):
    content = files[0].read_bytes()
    (tmp_path / "cut.caffemodel").write_bytes(content[: int(share * len(content))])
    assert_refused(tmp_path / "cut.caffemodel", files[1], tmp_path, "cut.caffemodel", "truncated")


def test_text_instead_of_weights_is_refused(files, tmp_path):
    (tmp_path / "deploy.prototxt").write_text(caffe.image_prototxt(32, (16, 8)))
    assert_refused(tmp_path / "deploy.prototxt", files[1], tmp_path, "deploy.prototxt is no .caffemodel")


@pytest.mark.parametrize(
    "content",
    [
        caffe.varint(8 * 100 + 2) + caffe.varint(2**62) + b"short",  # a length far beyond the file
        b"\xff" * 100,  # a number that does not end
        caffe.varint(8 * 100 + 2) + b"\xff" * 9 + b"\x01",  # a length of 2**64 - 1
        b"\x0b" * 100,  # groups, long out of use
        b"\x0f" * 100,  # a kind of field that does not exist
        b"\x80" * 5,  # cut off inside a number
        b"\x09\x00",  # cut off inside a fixed number
        b"\x08\x01" * 2_000_000,  # millions of fields
        caffe.field(100, caffe.field(1, b"n" * 5000)),  # a name of many bytes
        caffe.field(100, caffe.field(7, caffe.field(7, caffe.field(1, b"\x01" * 100)))),  # 100 dimensions
        caffe.field(100, caffe.field(7, caffe.field(5, bytes(4)) * 2)),  # numbers in two pieces
    ],
)
def test_hostile_bytes_are_refused(tmp_path, content):
    (tmp_path / "bad.caffemodel").write_bytes(content)
    with pytest.raises(CaffeModelError, match=r"bad\.caffemodel is no \.caffemodel"):
        read_caffemodel(tmp_path / "bad.caffemodel")


@pytest.mark.parametrize("shape", [(10**15, 12544), (16, 12544), (2**63, 12544), (10**15, 12544, 0)])
def test_shapes_beyond_the_bytes_are_refused(files, networks, tmp_path, shape):
    """A width is believed only when its numbers are there: nothing is built of what a shape announces."""
    layers = {name: blobs for name, blobs in networks[1].items() if name != "fc_a-S"}
    path = tmp_path / "bad.caffemodel"
    caffe.write_caffemodel(path, layers)
    announced = caffe.field(7, caffe.field(1, b"".join(map(caffe.varint, shape)))) + caffe.field(5, bytes(4))
    layer = caffe.field(1, b"fc_a-S") + caffe.field(7, announced) * 2
    with path.open("ab") as file:
        file.write(caffe.field(100, layer))
    assert_refused(files[0], path, tmp_path, "bad.caffemodel", "fc_a-S")


def test_random_damage_never_crashes(tmp_path):
    layers = {name: [np.ones((2, 3), np.float32), np.ones(2, np.float32)] for name in ("one", "two", "three")}
    caffe.write_caffemodel(tmp_path / "good.caffemodel", layers)
    good, path = (tmp_path / "good.caffemodel").read_bytes(), tmp_path / "damaged.caffemodel"
    draw, refused = random.Random(0), 0
    for _ in range(500):
        damaged = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            read_caffemodel(path)
        except CaffeModelError:
            refused += 1
    assert 50 < refused < 480


def test_folder_in_use_is_kept(files, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="out is there already"):
        import_caffe(*files, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_failure_while_writing_leaves_nothing(files, tmp_path, monkeypatch):
    def fail(self, folder):
        (folder / "model.safetensors").write_bytes(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(DSHModel, "_save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        import_caffe(*files, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# The published networks before training.


@pytest.fixture(scope="module")
def fresh():
    torch.manual_seed(0)
    config = replace(DSHConfig.paper("sketchy", 64), sketch_hidden=[256, 128], fusion_hidden=[256, 128])
    return DSHModel(config)


def test_published_networks_start_from_their_fillers(fresh):
    layers = {
        name: layer
        for name, layer in fresh.named_modules()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and not name.startswith("tokens")
    }
    assert len(layers) == 5 + 5 + 5 + 3 + 5
    for name, layer in layers.items():
        wide = isinstance(layer, torch.nn.Linear) and not name.endswith(".hash")
        assert layer.weight.std().item() == pytest.approx(0.005 if wide else 0.01, rel=0.05), name
        assert abs(layer.weight.mean().item()) < 1e-3, name
        zero = name.endswith(("conv1", ".hash")) or name == "image_trunk.conv3"
        assert torch.all(layer.bias == (0 if zero else 1)), name


def test_biases_of_the_published_networks_learn_twice_as_fast_without_decay(fresh):
    trainer = SimpleNamespace(config=TrainingConfig(model=fresh.config, learning_rate=1e-3, weight_decay=0.02))
    fresh.tokens.requires_grad_(False)
    classifier = torch.nn.Linear(2, 2)
    groups = Trainer._parameter_groups(trainer, fresh, classifier)
    settings = {id(p): group for group in groups for p in group["params"]}
    for parameter in classifier.parameters():
        assert settings.pop(id(parameter))["rate"] >= 3e-3
    for name, parameter in fresh.named_parameters():
        if name.startswith("tokens."):
            continue
        group = settings.pop(id(parameter))
        bias = name.endswith(".bias") and "norm" not in name
        heads = 3 if "head" in name else 1
        assert group["rate"] == pytest.approx(1e-3 * heads * (2 if bias else 1)), name
        assert group["weight_decay"] == (0.02 if parameter.ndim > 1 else 0), name
    assert not settings


def test_opening_a_checkpoint_draws_no_random_weights(files, tmp_path):
    import_caffe(*files, tmp_path / "out")
    torch.manual_seed(0)
    state = torch.get_rng_state()
    DSHModel.from_pretrained(tmp_path / "out")
    assert torch.equal(state, torch.get_rng_state())


def test_checkpoint_larger_than_a_portion_opens_whole(files, tmp_path, monkeypatch):
    whole = fingerprint(files, tmp_path)
    monkeypatch.setattr("dsh_hf.checkpoint._PORTION", 100_000)
    assert DSHModel.from_pretrained(tmp_path / "usual").fingerprint == whole
