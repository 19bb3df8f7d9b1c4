"""Drawings with the emoji that are right for them, and where these stand among the results."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsh_hf.data.quickdraw import word_files

HERE = Path(__file__).parent
DRAWINGS = HERE / "drawings.json"
QUICKDRAW = HERE / "quickdraw_test.json"
LOOKED_AT = 10  # results; a right one further down is a miss
MARGIN = 100 / 16  # around a Quick, Draw! drawing, in percent of the pad's side


@dataclass(frozen=True)
class Drawing:
    """A drawing, and what a person who drew it accepts.

    Attributes:
        name: of what is drawn.
        strokes: each ``[x, y, x, y, ...]`` in percent of the pad's side.
        accepted: codes of the emoji that are the right kind of picture.
    """

    name: str
    strokes: list[list[float]]
    accepted: list[str]


def read_drawings() -> list[Drawing]:
    """Read the drawings that were made by hand."""
    return [Drawing(**entry) for entry in json.loads(DRAWINGS.read_text(encoding="utf-8"))]


def read_quickdraw(folder: str | Path) -> list[Drawing]:
    """Read the Quick, Draw! drawings of the test, word by word.

    Args:
        folder: where the ``<word>.ndjson`` files lie.

    Raises:
        FileNotFoundError: a word's file is missing.
        ValueError: a file lacks some of the drawings.
    """
    files = word_files(Path(folder))
    drawings = []
    for word, wanted in json.loads(QUICKDRAW.read_text(encoding="utf-8"))["words"].items():
        if word not in files:
            raise FileNotFoundError(f"no {word}.ndjson in {folder}")
        with files[word].open(encoding="utf-8") as lines:
            there = {row["key_id"]: row["drawing"] for row in map(json.loads, lines)}
        missing = [key for key in wanted["drawings"] if key not in there]
        if missing:
            raise ValueError(f"{files[word]} lacks the drawings {', '.join(missing)}")
        drawings += [Drawing(word, on_the_pad(there[key]), wanted["accepted"]) for key in wanted["drawings"]]
    return drawings


def on_the_pad(strokes: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """Lay a Quick, Draw! drawing on the pad: in its middle, as large as the margin allows.

    Args:
        strokes: for each stroke its x and its y values.
    """
    ranges = [[value for stroke in strokes for value in stroke[axis]] for axis in (0, 1)]
    extent = max(max(values) - min(values) for values in ranges) or 1
    scale = (100 - 2 * MARGIN) / extent
    shifts = [50 - scale * (min(values) + max(values)) / 2 for values in ranges]
    return [
        [
            scale * value + shift
            for point in zip(*stroke[:2], strict=True)
            for value, shift in zip(point, shifts, strict=True)
        ]
        for stroke in strokes
    ]


def rank(found: Sequence[str], accepted: Sequence[str]) -> int | None:
    """Say which of the first 10 results is the first right one, counted from 1; None where none is."""
    return next((place for place, code in enumerate(found[:LOOKED_AT], start=1) if code in accepted), None)


def shares(ranks: Sequence[int | None]) -> tuple[float, float]:
    """Give the shares of drawings with a right result in the first place, and among the first 10."""
    return sum(place == 1 for place in ranks) / len(ranks), sum(place is not None for place in ranks) / len(ranks)


def judge(value: float, bar: float, unit: str, most: bool = False) -> str:
    """Write a figure with what was wanted of it, and say if it is missed."""
    missed = value > bar if most else value < bar
    form = ".0f" if unit == " ms" else ".1f"
    return f"{value:{form}}{unit} (wanted: {'<=' if most else '>='} {bar:g}{unit}{', MISSED' if missed else ''})"
