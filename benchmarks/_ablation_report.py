"""The ablation's results: the file that a run goes on from, the table, and the figure."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._ablation_measures import interval
from benchmarks._ablation_rows import ROWS
from dsh_hf.files import replaced_atomically, write_atomically

Figures = Mapping[str, Any]

REFERENCE = "dsh"  # the row that all others are compared with, at REFERENCE_BITS
REFERENCE_BITS = 64


class Results:
    """What is measured so far, kept in ``results.json`` of a folder.

    Args:
        out: the folder.
        settings: what the figures depend on; those of an earlier run in this folder must be the same.

    Attributes:
        tables: for each table its figures by row and length, ``{"open": {"dsh": {"64": {...}}}}``.
        facts: what a run finds out about itself: the rounds of each table, and what machine it ran on.

    Raises:
        ValueError: the folder holds results of other settings.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out, self._path = out, out / "results.json"
        self.settings = json.loads(json.dumps(settings))
        self.tables: dict[str, dict[str, dict[str, Figures]]] = {}
        self.facts: dict[str, Any] = {}
        if self._path.is_file():
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            if stored["settings"] != self.settings:
                raise ValueError(f"{self._path} was measured with other settings: give another --out, or delete it")
            self.tables, self.facts = stored["tables"], stored["facts"]
        out.mkdir(parents=True, exist_ok=True)

    def has(self, table: str, row: str) -> bool:
        """Tell whether a row is measured."""
        return row in self.tables.get(table, {})

    def add(self, table: str, figures: Mapping[str, Mapping[str, Figures]]) -> None:
        """Keep figures by row and length."""
        self.tables.setdefault(table, {}).update({row: dict(own) for row, own in figures.items()})
        self.save()

    def save(self) -> None:
        """Write the file."""
        content = {"settings": self.settings, "facts": self.facts, "tables": self.tables}
        write_atomically(self._path, (json.dumps(content, indent=1) + "\n").encode())

    def path_of(self, table: str, row: str, length: str) -> Path:
        """Say where the rankings of a row are."""
        return self.out / table / f"{row}-{length}.npz"


def markdown(results: Results, bits: Sequence[int]) -> str:
    """Give the tables as text, in Markdown."""
    parts = []
    for table, rows in results.tables.items():
        about = results.facts[table]
        titles = ["", "MAP, floats", "P@10", *(f"{part}, {b} bits" for b in bits for part in ("MAP", "P@10"))]
        lines = [
            f"## {table}: {about['data']}",
            "",
            f"{about['classes']} classes in training, {about['queries']:,} queries, {about['gallery']:,} images in the "
            f"gallery. {about['steps']:,} network steps a row{_told_start(about)}; {told_time(rows)}; "
            f"{about['machine']}. MAP over the "
            "whole gallery with its 95% interval over queries. The last column: MAP of DSH whole at "
            f"{REFERENCE_BITS} bits less that of the row (of {REFERENCE_BITS} bits, or of its floats), over the same "
            "queries.",
            "",
            f"| {' | '.join([*titles, 'DSH is better by'])} |",
            f"|---|{(len(titles)) * '---:|'}",
        ]
        for name, row in ROWS.items():
            if name in rows:
                cells = [row.title, *_cells(rows[name].get("floats"))]
                cells += [cell for b in bits for cell in _cells(rows[name].get(str(b)))]
                lines.append(f"| {' | '.join([*cells, _gain(results, table, name)])} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def told_time(rows: Mapping[str, Mapping[str, Figures]]) -> str:
    """Say how long the row that took longest trained."""
    longest = max(figures["seconds"] for row in rows.values() for figures in row.values())
    return f"the longest row trained {longest:.0f} s"


def _told_start(about: Figures) -> str:
    steps = about["warm_steps"]
    return f", from a trunk that {steps:,} steps with the softmax loss made, the same for all" if steps else ""


def _cells(figures: Figures | None) -> list[str]:
    if figures is None:
        return ["", ""]
    half = (figures["map_high"] - figures["map_low"]) / 2
    return [f"{figures['map']:.3f} ± {half:.3f}", f"{figures['precision_at_10']:.3f}"]


def _gain(results: Results, table: str, row: str) -> str:
    """Compare a row with the reference, query by query."""
    own = results.tables[table]
    length = str(REFERENCE_BITS) if str(REFERENCE_BITS) in own[row] else "floats"
    if row == REFERENCE or str(REFERENCE_BITS) not in own.get(REFERENCE, {}) or length not in own[row]:
        return ""
    paths = (results.path_of(table, REFERENCE, str(REFERENCE_BITS)), results.path_of(table, row, length))
    better, worse = (np.load(path)["average_precisions"] for path in paths)
    low, high = interval(better - worse)
    return f"{(better - worse).mean():+.3f} ({low:+.3f} to {high:+.3f})"


def draw(results: Results, bits: Sequence[int], path: Path) -> None:
    """Draw a panel for each table: a group of bars for each row, a bar for each length.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "dsh-hf[train]"') from error

    lengths = {"floats": "0.6"} | {
        str(b): colour for b, colour in zip(sorted(bits), ("#9ecae1", "#4292c6", "#08519c"), strict=False)
    }
    figure = Figure(figsize=(5.2 * len(results.tables), 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(results.tables), squeeze=False)[0]
    for axes, (table, rows) in zip(panels, results.tables.items(), strict=True):
        names = [name for name in ROWS if name in rows]
        for place, name in enumerate(names):
            present = [length for length in lengths if length in rows[name]]
            height = 0.8 / len(present)
            for number, length in enumerate(present):
                found = rows[name][length]
                where = place + (number - (len(present) - 1) / 2) * height
                spread = [[found["map"] - found["map_low"]], [found["map_high"] - found["map"]]]
                axes.barh(where, found["map"], height, color=lengths[length], xerr=spread, ecolor="0.25")
        axes.set_yticks(range(len(names)), [ROWS[name].title for name in names])
        axes.set(title=f"{table}: {results.facts[table]['data']}", xlabel="MAP, and its 95% interval", xlim=(0, 1))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [panels[0].barh(0, 0, color=colour) for colour in lengths.values()]
    labels = [name if name == "floats" else f"{name} bits" for name in lengths]
    figure.legend(handles, labels, frameon=False, ncols=len(labels), loc="outside lower center")
    with replaced_atomically(path) as temporary:
        figure.savefig(temporary, format="png")
