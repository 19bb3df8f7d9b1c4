"""The end of training: the heads of both streams catch up with their trunks, which stay as they are.

A trunk that has a classifier to learn from is ahead of its hash layers when the rounds are over. Its features are
computed once, and the heads see them many times; that takes a minute where more rounds would take hours.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from dsh_hf.modeling import DSHModel
from dsh_hf.training_data import PreparedPictures, Rows

_VIEWS = 4  # distortions of a picture whose features are kept
_ROOM = 400_000_000  # bytes for features; where there are more, a random part of the pictures is seen
_BATCH = 64  # pictures at once in the trunks
_HEAD_BATCH = 256
_RATE = 2e-3
_WEIGHT_DECAY = 0.02

Loss = Callable[[Tensor, str, Rows], Tensor]


def fit_heads(model: DSHModel, pictures: PreparedPictures, loss: Loss, counts: Mapping[str, int], passes: int) -> None:
    """Train the heads alone, on features of distorted pictures; the model is left ready to encode.

    Args:
        model: its trunks stay, its heads go on from where they are.
        pictures: what it was trained on.
        loss: of outputs ``(n, sum(lengths))``, for a view (``"sketch"`` or ``"image"``) and the rows they are of.
        counts: how many rows each view has; the sketches may be without the sketch-tokens.
        passes: over the features, for each head.
    """
    model.eval()
    if not passes:
        return
    for view, head in (("sketch", model.sketch_head), ("image", model.image_head)):
        rows, features = _features(model, pictures, view, counts[view])
        head.train()
        _fit(head, features, partial(_loss_of, loss, view, rows), passes, view)
        head.eval()


def _loss_of(loss: Loss, view: str, rows: Rows, outputs: Tensor, picked: Rows) -> Tensor:
    return loss(outputs, view, rows[picked])


def _features(model: DSHModel, pictures: PreparedPictures, view: str, count: int) -> tuple[Rows, tuple[Tensor, ...]]:
    """Compute what a head takes, for distorted pictures in random order; give their rows, too."""
    widths = [model.sketch_trunk.features]
    if view == "image":
        widths = [model.token_trunk.features, model.image_trunk.features]
    room = max(1, _ROOM // (4 * sum(widths)))
    rows = np.concatenate([torch.randperm(count).numpy() for _ in range(_VIEWS)])[:room]
    features = tuple(torch.empty(len(rows), width, device=model.device) for width in widths)
    with torch.no_grad():
        for start in tqdm(range(0, len(rows), _BATCH), desc=f"{view} features", unit="batch"):
            part = rows[start : start + _BATCH]
            everything = slice(0, len(part))
            if view == "sketch":
                lines = 255 * pictures.lines_at(part, everything).expand(-1, 3, -1, -1)
                given: tuple[Tensor, ...] = (model.sketch_features(lines),)
            else:
                given = pictures.distorted_features(model, part, everything)
            for kept, of_part in zip(features, given, strict=True):
                kept[start : start + len(part)] = of_part
    return rows, features


def _fit(
    head: nn.Module,
    features: tuple[Tensor, ...],
    loss: Callable[[Tensor, Rows], Tensor],
    passes: int,
    view: str,
) -> None:
    """Minimise the loss over the parameters of a head; the rate goes up, then down to nothing."""
    count = len(features[0])
    batches = max(1, count // _HEAD_BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=passes * batches)
    for _ in tqdm(range(passes), desc=f"fit {view} head", unit="pass"):
        for picked in np.array_split(torch.randperm(count).numpy(), batches):
            optimizer.zero_grad(set_to_none=True)
            loss(head(*(part[torch.from_numpy(picked)] for part in features)).float(), picked).backward()
            optimizer.step()
            schedule.step()
