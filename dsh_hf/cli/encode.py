"""``dsh-hf encode``."""

import argparse
from typing import Any

from dsh_hf.bulk import PART_ROWS
from dsh_hf.cli.data_options import SOURCES
from dsh_hf.cli.options import add_backend, add_checkpoint, add_command, add_device, checked_device, opened_again


def add_to(commands: Any) -> None:
    """Add the command of this module."""
    sub = add_command(commands, encode, "dsh-hf encode s3://bucket/photos codes --ray auto")
    sub.add_argument("source", help=f"a folder of pictures; or {SOURCES}; or an address of these, like s3://...")
    sub.add_argument("out", metavar="OUT", help="the folder of the codes")
    add_checkpoint(sub)
    sub.add_argument("--sketches", action="store_true", help="the pictures are drawings, not photographs")
    sub.add_argument("--part-rows", type=int, default=PART_ROWS, metavar="N", help="pictures of one file of codes")
    sub.add_argument("--ray", metavar="ADDRESS", help="encode on a Ray cluster: its address, or auto")
    add_device(sub)
    add_backend(sub)


def encode(arguments: argparse.Namespace) -> None:
    """Encode pictures into parquet files of (id, code, source), for dsh-hf index; run again, it goes on."""
    from dsh_hf import DSHModel
    from dsh_hf.bulk.running import encode_source

    # A cluster's machines may have what this one lacks.
    here = "cpu" if arguments.ray else checked_device(arguments.device)
    options = {"bits": arguments.bits, "device": here, "backend": arguments.backend}
    model = DSHModel.from_pretrained(arguments.checkpoint, **options)
    manifest = encode_source(
        model,
        arguments.source,
        arguments.out,
        sketches=arguments.sketches,
        part_rows=arguments.part_rows,
        ray=arguments.ray,
        worker_device=arguments.device,
        show_progress_bar=True,
    )
    told = f"{manifest['codes']} codes of {manifest['bits']} bits in {arguments.out} ({len(manifest['parts'])} files"
    told += f", {len(manifest['skipped'])} skipped: see codes.json)" if manifest["skipped"] else ")"
    next_ = f"dsh-hf index {arguments.out} --out GALLERY{opened_again(arguments)}"
    print(f"{told}; make a gallery of them with: {next_}")
