"""Every engine of the index: build, bytes, latency and recall, beside FAISS's flat scan and float search.

Results are kept in index.json of the output folder after each measurement: a run goes on where an earlier one
was stopped, and can measure a part. Tables and figures show all that is there. What was measured on another
machine, with other code, queries or models is not mixed with it: such a run is refused.
"""

import argparse
import gc
import hashlib
import itertools
import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._index_data import KINDS, ModelCodes, flipped, make_codes, model_codes, repeated_with_errors
from benchmarks._index_measure import KS, Reference, float_search, interleaved, measure, one_core
from benchmarks._index_report import draw_curve, draw_recall, print_tables
from benchmarks._servers import local_servers
from dsh_hf import index as index_sources
from dsh_hf.cli.options import RELEASED
from dsh_hf.codes import Codes
from dsh_hf.files import write_atomically
from dsh_hf.index import open_index

ENGINES = ("exact", "faiss-flat", "faiss-ivf", "faiss-hnsw", "hnsw", "torch")
UP_TO = {"faiss-hnsw": 1_000_000, "hnsw": 1_000_000, "torch": 1_000_000}  # items; the last is made for a GPU
SERVERS_UP_TO, SERVERS_BITS = 100_000, 64  # a server's table or collection has one length of code
CURVE_ERRORS = (0.0, 0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2)
CURVE_BITS, CURVE_WORDS = 64, 125  # the words where no model gives any


def main(argv: Sequence[str]) -> None:
    """Measure what is not measured yet; print the tables; write ``index.json`` and the figures.

    Raises:
        ImportError: FAISS, or matplotlib, is not installed.
        OSError: the data or a checkpoint are not there.
        ValueError: an unknown kind or engine, or a size that is none.
    """
    arguments = _parser().parse_args(argv)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    record = _Record(out / "index.json", arguments.queries)
    models = {}
    for bits, (model, fingerprint) in _models(arguments, out).items():
        models[bits] = model
        record.check_model(str(bits), fingerprint)
        errors = {"errors": model.errors.tolist(), "heldout": model.heldout, "classes": model.classes}
        errors["fingerprint"] = fingerprint
        record.keep(f"codes of the model of {bits} bits", "models", str(bits), errors)
    started = arguments.servers == []
    with local_servers("dsh_benchmark") if started else nullcontext(arguments.servers or []) as urls:
        for size, bits, kind in itertools.product(arguments.sizes, arguments.bits, arguments.kinds):
            if kind != "real" or bits in models:
                engines = {name: name for name in arguments.engines if size <= UP_TO.get(name, size)}
                if size <= SERVERS_UP_TO and bits == SERVERS_BITS:
                    engines |= {url.partition(":")[0]: url for url in urls}
                about = {"kind": kind, "bits": bits, "size": size}
                _measure_engines(engines, record, about, models.get(bits), arguments.queries)
            else:
                option = "--checkpoint128" if bits == 128 else "--sketchy and --heldout"
                record.tell(f"real codes of {bits} bits are left out: give {option}")
    if arguments.floats and str(arguments.floats) not in record.values["floats"]:
        floats = float_search(arguments.floats)
        record.keep(f"float features, {arguments.floats:,}", "floats", str(arguments.floats), floats)
    for size, error in itertools.product(arguments.curve, CURVE_ERRORS):
        name = f"{size} {error}"
        if name not in record.values["curve"]:
            point = {"size": size, "error": error} | _curve_point(
                models.get(CURVE_BITS), size, error, arguments.queries
            )
            record.keep(f"bit error {error}, {size:,}", "curve", name, point)
    print_tables(record.values)
    if record.values["rows"]:
        draw_recall(record.values, out / "index.png")
    if record.values["curve"]:
        draw_curve(record.values, out / "index_curve.png")
    print(f"\nwritten: {', '.join(str(file) for file in sorted(out.glob('index*')))}")


class _Record:
    """What was measured, by part and name, and its file."""

    def __init__(self, path: Path, queries: int) -> None:
        import faiss

        machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, faiss {faiss.__version__}"
        self._path, self._began = path, time.perf_counter()
        made = {"machine": machine, "code": _code_digest(), "queries": queries}
        self.values: dict[str, Any] = {**made, "rows": {}, "floats": {}, "curve": {}, "models": {}}
        if path.is_file():
            self.values = json.loads(path.read_text(encoding="utf-8"))
            for name, here in made.items():
                if self.values.get(name) != here:
                    there = self.values.get(name, "unknown")
                    raise ValueError(f"{path} was measured with {name} {there}, not {here}: give another --out")
        self.tell(f"{machine}; results go to {path}")

    def check_model(self, bits: str, fingerprint: str) -> None:
        """Refuse a model other than the one measured before."""
        before = self.values["models"].get(bits, {}).get("fingerprint", fingerprint)
        if before != fingerprint:
            raise ValueError(
                f"{self._path} was measured with the model {before} of {bits} bits, not {fingerprint}: "
                f"give another --out"
            )

    def keep(self, text: str, part: str, name: str, value: dict[str, Any]) -> None:
        self.values[part][name] = value
        write_atomically(self._path, (json.dumps(self.values, indent=1) + "\n").encode())
        self.tell(text)

    def tell(self, text: str) -> None:
        print(f"[{time.perf_counter() - self._began:5.0f} s] {text}", flush=True)


def _measure_engines(
    engines: dict[str, str], record: _Record, about: dict[str, Any], model: ModelCodes | None, count: int
) -> None:
    """Measure the engines, by name what opens them, that have no row yet for these codes."""
    kind, bits, size = about.values()
    title = f"{kind}, {bits} bits, {size:,}"
    missing = {name: spec for name, spec in engines.items() if f"{title}: {name}" not in record.values["rows"]}
    if not missing:
        return
    codes, queries = make_codes(kind, size, count, bits, model)
    reference = Reference(codes, queries)
    for name, spec in missing.items():
        if spec not in ENGINES:
            spec = fresh_place(spec, f"{kind}_{size}")
        index = open_index(spec, bits=bits)
        if len(index):
            raise ValueError(f"{name}: the URL's table or collection must be empty, it holds {len(index):,} codes")
        local = spec in ENGINES
        row = about | {"engine": name} | measure(index, codes, queries, reference, local)
        if not local:
            index.remove(range(size))
        del index  # one of ten million codes is gone before the next one is made
        gc.collect()
        record.keep(f"{title}: {name}", "rows", f"{title}: {name}", row)


def fresh_place(url: str, suffix: str) -> str:
    """Give the URL of a table or collection of its own: in one that was emptied, the dead are still visited."""
    if url.startswith("milvus"):
        return f"{url}_{suffix}"
    base, found, table = url.partition("table=")
    if not found:
        raise ValueError(f"{url.partition(':')[0]}: give the URL with ?table=NAME")
    name, separator, others = table.partition("&")
    return f"{base}table={name}_{suffix}{separator}{others}"


def _code_digest() -> str:
    """Give a digest of the sources whose speed is measured."""
    digest = hashlib.sha256()
    for file in sorted(Path(index_sources.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _curve_point(model: ModelCodes | None, size: int, error: float, count: int) -> dict[str, float]:
    """Give the exact engine's time as a share of the flat scan's, by k, for codes this far from their words."""
    draws = np.random.default_rng(1)
    words: Codes = draws.integers(0, 256, (CURVE_WORDS, CURVE_BITS // 8), dtype=np.uint8)
    if model is not None:
        words = model.words
    codes = repeated_with_errors(words, size, error, CURVE_BITS)
    queries = flipped(words[draws.integers(len(words), size=count)], error, draws, CURVE_BITS)
    index, reference = open_index("exact", bits=CURVE_BITS), Reference(codes, queries)
    index.add(codes)
    ratios = {}
    with one_core():
        for k in KS:
            flat, exact = interleaved(partial(reference.search, k=k), partial(index.search, k=k), queries)
            ratios[f"k{k}"] = float(np.median(exact) / np.median(flat))
    return ratios


def _models(arguments: argparse.Namespace, out: Path) -> dict[int, tuple[ModelCodes, str]]:
    """Give, by their bits, what the checkpoints make of the pictures, and fingerprints; nothing without pictures."""
    if "real" not in arguments.kinds or not (arguments.sketchy and arguments.heldout):
        return {}
    made = {}
    for checkpoint in filter(None, (arguments.checkpoint, arguments.checkpoint128)):
        model, bits, fingerprint = model_codes(checkpoint, arguments.sketchy, arguments.heldout, out)
        made[bits] = model, fingerprint
    return made


def _size(text: str) -> int:
    """Read "100k" or "10M" as a number."""
    factor = {"k": 1000, "M": 1_000_000}.get(text[-1:], 1)
    return int(text.rstrip("kM")) * factor


def _listed(convert: Any, allowed: Iterable[Any] = ()) -> Any:
    """Give a converter of values between commas."""

    def convert_all(text: str) -> list[Any]:
        values = [convert(value) for value in text.split(",") if value]
        unknown = [value for value in values if allowed and value not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}; there are {', '.join(map(str, allowed))}")
        return values

    convert_all.__name__ = "list"  # argparse tells it where a value is none
    return convert_all


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks index", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    about = "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
    add = parser.add_argument
    add("--sizes", type=_listed(_size), default="100k,1M,10M", help="items, by default %(default)s")
    add("--bits", type=_listed(int, (64, 128)), default="64,128", help="by default %(default)s")
    add("--kinds", type=_listed(str, KINDS), default=",".join(KINDS), help=about)
    add("--engines", type=_listed(str, ENGINES), default=",".join(ENGINES), help="by default %(default)s")
    urls = "URLs whose table or collection begins the names of new ones; with none, servers are started here"
    add("--servers", nargs="*", metavar="URL", help=urls)
    add("--queries", type=int, default=200, help="by default %(default)s")
    add("--curve", type=_listed(_size), default="1M", metavar="SIZES", help="for time against bit error; '' for none")
    add("--floats", type=_size, default="1M", metavar="SIZE", help="for float search; 0 for none; 1M takes 8 GB")
    add("--sketchy", metavar="DIR", help="folder with Sketchy's 256x256/{sketch,photo}, for real codes")
    add("--heldout", metavar="DIR", help="unseen pictures in one folder a class, such as Caltech-101, for real codes")
    add("--checkpoint", default=str(RELEASED), help="by default %(default)s")
    add("--checkpoint128", metavar="X", help="a checkpoint of 128 bits, for real codes of that length")
    add("--out", default="runs/index", metavar="DIR", help="by default %(default)s")
    return parser
