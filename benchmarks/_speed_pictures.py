"""The files that the benchmark of speed encodes: pictures and sketches of 256 pixels, and of 12 megapixels."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dsh_hf.processing import open_picture
from dsh_hf.token_training import find_pictures

SMALL, LARGE = (256, 256), (4000, 3000)
MOST_LARGE = 16  # different ones; they are given in turn
GRAIN = 4.0  # standard deviation of the sensor's noise in large pictures: without it they are files too small


def make_pictures(folder: Path, count: int, pictures: str | None, sketches: str | None) -> dict[str, list[str]]:
    """Write what is not there yet; give the paths by kind (``image``, ``sketch``) and size: ``image 256``.

    Args:
        folder: where the files go.
        count: paths of 256 pixels of each kind; half as many large ones, where files are repeated.
        pictures: folder of real pictures; by default blurred noise.
        sketches: folder of real sketches; by default random strokes.
    """
    files = {}
    for kind, source, draw in (("image", pictures, _noise), ("sketch", sketches, _strokes)):
        makers = _makers(source, count, draw)
        files[f"{kind} 256"] = [
            _written(folder / f"{kind}_{number}.{'jpg' if kind == 'image' else 'png'}", partial(_small, make, kind))
            for number, make in enumerate(makers)
        ]
        large = [
            _written(folder / f"{kind}_{number}_large.jpg", partial(_large, make, kind))
            for number, make in enumerate(makers[:MOST_LARGE])
        ]
        files[f"{kind} 12M"] = [large[number % len(large)] for number in range((count + 1) // 2)]
    return files


def _makers(source: str | None, count: int, draw: Callable[[int], Image.Image]) -> list[Callable[[], Image.Image]]:
    if source is None:
        return [partial(draw, number) for number in range(count)]
    found = find_pictures(source, count)
    return [partial(open_picture, found[number % len(found)]) for number in range(count)]


def _written(path: Path, make: Callable[[], Image.Image]) -> str:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        make().save(path, quality=90)
    return str(path)


def _small(make: Callable[[], Image.Image], kind: str) -> Image.Image:
    return make().convert("RGB" if kind == "image" else "L").resize(SMALL, Image.Resampling.BICUBIC)


def _large(make: Callable[[], Image.Image], kind: str) -> Image.Image:
    """Enlarge a picture to a photograph; a sketch, to a photograph of its page in uneven light."""
    pixels = np.asarray(make().convert("RGB").resize(LARGE, Image.Resampling.BICUBIC), dtype=np.float32)
    if kind == "sketch":
        pixels = (0.6 * pixels + 40) * np.linspace(1, 0.8, LARGE[0], dtype=np.float32)[None, :, None]
    noise = np.random.default_rng(0).normal(0, GRAIN, (LARGE[1], LARGE[0], 1))
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _noise(number: int) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(SMALL, Image.Resampling.BICUBIC)


def _strokes(number: int) -> Image.Image:
    draws = np.random.default_rng(number)
    page = Image.new("L", SMALL, 255)
    for _ in range(6):
        steps = draws.normal(0, 14, (12, 2)).cumsum(axis=0) + draws.uniform(60, 196, 2)
        ImageDraw.Draw(page).line([tuple(point) for point in np.clip(steps, 8, 247)], fill=0, width=3)
    return page


def in_turn(paths: list[str], count: int) -> list[str]:
    """Give ``count`` paths, the same ones again and again."""
    return [path for path, _ in zip(_again(paths), range(count), strict=False)]


def _again(paths: list[str]) -> Iterator[str]:
    while True:
        yield from paths
