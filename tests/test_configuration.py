import json
from dataclasses import asdict, fields

import pytest

from dsh_hf import DSHConfig
from dsh_hf.configuration import FORMAT_VERSION


def test_a_config_survives_json():
    config = DSHConfig(bits=48, classes=["ant", "bee"], sketch_hidden=[32, 16], sketch_dropout=[0.1, 0.2])
    assert DSHConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_two_configs_share_no_lists():
    first, second = DSHConfig(), DSHConfig()
    for field in fields(DSHConfig):
        if isinstance(getattr(first, field.name), list):
            assert getattr(first, field.name) is not getattr(second, field.name)
    assert DSHConfig.paper("sketchy").image_mean is not DSHConfig.paper("sketchy").image_mean


@pytest.mark.parametrize("bits", [32, 64, 128, 256])
@pytest.mark.parametrize(
    ("dataset", "sketch_dropout", "fusion_dropout"),
    [("sketchy", [0.25, 0.25], [0.3, 0.4, 0.3, 0.4]), ("tu-berlin", [0.1, 0.2], [0.1, 0.3, 0.2, 0.3])],
)
def test_the_papers_settings(dataset, bits, sketch_dropout, fusion_dropout):
    config = DSHConfig.paper(dataset, bits=bits)
    assert config.bits == bits
    assert (config.image_backbone, config.image_size) == ("caffenet", 227)
    assert (config.sketch_backbone, config.sketch_size) == ("dsh-c2", 200)
    assert config.sketch_hidden == config.fusion_hidden == [4096, 1024]
    assert config.sketch_dropout == sketch_dropout
    assert config.fusion_dropout == fusion_dropout


def test_the_papers_networks_see_pixels_of_0_to_255_less_a_mean_blue_first():
    config = DSHConfig.paper("sketchy")
    assert config.channel_order == "bgr"
    # what a pixel of the mean colour, and one of 255, become
    assert [(255 / 255 - m) / s for m, s in zip(config.image_mean, config.image_std, strict=True)] == pytest.approx(
        [255 - 104.007, 255 - 116.669, 255 - 122.679]
    )
    assert [(1 - m) / s for m, s in zip(config.sketch_mean, config.sketch_std, strict=True)] == pytest.approx([5] * 3)


def test_the_paper_has_four_code_lengths_and_two_data_sets():
    with pytest.raises(ValueError, match=r"one of \(32, 64, 128, 256\), got 48"):
        DSHConfig.paper("sketchy", bits=48)
    with pytest.raises(ValueError, match="dataset must be one of sketchy, tu-berlin, got 'tuberlin'"):
        DSHConfig.paper("tuberlin")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"bits": 4}, "bits must be a whole number from 8 to 4096, got 4"),
        ({"bits": 5000}, "bits must be a whole number from 8 to 4096, got 5000"),
        ({"bits": 64.0}, "bits must be a whole number"),
        ({"bits": "64"}, "bits must be a whole number .* got '64'"),
        ({"bits": True}, "bits must be a whole number"),
        ({"image_size": 16}, "image_size must be a whole number from 32 to 1024"),
        ({"sketch_size": 2000}, "sketch_size must be a whole number from 32 to 1024"),
        ({"token_width": 1}, "token_width must be a whole number from 4 to 256"),
        ({"image_backbone": None}, "image_backbone must be the name of a network, got None"),
        ({"image_backbone": "caffenet"}, "'caffenet' needs image_size=227, got 192"),
        ({"sketch_backbone": "dsh-c2", "sketch_size": 224}, "'dsh-c2' needs sketch_size=200, got 224"),
        ({"image_mean": [0.5]}, "image_mean needs three numbers"),
        ({"sketch_mean": 0.5}, "sketch_mean must be a list of numbers, got 0.5"),
        ({"image_mean": ["r", "g", "b"]}, "image_mean must be a list of numbers"),
        ({"sketch_std": [0.5, 0.5, float("nan")]}, "sketch_std must be a list of numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std and sketch_std must be above 0"),
        ({"sketch_hidden": [16, 8]}, "sketch_dropout needs one rate for each layer"),
        ({"sketch_hidden": [0]}, "each width of .* must be a whole number from 1 to 65536, got 0"),
        ({"fusion_hidden": [-4]}, "each width of .* must be a whole number"),
        ({"fusion_dropout": [0.25]}, "fusion_dropout needs two rates for each stage"),
        ({"sketch_dropout": [1.0]}, "dropout rates must be at least 0 and below 1"),
        ({"fusion_dropout": [0.2, -0.1]}, "dropout rates must be at least 0 and below 1"),
        ({"channel_order": "brg"}, "channel_order must be one of rgb, bgr, got 'brg'"),
        ({"dtype": "int8"}, "dtype must be one of float32, float16, bfloat16, got 'int8'"),
        ({"format_version": FORMAT_VERSION + 1}, "newer than the 2 known here: upgrade with `pip install -U dsh-hf`"),
        ({"format_version": "1"}, "format_version must be a whole number"),
    ],
)
def test_what_does_not_work_is_refused_when_made(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        DSHConfig(**settings)


def test_hidden_layers_may_be_left_out():
    config = DSHConfig(sketch_hidden=[], sketch_dropout=[], fusion_hidden=[], fusion_dropout=[])
    assert config.sketch_hidden == config.fusion_hidden == []
