"""``dsh-hf export``."""

import argparse
from typing import Any

from dsh_hf.cli.options import add_bits, add_command


def add_to(commands: Any) -> None:
    """Add the command of this module."""
    sub = add_command(commands, export, "dsh-hf export runs/first/checkpoint onnx")
    sub.add_argument("checkpoint", help="folder or Hub id")
    sub.add_argument("out", metavar="OUT", help="folder for sketch_encoder.onnx and image_encoder.onnx")
    add_bits(sub)


def export(arguments: argparse.Namespace) -> None:
    """Write a checkpoint's encoders as ONNX files, and check that ONNX Runtime gives the model's codes."""
    from dsh_hf import DSHModel
    from dsh_hf.export import export_onnx

    model = DSHModel.from_pretrained(arguments.checkpoint, bits=arguments.bits)
    for made in export_onnx(model, arguments.out):
        print(f"{made.path}: {made.path.stat().st_size / 1e6:.1f} MB, {made.equal:.2%} of the model's bits")
