"""The settings of a training run."""

from dataclasses import dataclass, field
from typing import Any

from dsh_hf.configuration import DSHConfig
from dsh_hf.objective import Mode


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
        classifier_weight: how much telling a sketch's class from its features counts in the network step, by a linear
            layer that only training has: trunks learn faster from it than from codes; 0 is the paper's step.
        head_passes: after the last round, passes of the heads alone over features of trunks that stay as they are;
            0 is the paper's training.
        rounds: how often D, B_I and B_S are updated and the networks see every sketch once.
        batch_size: sketches in a step of the networks, over all processes; half as many images go along.
        learning_rate: the highest rate of the trunks; heads learn three times as fast.
        weight_decay: decay of matrices and kernels.
        imagenet_weights: start timm trunks from ImageNet weights that an installed package carries.
        start_from: a checkpoint, whose networks are started from instead, all but their hash layers; its backbones
            must be those of ``model``.
        train_image_trunk: also train the image trunk; otherwise it keeps its weights, and runs only once.
        tokens_as_sketches: let the sketch-tokens of the images train the sketch stream, too.
        compile: compile the trunks of sketches and sketch-tokens; needs a C++ compiler.
        lone_classes: allow classes that have pictures in one domain alone; they teach one stream to tell more apart.
        seed: of everything that is drawn at random.
    """

    model: DSHConfig = field(default_factory=DSHConfig)
    mode: Mode = "balanced"
    semantic_weight: float = 0.1
    quantization_weight: float = 0.1
    code_word_weight: float = 0.3
    classifier_weight: float = 1.0
    head_passes: int = 16
    rounds: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    imagenet_weights: bool = True
    start_from: str | None = None
    train_image_trunk: bool = False
    tokens_as_sketches: bool = True
    compile: bool = False
    lone_classes: bool = False
    seed: int = 0

    @classmethod
    def paper(cls, **settings: Any) -> "TrainingConfig":
        """Give the published objective, for study: unweighted, lambda 0.01, gamma 1e-5, and nothing of ours beside it.

        Args:
            settings: what else to set, as for the class itself; they win over the published ones.
        """
        published: dict[str, Any] = {"mode": "paper", "semantic_weight": 0.01, "quantization_weight": 1e-5}
        published |= {"code_word_weight": 0.0, "classifier_weight": 0.0, "head_passes": 0, "tokens_as_sketches": False}
        return cls(**(published | settings))

    def __post_init__(self) -> None:
        for name in ("rounds", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size < 4:
            raise ValueError("batch_size must be at least 4: BatchNorm needs company")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        weights = ("semantic_weight", "quantization_weight", "code_word_weight", "classifier_weight")
        for name in (*weights, "weight_decay", "head_passes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
