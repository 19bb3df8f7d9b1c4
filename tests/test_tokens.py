import pytest
import torch

from dsh_hf.tokens import TokenNetwork


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TokenNetwork().eval()


@pytest.mark.parametrize(
    ("height", "width"),
    [(112, 112), (33, 47), (112, 33), (47, 112), (1, 1), (2, 5)],  # odd sides and tiny ones too
)
def test_a_token_is_one_grey_picture_of_the_same_size(network, height, width):
    tokens = network(torch.rand(2, 3, height, width))
    assert tokens.shape == (2, 1, height, width)
    assert tokens.dtype == torch.float32


def test_tokens_stay_between_ink_and_paper(network):
    tokens = network(torch.rand(2, 3, 40, 40))
    assert tokens.min() >= 0
    assert tokens.max() <= 1
    assert tokens.std() > 0


def test_ink_is_dark_where_the_logits_are_high(network):
    pictures = torch.rand(2, 3, 31, 40)
    torch.testing.assert_close(network(pictures), 1 - torch.sigmoid(network.logits(pictures)))


def test_an_odd_picture_is_drawn_like_the_even_one_with_its_edge_repeated(network):
    picture = torch.rand(1, 3, 21, 30)
    repeated = torch.cat([picture, picture[:, :, -1:]], dim=2)
    torch.testing.assert_close(network(picture), network(repeated)[:, :, :21])


def test_pictures_of_a_batch_do_not_touch_each_other(network):
    pictures = torch.rand(3, 3, 24, 24)
    torch.testing.assert_close(network(pictures)[1:2], network(pictures[1:2]), rtol=1e-4, atol=1e-5)


def test_the_network_is_small():
    assert sum(p.numel() for p in TokenNetwork().parameters()) < 30_000
    assert sum(p.numel() for p in TokenNetwork(width=8).parameters()) < 5_000


def test_every_parameter_learns(network):
    network.logits(torch.rand(1, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
