"""What the benchmark of speed prints and draws: a table for each part, its bars, and how cost grows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks._speed_measure import WORSE_THAN_LINEAR, exponent, spread
from dsh_hf.files import replaced_atomically

END_TO_END, FASTER_TO_ENCODE, SMALLER, FASTER_TO_SEARCH, FLAT = 0.8, 5.0, 128.0, 100.0, 0.1  # the bars
FLOAT16_BYTES = 2


def print_encode(found: dict[str, Any]) -> None:
    """Print pictures a second, and end to end as a share of the networks alone."""
    for kind, part in found.items():
        pictures = "sketches" if kind == "sketch" else "images"
        print(f"\nencode {pictures}: the networks alone, tensors ready, at the best batch size of each engine")
        first = part["engines"][0]["per_second"]
        rows = [["engine", "batch", "a second", "x float32"]]
        for row in part["engines"]:
            rate = row["per_second"]
            rows.append([row["name"], str(row["batch"]), f"{rate:,.1f}", f"{rate / first:.2f}"])
        print_table(rows)
        for line in part["remarks"]:
            print(line)
        print(f"\nencode {pictures}: files in, packed codes out; in turns with the networks alone")
        print_table([["", "a second"], *([name, f"{rate:,.1f}"] for name, rate in part["per_second"].items())])
        for name, ratio in part["ratios"].items():
            bar = f" (bar: {END_TO_END}, {_verdict(ratio >= END_TO_END)})" if name.startswith("256") else ""
            print(f"files of {name}: {ratio:.2f} x the networks alone{bar}")


def print_rivals(found: dict[str, Any]) -> None:
    """Print what 1,000 pictures take beside other encoders, and what an item and a search cost."""
    encoders, search, bits, floats = found["encoders"], found["search"], found["bits"], found["features"]
    print("\n1,000 pictures of 256 px, files to codes or features; the faster of float32 and bfloat16 counts")
    rows = [["", "counted", "seconds", "CPU seconds", "x as long", "x CPU"]]
    own = encoders["this model"][encoders["this model"]["faster"]]
    for name, row in encoders.items():
        taken = row[row["faster"]]
        ratios = [f"{taken[key] / own[key]:.2f}" for key in ("seconds", "cpu")]
        rows.append([name, row["faster"], f"{taken['seconds']:.2f}", f"{taken['cpu']:.2f}", *ratios])
    print_table(rows)
    rival = encoders["CLIP ViT-B/16"]
    ratio = rival[rival["faster"]]["seconds"] / own["seconds"]
    print(
        f"CLIP ViT-B/16 takes {ratio:.1f} x as long (bar: {FASTER_TO_ENCODE:g}, {_verdict(ratio >= FASTER_TO_ENCODE)})"
    )
    smaller = FLOAT16_BYTES * floats / (bits / 8)
    print(
        f"an item: {bits // 8} bytes; {floats}-d float16: {FLOAT16_BYTES * floats} bytes, {smaller:g} x as large "
        f"(bar: {SMALLER:g}, {_verdict(smaller >= SMALLER)})"
    )
    print(
        f"\nsearch, {search['size']:,} items, {floats}-d float32 by a matrix product against the exact index of codes"
    )
    rows = [["", "ms a query", "floats / this"]]
    for name, key, other in (
        ("floats, one query at a time", "floats", "floats"),
        ("codes of the model", "codes", "floats"),
        ("codes at random, the worst case", "uniform", "floats"),
        ("floats, all queries at once", "floats_batch", "floats_batch"),
        ("codes of the model, all at once", "codes_batch", "floats_batch"),
    ):
        rows.append([name, f"{search[key]:.3f}", f"{search[other] / search[key]:,.0f}"])
    print_table(rows)
    ratio = search["floats"] / search["codes"]
    verdict = _verdict(ratio >= FASTER_TO_SEARCH)
    print(f"codes are searched {ratio:,.0f} x as fast (bar: {FASTER_TO_SEARCH:g}, {verdict})")


def print_answer(found: dict[str, Any]) -> None:
    """Print seconds from a sketch to its answer."""
    print(f"\nsketch to answer, {found['size']:,} items; cold: from the start of the process, files in the disk cache")
    steps = ("whole", "import", "model", "load", "answer", "warm")
    heads = ["searched", "cold s", "import", "model", "items", "first answer", "warm ms"]
    rows = [
        [kind, *(f"{1e3 * row[step]:.1f}" if step == "warm" else f"{row[step]:.2f}" for step in steps)]
        for kind, row in found["rows"].items()
    ]
    print_table([heads, *rows])


def print_growth(found: dict[str, Any]) -> None:
    """Print times by size, and the exponents of growth."""
    print("\ngrowth: seconds, by size; time grows as size to the exponent")
    rows = [["", "size", "seconds", "an item, us", "exponent"]]
    for name, points in curves(found).items():
        sizes, times = zip(*points, strict=True)
        power = exponent(sizes, times) if len(points) > 1 else None
        for number, (size, seconds) in enumerate(points):
            last = f"{power:.2f}" if power is not None and number == len(points) - 1 else ""
            each = f"{1e6 * seconds / size:,.3f}"
            rows.append([name if number == 0 else "", f"{size:,}", f"{seconds:.5f}", each, last])
    print_table(rows)
    powers = {name: exponent(*zip(*points, strict=True)) for name, points in curves(found).items() if len(points) > 1}
    if powers:
        name = max(powers, key=powers.__getitem__)
        verdict = _verdict(powers[name] <= WORSE_THAN_LINEAR)
        print(
            f"the steepest: {name}, exponent {powers[name]:.2f} (bar: 1, within {WORSE_THAN_LINEAR - 1:.2f}, {verdict})"
        )


def print_memory(found: list[dict[str, Any]]) -> None:
    """Print the peak memory of processes that encode."""
    print(f"\npeak memory of a process that encodes, backend {found[0]['backend']}")
    rows = [[f"{row['size']:,}", f"{row['memory']:,.0f}", f"{row['seconds']:,.0f}"] for row in found]
    print_table([["pictures", "MB", "seconds"], *rows])
    if len(found) > 1:
        more = spread([row["memory"] for row in found])
        print(f"{100 * more:.1f}% between the least and the most (bar: {100 * FLAT:g}%, {_verdict(more <= FLAT)})")


PRINTERS: dict[str, Callable[[Any], None]] = {
    "encode": print_encode,
    "rivals": print_rivals,
    "answer": print_answer,
    "growth": print_growth,
    "memory": print_memory,
}


def curves(found: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Give points of size and seconds, by what grows."""
    lists = {
        f"encode pictures, {found['backend']}": found["encode"],
        "a query, codes of the model": found["search"]["codes"],
        "a query, codes at random": found["search"]["uniform"],
        "a round of code steps, rows": found["code_steps"]["rows"],
        "a round of code steps, classes": found["code_steps"]["classes"],
    }
    return {name: [(row["size"], row["seconds"]) for row in rows] for name, rows in lists.items()}


def draw_growth(found: dict[str, Any], path: Path) -> None:
    """Draw time over size, both as logarithms, with a line of linear growth beside.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "dsh-hf[train]"') from error

    figure = Figure(figsize=(6.5, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, points in curves(found).items():
        sizes, times = zip(*points, strict=True)
        power = f", exponent {exponent(sizes, times):.2f}" if len(points) > 1 else ""
        (line,) = axes.plot(sizes, times, "o-", label=name + power)
        axes.plot(sizes, [times[0] * size / sizes[0] for size in sizes], ":", color=line.get_color(), linewidth=1)
    axes.plot([], [], ":", color="grey", label="linear growth")
    axes.set(xscale="log", yscale="log", xlabel="pictures, items, rows or classes", ylabel="seconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", frameon=False)
    with replaced_atomically(path) as temporary:
        figure.savefig(temporary, format="png")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print columns, all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"
