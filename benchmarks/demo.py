"""Does the demo find what people draw, how soon, and for how many at once? Measured through its page and its API.

The drawings were made by hand, one of each of 50 common things, before any model was tried on them, and with them the
emoji that are right for each: those that show such a thing, not someone who uses it. The Quick, Draw! test has 50
words: of the data set's words in alphabetical order, without those that no emoji fits (``without_emoji`` in
quickdraw_test.json), every fifth or so, as evenly spread as 50 can be; of each, the last 10 drawings of a file with the
first 25. Training leaves them out by quickdraw_test_ids.txt. None of this is changed to suit a model.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks._demo_crowd import search_together, write_drawings
from benchmarks._demo_drawings import LOOKED_AT, Drawing, judge, rank, read_drawings, read_quickdraw, shares
from benchmarks._demo_page import (
    ANSWERED,
    STOPWATCH,
    clear,
    draw_stroke,
    memory_of,
    open_browser,
    open_pad,
    read_results,
    serve,
)
from dsh_hf import DSHModel
from dsh_hf.cli.options import RELEASED
from dsh_hf.contact_sheet import SIDE, draw_table, save_sheet
from dsh_hf.data.openmoji import render_emoji

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo"))

BATCH = 50
SHOWN = 5  # results on the sheet
FINER = 4  # times, before drawings are reduced to their size on the sheet
FRAME = 5  # of a right result, in pixels
ITEMS = 100_000
STROKES = 60
PEOPLE, EACH = 20, 100
# What is wanted: shares in percent of a right picture first and among the first 10, then milliseconds and seconds.
DRAWINGS_FIRST, DRAWINGS_TEN = 45, 80
QUICKDRAW_FIRST, QUICKDRAW_TEN = 30, 60
P50, P95, START, LONGEST = 250, 600, 15, 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for, or all that need no data."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default=str(RELEASED), metavar="X", help="folder or Hub id")
    parser.add_argument("--drawings", action="store_true", help="draw them with the mouse, read the results")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help=f"PNG of the drawings and their first {SHOWN} results"
    )
    parser.add_argument("--quickdraw", metavar="DIR", help="folder of <word>.ndjson files: search with the test's 500")
    parser.add_argument("--latency", action="store_true", help="time from a stroke's end to new pictures")
    parser.add_argument("--people", action="store_true", help=f"{PEOPLE} clients at once")
    arguments = parser.parse_args(argv)
    asked = arguments.drawings or arguments.sheet or arguments.latency or arguments.people or arguments.quickdraw
    if arguments.drawings or arguments.sheet or not asked:
        measure_drawings(arguments.checkpoint, arguments.sheet)
    if arguments.quickdraw:
        measure_quickdraw(arguments.checkpoint, read_quickdraw(arguments.quickdraw))
    if arguments.latency or not asked:
        measure_latency(arguments.checkpoint)
    if arguments.people or not asked:
        measure_people(arguments.checkpoint)
    return 0


def measure_drawings(checkpoint: str, sheet: Path | None) -> None:
    """Draw each drawing on the page's pad, and print where the first right emoji stands."""
    drawings = read_drawings()
    with serve(checkpoint) as server, open_browser() as page:
        open_pad(page, server.url)
        found = []
        for drawing in drawings:
            clear(page)
            for stroke in drawing.strokes:
                draw_stroke(page, stroke)
            found.append(read_results(page))
            place = rank(found[-1], drawing.accepted)
            print(f"{drawing.name:>12} {place or '-':>4}", flush=True)
    _print_shares(f"{len(drawings)} drawings", drawings, found, DRAWINGS_FIRST, DRAWINGS_TEN)
    if sheet:
        save_sheet(draw_sheet(drawings, found), sheet)
        print(f"written to {sheet}")


def measure_quickdraw(checkpoint: str, drawings: Sequence[Drawing]) -> None:
    """Search the demo's gallery with drawings as its pad would show them, and print the shares of each word."""
    from answers import CANDIDATES
    from galleries import open_openmoji
    from sketchpad import render_strokes

    model = DSHModel.from_pretrained(checkpoint)
    gallery = open_openmoji(model)
    found: list[list[str]] = []
    for start in range(0, len(drawings), BATCH):
        outputs = model.embed_sketches([render_strokes(each.strokes) for each in drawings[start : start + BATCH]])
        found += [[hit.id for hit in gallery.search(one, CANDIDATES)[:LOOKED_AT]] for one in outputs]
    for word in dict.fromkeys(drawing.name for drawing in drawings):
        ranks = [rank(ids, each.accepted) for each, ids in zip(drawings, found, strict=True) if each.name == word]
        first, ten = (round(share * len(ranks)) for share in shares(ranks))
        print(f"{word:>16}: of {len(ranks)}, {first:>2} first, {ten:>2} in the first {LOOKED_AT}")
    _print_shares(f"{len(drawings)} Quick, Draw! drawings", drawings, found, QUICKDRAW_FIRST, QUICKDRAW_TEN)


def measure_latency(checkpoint: str) -> None:
    """Print how long the page takes to start, and to show new pictures after a stroke."""
    with open_browser() as page:
        started = time.perf_counter()
        with serve(checkpoint) as server:
            open_pad(page, server.url)
            ready = time.perf_counter() - started
            draw_stroke(page, read_drawings()[0].strokes[0])
            read_results(page)
            answered = time.perf_counter() - started
        print(f"from start to pen: {judge(ready, START, ' s', most=True)}; to the first results: {answered:.1f} s")
        with serve(checkpoint, ["-m", "benchmarks._demo_serve", "--items", str(ITEMS)]) as server:
            waits = _time_strokes(page, server.url)
            told = page.inner_text("#facts")
    print(f"stroke end to new pictures, {len(waits)} strokes, {ITEMS:,} items:")
    for name, share, bar in (("p50", 50, P50), ("p95", 95, P95)):
        print(f"  {name} {judge(float(np.percentile(waits, share)), bar, ' ms', most=True)}")
    print(f"  longest {max(waits):.0f} ms; the page says: {told}")


def _time_strokes(page: Any, url: str) -> list[float]:
    open_pad(page, url)
    page.evaluate(STOPWATCH, ANSWERED)
    waits: list[float] = []
    for drawing in read_drawings():
        clear(page)
        for stroke in drawing.strokes:
            draw_stroke(page, stroke)
            waits.append(page.evaluate("() => window.shown"))
            if len(waits) == STROKES:
                return waits
    raise ValueError(f"the drawings have fewer than {STROKES} strokes")


def measure_people(checkpoint: str) -> None:
    """Let people search alone, one after the other, then all at once, and compare what they get."""
    from sketchpad import render_strokes

    with tempfile.TemporaryDirectory() as folder, serve(checkpoint) as server:
        files = write_drawings(Path(folder), read_drawings(), PEOPLE * EACH, render_strokes)
        parts = [files[person * EACH : (person + 1) * EACH] for person in range(PEOPLE)]
        alone = [search_together(server.url, [part])[0] for part in parts]
        before = memory_of(server.pid)
        together = search_together(server.url, parts)
        after = memory_of(server.pid)
    waits = np.concatenate([person.waits for person in together])
    pairs = list(zip(alone, together, strict=True))
    differing = sum(a != b for one, other in pairs for a, b in zip(one.answers, other.answers, strict=True))
    kinds = len({tuple(answer) for person in alone for answer in person.answers})
    print(f"{PEOPLE} people at once, {waits.size:,} searches:")
    print(f"  longest wait {judge(waits.max(), LONGEST, ' s', most=True)}; median {np.median(waits):.2f} s")
    print(f"  answers that are not those got alone: {differing} (wanted: 0); {kinds:,} different ones")
    print(f"  memory of the server: {before:.0f} MiB before, {after:.0f} MiB after")


def _print_shares(
    what: str, drawings: Sequence[Drawing], found: Sequence[Sequence[str]], bar_first: float, bar_ten: float
) -> None:
    ranks = [rank(ids, drawing.accepted) for drawing, ids in zip(drawings, found, strict=True)]
    first, ten = (100 * share for share in shares(ranks))
    print(f"{what}: right first {judge(first, bar_first, '%')}; in the first {LOOKED_AT} {judge(ten, bar_ten, '%')}")


def draw_sheet(drawings: Sequence[Drawing], found: Sequence[Sequence[str]]) -> Image.Image:
    """Draw each drawing beside its first results, the right ones framed.

    Args:
        drawings: what was drawn.
        found: for each drawing the codes of its results, nearest first.
    """
    from sketchpad import render_strokes

    rows = []
    for drawing, ids in zip(drawings, found, strict=True):
        pictures = [_result(code, code in drawing.accepted) for code in ids[:SHOWN]]
        rows.append([[render_strokes(drawing.strokes, FINER * SIDE).reduce(FINER).convert("RGB")], pictures])
    names = [
        f"{drawing.name}: {rank(ids, drawing.accepted) or 'none'}" for drawing, ids in zip(drawings, found, strict=True)
    ]
    groups = {"drawing": 1, f"its first {SHOWN} results, the right ones framed; left, the place of the first": SHOWN}
    return draw_table(rows, names, groups, "OpenMoji (CC BY-SA 4.0)")


def _result(code: str, right: bool) -> Image.Image:
    side = SIDE - 2 * FRAME
    return ImageOps.expand(render_emoji(code).resize((side, side)), FRAME, "#1b7837" if right else "white")
