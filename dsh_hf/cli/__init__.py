"""The command ``dsh-hf``: each module beside this one holds a command or two."""

import argparse
import logging
import sys
from collections.abc import Sequence

from dsh_hf import __version__
from dsh_hf.cli import caffe, data, encode, evaluate, export, gallery, train


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; give its status, or 2 with one line on stderr where the input is at fault."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given)
    arguments.given = given
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # They tell of each request (the Hub's client, one of the two by its version), and of each constant exported.
    for library in ("httpx", "httpx2", "onnx_ir", "onnxscript"):
        logging.getLogger(library).setLevel(logging.WARNING)
    from dsh_hf.training_errors import TrainingError, told_out_of_memory

    try:
        with told_out_of_memory("close other programs, or take smaller pictures or less of them at once"):
            status: int | None = arguments.run(arguments)
    except (ValueError, OSError, ImportError, TrainingError) as error:
        print(f"dsh-hf {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ndsh-hf {arguments.command}: stopped; what was saved stays", file=sys.stderr)
        return 130
    return status or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dsh-hf",
        description="Deep Sketch Hashing: find pictures by drawing.",
        epilog="dsh-hf COMMAND --help tells all of a command, with an example. What programs may want to read is "
        "printed as JSON with --json. The exit status is 0, 2 with one line on stderr where the input is at fault, or "
        "1 where dsh-hf data check has found faults.",
    )
    parser.add_argument("--version", action="version", version=f"dsh-hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (train, evaluate, encode, gallery, data, export, caffe):
        module.add_to(commands)
    return parser
