"""What can stop a training run, told in one line with what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do. What was saved stays."""


@contextmanager
def told_out_of_memory(way_out: str) -> Iterator[None]:
    """Turn each error that NumPy, torch and its devices have for it into one that says what to do.

    Raises:
        TrainingError: memory ran out within the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingError(f"out of memory: {way_out}") from error


def _is_out_of_memory(error: Exception) -> bool:
    # On CPUs torch has no class of its own for it.
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "not enough memory" in str(error) or "can't allocate memory" in str(error)
