"""The demo with a gallery as large as wanted: the codes of OpenMoji's pictures again and again, with bits flipped."""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

from dsh_hf import DSHModel, Hit, SketchRetriever
from dsh_hf.codes import unpack_codes
from dsh_hf.index import Index

if TYPE_CHECKING:
    from dsh_hf.codes import Codes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo"))

FLIPPED = 0.1  # of the bits of each code
SEED = 0


def main() -> None:
    """Open the page, and serve it until the process is stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._demo_serve", description=__doc__)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--checkpoint", required=True)
    arguments = parser.parse_args()
    from galleries import open_openmoji
    from page import LAUNCH, build_page

    model = DSHModel.from_pretrained(arguments.checkpoint)
    emoji = open_openmoji(model)
    codes = codes_of(emoji.index)
    keys = emoji.index.search(codes, 1)[1][:, 0]
    many = repeat_codes(codes, arguments.items)
    names = [f"{keys[i % len(keys)]}/{i}" for i in range(arguments.items)]
    retriever = SketchRetriever(model, keep_outputs=True)
    retriever.add_codes(many, names, outputs=unpack_codes(many, model.config.bits).astype(np.float16))

    def of_emoji(hit: Hit) -> Hit:
        return Hit(hit.id.partition("/")[0], hit.distance)

    gallery = replace(
        emoji,
        title=f"{arguments.items:,} items",
        retriever=retriever,
        name=lambda hit: emoji.name(of_emoji(hit)),
        picture=lambda hit, size: emoji.picture(of_emoji(hit), size),
    )
    build_page(model, [gallery]).launch(server_port=arguments.port, quiet=True, **LAUNCH)


def codes_of(index: Index) -> "Codes":
    """Give the codes that an index in memory holds: it gives none back, but its file has them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "codes.safetensors"
        index.save(file)
        return load_file(file)["codes"]


def repeat_codes(codes: "Codes", count: int) -> "Codes":
    """Repeat codes until there are ``count``; each of their bits is flipped with the probability ``FLIPPED``.

    Args:
        codes: uint8 ``(items, bytes)``, with no bits unused.
        count: how many to give.
    """
    random = np.random.default_rng(SEED)
    repeated = np.resize(codes, (count, codes.shape[1]))
    return repeated ^ np.packbits(random.random((count, 8 * codes.shape[1])) < FLIPPED, axis=1)


if __name__ == "__main__":
    main()
