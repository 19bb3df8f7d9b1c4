"""The rows of the ablation: what each changes in training, and how it is trained and measured."""

import copy
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks._ablation_measures import Floats, Rankings, itq, rank_codes, rank_floats
from dsh_hf.checkpoint import CONFIG_NAME
from dsh_hf.code_steps import CodeSteps
from dsh_hf.modeling import DSHModel
from dsh_hf.training import Trainer, TrainingConfig
from dsh_hf.training_data import PreparedPictures, prepare_files
from dsh_hf.training_state import TrainingState, fill, trained_tensors

if TYPE_CHECKING:
    from datasets import Dataset

FLOATS = 512  # numbers in a trained float embedding
_BATCH = 64  # pictures at once where nothing is trained
_MARGIN = 0.2  # of the triplet loss, between cosines
_SHARPNESS = 16.0  # of both losses over cosines
_PAPER = TrainingConfig.paper()

Measured = dict[str, dict[str, Rankings]]  # by row, then by length


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        title: what the table calls it.
        kind: ``"untrained"``, ``"floats"`` (trained ones), ``"itq"`` (made of the floats of the row before), or
            ``"codes"``.
        changes: to the settings of the row ``dsh``.
        terms: of the objective: ``"all"``, ``"no pairs"``, or ``"labels"`` for no pairs, and labels in place of word
            vectors.
        tokens: whether images have sketch-tokens, not blank paper.
    """

    title: str
    kind: str = "codes"
    changes: Mapping[str, Any] = field(default_factory=dict)
    terms: str = "all"
    tokens: bool = True


_PUBLISHED = (
    "mode",
    "semantic_weight",
    "quantization_weight",
    "code_word_weight",
    "classifier_weight",
    "head_passes",
    "tokens_as_sketches",
)
ROWS = {
    "untrained": Row("ImageNet features, untrained", "untrained"),
    "triplet": Row(f"{FLOATS} floats, triplet loss", "floats"),
    "triplet-itq": Row("the same floats, ITQ", "itq"),
    "softmax": Row(f"{FLOATS} floats, softmax loss", "floats"),
    "softmax-itq": Row("the same floats, ITQ", "itq"),
    "gdh": Row("label regression, as in GDH", terms="labels"),
    "paper": Row("DSH as published", changes={name: getattr(_PAPER, name) for name in _PUBLISHED}),
    "no-tokens": Row("DSH without sketch-tokens", changes={"tokens_as_sketches": False}, tokens=False),
    "no-semantic": Row("DSH without the semantic term", changes={"semantic_weight": 0.0}),
    "no-pairwise": Row("DSH without the pairwise term", terms="no pairs"),
    "gamma-0": Row("DSH, gamma = 0", changes={"quantization_weight": 0.0}),
    "dsh": Row("DSH whole"),
}
RUNS = [name for name, row in ROWS.items() if row.kind != "itq"]  # floats and their ITQ are one run


class RowTrainer(Trainer):
    """The package's trainer, on pictures that all rows share.

    Args:
        pictures: the training pictures, prepared.
        warm: a model whose trunks of sketches and sketch-tokens are started from.
        arguments: those of :class:`~dsh_hf.training.Trainer`.
    """

    def __init__(self, pictures: PreparedPictures | None, warm: DSHModel | None, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._pictures, self._warm = pictures, warm

    def _start(self) -> TrainingState:
        state = super()._start()
        if self._warm is not None:
            tensors = trained_tensors(self._warm)
            trunks = {name: tensors[name] for name in tensors if name.startswith(("sketch_trunk.", "token_trunk."))}
            fill(state.model, trunks)
            for name, tensor in trunks.items():
                state.averaged[name].copy_(tensor)
        return state

    def _prepare(self, model: DSHModel) -> PreparedPictures:
        return self._pictures or super()._prepare(model)


class SoftmaxTrainer(RowTrainer):
    """Trains floats: both views are told apart by one learnt vector a class, compared by cosines."""

    def _start(self) -> TrainingState:
        state = super()._start()
        self.prototypes = nn.Parameter(torch.randn(len(self.classes), self.config.model.bits, device=self.device))
        rate = 3 * self.config.learning_rate  # as the heads
        state.optimizer.add_param_group({"params": [self.prototypes], "weight_decay": 0.0, "rate": rate})
        return state

    def _loss(
        self, outputs: Tensor, view: str, rows: NDArray, lengths: Sequence[CodeSteps], words: Sequence[Tensor]
    ) -> Tensor:
        wanted = torch.from_numpy(lengths[0].labels[view][rows]).to(self.device)
        cosines = nn.functional.normalize(outputs) @ nn.functional.normalize(self.prototypes).T
        return nn.functional.cross_entropy(_SHARPNESS * cosines, wanted)


class TripletTrainer(RowTrainer):
    """Trains floats: an item of the class is to be nearer than all others, by a margin.

    Items are compared with what the networks last gave for the items of the other view, as the trainer keeps it for
    the code steps: a batch alone seldom has two items of a class (cross-batch memory, Wang et al., CVPR 2020).
    """

    def _loss(
        self, outputs: Tensor, view: str, rows: NDArray, lengths: Sequence[CodeSteps], words: Sequence[Tensor]
    ) -> Tensor:
        (of,) = lengths
        other = "image" if view == "sketch" else "sketch"
        kept = np.flatnonzero(of.outputs[other].any(axis=1))  # what the networks have seen
        if not len(kept):
            return outputs.sum() * 0
        memory = torch.from_numpy(of.outputs[other][kept]).to(self.device)
        labels = torch.from_numpy(of.labels[other][kept]).to(self.device)
        own = torch.from_numpy(of.labels[view][rows]).to(self.device)
        cosines = nn.functional.normalize(outputs) @ nn.functional.normalize(memory).T
        same = own[:, None] == labels
        paired = same.any(dim=1)
        if not paired.any():
            return outputs.sum() * 0
        cosines, same = cosines[paired], same[paired]
        positive = cosines.gather(1, torch.multinomial(same.float(), 1))
        # The hinge on the worst violation, made smooth: the hinge itself stays where all cosines are equal.
        violations = (_SHARPNESS * (_MARGIN - positive + cosines)).masked_fill(same, -torch.inf)
        return nn.functional.softplus(torch.logsumexp(violations, dim=1)).mean()


_TRAINERS: dict[str, type[RowTrainer]] = {"triplet": TripletTrainer, "softmax": SoftmaxTrainer}


class Table:
    """Data on which rows are trained and measured; what all rows share is prepared once.

    Args:
        parts: ``train_sketches``, ``train_images``, ``query_sketches`` and ``gallery_images``.
        config: the settings of the row ``dsh``; its ``model.lengths`` are the lengths of all codes.
        folder: for prepared pictures.
        device: where the networks run.

    Attributes:
        labels: of the queries and of the gallery, ``"query"`` and ``"gallery"``.
    """

    def __init__(self, parts: Mapping[str, "Dataset"], config: TrainingConfig, folder: Path, device: str) -> None:
        sketches, images = parts["train_sketches"], parts["train_images"]
        self._train = {"train_sketches": sketches, "train_images": images}
        self.config, self._folder, self._device = config, folder, device
        queries, gallery = parts["query_sketches"], parts["gallery_images"]
        if gallery["id"][:] == images["id"][:]:
            gallery = images  # and so prepared once
        self.labels = {"query": np.asarray(queries["label"]), "gallery": np.asarray(gallery["label"])}
        self._counts = {"train": len(images), "gallery": len(gallery)}
        self._warm: DSHModel | None = None
        with tempfile.TemporaryDirectory(dir=folder) as out:
            trainer = self._trainer("dsh", None, Path(out), 1)
            torch.manual_seed(config.seed)
            self._base = trainer._start().model.eval()  # the trunks that all rows start from
        pictures = PreparedPictures(self._base, sketches, images, folder, keep_features=True)
        self._pictures = {"train": pictures, "gallery": pictures}
        if gallery is not images:
            self._pictures["gallery"] = PreparedPictures(self._base, queries, gallery, folder, keep_features=True)
        drawn = {"train": (sketches, images), "query": (queries, gallery)}
        self._drawn = {name: prepare_files(config.model, *both, folder)[0] for name, both in drawn.items()}

    def steps(self, name: str = "dsh") -> int:
        """Give the network steps in a round of a row."""
        tokens = ROWS[name].changes.get("tokens_as_sketches", self.config.tokens_as_sketches)
        lines = len(self._drawn["train"]) + (self._counts["train"] if tokens else 0)
        return max(1, lines // self.config.batch_size)

    def warm_up(self, rounds: int, out: Path) -> None:
        """Train the trunk of sketches, once, by the softmax loss: all rows start from it then.

        Args:
            rounds: of training.
            out: folder that keeps it; what is there already is taken.
        """
        if not (out / "checkpoint" / CONFIG_NAME).is_file():
            self._trainer("softmax", self._pictures["train"], out, rounds).train(resume=False)
        self._warm = DSHModel.from_pretrained(out / "checkpoint", device=self._device)

    def seconds_of_a_round(self) -> float:
        """Train the row ``dsh`` for one round, to see how long that takes."""
        with tempfile.TemporaryDirectory(dir=self._folder) as out:
            trainer = self._trainer("dsh", self._pictures["train"], Path(out), 1)
            trainer.train(resume=False)
        return max(0.1, float(trainer.history[0]["seconds"]))  # it is told in tenths

    def run(self, name: str, steps: int) -> tuple[Measured, float]:
        """Train a row for so many network steps, or as near as whole rounds come, and measure it.

        Returns:
            The rankings, by row (with that of ITQ for floats) and length, and the seconds that training took.
        """
        if ROWS[name].kind == "untrained":
            return {name: {"floats": self._rank(rank_floats, *self._features())}}, 0.0
        pictures = {part: own if ROWS[name].tokens else without_tokens(own) for part, own in self._pictures.items()}
        with tempfile.TemporaryDirectory(dir=self._folder) as out:
            rounds = max(1, round(steps / self.steps(name)))
            trainer = self._trainer(name, pictures["train"], Path(out), rounds)
            model = trainer.train(resume=False)
        queries, gallery = self._sketches(model, "query"), self._images(model, pictures, "gallery")
        seconds = sum(record["seconds"] for record in trainer.history)
        if ROWS[name].kind == "codes":
            columns = {bits: model.config.columns(bits) for bits in model.config.lengths}
            return {
                name: {str(b): self._rank(rank_codes, queries[:, c], gallery[:, c]) for b, c in columns.items()}
            }, seconds
        seen = np.concatenate([self._sketches(model, "train"), self._images(model, pictures, "train")])
        coded = {
            str(bits): self._rank(rank_codes, *itq(seen, bits, queries, gallery)) for bits in self.config.model.lengths
        }
        return {name: {"floats": self._rank(rank_floats, queries, gallery)}, f"{name}-itq": coded}, seconds

    def _rank(self, measure: Callable[..., Rankings], queries: Floats, gallery: Floats) -> Rankings:
        return measure(queries, gallery, self.labels["query"], self.labels["gallery"])

    def _trainer(self, name: str, pictures: PreparedPictures | None, out: Path, rounds: int) -> RowTrainer:
        row, model = ROWS[name], copy.copy(self.config.model)
        if row.kind == "floats":
            model = replace(model, bits=FLOATS, lengths=(FLOATS,))
        config = replace(self.config, model=model, rounds=rounds, **row.changes)
        classes = len(self._train["train_sketches"].features["label"].names)
        vectors = np.eye(classes) if row.terms == "labels" else None
        kind = _TRAINERS.get(name, RowTrainer)
        trainer = kind(pictures, self._warm, config, self._train, out, word_vectors=vectors, device=self._device)
        if row.terms != "all":
            for objective in trainer.objectives:
                objective.pair_scale = 0.0
        return trainer

    def _features(self) -> tuple[Floats, Floats]:
        """Give what the untrained trunks make of queries and gallery: networks whose heads do nothing."""
        model = copy.deepcopy(self._base)
        model.sketch_head, model.image_head = nn.Identity(), _ImageFeatures()  # type: ignore[assignment]
        return self._sketches(model, "query"), self._images(model, self._pictures, "gallery")

    @torch.inference_mode()
    def _sketches(self, model: DSHModel, part: str) -> Floats:
        drawn = self._drawn[part]
        outputs = []
        for start in range(0, len(drawn), _BATCH):
            pixels = torch.from_numpy(np.array(drawn[start : start + _BATCH]))[:, None].to(self._device).float()
            outputs.append(model.sketch_outputs_of_all_lengths(pixels.expand(-1, 3, -1, -1)).cpu())
        return torch.cat(outputs).numpy()

    @torch.inference_mode()
    def _images(self, model: DSHModel, pictures: Mapping[str, PreparedPictures], part: str) -> Floats:
        rows = np.array_split(np.arange(self._counts[part]), math.ceil(self._counts[part] / _BATCH))
        return torch.cat([pictures[part].plain_outputs(model, own).cpu() for own in rows]).numpy()


class _ImageFeatures(nn.Module):
    """A head that gives the image trunk's features as they are."""

    def forward(self, token_features: Tensor, image_features: Tensor) -> Tensor:
        """Give the second argument back."""
        return image_features


def without_tokens(pictures: PreparedPictures) -> PreparedPictures:
    """Give the same pictures with blank paper for sketch-tokens."""
    blank = copy.copy(pictures)
    blank._tokens = np.full_like(pictures._tokens, 255)
    return blank
