"""What a training run is made of between two rounds, and the one file in which it survives a kill."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dsh_hf.code_steps import CodeSteps
from dsh_hf.files import replaced_atomically
from dsh_hf.modeling import DSHModel
from dsh_hf.training_errors import TrainingError


@dataclass
class TrainingState:
    """Networks, codes and what the optimizer remembers.

    Attributes:
        model: the networks as the optimizer leaves them.
        classifier: from the features of sketches to classes; only training has it.
        optimizer: the optimizer over the parameters of both.
        averaged: the moving average of the weights, by name; what validation and the checkpoint use.
        lengths: the codes of each length, and the networks' last outputs for them.
        history: a record for each finished round.
    """

    model: DSHModel
    classifier: nn.Linear
    optimizer: torch.optim.Optimizer
    averaged: dict[str, Tensor]
    lengths: Sequence[CodeSteps]
    history: list[dict[str, Any]] = field(default_factory=list)

    def parameters(self) -> list[nn.Parameter]:
        """Give what the optimizer moves."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def save(self, path: Path, identity: Mapping[str, str]) -> None:
        """Write the state, whole or not at all; ``identity`` says which settings and data it belongs to.

        Raises:
            TrainingError: it cannot be written; the state saved before is still there.
        """
        from safetensors.torch import save_file

        tensors = {f"model.{name}": tensor for name, tensor in trained_tensors(self.model).items()}
        tensors |= {f"classifier.{name}": tensor for name, tensor in self.classifier.state_dict().items()}
        tensors |= {f"averaged.{name}": tensor for name, tensor in self.averaged.items()}
        for index, memory in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in memory.items()}
        for of in self.lengths:
            for view in of.codes:
                tensors[f"codes.{of.bits}.{view}"] = torch.from_numpy(of.codes[view]).to(torch.int8)
                tensors[f"outputs.{of.bits}.{view}"] = torch.from_numpy(of.outputs[view])
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            with replaced_atomically(path) as temporary:
                save_file(tensors, temporary, metadata={**identity, "history": json.dumps(self.history)})
        except OSError as error:
            size, reason = sum(tensor.nbytes for tensor in tensors.values()), error.__cause__ or error
            raise TrainingError(
                f"{path} could not be written ({reason}): the state of the round before is kept there. Make room for "
                f"{size / 1e6:.0f} MB, then start again to go on"
            ) from error

    def load(self, path: Path, identity: Mapping[str, str]) -> None:
        """Take over a saved state.

        Raises:
            TrainingError: the file is damaged, or belongs to other settings or data.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise TrainingError(f"{path} is damaged ({error}): delete it to start afresh") from error
        for key, value in identity.items():
            if about.get(key) != value:
                raise TrainingError(
                    f"{path} was written with other {key}: start in another folder, or delete it to start afresh"
                )

        def part(kind: str) -> dict[str, Tensor]:
            return {name.removeprefix(kind): tensor for name, tensor in stored.items() if name.startswith(kind)}

        fill(self.model, part("model."))
        self.classifier.load_state_dict(part("classifier."))
        for name, tensor in part("averaged.").items():
            self.averaged[name].copy_(tensor)
        memory: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("optimizer.").items():
            index, _, key = name.partition(".")
            memory.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": memory, "param_groups": groups})
        for of in self.lengths:
            for view in of.codes:
                of.codes[view] = stored[f"codes.{of.bits}.{view}"].numpy().astype(np.float32)
                of.outputs[view] = stored[f"outputs.{of.bits}.{view}"].numpy()
        self.history = json.loads(about["history"])


def trained_tensors(model: DSHModel) -> dict[str, Tensor]:
    """Give what training changes, each tensor once: weights, and BatchNorm's statistics."""
    return {name: tensor for name, tensor in model.own_tensors().items() if not name.startswith("tokens.")}


def fill(model: DSHModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the model, by name."""
    own = model.own_tensors()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
