"""What ``config.json`` holds: everything needed to build the networks and to prepare pictures for them."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FORMAT_VERSION = 2
PAPER_BITS = (32, 64, 128, 256)
_PAPER_SIZES = {"caffenet": 227, "dsh-c2": 200}
_PAPER_DROPOUT = {
    "sketchy": ([0.25, 0.25], [0.3, 0.4, 0.3, 0.4]),
    "tu-berlin": ([0.1, 0.2], [0.1, 0.3, 0.2, 0.3]),
}
# Pictures are held as 0..1; the paper's networks want 0..255 with a mean subtracted.
_CAFFE_STD = [1 / 255] * 3
_CAFFE_IMAGE_MEAN = [104.007 / 255, 116.669 / 255, 122.679 / 255]  # ImageNet's mean, blue first
_CAFFE_SKETCH_MEAN = [250.0 / 255] * 3  # nearly white; the authors' own value was not published


@dataclass
class DSHConfig:
    """Settings of a :class:`~dsh_hf.DSHModel`, checked when made.

    Attributes:
        bits: length of the codes that the model makes; that which a checkpoint opens with unless told otherwise.
        lengths: all lengths that the networks can make, ascending; ``bits`` alone unless more are given.
        image_backbone: ``"caffenet"`` (the paper's C1) or the name of a timm network.
        sketch_backbone: ``"dsh-c2"`` (the paper's C2) or the name of a timm network; it serves sketches and
            sketch-tokens.
        image_size: height and width of prepared images, in pixels.
        sketch_size: height and width of prepared sketches and of sketch-tokens, in pixels.
        image_mean: mean of each channel, subtracted from images in 0..1.
        image_std: standard deviation of each channel, divided by.
        sketch_mean: the same for sketches and sketch-tokens.
        sketch_std: the same for sketches and sketch-tokens.
        channel_order: order of colours that the image backbone was trained on.
        sketch_hidden: widths of the fully connected layers between sketch trunk and hash layer.
        fusion_hidden: widths of each of the two parallel layers of every late fusion stage.
        sketch_dropout: one rate for each layer of ``sketch_hidden``.
        fusion_dropout: two rates for each stage of ``fusion_hidden``.
        token_width: channels of the sketch-token network.
        mirror_sketches: give for a sketch the mean of the outputs for the drawing and for its mirror image.
        classes: names of the categories that the model was trained on, in the order of their labels.
        dtype: precision of stored weights; computing is always done in float32 unless the user casts.
        format_version: the earliest layout that can hold this config; 2 for several lengths, or
            ``mirror_sketches``.

    Raises:
        ValueError: a setting is out of range, or two settings do not go together.
    """

    bits: int = 64
    lengths: tuple[int, ...] = ()
    image_backbone: str = "tf_efficientnet_lite0"
    sketch_backbone: str = "tf_efficientnet_lite0"
    image_size: int = 192
    sketch_size: int = 112
    image_mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    image_std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    sketch_mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    sketch_std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    channel_order: Literal["rgb", "bgr"] = "rgb"
    sketch_hidden: list[int] = field(default_factory=lambda: [512])
    fusion_hidden: list[int] = field(default_factory=lambda: [256])
    sketch_dropout: list[float] = field(default_factory=lambda: [0.25])
    fusion_dropout: list[float] = field(default_factory=lambda: [0.25, 0.25])
    token_width: int = 24
    mirror_sketches: bool = False
    classes: list[str] = field(default_factory=list)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    format_version: int = 1

    def __post_init__(self) -> None:
        _check_range("format_version", self.format_version, 1, sys.maxsize)
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"this checkpoint has format {self.format_version}, newer than the {FORMAT_VERSION} known "
                "here: upgrade with `pip install -U dsh-hf`"
            )
        _check_range("bits", self.bits, 8, 4096)
        self._check_lengths()
        _check_range("image_size", self.image_size, 32, 1024)
        _check_range("sketch_size", self.sketch_size, 32, 1024)
        _check_range("token_width", self.token_width, 4, 256)
        _check_backbone("image_backbone", self.image_backbone, "image_size", self.image_size)
        _check_backbone("sketch_backbone", self.sketch_backbone, "sketch_size", self.sketch_size)
        self._check_lists()
        _check_choice("channel_order", self.channel_order, ("rgb", "bgr"))
        _check_choice("dtype", self.dtype, ("float32", "float16", "bfloat16"))

    def _check_lengths(self) -> None:
        if not isinstance(self.lengths, list | tuple):
            raise ValueError(f"lengths must be a list of code lengths, got {self.lengths!r}")
        self.lengths = tuple(self.lengths) if len(self.lengths) > 1 else (self.bits,)
        for bits in self.lengths:
            _check_range("each of lengths", bits, 8, 4096)
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths must ascend, got {self.lengths}")
        if self.bits not in self.lengths:
            raise ValueError(f"bits must be one of the lengths {told(self.lengths)}, got {self.bits}")
        if len(self.lengths) > 1 or self.mirror_sketches:
            self.format_version = max(self.format_version, 2)

    def _check_lists(self) -> None:
        for name in ("image_mean", "image_std", "sketch_mean", "sketch_std"):
            _check_numbers(name, getattr(self, name))
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name} needs three numbers, one a channel, got {getattr(self, name)}")
        if min(*self.image_std, *self.sketch_std) <= 0:
            raise ValueError("image_std and sketch_std must be above 0")
        for name in ("sketch_hidden", "fusion_hidden", "sketch_dropout", "fusion_dropout"):
            _check_numbers(name, getattr(self, name))
        for width in [*self.sketch_hidden, *self.fusion_hidden]:
            _check_range("each width of sketch_hidden and fusion_hidden", width, 1, 65536)
        if len(self.sketch_dropout) != len(self.sketch_hidden):
            raise ValueError("sketch_dropout needs one rate for each layer of sketch_hidden")
        if len(self.fusion_dropout) != 2 * len(self.fusion_hidden):
            raise ValueError("fusion_dropout needs two rates for each stage of fusion_hidden")
        if not all(0 <= rate < 1 for rate in [*self.sketch_dropout, *self.fusion_dropout]):
            raise ValueError("dropout rates must be at least 0 and below 1")

    def columns(self, bits: int) -> slice:
        """Give the columns of the hash layers' outputs that make the codes of one of ``lengths``."""
        if bits not in self.lengths:
            raise ValueError(f"there are codes of {told(self.lengths)} bits, not of {bits}")
        start = sum(length for length in self.lengths if length < bits)
        return slice(start, start + bits)

    def to_dict(self) -> dict[str, Any]:
        """Give what ``config.json`` holds; what format 1 did not know is left out where it says nothing new."""
        settings = asdict(self)
        if len(self.lengths) == 1:
            del settings["lengths"]
        if not self.mirror_sketches:
            del settings["mirror_sketches"]
        return settings

    @classmethod
    def paper(cls, dataset: Literal["sketchy", "tu-berlin"], bits: int = 64) -> "DSHConfig":
        """Give the published networks (section 4.1 of the paper) as trained for one of its two data sets.

        Args:
            dataset: its dropout rates are taken.
            bits: 32, 64, 128 or 256.
        """
        _check_choice("dataset", dataset, tuple(_PAPER_DROPOUT))
        if bits not in PAPER_BITS:
            raise ValueError(f"bits of the paper's networks are one of {PAPER_BITS}, got {bits}")
        sketch_dropout, fusion_dropout = _PAPER_DROPOUT[dataset]
        return cls(
            bits=bits,
            image_backbone="caffenet",
            sketch_backbone="dsh-c2",
            image_size=227,
            sketch_size=200,
            image_mean=list(_CAFFE_IMAGE_MEAN),
            image_std=list(_CAFFE_STD),
            sketch_mean=list(_CAFFE_SKETCH_MEAN),
            sketch_std=list(_CAFFE_STD),
            channel_order="bgr",
            sketch_hidden=[4096, 1024],
            fusion_hidden=[4096, 1024],
            sketch_dropout=list(sketch_dropout),
            fusion_dropout=list(fusion_dropout),
        )


def told(lengths: Sequence[int]) -> str:
    """Give code lengths as a sentence has them: ``32, 64 and 128``."""
    *first, last = map(str, lengths)
    return f"{', '.join(first)} and {last}" if first else last


def _check_numbers(name: str, values: object) -> None:
    if not isinstance(values, list) or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise ValueError(f"{name} must be a list of numbers, got {values!r}")


def _check_backbone(name: str, backbone: str, size_name: str, size: int) -> None:
    if not isinstance(backbone, str):
        raise ValueError(f"{name} must be the name of a network, got {backbone!r}")
    needed = _PAPER_SIZES.get(backbone, size)
    if size != needed:
        raise ValueError(f"the backbone {backbone!r} needs {size_name}={needed}, got {size}")


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
