"""What several commands share: the device, where checkpoints come from, the parser of one command."""

import argparse
import json
import os
import platform
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsh_hf.sending import without_place

# In a clone the released checkpoint lies beside the package; elsewhere --checkpoint has to be given.
RELEASED = Path(__file__).resolve().parents[2] / "model_card" / "dsh-sketchy-subset"


def add_command(
    commands: Any, run: Callable[[argparse.Namespace], int | None], example: str
) -> argparse.ArgumentParser:
    """Add the command that ``run`` carries out: its name and what it does are those of the function."""
    about = (run.__doc__ or "").strip()
    parser: argparse.ArgumentParser = commands.add_parser(
        run.__name__.replace("_", "-"),
        help=about,
        description=about,
        epilog=f"example: {example}",
        formatter_class=_Formatter,
    )
    parser.set_defaults(run=run)
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def add_bits(parser: argparse.ArgumentParser) -> None:
    """Add ``--bits``, for a checkpoint of several code lengths."""
    parser.add_argument("--bits", type=int, help="code length, of those the checkpoint has; by default its own choice")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint``, in a clone with the released one as its default, and ``--bits``."""
    add_bits(parser)
    if RELEASED.is_dir():
        parser.add_argument("--checkpoint", default=str(RELEASED), metavar="X", help="folder or Hub id")
    else:
        parser.add_argument("--checkpoint", required=True, metavar="X", help="folder or Hub id")


def opened_again(arguments: argparse.Namespace) -> str:
    """Give the options by which another command opens the same model, with a space before them."""
    given = [] if arguments.checkpoint == str(RELEASED) else ["--checkpoint", arguments.checkpoint]
    given += [] if arguments.bits is None else ["--bits", str(arguments.bits)]
    return "".join(f" {shlex.quote(word)}" for word in given)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add ``--backend``."""
    help_ = "what computes the networks; onnx is faster on processors (extra: onnx)"
    parser.add_argument("--backend", choices=["torch", "onnx"], default="torch", help=help_)


def checked_device(name: str) -> str:
    """Give the device's name back.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} is not to be had here: use cpu") from error
    return name


def machine(device: object, processes: int = 1) -> str:
    """Describe this machine in a few words, for what is measured on it."""
    together = f", {processes} processes" if processes > 1 else ""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, device {device}{together}"


def quoted_command(given: Sequence[str]) -> str:
    """Write a command down as files may keep it: of a place on this machine only the last component."""
    words = []
    for word in given:
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        words.append(option + equals + without_place(value))
    return "dsh-hf " + shlex.join(words)


def as_json(content: dict[str, Any]) -> bytes:
    """Give the bytes of a JSON file that people read."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
