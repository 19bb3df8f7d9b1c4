"""The sketchpad of the page: a canvas that hands on strokes while they are drawn, and a few example drawings."""

from collections.abc import Sequence
from math import cos, inf, radians, sin
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import gradio as gr

Stroke = Sequence[float]  # x, y, x, y, ... in percent of the pad's side

MAX_NUMBERS = 20_000  # of a drawing; strokes beyond are left out
LINE = 0.012  # width of a line, as a share of the pad's side


def make_sketchpad() -> "gr.HTML":
    """Make the pad; its value is a list of strokes, its event ``input`` comes with every change of the drawing.

    A canvas of our own in place of ``gr.Sketchpad``: the pen is in hand from the first moment and after Clear, a
    stroke costs no WebGL and no upload of pictures, and it is sent while it is being drawn.
    """
    import gradio as gr

    return gr.HTML(
        elem_id="pad",
        html_template=HTML,
        css_template=CSS,
        js_on_load=Path(__file__).with_suffix(".js").read_text(encoding="utf-8"),
        apply_default_css=False,
        examples=EXAMPLES,
    )


def read_strokes(sent: Any) -> list[Stroke]:
    """Check a drawing as the page, or somebody in its place, sends it; strokes beyond what is drawn are left out.

    Raises:
        ValueError: it is no list of strokes.
    """
    strokes: list[Stroke] = []
    numbers = 0
    for stroke in sent or []:
        numbers += len(stroke)
        if numbers > MAX_NUMBERS:
            break
        points = all(isinstance(value, int | float) and abs(value) < inf for value in stroke)  # false for nan, too
        if not stroke or len(stroke) % 2 or not points:
            raise ValueError("a stroke has an x and a y for each of its points")
        strokes.append(stroke)
    return strokes


def render_strokes(strokes: Sequence[Stroke], size: int = 400) -> Image.Image:
    """Draw strokes, black on white, as the sketchpad shows them; give a grey picture."""
    side = 2 * size  # drawn larger, then reduced: PIL's own lines have rough edges
    paper = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(paper)
    width = max(1, round(LINE * side))
    for stroke in strokes:
        line = [min(max(value, 0.0), 100.0) * side / 100 for value in stroke]
        pen.line(line, fill=0, width=width, joint="curve")
        for x, y in zip(line[::2], line[1::2], strict=True):
            pen.circle((x, y), width / 2, fill=0)
    return paper.reduce(2)


def _arc(x: float, y: float, width: float, height: float, start: int = 0, stop: int = 360) -> list[float]:
    """Give an elliptic arc around (x, y) as a stroke; 0 degrees is to the right, 90 is down."""
    steps = [radians(start + (stop - start) * i / 32) for i in range(33)]
    return [round(value, 1) for a in steps for value in (x + width / 2 * cos(a), y + height / 2 * sin(a))]


EXAMPLES: dict[str, list[list[float]]] = {
    "cat": [
        [*_arc(50, 56, 62, 58, -50, 230)],
        [30, 34, 22, 10, 44, 27, 56, 27, 78, 10, 70, 34],
        _arc(39, 50, 6, 9),
        _arc(61, 50, 6, 9),
        [46, 62, 54, 62, 50, 67, 46, 62],
        [50, 67, *_arc(44, 67, 12, 12, 0, 140)],
        [50, 67, *_arc(56, 67, 12, 12, 180, 40)],
        [30, 63, 6, 58],
        [30, 68, 6, 72],
        [70, 63, 94, 58],
        [70, 68, 94, 72],
    ],
    "fish": [
        _arc(42, 50, 64, 42, 10, 350),
        [73, 46, 94, 30, 90, 50, 94, 70, 73, 54],
        _arc(24, 45, 5, 5),
        _arc(28, 50, 16, 34, -60, 60),
        [10, 55, 20, 57],
        [38, 30, 48, 18, 58, 32],
    ],
    "apple": [
        [50, 30, *_arc(32, 52, 40, 48, -70, -180), *_arc(36, 58, 48, 60, 180, 70)],
        [50, 30, *_arc(68, 52, 40, 48, -110, 0), *_arc(64, 58, 48, 60, 0, 110)],
        [44, 86, 50, 84, 56, 86],
        [50, 32, 49, 20, 54, 10],
        [52, 22, *_arc(64, 18, 24, 12, 160, 340), 52, 22],
    ],
    "sailboat": [
        [8, 68, 92, 68, 78, 86, 24, 86, 8, 68],
        [48, 68, 48, 8],
        [52, 12, 52, 60, 86, 60, 52, 12],
        [44, 20, 44, 60, 18, 60, 44, 20],
    ],
    "mushroom": [
        [*_arc(50, 48, 80, 72, 180, 360), 10, 48],
        [38, 48, 36, 84, *_arc(50, 84, 28, 10, 180, 0), 62, 48],
        _arc(50, 28, 14, 12),
        _arc(28, 38, 10, 9),
        _arc(72, 38, 10, 9),
    ],
    "umbrella": [
        _arc(50, 50, 88, 76, 180, 360),
        _arc(20.7, 50, 29.3, 14, 180, 360),
        _arc(50, 50, 29.3, 14, 180, 360),
        _arc(79.3, 50, 29.3, 14, 180, 360),
        [50, 12, 50, 5],
        [50, 43, 50, 86, *_arc(43, 86, 14, 14, 0, 180)],
    ],
    "butterfly": [
        _arc(50, 52, 7, 56),
        [47, 40, *_arc(27, 30, 42, 40, 50, 380), 47, 40],
        [53, 40, *_arc(73, 30, 42, 40, 130, -200), 53, 40],
        [47, 54, *_arc(31, 70, 32, 34, -20, 310), 47, 54],
        [53, 54, *_arc(69, 70, 32, 34, 200, -130), 53, 54],
        [49, 24, 42, 8],
        [51, 24, 58, 8],
    ],
}

HTML = """
<div class="paper empty"><canvas width="800" height="800" role="img" aria-label="sketchpad"></canvas>
<p>draw here</p></div>
<div class="tools" role="toolbar" aria-label="tools">
<button class="pen" aria-pressed="true">Pen</button><button class="eraser" aria-pressed="false">Eraser</button>
<button class="undo">Undo</button><button class="clear">Clear</button>
<button class="save" title="download the drawing as a picture">Save</button>
<button class="link" title="copy a link that opens this drawing">Link</button></div>
<p class="told" role="status"></p>
<div class="examples" role="group" aria-label="examples"></div>
"""
CSS = """
max-width: 520px; margin: 0 auto;
.paper { position: relative; }
.paper canvas { display: block; width: 100%; background: white; touch-action: none; cursor: crosshair;
  border: 1px solid var(--border-color-primary); border-radius: 8px; }
.paper.erasing canvas { cursor: cell; }
.paper p { position: absolute; inset: 47% 0 auto; margin: 0; text-align: center; color: #767676; pointer-events: none; }
.paper:not(.empty) p { display: none; }
.tools, .examples { display: flex; gap: 6px; justify-content: center; margin-top: 8px; }
.tools button { padding: 4px 12px; border-radius: 8px; color: var(--button-secondary-text-color);
  background: var(--button-secondary-background-fill); border: 1px solid transparent; }
.tools button[aria-pressed=true] { border-color: var(--color-accent); }
.told { min-height: 1.5em; margin: 4px 0 0; text-align: center; font-size: 0.85em; }
.examples { margin-top: 0; }
.examples button { flex: 0 1 54px; min-width: 0; background: white; border-radius: 8px;
  border: 1px solid var(--border-color-primary); }
.examples canvas { display: block; width: 100%; }
@media (max-width: 480px) { .tools { gap: 4px; } .tools button { padding: 4px 8px; } }
"""
