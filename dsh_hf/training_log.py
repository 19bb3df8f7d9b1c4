"""What a training run says of itself after each round: a line, ``log.jsonl``, and charts for TensorBoard."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsh_hf.files import write_atomically

LOG_NAME = "log.jsonl"
CHARTS_NAME = "tensorboard"


class TrainingLog:
    """The files in which a run can be followed; they always tell the whole history, resumed or not.

    Args:
        folder: gets ``log.jsonl`` and the folder ``tensorboard``.
        history: records of rounds finished earlier.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError('training needs tensorboard: pip install "dsh-hf[train]"') from error

        self._path = folder / LOG_NAME
        for earlier in (folder / CHARTS_NAME).glob("events.out.tfevents.*"):
            earlier.unlink()  # all is told anew: a kill may have come between state and chart
        self._charts = SummaryWriter(str(folder / CHARTS_NAME))
        for record in history:
            self._chart(record)

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Add the last round of a history."""
        self.amend(history)
        self._chart(history[-1])
        self._charts.flush()

    def amend(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Tell a history anew whose last round got figures that have no charts."""
        write_atomically(self._path, "".join(json.dumps(record) + "\n" for record in history).encode())

    def close(self) -> None:
        """Close the files."""
        self._charts.close()

    def _chart(self, record: Mapping[str, Any]) -> None:
        lengths: Mapping[str, Mapping[str, float]] = record.get("lengths", {})
        figures = {name: value for name, value in record.items() if isinstance(value, int | float)}
        figures |= {f"{name}/{bits}": value for bits, own in lengths.items() for name, value in own.items()}
        for name, value in figures.items():
            if name != "round":
                self._charts.add_scalar(name, value, record["round"])


def describe(record: Mapping[str, Any], rounds: int) -> str:
    """Tell a round in one line, and how long the rest may take."""
    left = (rounds - record["round"]) * record["seconds"]
    text = (
        f"round {record['round']}/{rounds}: J {record['J']:.4f} (pairwise {record['pairwise']:.4f}, "
        f"semantic {record['semantic']:.4f}, quantization {record['quantization']:.4f}), bits off the class's "
        f"word {record['bits_off_class_word']:.1%}, balance {record['balance']:.3f}, "
        f"correlation {record['correlation']:.3f}"
    )
    if "validation_map" in record:
        text += f", validation mAP {_validation(record)}"
    return f"{text}, {record['seconds']:.0f} s, about {left / 60:.0f} min left"


def _validation(record: Mapping[str, Any]) -> str:
    if "lengths" not in record:
        return f"{record['validation_map']:.3f}"
    return ", ".join(f"{own['validation_map']:.3f} ({bits} bits)" for bits, own in record["lengths"].items())
