"""The alternating loop: basis D, image codes B_I, sketch codes B_S, then one pass of the networks (section 4.3)."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from dsh_hf.augmentation import Draws
from dsh_hf.code_steps import CodeSteps
from dsh_hf.codes import pack_signs
from dsh_hf.data import class_vectors
from dsh_hf.encoding import encode_pictures
from dsh_hf.evaluation import evaluate
from dsh_hf.head_fitting import fit_heads
from dsh_hf.modeling import DSHModel
from dsh_hf.objective import Objective
from dsh_hf.pretrained import load_checkpoint_weights, load_imagenet_weights
from dsh_hf.processes import Processes
from dsh_hf.processing import Picture, prepare_sketch, sketch_to_tensor_layout
from dsh_hf.training_config import TrainingConfig
from dsh_hf.training_data import PreparedPictures, check_data, data_identity, prepare_files, undecoded
from dsh_hf.training_errors import TrainingError, told_out_of_memory
from dsh_hf.training_log import TrainingLog, describe
from dsh_hf.training_state import TrainingState, fill, trained_tensors

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Trainer", "TrainingConfig", "TrainingError"]

logger = logging.getLogger(__name__)

STATE_NAME = "state.safetensors"
_STATISTICS = ("running_mean", "running_var")  # of BatchNorm
_FEATURE_DROPOUT = 0.2  # before the classifier
_SHARPNESS = 12.0  # of the softmax over cosines with the code words: cosines alone are too close together


class Trainer:
    """Train a :class:`~dsh_hf.DSHModel` by alternating discrete code steps and network steps.

    All of the config's code lengths are trained at once, each with codes of its own. Under ``accelerate launch`` the
    processes share every batch of the network steps; ``out`` must be a folder that all of them see.

    Args:
        config: the settings.
        data: ``train_sketches`` and ``train_images``, data sets with ``image`` and ``label`` columns of the same
            classes; with ``validation_sketches``, their mAP on the training images is logged.
        out: folder for the state (training resumes from it), the logs and the finished checkpoint.
        word_vectors: phi, one row a class, shape ``(classes, d)``; by default GloVe's of the class names.
        device: where the networks run; with several processes ``cpu``, or the kind of device each gets one of.

    Attributes:
        history: a record of each finished round, as in ``log.jsonl``: figures of the config's ``bits``, and where
            there are more lengths, those of each under ``lengths``.

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
        self.config, self.out = config, Path(out)
        self.processes = Processes(torch.device(device))
        self.device = self.processes.device
        self.out.mkdir(parents=True, exist_ok=True)
        self.classes = check_data(data, config.lone_classes)
        self.sketches, self.images = data["train_sketches"], data["train_images"]
        self.validation = data.get("validation_sketches")
        self._check_batch()
        if word_vectors is None:
            word_vectors = class_vectors(self.classes)
        if len(word_vectors) != len(self.classes):
            raise TrainingError(f"{len(self.classes)} classes need as many word vectors, got {len(word_vectors)}")
        config.model.classes = self.classes
        image_labels, sketch_labels = np.asarray(self.images["label"]), np.asarray(self.sketches["label"])
        if config.tokens_as_sketches:
            sketch_labels = np.concatenate([sketch_labels, image_labels])
        weights = config.semantic_weight, config.quantization_weight
        self.objectives = [
            Objective(image_labels, sketch_labels, word_vectors, bits, *weights, config.mode)
            for bits in config.model.lengths
        ]
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
            TrainingError: a picture is damaged, the state belongs to other settings or data or cannot be written,
                memory runs out, or the loss is no longer finite.
        """
        torch.manual_seed(self.config.seed)
        with told_out_of_memory(f"lower image_size (now {self.config.model.image_size}), or take a smaller backbone"):
            state = self._start()
            pictures = self._prepare(state.model)
        if resume and (self.out / STATE_NAME).is_file():
            state.load(self.out / STATE_NAME, self._identity)
            logger.info("resumed after round %d of %d", len(state.history), self.config.rounds)
        if self.processes.as_in_main(len(state.history)) != len(state.history):
            raise TrainingError(f"{self.out} is not the same folder for all processes: give one that all machines see")
        self.history = state.history
        log = TrainingLog(self.out, state.history) if self.processes.is_main else None
        for number in range(len(state.history), self.config.rounds):
            began = time.perf_counter()
            torch.manual_seed(self.config.seed * 100_003 + number + 1)  # a resumed round draws the same numbers
            with told_out_of_memory(
                f"lower batch_size (now {self.config.batch_size}); {self.out} keeps the last round"
            ):
                record = self._round(state, pictures, number)
            record["seconds"] = round(time.perf_counter() - began, 1)
            state.history.append(record)
            if log is not None:
                state.save(self.out / STATE_NAME, self._identity)
                log.write(state.history)
                logger.info("%s", describe(record, self.config.rounds))
        if log is not None:
            fill(state.model, state.averaged)
            with told_out_of_memory("lower head_passes to 0"):
                self._fit_heads(state, pictures)
            log.amend(state.history)
            log.close()
            state.model.save_pretrained(self.out / "checkpoint")
        self.processes.wait()
        return DSHModel.from_pretrained(self.out / "checkpoint", device=self.device)  # the weights as stored

    def _check_batch(self) -> None:
        """Check that each process has two pictures of either kind in every step: BatchNorm needs company."""
        least = min(self.config.batch_size // 2, len(self.images), len(self.sketches)) // 2
        if self.processes.count > max(least, 1):
            raise TrainingError(
                f"batch_size {self.config.batch_size} is too small for {self.processes.count} processes: give at least "
                f"{4 * self.processes.count} and as many pictures"
            )

    def _prepare(self, model: DSHModel) -> PreparedPictures:
        """Prepare all pictures, the files in the main process first."""
        files = self.out / "prepared"
        with self.processes.main_first():
            prepare_files(self.config.model, self.sketches, self.images, files)
        keep = not self.config.train_image_trunk
        return PreparedPictures(model, self.sketches, self.images, files, keep_features=keep, processes=self.processes)

    def _start(self) -> TrainingState:
        model = DSHModel(self.config.model)
        if self.config.start_from is not None:
            load_checkpoint_weights(model, self.config.start_from)
        elif self.config.imagenet_weights:
            load_imagenet_weights(model.sketch_trunk, self.config.model.sketch_backbone)
            load_imagenet_weights(model.token_trunk, self.config.model.sketch_backbone)
            load_imagenet_weights(model.image_trunk, self.config.model.image_backbone)
        model.tokens.load_trained()
        model.tokens.requires_grad_(False)
        model.image_trunk.requires_grad_(self.config.train_image_trunk)
        model.to(memory_format=torch.channels_last)
        model.to(self.device)
        if self.config.compile:
            model.sketch_trunk.compile()
            model.token_trunk.compile()
        self.processes.share_statistics(model)
        classifier = nn.Linear(model.sketch_trunk.features, len(self.classes)).to(self.device)
        return TrainingState(
            model=model,
            classifier=classifier,
            optimizer=torch.optim.AdamW(self._parameter_groups(model, classifier), lr=self.config.learning_rate),
            averaged={name: tensor.detach().clone() for name, tensor in trained_tensors(model).items()},
            lengths=[CodeSteps(objective, self.config.seed) for objective in self.objectives],
        )

    def _parameter_groups(self, model: DSHModel, classifier: nn.Linear) -> list[dict[str, Any]]:
        backbones = (self.config.model.sketch_backbone, self.config.model.image_backbone)
        published = backbones == ("dsh-c2", "caffenet")  # there the biases learn twice as fast
        groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
        for name, parameter in [*model.named_parameters(), *classifier.named_parameters("classifier_head")]:
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

    def _round(self, state: TrainingState, pictures: PreparedPictures, number: int) -> dict[str, Any]:
        """Update all codes, then the networks; give what there is to log."""
        figures = {of.bits: self._code_steps(of) for of in state.lengths}
        losses = self._network_steps(state, pictures, number)
        if self.validation is not None and self.processes.is_main:
            current = {name: tensor.detach().clone() for name, tensor in trained_tensors(state.model).items()}
            fill(state.model, state.averaged)
            for bits, value in self._validate(state, pictures).items():
                figures[bits]["validation_map"] = round(value, 4)
            fill(state.model, current)
        record = {"round": number + 1} | figures[self.config.model.bits] | losses
        if len(figures) > 1:
            record["lengths"] = {str(bits): own for bits, own in figures.items()}
        return record

    def _code_steps(self, of: CodeSteps) -> dict[str, Any]:
        """Update the codes of one length in the main process, and send them to the others."""
        figures = of.update() if self.processes.is_main else {}
        for view, codes in of.codes.items():
            sent = self.processes.as_in_main(torch.from_numpy(codes).to(self.device, torch.int8))
            of.codes[view] = sent.cpu().numpy().astype(np.float32)
        return figures

    def _network_steps(self, state: TrainingState, pictures: PreparedPictures, number: int) -> dict[str, float]:
        """Regress both streams' outputs on their codes, every sketch once; keep the outputs for the next round."""
        model, processes = state.model, self.processes
        words = [torch.from_numpy(of.class_words()).to(self.device) for of in state.lengths]
        model.train()
        model.tokens.eval()
        if not self.config.train_image_trunk:
            model.image_trunk.eval()
        rows = self._batches(state.lengths[0])
        steps = len(rows["sketch"])
        losses = {"sketch": 0.0, "image": 0.0}
        progress = tqdm(
            range(steps), desc=f"round {number + 1}/{self.config.rounds}", unit="step", disable=not processes.is_main
        )
        for step in progress:
            self._set_rate(state.optimizer, number * steps + step, self.config.rounds * steps)
            state.optimizer.zero_grad(set_to_none=True)
            for view in losses:
                picked = rows[view][step]
                part = processes.part(len(picked))
                with processes.autocast():
                    if view == "sketch":
                        lines = 255 * pictures.lines_at(picked, part).expand(-1, 3, -1, -1)
                        features = model.sketch_features(lines)
                        given = model.sketch_head(features)
                    else:
                        given = model.image_head(*pictures.distorted_features(model, picked, part))
                given = given.float()
                loss = self._loss(given, view, picked[part], state.lengths, words)
                if view == "sketch" and self.config.classifier_weight:
                    wanted = torch.from_numpy(state.lengths[0].labels[view][picked[part]]).to(self.device)
                    kept = Draws(len(picked), part).uniform(features.shape[1]).to(self.device) >= _FEATURE_DROPOUT
                    told = state.classifier(features.float() * kept / (1 - _FEATURE_DROPOUT))
                    loss = loss + self.config.classifier_weight * nn.functional.cross_entropy(told, wanted)
                loss = loss * (len(given) / len(picked))
                whole = loss.detach().clone()
                processes.add_up([whole])
                if not torch.isfinite(whole):
                    raise TrainingError(
                        f"the {view} loss is {whole.item()} in round {number + 1}: lower learning_rate "
                        f"(now {self.config.learning_rate}); the last whole round is kept in {self.out}"
                    )
                loss.backward()
                outputs = processes.whole(given.detach(), len(picked)).cpu().numpy()
                for of in state.lengths:
                    of.outputs[view][picked] = outputs[:, self.config.model.columns(of.bits)]
                losses[view] += whole.item()
            self._share_changes(state)
            nn.utils.clip_grad_norm_(state.parameters(), 5.0)
            state.optimizer.step()
            _average(state, number * steps + step)
            progress.set_postfix({view: f"{value / (step + 1):.3f}" for view, value in losses.items()})
        return {f"{view}_loss": value / steps for view, value in losses.items()}

    def _batches(self, of: CodeSteps) -> dict[str, list[NDArray[np.intp]]]:
        """Draw the rows of each step's batch: every sketch once, and half as many images."""
        sketches, images = len(of.codes["sketch"]), len(of.codes["image"])
        steps = max(1, sketches // self.config.batch_size)
        needed = steps * min(self.config.batch_size // 2, images)
        image_order = np.concatenate([_shuffled(images) for _ in range(math.ceil(needed / images))])[:needed]
        return {"sketch": np.array_split(_shuffled(sketches), steps), "image": np.array_split(image_order, steps)}

    def _share_changes(self, state: TrainingState) -> None:
        """Add up the processes' gradients, and average what BatchNorm has seen."""
        count = self.processes.count
        self.processes.add_up([p.grad for p in state.parameters() if p.grad is not None])
        if count > 1:
            seen = [tensor for name, tensor in trained_tensors(state.model).items() if name.endswith(_STATISTICS)]
            for tensor in seen:
                tensor /= count
            self.processes.add_up(seen)

    def _loss(
        self,
        outputs: Tensor,
        view: str,
        rows: NDArray[np.intp],
        lengths: Sequence[CodeSteps],
        words: Sequence[Tensor],
    ) -> Tensor:
        """Regression on the codes (equation 12), and telling the class's code word from the others; of all lengths."""
        losses = []
        for of, own_words in zip(lengths, words, strict=True):
            own = outputs[:, self.config.model.columns(of.bits)]
            loss = nn.functional.mse_loss(own, torch.from_numpy(of.codes[view][rows]).to(self.device))
            if self.config.code_word_weight:
                likeness = nn.functional.normalize(own) @ nn.functional.normalize(own_words).T
                wanted = torch.from_numpy(of.labels[view][rows]).to(self.device)
                loss = loss + self.config.code_word_weight * nn.functional.cross_entropy(_SHARPNESS * likeness, wanted)
            losses.append(loss)
        return torch.stack(losses).sum()

    def _fit_heads(self, state: TrainingState, pictures: PreparedPictures) -> None:
        """Let both heads catch up with the trunks; measure, where there is something to validate with."""
        words = [torch.from_numpy(of.class_words()).to(self.device) for of in state.lengths]
        torch.manual_seed(self.config.seed * 100_003)
        fit_heads(
            state.model,
            pictures,
            lambda outputs, view, rows: self._loss(outputs, view, rows, state.lengths, words),
            {view: len(codes) for view, codes in state.lengths[0].codes.items()},
            self.config.head_passes,
        )
        if self.validation is not None and state.history:
            measured = self._validate(state, pictures)
            state.history[-1]["fitted_validation_map"] = {str(bits): round(v, 4) for bits, v in measured.items()}

    def _set_rate(self, optimizer: torch.optim.Optimizer, step: int, total: int) -> None:
        """Warm up for a twentieth of the steps, then go down along a cosine."""
        warm = max(1, total // 20)
        factor = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor

    def _validate(self, state: TrainingState, pictures: PreparedPictures) -> dict[int, float]:
        """Measure mAP of the validation sketches on the training images, for each length."""
        assert self.validation is not None
        model, labels = state.model, state.lengths[0].labels["image"]
        model.eval()
        with torch.inference_mode():
            rows = np.array_split(np.arange(len(labels)), math.ceil(len(labels) / 64))
            outputs = torch.cat([pictures.plain_outputs(model, part) for part in rows])
        gallery = outputs.float().cpu().numpy()
        queries = encode_pictures(
            model, undecoded(self.validation), self._prepare_sketch, model.sketch_outputs_of_all_lengths, np.asarray
        )
        wanted, measured = np.asarray(self.validation["label"]), {}
        for of in state.lengths:
            columns = self.config.model.columns(of.bits)
            codes = pack_signs(queries[:, columns]), pack_signs(gallery[:, columns])
            measured[of.bits] = evaluate(*codes, wanted, labels, bits=of.bits).map
        return measured

    def _prepare_sketch(self, picture: Picture) -> NDArray[np.uint8]:
        return sketch_to_tensor_layout(prepare_sketch(picture, self.config.model.sketch_size))


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
