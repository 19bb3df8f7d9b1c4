"""How fast codes are searched against float features, and how long a sketch waits for its answer, cold and warm."""

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._index_data import make_codes, repeated_with_errors
from benchmarks._index_measure import interleaved as one_by_one
from benchmarks._speed_measure import in_child
from dsh_hf.codes import Codes
from dsh_hf.index import open_index

K = 10
FEATURES = 512  # of a CLIP model's embedding; in float16 it is stored, in float32 it is searched
BIT_ERROR = 0.109  # of the released model on unseen pictures: see `python -m benchmarks index`
QUERIES = 100
WARM = 20


def gallery_codes(codes: Codes, size: int, bits: int) -> Codes:
    """Repeat a model's codes until there are ``size``, with the bit errors of unseen pictures."""
    return repeated_with_errors(codes, size, BIT_ERROR, bits)


def measure_search(images: Codes, sketches: Codes, size: int, bits: int) -> dict[str, Any]:
    """Give median milliseconds a query over ``size`` items: of codes in the exact index, of floats by a product.

    Args:
        images: a model's codes of pictures, of which the items are made.
        sketches: its codes of sketches: the queries.
        size: items.
        bits: length of the codes.

    Returns:
        ``codes`` (as the model gives them), ``uniform`` (every bit a coin: the worst there is) and ``floats``, one
        query at a time and in turns; ``codes_batch`` and ``floats_batch`` with all queries at once.
    """
    draws = np.random.default_rng(0)
    queries = sketches[np.arange(QUERIES) % len(sketches)]
    index, uniform = open_index("exact", bits=bits), open_index("exact", bits=bits)
    index.add(gallery_codes(images, size, bits))
    uniform.add(make_codes("uniform", size, 0, bits, None)[0])
    features = np.empty((size, FEATURES), dtype=np.float32)
    for first in range(0, size, 100_000):
        part = features[first : first + 100_000]
        part[:] = draws.standard_normal(part.shape, dtype=np.float32)
    vectors = draws.standard_normal((QUERIES, FEATURES), dtype=np.float32)
    of_query = {query.tobytes(): vector for query, vector in zip(queries, vectors, strict=True)}
    product = partial(_product, features)
    floats, codes = one_by_one(lambda query: product(of_query[query.tobytes()]), partial(index.search, k=K), queries)
    _, coins = one_by_one(lambda query: None, partial(uniform.search, k=K), queries)
    began = time.perf_counter()
    index.search(queries, K)
    middle = time.perf_counter()
    product(vectors.T)
    ended = time.perf_counter()
    return {
        "size": size,
        "codes": median(codes),
        "uniform": median(coins),
        "floats": median(floats),
        "codes_batch": 1e3 * (middle - began) / QUERIES,
        "floats_batch": 1e3 * (ended - middle) / QUERIES,
    }


def _product(features: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    """Find the K items with the greatest products, for one vector or for some side by side."""
    products = features @ vectors
    return np.argpartition(products, -K, axis=0)[-K:]


def measure_answer(
    checkpoint: str, images: Codes, sketch: str, size: int, bits: int, folder: Path, runs: int
) -> dict[str, dict[str, float]]:
    """Give seconds from a sketch to its answer over ``size`` items, in a new process and in one that is warm.

    Returns:
        By what is searched (``codes`` alone, or a ``gallery`` that knows each item's name): medians of ``whole`` (from
        the start of the process to the first answer), of its steps and of ``warm``.
    """
    from dsh_hf import DSHModel, SketchRetriever

    codes = gallery_codes(images, size, bits)
    model = DSHModel.from_pretrained(checkpoint, bits=bits)
    index = open_index("exact", bits=bits, fingerprint=model.fingerprint)
    index.add(codes)
    index.save(folder / "answer.index")
    retriever = SketchRetriever(model)
    names = [f"{number:09}.jpg" for number in range(size)]
    retriever.add_codes(codes, names, names)
    retriever.save(folder / "answer.gallery")
    found: dict[str, list[dict[str, Any]]] = {"codes": [], "gallery": []}
    for _ in range(runs + 1):
        for kind, runs_of_kind in found.items():
            place = folder / ("answer.index" if kind == "codes" else "answer.gallery")
            runs_of_kind.append(in_child("_speed_search", kind, checkpoint, str(bits), str(place), sketch))
    return {
        kind: {name: median(run[name] for run in rows[1:]) for name in rows[0]} for kind, rows in found.items()
    }  # the first run reads the files from the disk


def _answer(kind: str, checkpoint: str, bits: int, place: str, sketch: str, started: float) -> dict[str, float]:
    """Answer a sketch in this process, which has done nothing yet; give the seconds of each step."""
    times = [time.perf_counter()]
    from dsh_hf import DSHModel, SketchRetriever

    times.append(time.perf_counter())
    model = DSHModel.from_pretrained(checkpoint, bits=bits)
    times.append(time.perf_counter())
    if kind == "codes":
        index = open_index("exact", bits=bits, path=place)
        times.append(time.perf_counter())
        answer: Any = partial(_search, model, index)
    else:
        retriever = SketchRetriever.load(place, model)
        times.append(time.perf_counter())
        answer = partial(retriever.search, k=K)
    answer(sketch)
    times.append(time.perf_counter())
    whole = time.time() - started
    warm = []
    for _ in range(WARM):
        began = time.perf_counter()
        answer(sketch)
        warm.append(time.perf_counter() - began)
    steps = dict(zip(("import", "model", "load", "answer"), np.diff(times).tolist(), strict=True))
    return {"whole": whole} | steps | {"warm": median(warm)}


def _search(model: Any, index: Any, sketch: str) -> Any:
    return index.search(model.encode_sketches(sketch), K)


def main(argv: Sequence[str]) -> None:
    """Print the steps of one cold answer as JSON: KIND CHECKPOINT BITS PLACE SKETCH STARTED."""
    kind, checkpoint, bits, place, sketch, started = argv
    print(json.dumps(_answer(kind, checkpoint, int(bits), place, sketch, float(started))))


if __name__ == "__main__":
    main(sys.argv[1:])
