"""The authors' trained networks: reading Caffe's weights, and turning a pair of files into a checkpoint.

The authors published, for each data set and code length, the weights of two Caffe networks: one gives an image's
code from the image and its sketch-token picture, the other a sketch's code. Both hold the convolutions of the
sketch trunk, which the two streams share. What they did not publish stays ours: the mean of sketches
(``DSHConfig.paper``) and the network that draws sketch-tokens.
"""

import math
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsh_hf.configuration import DSHConfig
from dsh_hf.encoders import CaffeNetTrunk, SketchTrunk, SkipInitialisation
from dsh_hf.modeling import DSHModel

_SKETCH_PARTS = ("1", "2_1", "2_2", "3_1", "3_2")  # of the layers' names: conv1-S, BN1-S, SC1-S, conv2_1-S, ...
_IMAGE_CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
_SKETCH_HIDDEN = ("fc_a-S", "fc_b-S")
_FUSION = (("fc_a-S_new", "fc6_new_new"), ("fc_b-S_new", "fc7_new_new"))  # sketch-token's side, image's side
_SHARED_TOLERANCE = 1e-6  # of the largest weight: the same numbers, but for another tool's rounding
# In the schema: which field of the network is a layer, and which of the layer's are its name and its blobs.
_LAYER_FIELDS = {100: (1, 7), 2: (4, 6)}  # 2 is the older form
_MOST_NUMBERS = 1_000_000  # varints in a file: far above any network's, reached in a second


class CaffeModelError(ValueError):
    """A .caffemodel cannot be used; the message names the file, the layer, and what was expected."""


@dataclass(frozen=True)
class Blob:
    """One array of a layer, where it lies in the file.

    Attributes:
        shape: as the file states it.
        offset: of the first number, in bytes.
        size: of all numbers, in bytes.
        dtype: NumPy's name of their type.
    """

    shape: tuple[int, ...]
    offset: int
    size: int
    dtype: str


def read_caffemodel(path: str | os.PathLike) -> dict[str, list[Blob]]:
    """List the layers of a .caffemodel that have weights; the weights themselves are not read.

    Args:
        path: a binary file of Caffe's ``NetParameter``.

    Returns:
        The blobs of each layer, by the layer's name.

    Raises:
        FileNotFoundError: there is no such file.
        CaffeModelError: it is no such file, or it is damaged or truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the .caffemodel that belongs to a deploy.prototxt")
    if path.stat().st_size == 0:
        raise CaffeModelError(f"{path} is empty: download or copy it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return dict(_Reader(content).layers())
        except _MalformedError as error:
            raise CaffeModelError(
                f"{path} is no .caffemodel, or it is damaged or truncated ({error}): download or copy it again"
            ) from error


class _MalformedError(Exception):
    """The bytes are no message of the protobuf wire format that Caffe's schema allows."""


class _Reader:
    """Walks through a binary ``NetParameter``; every step is checked against the bytes that are there."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.numbers_left = _MOST_NUMBERS

    def layers(self) -> Iterator[tuple[str, list[Blob]]]:
        for number, layer in self.fields(slice(0, len(self.content))):
            if number not in _LAYER_FIELDS or isinstance(layer, int):
                continue
            name, blobs = "", []
            name_field, blob_field = _LAYER_FIELDS[number]
            for field, value in self.fields(layer):
                if field == name_field and isinstance(value, slice):
                    name = self.text(value)
                elif field == blob_field and isinstance(value, slice):
                    blobs.append(self.blob(value))
            if blobs:
                yield name, blobs

    def blob(self, extent: slice) -> Blob:
        shape: list[int] = []
        old_shape = {1: 0, 2: 0, 3: 0, 4: 0}
        data, dtype = slice(0, 0), "<f4"
        for field, value in self.fields(extent):
            if field in old_shape and isinstance(value, int):
                old_shape[field] = value
            elif field in (5, 8) and isinstance(value, slice):
                if data.stop:
                    raise _MalformedError("a blob's numbers are not in one piece")
                data, dtype = value, "<f4" if field == 5 else "<f8"
            elif field == 7 and isinstance(value, slice):
                shape = self.dimensions(value)
        return Blob(tuple(shape or old_shape.values()), data.start, data.stop - data.start, dtype)

    def dimensions(self, extent: slice) -> list[int]:
        found: list[int] = []
        for field, value in self.fields(extent):
            if field == 1 and isinstance(value, int):
                found.append(value)
            elif field == 1 and isinstance(value, slice):
                position = value.start
                while position < value.stop:
                    dimension, position = self.varint(position, value.stop)
                    found.append(dimension)
        if len(found) > 32:
            raise _MalformedError(f"a blob has {len(found)} dimensions")
        return found

    def fields(self, extent: slice) -> Iterator[tuple[int, int | slice]]:
        """Give the number of each field of a message with its value: a whole number, or where its bytes are."""
        position, end = extent.start, extent.stop
        while position < end:
            key, position = self.varint(position, end)
            kind = key & 7
            if kind == 0:
                value, position = self.varint(position, end)
                yield key >> 3, value
                continue
            if kind == 2:
                length, position = self.varint(position, end)
            elif kind in (1, 5):
                length = 8 if kind == 1 else 4
            else:
                raise _MalformedError(f"a field of unknown kind {kind} at byte {position}")
            if length > end - position:
                raise _MalformedError(f"{length} bytes announced at byte {position}, {end - position} left")
            yield key >> 3, slice(position, position + length)
            position += length

    def varint(self, position: int, end: int) -> tuple[int, int]:
        self.numbers_left -= 1
        if self.numbers_left < 0:
            raise _MalformedError(f"more than {_MOST_NUMBERS} fields")
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise _MalformedError(f"a number is cut off at byte {position}")
            byte = self.content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise _MalformedError(f"a number does not end at byte {position}")

    def text(self, extent: slice) -> str:
        if extent.stop - extent.start > 1000:
            raise _MalformedError("a layer's name is longer than 1000 bytes")
        return self.content[extent].decode("utf-8", errors="replace")


class _Network:
    """One of the two networks, asked for the arrays of its layers."""

    def __init__(self, path: str | os.PathLike, role: str, layers: list[str], hash_layer: str) -> None:
        self.path = Path(path)
        self.blobs = read_caffemodel(path)
        missing = [name for name in layers if name not in self.blobs]
        if missing:
            self.fail(
                f"not the {role} network, layer {missing[0]} is missing ({len(missing)} of {len(layers)} layers are); "
                "give the image network first, then the sketch network"
            )
        found = [name for name in self.blobs if re.fullmatch(hash_layer, name)]
        if len(found) != 1:
            self.fail(f"expected one last layer named {hash_layer}, found {found[:3] or 'none'}")
        self.hash_layer = found[0]

    @property
    def dataset(self) -> Literal["sketchy", "tu-berlin"]:
        """The data set that the network was trained on, by the name of its last layer."""
        return "tu-berlin" if self.hash_layer.endswith("final") else "sketchy"

    def outputs(self, layer: str, inputs: int) -> int:
        """Give the width of a fully connected layer, whose number of inputs is known."""
        shape = self.shape(layer, 0, 2)
        if len(shape) != 2 or shape[1] != inputs or shape[0] == 0:
            self.fail(f"layer {layer} has weights of shape {shape}, expected (n, {inputs})")
        self.array(layer, 1, (shape[0],))  # bounds the width by bytes that are there
        return shape[0]

    def array(self, layer: str, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Read a blob that must have a shape."""
        found = self.shape(layer, index, len(shape))
        if found != shape:
            self.fail(f"blob {index} of layer {layer} has the shape {found}, expected {shape}")
        blob = self.blobs[layer][index]
        count, itemsize = math.prod(shape), np.dtype(blob.dtype).itemsize
        if blob.size != count * itemsize:
            self.fail(f"blob {index} of layer {layer} has {blob.size // itemsize} numbers, expected {count}")
        numbers = np.fromfile(self.path, dtype=blob.dtype, count=count, offset=blob.offset)
        if not np.isfinite(numbers).all():
            self.fail(f"blob {index} of layer {layer} has numbers that are not finite")
        return numbers.astype(np.float32, copy=False).reshape(shape)

    def shape(self, layer: str, index: int, dimensions: int) -> tuple[int, ...]:
        """Give a blob's shape; the older form of the format fills it up with ones in front."""
        if index >= len(self.blobs[layer]):
            self.fail(f"layer {layer} has only {len(self.blobs[layer])} of its blobs, number {index} is missing")
        shape = self.blobs[layer][index].shape
        while len(shape) > dimensions and shape[0] == 1:
            shape = shape[1:]
        return shape

    def fail(self, why: str) -> NoReturn:
        raise CaffeModelError(f"{self.path}: {why}")


def import_caffe(
    image: str | os.PathLike,
    sketch: str | os.PathLike,
    out: str | os.PathLike,
    *,
    bits: int | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> DSHModel:
    """Turn the authors' two Caffe networks into a checkpoint.

    The widths of the hidden layers and the code length are taken from the files, the data set from the names of
    their last layers. Layers that are not ours are left aside, so one file that holds both networks may be given
    twice. Sketch-tokens are drawn by the network that ships with this package.

    Args:
        image: .caffemodel of the image network (``deploy_it_*.prototxt``).
        sketch: .caffemodel of the sketch network (``deploy_sk_*.prototxt``).
        out: folder for the checkpoint, new or empty; it appears when everything is in it, or not at all.
        bits: the code length you rely on; another one in the files is an error.
        dtype: precision of the stored weights.

    Returns:
        The model as :meth:`DSHModel.from_pretrained` opens it from ``out``.

    Raises:
        FileNotFoundError: a file is not there.
        FileExistsError: ``out`` is not empty.
        CaffeModelError: a file is damaged, lacks a layer or has one of another shape, or the two do not belong
            together: other code lengths or data sets, or sketch trunk convolutions that are not the same in both.
            Those are shared in the published networks, so different ones are of two networks or two moments of
            training, and neither may stand in for the other.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already: give the checkpoint a new folder")
    _write_checkpoint(_convert(image, sketch, bits, dtype), out)
    return DSHModel.from_pretrained(out)


def _convert(
    image: str | os.PathLike,
    sketch: str | os.PathLike,
    bits: int | None,
    dtype: Literal["float32", "float16", "bfloat16"],
) -> DSHModel:
    sketch_trunk = [f"{kind}{part}" for part in _SKETCH_PARTS for kind in ("conv", "BN", "SC")]
    fusion = [name for stage in _FUSION for name in stage]
    image_layers = [*(f"{name}-S_p" for name in sketch_trunk), *_IMAGE_CONVOLUTIONS, *fusion]
    image_net = _Network(image, "image", image_layers, r"fc_fuse_(\d+|TU_final)")
    sketch_layers = [*(f"{name}-S" for name in sketch_trunk), *_SKETCH_HIDDEN]
    sketch_net = _Network(sketch, "sketch", sketch_layers, r"fc_p-S_(\d+|final)")
    config = replace(_configure(image_net, sketch_net, bits), dtype=dtype)
    with SkipInitialisation():
        model = DSHModel(config)
    tensors = model.own_tensors()
    with torch.no_grad():
        for part in _SKETCH_PARTS:
            _check_shared(tensors, f"sketch_trunk.conv{part}", sketch_net, image_net, f"conv{part}-S")
            _fill_layer(tensors, f"sketch_trunk.conv{part}", sketch_net, f"conv{part}-S")
            _fill_norm(tensors, f"sketch_trunk.norm{part}", sketch_net, part, "-S")
            _fill_norm(tensors, f"token_trunk.norm{part}", image_net, part, "-S_p")
        for name in _IMAGE_CONVOLUTIONS:
            _fill_layer(tensors, f"image_trunk.{name}", image_net, name)
        for stage, layer in enumerate(_SKETCH_HIDDEN):
            _fill_layer(tensors, f"sketch_head.hidden.{3 * stage}", sketch_net, layer)  # each with ReLU and dropout
        _fill_layer(tensors, "sketch_head.hash", sketch_net, sketch_net.hash_layer)
        for stage, (token_layer, image_layer) in enumerate(_FUSION):
            _fill_layer(tensors, f"image_head.token_layers.{stage}.0", image_net, token_layer)
            _fill_layer(tensors, f"image_head.image_layers.{stage}.0", image_net, image_layer)
        _fill_layer(tensors, "image_head.hash", image_net, image_net.hash_layer)
    model.tokens.load_trained()
    assert all(name.startswith("tokens.") for name in tensors), list(tensors)
    return model


def _configure(image: _Network, sketch: _Network, bits: int | None) -> DSHConfig:
    """Give the published networks' settings with the widths that the files have."""
    if image.dataset != sketch.dataset:
        raise CaffeModelError(
            f"{image.path} is of {image.dataset} (layer {image.hash_layer}), {sketch.path} of {sketch.dataset} "
            f"(layer {sketch.hash_layer}): take both from the same"
        )
    sketch_hidden, features = [], SketchTrunk.features
    for layer in _SKETCH_HIDDEN:
        features = sketch.outputs(layer, features)
        sketch_hidden.append(features)
    sketch_bits = sketch.outputs(sketch.hash_layer, features)
    fusion_hidden, features = [], SketchTrunk.features + CaffeNetTrunk.features
    for token_layer, image_layer in _FUSION:
        width = image.outputs(token_layer, features)
        if image.outputs(image_layer, features) != width:
            image.fail(f"layer {image_layer} has not as many outputs as {token_layer}, which has {width}")
        fusion_hidden.append(width)
        features = 2 * width
    image_bits = image.outputs(image.hash_layer, features)
    if image_bits != sketch_bits:
        raise CaffeModelError(
            f"{image.path} makes codes of {image_bits} bits, {sketch.path} of {sketch_bits}: take two of one length"
        )
    if bits is not None and bits != image_bits:
        raise CaffeModelError(f"{image.path} makes codes of {image_bits} bits, not {bits}")
    paper = DSHConfig.paper(image.dataset)
    try:
        return replace(paper, bits=image_bits, sketch_hidden=sketch_hidden, fusion_hidden=fusion_hidden)
    except ValueError as error:
        raise CaffeModelError(f"{image.path}: {error}") from error


# Each tensor leaves the dictionary when it is filled, so that what stays was forgotten.


def _fill_layer(tensors: dict[str, Tensor], module: str, net: _Network, layer: str) -> None:
    """Fill a convolution, a fully connected layer or a BatchNorm's scale and shift."""
    for index, name in enumerate((f"{module}.weight", f"{module}.bias")):
        tensor = tensors.pop(name)
        tensor.copy_(torch.from_numpy(net.array(layer, index, tuple(tensor.shape))))


def _fill_norm(tensors: dict[str, Tensor], module: str, net: _Network, part: str, suffix: str) -> None:
    """Fill a BatchNorm from Caffe's two layers: statistics, which are kept as weighted sums, and scale and shift."""
    layer = f"BN{part}{suffix}"
    weight = float(net.array(layer, 2, (1,))[0])
    for index, name in enumerate((f"{module}.running_mean", f"{module}.running_var")):
        tensor = tensors.pop(name)
        tensor.copy_(torch.from_numpy(net.array(layer, index, tuple(tensor.shape))) * (weight and 1 / weight))
    _fill_layer(tensors, module, net, f"SC{part}{suffix}")


def _check_shared(tensors: dict[str, Tensor], module: str, sketch: _Network, image: _Network, layer: str) -> None:
    for index, name in enumerate((f"{module}.weight", f"{module}.bias")):
        shape = tuple(tensors[name].shape)
        ours = sketch.array(layer, index, shape)
        difference = np.abs(ours - image.array(f"{layer}_p", index, shape)).max()
        if difference > _SHARED_TOLERANCE * np.abs(ours).max():
            image.fail(
                f"blob {index} of layer {layer}_p differs by up to {difference:.3g} from {layer} in {sketch.path}, "
                "though the streams share it: the two files are not of the same training"
            )


def _write_checkpoint(model: DSHModel, out: Path) -> None:
    """Let the folder appear with all its files."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        model.save_pretrained(temporary)
        temporary.chmod(0o755)
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
