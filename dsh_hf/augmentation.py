"""Random changes to prepared sketches and images while training, on whole batches."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Random numbers for a batch, or for a part of it: a picture gets the same, however many processes share a batch.

    Attributes:
        rows: pictures in the whole batch.
        part: those for which numbers are wanted.
    """

    rows: int
    part: slice = field(default_factory=lambda: slice(None))

    def uniform(self, *shape: int) -> Tensor:
        """Draw from 0..1, shape ``(n, *shape)``."""
        return torch.rand(self.rows, *shape)[self.part]

    def normal(self, *shape: int) -> Tensor:
        """Draw from the normal distribution, shape ``(n, *shape)``."""
        return torch.randn(self.rows, *shape)[self.part]

    def coins(self) -> Tensor:
        """Draw 0 or 1, int64 of shape ``(n,)``."""
        return torch.randint(0, 2, (self.rows,))[self.part]


def distort_lines(pictures: Tensor, draws: Draws | None = None) -> Tensor:
    """Turn, scale, shear, shift, flip, bend and thicken or thin line drawings at random.

    Args:
        pictures: drawings in 0..1 (1 is paper), shape ``(n, 1, h, w)``.
        draws: of a batch that they are a part of; by default they are the batch.

    Returns:
        Drawings of the same shape.
    """
    n, draws = len(pictures), draws or Draws(len(pictures))
    ink = _change_thickness(1 - pictures, draws)
    angle = (draws.uniform() * 2 - 1) * math.radians(18)
    scale = torch.exp((draws.uniform(2) * 2 - 1) * 0.18) * 1.04
    shear = (draws.uniform() * 2 - 1) * 0.2
    flip = torch.where(draws.uniform() < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = flip * scale[:, 0] * cos
    matrix[:, 0, 1] = scale[:, 0] * (shear - sin)
    matrix[:, 1, 0] = flip * scale[:, 1] * sin
    matrix[:, 1, 1] = scale[:, 1] * cos
    matrix[:, :, 2] = (draws.uniform(2) * 2 - 1) * 0.1
    grid = F.affine_grid(matrix, list(ink.shape), align_corners=False)
    bend = F.interpolate(draws.normal(2, 5, 5) * 0.035, size=ink.shape[-2:], mode="bicubic", align_corners=False)
    grid = grid + bend.permute(0, 2, 3, 1)
    return 1 - F.grid_sample(ink, grid, align_corners=False)


def distort_images(pixels: Tensor, draws: Draws | None = None) -> Tensor:
    """Flip, crop, and change brightness and contrast of images at random.

    Args:
        pixels: RGB in 0..255, shape ``(n, 3, h, w)``.
        draws: of a batch that they are a part of; by default they are the batch.

    Returns:
        Images of the same shape.
    """
    n, draws = len(pixels), draws or Draws(len(pixels))
    scale = 1 - draws.uniform() * 0.25
    flip = torch.where(draws.uniform() < 0.5, -1.0, 1.0)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = flip * scale, scale
    matrix[:, :, 2] = (draws.uniform(2) * 2 - 1) * (1 - scale[:, None])
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False).to(pixels.device)
    pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    contrast = (1 + (draws.uniform(1, 1, 1) * 2 - 1) * 0.25).to(pixels.device)
    brightness = ((draws.uniform(1, 1, 1) * 2 - 1) * 30).to(pixels.device)
    return ((pixels - 128) * contrast + 128 + brightness).clamp(0, 255)


def _change_thickness(ink: Tensor, draws: Draws) -> Tensor:
    """Thicken a third of the drawings and soften another third."""
    choice = draws.uniform(1, 1, 1)
    thick = F.max_pool2d(ink, 3, stride=1, padding=1)
    soft = F.avg_pool2d(ink, 3, stride=1, padding=1, count_include_pad=False)
    return torch.where(choice < 1 / 3, thick, torch.where(choice < 2 / 3, (soft * 1.3).clamp(max=1), ink))
