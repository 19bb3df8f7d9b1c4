"""How fast data sets of full size are scanned, split and opened again, and how fast pictures are decoded."""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from dsh_hf.data.published import SKETCHY, TU_BERLIN
from dsh_hf.processing import prepare_image, prepared_batches

_SIDE = 192  # of prepared images
_BATCH = 64

Sizes = dict[str, tuple[int, int, int]]
PUBLISHED = {"sketchy": SKETCHY, "tu-berlin": TU_BERLIN}
SIZES: Sizes = {"sketchy": (125, 75_481, 73_002), "tu-berlin": (250, 20_000, 204_489)}  # classes, sketches, images


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each set of full size, made of small pictures, and pictures per second of real ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks data", description=__doc__)
    parser.add_argument("--sketchy", help="root of Sketchy, whole or in part: decode its photographs")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the classes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # what a fresh process is started with
    arguments = parser.parse_args(argv)
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return 0
    if arguments.runs < 1 or not 0 < arguments.scale <= 1:
        raise ValueError("--runs must be 1 or more, and --scale between 0 and 1")
    print(f"medians of {arguments.runs} runs in fresh processes, files in the system's cache; {os.cpu_count()} cores")
    print(
        f"{'set':<10} {'files':>8} {'scan':>7} {'CPU':>7} {'split':>7} {'peak MB':>8} {'again':>7} {'CPU':>7}  prints"
    )
    for name in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            files = make_tree(Path(folder) / "set", name, arguments.scale)
            print(f"{name:<10} {files:>8,} {_row(Path(folder), name, arguments.runs)}", flush=True)
    if arguments.sketchy:
        print_decoding(arguments.sketchy, arguments.runs)
    return 0


def make_tree(root: Path, name: str, scale: float) -> int:
    """Write a data set of small pictures with the real one's folders and file names; give the number of files."""
    classes, *counts = (max(1, round(scale * number)) for number in SIZES[name])
    layouts = {
        "sketchy": (
            ("256x256/sketch/tx_000000000000", "n02691156_{0}-{1}.png"),
            ("EXTEND_image_sketchy_ready", "ext_{2}.jpg"),
        ),
        "tu-berlin": (("png", "{2}.png"), ("ImageResized_ready", "n02691156_{2}.jpg")),
    }
    titles = PUBLISHED[name].classes[:classes]
    contents = {".png": _small("PNG"), ".jpg": _small("JPEG")}
    for (folder, pattern), count in zip(layouts[name], counts, strict=True):
        for title, share in zip(titles, np.array_split(np.arange(count), classes), strict=True):
            place = root / folder / title
            place.mkdir(parents=True)
            for row in share.tolist():
                (place / pattern.format(row // 5, row % 5 + 1, row)).write_bytes(contents[pattern[-4:]])
    return sum(counts)


def measure(name: str, root: str) -> dict[str, float | list[str]]:
    """Load and split a set in this process; give seconds, CPU seconds, peak memory in MB and fingerprints."""
    import datasets  # noqa: F401, what it takes to import is not the loader's
    import pyarrow.compute  # noqa: F401

    from dsh_hf.data import load_sketchy, load_tu_berlin, make_split

    began, cpu = time.perf_counter(), time.process_time()
    data = {"sketchy": load_sketchy, "tu-berlin": load_tu_berlin}[name](root)
    scan, cpu = time.perf_counter() - began, time.process_time() - cpu
    began = time.perf_counter()
    make_split(data, "paper").select(data)
    return {
        "scan": scan,
        "cpu": cpu,
        "split": time.perf_counter() - began,
        "peak": _peak_megabytes(),
        "fingerprints": [part._fingerprint for part in data.values()],
    }


def speed(count: int, work: Callable[[], None]) -> tuple[float, float]:
    """Give how many a second are done, and the CPU milliseconds of each, which other programs disturb less."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return count / (time.perf_counter() - began), 1000 * (time.process_time() - cpu) / count


def _row(folder: Path, name: str, runs: int) -> str:
    results = []
    for run in range(runs):
        cache = {"HF_DATASETS_CACHE": str(folder / f"cache {run}")}
        command = [sys.executable, "-m", "benchmarks", "data", "--measure", name, str(folder / "set")]
        for _ in ("first", "again"):
            done = subprocess.run(command, env=os.environ | cache, check=True, stdout=subprocess.PIPE)
            results.append(json.loads(done.stdout))
    first, again = results[::2], results[1::2]
    scan, cpu, split = (np.median([result[key] for result in first]) for key in ("scan", "cpu", "split"))
    same = "identical" if len({str(result["fingerprints"]) for result in results}) == 1 else "DIFFER"
    return (
        f"{scan:>6.2f}s {cpu:>6.2f}s {split:>6.2f}s {max(result['peak'] for result in results):>8,.0f} "
        f"{np.median([result['scan'] for result in again]):>6.2f}s "
        f"{np.median([result['cpu'] for result in again]):>6.2f}s  {same}"
    )


def _peak_megabytes() -> float:
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def _small(kind: str) -> bytes:
    """Give a picture of some 3 kB: of smaller files the beginning and the end are read at once."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(256, size=(34, 34, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind, quality=95)
    return buffer.getvalue()


def print_decoding(root: str, runs: int) -> None:
    """Compare the loader's pictures per second with those of PIL alone, in turns."""
    from dsh_hf.data import load_sketchy
    from dsh_hf.training_data import undecoded

    pictures = undecoded(load_sketchy(root)["images"])
    paths = [picture["path"] for picture in pictures]
    workers = min(8, os.cpu_count() or 1)  # as many as prepared_batches has

    def loader() -> None:
        for _ in prepared_batches(pictures, partial(prepare_image, size=_SIDE), _BATCH):
            pass

    def bare() -> None:
        with ThreadPoolExecutor(workers) as pool:
            for batch in _batches(paths):
                np.stack(list(pool.map(_decode, batch)))

    speeds = np.array([[speed(len(paths), bare), speed(len(paths), loader)] for _ in range(runs)])
    (bare_rate, bare_cpu), (rate, cpu) = np.median(speeds, axis=0)
    print(f"{len(paths):,} photographs to {_SIDE} px, {workers} threads, medians of {runs} runs in turns")
    print(f"PIL alone {bare_rate:,.0f} a second, loader {rate:,.0f} a second: {rate / bare_rate:.2f} x")
    print(f"CPU of a picture: {bare_cpu:.2f} ms, {cpu:.2f} ms: {bare_cpu / cpu:.2f} x")


def _batches(paths: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(paths)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _decode(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        picture.draft(None, (2 * _SIDE, 2 * _SIDE))  # and reducing_gap: as the loader does, or PIL would do more work
        square = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(square)
