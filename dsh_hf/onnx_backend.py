"""The encoders computed by ONNX Runtime in place of PyTorch: the model's codes, in less time on processors."""

import logging
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsh_hf import __version__
from dsh_hf.export import MISSING, export_onnx
from dsh_hf.modeling import DSHModel

_NETWORKS = {"sketch_outputs": "sketch_encoder.onnx", "image_outputs": "image_encoder.onnx"}
_logger = logging.getLogger(__name__)


class OnnxNetwork:
    """An exported encoder, called as the model's own method is; it may be copied, and sent to other processes.

    Args:
        content: of the ONNX file.
    """

    def __init__(self, content: bytes) -> None:
        try:
            from onnxruntime import InferenceSession, SessionOptions
        except ImportError as error:  # on another machine than the one that exported
            raise ImportError(MISSING) from error

        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Its threads would keep the cores busy while they wait, and pictures are decoded at the same time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._content = content
        self._session = InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Give outputs ``(n, bits)`` for pixels in 0..255, shape ``(n, 3, size, size)``."""
        _check_device(pixels.device)
        (outputs,) = self._session.run(None, {"pixels": pixels.float().contiguous().numpy()})
        return torch.from_numpy(outputs)

    def __reduce__(self) -> tuple[Callable[[bytes], "OnnxNetwork"], tuple[Any, ...]]:
        return OnnxNetwork, (self._content,)


def use_onnx(model: DSHModel) -> None:
    """Have ONNX Runtime compute a model's outputs; its encoders are exported once and kept in the assets cache.

    Raises:
        ExportError: it cannot be exported.
        ImportError: ONNX or ONNX Runtime is not installed.
        ValueError: the model is not on the CPU.
    """
    _check_device(model.device)
    for name, network in (_opened(model) or _exported(model)).items():
        setattr(model, name, network)


def _opened(model: DSHModel) -> dict[str, OnnxNetwork] | None:
    """Open what was kept; ``None`` where it is not there, or damaged."""
    with suppress(Exception):  # ONNX Runtime's errors have no class of their own
        return _open(_kept_for(model))
    return None


def _exported(model: DSHModel) -> dict[str, OnnxNetwork]:
    _logger.warning("exporting the encoders to ONNX, once for this checkpoint and code length ...")
    with suppress(OSError):  # a home that is read-only, a full disk
        folder = _kept_for(model)
        export_onnx(model, folder)
        return _open(folder)
    with tempfile.TemporaryDirectory() as temporary:
        export_onnx(model, temporary)
        return _open(Path(temporary))


def _check_device(device: torch.device) -> None:
    if device.type != "cpu":
        raise ValueError(f"backend='onnx' computes on the CPU, not on {device}: leave out one of backend and device")


def _open(folder: Path) -> dict[str, OnnxNetwork]:
    return {name: OnnxNetwork((folder / file).read_bytes()) for name, file in _NETWORKS.items()}


def _kept_for(model: DSHModel) -> Path:
    """Give the folder to keep exported encoders in.

    Raises:
        OSError: there can be none.
    """
    from huggingface_hub import cached_assets_path

    try:
        return cached_assets_path("dsh-hf", "onnx", f"{model.fingerprint}-{model.config.bits}-{__version__}")
    except ValueError as error:  # a file where a folder should be
        raise OSError(str(error)) from error
