"""The discrete half of training, for one code length: the codes B_I and B_S, and what moves them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.objective import Objective, initial_codes

_PASSES = 3  # of D, B_I and B_S in a round: they cost nothing beside the networks

Array = NDArray[np.float32]


class CodeSteps:
    """The codes of one length, as the rounds of training change them.

    Args:
        objective: J for this length.
        seed: of the codes to start from.

    Attributes:
        codes: B_I and B_S by view (``"image"``, ``"sketch"``), -1 and +1, shape ``(n, bits)``.
        outputs: F1 and F2, the last real outputs of the networks for every item, of the same shapes.
    """

    def __init__(self, objective: Objective, seed: int) -> None:
        self.objective = objective
        self.bits, self.labels = objective.bits, objective.labels
        self.codes: dict[str, Array] = {
            view: initial_codes(labels, len(objective.vectors), self.bits, seed) for view, labels in self.labels.items()
        }
        self.outputs: dict[str, Array] = {view: np.zeros_like(values) for view, values in self.codes.items()}

    def update(self) -> dict[str, Any]:
        """Update D, B_I and B_S in turn; give J, its parts, and what the codes are like then."""
        codes, outputs, objective = self.codes, self.outputs, self.objective
        for _ in range(_PASSES):
            basis = objective.basis(codes["image"], codes["sketch"])
            codes["image"] = objective.update_image_codes(codes["image"], codes["sketch"], basis, outputs["image"])
            codes["sketch"] = objective.update_sketch_codes(codes["sketch"], codes["image"], basis, outputs["sketch"])
        losses = objective.losses(codes["image"], codes["sketch"], basis, outputs["image"], outputs["sketch"])
        return {
            "J": losses.total,
            "pairwise": losses.pairwise,
            "semantic": losses.semantic,
            "quantization": losses.quantization,
            "bits_off_class_word": self._bits_off_class_word(),
            "balance": float(np.mean(np.abs(codes["image"].mean(axis=0)))),
            "correlation": _correlation(codes["image"]),
        }

    def class_words(self) -> Array:
        """Give the majority bits of each class over both views, shape ``(classes, bits)``."""
        sums = sum(self.objective.class_sums(view, values) for view, values in self.codes.items())
        return np.where(np.asarray(sums) >= 0, 1, -1).astype(np.float32)

    def _bits_off_class_word(self) -> float:
        """Share of code bits that differ from the majority bit of their class and view."""
        off = 0.0
        for view, values in self.codes.items():
            words = np.where(self.objective.class_sums(view, values) >= 0, 1, -1)
            off += float(np.sum(values * words[self.labels[view]] < 0))
        return off / sum(values.size for values in self.codes.values())


def _correlation(codes: Array) -> float:
    """Mean size of the correlation of two bits, 0 to 1; constant bits count as wholly correlated."""
    items, bits = codes.shape
    products = np.abs(codes.T @ codes) / items
    return float((products.sum() - np.trace(products)) / (bits * (bits - 1)))
