"""Writes what the importer reads: .caffemodel files with random weights, and the deploy texts that OpenCV needs."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Layers = dict[str, list[NDArray[np.float32]]]

# The sketch trunk: channels, kernel, stride, padding of each convolution, and whether a pool follows.
SKETCH_TRUNK = {
    "1": (64, 14, 3, 0, True),
    "2_1": (128, 3, 1, 1, False),
    "2_2": (128, 3, 1, 1, True),
    "3_1": (256, 3, 1, 1, False),
    "3_2": (256, 3, 1, 1, True),
}
# The image trunk: channels, kernel, stride, padding, groups.
IMAGE_TRUNK = {
    "conv1": (96, 11, 4, 0, 1),
    "conv2": (256, 5, 1, 2, 2),
    "conv3": (384, 3, 1, 1, 1),
    "conv4": (384, 3, 1, 1, 2),
    "conv5": (256, 3, 1, 1, 2),
}
FEATURES = 256 * 7 * 7
LAST_LAYERS = {"sketchy": ("fc_fuse_{bits}", "fc_p-S_{bits}"), "tu-berlin": ("fc_fuse_TU_final", "fc_p-S_final")}


def random_networks(
    rng: np.random.Generator,
    bits: int,
    hidden: tuple[int, int],
    dataset: Literal["sketchy", "tu-berlin"] = "sketchy",
) -> tuple[Layers, Layers]:
    """Draw the weights of an image network and a sketch network that share their sketch convolutions.

    Scaled so that values are of order 100 where the local normalisation sees them (there it matters), and of
    order 1 behind each BatchNorm, in the trunks' features and in the outputs.
    """
    fuse, last = (name.format(bits=bits) for name in LAST_LAYERS[dataset])
    image: Layers = {}
    sketch: Layers = {}
    inputs = 3
    for part, (channels, kernel, *_) in SKETCH_TRUNK.items():
        convolution = _random_layer(rng, (channels, inputs, kernel, kernel))
        for layers, suffix in ((sketch, "-S"), (image, "-S_p")):
            layers[f"conv{part}{suffix}"] = convolution
            layers[f"BN{part}{suffix}"], layers[f"SC{part}{suffix}"] = _random_norm(rng, channels, part == "1")
        inputs = channels
    inputs = 3
    for name, (channels, kernel, _, _, groups) in IMAGE_TRUNK.items():
        image[name] = _random_layer(rng, (channels, inputs // groups, kernel, kernel), bias=10)
        inputs = channels
    for blob in image["conv5"]:
        blob *= 0.01
    inputs = FEATURES
    for name, width in (("fc_a-S", hidden[0]), ("fc_b-S", hidden[1]), (last, bits)):
        sketch[name] = _random_layer(rng, (width, inputs))
        inputs = width
    inputs = 2 * FEATURES
    for names, width in ((("fc_a-S_new", "fc6_new_new"), hidden[0]), (("fc_b-S_new", "fc7_new_new"), hidden[1])):
        for name in names:
            image[name] = _random_layer(rng, (width, inputs))
        inputs = 2 * width
    image[fuse] = _random_layer(rng, (bits, inputs))
    return image, sketch


def _random_layer(rng: np.random.Generator, shape: tuple[int, ...], bias: float = 0.3) -> list[NDArray[np.float32]]:
    weights = rng.standard_normal(shape, dtype=np.float32)
    weights *= np.float32((2 / np.prod(shape[1:])) ** 0.5)
    return [weights, bias * rng.standard_normal(shape[0], dtype=np.float32)]


def _random_norm(rng: np.random.Generator, channels: int, first: bool) -> tuple[list[NDArray], list[NDArray]]:
    """Draw Caffe's two layers of a BatchNorm; some channels vary so little that its epsilon matters."""
    variance = rng.uniform(0.5, 2, channels) * (200**2 if first else 2)
    scale = rng.uniform(0.5, 1.5, channels)
    if not first:
        variance[::8], scale[::8] = 1e-4, 0.01
    mean = 0.3 * np.sqrt(variance) * rng.standard_normal(channels)
    weight = rng.uniform(2, 1000)  # of the running sums
    blobs = [mean * weight, variance * weight, np.array([weight])], [scale, 0.3 * rng.standard_normal(channels)]
    return [blob.astype(np.float32) for blob in blobs[0]], [blob.astype(np.float32) for blob in blobs[1]]


def write_caffemodel(path: Path, layers: Mapping[str, list[NDArray]], *, old_form: bool = False) -> None:
    """Write the layers and their blobs as a binary ``NetParameter``.

    Args:
        path: the file.
        layers: blobs by name of the layer; float64 ones are written as Caffe's doubles.
        old_form: as Caffe wrote in its first year: ``layers``, and four numbers for every shape.
    """
    layer_field, name_field, blob_field = (2, 4, 6) if old_form else (100, 1, 7)
    with path.open("wb") as file:
        file.write(field(1, b"CaffeNet"))
        for name, blobs in layers.items():
            parts = [field(name_field, name.encode())]
            for blob in blobs:
                if old_form:
                    shape = (1,) * (4 - blob.ndim) + blob.shape
                    head = b"".join(varint(8 * number) + varint(size) for number, size in enumerate(shape, 1))
                else:
                    head = field(7, field(1, b"".join(map(varint, blob.shape))))
                data = 8 if blob.dtype == np.float64 else 5
                head += varint(8 * data + 2) + varint(blob.nbytes)
                parts.append(varint(8 * blob_field + 2) + varint(len(head) + blob.nbytes) + head)
                parts.append(blob.tobytes())
            file.write(varint(8 * layer_field + 2) + varint(sum(map(len, parts))))
            file.writelines(parts)


def field(number: int, content: bytes) -> bytes:
    """Encode bytes as a field of a protobuf message."""
    return varint(8 * number + 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Encode a whole number, seven bits a byte."""
    encoded = b""
    while value > 0x7F:
        encoded += struct.pack("B", value & 0x7F | 0x80)
        value >>= 7
    return encoded + struct.pack("B", value)


def sketch_prototxt(bits: int, hidden: tuple[int, int], dataset: Literal["sketchy", "tu-berlin"] = "sketchy") -> str:
    """Describe the sketch network as a deploy text; its output is ``fc_p-S``."""
    parts = [_input("sketch", 200), *_sketch_trunk("sketch", "-S")]
    parts += _fully_connected("fc_a-S", "pool3_2-S", hidden[0])
    parts += _fully_connected("fc_b-S", "fc_a-S", hidden[1])
    last = LAST_LAYERS[dataset][1].format(bits=bits)
    parts += [_layer(last, "InnerProduct", ["fc_b-S"], "fc_p-S", f"inner_product_param {{ num_output: {bits} }}")]
    return "\n".join(parts)


def image_prototxt(bits: int, hidden: tuple[int, int], dataset: Literal["sketchy", "tu-berlin"] = "sketchy") -> str:
    """Describe the image network as a deploy text: inputs ``ST`` (sketch-tokens) and ``image``, output ``fc_fuse``."""
    parts = [_input("ST", 200), _input("image", 227), *_sketch_trunk("ST", "-S_p")]
    bottom = "image"
    for name, (channels, kernel, stride, padding, groups) in IMAGE_TRUNK.items():
        parts += [_convolution(name, bottom, channels, kernel, stride, padding, groups)]
        parts += [_layer(f"relu_{name}", "ReLU", [name], name)]
        bottom = name
        if name in ("conv1", "conv2"):
            bottom = f"norm_{name}"
            parts += [_pool(f"pool_{name}", name)]
            lrn = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
            parts += [_layer(bottom, "LRN", [f"pool_{name}"], bottom, lrn)]
    parts += [_pool("pool5_new", bottom, padding=1)]
    parts += [_layer("concat1", "Concat", ["pool3_2-S_p", "pool5_new"], "concat1", "concat_param { axis: 1 }")]
    parts += _fully_connected("fc_a-S_new", "concat1", hidden[0])
    parts += _fully_connected("fc6_new_new", "concat1", hidden[0])
    parts += [_layer("concat2", "Concat", ["fc_a-S_new", "fc6_new_new"], "concat2", "concat_param { axis: 1 }")]
    parts += _fully_connected("fc_b-S_new", "concat2", hidden[1])
    parts += _fully_connected("fc7_new_new", "concat2", hidden[1])
    parts += [_layer("concat3", "Concat", ["fc_b-S_new", "fc7_new_new"], "concat3", "concat_param { axis: 1 }")]
    last = LAST_LAYERS[dataset][0].format(bits=bits)
    parts += [_layer(last, "InnerProduct", ["concat3"], "fc_fuse", f"inner_product_param {{ num_output: {bits} }}")]
    return "\n".join(parts)


def _sketch_trunk(bottom: str, suffix: str) -> Iterable[str]:
    for part, (channels, kernel, stride, padding, pooled) in SKETCH_TRUNK.items():
        name, normed = f"conv{part}{suffix}", f"scaled{part}{suffix}"
        yield _convolution(name, bottom, channels, kernel, stride, padding, 1)
        yield _layer(f"BN{part}{suffix}", "BatchNorm", [name], f"normed{part}{suffix}")
        scale = "scale_param { bias_term: true }"
        yield _layer(f"SC{part}{suffix}", "Scale", [f"normed{part}{suffix}"], normed, scale)
        yield _layer(f"relu{part}{suffix}", "ReLU", [normed], normed)
        bottom = normed
        if pooled:
            bottom = f"pool{part}{suffix}"
            yield _pool(bottom, normed)


def _input(name: str, size: int) -> str:
    shape = f"input_param {{ shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }} }}"
    return _layer(name, "Input", [], name, shape)


def _layer(name: str, kind: str, bottoms: list[str], top: str, settings: str = "") -> str:
    wires = "".join(f'  bottom: "{bottom}"\n' for bottom in bottoms)
    return f'layer {{\n  name: "{name}"\n  type: "{kind}"\n{wires}  top: "{top}"\n  {settings}\n}}'


def _convolution(name: str, bottom: str, channels: int, kernel: int, stride: int, padding: int, groups: int) -> str:
    settings = f"num_output: {channels} kernel_size: {kernel} stride: {stride} pad: {padding} group: {groups}"
    return _layer(name, "Convolution", [bottom], name, f"convolution_param {{ {settings} }}")


def _pool(name: str, bottom: str, padding: int = 0) -> str:
    settings = f"pooling_param {{ pool: MAX kernel_size: 3 stride: 2 pad: {padding} }}"
    return _layer(name, "Pooling", [bottom], name, settings)


def _fully_connected(name: str, bottom: str, width: int) -> list[str]:
    settings = f"inner_product_param {{ num_output: {width} }}"
    return [
        _layer(name, "InnerProduct", [bottom], name, settings),
        _layer(f"relu_{name}", "ReLU", [name], name),
        _layer(f"drop_{name}", "Dropout", [name], name, "dropout_param { dropout_ratio: 0.3 }"),
    ]
