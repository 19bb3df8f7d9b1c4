"""What a training started from, as the model card tells it."""

import json
from typing import Any

from dsh_hf.sending import without_place
from dsh_hf.training_config import TrainingConfig


def initial_weights(config: TrainingConfig, vectors_from: str, vector_terms: str) -> list[dict[str, Any]]:
    """Name what the networks and word vectors come from, with terms; of a checkpoint, also what that was trained on.

    Args:
        config: the settings of the training.
        vectors_from: what the word vectors are.
        vector_terms: under which terms they are to be had.
    """
    initial = [
        {"name": "sketch-token network of dsh_hf", "terms": "taught by HED (MIT) on Caltech-101 and OpenMoji"},
        {"name": vectors_from, "terms": vector_terms},
    ]
    if config.start_from is not None:
        start = _training_of(config.start_from)
        if start is None:
            return [*initial, {"name": without_place(config.start_from), "terms": "as its model card states"}]
        trained = [
            {"name": f"{item['name']}, which the start was trained on", "terms": item["terms"]}
            for item in start["data"]
        ]
        return [*initial, *(item for item in start["initial_weights"] if item not in initial), *trained]
    if config.imagenet_weights:
        backbones = sorted({config.model.image_backbone, config.model.sketch_backbone})
        initial += [{"name": name, "terms": "Apache-2.0; trained on ImageNet"} for name in backbones]
    return initial


def start_of(config: TrainingConfig) -> dict[str, Any] | None:
    """Give command and duration of the training whose checkpoint was started from, where that is known."""
    start = _training_of(config.start_from) if config.start_from is not None else None
    return start and {name: start[name] for name in ("command", "seconds", "machine", "seed")}


def _training_of(checkpoint: str) -> dict[str, Any] | None:
    from dsh_hf.checkpoint import find_checkpoint

    file = find_checkpoint(checkpoint) / "training.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
