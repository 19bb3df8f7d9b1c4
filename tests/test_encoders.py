"""The paper's networks layer for layer (section 4.1), timm's networks, and what the streams share."""

import copy

import pytest
import torch
from torch import nn

from dsh_hf import DSHConfig, DSHModel
from dsh_hf.encoders import (
    CaffeNetTrunk,
    LateFusion,
    SketchHead,
    SketchTrunk,
    SkipInitialisation,
    TimmTrunk,
    build_trunk,
    fill_head_as_published,
    share_convolutions,
)

# Tiny timm networks of several families; their normalisation and convolutions are of different classes.
TINY = ["test_byobnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_nfnet", "test_resnet", "test_vit2"]


def output_shapes(trunk: nn.Module, size: int) -> list[tuple[str, tuple[int, ...]]]:
    """Run a trunk without computing (on the meta device); give each convolution's and pool's output, in order."""
    shapes = []
    for name, layer in trunk.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            layer.register_forward_hook(lambda _, __, out, name=name: shapes.append((name, tuple(out.shape[1:]))))
    trunk(torch.empty(1, 3, size, size, device="meta"))
    return shapes


def convolutions(trunk: nn.Module) -> dict[str, tuple]:
    return {
        name: (
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            layer.stride[0],
            layer.padding[0],
            layer.groups,
        )
        for name, layer in trunk.named_modules()
        if isinstance(layer, nn.Conv2d)
    }


def parameters(*modules: nn.Module) -> int:
    """Count distinct parameters."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):
        return DSHModel(DSHConfig.paper("sketchy", bits=64))


def test_the_sketch_trunk_has_the_papers_layers():
    with torch.device("meta"):
        trunk = SketchTrunk()
    assert convolutions(trunk) == {
        "conv1": (3, 64, 14, 3, 0, 1),
        "conv2_1": (64, 128, 3, 1, 1, 1),
        "conv2_2": (128, 128, 3, 1, 1, 1),
        "conv3_1": (128, 256, 3, 1, 1, 1),
        "conv3_2": (256, 256, 3, 1, 1, 1),
    }
    assert output_shapes(trunk, 200) == [
        ("conv1", (64, 63, 63)),
        ("pool", (64, 31, 31)),
        ("conv2_1", (128, 31, 31)),
        ("conv2_2", (128, 31, 31)),
        ("pool", (128, 15, 15)),
        ("conv3_1", (256, 15, 15)),
        ("conv3_2", (256, 15, 15)),
        ("pool", (256, 7, 7)),
    ]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in trunk.modules()) == 5


def test_the_image_trunk_has_caffenets_layers_and_a_padded_pool():
    with torch.device("meta"):
        trunk = CaffeNetTrunk()
    assert convolutions(trunk) == {
        "conv1": (3, 96, 11, 4, 0, 1),
        "conv2": (96, 256, 5, 1, 2, 2),
        "conv3": (256, 384, 3, 1, 1, 1),
        "conv4": (384, 384, 3, 1, 1, 2),
        "conv5": (384, 256, 3, 1, 1, 2),
    }
    assert output_shapes(trunk, 227) == [
        ("conv1", (96, 55, 55)),
        ("pool", (96, 27, 27)),
        ("conv2", (256, 27, 27)),
        ("pool", (256, 13, 13)),
        ("conv3", (384, 13, 13)),
        ("conv4", (384, 13, 13)),
        ("conv5", (256, 13, 13)),
        ("pool5", (256, 7, 7)),  # 6 without the padding
    ]
    assert (trunk.norm.size, trunk.norm.alpha, trunk.norm.beta) == (5, 1e-4, 0.75)


@pytest.mark.parametrize(("name", "size"), [("caffenet", 227), ("dsh-c2", 200)])
def test_both_trunks_give_12544_features(name, size):
    with torch.device("meta"):
        trunk = build_trunk(name)
    assert trunk.features == 12544
    assert trunk(torch.empty(2, 3, size, size, device="meta")).shape == (2, 12544)


@pytest.mark.parametrize("trunk", [CaffeNetTrunk, SketchTrunk])
def test_pools_round_up_as_caffes_do(trunk):
    with torch.device("meta"):
        pools = [layer for layer in trunk().modules() if isinstance(layer, nn.MaxPool2d)]
    for pool in pools:
        fewest = (16 + 2 * pool.padding - 3) // 2 + 1
        assert pool(torch.empty(1, 1, 16, 16, device="meta")).shape[-1] == fewest + 1


def test_features_are_flattened_channel_first():
    # Of the last convolution only channel 3 is above 0, so 49 features in a row are.
    trunk = SketchTrunk().eval()
    with torch.no_grad():
        trunk.norm3_2.bias.fill_(-1e6)
        trunk.norm3_2.bias[3] = 1e6
        features = trunk(torch.rand(1, 3, 200, 200))[0]
    assert features.nonzero().flatten().tolist() == list(range(3 * 49, 4 * 49))


def test_the_papers_networks_have_its_number_of_parameters(paper):
    image_side = parameters(paper.token_trunk, paper.image_trunk, paper.image_head)
    sketch_side = parameters(paper.sketch_trunk, paper.sketch_head)
    assert round(image_side / 1e6, 1) == 225.9
    assert round(sketch_side / 1e6, 1) == 56.8
    # the sketch-token network is ours: the paper took its tokens from elsewhere
    assert round((parameters(paper) - parameters(paper.tokens)) / 1e6, 1) == 281.6


def test_the_papers_heads(paper):
    def linears(module):
        return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]

    def rates(module):
        return [m.p for m in module.modules() if isinstance(m, nn.Dropout)]

    assert linears(paper.sketch_head) == [(12544, 4096), (4096, 1024), (1024, 64)]
    assert rates(paper.sketch_head) == [0.25, 0.25]
    fusion = paper.image_head
    assert linears(fusion.token_layers) == linears(fusion.image_layers) == [(25088, 4096), (8192, 1024)]
    assert (fusion.hash.in_features, fusion.hash.out_features) == (2048, 64)
    assert rates(fusion.token_layers) == [0.3, 0.3]
    assert rates(fusion.image_layers) == [0.4, 0.4]


def test_the_papers_networks_give_outputs_of_both_sides(paper):
    paper.eval()
    assert paper.sketch_outputs(torch.empty(2, 3, 200, 200, device="meta")).shape == (2, 64)
    assert paper.image_outputs(torch.empty(2, 3, 227, 227, device="meta")).shape == (2, 64)


@pytest.mark.parametrize("name", ["dsh-c2", *TINY])
def test_the_twin_shares_the_convolutions_and_nothing_else(name):
    trunk = build_trunk(name)
    twin = share_convolutions(trunk)
    kernels = 0
    for original, copied in zip(trunk.modules(), twin.modules(), strict=True):
        assert original is not copied
        for (key, a), (_, b) in zip(
            original.named_parameters(recurse=False), copied.named_parameters(recurse=False), strict=True
        ):
            shared = isinstance(original, nn.Conv2d) and key in ("weight", "bias")
            assert (a is b) == (a.data_ptr() == b.data_ptr()) == shared, key
            kernels += shared
        for a, b in zip(original.buffers(recurse=False), copied.buffers(recurse=False), strict=True):
            assert a.data_ptr() != b.data_ptr()
    assert kernels > 0


def test_changing_a_shared_kernel_changes_the_twin_and_training_uses_both():
    trunk = build_trunk("test_resnet")
    twin = share_convolutions(trunk)
    kernel, of_twin = next((a, b) for a, b in zip(trunk.parameters(), twin.parameters(), strict=True) if a is b)
    with torch.no_grad():
        kernel.add_(1)
    assert torch.equal(kernel, of_twin)

    pictures = torch.rand(2, 3, 64, 64)
    trunk(pictures).sum().backward()
    of_one = kernel.grad.clone()
    twin(pictures).sum().backward()
    torch.testing.assert_close(kernel.grad, 2 * of_one)  # the same pictures, the same network


def test_each_stream_keeps_its_own_statistics():
    trunk = build_trunk("test_resnet")
    twin = share_convolutions(trunk)
    before = copy.deepcopy(twin.state_dict())
    trunk.train()(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(twin.state_dict(), before, rtol=0, atol=0)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())


@pytest.mark.parametrize(
    "move", [lambda m: m.double(), copy.deepcopy, lambda m: m.to(memory_format=torch.channels_last)]
)
def test_the_streams_still_share_after_a_move(move):
    pair = nn.ModuleList([trunk := build_trunk("test_resnet"), share_convolutions(trunk)])
    distinct = parameters(pair)
    assert distinct < 2 * parameters(trunk)
    assert parameters(move(pair)) == distinct


@pytest.mark.parametrize("name", TINY)
def test_timm_networks_give_one_row_of_features_a_picture(name):
    trunk = build_trunk(name).eval()
    with torch.inference_mode():
        assert trunk(torch.rand(2, 3, 64, 64)).shape == (2, trunk.features)


def test_features_are_counted_behind_a_head_that_widens_them():
    # MobileNetV3 pools 576 channels, then has one more layer before its classifier.
    with torch.device("meta"):
        trunk = TimmTrunk("mobilenetv3_small_100").eval()
    assert trunk(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, trunk.features) == (1, 1024)


@pytest.mark.parametrize(
    "name",
    [
        "resnet81",
        "",
        "caffe-net",
        "hf-hub:org/model",  # timm would download it
        "local-dir:/tmp",
    ],
)
def test_an_unknown_backbone_is_named(name):
    with pytest.raises(ValueError, match=f"'{name}' is no backbone: give 'caffenet', 'dsh-c2' or a name from timm"):
        build_trunk(name)


def test_a_sketch_head_ends_in_plain_linear_outputs():
    torch.manual_seed(0)
    outputs = SketchHead(12, [8, 6], [0.5, 0.5], 40).eval()(torch.rand(5, 12))
    assert outputs.shape == (5, 40)
    assert outputs.min() < 0 < outputs.max()


def test_dropout_works_only_in_training():
    torch.manual_seed(0)
    features = torch.rand(3, 12)
    for head, inputs in [
        (SketchHead(12, [64], [0.5], 16), (features,)),
        (LateFusion(24, [64], [0.5, 0.5], 16), (features, features)),
    ]:
        head.eval()
        assert torch.equal(head(*inputs), head(*inputs))
        head.train()
        assert not torch.equal(head(*inputs), head(*inputs))


def test_late_fusion_puts_the_token_before_the_image():
    token, image = torch.rand(4, 3), torch.rand(4, 5)
    fusion = LateFusion(8, [], [], 8)
    with torch.no_grad():
        fusion.hash.weight.copy_(torch.eye(8))
        fusion.hash.bias.zero_()
        assert torch.equal(fusion(token, image), torch.cat([token, image], dim=1))


def test_late_fusion_crosses_the_streams_at_every_stage():
    token, image = torch.rand(4, 3), torch.rand(4, 5)
    fusion = LateFusion(8, [6, 2], [0.1, 0.2, 0.3, 0.4], 7).eval()
    (a1, b1), (a2, b2) = zip(fusion.token_layers, fusion.image_layers, strict=True)

    def layer(block, x):
        return torch.relu(x @ block[0].weight.T + block[0].bias)

    both = torch.cat([token, image], dim=1)
    first = torch.cat([layer(a1, both), layer(b1, both)], dim=1)
    second = torch.cat([layer(a2, first), layer(b2, first)], dim=1)
    torch.testing.assert_close(fusion(token, image), second @ fusion.hash.weight.T + fusion.hash.bias)
    assert [block[2].p for block in (a1, b1, a2, b2)] == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("trunk", "zero_biases"), [(CaffeNetTrunk, {"conv1", "conv3"}), (SketchTrunk, {"conv1"})], ids=["C1", "C2"]
)
def test_the_papers_convolutions_start_as_published(trunk, zero_biases):
    torch.manual_seed(0)
    for name, layer in trunk().named_children():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert layer.weight.mean().abs() < 1e-3
            assert set(layer.bias.tolist()) == {0.0 if name in zero_biases else 1.0}


@pytest.mark.parametrize("head", [SketchHead(200, [100], [0.5], 64), LateFusion(200, [100], [0.5, 0.5], 64)])
def test_heads_start_as_published(head):
    torch.manual_seed(0)
    fill_head_as_published(head)
    hidden = [layer for layer in head.modules() if isinstance(layer, nn.Linear) and layer is not head.hash]
    assert hidden
    for layer in hidden:
        assert layer.weight.std().item() == pytest.approx(0.005, rel=0.05)
        assert set(layer.bias.tolist()) == {1.0}
    assert head.hash.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert set(head.hash.bias.tolist()) == {0.0}


def test_initialisation_is_skipped_only_where_told():
    before = torch.get_rng_state()
    with SkipInitialisation():
        layer = nn.Conv2d(3, 8, 3)
        nn.init.ones_(layer.bias)
    assert layer.weight.shape == (8, 3, 3, 3)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    layer.reset_parameters()
    assert not torch.equal(torch.get_rng_state(), before)
    assert 0 < layer.weight.abs().max() < 1
