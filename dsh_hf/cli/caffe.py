"""``dsh-hf import-caffe``."""

import argparse
from typing import Any

from dsh_hf.cli.options import add_command


def add_to(commands: Any) -> None:
    """Add the command of this module."""
    sub = add_command(
        commands, import_caffe, "dsh-hf import-caffe deploy_it_64.caffemodel deploy_sk_64.caffemodel --out dsh-64"
    )
    sub.add_argument("image", help=".caffemodel of the image network")
    sub.add_argument("sketch", help=".caffemodel of the sketch network; the same file where it holds both")
    sub.add_argument("--out", required=True, metavar="DIR", help="a new folder for the checkpoint")
    sub.add_argument("--bits", type=int, help="the code length that you rely on")
    sub.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="stored weights")


def import_caffe(arguments: argparse.Namespace) -> None:
    """Turn the authors' trained Caffe networks into a checkpoint."""
    from dsh_hf.caffe import import_caffe as convert

    model = convert(arguments.image, arguments.sketch, arguments.out, bits=arguments.bits, dtype=arguments.dtype)
    print(
        f"checkpoint written to {arguments.out}: codes of {model.config.bits} bits. The authors published neither the "
        "mean of their sketches nor what drew their sketch-tokens: this package's stand in for them"
    )
