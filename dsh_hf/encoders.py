"""The trunks (the paper's C1 and C2, or timm's) and the heads that turn their features into hash outputs."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class CaffeNetTrunk(nn.Module):
    """C1, the natural-image trunk: CaffeNet's five convolutions and a padded pool (section 4.1).

    Takes ``(n, 3, 227, 227)``, gives the map ``(n, 256, 7, 7)`` flattened channel first to ``(n, 12544)``.
    """

    features = 256 * 7 * 7

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.pool5 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        _fill_convolutions(self, without_bias=(self.conv1, self.conv3))

    def forward(self, images: Tensor) -> Tensor:
        """Give the features of images."""
        x = self.norm(self.pool(torch.relu(self.conv1(images))))
        x = self.norm(self.pool(torch.relu(self.conv2(x))))
        x = torch.relu(self.conv3(x))
        x = torch.relu(self.conv4(x))
        x = torch.relu(self.conv5(x))
        return self.pool5(x).flatten(1)


class SketchTrunk(nn.Module):
    """C2, the trunk of sketches and sketch-tokens: five convolutions, each with BatchNorm (section 4.1).

    Takes ``(n, 3, 200, 200)``, gives the map ``(n, 256, 7, 7)`` flattened channel first to ``(n, 12544)``.
    """

    features = 256 * 7 * 7

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 64, 14, stride=3), nn.BatchNorm2d(64)
        self.conv2_1, self.norm2_1 = nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128)
        self.conv2_2, self.norm2_2 = nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128)
        self.conv3_1, self.norm3_1 = nn.Conv2d(128, 256, 3, padding=1), nn.BatchNorm2d(256)
        self.conv3_2, self.norm3_2 = nn.Conv2d(256, 256, 3, padding=1), nn.BatchNorm2d(256)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        _fill_convolutions(self, without_bias=(self.conv1,))

    def forward(self, sketches: Tensor) -> Tensor:
        """Give the features of sketches or sketch-tokens."""
        x = self.pool(torch.relu(self.norm1(self.conv1(sketches))))
        x = torch.relu(self.norm2_1(self.conv2_1(x)))
        x = self.pool(torch.relu(self.norm2_2(self.conv2_2(x))))
        x = torch.relu(self.norm3_1(self.conv3_1(x)))
        x = self.pool(torch.relu(self.norm3_2(self.conv3_2(x))))
        return x.flatten(1)


def _fill_convolutions(trunk: nn.Module, without_bias: Sequence[nn.Module]) -> None:
    """Start a trunk as the published networks were: gaussian kernels, biases 1, and 0 where told."""
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, 0.0 if layer in without_bias else 1.0)


class TimmTrunk(nn.Module):
    """A timm network without its classifier: ``(n, 3, h, w)`` to pooled features ``(n, d)``."""

    def __init__(self, name: str, size: int | None = None) -> None:
        super().__init__()
        import timm

        # Only names of timm's own: others ("hf-hub:...") would have it download what a config.json says.
        if not timm.is_model(name):
            raise ValueError(f"{name!r} is no backbone: give 'caffenet', 'dsh-c2' or a name from timm.list_models()")
        try:  # transformers are built for one size
            self.network = timm.create_model(name, pretrained=False, num_classes=0, img_size=size)
        except TypeError:  # convolutional networks take any
            self.network = timm.create_model(name, pretrained=False, num_classes=0)
        self.features = int(getattr(self.network, "head_hidden_size", None) or self.network.num_features)

    def forward(self, pictures: Tensor) -> Tensor:
        """Give the features of pictures."""
        return self.network(pictures)


Trunk = CaffeNetTrunk | SketchTrunk | TimmTrunk


def build_trunk(name: str, size: int | None = None) -> Trunk:
    """Build a trunk with random weights.

    Args:
        name: ``"caffenet"``, ``"dsh-c2"`` or the name of a timm network.
        size: height and width of the pictures to come, which some timm networks have to know.
    """
    if name == "caffenet":
        return CaffeNetTrunk()
    if name == "dsh-c2":
        return SketchTrunk()
    return TimmTrunk(name, size)


def share_convolutions(trunk: Trunk) -> Trunk:
    """Give a twin of a trunk that shares its convolutions' weights and biases, and nothing else.

    So the sketch-token stream shares what it sees with the sketch stream, and keeps its own normalisation.
    """
    twin = copy.deepcopy(trunk)
    for original, copied in zip(trunk.modules(), twin.modules(), strict=True):
        if isinstance(original, nn.Conv2d) and isinstance(copied, nn.Conv2d):
            copied.weight, copied.bias = original.weight, original.bias
    return twin


class SketchHead(nn.Module):
    """Fully connected layers and the linear hash layer of the sketch stream: ``(n, d)`` to ``(n, bits)``.

    The hash layers of several code lengths lie side by side in one.
    """

    def __init__(self, features: int, hidden: Sequence[int], dropout: Sequence[float], bits: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, rate in zip(hidden, dropout, strict=True):
            layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(rate)]
            features = width
        self.hidden = nn.Sequential(*layers)
        self.hash = nn.Linear(features, bits)

    def forward(self, features: Tensor) -> Tensor:
        """Give the real-valued outputs whose signs are the code."""
        return self.hash(self.hidden(features))


class LateFusion(nn.Module):
    """The image stream's cross-weight late fusion (section 4.1), and its linear hash layer.

    Every stage has two parallel layers which both see the features of the sketch-token and of the image;
    what they give is concatenated for the next stage: ``(n, d_token)``, ``(n, d_image)`` to ``(n, bits)``.
    """

    def __init__(self, features: int, hidden: Sequence[int], dropout: Sequence[float], bits: int) -> None:
        super().__init__()
        self.token_layers = nn.ModuleList()
        self.image_layers = nn.ModuleList()
        for stage, width in enumerate(hidden):
            for layers, rate in (
                (self.token_layers, dropout[2 * stage]),
                (self.image_layers, dropout[2 * stage + 1]),
            ):
                layers.append(nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Dropout(rate)))
            features = 2 * width
        self.hash = nn.Linear(features, bits)

    def forward(self, token_features: Tensor, image_features: Tensor) -> Tensor:
        """Give the real-valued outputs whose signs are the code."""
        x = torch.cat([token_features, image_features], dim=1)
        for token_layer, image_layer in zip(self.token_layers, self.image_layers, strict=True):
            x = torch.cat([token_layer(x), image_layer(x)], dim=1)
        return self.hash(x)


def fill_head_as_published(head: SketchHead | LateFusion) -> None:
    """Start a head as the published networks were: gaussian weights, biases 1, and 0 in the hash layer."""
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01 if layer is head.hash else 0.005)
            nn.init.constant_(layer.bias, 0.0 if layer is head.hash else 1.0)


class SkipInitialisation(TorchFunctionMode):
    """Within this context networks are built without drawing random weights: for those that are filled next.

    Memory that nobody wrote to is not taken yet, so a network built so costs neither time nor room.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Give the tensor back as it is where an initialiser is called."""
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))
