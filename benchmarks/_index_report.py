"""The tables and figures of the benchmark of the index."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._index_measure import FEATURES, KS
from dsh_hf.files import write_atomically

FLAT = "IndexBinaryFlat"


def print_tables(record: dict[str, Any]) -> None:
    """Print a table for every kind of codes, length and size that was measured."""
    groups: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in record["rows"].values():
        groups.setdefault((row["kind"], row["bits"], row["size"]), []).append(row)
    for (kind, bits, size), rows in groups.items():
        floats = record["floats"].get(str(size))
        print(f"\n{kind} codes, {bits} bits, {size:,} items; medians of so many queries, one core")
        _print_table(_cells(rows, floats))
        if floats:
            taken = f"{floats['k10']:.0f} and {floats['k200']:.0f} ms a query"
            print(f"float search: {FEATURES}-d IndexFlatL2, {taken}; measured by itself, not in turns with the others")
    for bits, model in record["models"].items():
        errors, about = model["errors"], f"{model['heldout']:,} unseen pictures of {model['classes']} of its classes"
        print(f"\nbit errors of the model of {bits} bits, on {about}: mean {sum(errors) / len(errors):.3f}; each:")
        print(" ".join(f"{error:.3f}" for error in errors))
    for size, points in _curves(record).items():
        print(f"\nexact engine against {FLAT}, 64 bits, {size:,} codes around the classes' words: ratio of times")
        heads = ["bit error", *(f"k={k}" for k in KS)]
        _print_table([heads, *([f"{p['error']:.2f}", *(f"{p[f'k{k}']:.3f}" for k in KS)] for p in points)])


def draw_recall(record: dict[str, Any], path: Path) -> None:
    """Draw recall against queries a second: a panel for every kind of codes, length and size."""
    from matplotlib.figure import Figure

    rows = list(record["rows"].values())
    lines = list(dict.fromkeys((row["kind"], row["bits"]) for row in rows))
    sizes = sorted({row["size"] for row in rows})
    engines = list(dict.fromkeys([FLAT, *(row["engine"] for row in rows)]))
    colours = {engine: f"C{number}" for number, engine in enumerate(engines)}
    figure = Figure(figsize=(4.2 * len(sizes) + 2, 2.6 * len(lines) + 0.6), layout="constrained")
    panels = figure.subplots(len(lines), len(sizes), squeeze=False, sharex=True)
    for row in rows:
        panel = panels[lines.index((row["kind"], row["bits"])), sizes.index(row["size"])]
        others = [other for other in rows if all(other[name] == row[name] for name in ("kind", "bits", "size"))]
        for k, filled in zip(KS, (True, False), strict=True):
            points = [(row["engine"], row[f"k{k}"]["recall"], row[f"k{k}"]["p50"])]
            if row is others[0]:
                points.append((FLAT, 1.0, median(other[f"k{k}"]["flat"] for other in others)))
            for engine, reached, taken in points:
                face = colours[engine] if filled else "none"
                panel.plot(reached, 1e3 / taken, "o", color=colours[engine], markerfacecolor=face)
    for place, (kind, bits) in enumerate(lines):
        panels[place, 0].set_ylabel(f"{kind}, {bits} bits\nqueries a second")
        for panel, size in zip(panels[place], sizes, strict=True):
            panel.set_yscale("log")
            panel.grid(alpha=0.3)
            panel.set_title(f"{size:,} codes" if place == 0 else "")
            panel.set_visible(panel.has_data())
    for panel in panels[-1]:
        panel.set_xlabel("recall")
    for engine in engines:
        panels[0, -1].plot([], [], "o", color=colours[engine], label=engine)
    figure.legend(loc="outside right upper", title="filled: k = 10\nhollow: k = 200")
    _save(figure, path)


def draw_curve(record: dict[str, Any], path: Path) -> None:
    """Draw how the exact engine's time against a flat scan grows with the bit error of the codes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    panel = figure.subplots()
    for size, points in _curves(record).items():
        for k, style in zip(KS, ("o-", "o--"), strict=True):
            ratios = [point[f"k{k}"] for point in points]
            panel.plot([point["error"] for point in points], ratios, style, label=f"{size:,} codes, k = {k}")
    panel.axhline(1, color="black", linewidth=0.8)
    panel.set_yscale("log")
    panel.set_xlabel("bits that differ from the class's word")
    panel.set_ylabel(f"time / {FLAT}'s")
    panel.grid(alpha=0.3)
    panel.legend()
    _save(figure, path)


def _curves(record: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Give the points of every size, by ascending error."""
    points = sorted(record["curve"].values(), key=lambda point: (point["size"], point["error"]))
    return {size: list(group) for size, group in itertools.groupby(points, key=lambda point: point["size"])}


def _cells(rows: Sequence[dict[str, Any]], floats: dict[str, float] | None) -> list[list[str]]:
    head = ["engine", "build s", "disk B", "memory B"]
    for k in KS:
        head += [f"k={k} queries", "p50 ms", "p99", "x flat", "recall"]
    head.append("batch q/s")
    if floats:
        head += ["x faster than floats", "x smaller"]
    cells = [head]
    line = [FLAT, "", "", f"{rows[0]['bits'] / 8:.1f}"]
    for k in KS:
        line += ["", f"{median(row[f'k{k}']['flat'] for row in rows):.3f}", "", "1", "1"]
    cells.append([*line, "", *([""] * 2 if floats else [])])
    for row in rows:
        sizes = [f"{row[name]:.1f}" if name in row else "" for name in ("disk", "memory")]
        line = [row["engine"], f"{row['build']:.1f}", *sizes]
        for k in KS:
            found = row[f"k{k}"]
            share = "identical" if found["identical"] else f"{found['recall']:.4f}"
            line += [
                str(found["queries"]),
                f"{found['p50']:.3f}",
                f"{found['p99']:.3f}",
                f"{found['ratio']:.3f}",
                share,
            ]
        line.append(f"{row['batch']:,.0f}")
        if floats:
            faster = "/".join(f"{floats[f'k{k}'] / row[f'k{k}']['p50']:,.0f}" for k in KS)
            line += [faster, f"{4 * FEATURES / row['memory']:,.0f}" if "memory" in row else ""]
        cells.append(line)
    return cells


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())


def _save(figure: Any, path: Path) -> None:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    write_atomically(path, file.getvalue())
