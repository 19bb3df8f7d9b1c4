"""How far codes move when a checkpoint's weights are stored in half precision, and how large the file is."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from dsh_hf import DSHModel
from dsh_hf.cli.options import RELEASED
from dsh_hf.modeling import WEIGHTS_NAME
from dsh_hf.token_training import find_pictures
from dsh_hf.training_state import trained_tensors


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table: stored as, MB, share of code bits that differ from those of the opened checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks precision", description=__doc__)
    parser.add_argument("pictures", help="folder of pictures")
    parser.add_argument("--checkpoint", default=str(RELEASED), help="folder or Hub id")
    parser.add_argument(
        "--state", type=Path, help="state.safetensors of its training: compare its float32 weights, too"
    )
    parser.add_argument("--limit", type=int, default=1000, help="pictures, evenly spread over the folder")
    arguments = parser.parse_args(argv)
    model = DSHModel.from_pretrained(arguments.checkpoint)
    pictures = find_pictures(arguments.pictures, arguments.limit)
    print(f"{arguments.checkpoint}, stored as {model.config.dtype}; {len(pictures)} pictures, {model.config.bits} bits")
    if arguments.state:
        with torch.no_grad(), safe_open(arguments.state, framework="pt") as state:
            for name, tensor in trained_tensors(model).items():
                tensor.copy_(state.get_tensor(f"averaged.{name}"))
        print(f"compared with the float32 weights of {arguments.state}")
    reference = model.encode_images(pictures, show_progress_bar=True)
    print(f"{'stored as':<10} {'MB':>6} {'bits changed':>13} {'codes changed':>14}")
    for dtype in ("float32", "float16", "bfloat16"):
        model.config = replace(model.config, dtype=dtype)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            megabytes = (Path(folder) / WEIGHTS_NAME).stat().st_size / 1e6
            codes = DSHModel.from_pretrained(folder).encode_images(pictures, show_progress_bar=True)
        bits = np.bitwise_count(codes ^ reference).sum(axis=1)
        changed = bits.sum() / (len(codes) * model.config.bits)
        print(f"{dtype:<10} {megabytes:>6.1f} {changed:>13.4%} {np.mean(bits > 0):>14.2%}")
    return 0
