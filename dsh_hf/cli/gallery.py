"""``dsh-hf index`` and ``dsh-hf search``."""

import argparse
from pathlib import Path
from typing import Any

from dsh_hf.cli.options import add_checkpoint, add_command, add_device, checked_device


def add_to(commands: Any) -> None:
    """Add the commands of this module."""
    sub = add_command(commands, index, "dsh-hf index photos --out photos.gallery")
    sub.add_argument("folder", help="pictures, in folders or not")
    sub.add_argument("--out", required=True, metavar="DIR", help="the gallery")
    add_checkpoint(sub)
    sub.add_argument("--engine", choices=("exact", "hnsw"), default="exact", help="the search engine")
    add_device(sub)

    sub = add_command(commands, search, "dsh-hf search cat.png --index photos.gallery")
    sub.add_argument("sketch", help="a picture of a drawing")
    sub.add_argument("--index", required=True, metavar="DIR", help="a gallery made by dsh-hf index")
    add_checkpoint(sub)
    sub.add_argument("-k", type=int, default=10, help="number of results")


def index(arguments: argparse.Namespace) -> None:
    """Encode a folder of pictures and save the gallery; done before, only what changed is encoded."""
    from dsh_hf import DSHModel, SketchRetriever
    from dsh_hf.retrieval import MANIFEST_NAME

    out, folder = Path(arguments.out), Path(arguments.folder).resolve()
    if out.is_file() or out.resolve() == folder:
        raise ValueError(f"--out {out} is a file or the folder of the pictures: give another place for the gallery")
    model = DSHModel.from_pretrained(arguments.checkpoint, device=checked_device(arguments.device))
    if (out / MANIFEST_NAME).is_file():
        retriever = SketchRetriever.load(out, model)
        if retriever.folder != folder:
            raise ValueError(f"{out} holds the gallery of {retriever.folder}: give another --out for {folder}")
        if retriever.engine != arguments.engine:
            raise ValueError(f"{out} holds a gallery of the engine {retriever.engine}: give another --out")
        changes = retriever.sync(show_progress_bar=True)
    else:
        retriever = SketchRetriever.from_folder(folder, model, engine=arguments.engine, show_progress_bar=True)
        changes = {"added": len(retriever), "removed": 0, "skipped": len(retriever.skipped)}
    retriever.save(out)
    told = ", ".join(f"{count} {what}" for what, count in changes.items())
    print(f"{len(retriever)} pictures in {out} ({told}); search with: dsh-hf search SKETCH --index {out}")


def search(arguments: argparse.Namespace) -> None:
    """Print the pictures nearest to a sketch: Hamming distance and place."""
    from dsh_hf import DSHModel, SketchRetriever

    model = DSHModel.from_pretrained(arguments.checkpoint)
    retriever = SketchRetriever.load(arguments.index, model)
    for hit in retriever.search(arguments.sketch, k=arguments.k):
        print(f"{hit.distance:4d}  {hit.source or hit.id}")
