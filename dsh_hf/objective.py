"""The objective J and its discrete steps: the shared basis D, and the codes B_I and B_S bit by bit.

Items are rows here, columns in the paper: ``image_codes`` is B_I' of shape ``(n1, bits)``. The similarity matrix W
(n1 x n2) is never built: everything it is needed for is a sum over the codes of a class.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mode = Literal["balanced", "paper"]

# The Gram matrix of the D step is singular when two bits agree on every item.
RIDGE = 1e-4


@dataclass(frozen=True)
class Losses:
    """J and its three parts, each with its weight in J."""

    pairwise: float
    semantic: float
    quantization: float

    @property
    def total(self) -> float:
        """J itself."""
        return self.pairwise + self.semantic + self.quantization


class Objective:
    """J of the paper's equation 5 for given labels and word vectors, with the steps that lower it.

    ``balanced`` weights a pair of the same class so that all same-class pairs count as much as all others, asks of
    other pairs the similarity -1 / (classes - 1), the least that so many code words can have on average, and
    divides each loss by its number of terms (pairs of unit similarity, word-vector entries, bits), so that
    ``semantic_weight`` (lambda) and ``quantization_weight`` (gamma) are of order 0.01 to 1. With the -1 of W instead,
    which is out of reach, the codes give some of their bits away to come nearer to it: all images get one value
    there, all sketches the other. ``paper`` is the published form: unweighted sums, and -1.

    Args:
        image_labels: int class labels of the images, shape ``(n1,)``.
        sketch_labels: int class labels of the sketches, shape ``(n2,)``.
        word_vectors: phi, one row for each class, shape ``(classes, d)``.
        bits: length of the codes.
        semantic_weight: lambda.
        quantization_weight: gamma.
        mode: ``"balanced"`` or ``"paper"``.

    Raises:
        ValueError: a label has no word vector, or one view has no items.
    """

    def __init__(
        self,
        image_labels: NDArray,
        sketch_labels: NDArray,
        word_vectors: NDArray,
        bits: int,
        semantic_weight: float = 0.1,
        quantization_weight: float = 0.1,
        mode: Mode = "balanced",
    ) -> None:
        if len(image_labels) == 0 or len(sketch_labels) == 0:
            raise ValueError("the objective needs at least one image and one sketch")
        classes = len(word_vectors)
        for name, labels in (("image", image_labels), ("sketch", sketch_labels)):
            if labels.min() < 0 or labels.max() >= classes:
                raise ValueError(f"{name} labels must lie in 0..{classes - 1}: one word vector for each class")
        if mode not in ("balanced", "paper"):
            raise ValueError(f"mode must be 'balanced' or 'paper', got {mode!r}")
        self.bits = bits
        self.labels = {"image": np.asarray(image_labels), "sketch": np.asarray(sketch_labels)}
        self.classes = classes
        vectors = np.asarray(word_vectors, dtype=np.float32)
        n1, n2 = len(image_labels), len(sketch_labels)
        self._rows = {view: _rows_by_class(labels, classes) for view, labels in self.labels.items()}
        same = self._same_class_pairs()
        if mode == "paper":
            self.vectors = vectors
            self.same_weight = 1.0
            self.different_target = -1.0
            self.pair_scale = 1.0
            self.semantic_scale = {"image": semantic_weight, "sketch": semantic_weight}
            self.quantization_scale = {"image": quantization_weight, "sketch": quantization_weight}
            return
        vectors = vectors - vectors.mean(axis=0)
        self.vectors = vectors / max(float(np.sqrt(np.mean(vectors**2))), 1e-12)
        others = n1 * n2 - same
        self.same_weight = max(others / same, 1.0) if same > 0 else 1.0
        self.different_target = -1 / max(classes - 1, 1)
        self.pair_scale = 1 / ((self.same_weight * same + others) * bits**2)
        self.semantic_scale = {
            "image": semantic_weight / (n1 * vectors.shape[1]),
            "sketch": semantic_weight / (n2 * vectors.shape[1]),
        }
        self.quantization_scale = {
            "image": quantization_weight / (n1 * bits),
            "sketch": quantization_weight / (n2 * bits),
        }

    def basis(self, image_codes: Array, sketch_codes: Array) -> Array:
        """Give the D that minimises J for the codes at hand (equation 7), shape ``(d, bits)``."""
        gram = np.zeros((self.bits, self.bits), dtype=np.float64)
        target = np.zeros((self.vectors.shape[1], self.bits), dtype=np.float64)
        weight = 0.0
        for view, codes in (("image", image_codes), ("sketch", sketch_codes)):
            scale = self.semantic_scale[view]
            gram += scale * (codes.T @ codes)
            target += scale * (self.vectors.T @ self.class_sums(view, codes))
            weight += scale * len(codes)
        gram += RIDGE * max(weight, 1e-30) * np.eye(self.bits)
        return np.linalg.solve(gram, target.T).T.astype(np.float32)

    def update_image_codes(self, codes: Array, others: Array, basis: Array, outputs: Array) -> Array:
        """Update B_I one bit at a time (equation 9), the bits updated so far already in use.

        Args:
            codes: B_I before, -1 and +1, shape ``(n1, bits)``.
            others: B_S, shape ``(n2, bits)``.
            basis: D, shape ``(d, bits)``.
            outputs: F1, the networks' real outputs for the images, shape ``(n1, bits)``.

        Returns:
            B_I after; J is not higher.
        """
        return self._update("image", codes, others, basis, outputs)

    def update_sketch_codes(self, codes: Array, others: Array, basis: Array, outputs: Array) -> Array:
        """Update B_S one bit at a time (equation 10): :meth:`update_image_codes` with the views exchanged."""
        return self._update("sketch", codes, others, basis, outputs)

    def losses(
        self,
        image_codes: Array,
        sketch_codes: Array,
        basis: Array,
        image_outputs: Array,
        sketch_outputs: Array,
    ) -> Losses:
        """Compute J (equation 5) without W."""
        semantic = quantization = 0.0
        for view, codes, outputs in (
            ("image", image_codes, image_outputs),
            ("sketch", sketch_codes, sketch_outputs),
        ):
            residual = self.vectors[self.labels[view]] - codes @ basis.T
            semantic += self.semantic_scale[view] * float(np.sum(residual**2, dtype=np.float64))
            quantization += self.quantization_scale[view] * float(np.sum((outputs - codes) ** 2, dtype=np.float64))
        return Losses(self._pairwise(image_codes, sketch_codes), semantic, quantization)

    def _pairwise(self, image_codes: Array, sketch_codes: Array) -> float:
        """Sum w_ij (bits W_ij - b_i'b_j)^2 by expanding the square: squares, cross terms, squared products."""
        image_sums = self.class_sums("image", image_codes).astype(np.float64)
        sketch_sums = self.class_sums("sketch", sketch_codes).astype(np.float64)
        gram_image, gram_sketch = image_codes.T @ image_codes, sketch_codes.T @ sketch_codes
        same = self._same_class_pairs()
        others = len(image_codes) * len(sketch_codes) - same
        same_products = float(np.sum(image_sums * sketch_sums))
        all_products = float(image_sums.sum(axis=0) @ sketch_sums.sum(axis=0))
        target = self.different_target
        total = self.bits**2 * (self.same_weight * same + target**2 * others)
        total -= 2 * self.bits * ((self.same_weight - target) * same_products + target * all_products)
        total += float(np.sum(gram_image.astype(np.float64) * gram_sketch))
        if self.same_weight != 1:
            for rows_i, rows_s in zip(self._rows["image"], self._rows["sketch"], strict=True):
                grams = [codes.T @ codes for codes in (image_codes[rows_i], sketch_codes[rows_s])]
                total += (self.same_weight - 1) * float(np.sum(grams[0].astype(np.float64) * grams[1]))
        return self.pair_scale * total

    def _update(self, view: str, codes: Array, others: Array, basis: Array, outputs: Array) -> Array:
        other_view = "sketch" if view == "image" else "image"
        sums = self.class_sums(other_view, others)
        everything = sums.sum(axis=0)
        semantic, quantization = self.semantic_scale[view], self.quantization_scale[view]
        shared_gram = self.pair_scale * (others.T @ others) + semantic * (basis.T @ basis)
        updated = codes.copy()
        for label, rows in enumerate(self._rows[view]):
            if len(rows) == 0:
                continue
            own = others[self._rows[other_view][label]]
            gram = shared_gram + self.pair_scale * (self.same_weight - 1) * (own.T @ own)
            target = self.different_target
            linear = (self.same_weight - target) * sums[label] + target * everything
            linear = self.pair_scale * self.bits * linear
            linear = linear + semantic * (basis.T @ self.vectors[label])
            wanted = linear + quantization * outputs[rows]
            updated[rows] = _gauss_seidel(codes[rows], wanted, gram)
        return updated

    def _same_class_pairs(self) -> float:
        return float(sum(len(i) * len(s) for i, s in zip(self._rows["image"], self._rows["sketch"], strict=True)))

    def class_sums(self, view: str, codes: Array) -> Array:
        """Sum the codes of each class of a view, shape ``(classes, bits)``."""
        return np.stack([codes[rows].sum(axis=0) for rows in self._rows[view]])


def initial_codes(labels: NDArray, classes: int, bits: int, seed: int) -> Array:
    """Start from one random code word a class, -1 and +1, shape ``(n, bits)``; the same for both views."""
    words = np.random.default_rng(seed).integers(0, 2, size=(classes, bits)) * 2 - 1
    return words[labels].astype(np.float32)


def _rows_by_class(labels: NDArray, classes: int) -> list[NDArray[np.intp]]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels, minlength=classes))[:-1])


def _gauss_seidel(codes: Array, wanted: Array, gram: Array) -> Array:
    """Set b_k = sign(r_k - sum_{j != k} G_kj b_j) for k = 1, 2, ...; 0 keeps the old bit."""
    codes = np.ascontiguousarray(codes.T)  # a bit is a contiguous row now
    wanted = np.ascontiguousarray(wanted.T)
    for k in range(len(codes)):
        drive = wanted[k] - gram[k] @ codes + gram[k, k] * codes[k]
        codes[k] = np.where(drive > 0, 1, np.where(drive < 0, -1, codes[k]))
    return codes.T
