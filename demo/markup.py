"""The page's own HTML: results with their bars, codes as pictures, and the panel that says why. Pure functions."""

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from answers import Answer, Result
from galleries import readable
from pictures import as_address

if TYPE_CHECKING:
    import numpy as np


def results_html(answer: Answer) -> str:
    """Give the status line, the facts, and the results as buttons, best first."""
    bits = answer.gallery.index.bits
    drawn = answer.query.drawn if answer.query else 0
    hits = "".join(_hit(place, result, bits) for place, result in enumerate(answer.results))
    kind = "hits chance" if answer.by_chance else "hits"
    return (
        f'<p id="status" role="status">{escape(answer.message)}</p><p id="facts">{escape(answer.facts)}</p>'
        f'<div class="{kind}" data-drawn="{drawn}">{hits}</div>'
    )


def why_html(answer: Answer, result: Result, sketch: bytes, token: bytes | None, code: "np.ndarray | None") -> str:
    """Give the panel that says why a picture was found: what the networks see, and the two codes.

    Args:
        answer: the answer that the result is of.
        result: the result.
        sketch: JPEG file of the drawing as the network sees it.
        token: that of the picture's sketch-token.
        code: the picture's code.
    """
    assert answer.query is not None
    bits = answer.gallery.index.bits
    seen = [_figure(sketch, "your drawing")]
    seen += [_figure(token, "lines that the network sees in the picture")] if token else []
    codes = [_code(answer.query.code, code, bits, "the code of your drawing")]
    codes += [_code(code, answer.query.code, bits, "the code of the picture")] if code is not None else []
    told = f"{result.distance} of {bits} bits differ" + (
        ", marked in orange" if code is not None and result.distance else ""
    )
    return (
        f'<h3>Why {escape(result.name)}?</h3><div class="why">{"".join(seen + codes)}</div>'
        f"<p>{told}: a drawing and a picture of the same thing differ in few.</p>"
    )


def opened_html(name: str, key: str, picture: bytes | None, why: str) -> str:
    """Give what is shown of a result that was opened; ``key`` is its id in the gallery, such as a file's path."""
    shown = (
        f'<img class="original" src="{as_address(picture)}" alt="{escape(name)}">'
        if picture
        else "<p>The picture is not here.</p>"
    )
    told = "" if key == name else f"<p>{escape(readable(key))}</p>"
    return f"<h2>{escape(name)}</h2>{told}{shown}{why}"


def pictures_html(pictures: Sequence[tuple[str, bytes]]) -> str:
    """Give small pictures with their names."""
    return f'<div class="why">{"".join(_figure(picture, name) for name, picture in pictures)}</div>'


def _hit(place: int, result: Result, bits: int) -> str:
    name, distance = escape(result.name), result.distance
    # Full where no bit differs, empty where half of them do: that is as far as unrelated things are.
    full = max(0, round(100 - 200 * distance / bits))
    picture = f'<img src="{as_address(result.thumbnail)}" alt="{name}">' if result.thumbnail else "<i>not here</i>"
    unit = "bit" if distance == 1 else "bits"
    yours = "" if hasattr(result.found, "id") else '<span class="yours">yours</span>'
    return (
        f'<button class="hit" data-place="{place}" data-id="{escape(result.key)}" data-distance="{distance}" '
        f'aria-label="{name}, {distance} of {bits} bits differ; open it">{picture}{yours}'
        f'<span class="name">{name}</span><span class="distance">{distance} {unit}</span>'
        f'<span class="bar"><span style="width: {full}%"></span></span></button>'
    )


def _figure(picture: bytes, caption: str) -> str:
    told = escape(caption)
    return f'<figure><img src="{as_address(picture)}" alt="{told}"><figcaption>{told}</figcaption></figure>'


def _code(code: "np.ndarray", other: "np.ndarray | None", bits: int, caption: str) -> str:
    """Draw a code as a square of cells, row by row, full where a bit is 1; bits unlike the other code's stand out."""
    import numpy as np

    ones = np.unpackbits(code, count=bits).astype(bool)
    unlike = np.unpackbits(code ^ other, count=bits).astype(bool) if other is not None else np.zeros(bits, bool)
    side = math.ceil(math.sqrt(bits))
    cells = "".join(
        f'<path class="{kind}" d="{_cells(np.flatnonzero(chosen), side)}"/>'
        for kind, chosen in (
            ("one", ones & ~unlike),
            ("zero", ~ones & ~unlike),
            ("one unlike", ones & unlike),
            ("zero unlike", ~ones & unlike),
        )
    )
    told = escape(caption)
    return (
        f'<figure><svg class="code" viewBox="0 0 {side} {math.ceil(bits / side)}" role="img" aria-label="{told}: '
        f'{code.tobytes().hex()}">{cells}</svg><figcaption>{told}</figcaption></figure>'
    )


def _cells(places: "np.ndarray", side: int) -> str:
    return "".join(f"M{place % side + 0.1:.1f} {place // side + 0.1:.1f}h.8v.8h-.8z" for place in places.tolist())
