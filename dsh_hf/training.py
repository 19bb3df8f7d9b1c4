"""The alternating loop: basis D, image codes B_I, sketch codes B_S, then one pass of the networks (section 4.3)."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from dsh_hf.codes import pack_signs
from dsh_hf.configuration import DSHConfig
from dsh_hf.data import class_vectors
from dsh_hf.evaluation import evaluate
from dsh_hf.files import write_atomically
from dsh_hf.modeling import DSHModel
from dsh_hf.objective import Mode, Objective, initial_codes
from dsh_hf.pretrained import load_imagenet_weights
from dsh_hf.training_data import PreparedPictures, data_identity, undecoded
from dsh_hf.training_state import TrainingError, TrainingState, fill, trained_tensors

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Trainer", "TrainingConfig", "TrainingError"]

logger = logging.getLogger(__name__)

STATE_NAME = "state.safetensors"
LOG_NAME = "log.jsonl"
_SHARPNESS = 12.0  # of the softmax over cosines with the code words: cosines alone are too close together
_CODE_PASSES = 3  # of D, B_I and B_S in a round: they cost nothing beside the networks


@dataclass
class TrainingConfig:
    """Settings of a training run.

    Attributes:
        model: the networks.
        mode: ``"balanced"`` or ``"paper"``, see :class:`~dsh_hf.objective.Objective`.
            See :meth:`paper` for all of the published settings.
        semantic_weight: lambda, the weight of the semantic factorization.
        quantization_weight: gamma, how much the networks have to say in the codes.
        code_word_weight: in the network step, how much telling the code word of the right class from all others
            counts beside the regression on the codes; 0 is the paper's step.
        rounds: how often D, B_I and B_S are updated and the networks see every sketch once.
        batch_size: sketches in a step of the networks; half as many images go along.
        learning_rate: the highest rate of the trunks; heads learn three times as fast.
        weight_decay: decay of matrices and kernels.
        imagenet_weights: start timm trunks from ImageNet weights that an installed package carries.
        train_image_trunk: also train the image trunk; otherwise it keeps its weights, and runs only once.
        tokens_as_sketches: let the sketch-tokens of the images train the sketch stream, too.
        seed: of everything that is drawn at random.
    """

    model: DSHConfig = field(default_factory=DSHConfig)
    mode: Mode = "balanced"
    semantic_weight: float = 0.1
    quantization_weight: float = 0.1
    code_word_weight: float = 0.3
    rounds: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    imagenet_weights: bool = True
    train_image_trunk: bool = False
    tokens_as_sketches: bool = True
    seed: int = 0

    @classmethod
    def paper(cls, **settings: Any) -> "TrainingConfig":
        """Give the published objective, for study: unweighted, lambda 0.01, gamma 1e-5, and nothing of ours beside it.

        Args:
            settings: what else to set, as for the class itself; they win over the published ones.
        """
        published: dict[str, Any] = {"mode": "paper", "semantic_weight": 0.01, "quantization_weight": 1e-5}
        published |= {"code_word_weight": 0.0, "tokens_as_sketches": False}
        return cls(**(published | settings))

    def __post_init__(self) -> None:
        for name in ("rounds", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size < 4:
            raise ValueError("batch_size must be at least 4: BatchNorm needs company")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        for name in ("semantic_weight", "quantization_weight", "code_word_weight", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class Trainer:
    """Train a :class:`~dsh_hf.DSHModel` by alternating discrete code steps and network steps.

    Args:
        config: the settings.
        data: ``train_sketches`` and ``train_images``, data sets with ``image`` and ``label`` columns of the same
            classes; with ``validation_sketches``, their mAP on the training images is logged.
        out: folder for the state (training resumes from it), the log and the finished checkpoint.
        word_vectors: phi, one row a class, shape ``(classes, d)``; by default GloVe's of the class names.
        device: where the networks run.

    Attributes:
        history: a record of each finished round, as in ``log.jsonl``.

    Raises:
        TrainingError: the data cannot be used.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: Mapping[str, "Dataset"],
        out: str | Path,
        *,
        word_vectors: NDArray | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config, self.out, self.device = config, Path(out), torch.device(device)
        self.out.mkdir(parents=True, exist_ok=True)
        self.sketches, self.images = data["train_sketches"], data["train_images"]
        self.validation = data.get("validation_sketches")
        for name, part in (("sketches", self.sketches), ("images", self.images)):
            if not len(part):
                raise TrainingError(
                    f"there are no {name} to train on (TU-Berlin has images in its Extended version only)"
                )
        if self.validation is not None and not len(self.validation):
            raise TrainingError("the split has no validation sketches: train without them")
        self.classes: list[str] = list(self.sketches.features["label"].names)
        if self.classes != list(self.images.features["label"].names):
            raise TrainingError("sketches and images have different class names: load them together")
        if word_vectors is None:
            word_vectors = class_vectors(self.classes)
        if len(word_vectors) != len(self.classes):
            raise TrainingError(f"{len(self.classes)} classes need as many word vectors, got {len(word_vectors)}")
        config.model.classes = self.classes
        image_labels, sketch_labels = np.asarray(self.images["label"]), np.asarray(self.sketches["label"])
        if config.tokens_as_sketches:
            sketch_labels = np.concatenate([sketch_labels, image_labels])
        self.objective = Objective(
            image_labels,
            sketch_labels,
            word_vectors,
            config.model.bits,
            config.semantic_weight,
            config.quantization_weight,
            config.mode,
        )
        self._identity = {
            "settings": json.dumps(asdict(config), sort_keys=True),
            "data": f"{data_identity(self.sketches)} {data_identity(self.images)}",
            "word vectors": hashlib.sha256(np.asarray(word_vectors, dtype="<f4").tobytes()).hexdigest(),
        }
        self.history: list[dict[str, Any]] = []

    def train(self, resume: bool = True) -> DSHModel:
        """Run all rounds and leave a checkpoint in ``out/checkpoint``.

        Args:
            resume: go on from the last whole round that a run with the same settings and data left in ``out``.

        Returns:
            The trained model.

        Raises:
            TrainingError: a picture is damaged, the state belongs to other settings or data, or the loss is no
                longer finite.
        """
        torch.manual_seed(self.config.seed)
        state = self._start()
        pictures = PreparedPictures(
            state.model,
            self.sketches,
            self.images,
            self.out / "prepared",
            keep_features=not self.config.train_image_trunk,
        )
        if resume and (self.out / STATE_NAME).is_file():
            state.load(self.out / STATE_NAME, self._identity)
            logger.info("resumed after round %d of %d", len(state.history), self.config.rounds)
        self.history = state.history
        for number in range(len(state.history), self.config.rounds):
            began = time.perf_counter()
            torch.manual_seed(self.config.seed * 100_003 + number + 1)  # a resumed round draws the same numbers
            record: dict[str, Any] = {"round": number + 1}
            record |= self._code_steps(state)
            record |= self._network_steps(state, pictures, number)
            if self.validation is not None:
                record["validation_map"] = round(self._validate(state, pictures), 4)
            record["seconds"] = round(time.perf_counter() - began, 1)
            state.history.append(record)
            state.save(self.out / STATE_NAME, self._identity)
            lines = "".join(json.dumps(record) + "\n" for record in state.history)
            write_atomically(self.out / LOG_NAME, lines.encode())
            logger.info("%s", self._describe(record))
        fill(state.model, state.averaged)
        state.model.eval()
        state.model.save_pretrained(self.out / "checkpoint")
        return DSHModel.from_pretrained(self.out / "checkpoint", device=self.device)  # the weights as stored

    def _start(self) -> TrainingState:
        model = DSHModel(self.config.model)
        if self.config.imagenet_weights:
            load_imagenet_weights(model.sketch_trunk, self.config.model.sketch_backbone)
            load_imagenet_weights(model.token_trunk, self.config.model.sketch_backbone)
            load_imagenet_weights(model.image_trunk, self.config.model.image_backbone)
        model.tokens.load_trained()
        model.tokens.requires_grad_(False)
        model.image_trunk.requires_grad_(self.config.train_image_trunk)
        model.to(memory_format=torch.channels_last)
        model.to(self.device)
        codes = {
            view: initial_codes(labels, len(self.classes), self.config.model.bits, self.config.seed)
            for view, labels in self.objective.labels.items()
        }
        return TrainingState(
            model=model,
            optimizer=torch.optim.AdamW(self._parameter_groups(model), lr=self.config.learning_rate),
            averaged={name: tensor.detach().clone() for name, tensor in trained_tensors(model).items()},
            codes=codes,
            outputs={view: np.zeros_like(values) for view, values in codes.items()},
        )

    def _parameter_groups(self, model: DSHModel) -> list[dict[str, Any]]:
        backbones = (self.config.model.sketch_backbone, self.config.model.image_backbone)
        published = backbones == ("dsh-c2", "caffenet")  # there the biases learn twice as fast
        groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                head, doubled = name.split(".")[0].endswith("head"), published and _is_layer_bias(name)
                groups.setdefault((head, parameter.ndim > 1, doubled), []).append(parameter)
        return [
            {
                "params": parameters,
                "weight_decay": self.config.weight_decay if matrix else 0.0,
                "rate": self.config.learning_rate * (3 if head else 1) * (2 if doubled else 1),
            }
            for (head, matrix, doubled), parameters in groups.items()
        ]

    def _code_steps(self, state: TrainingState) -> dict[str, Any]:
        """Update D, B_I and B_S in turn."""
        codes, outputs = state.codes, state.outputs
        for _ in range(_CODE_PASSES):
            basis = self.objective.basis(codes["image"], codes["sketch"])
            codes["image"] = self.objective.update_image_codes(codes["image"], codes["sketch"], basis, outputs["image"])
            codes["sketch"] = self.objective.update_sketch_codes(
                codes["sketch"], codes["image"], basis, outputs["sketch"]
            )
        losses = self.objective.losses(codes["image"], codes["sketch"], basis, outputs["image"], outputs["sketch"])
        return {
            "J": losses.total,
            "pairwise": losses.pairwise,
            "semantic": losses.semantic,
            "quantization": losses.quantization,
            "bits_off_class_word": self._bits_off_class_word(codes),
            "balance": float(np.mean(np.abs(codes["image"].mean(axis=0)))),
        }

    def _network_steps(self, state: TrainingState, pictures: PreparedPictures, number: int) -> dict[str, float]:
        """Regress both streams' outputs on their codes, every sketch once; keep the outputs for the next round."""
        model, size = state.model, self.config.batch_size
        words = torch.from_numpy(self._class_words(state.codes)).to(self.device)
        model.train()
        model.tokens.eval()
        if not self.config.train_image_trunk:
            model.image_trunk.eval()
        sketches, images = len(state.codes["sketch"]), len(state.codes["image"])
        steps = max(1, sketches // size)
        needed = steps * min(size // 2, images)
        image_order = np.concatenate([_shuffled(images) for _ in range(math.ceil(needed / images))])[:needed]
        rows = {"sketch": np.array_split(_shuffled(sketches), steps), "image": np.array_split(image_order, steps)}
        losses = {"sketch": 0.0, "image": 0.0}
        progress = tqdm(range(steps), desc=f"round {number + 1}/{self.config.rounds}", unit="step")
        for step in progress:
            self._set_rate(state.optimizer, number * steps + step, self.config.rounds * steps)
            state.optimizer.zero_grad(set_to_none=True)
            for view in losses:
                picked = rows[view][step]
                if view == "sketch":
                    given = model.sketch_outputs(255 * pictures.lines_at(picked).expand(-1, 3, -1, -1))
                else:
                    given = pictures.image_outputs(model, picked, distorted=True)
                loss = self._loss(given, state.codes[view][picked], self.objective.labels[view][picked], words)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the {view} loss is {loss.item()} in round {number + 1}: lower learning_rate "
                        f"(now {self.config.learning_rate}); the last whole round is kept in {self.out}"
                    )
                loss.backward()
                state.outputs[view][picked] = given.detach().float().cpu().numpy()
                losses[view] += loss.item()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            state.optimizer.step()
            _average(state, number * steps + step)
            progress.set_postfix({view: f"{value / (step + 1):.3f}" for view, value in losses.items()})
        return {f"{view}_loss": value / steps for view, value in losses.items()}

    def _loss(self, outputs: Tensor, codes: NDArray[np.float32], labels: NDArray, words: Tensor) -> Tensor:
        """Regression on the codes (equation 12), and telling the class's code word from the others."""
        loss = nn.functional.mse_loss(outputs, torch.from_numpy(codes).to(self.device))
        if self.config.code_word_weight:
            likeness = nn.functional.normalize(outputs) @ nn.functional.normalize(words).T
            wanted = torch.from_numpy(labels).to(self.device)
            loss = loss + self.config.code_word_weight * nn.functional.cross_entropy(_SHARPNESS * likeness, wanted)
        return loss

    def _set_rate(self, optimizer: torch.optim.Optimizer, step: int, total: int) -> None:
        """Warm up for a twentieth of the steps, then go down along a cosine."""
        warm = max(1, total // 20)
        factor = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor

    def _validate(self, state: TrainingState, pictures: PreparedPictures) -> float:
        """Measure the averaged weights: mAP of the validation sketches on the training images."""
        assert self.validation is not None
        model, labels = state.model, self.objective.labels["image"]
        current = {name: tensor.detach().clone() for name, tensor in trained_tensors(model).items()}
        fill(model, state.averaged)
        model.eval()
        with torch.inference_mode():
            rows = np.array_split(np.arange(len(labels)), math.ceil(len(labels) / 64))
            outputs = torch.cat([pictures.image_outputs(model, part, distorted=False) for part in rows])
        gallery = pack_signs(outputs.float().cpu().numpy())
        queries = model.encode_sketches(undecoded(self.validation))
        fill(model, current)
        bits = self.config.model.bits
        return evaluate(queries, gallery, np.asarray(self.validation["label"]), labels, bits=bits).map

    def _describe(self, record: Mapping[str, Any]) -> str:
        left = (self.config.rounds - record["round"]) * record["seconds"]
        text = (
            f"round {record['round']}/{self.config.rounds}: J {record['J']:.4f} (pairwise {record['pairwise']:.4f}, "
            f"semantic {record['semantic']:.4f}, quantization {record['quantization']:.4f}), bits off the class's "
            f"word {record['bits_off_class_word']:.1%}"
        )
        if "validation_map" in record:
            text += f", validation mAP {record['validation_map']:.3f}"
        return f"{text}, {record['seconds']:.0f} s, about {left / 60:.0f} min left"

    def _class_words(self, codes: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Give the majority bits of each class over both views, shape ``(classes, bits)``."""
        sums = sum(self.objective.class_sums(view, values) for view, values in codes.items())
        return np.where(np.asarray(sums) >= 0, 1, -1).astype(np.float32)

    def _bits_off_class_word(self, codes: Mapping[str, NDArray[np.float32]]) -> float:
        """Share of code bits that differ from the majority bit of their class and view."""
        off = 0.0
        for view, values in codes.items():
            words = np.where(self.objective.class_sums(view, values) >= 0, 1, -1)
            off += float(np.sum(values * words[self.objective.labels[view]] < 0))
        return off / sum(values.size for values in codes.values())


def _average(state: TrainingState, step: int) -> None:
    """Let the average follow the weights, quickly at first."""
    keep = min(0.995, (step + 1) / (step + 10))
    with torch.no_grad():
        for name, tensor in trained_tensors(state.model).items():
            state.averaged[name].lerp_(tensor, 1 - keep)


def _is_layer_bias(name: str) -> bool:
    """Tell a bias of a convolution or fully connected layer of the published networks from BatchNorm's."""
    return name.endswith(".bias") and ".norm" not in name


def _shuffled(count: int) -> NDArray[np.intp]:
    return torch.randperm(count).numpy()
