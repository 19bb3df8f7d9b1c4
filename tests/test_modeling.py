"""The model: pictures to codes, and a checkpoint that opens as it was saved or says in one line why not."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback_hub import LoopbackHub, Repo
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import load_file, save_file
from tiny_checkpoint import tiny_model

from dsh_hf import DSHConfig, DSHModel
from dsh_hf.codes import pack_signs, unpack_codes
from dsh_hf.modeling import CheckpointError
from dsh_hf.processing import PictureError, prepare_image, prepare_sketch, sketch_to_tensor_layout

# Outputs nearer to 0 than this share of the largest may change sign with the order of additions (the batch size).
BORDERLINE = 1e-4
SMALL = {"sketch_hidden": [16], "fusion_hidden": [16], "token_width": 4}


def drawing(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (96, 96), 255)
    corners = [tuple(point) for point in rng.integers(8, 88, (5, 2)).tolist()]
    ImageDraw.Draw(picture).line(corners, fill=0, width=4)
    return picture


def photograph(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(seed % 4 + 1))


def as_png(picture: Image.Image) -> bytes:
    stored = io.BytesIO()
    picture.save(stored, "PNG")
    return stored.getvalue()


@pytest.fixture(scope="module")
def model() -> DSHModel:
    return tiny_model()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A checkpoint that the test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


KINDS = ["sketches", "images"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def pictures(kind) -> list[Image.Image]:
    return [(drawing if kind == "sketches" else photograph)(seed) for seed in range(7)]


@pytest.fixture
def encode(model, kind):
    return getattr(model, f"encode_{kind}")


def outputs_of(model: DSHModel, kind: str, pictures: list) -> np.ndarray:
    """Compute the hash layer's outputs without the class's own encoding."""
    if kind == "sketches":
        prepared = [sketch_to_tensor_layout(prepare_sketch(p, model.config.sketch_size)) for p in pictures]
    else:
        prepared = [prepare_image(p, model.config.image_size) for p in pictures]
    pixels = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        return getattr(model, "sketch_outputs" if kind == "sketches" else "image_outputs")(pixels).numpy()


def assert_signs(codes, outputs) -> None:
    """Check that each bit is its output's sign, but where the output is as good as 0."""
    clear = np.abs(outputs) > BORDERLINE * np.abs(outputs).max()
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(unpack_codes(codes, outputs.shape[1])[clear], np.sign(outputs)[clear])


def all_codes(model: DSHModel) -> tuple[list, list]:
    sketches = model.encode_sketches([drawing(seed) for seed in range(4)])
    return sketches.tolist(), model.encode_images([photograph(seed) for seed in range(4)]).tolist()


# Codes


def test_a_code_is_the_sign_of_the_outputs(model, kind, encode, pictures):
    codes = encode(pictures)
    assert codes.dtype == np.uint8
    assert codes.shape == (7, 8)
    assert_signs(codes, outputs_of(model, kind, pictures))


@pytest.mark.parametrize(
    ("embed", "encode", "outputs"),
    [("embed_sketches", "encode_sketches", "sketch_outputs"), ("embed_images", "encode_images", "image_outputs")],
)
def test_embeddings_are_the_outputs_whose_signs_are_the_codes(model, embed, encode, outputs, monkeypatch):
    pictures = [drawing(seed) for seed in range(5)]
    batches, network = [], getattr(DSHModel, outputs)
    monkeypatch.setattr(DSHModel, outputs, lambda *given: batches.append(len(given[1])) or network(*given))
    values = getattr(model, embed)(pictures, batch_size=2)
    assert (values.shape, values.dtype) == ((5, model.config.bits), np.float32)
    assert batches == [2, 2, 1]
    np.testing.assert_array_equal(pack_signs(values), getattr(model, encode)(pictures, batch_size=2))
    assert getattr(model, embed)(pictures[0]).shape == (model.config.bits,)
    assert getattr(model, embed)([]).shape == (0, model.config.bits)


def test_pictures_differ_in_their_codes(encode, pictures):
    assert len(np.unique(encode(pictures), axis=0)) > 1  # or the tests of order below would show nothing


def test_one_picture_gives_one_code(encode, pictures):
    one = encode(pictures[0])
    assert one.shape == (8,)
    np.testing.assert_array_equal(one, encode([pictures[0]])[0])


def test_no_pictures_give_no_codes(encode):
    assert encode([]).shape == (0, 8)
    assert encode([]).dtype == np.uint8


class Lazy:
    """A sequence that is no list, as users have them: only a length and items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_every_kind_of_input_gives_the_same_codes(encode, pictures, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    expected = encode(pictures).tolist()
    for inputs in (
        tuple(pictures),
        paths,
        [str(path) for path in paths],
        Lazy(pictures),
        np.stack([np.asarray(picture) for picture in pictures]),
        [np.asarray(picture) for picture in pictures],
        [{"bytes": as_png(picture), "path": None} for picture in pictures],
    ):
        assert encode(inputs).tolist() == expected
    alone = encode([pictures[2]])[0].tolist()
    for one in (paths[2], str(paths[2]), np.asarray(pictures[2]), {"bytes": as_png(pictures[2]), "path": None}):
        assert encode(one).tolist() == alone


@pytest.mark.parametrize("decode", [True, False])
def test_a_column_of_a_data_set_is_encoded_row_by_row(encode, pictures, decode):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": as_png(picture), "path": None} for picture in pictures]}
    features = datasets.Features({"image": datasets.Image(decode=decode)})
    data = datasets.Dataset.from_dict(rows, features=features)
    np.testing.assert_array_equal(encode(data["image"]), encode(pictures))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 50])
def test_the_batch_size_changes_neither_codes_nor_order(model, kind, encode, pictures, batch_size):
    assert_signs(encode(pictures, batch_size=batch_size), outputs_of(model, kind, pictures))


def test_threads_keep_the_order(model, kind, encode, pictures):
    mixed = [p.resize((400, 400)) if i % 2 else p for i, p in enumerate(pictures)]  # every other one takes longer
    order = np.random.default_rng(0).integers(0, len(mixed), 40)
    assert_signs(encode([mixed[i] for i in order], batch_size=4), outputs_of(model, kind, mixed)[order])


@pytest.mark.parametrize("training", [True, False])
def test_encoding_leaves_the_model_as_it_was(kind, encode, model, pictures, training):
    model.train(training)
    try:
        before = model.fingerprint
        codes = encode(pictures, device="cpu")
        assert model.training is training
        assert model.fingerprint == before  # no statistics were taken
        with pytest.raises(FileNotFoundError):
            encode(["missing.png"])
        assert model.training is training
    finally:
        model.eval()
    np.testing.assert_array_equal(codes, encode(pictures))  # no dropout either


def test_a_bad_picture_among_many_is_named(encode, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(as_png(pictures[0])[:60])
    with pytest.raises(PictureError, match=r"bad\.png"):
        encode([*pictures, tmp_path / "bad.png", *pictures], batch_size=2)


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ((picture for picture in []), "not generator"),
        ({1, 2}, "not set"),
        (None, "not NoneType"),
        ([3], "a picture is a path, a PIL image or an array, not int"),
        (torch.zeros(2, 3, 32, 32), "a picture is a path, a PIL image or an array, not Tensor"),
    ],
)
def test_what_holds_no_pictures_is_refused(encode, inputs, complaint):
    with pytest.raises(TypeError, match=complaint):
        encode(inputs)


def test_a_batch_holds_at_least_one(encode, pictures):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        encode(pictures, batch_size=0)


@pytest.mark.parametrize(("asked", "shown"), [(None, False), (True, True), (False, False)])
def test_the_progress_bar_is_shown_where_asked(encode, pictures, capsys, asked, shown):
    encode(pictures, show_progress_bar=asked)
    assert ("encode" in capsys.readouterr().err) is shown


@pytest.mark.parametrize("bits", [8, 12, 64, 100])
def test_codes_are_as_long_as_configured(bits):
    model = tiny_model(bits=bits)
    codes = model.encode_sketches([drawing(0), drawing(1)])
    assert codes.shape == (2, (bits + 7) // 8)
    assert_signs(codes, outputs_of(model, "sketches", [drawing(0), drawing(1)]))


def test_a_model_cast_by_the_user_still_encodes():
    model = tiny_model().to(torch.bfloat16)
    assert model.encode_sketches([drawing(0)]).shape == (1, 8)
    assert model.encode_images([photograph(0)]).shape == (1, 8)
    assert model.dtype == torch.bfloat16


# Streams


def stream_model(**settings) -> DSHModel:
    torch.manual_seed(0)
    small = {"image_backbone": "test_resnet", "sketch_backbone": "test_resnet", "image_size": 48, "sketch_size": 32}
    return DSHModel(DSHConfig(**small, **SMALL, **settings)).eval()


@torch.inference_mode()
def test_an_image_goes_through_its_own_trunk_and_as_a_token_through_the_twin():
    model = stream_model()
    images = torch.rand(2, 3, 48, 48) * 255
    tokens = model.sketch_tokens(images)
    assert tokens.shape == (2, 1, 32, 32)
    assert 0 <= tokens.min() < tokens.max() <= 1
    token_features = model.token_trunk((tokens.expand(-1, 3, -1, -1) - 0.5) / 0.5)
    image_features = model.image_trunk((images / 255 - 0.5) / 0.5)
    torch.testing.assert_close(model.image_outputs(images), model.image_head(token_features, image_features))


@torch.inference_mode()
def test_pixels_are_normalised_with_the_configured_mean_and_deviation():
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    model = stream_model(image_mean=mean, image_std=std, sketch_mean=std, sketch_std=mean)
    pixels = torch.rand(2, 3, 48, 48) * 255
    m, s = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (mean, std))
    torch.testing.assert_close(model.image_features(pixels), model.image_trunk((pixels / 255 - m) / s))
    sketches = pixels[..., :32, :32]
    features = model.sketch_trunk((sketches / 255 - s) / m)
    torch.testing.assert_close(model.sketch_outputs(sketches), model.sketch_head(features))


@torch.inference_mode()
def test_backbones_trained_on_bgr_get_blue_first():
    rgb, bgr = stream_model(), stream_model(channel_order="bgr")
    pixels = torch.rand(2, 3, 48, 48) * 255
    torch.testing.assert_close(bgr.image_features(pixels), rgb.image_features(pixels.flip(1)))
    assert not torch.allclose(bgr.image_features(pixels), rgb.image_features(pixels))
    torch.testing.assert_close(bgr.sketch_tokens(pixels), rgb.sketch_tokens(pixels))  # these are always RGB


def test_training_reaches_every_parameter():
    model = stream_model().train()
    outputs = [
        model.image_outputs(torch.rand(2, 3, 48, 48) * 255),
        model.sketch_outputs(torch.rand(2, 3, 32, 32) * 255),
    ]
    sum(output.square().sum() for output in outputs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# Saving and opening


def test_a_saved_model_opens_as_it_was(model, saved):
    opened = DSHModel.from_pretrained(saved)
    assert opened.config == model.config
    assert opened.fingerprint == model.fingerprint
    assert all_codes(opened) == all_codes(model)
    assert not opened.training
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "backbone", ["test_byobnet", "test_convnext", "test_mambaout", "test_nfnet", "test_resnet", "test_vit2"]
)
def test_networks_of_every_family_open_as_they_were(tmp_path, backbone):
    # A model is opened without drawing weights: nothing that is not stored may be left unset.
    torch.manual_seed(0)
    backbones = {"image_backbone": backbone, "sketch_backbone": backbone, "image_size": 32, "sketch_size": 32}
    model = DSHModel(DSHConfig(**backbones, **SMALL)).train()
    model.image_outputs(torch.rand(4, 3, 32, 32) * 255)  # gives BatchNorm statistics other than the first ones
    model.eval().save_pretrained(tmp_path)
    opened = DSHModel.from_pretrained(tmp_path)
    pixels = torch.rand(2, 3, 32, 32) * 255
    with torch.inference_mode():
        torch.testing.assert_close(opened.image_outputs(pixels), model.image_outputs(pixels))
        torch.testing.assert_close(opened.sketch_outputs(pixels), model.sketch_outputs(pixels))


def test_the_streams_share_their_convolutions_after_opening(saved):
    opened = DSHModel.from_pretrained(saved)
    kernels = dict(opened.token_trunk.named_parameters())
    shared = [name for name, p in opened.sketch_trunk.named_parameters() if kernels[name].data_ptr() == p.data_ptr()]
    assert len(shared) >= 17
    assert sum(p.numel() for p in opened.parameters()) == sum(p.numel() for p in tiny_model().parameters())


def test_a_checkpoint_holds_every_tensor_once(model, saved):
    stored = load_file(saved / "model.safetensors")
    assert "sketch_trunk.network.conv_stem.weight" in stored
    assert "token_trunk.network.conv_stem.weight" not in stored
    assert "token_trunk.network.bn1.weight" in stored
    assert stored.keys() == model.own_tensors().keys()
    assert {p.suffix for p in saved.iterdir()} == {".json", ".safetensors", ".md"}  # no pickles


def test_the_config_is_plain_json(model, saved):
    assert json.loads((saved / "config.json").read_text()) == model.config.to_dict()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_halves_the_file_and_is_another_model(tmp_path, model, saved, dtype):
    half = DSHModel(replace(model.config, dtype=dtype))
    half.load_state_dict(model.state_dict())
    half.save_pretrained(tmp_path)
    size, full = ((path / "model.safetensors").stat().st_size for path in (tmp_path, saved))
    assert 0.45 < size / full < 0.6
    opened = DSHModel.from_pretrained(tmp_path)
    assert opened.fingerprint == half.fingerprint
    assert opened.fingerprint != model.fingerprint
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.float32}  # computing stays single
    torch.testing.assert_close(opened.own_tensors(), model.own_tensors(), rtol=0.01, atol=1e-5)


def test_half_precision_keeps_running_variances_beyond_its_range(tmp_path):
    model = tiny_model()
    model.config = replace(model.config, dtype="float16")
    with torch.no_grad():
        model.sketch_trunk.network.bn1.running_var.fill_(1e6)
    model.save_pretrained(tmp_path)
    assert DSHModel.from_pretrained(tmp_path).sketch_trunk.network.bn1.running_var[0] == 1e6


def test_the_config_is_saved_as_it_is_now(tmp_path):
    model = tiny_model()
    model.config = replace(model.config, classes=["cow"])
    model.save_pretrained(tmp_path)
    assert DSHModel.from_pretrained(tmp_path).config.classes == ["cow"]


def test_saving_again_replaces_the_checkpoint(folder):
    other = tiny_model(seed=1)
    other.save_pretrained(folder)
    assert DSHModel.from_pretrained(folder).fingerprint == other.fingerprint


def test_the_fingerprint_changes_with_any_weight_and_any_setting():
    model = tiny_model()
    seen = {model.fingerprint}
    assert tiny_model().fingerprint in seen
    for tensor in (
        model.sketch_head.hash.bias,
        model.sketch_trunk.network.conv_stem.weight,
        model.token_trunk.network.bn1.running_mean,
        model.tokens.head.weight,
    ):
        with torch.no_grad():
            tensor.view(-1)[0] += 0.01
        assert model.fingerprint not in seen
        seen.add(model.fingerprint)
    for change in ({"classes": ["ant"]}, {"sketch_mean": [0.5, 0.5, 0.6]}, {"dtype": "float16"}):
        model.config = replace(model.config, **change)
        assert model.fingerprint not in seen
        seen.add(model.fingerprint)


def test_the_fingerprint_does_not_depend_on_how_weights_lie_in_memory():
    model = tiny_model()
    assert model.to(memory_format=torch.channels_last).fingerprint == tiny_model().fingerprint


def test_settings_of_later_versions_are_left_aside(folder, model):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"made_with": "dsh-hf 0.1.7"}))
    assert DSHModel.from_pretrained(folder).fingerprint == model.fingerprint


@pytest.mark.parametrize("bits", [None, 60])
def test_the_right_code_length_may_be_asked_for(saved, bits):
    assert DSHModel.from_pretrained(str(saved), bits=bits, device="cpu").config.bits == 60


# What is wrong with a checkpoint


def change_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **settings) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: no such file; a checkpoint needs config"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"model\.safetensors: no such file; a checkpoint needs",
    ),
    "weights cut in half": (
        lambda f: cut(f / "model.safetensors", 400_000),
        r"model\.safetensors is damaged or truncated .*: download or copy it again",
    ),
    "weights cut in their header": (
        lambda f: cut(f / "model.safetensors", 1000),
        r"model\.safetensors is damaged or truncated .*: download or copy it again",
    ),
    "empty weights": (lambda f: cut(f / "model.safetensors", 0), r"model\.safetensors is damaged or truncated"),
    "a Git LFS pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        r"model\.safetensors is damaged or truncated",
    ),
    "a missing tensor": (
        lambda f: change_weights(f, lambda t: t.pop("sketch_head.hash.bias")),
        r"model\.safetensors does not fit its config\.json: missing \['sketch_head\.hash\.bias'\] \(1 in all\)",
    ),
    "a tensor too many": (
        lambda f: change_weights(f, lambda t: t.update(extra=torch.zeros(1))),
        r"model\.safetensors does not fit its config\.json: .* unknown \['extra'\] \(1 in all\)",
    ),
    "a misshapen tensor": (
        lambda f: change_weights(f, lambda t: t.update({"sketch_head.hash.bias": torch.zeros(61)})),
        r"model\.safetensors .*: sketch_head\.hash\.bias has the shape \(61,\), expected \(60,\)",
    ),
    "weights of other networks": (
        lambda f: change_config(f, image_backbone="test_resnet"),
        r"model\.safetensors does not fit its config\.json: .*; use the two files of one checkpoint",
    ),
    "weights of another code length": (
        lambda f: change_config(f, bits=64),
        r"model\.safetensors does not fit .* has the shape \(60, 16\), expected \(64, 16\)",
    ),
    "a config cut in half": (
        lambda f: cut(f / "config.json", 100),
        r"config\.json is not valid JSON .*: download or copy it again",
    ),
    "an empty config": (lambda f: cut(f / "config.json", 0), r"config\.json is not valid JSON"),
    "a binary config": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), r"config\.json is not valid JSON"),
    "a list as config": (lambda f: (f / "config.json").write_text("[]"), r"config\.json is not the config of a dsh_hf"),
    "the config of something else": (
        lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
        r"config\.json is not the config of a dsh_hf checkpoint: it has no 'bits'",
    ),
    "a newer format": (
        lambda f: change_config(f, format_version=3),
        r"config\.json: this checkpoint has format 3, newer .*: upgrade with `pip install -U dsh-hf`",
    ),
    "a setting out of range": (lambda f: change_config(f, bits=0), r"config\.json: bits must be a whole number from 8"),
    "a setting of another type": (
        lambda f: change_config(f, sketch_hidden="16"),
        r"config\.json: sketch_hidden must be",
    ),
    "an unknown backbone": (
        lambda f: change_config(f, image_backbone="resnet81"),
        r"config\.json: 'resnet81' is no backbone: give",
    ),
    "a backbone to download": (
        lambda f: change_config(f, image_backbone="hf-hub:org/model"),
        r"config\.json: 'hf-hub:org/model' is no backbone",
    ),
    "a network too wide for any memory": (
        lambda f: change_config(f, sketch_hidden=[10**9]),
        r"config\.json: each width of",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_with_what_is_wrong(folder, damage):
    spoil, complaint = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        DSHModel.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_code_length_is_refused_with_the_way_out(folder):
    with pytest.raises(
        CheckpointError, match=r"codes of 60 bits, not 128: open it with bits=60, or train .* --bits 128"
    ):
        DSHModel.from_pretrained(folder, bits=128)


@pytest.mark.parametrize("name", ["{}/missing", "./missing", "../missing", "missing", "~/missing", "a/b/c", "a\\b"])
def test_a_missing_folder_is_named_without_asking_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = name.format(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        DSHModel.from_pretrained(name)
    assert str(caught.value) == f"{name}: no such folder; give a checkpoint's folder or a Hub id like org/name"


def test_a_file_is_no_checkpoint(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(CheckpointError, match=r"^checkpoint/config\.json: no such folder"):
        DSHModel.from_pretrained("checkpoint/config.json")  # it has the form of a Hub id


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home")
        yield hub


def test_a_mistyped_path_that_could_be_a_hub_id_is_asked_for_and_explained(hub):
    with pytest.raises(CheckpointError, match=r"^runs/bset: no such folder here, and no such repository on the Hub"):
        DSHModel.from_pretrained(Path("runs/bset"))


def test_a_path_that_could_be_a_hub_id_is_looked_for_here_first(hub, folder, model, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    assert DSHModel.from_pretrained(f"{folder.parent.name}/checkpoint").fingerprint == model.fingerprint
    assert hub.requests == []


def test_a_name_that_the_hub_would_not_allow_is_refused(hub):
    with pytest.raises(CheckpointError, match=r"^bad name/x is neither a folder nor a Hub id like org/name"):
        DSHModel.from_pretrained("bad name/x")


@pytest.mark.parametrize("files", [{"README.md": b"text"}, {"config.json": b"{}"}])
def test_a_repository_of_something_else_is_refused(hub, files):
    hub.repos["org/other"] = Repo()
    hub.repos["org/other"].commit("main", files, "first")
    with pytest.raises(
        CheckpointError, match=r"^org/other on the Hub is not a dsh_hf checkpoint: it lacks config\.json"
    ):
        DSHModel.from_pretrained("org/other")


def test_a_missing_revision_is_named(hub):
    hub.repos["org/model"] = Repo()
    hub.repos["org/model"].commit("main", {"config.json": b"{}"}, "first")
    with pytest.raises(CheckpointError, match=r"^org/model has no revision 'v9' on the Hub"):
        DSHModel.from_pretrained("org/model", revision="v9")


def test_offline_only_what_was_downloaded_opens(hub, model, saved, tmp_path):
    hub.repos["org/model"] = Repo()
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    hub.repos["org/model"].commit("main", files, "first")
    options = {"local_files_only": True, "cache_dir": tmp_path / "cache"}
    with pytest.raises(
        CheckpointError, match=r"^org/model: no such folder here, it is not in the local cache, and the Hub"
    ):
        DSHModel.from_pretrained("org/model", **options)
    assert hub.requests == []
    DSHModel.from_pretrained("org/model", cache_dir=tmp_path / "cache")
    asked = len(hub.requests)
    assert DSHModel.from_pretrained("org/model", **options).fingerprint == model.fingerprint
    assert len(hub.requests) == asked


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    old = tiny_model(seed=0)
    old.save_pretrained(tmp_path / "checkpoint")

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        tiny_model(seed=1).save_pretrained(tmp_path / "checkpoint")
    assert DSHModel.from_pretrained(tmp_path / "checkpoint").fingerprint == old.fingerprint
    assert not [path for path in (tmp_path / "checkpoint").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_backbones_are_built_for_the_configured_size(backbone):
    config = DSHConfig(image_backbone=backbone, sketch_backbone=backbone, image_size=64, sketch_size=48)
    assert DSHModel(config).encode_images(np.zeros((90, 70, 3), np.uint8)).shape == (8,)
