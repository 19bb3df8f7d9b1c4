"""The published networks at their full size: import of Caffe's weights against OpenCV, and the memory it takes.

Writes both networks with random weights (1.1 GB) into a temporary folder, imports them, encodes eight images with
the checkpoint (2.3 GB in all), and compares the real-valued outputs with OpenCV's.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsh_hf import DSHConfig, DSHModel
from dsh_hf.caffe import import_caffe
from tests import caffe_writer

HIDDEN = (4096, 1024)
IMAGE_MEAN = np.array([104.007, 116.669, 122.679], dtype=np.float32).reshape(3, 1, 1)
SKETCH_MEAN = 250


def main(argv: Sequence[str]) -> None:
    """Run the steps, each in a process of its own, so that each one's memory is its own; print a line of JSON each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bits", type=int, default=64, help="length of the codes")
    parser.add_argument("--inputs", type=int, default=10, help="random pictures for each of the two networks")
    parser.add_argument("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.step:
        began = time.perf_counter()
        result = STEPS[arguments.step](arguments)
        result["seconds"] = round(time.perf_counter() - began, 1)
        result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            command = [sys.executable, "-m", "benchmarks", "caffe_parity", "--step", step, "--folder", folder]
            command += ["--bits", str(arguments.bits), "--inputs", str(arguments.inputs)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print(f"{step}: {done.stdout.strip()}", flush=True)


def write(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write both networks."""
    folder, bits = arguments.folder, arguments.bits
    image, sketch = caffe_writer.random_networks(np.random.default_rng(0), bits, HIDDEN)
    caffe_writer.write_caffemodel(folder / "image.caffemodel", image)
    caffe_writer.write_caffemodel(folder / "sketch.caffemodel", sketch)
    (folder / "image.prototxt").write_text(caffe_writer.image_prototxt(bits, HIDDEN))
    (folder / "sketch.prototxt").write_text(caffe_writer.sketch_prototxt(bits, HIDDEN))
    return {}


def import_both(arguments: argparse.Namespace) -> dict[str, Any]:
    """Import the two files."""
    folder = arguments.folder
    model = import_caffe(folder / "image.caffemodel", folder / "sketch.caffemodel", folder / "checkpoint")
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def encode(arguments: argparse.Namespace) -> dict[str, Any]:
    """Open the checkpoint and encode eight images and eight sketches."""
    model = DSHModel.from_pretrained(arguments.folder / "checkpoint")
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (300, 400, 3), dtype=np.uint8) for _ in range(8)]
    sketches = [np.where(rng.random((200, 200)) < 0.02, 0, 255).astype(np.uint8) for _ in range(8)]
    codes = [model.encode_images(images), model.encode_sketches(sketches)]
    return {"codes": [list(part.shape) for part in codes]}


def encode_untrained(arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode eight images with networks that were just drawn at random."""
    model = DSHModel(DSHConfig.paper("sketchy", arguments.bits)).eval()
    images = [np.random.default_rng(i).integers(0, 256, (300, 400, 3), dtype=np.uint8) for i in range(8)]
    return {"codes": list(model.encode_images(images).shape)}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give the largest difference from OpenCV's outputs, relative to the largest output."""
    import cv2

    folder, count = arguments.folder, arguments.inputs
    model = DSHModel.from_pretrained(folder / "checkpoint")
    rng = np.random.default_rng(2)
    sketches = rng.uniform(0, 255, (count, 3, 200, 200)).astype(np.float32)
    blots = torch.from_numpy(rng.uniform(0, 255, (count, 3, 12, 12)).astype(np.float32))
    images = torch.nn.functional.interpolate(blots, size=(227, 227), mode="bilinear")
    with torch.inference_mode():
        tokens = 255 * model.sketch_tokens(images).expand(-1, 3, -1, -1).numpy()
        found = model.sketch_outputs(torch.from_numpy(sketches)).numpy(), model.image_outputs(images).numpy()
    del model
    net = cv2.dnn.readNetFromCaffe(str(folder / "sketch.prototxt"), str(folder / "sketch.caffemodel"))
    net.setInput(sketches - SKETCH_MEAN)
    expected = [net.forward()]
    net = cv2.dnn.readNetFromCaffe(str(folder / "image.prototxt"), str(folder / "image.caffemodel"))
    net.setInput(tokens - SKETCH_MEAN, "ST")
    net.setInput(images.numpy()[:, ::-1] - IMAGE_MEAN, "image")
    expected.append(net.forward())
    return {
        "relative_error": {
            name: float(f"{_worst_relative_error(ours, theirs):.1e}")
            for name, ours, theirs in zip(("sketch", "image"), found, expected, strict=True)
        },
        "differing_bits": sum(
            int(np.sum((ours > 0) != (theirs > 0))) for ours, theirs in zip(found, expected, strict=True)
        ),
        "inputs": 2 * count,
    }


def _worst_relative_error(found: NDArray, expected: NDArray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


STEPS = {
    "write": write,
    "import": import_both,
    "encode": encode,
    "encode-untrained": encode_untrained,
    "compare": compare,
}

if __name__ == "__main__":
    main(sys.argv[1:])
