"""How time and memory grow: with the pictures that are encoded, the items that are searched, the rows of code steps."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._index_data import make_codes
from benchmarks._speed_measure import in_child, interleaved, peak_memory
from benchmarks._speed_pictures import in_turn
from benchmarks._speed_search import QUERIES, K, gallery_codes
from dsh_hf.codes import Codes
from dsh_hf.index import open_index
from dsh_hf.objective import Objective, initial_codes

PICTURES = (1_000, 10_000, 100_000)
ITEMS = (100_000, 1_000_000, 10_000_000)
ROWS, CLASSES, BITS = (10_000, 30_000, 100_000, 300_000), (10, 50, 100, 250), 64
ROWS_OF_CLASSES = 100_000  # so many rows while the classes grow
SKETCHES = 10  # one sketch for so many images
WORD_SIZE = 300


def up_to(sizes: Sequence[int], most: int) -> list[int]:
    """Give the sizes up to ``most``, and ``most`` itself where it lies below the largest."""
    return [size for size in sizes if size < most] + ([most] if most <= sizes[-1] else [])


@cache
def encode_in_child(checkpoint: str, backend: str, listed: str, count: int) -> dict[str, float]:
    """Encode so many pictures in a new process; give its seconds, CPU seconds and peak memory in MB.

    Args:
        checkpoint: folder or repository of the model.
        backend: what computes the networks.
        listed: file with a path in each line; they are encoded again and again.
        count: pictures.
    """
    return in_child("_speed_growth", checkpoint, backend, listed, str(count))


def measure_encoding_growth(checkpoint: str, backend: str, listed: Path, most: int) -> list[dict[str, float]]:
    """Give, for each count of pictures, what a process that encodes them takes."""
    return [{"size": size} | encode_in_child(checkpoint, backend, str(listed), size) for size in up_to(PICTURES, most)]


def measure_search_growth(images: Codes, sketches: Codes, most: int, bits: int, runs: int) -> dict[str, Any]:
    """Give median seconds a query for growing numbers of items, all sizes in turns.

    Returns:
        ``codes`` (a model's, repeated with its errors) and ``uniform``, each a list of ``size`` and ``seconds``.
    """
    queries = sketches[np.arange(QUERIES) % len(sketches)]
    found: dict[str, list[dict[str, float]]] = {}
    for kind in ("codes", "uniform"):
        parts: dict[str, Callable[[], Any]] = {}
        for size in up_to(ITEMS, most):
            index = open_index("exact", bits=bits)
            index.add(
                gallery_codes(images, size, bits) if kind == "codes" else make_codes(kind, size, 0, bits, None)[0]
            )
            parts[str(size)] = partial(_search_each, index, queries)
        taken = interleaved(parts, runs)
        found[kind] = [{"size": int(size), "seconds": taken[size].seconds / QUERIES} for size in parts]
    return found


def _search_each(index: Any, queries: Codes) -> None:
    for query in queries:
        index.search(query, K)


def measure_code_steps(most: int, runs: int) -> dict[str, list[dict[str, float]]]:
    """Give median seconds of one round of D, B_I and B_S, for growing numbers of rows and of classes."""
    rows = [{"size": size} | _code_steps(size, CLASSES[-1], runs) for size in up_to(ROWS, most)]
    fixed = min(most, ROWS_OF_CLASSES)
    classes = [{"size": size, "rows": fixed} | _code_steps(fixed, size, runs) for size in CLASSES]
    return {"rows": rows, "classes": classes}


def _code_steps(count: int, classes: int, runs: int) -> dict[str, float]:
    random = np.random.default_rng(0)
    labels = [random.integers(0, classes, size) for size in (count, max(1, count // SKETCHES))]
    objective = Objective(labels[0], labels[1], random.normal(size=(classes, WORD_SIZE)), BITS)
    images, sketches = (initial_codes(part, classes, BITS, seed=0) for part in labels)
    outputs = [random.normal(size=codes.shape).astype(np.float32) for codes in (images, sketches)]
    basis = objective.basis(images, sketches)
    parts = {
        "D": lambda: objective.basis(images, sketches),
        "B_I": lambda: objective.update_image_codes(images, sketches, basis, outputs[0]),
        "B_S": lambda: objective.update_sketch_codes(sketches, images, basis, outputs[1]),
    }
    steps = {name: taken.seconds for name, taken in interleaved(parts, runs).items()}
    return steps | {"seconds": sum(steps.values())}


def main(argv: Sequence[str]) -> None:
    """Encode pictures; print as JSON what that took: CHECKPOINT BACKEND LIST COUNT STARTED."""
    from dsh_hf import DSHModel

    checkpoint, backend, listed, count, _ = argv
    model = DSHModel.from_pretrained(checkpoint, backend=backend)
    paths = in_turn(Path(listed).read_text(encoding="utf-8").splitlines(), int(count))
    model.encode_images(paths[:64])
    began = time.perf_counter(), time.process_time()
    model.encode_images(paths, show_progress_bar=False)
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "memory": peak_memory()}))


if __name__ == "__main__":
    main(sys.argv[1:])
