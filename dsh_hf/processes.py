"""The processes that train one model together, as ``accelerate launch`` starts them; mostly there is one alone."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn

_PATIENCE = timedelta(hours=2)  # the others wait while the main process updates codes, validates and writes

T = TypeVar("T")


class Processes:
    """All processes of a training run, as one of them sees them.

    Gradients are added up once a step, outputs are gathered, and what only the main process computes is sent to the
    others. The model is not wrapped: its weights start equal and get equal changes.

    Args:
        device: where the networks run, if this process is the only one; otherwise ``cpu``, or the kind of device of
            which every process gets one.

    Attributes:
        count: how many there are.
        device: the device of this process.
        is_main: whether this is the one that writes.

    Raises:
        ImportError: ``accelerate`` is not installed.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise ImportError('training needs accelerate: pip install "dsh-hf[train]"') from error

        self._state = PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)
        self.count: int = self._state.num_processes
        self.is_main: bool = self._state.is_main_process
        self.device = device if self.count == 1 else self._state.device
        if self.device.type != device.type:
            raise ValueError(f"accelerate runs on {self.device.type}, the trainer on {device.type}: give both the same")

    def autocast(self) -> AbstractContextManager:
        """Compute in bfloat16 where the chip does, in float32 elsewhere."""
        kind = self.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" and torch.cuda.is_bf16_supported(False))

    def main_first(self) -> AbstractContextManager:
        """Let the others into a block after the main process has left it."""
        return self._state.main_process_first()

    def wait(self) -> None:
        """Go on once all processes have come here."""
        self._state.wait_for_everyone()

    def part(self, rows: int) -> slice:
        """Give the part of a batch's rows that is this process's."""
        start, end = _bounds(rows, self.count)[self._state.process_index]
        return slice(start, end)

    def whole(self, mine: Tensor, rows: int) -> Tensor:
        """Give the rows of a whole batch, of which each process has its part."""
        from accelerate.utils import gather, pad_across_processes

        if self.count == 1:
            return mine
        padded = gather(pad_across_processes(mine.contiguous())).chunk(self.count)
        parts = zip(padded, _bounds(rows, self.count), strict=True)
        return torch.cat([part[: end - start] for part, (start, end) in parts])

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Put into each tensor its sum over all processes."""
        from accelerate.utils import reduce

        tensors = list(tensors)
        if self.count == 1 or not tensors:
            return
        sums = reduce(torch.cat([tensor.reshape(-1) for tensor in tensors]), "sum")
        for tensor, total in zip(tensors, sums.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def as_in_main(self, value: T) -> T:
        """Give what the main process has here: any object, a tensor on this process's device."""
        from accelerate.utils import broadcast, broadcast_object_list

        if isinstance(value, Tensor):
            return broadcast(value)
        return broadcast_object_list([value])[0]

    def share_statistics(self, model: nn.Module) -> None:
        """Let the BatchNorm layers of a model see whole batches; on CPUs, where torch cannot, they see their part."""
        from timm.layers import convert_sync_batchnorm

        if self.count > 1 and self.device.type == "cuda":
            convert_sync_batchnorm(model)  # in place: the model is no BatchNorm itself


def _bounds(rows: int, count: int) -> list[tuple[int, int]]:
    """Cut rows into as many parts, as even as can be."""
    return [(rows * number // count, rows * (number + 1) // count) for number in range(count)]
