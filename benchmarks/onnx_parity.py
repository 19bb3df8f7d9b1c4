"""A checkpoint's encoders under ONNX Runtime: how many code bits are the model's on real pictures, and how fast."""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dsh_hf import DSHModel
from dsh_hf.cli.options import RELEASED
from dsh_hf.contact_sheet import spread_classes
from dsh_hf.data import load_quickdraw
from dsh_hf.data.quickdraw import word_files
from dsh_hf.export import LEAST_EQUAL, export_onnx
from dsh_hf.processing import prepare_image, prepare_sketch, sketch_to_tensor_layout
from dsh_hf.token_training import find_pictures

_WORDS = 50  # of Quick, Draw!
_BATCHES = (1, 32)
_TIMED = 64  # pictures; the best of some rounds
_ROUNDS = 3


class Parity(NamedTuple):
    """An exported encoder beside the model's.

    Attributes:
        equal: share of bits that are the model's.
        changed: share of pictures of which at least one bit is not.
        furthest: the largest output of the model, in size, whose sign is another one.
        largest: the largest output of the model, in size.
    """

    equal: float
    changed: float
    furthest: float
    largest: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table for each encoder and kind of pictures, then the times; 1 where too many bits differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks onnx_parity", description=__doc__)
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument("--sketches", metavar="DIR", help="folder of drawings")
    parser.add_argument("--quickdraw", metavar="DIR", help="folder of <word>.ndjson files: more drawings")
    parser.add_argument("--checkpoint", default=str(RELEASED), metavar="X", help="folder or Hub id")
    parser.add_argument("--bits", type=int, help="code length, of those the checkpoint has")
    parser.add_argument("--limit", type=int, default=1000, help="pictures of each kind, evenly spread")
    arguments = parser.parse_args(argv)
    if not arguments.sketches and not arguments.quickdraw:
        raise ValueError("give drawings: --sketches DIR, --quickdraw DIR, or both")
    model = DSHModel.from_pretrained(arguments.checkpoint, bits=arguments.bits)
    images = find_pictures(arguments.images, arguments.limit)
    drawings: dict[str, Sequence[Any]] = {}
    if arguments.sketches:
        drawings["sketches"] = find_pictures(arguments.sketches, arguments.limit)
    if arguments.quickdraw:
        drawings["Quick, Draw!"] = _some_drawings(Path(arguments.quickdraw), arguments.limit)
    print(f"{arguments.checkpoint}, {model.config.bits} bits, mirrored sketches: {model.config.mirror_sketches}")
    with tempfile.TemporaryDirectory() as folder:
        sketch_file, image_file = (made.path for made in export_onnx(model, folder))
        print(f"{'encoder':<8} {'pictures':<13} {'number':>6} {'bits equal':>11} {'codes changed':>14} {'furthest':>9}")
        found = [_told(model, image_file, "photographs", images, False)]
        found += [_told(model, sketch_file, name, pictures, True) for name, pictures in drawings.items()]
        print(f"\nms a picture on {torch.get_num_threads()} threads, the networks alone")
        print(f"{'encoder':<8} {'batch':>5} {'PyTorch':>8} {'ONNX Runtime':>13}")
        for sketches, file in ((False, image_file), (True, sketch_file)):
            _tell_times(model, file, sketches)
    return 0 if min(parity.equal for parity in found) >= LEAST_EQUAL else 1


def compare(model: DSHModel, file: Path, pictures: Sequence[Any], sketches: bool) -> Parity:
    """Run pictures through an exported encoder and through the model."""
    outputs = (model.embed_sketches if sketches else model.embed_images)(pictures)
    run = _runner(file)
    batches = range(0, len(pictures), _BATCHES[-1])
    others = [run(_pixels(model, pictures[start : start + _BATCHES[-1]], sketches)) for start in batches]
    other = (np.concatenate(others) > 0) != (outputs > 0)
    sizes = np.abs(outputs)
    return Parity(1 - other.mean(), other.any(axis=1).mean(), float((sizes * other).max()), float(sizes.max()))


def _told(model: DSHModel, file: Path, name: str, pictures: Sequence[Any], sketches: bool) -> Parity:
    found = compare(model, file, pictures, sketches)
    print(
        f"{'sketch' if sketches else 'image':<8} {name:<13} {len(pictures):>6} {found.equal:>11.4%} "
        f"{found.changed:>14.2%} {found.furthest / found.largest:>9.1e}",
        flush=True,
    )
    return found


def _some_drawings(folder: Path, limit: int) -> list[Any]:
    """Give the first drawings of words that are evenly spread, at most ``limit`` in all."""
    words = spread_classes(sorted(word_files(folder)), min(_WORDS, limit))
    each = limit // len(words)
    return [
        row["image"] for word in words for row in islice(load_quickdraw(folder, {word: word}, streaming=True), each)
    ]


def _pixels(model: DSHModel, pictures: Sequence[Any], sketches: bool) -> NDArray[np.float32]:
    if sketches:
        prepared = [sketch_to_tensor_layout(prepare_sketch(p, model.config.sketch_size)) for p in pictures]
    else:
        prepared = [prepare_image(picture, model.config.image_size) for picture in pictures]
    return np.stack(prepared).transpose(0, 3, 1, 2).astype(np.float32)


def _runner(file: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


def _tell_times(model: DSHModel, file: Path, sketches: bool) -> None:
    network = model.sketch_outputs if sketches else model.image_outputs
    run = _runner(file)
    size = model.config.sketch_size if sketches else model.config.image_size
    for batch in _BATCHES:
        pixels = torch.randint(256, (batch, 3, size, size)).float()
        # Each gets the layout that it is fastest with.
        with torch.inference_mode():
            pytorch = _best(partial(network, pixels.contiguous(memory_format=torch.channels_last)), batch)
        onnx = _best(partial(run, pixels.numpy()), batch)
        print(f"{'sketch' if sketches else 'image':<8} {batch:>5} {pytorch:>8.2f} {onnx:>13.2f}", flush=True)


def _best(work: Callable[[], object], batch: int) -> float:
    """Give the milliseconds a picture of the best round."""
    work()
    rounds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_TIMED // batch):
            work()
        rounds.append(time.perf_counter() - began)
    return min(rounds) * 1000 / _TIMED
