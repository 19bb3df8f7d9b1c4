"""How fast pictures are encoded: end to end against the networks alone, and against other image encoders."""

import copy
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._speed_measure import Taken, interleaved
from dsh_hf import DSHModel
from dsh_hf.onnx_backend import use_onnx
from dsh_hf.processing import prepare_image, prepared_batches

BATCHES = (8, 16, 32, 64)  # of which the networks alone get the best
COMPILED_BATCH = 32  # compiling takes minutes for each size
COMPILED, ONNX = "torch.compile, frozen", "ONNX Runtime"
RIVALS = {  # timm's architectures, by the names in the tables
    "CLIP ViT-B/32": "vit_base_patch32_clip_224",
    "CLIP ViT-B/16": "vit_base_patch16_clip_224",
    "ResNet-50": "resnet50",
}
RIVAL_SIZE, RIVAL_BATCH = 224, 32
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Network = Callable[[Tensor], Tensor]


def has_bfloat16() -> bool:
    """Tell whether this processor multiplies in bfloat16 itself; else it is many times slower than float32."""
    capabilities = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else ""
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return "avx512_bf16" in flags or "amx_bf16" in flags or "bf16" in capabilities.lower()
    return "bf16" in capabilities.lower()


def measure_encoding(checkpoint: str, files: Mapping[str, Sequence[str]], device: str, runs: int) -> dict[str, Any]:
    """Give pictures a second, by kind: of the networks alone, of files to codes, of decoding alone.

    Args:
        checkpoint: folder or repository of the model.
        files: paths by kind and size, as ``make_pictures`` gives them.
        device: where the networks compute.
        runs: of everything, interleaved.

    Returns:
        By kind: ``rows``, a list of what was measured (``name``, ``batch``, ``per_second``), ``ratios`` of end to end
        to the networks alone by name, and ``remarks``, lines to tell.
    """
    found: dict[str, Any] = {}
    for kind in ("image", "sketch"):
        model = DSHModel.from_pretrained(checkpoint, device=device)
        small, large = files[f"{kind} 256"], files[f"{kind} 12M"]
        rows, remarks = _networks_alone(model, kind, runs)
        best = {row["name"]: row for row in rows}
        models = {"float32": model}  # by engine
        if "bfloat16" in best:
            models["bfloat16"] = _in_bfloat16(model)
        if ONNX in best:
            models[ONNX] = _with_onnx(model)
        parts: dict[str, tuple[Callable[[], Any], int]] = {}
        for engine, given in models.items():
            batch = best[engine]["batch"]
            encode = given.encode_images if kind == "image" else given.encode_sketches
            parts[f"networks alone, {engine}"] = partial(alone(given, kind, batch), len(small)), len(small)
            for size, paths in (("256", small), ("12M", large)):
                run = partial(encode, paths, batch_size=batch, show_progress_bar=False)
                parts[f"files of {size} to codes, {engine}"] = run, len(paths)
        prepare = model._prepare_image if kind == "image" else model._prepare_sketch
        for size, paths in (("256", small), ("12M", large)):
            parts[f"decoding alone, {size}"] = partial(_drain, paths, prepare), len(paths)
        taken = interleaved({name: run for name, (run, _) in parts.items()}, runs)
        rates = {name: count / taken[name].seconds for name, (_, count) in parts.items()}
        ratios = {
            f"{size}, {engine}": rates[f"files of {size} to codes, {engine}"] / rates[f"networks alone, {engine}"]
            for engine in models
            for size in ("256", "12M")
        }
        codes = {name: (m.encode_images if kind == "image" else m.encode_sketches)(small) for name, m in models.items()}
        for name in list(codes)[1:]:
            changed = np.bitwise_count(codes["float32"] ^ codes[name]).sum() / (len(small) * model.config.bits)
            remarks.append(f"codes of {name} differ from float32's in {100 * changed:.2f}% of the bits")
        found[kind] = {"engines": rows, "per_second": rates, "ratios": ratios, "remarks": remarks}
    return found


def _drain(paths: Sequence[str], prepare: Callable[[Any], Any]) -> None:
    for _ in prepared_batches(paths, prepare, RIVAL_BATCH):
        pass


def _networks_alone(model: DSHModel, kind: str, runs: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Give each engine's best batch size and its pictures a second, the batch sizes of all engines interleaved."""
    device = model.device
    engines, remarks = {"float32": (_outputs(model, kind), torch.float32)}, []
    if device.type == "cuda" or has_bfloat16():
        engines["bfloat16"] = _outputs(_in_bfloat16(model), kind), torch.bfloat16
    else:
        remarks.append("bfloat16 is left out: this processor does not have it")
    for name, make in ((COMPILED, _compiled), (ONNX, _onnx)):
        try:
            engines[name] = make(model, kind), torch.float32
        except (ImportError, RuntimeError, ValueError, OSError) as error:
            remarks.append(f"{name} is left out: {str(error).splitlines()[0]}")
    parts: dict[tuple[str, int], Callable[[], Any]] = {}
    for name, (network, dtype) in engines.items():
        for batch in (COMPILED_BATCH,) if name == COMPILED else BATCHES:
            parts[name, batch] = partial(_forward, network, _pixels(model, kind, batch).to(dtype))
    taken = interleaved({f"{name} {batch}": part for (name, batch), part in parts.items()}, runs)
    rows = []
    for name in engines:
        rates = {batch: batch / taken[f"{name} {batch}"].seconds for of, batch in parts if of == name}
        batch = max(rates, key=rates.__getitem__)
        rows.append({"name": name, "batch": batch, "per_second": rates[batch], "by_batch": rates})
    return rows, remarks


def alone(model: DSHModel, kind: str, batch: int) -> Callable[[int], None]:
    """Give what runs the networks on so many pictures, whose tensors are ready."""
    pixels, network = _pixels(model, kind, batch).to(model.dtype), _outputs(model, kind)

    def run(count: int) -> None:
        for first in range(0, count, batch):
            _forward(network, pixels[: count - first])

    return run


def _in_bfloat16(model: DSHModel) -> DSHModel:
    return copy.deepcopy(model).to(torch.bfloat16)


def _outputs(model: DSHModel, kind: str) -> Network:
    return model.image_outputs if kind == "image" else model.sketch_outputs


def _pixels(model: DSHModel, kind: str, batch: int) -> Tensor:
    size = model.config.image_size if kind == "image" else model.config.sketch_size
    values = torch.randint(256, (batch, size, size, 3), generator=torch.Generator().manual_seed(0))
    return values.float().permute(0, 3, 1, 2).to(model.device)  # channels last, as encoding has it


@torch.inference_mode()
def _forward(network: Network, pixels: Tensor) -> Tensor:
    return network(pixels).float().cpu()  # cpu: waits until the device is done


def _compiled(model: DSHModel, kind: str) -> Network:
    network = torch.compile(_outputs(model, kind), dynamic=False, options={"freezing": True})
    _forward(network, _pixels(model, kind, COMPILED_BATCH))  # what it cannot do shows now
    return network


def _onnx(model: DSHModel, kind: str) -> Network:
    return _outputs(_with_onnx(model), kind)


def _with_onnx(model: DSHModel) -> DSHModel:
    other = copy.deepcopy(model)
    use_onnx(other)
    return other


def measure_rivals(checkpoint: str, paths: Sequence[str], device: str, runs: int) -> dict[str, dict[str, Any]]:
    """Give seconds and CPU seconds for 1,000 pictures, files to codes or features, in float32 and bfloat16.

    Returns:
        By encoder: ``float32`` and, where the processor has it, ``bfloat16``, each with ``seconds`` and ``cpu``; and
        ``faster``, the name of the faster one.
    """
    dtypes = DTYPES if device != "cpu" or has_bfloat16() else {"float32": torch.float32}
    parts: dict[tuple[str, str], Callable[[], Any]] = {}
    for dtype, kind in dtypes.items():
        model = DSHModel.from_pretrained(checkpoint, device=device).to(kind)
        parts["this model", dtype] = partial(model.encode_images, paths, show_progress_bar=False)
        for name, architecture in RIVALS.items():
            network = _rival(architecture).to(device, kind)
            parts[name, dtype] = partial(_encode_with, network, paths, kind)
    if device == "cpu" and importlib.util.find_spec("onnxruntime"):
        other = DSHModel.from_pretrained(checkpoint, backend="onnx")
        parts[f"this model, {ONNX}", "float32"] = partial(other.encode_images, paths, show_progress_bar=False)
    taken = interleaved({f"{name}|{dtype}": part for (name, dtype), part in parts.items()}, runs)
    found: dict[str, dict[str, Any]] = {name: {} for name, _ in parts}
    for name, dtype in parts:
        found[name][dtype] = thousand(taken[f"{name}|{dtype}"], len(paths))._asdict()
    for row in found.values():
        row["faster"] = min(row, key=lambda dtype: row[dtype]["seconds"])
    return found


def thousand(taken: Taken, count: int) -> Taken:
    """Scale what ``count`` pictures took to 1,000."""
    return Taken(taken.seconds * 1000 / count, taken.cpu * 1000 / count)


def _rival(architecture: str) -> nn.Module:
    import timm

    network = timm.create_model(architecture, pretrained=False, num_classes=0)
    return network.to(memory_format=torch.channels_last).eval()


def _encode_with(network: nn.Module, paths: Sequence[str], dtype: torch.dtype) -> None:
    """Run pictures through another encoder just as ``encode_images`` does through ours."""
    device = next(network.parameters()).device
    prepare = partial(prepare_image, size=RIVAL_SIZE)
    with torch.inference_mode():
        for batch in prepared_batches(paths, prepare, RIVAL_BATCH):
            pixels = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).to(dtype)
            network(pixels / 127.5 - 1).float().cpu()
