"""The encoders as ONNX files, which run without PyTorch, and a check that their codes are the model's."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from dsh_hf import __version__
from dsh_hf.codes import Codes, pack_signs
from dsh_hf.files import replaced_atomically
from dsh_hf.modeling import DSHModel

LEAST_EQUAL = 0.995  # share of bits: an output that is nearly 0 may get the other sign
_CHECKED = 32  # pictures of each kind that codes are compared on
MISSING = 'exporting needs ONNX: pip install "dsh-hf[onnx]"'


class ExportError(ValueError):
    """An ONNX file cannot be made, or does not do what the model does."""


class Export(NamedTuple):
    """One encoder as an ONNX file.

    Attributes:
        path: the file.
        equal: share of bits in which its codes are the model's, on pictures made for the check.
    """

    path: Path
    equal: float


class _Encoder(nn.Module):
    """One stream of a model, as a network of its own."""

    def __init__(self, model: DSHModel, sketches: bool) -> None:
        super().__init__()
        self.model = model
        self.sketches = sketches

    def forward(self, pixels: Tensor) -> Tensor:
        """Give outputs ``(n, bits)`` for prepared pixels ``(n, 3, size, size)``."""
        return self.model.sketch_outputs(pixels) if self.sketches else self.model.image_outputs(pixels)


def export_onnx(model: DSHModel, out: str | Path) -> list[Export]:
    """Write ``sketch_encoder.onnx`` and ``image_encoder.onnx``, and check them with ONNX Runtime.

    Each takes ``pixels``, float32 in 0..255 of shape ``(n, 3, size, size)``, n being free, as
    :func:`dsh_hf.processing.prepare_sketch` (its grey repeated in three channels) and ``prepare_image`` make them
    before the channels come first, and gives ``outputs``, float32 of shape ``(n, bits)``; where they are above 0 the
    code's bits are 1. The image encoder draws its sketch-tokens inside. Of several code lengths, the one that the
    model was opened with is exported.

    Args:
        model: on the CPU, in float32.
        out: a folder, made where missing.

    Raises:
        ExportError: the model is elsewhere or cast, its networks cannot be written as ONNX, or an exported file's codes
            differ from the model's; that file is not kept.
        ImportError: ONNX or ONNX Runtime is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(MISSING) from error

    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ExportError(f"the model is {model.dtype} on {model.device}: export it in float32 on the CPU")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} is a file: give a folder for the ONNX files")
    out.mkdir(parents=True, exist_ok=True)
    return [
        _export(model, sketches, out / f"{'sketch' if sketches else 'image'}_encoder.onnx")
        for sketches in (True, False)
    ]


def onnx_codes(path: str | Path, pixels: NDArray[np.floating]) -> Codes:
    """Encode prepared pixels, shape ``(n, 3, size, size)`` in 0..255, by an exported encoder."""
    try:
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise ImportError(MISSING) from error

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"pixels": np.asarray(pixels, np.float32)})
    return pack_signs(outputs)


def _export(model: DSHModel, sketches: bool, path: Path) -> Export:
    import onnx

    config = model.config
    size = config.sketch_size if sketches else config.image_size
    checked, encoder = _check_pixels(size, sketches), _Encoder(model, sketches).eval()
    try:
        # The batch is told apart from a constant by being neither 0 nor 1.
        program = torch.onnx.export(
            encoder,
            (torch.from_numpy(checked[:2]),),
            input_names=["pixels"],
            output_names=["outputs"],
            dynamo=True,
            dynamic_shapes=({0: "n"},),
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        backbone = config.sketch_backbone if sketches else config.image_backbone
        raise ExportError(f"PyTorch cannot write {path.name}, with the backbone {backbone}, as ONNX") from error
    assert program is not None
    proto = program.model_proto
    about = {"bits": config.bits, "fingerprint": model.fingerprint, "size": size}
    about |= {"kind": "sketches" if sketches else "images", "pixels": "0..255, RGB", "dsh_hf": __version__}
    onnx.helper.set_model_props(proto, {name: str(value) for name, value in about.items()})
    with torch.inference_mode():
        expected = pack_signs(encoder(torch.from_numpy(checked)).numpy())
    with replaced_atomically(path) as temporary:
        onnx.save(proto, str(temporary))
        differing = np.bitwise_count(expected ^ onnx_codes(temporary, checked)).sum()
        equal = 1 - float(differing) / (len(checked) * config.bits)
        if equal < LEAST_EQUAL:
            raise ExportError(
                f"{path.name} gives {equal:.2%} of the model's bits, less than {LEAST_EQUAL:.1%}: not kept"
            )
    return Export(path, equal)


def _check_pixels(size: int, sketches: bool) -> NDArray[np.float32]:
    """Make pictures to compare codes on: patches of colour from coarse to fine, or lines on paper."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(_CHECKED):
        if sketches:
            picture = Image.new("RGB", (size, size), "white")
            points = rng.uniform(0.05, 0.95, (rng.integers(2, 12), 2)) * size
            ImageDraw.Draw(picture).line([tuple(point) for point in points], "black", max(1, size // 40), "curve")
        else:
            grain = 2 + number
            picture = Image.fromarray(rng.integers(0, 256, (grain, grain, 3), dtype=np.uint8))
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        made.append(np.asarray(picture, np.float32).transpose(2, 0, 1))
    return np.stack(made)
