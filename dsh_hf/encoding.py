"""Running pictures through a model: one or many, decoded in threads, batch after batch, on any device."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

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
    show = len(pictures) >= 1000 if show_progress_bar is None else show_progress_bar
    parts = []
    with (
        _ready(model, device) as target,
        torch.inference_mode(),
        tqdm(total=len(pictures), desc="encode", unit="picture", disable=not show) as bar,
    ):
        for batch in prepared_batches(pictures, prepare, batch_size):
            # A view: already channels last.
            pixels = torch.from_numpy(batch).to(target).permute(0, 3, 1, 2).to(model.dtype)
            parts.append(finish(network(pixels).float().cpu().numpy()))
            bar.update(len(batch))
    result = np.concatenate(parts)
    return result[0] if single else result


@dataclass
class _Use:
    """How a model was before threads took it to encode, and how many of them do."""

    home: torch.device
    was_training: bool
    threads: int = 0


_uses: WeakKeyDictionary["DSHModel", _Use] = WeakKeyDictionary()
_changes = threading.Condition()  # held while models are moved and counted, not while they encode


@contextmanager
def _ready(model: "DSHModel", device: str | torch.device | None) -> Iterator[torch.device]:
    """Have a model on a device, in evaluation mode; the last of several threads puts it back as it was.

    Threads that want another device wait for those that encode.
    """
    target = _take(model, device)
    try:
        yield target
    finally:
        _give_back(model)


def _take(model: "DSHModel", device: str | torch.device | None) -> torch.device:
    with _changes:
        home = _uses[model].home if model in _uses else model.device
        target = home if device is None else torch.device(device)
        _changes.wait_for(lambda: model not in _uses or target == model.device)
        _uses.setdefault(model, _Use(model.device, model.training)).threads += 1
        try:
            model.to(target).eval()
        except BaseException:
            _give_back(model)
            raise
        return target


def _give_back(model: "DSHModel") -> None:
    with _changes:
        use = _uses[model]
        use.threads -= 1
        if not use.threads:
            del _uses[model]
            model.to(use.home).train(use.was_training)
            _changes.notify_all()


def is_one_picture(inputs: Any) -> bool:
    """Tell one picture from a sequence of pictures."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 2 or (inputs.ndim == 3 and inputs.shape[2] in (1, 3, 4))
    return isinstance(inputs, str | os.PathLike | Image.Image | Mapping)
