"""Running pictures through a model: one or many, decoded in threads, batch after batch, on any device."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from dsh_hf.processing import Picture, prepared_batches

if TYPE_CHECKING:
    from dsh_hf.modeling import DSHModel

Prepare = Callable[[Picture], NDArray[np.uint8]]
Finish = Callable[[NDArray[np.float32]], NDArray[Any]]


def encode_pictures(
    model: "DSHModel",
    inputs: Picture | Sequence[Picture],
    prepare: Prepare,
    network: Callable[[Tensor], Tensor],
    finish: Finish,
    *,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    show_progress_bar: bool | None = None,
) -> NDArray[Any]:
    """Run one picture or many through a network of ``model``.

    Args:
        model: moved to ``device`` meanwhile, and back in the end.
        inputs: one picture or a sequence of them.
        prepare: makes of one picture the uint8 array ``(h, w, 3)`` that the network takes.
        network: gives float outputs ``(n, bits)`` for a batch ``(n, 3, h, w)``.
        finish: makes of a batch's outputs what is kept of them, one row a picture.
        batch_size: pictures that go through the network at once.
        device: where to compute; by default where the model is.
        show_progress_bar: ``None`` shows one from a thousand pictures on.

    Returns:
        What ``finish`` gave, one row a picture, or the row alone for one picture.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    single = is_one_picture(inputs)
    if not single and not (hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")):
        raise TypeError(
            f"inputs are one picture or a sequence of pictures (a list, a datasets column), not {type(inputs).__name__}"
        )
    pictures: Sequence[Any] = [inputs] if single else inputs  # type: ignore[assignment]
    if len(pictures) == 0:
        return finish(np.zeros((0, model.config.bits), dtype=np.float32))
    target = torch.device(device) if device is not None else model.device
    home, was_training = model.device, model.training
    show = len(pictures) >= 1000 if show_progress_bar is None else show_progress_bar
    parts = []
    try:
        model.to(target).eval()
        with (
            torch.inference_mode(),
            tqdm(total=len(pictures), desc="encode", unit="picture", disable=not show) as bar,
        ):
            for batch in prepared_batches(pictures, prepare, batch_size):
                # A view: already channels last.
                pixels = torch.from_numpy(batch).to(target).permute(0, 3, 1, 2).to(model.dtype)
                parts.append(finish(network(pixels).float().cpu().numpy()))
                bar.update(len(batch))
    finally:
        model.to(home).train(was_training)
    result = np.concatenate(parts)
    return result[0] if single else result


def is_one_picture(inputs: Any) -> bool:
    """Tell one picture from a sequence of pictures."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 2 or (inputs.ndim == 3 and inputs.shape[2] in (1, 3, 4))
    return isinstance(inputs, str | os.PathLike | Image.Image | Mapping)
