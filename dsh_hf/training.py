"""The alternating loop: basis D, image codes B_I, sketch codes B_S, then one pass of the networks (section 4.3)."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from dsh_hf.augmentation import distort_images, distort_lines
from dsh_hf.codes import pack_signs
from dsh_hf.configuration import DSHConfig
from dsh_hf.evaluation import evaluate
from dsh_hf.files import write_atomically
from dsh_hf.modeling import DSHModel, prepared_batches
from dsh_hf.objective import Mode, Objective, initial_codes
from dsh_hf.pretrained import load_imagenet_weights
from dsh_hf.processing import PictureError, prepare_image, prepare_sketch

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

STATE_NAME = "state.safetensors"
LOG_NAME = "log.jsonl"
_SHARPNESS = 12.0  # of the softmax over cosines with the code words: cosines alone are too close together


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do. What was saved stays."""


@dataclass
class TrainingConfig:
    """Settings of a training run.

    Attributes:
        model: the networks.
        mode: ``"balanced"`` or ``"paper"``, see :class:`~dsh_hf.objective.Objective`.
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
    code_word_weight: float = 1.0
    rounds: int = 16
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    imagenet_weights: bool = True
    train_image_trunk: bool = False
    tokens_as_sketches: bool = True
    seed: int = 0

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
        data: ``train_sketches`` and ``train_images``, datasets with ``image`` and ``label`` columns of the same
            classes; with ``validation_sketches``, their mAP on the training images is logged.
        out: folder for the state (training resumes from it), the log and the finished checkpoint.
        word_vectors: phi, one row a class, shape ``(classes, d)``.
        device: where the networks run.

    Raises:
        TrainingError: the data cannot be used.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: Mapping[str, "Dataset"],
        out: str | Path,
        *,
        word_vectors: NDArray,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config, self.out, self.device = config, Path(out), torch.device(device)
        self.out.mkdir(parents=True, exist_ok=True)
        self.sketches, self.images = data["train_sketches"], data["train_images"]
        self.validation = data.get("validation_sketches")
        self.classes: list[str] = list(self.sketches.features["label"].names)
        if self.classes != list(self.images.features["label"].names):
            raise TrainingError("sketches and images have different class names: load them together")
        if len(word_vectors) != len(self.classes):
            raise TrainingError(f"{len(self.classes)} classes need as many word vectors, got {len(word_vectors)}")
        config.model.classes = self.classes
        self.word_vectors = np.asarray(word_vectors, dtype=np.float32)
        self.sketch_labels = np.asarray(self.sketches["label"])
        self.image_labels = np.asarray(self.images["label"])
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
        model = self._new_model()
        self._prepare(model)
        objective = Objective(
            self.image_labels,
            self._all_sketch_labels(),
            self.word_vectors,
            self.config.model.bits,
            self.config.semantic_weight,
            self.config.quantization_weight,
            self.config.mode,
        )
        codes, outputs = self._initial_codes(objective)
        averaged = {name: tensor.detach().clone() for name, tensor in _floats(model).items()}
        optimizer = torch.optim.AdamW(self._parameter_groups(model), lr=self.config.learning_rate)
        first = self._resume(model, averaged, optimizer, codes, outputs) if resume else 0
        for number in range(first, self.config.rounds):
            began = time.perf_counter()
            torch.manual_seed(self.config.seed * 100_003 + number + 1)  # a resumed round draws the same numbers
            record: dict[str, Any] = {"round": number + 1}
            record |= self._code_steps(objective, codes, outputs)
            record |= self._network_steps(model, averaged, optimizer, codes, outputs, number)
            if self.validation is not None:
                record["validation_map"] = round(self._validate(model, averaged), 4)
            record["seconds"] = round(time.perf_counter() - began, 1)
            self.history.append(record)
            self._save(model, averaged, optimizer, codes, outputs, number + 1)
            logger.info("%s", self._describe(record))
        _fill(model, averaged)
        model.eval()
        model.save_pretrained(self.out / "checkpoint")
        return model

    def _new_model(self) -> DSHModel:
        model = DSHModel(self.config.model)
        if self.config.imagenet_weights:
            load_imagenet_weights(model.sketch_trunk, self.config.model.sketch_backbone)
            load_imagenet_weights(model.token_trunk, self.config.model.sketch_backbone)
            load_imagenet_weights(model.image_trunk, self.config.model.image_backbone)
        model.tokens.load_trained()
        model.tokens.requires_grad_(False)
        model.image_trunk.requires_grad_(self.config.train_image_trunk)
        model.to(memory_format=torch.channels_last)
        return model.to(self.device)

    def _parameter_groups(self, model: DSHModel) -> list[dict[str, Any]]:
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((name.split(".")[0].endswith("head"), parameter.ndim > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "weight_decay": self.config.weight_decay if matrix else 0.0,
                "rate": self.config.learning_rate * (3 if head else 1),
            }
            for (head, matrix), parameters in groups.items()
        ]

    # What the networks see: prepared once, kept in files, so that any number of pictures fits in memory.

    def _prepare(self, model: DSHModel) -> None:
        size = self.config.model.sketch_size
        self.sketch_pixels = self._prepared("sketches", self.sketches, lambda p: prepare_sketch(p, size), (size, size))
        size = self.config.model.image_size
        self.image_pixels = self._prepared("images", self.images, lambda p: prepare_image(p, size), (size, size, 3))
        model.eval()
        sketch_size, parts = self.config.model.sketch_size, []
        features: list[Tensor] = []
        self.token_pixels = np.empty((len(self.images), sketch_size, sketch_size), dtype=np.uint8)
        with torch.inference_mode():
            for start in tqdm(range(0, len(self.images), 32), desc="sketch-tokens", unit="batch"):
                pixels = self._to_tensor(self.image_pixels[start : start + 32])
                tokens = model.sketch_tokens(pixels)[:, 0]
                self.token_pixels[start : start + 32] = (tokens * 255).round().byte().cpu().numpy()
                if not self.config.train_image_trunk:
                    parts = [model.image_features(pixels), model.image_features(pixels.flip(3))]
                    features.append(torch.stack(parts, dim=1).cpu())
        self.image_features = torch.cat(features).clone() if features else None

    def _prepared(
        self, name: str, dataset: "Dataset", prepare: Callable[[Any], NDArray[np.uint8]], shape: tuple[int, ...]
    ) -> NDArray[np.uint8]:
        key = hashlib.sha256(f"{dataset._fingerprint} {shape}".encode()).hexdigest()[:16]
        path = self.out / "prepared" / f"{name}-{key}.npy"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_suffix(".tmp")
            pixels = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(dataset), *shape))
            raw = _undecoded(dataset)
            with tqdm(total=len(dataset), desc=f"prepare {name}", unit="picture") as bar:
                done = 0
                try:
                    for batch in prepared_batches(raw, prepare, 64):
                        pixels[done : done + len(batch)] = batch
                        done += len(batch)
                        bar.update(len(batch))
                except (PictureError, FileNotFoundError) as error:
                    raise TrainingError(f"{error}. Remove or replace it, then start again") from error
            pixels.flush()
            del pixels
            temporary.replace(path)
        return np.load(path, mmap_mode="r")

    def _to_tensor(self, pixels: NDArray[np.uint8]) -> Tensor:
        tensor = torch.from_numpy(np.array(pixels)).to(self.device).permute(0, 3, 1, 2)
        return tensor.float().contiguous(memory_format=torch.channels_last)

    def _line_batch(self, rows: NDArray[np.intp]) -> Tensor:
        """Give drawings by row, distorted: sketches first, then the images' sketch-tokens."""
        count = len(self.sketch_pixels)
        picked = [self.sketch_pixels[row] if row < count else self.token_pixels[row - count] for row in rows]
        return distort_lines(torch.from_numpy(np.stack(picked))[:, None].float() / 255).to(self.device)

    def _all_sketch_labels(self) -> NDArray:
        if not self.config.tokens_as_sketches:
            return self.sketch_labels
        return np.concatenate([self.sketch_labels, self.image_labels])

    # The code steps.

    def _initial_codes(
        self, objective: Objective
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
        bits, classes = self.config.model.bits, len(self.classes)
        codes = {
            view: initial_codes(labels, classes, bits, self.config.seed) for view, labels in objective.labels.items()
        }
        return codes, {view: np.zeros_like(values) for view, values in codes.items()}

    def _code_steps(
        self,
        objective: Objective,
        codes: dict[str, NDArray[np.float32]],
        outputs: dict[str, NDArray[np.float32]],
    ) -> dict[str, Any]:
        for _ in range(3):
            basis = objective.basis(codes["image"], codes["sketch"])
            codes["image"] = objective.update_image_codes(codes["image"], codes["sketch"], basis, outputs["image"])
            codes["sketch"] = objective.update_sketch_codes(codes["sketch"], codes["image"], basis, outputs["sketch"])
        losses = objective.losses(codes["image"], codes["sketch"], basis, outputs["image"], outputs["sketch"])
        return {
            "J": losses.total,
            "pairwise": losses.pairwise,
            "semantic": losses.semantic,
            "quantization": losses.quantization,
            "bits_off_class_word": _bits_off_class_word(codes, objective),
            "balance": float(np.mean(np.abs(codes["image"].mean(axis=0)))),
        }

    # The network steps.

    def _network_steps(
        self,
        model: DSHModel,
        averaged: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        codes: dict[str, NDArray[np.float32]],
        outputs: dict[str, NDArray[np.float32]],
        number: int,
    ) -> dict[str, float]:
        """Regress both streams' outputs on their codes, every sketch once; keep the outputs for the next round."""
        labels = {"sketch": torch.from_numpy(self._all_sketch_labels()), "image": torch.from_numpy(self.image_labels)}
        words = torch.from_numpy(_class_words(codes, labels, len(self.classes))).to(self.device)
        model.train()
        model.tokens.eval()
        if not self.config.train_image_trunk:
            model.image_trunk.eval()
        size = self.config.batch_size
        sketch_rows = np.array_split(_shuffled(len(codes["sketch"])), max(1, len(codes["sketch"]) // size))
        images = len(codes["image"])
        needed = len(sketch_rows) * min(size // 2, images)
        image_order = np.concatenate([_shuffled(images) for _ in range(math.ceil(needed / images))])[:needed]
        image_rows = np.array_split(image_order, len(sketch_rows))
        total = self.config.rounds * len(sketch_rows)
        losses = {"sketch": 0.0, "image": 0.0}
        progress = tqdm(
            zip(sketch_rows, image_rows, strict=True),
            total=len(sketch_rows),
            desc=f"round {number + 1}/{self.config.rounds}",
            unit="step",
        )
        for step, rows in enumerate(progress):
            self._set_rate(optimizer, number * len(sketch_rows) + step, total)
            optimizer.zero_grad(set_to_none=True)
            for view, picked, forward in zip(
                ("sketch", "image"), rows, (self._sketch_forward, self._image_forward), strict=True
            ):
                given = forward(model, picked)
                loss = nn.functional.mse_loss(given, torch.from_numpy(codes[view][picked]).to(self.device))
                if self.config.code_word_weight:
                    wanted = labels[view][torch.from_numpy(picked)].to(self.device)
                    likeness = nn.functional.normalize(given) @ nn.functional.normalize(words).T
                    contrast = nn.functional.cross_entropy(_SHARPNESS * likeness, wanted)
                    loss = loss + self.config.code_word_weight * contrast
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the {view} loss is {loss.item()} in round {number + 1}: lower learning_rate "
                        f"(now {self.config.learning_rate}); the last whole round is kept in {self.out}"
                    )
                loss.backward()
                outputs[view][picked] = given.detach().float().cpu().numpy()
                losses[view] += loss.item()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            self._average(model, averaged, number * len(sketch_rows) + step)
            progress.set_postfix({view: f"{value / (step + 1):.3f}" for view, value in losses.items()})
        return {f"{view}_regression": value / len(sketch_rows) for view, value in losses.items()}

    def _sketch_forward(self, model: DSHModel, rows: NDArray[np.intp]) -> Tensor:
        lines = self._line_batch(rows)
        return model.sketch_outputs(255 * lines.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))

    def _image_forward(self, model: DSHModel, rows: NDArray[np.intp]) -> Tensor:
        if self.image_features is None:
            return model.image_outputs(distort_images(self._to_tensor(self.image_pixels[rows])))
        tokens = self._line_batch(rows + len(self.sketch_pixels)).contiguous(memory_format=torch.channels_last)
        flipped = torch.randint(0, 2, (len(rows),))
        features = self.image_features[torch.from_numpy(rows), flipped].to(self.device)
        return model.image_head(model.token_features(tokens), features)

    def _set_rate(self, optimizer: torch.optim.Optimizer, step: int, total: int) -> None:
        """Warm up for a twentieth of the steps, then go down along a cosine."""
        warm = max(1, total // 20)
        factor = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor

    def _average(self, model: DSHModel, averaged: dict[str, Tensor], step: int) -> None:
        """Follow the weights with a moving average; it is what validation and the checkpoint use."""
        keep = min(0.995, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, tensor in _floats(model).items():
                averaged[name].lerp_(tensor, 1 - keep)

    def _validate(self, model: DSHModel, averaged: dict[str, Tensor]) -> float:
        assert self.validation is not None
        current = {name: tensor.detach().clone() for name, tensor in _floats(model).items()}
        _fill(model, averaged)
        model.eval()
        image_outputs = []
        with torch.inference_mode():
            for start in range(0, len(self.images), 64):
                rows = np.arange(start, min(start + 64, len(self.images)))
                if self.image_features is None:
                    image_outputs.append(model.image_outputs(self._to_tensor(self.image_pixels[rows])))
                    continue
                tokens = torch.from_numpy(self.token_pixels[rows])[:, None].float().to(self.device) / 255
                features = self.image_features[torch.from_numpy(rows), 0].to(self.device)
                image_outputs.append(model.image_head(model.token_features(tokens), features))
        gallery = pack_signs(torch.cat(image_outputs).float().cpu().numpy())
        queries = model.encode_sketches(_undecoded(self.validation))
        _fill(model, current)
        labels = np.asarray(self.validation["label"])
        return evaluate(queries, gallery, labels, self.image_labels, bits=self.config.model.bits).map

    # What survives a kill: one file, replaced whole after each round.

    def _identity(self) -> dict[str, str]:
        return {
            "settings": json.dumps(asdict(self.config), sort_keys=True),
            "data": f"{self.sketches._fingerprint} {self.images._fingerprint}",
        }

    def _save(
        self,
        model: DSHModel,
        averaged: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        codes: dict[str, NDArray[np.float32]],
        outputs: dict[str, NDArray[np.float32]],
        rounds: int,
    ) -> None:
        from safetensors.torch import save

        tensors = {f"model.{name}": tensor for name, tensor in _floats(model).items()}
        tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
        for view in codes:
            tensors[f"codes.{view}"] = torch.from_numpy(codes[view]).to(torch.int8)
            tensors[f"outputs.{view}"] = torch.from_numpy(outputs[view])
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        about = {**self._identity(), "rounds": str(rounds), "history": json.dumps(self.history)}
        write_atomically(self.out / STATE_NAME, save(tensors, metadata=about))
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        write_atomically(self.out / LOG_NAME, lines.encode())

    def _resume(
        self,
        model: DSHModel,
        averaged: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        codes: dict[str, NDArray[np.float32]],
        outputs: dict[str, NDArray[np.float32]],
    ) -> int:
        """Load the last state into what is given, and tell how many rounds are done."""
        from safetensors import SafetensorError, safe_open

        path = self.out / STATE_NAME
        if not path.is_file():
            return 0
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise TrainingError(f"{path} is damaged ({error}): delete it to start afresh") from error
        for key, value in self._identity().items():
            if about.get(key) != value:
                raise TrainingError(
                    f"{path} was written with other {key}: start in another folder, or delete it to start afresh"
                )
        _fill(model, {name[6:]: tensor for name, tensor in stored.items() if name.startswith("model.")})
        for name in averaged:
            averaged[name].copy_(stored[f"averaged.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in stored.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        for view in codes:
            codes[view] = stored[f"codes.{view}"].numpy().astype(np.float32)
            outputs[view] = stored[f"outputs.{view}"].numpy()
        self.history = json.loads(about["history"])
        logger.info("resumed after round %s of %s", about["rounds"], self.config.rounds)
        return int(about["rounds"])

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


def _shuffled(count: int) -> NDArray[np.intp]:
    return torch.randperm(count).numpy()


def _floats(model: DSHModel) -> dict[str, Tensor]:
    """Give the trained tensors and BatchNorm's statistics, each once."""
    return {name: tensor for name, tensor in model.own_tensors().items() if not name.startswith("tokens.")}


def _fill(model: DSHModel, tensors: Mapping[str, Tensor]) -> None:
    own = model.own_tensors()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _undecoded(dataset: "Dataset") -> Any:
    """Give the image column as paths or bytes: the decoding is ours, and it runs in threads."""
    from datasets import Image

    return dataset.cast_column("image", Image(decode=False))["image"]


def _class_words(
    codes: Mapping[str, NDArray[np.float32]], labels: Mapping[str, Tensor], classes: int
) -> NDArray[np.float32]:
    """Give the majority bits of each class over both views, shape ``(classes, bits)``."""
    sums = np.zeros((classes, codes["image"].shape[1]), dtype=np.float32)
    for view, values in codes.items():
        np.add.at(sums, labels[view].numpy(), values)
    return np.where(sums >= 0, 1, -1).astype(np.float32)


def _bits_off_class_word(codes: Mapping[str, NDArray[np.float32]], objective: Objective) -> float:
    """Share of code bits that differ from the majority bit of their class and view."""
    off = 0.0
    for view, values in codes.items():
        labels = objective.labels[view]
        sums = np.zeros((objective.classes, values.shape[1]), dtype=np.float32)
        np.add.at(sums, labels, values)
        off += float(np.sum(values * np.where(sums >= 0, 1, -1)[labels] < 0))
    return off / sum(values.size for values in codes.values())
