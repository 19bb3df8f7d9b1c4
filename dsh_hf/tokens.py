"""Sketch-tokens: a small network that draws a photograph's contours as thin dark lines on white paper."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = Path(__file__).with_name("token_weights.safetensors")

# Half-resolution convolutions after the first; their reach is about 40 pixels of the picture.
DILATIONS = (1, 2, 4, 1)


class TokenNetwork(nn.Module):
    """Contour detector of about 24,000 parameters, working at half the picture's resolution.

    Args:
        width: channels of every inner convolution.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, kernel_size=6, stride=2, padding=2)
        self.body = nn.ModuleList(
            nn.Conv2d(width, width, kernel_size=3, padding=dilation, dilation=dilation) for dilation in DILATIONS
        )
        self.head = nn.Conv2d(width, 4, kernel_size=3, padding=1)

    def logits(self, pictures: Tensor) -> Tensor:
        """Give the log-odds of ink at every pixel.

        Args:
            pictures: float RGB pictures in 0..1, shape ``(n, 3, h, w)``, of any size.

        Returns:
            Float log-odds of shape ``(n, 1, h, w)``; above 0 means ink.
        """
        height, width = pictures.shape[-2:]
        even = functional.pad(pictures, (0, width % 2, 0, height % 2), mode="replicate")
        features = torch.relu(self.stem(even * 2 - 1))
        for layer in self.body:
            features = features + torch.relu(layer(features))
        return functional.pixel_shuffle(self.head(features), 2)[..., :height, :width]

    def forward(self, pictures: Tensor) -> Tensor:
        """Draw pictures as sketch-tokens.

        Args:
            pictures: float RGB pictures in 0..1, shape ``(n, 3, h, w)``, of any size.

        Returns:
            Float grey pictures of shape ``(n, 1, h, w)``: 1 is paper, 0 is ink.
        """
        return torch.sigmoid(-self.logits(pictures))

    def load_trained(self) -> None:
        """Fill in the weights that ship with the package; they were taught by HED, see ``token_training``.

        Raises:
            ValueError: this network has another width than the shipped weights.
        """
        from safetensors.torch import load_file

        stored = load_file(WEIGHTS)
        own = self.state_dict()
        if any(own[name].shape != tensor.shape for name, tensor in stored.items()):
            raise ValueError(f"the shipped sketch-token weights have the width {stored['stem.bias'].numel()}")
        self.load_state_dict(stored)
