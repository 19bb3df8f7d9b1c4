"""Every figure of speed: encoding, other encoders, sketch to answer, growth, memory; as ratios of one run.

Parts are measured one after the other, medians of runs in turns. Results are kept in speed.json of the output folder
after each part; a part that is measured again replaces its earlier figures, and what was measured on another machine
is refused. Without --pictures and --sketches, generated ones are encoded.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import _speed_growth as growth
from benchmarks._speed_encode import measure_encoding, measure_rivals
from benchmarks._speed_measure import machine
from benchmarks._speed_pictures import make_pictures
from benchmarks._speed_report import PRINTERS, draw_growth
from benchmarks._speed_search import FEATURES, measure_answer, measure_search
from dsh_hf import DSHModel
from dsh_hf.cli.options import RELEASED
from dsh_hf.files import write_atomically


class Speed:
    """The parts of the benchmark, and what several of them need.

    Attributes:
        files: the pictures' paths by kind and size.
        parts: what measures each part, by its name.
    """

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        self._set, self._out = arguments, out
        self.files = make_pictures(out / "pictures", arguments.count, arguments.pictures, arguments.sketches)
        self.parts: dict[str, Callable[[], Any]] = {
            "encode": self.encode,
            "rivals": self.rivals,
            "answer": self.answer,
            "growth": self.growth,
            "memory": self.memory,
        }

    @cached_property
    def codes(self) -> dict[str, Any]:
        """The model's codes of the pictures, and its bits."""
        model = DSHModel.from_pretrained(self._set.checkpoint, device=self._set.device)
        return {
            "image": model.encode_images(self.files["image 256"]),
            "sketch": model.encode_sketches(self.files["sketch 256"]),
            "bits": model.config.bits,
        }

    @cached_property
    def listed(self) -> Path:
        """A file with the pictures' paths, for processes that encode them."""
        path = self._out.resolve() / "pictures.txt"
        files = [str(Path(file).resolve()) for file in self.files["image 256"]]
        write_atomically(path, "\n".join(files).encode())
        return path

    def encode(self) -> dict[str, Any]:
        """Measure end to end against the networks alone."""
        return measure_encoding(self._set.checkpoint, self.files, self._set.device, self._set.runs)

    def rivals(self) -> dict[str, Any]:
        """Measure against CLIP and ResNet-50, and against the search of floats."""
        few = self.files["image 256"][: self._set.rival_count]
        images, sketches, bits = self.codes.values()
        return {
            "encoders": measure_rivals(self._set.checkpoint, few, self._set.device, self._set.runs),
            "search": measure_search(images, sketches, self._set.items, bits),
            "bits": bits,
            "features": FEATURES,
        }

    def answer(self) -> dict[str, Any]:
        """Measure the way from a sketch to its answer."""
        sketch = str(Path(self.files["sketch 256"][0]).resolve())
        images, _, bits = self.codes.values()
        place, items = self._out.resolve(), self._set.items
        rows = measure_answer(self._set.checkpoint, images, sketch, items, bits, place, self._set.runs)
        return {"size": items, "rows": rows}

    def growth(self) -> dict[str, Any]:
        """Measure how time grows with the size."""
        images, sketches, bits = self.codes.values()
        return {
            "backend": self._set.backend,
            "encode": growth.measure_encoding_growth(
                self._set.checkpoint, self._set.backend, self.listed, self._set.most
            ),
            "search": growth.measure_search_growth(images, sketches, self._set.most_items, bits, self._set.runs),
            "code_steps": growth.measure_code_steps(self._set.most_rows, self._set.runs),
        }

    def memory(self) -> list[dict[str, Any]]:
        """Measure the peak of memory for growing numbers of pictures, but the least."""
        found = growth.measure_encoding_growth(self._set.checkpoint, self._set.backend, self.listed, self._set.most)
        return [
            row | {"backend": self._set.backend}
            for row in found
            if row["size"] >= min(growth.PICTURES[1], self._set.most)
        ]


def main(argv: Sequence[str]) -> None:
    """Measure the parts; print their tables; write ``speed.json`` and ``speed.png``.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: a folder or a checkpoint is not there, or a process that was measured failed.
        ValueError: the output folder has results of another machine.
    """
    arguments = _parser().parse_args(argv)
    if Path(arguments.checkpoint).is_dir():
        arguments.checkpoint = str(Path(arguments.checkpoint).resolve())  # other processes start elsewhere
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "speed.json"
    here = machine(arguments.device)
    record: dict[str, Any] = {"machine": here, "parts": {}}
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["machine"] != here:
            raise ValueError(f"{path} was measured on another machine, {record['machine']}: give another --out")
    print("; ".join(f"{name}: {value}" for name, value in here.items()))
    source = arguments.pictures or "generated"
    print(f"pictures: {source}; sketches: {arguments.sketches or 'generated'}; checkpoint: {arguments.checkpoint}")
    speed = Speed(arguments, out)
    for name in arguments.part:
        began = time.perf_counter()
        record["parts"][name] = speed.parts[name]()
        write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
        PRINTERS[name](record["parts"][name])
        print(f"[{name}: {time.perf_counter() - began:,.0f} s]", flush=True)
    if "growth" in record["parts"]:
        draw_growth(record["parts"]["growth"], out / "speed.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    parts = list(PRINTERS)
    add("--part", nargs="+", choices=parts, default=parts, metavar="PART", help=f"some of {', '.join(parts)}")
    add("--pictures", metavar="DIR", help="folder of real pictures")
    add("--sketches", metavar="DIR", help="folder of real sketches")
    add("--checkpoint", default=str(RELEASED), help="folder or Hub id; by default %(default)s")
    add("--device", default="cpu", help="where networks compute, in encode and rivals; by default %(default)s")
    add("--backend", choices=["torch", "onnx"], default="torch", help="of growth and memory; by default %(default)s")
    add("--runs", type=int, default=5, help="of each thing, in turns, after one for warmth; by default %(default)s")
    add("--count", type=int, default=256, help="pictures of a run; by default %(default)s")
    add("--rival-count", type=int, default=128, help="pictures of a run beside other encoders; by default %(default)s")
    add("--items", type=int, default=1_000_000, help="to search in rivals and answer; by default %(default)s")
    add("--most", type=int, default=growth.PICTURES[-1], help="pictures in growth and memory; by default %(default)s")
    add("--most-items", type=int, default=growth.ITEMS[-1], help="items in growth; by default %(default)s")
    add("--most-rows", type=int, default=growth.ROWS[-1], help="rows of code steps in growth; by default %(default)s")
    add("--out", default="runs/speed", metavar="DIR", help="by default %(default)s")
    return parser
