"""A checkpoint to publish, small enough for tests: random weights, invented figures."""

import json
from pathlib import Path

import torch

from dsh_hf import DSHConfig, DSHModel
from dsh_hf.model_card import write_card, write_probes

FIGURES = {
    "dataset": "Sketchy subset",
    "split": "open",
    "seed": 0,
    "map": 0.51234,
    "map_interval": [0.49, 0.53],
    "precision_at": {"10": 0.6, "200": 0.1},
    "precision_radius_2": 0.4,
    "queries": 700,
    "gallery": 1000,
    "map_by_class": {"ant": 0.9, "bee": 0.125},
    "command": "dsh-hf evaluate",
}
TRAINING = {
    "command": "dsh-hf train --data sketchy",
    "seconds": 4000,
    "machine": "2 CPU cores",
    "seed": 0,
    "data": [{"name": "Sketchy", "terms": "research use", "items": 1000}],
    "initial_weights": [{"name": "EfficientNet-Lite0", "terms": "Apache-2.0"}],
}


def tiny_model(seed: int = 0, bits: int = 60) -> DSHModel:
    """Give a model of two tiny backbones; its weights are wide, so that pictures differ in their codes."""
    torch.manual_seed(seed)
    small = {
        "image_size": 32,
        "sketch_size": 32,
        "sketch_hidden": [16],
        "fusion_hidden": [16],
        "token_width": 4,
    }
    backbones = {"image_backbone": "test_efficientnet", "sketch_backbone": "test_efficientnet"}
    model = DSHModel(DSHConfig(bits=bits, classes=["ant", "bee"], **small, **backbones))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    return model.eval()


def evaluation_of(model: DSHModel) -> dict:
    return {"fingerprint": model.fingerprint, "bits": model.config.bits} | FIGURES


def write_checkpoint(folder: Path, model: DSHModel) -> Path:
    model.save_pretrained(folder)
    (folder / "evaluation.json").write_text(json.dumps(evaluation_of(model)))
    (folder / "training.json").write_text(json.dumps(TRAINING))
    write_probes(model, folder)
    write_card(folder)
    return folder
