"""Why the published objective gives all classes one code, and what ours does: a simulation without networks."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import pack_signs
from dsh_hf.evaluation import evaluate
from dsh_hf.files import replaced_atomically
from dsh_hf.objective import Mode, Objective, initial_codes

Array = NDArray[np.float32]

KINDS = ("paper", "weighted", "balanced")  # weighted: the weights of balanced, but -1 asked of all other pairs
PASSES = 10  # of D, B_I and B_S; after them hardly a bit changes
WORD_SIZE = 50  # numbers in a word vector
WEIGHTS: dict[Mode, tuple[float, float]] = {"paper": (0.01, 1e-5), "balanced": (0.1, 0.1)}  # lambda, gamma
COLUMNS = {"wanted": "J wanted", "trivial": "trivial", "words": "mAP", "random": "random", "away": "away"}
LEGEND = """\
J wanted: the pairs' part of J where each class has a random code word; trivial: where all images are -1 and all
sketches +1; both divided by that of random codes. mAP: of the codes after the code steps that start from the code
words; random: the same, started from random codes; away: share of bits that then have one value for all images and
the other for all sketches. weighted: the weights of balanced, but other classes are asked for -1."""


@dataclass(frozen=True)
class Outcome:
    """What came of one simulation; the attributes are those that the legend explains.

    Attributes:
        wanted: J of the pairs with a code word for each class.
        trivial: J of the pairs with all images -1 and all sketches +1.
        words: mAP of the codes that start from code words.
        random: mAP of the codes that start at random.
        away: share of bits given away.
        semantic: the semantic part of J over the pairs' part, both of random codes.
    """

    wanted: float
    trivial: float
    words: float
    random: float
    away: float
    semantic: float


Row = tuple[int, int, dict[str, Outcome]]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each number of classes and bits; draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks collapse", description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 3, 4, 5, 6, 7, 8, 10, 15, 25, 50, 125, 250])
    parser.add_argument("--bits", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--items", type=int, default=10, help="images of a class, and sketches of a class")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random")
    parser.add_argument("--out", type=Path, help="PNG file to draw into")
    arguments = parser.parse_args(argv)
    if min(arguments.classes) < 2 or arguments.items < 1:
        raise ValueError("--classes must be 2 or more, and --items 1 or more")
    print(f"{LEGEND}\n\n{'':>12}" + "".join(f"  {kind:^40}" for kind in KINDS))
    print(f"{'classes bits':>12}" + len(KINDS) * ("  " + "".join(f"{title:>8}" for title in COLUMNS.values())))
    rows: list[Row] = []
    for bits in arguments.bits:
        for classes in arguments.classes:
            found = {kind: simulate(classes, bits, arguments.items, kind, arguments.seed) for kind in KINDS}
            rows.append((classes, bits, found))
            cells = ("".join(f"{getattr(found[kind], name):>8.3f}" for name in COLUMNS) for kind in KINDS)
            print(f"{classes:>7} {bits:>4}" + "".join(f"  {cell}" for cell in cells), flush=True)
    classes, bits, found = rows[-1]
    shares = ", ".join(f"{kind} {found[kind].semantic:.1e}" for kind in ("paper", "balanced"))
    print(f"random codes' semantic part of J over their pairs' part, {classes} classes, {bits} bits: {shares}")
    if arguments.out:
        draw(rows, arguments.out)
        print(f"figure: {arguments.out}")
    return 0


def simulate(classes: int, bits: int, items: int, kind: str, seed: int) -> Outcome:
    """Let the code steps work on their own: the networks say nothing (all outputs 0).

    Args:
        classes: number of classes.
        bits: length of the codes.
        items: images of each class, and sketches of each class.
        kind: one of ``KINDS``.
        seed: of code words, word vectors and random codes.
    """
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), items)
    mode: Mode = "paper" if kind == "paper" else "balanced"
    objective = Objective(labels, labels, random.normal(size=(classes, WORD_SIZE)), bits, *WEIGHTS[mode], mode)
    if kind == "weighted":
        objective.different_target = -1.0
    words = initial_codes(labels, classes, bits, seed)
    noise = [np.where(random.normal(size=words.shape) > 0, 1, -1).astype(np.float32) for _ in range(2)]
    (unit, semantic), ones = _losses(objective, *noise), np.ones_like(words)
    kept = _code_steps(objective, words, words)
    means = [codes.mean(axis=0) for codes in kept]
    return Outcome(
        wanted=_losses(objective, words, words)[0] / unit,
        trivial=_losses(objective, -ones, ones)[0] / unit,
        words=_map(kept, labels),
        random=_map(_code_steps(objective, *noise), labels),
        away=float(np.mean((np.abs(means[0]) > 0.9) & (np.abs(means[1]) > 0.9) & (means[0] * means[1] < 0))),
        semantic=semantic / unit,
    )


def _code_steps(objective: Objective, images: Array, sketches: Array) -> tuple[Array, Array]:
    silent = np.zeros_like(images)
    for _ in range(PASSES):
        basis = objective.basis(images, sketches)
        images = objective.update_image_codes(images, sketches, basis, silent)
        sketches = objective.update_sketch_codes(sketches, images, basis, silent)
    return images, sketches


def _losses(objective: Objective, images: Array, sketches: Array) -> tuple[float, float]:
    """Give the pairwise and the semantic part of J."""
    basis = objective.basis(images, sketches)
    losses = objective.losses(images, sketches, basis, images, sketches)
    return losses.pairwise, losses.semantic


def _map(codes: tuple[Array, Array], labels: NDArray) -> float:
    images, sketches = (pack_signs(view) for view in codes)
    return evaluate(sketches, images, labels, labels, bits=codes[0].shape[1]).map


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw J of both answers at the middle length, and the mAP of the code steps, over the number of classes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "dsh-hf[train]"') from error

    lengths = sorted({bits for _, bits, _ in rows})
    middle = lengths[len(lengths) // 2]
    colours = {"paper": "tab:red", "balanced": "tab:blue"}
    figure = Figure(figsize=(11, 3.4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    *answers, reached = figure.subplots(1, 3)
    for axes, (kind, colour) in zip(answers, colours.items(), strict=True):
        for name, style, label in (("wanted", "-", "a code word for each class"), ("trivial", "--", "trivial answer")):
            axes.plot(*_curve(rows, middle, kind, name), style, color=colour, label=label)
        axes.set(title=f"{kind}: J of the pairs, {middle} bits", ylabel="J, random codes being 1")
        axes.legend(frameon=False)
    for kind, colour in colours.items():
        for bits, style in zip(lengths, ("-", "--", ":", "-."), strict=False):
            reached.plot(*_curve(rows, bits, kind, "random"), style, color=colour, label=f"{kind}, {bits} bits")
    reached.set(title="mAP of the training codes", ylim=(0, 1.03))
    reached.legend(fontsize="small", edgecolor="none", framealpha=0.9, loc="lower left")
    for axes in (*answers, reached):
        axes.set(xscale="log", xlabel="classes")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    with replaced_atomically(path) as temporary:
        figure.savefig(temporary, format="png")


def _curve(rows: Sequence[Row], bits: int, kind: str, name: str) -> tuple[list[int], list[float]]:
    chosen = sorted((classes, getattr(found[kind], name)) for classes, length, found in rows if length == bits)
    return [classes for classes, _ in chosen], [value for _, value in chosen]
