"""How well codes retrieve: mean average precision, precision@k, Hamming radius, precision-recall curve.

Hamming distances take only ``bits + 1`` values, so a ranking by them is full of ties and a sort settles those
by accident. Nothing is sorted here: every figure that depends on the order is its expected value over all
orders of the tied items (McSherry and Najork, "Computing information retrieval performance measures
efficiently in the presence of tied scores", ECIR 2008), and so depends on the codes and labels alone.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsh_hf.codes import Codes, check_codes, hamming_distances
from dsh_hf.files import replaced_atomically

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Labels = NDArray[Any]


class PRCurve(NamedTuple):
    """Recall and precision within each Hamming radius 0, 1, ..., bits: two float64 arrays ``(bits + 1,)``."""

    recall: Floats
    precision: Floats


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found; all figures are fractions from 0 to 1.

    Attributes:
        map: mean of ``average_precisions``.
        precision_at: for each k, the mean share of relevant items among the first k.
        precision_radius: mean share of relevant items within ``radius``, 0 for a query with nothing there.
        radius: the Hamming radius of ``precision_radius``, in bits.
        pr_curve: recall and precision within each Hamming radius, both averaged over the queries.
        average_precisions: float64 of shape ``(queries,)``, in the order of the queries.
        query_labels: the queries' labels, shape ``(queries,)``.
        queries: number of queries; ``gallery``, of gallery items; ``bits``, of bits in a code.
    """

    map: float
    precision_at: dict[int, float]
    precision_radius: float
    radius: int
    pr_curve: PRCurve
    average_precisions: Floats
    query_labels: Labels
    queries: int
    gallery: int
    bits: int

    def to_dict(self) -> dict[str, Any]:
        """Give the figures as JSON takes them: k becomes a string; what is kept per query is left out."""
        return {
            "bits": self.bits,
            "queries": self.queries,
            "gallery": self.gallery,
            "map": self.map,
            "precision_at": {str(k): value for k, value in self.precision_at.items()},
            "radius": self.radius,
            "precision_radius": self.precision_radius,
            "pr_curve": {name: values.tolist() for name, values in self.pr_curve._asdict().items()},
        }

    def table(self) -> str:
        """Give the figures as a text table of two columns, without a newline at the end."""
        rows = {"bits": f"{self.bits}", "queries": f"{self.queries:,}", "gallery": f"{self.gallery:,}"}
        rows |= {"mAP": f"{self.map:.4f}"}
        rows |= {f"P@{k}": f"{value:.4f}" for k, value in self.precision_at.items()}
        rows |= {f"P(radius {self.radius})": f"{self.precision_radius:.4f}"}
        left, right = max(map(len, rows)), max(map(len, rows.values()))
        return "\n".join(f"{name:<{left}}  {value:>{right}}" for name, value in rows.items())

    def bootstrap(self, samples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Give the 95% interval (low, high) of the mAP over the choice of queries: percentile bootstrap.

        Args:
            samples: how many times as many queries are drawn with replacement.
            seed: of the drawing.

        Raises:
            ValueError: ``samples`` is below 1.
        """
        if samples < 1:
            raise ValueError(f"samples must be 1 or more, got {samples}")
        draws = np.random.default_rng(seed)
        means = [draws.choice(self.average_precisions, self.queries).mean() for _ in range(samples)]
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)

    def per_class(self, class_names: Sequence[str]) -> dict[str, float]:
        """Give the mAP over the queries of each class, by name, for the classes that have queries.

        Args:
            class_names: the name of each label, the labels being integers from 0.

        Raises:
            ValueError: a query's label is no integer from 0 to ``len(class_names) - 1``.
        """
        labels, classes = np.unique(self.query_labels, return_inverse=True)
        if labels.dtype.kind not in "iu" or labels[0] < 0 or labels[-1] >= len(class_names):
            raise ValueError(
                f"class_names names the labels 0 to {len(class_names) - 1}, "
                f"but the queries' labels run from {labels[0]!s} to {labels[-1]!s}"
            )
        means = np.bincount(classes, weights=self.average_precisions) / np.bincount(classes)
        return {class_names[label]: float(mean) for label, mean in zip(labels, means, strict=True)}


def evaluate(
    query_codes: ArrayLike,
    gallery_codes: ArrayLike,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    *,
    bits: int,
    ks: Sequence[int] = (10, 200),
    radius: int = 2,
) -> Evaluation:
    """Rank the gallery by Hamming distance for every query and measure the rankings.

    The conventions, where papers differ:

    * relevant is a gallery item with the query's label;
    * mAP is over the whole gallery ("mAP@all"): average precision is divided by all the relevant items there
      are, and every query must have one;
    * average precision and precision@k are expected values over all orders of the tied items;
    * precision@k is divided by k even where the gallery is smaller than k;
    * within a radius, a query with nothing inside has precision 0;
    * the precision-recall curve has a point for each radius and averages precision and recall over the
      queries, so its precision at ``radius`` is ``precision_radius`` (some papers pool all pairs instead).

    Args:
        query_codes: packed uint8 codes of shape ``(queries, ceil(bits / 8))``.
        gallery_codes: packed uint8 codes of shape ``(gallery, ceil(bits / 8))``.
        query_labels: integers or strings of shape ``(queries,)``.
        gallery_labels: the same kind of labels, of shape ``(gallery,)``.
        bits: length of the codes.
        ks: the cuts of precision@k, each 1 or more.
        radius: Hamming radius in bits, 0 or more.

    Returns:
        The figures, averaged over the queries, and the average precision of each query.

    Raises:
        ValueError: codes of another width or dtype, no codes, labels that are not one per code, a query
            without a relevant gallery item, or ``ks`` or ``radius`` out of range.
    """
    query_codes, query_labels = _checked("query", query_codes, query_labels, bits)
    gallery_codes, gallery_labels = _checked("gallery", gallery_codes, gallery_labels, bits)
    if any(k < 1 for k in ks):
        raise ValueError(f"ks must be 1 or more, got {tuple(ks)}")
    if radius < 0:
        raise ValueError(f"radius must be 0 or more, got {radius}")

    items, relevant = _count_by_distance(query_codes, gallery_codes, query_labels, gallery_labels, bits)
    average_precisions = _average_precisions(items, relevant)
    inside = relevant.cumsum(axis=1)
    # Where nothing lies inside, nothing relevant does: 0 / 1.
    precision = (inside / np.maximum(items.cumsum(axis=1), 1)).mean(axis=0)
    recall = (inside / inside[:, -1:]).mean(axis=0)
    return Evaluation(
        map=float(average_precisions.mean()),
        precision_at={int(k): float(_precisions_at(k, items, relevant).mean()) for k in ks},
        precision_radius=float(precision[min(radius, bits)]),
        radius=int(radius),
        pr_curve=PRCurve(recall, precision),
        average_precisions=average_precisions,
        query_labels=query_labels,
        queries=len(query_codes),
        gallery=len(gallery_codes),
        bits=bits,
    )


def draw_pr_curve(evaluations: Mapping[str, Evaluation], path: str | os.PathLike[str]) -> None:
    """Draw the precision-recall curves of some evaluations into one PNG file.

    Args:
        evaluations: the evaluations by the name that the legend gives them.
        path: the file to write; it appears whole or not at all.

    Raises:
        ValueError: ``evaluations`` is empty.
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "dsh-hf[train]"') from error

    if not evaluations:
        raise ValueError("evaluations is empty: there is no curve to draw")
    figure = Figure(figsize=(5.5, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    for name, evaluation in evaluations.items():
        label = f"{name} (mAP {evaluation.map:.3f})"
        # A curve can lie on the frame, so it is not clipped there.
        axes.plot(*evaluation.pr_curve, marker=".", markersize=4, linewidth=1.4, label=label, clip_on=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)

    with replaced_atomically(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _checked(side: str, codes: ArrayLike, labels: ArrayLike, bits: int) -> tuple[Codes, Labels]:
    codes, labels = check_codes(codes, bits, f"{side}_codes"), np.asarray(labels)
    if not len(codes):
        raise ValueError(f"{side}_codes is empty: there is nothing to evaluate")
    if labels.shape != (len(codes),):
        raise ValueError(f"{side}_labels must be one per code, shape ({len(codes)},), got {labels.shape}")
    return codes, labels


def _count_by_distance(
    query_codes: Codes, gallery_codes: Codes, query_labels: Labels, gallery_labels: Labels, bits: int
) -> tuple[Counts, Counts]:
    """Count all items and the relevant items at each distance: two int64 arrays ``(queries, bits + 1)``."""
    _, classes = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    query_classes, gallery_classes = np.split(classes, [len(query_labels)])
    sizes = np.bincount(gallery_classes, minlength=classes.max() + 1)
    alone = np.unique(query_labels[sizes[query_classes] == 0]).tolist()
    if alone:
        raise ValueError(f"no gallery item has the query labels {alone[:5]}: leave those queries out")

    # The gallery by class: what is relevant to a query is then one slice of its distances.
    gallery_codes = gallery_codes[np.argsort(gallery_classes, kind="stable")]
    ends = sizes.cumsum()
    items = np.empty((len(query_codes), bits + 1), dtype=np.int64)
    relevant = np.empty_like(items)
    for row, label in enumerate(query_classes):  # one query's distances stay in the cache, more would not
        (distances,) = hamming_distances(query_codes[row : row + 1], gallery_codes)
        same = distances[ends[label] - sizes[label] : ends[label]]
        items[row] = np.bincount(distances, minlength=bits + 1)
        relevant[row] = np.bincount(same, minlength=bits + 1)
    return items, relevant


def _average_precisions(items: Counts, relevant: Counts) -> Floats:
    """Give each query's average precision, expected over all orders of the items at the same distance."""
    last = items.cumsum(axis=1)
    first = last - items
    found = relevant.cumsum(axis=1) - relevant
    # In a tie of n items, r relevant, place i = 1..n holds a relevant one with probability r / n, and then
    # found + 1 + (i - 1) s relevant ones lie up to it, s = (r - 1) / (n - 1). Divided by the rank first + i,
    # that is s + (found + 1 - s (first + 1)) / (first + i), whose sum over i takes a harmonic number.
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, last[0, -1] + 1))])
    share = relevant / np.maximum(items, 1)
    # Any s serves a tie of one; 1 keeps perfect rankings at exactly 1.
    slope = np.divide(relevant - 1, items - 1, out=np.ones(items.shape), where=items > 1)
    precisions = items * slope + (found + 1 - slope * (first + 1)) * (harmonic[last] - harmonic[first])
    return (share * precisions).sum(axis=1) / relevant.sum(axis=1)


def _precisions_at(k: int, items: Counts, relevant: Counts) -> Floats:
    """Give each query's precision@k, expected over all orders of the items at the same distance."""
    first = items.cumsum(axis=1) - items
    taken = np.clip(k - first, 0, items)  # how many of each distance fall within the first k
    return (taken * relevant / np.maximum(items, 1)).sum(axis=1) / k
