"""How long one round of the code steps takes, D and B_I and B_S, on as many items as TU-Berlin Extended has."""

import argparse
import time
from collections.abc import Sequence

import numpy as np

from dsh_hf.objective import Objective, initial_codes


def main(argv: Sequence[str] | None = None) -> int:
    """Print the median seconds of each step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks code_steps", description=__doc__)
    parser.add_argument("--images", type=int, default=204_489)
    parser.add_argument("--sketches", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=250)
    parser.add_argument("--bits", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args(argv)
    random = np.random.default_rng(0)
    labels = [random.integers(0, arguments.classes, count) for count in (arguments.images, arguments.sketches)]
    words = random.normal(size=(arguments.classes, 300))
    objective = Objective(labels[0], labels[1], words, arguments.bits)
    images, sketches = (initial_codes(part, arguments.classes, arguments.bits, seed=0) for part in labels)
    outputs = [random.normal(size=codes.shape).astype(np.float32) for codes in (images, sketches)]
    seconds = []
    for _ in range(arguments.runs):
        times = [time.perf_counter()]
        basis = objective.basis(images, sketches)
        times.append(time.perf_counter())
        images = objective.update_image_codes(images, sketches, basis, outputs[0])
        times.append(time.perf_counter())
        sketches = objective.update_sketch_codes(sketches, images, basis, outputs[1])
        times.append(time.perf_counter())
        seconds.append(np.diff(times))
    middle = np.median(seconds, axis=0)
    print(f"{len(images):,} images, {len(sketches):,} sketches, {arguments.bits} bits; medians of {len(seconds)} runs")
    for name, value in zip(("D", "B_I", "B_S", "round"), [*middle, middle.sum()], strict=True):
        print(f"{name:<6}{value:>7.2f} s")
    return 0
