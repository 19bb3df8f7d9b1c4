"""Draw a few strokes, see the pictures you meant: a sketchpad on a gallery that is searched while you draw.

``python demo/app.py`` opens the trained checkpoint on OpenMoji's colour pictures; folders, data sets and saved
retrievers are named by options, and encoded once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galleries import (
    OPENMOJI_CODES,
    Gallery,
    encode_openmoji,
    open_data_set,
    open_folder,
    open_openmoji,
    open_retriever,
)
from networks import first_device
from page import LAUNCH, build_page
from sketchpad import EXAMPLES, render_strokes

if TYPE_CHECKING:
    from dsh_hf import DSHModel

HERE = Path(__file__).resolve().parent
CHECKPOINT = os.environ.get("DSH_CHECKPOINT", str(HERE.parent / "model_card" / "dsh-sketchy-subset"))
OPENMOJI = "openmoji"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    args = _parser().parse_args(arguments)
    print("loading the model ...", flush=True)
    device = first_device()
    from dsh_hf import DSHModel

    try:
        model = DSHModel.from_pretrained(args.checkpoint, bits=args.bits, device=device)
        if args.write_openmoji_codes:
            from dsh_hf.data.openmoji import load_openmoji

            encode_openmoji(model, "exact", [emoji.id for emoji in load_openmoji()]).save(OPENMOJI_CODES)
            print(f"written: {OPENMOJI_CODES}")
            return 0
        galleries = open_galleries(args, model)
        model.encode_sketches(render_strokes(EXAMPLES["apple"]))  # the first time is slow
        for gallery in galleries:
            print(f"{gallery.title}: {len(gallery.index):,} pictures")
        print("starting the page ...", flush=True)
        demo = build_page(model, galleries, args.checkpoint)
        demo.launch(server_name=args.host, server_port=args.port, share=args.share, **LAUNCH)
    except (OSError, ValueError, ImportError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


def open_galleries(args: argparse.Namespace, model: "DSHModel") -> list[Gallery]:
    """Open the galleries that the command line names, OpenMoji where it names none; no two have one title."""
    print("opening the galleries ...", flush=True)
    galleries = []
    for name in args.gallery:
        openmoji = name == OPENMOJI
        galleries.append(open_openmoji(model, args.engine) if openmoji else open_folder(name, model, args.engine))
    galleries += [open_data_set(source, model, args.engine) for source in args.dataset]
    galleries += [open_retriever(folder, model) for folder in args.retriever]
    if not galleries:
        galleries.append(open_openmoji(model, args.engine))
    titles: set[str] = set()
    for place, gallery in enumerate(galleries):
        if gallery.title in titles:
            galleries[place] = gallery = replace(gallery, title=f"{gallery.title} ({place + 1})")
        titles.add(gallery.title)
    return galleries


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draw a few strokes, see the pictures you meant.")
    add = parser.add_argument
    add("--checkpoint", default=CHECKPOINT, help="a checkpoint's folder or its id on the Hub")
    add("--bits", type=int, help="the code length, where the checkpoint has several")
    several: dict[str, Any] = {"action": "append", "default": []}
    add(
        "--gallery", metavar="DIR", help=f"a folder of pictures, or {OPENMOJI!r}; may be given several times", **several
    )
    add(
        "--dataset", metavar="ID", help="a data set on the Hub, org/name[:split], or here; several times too", **several
    )
    add("--retriever", metavar="DIR", help="what SketchRetriever.save wrote; several times too", **several)
    add("--engine", choices=["exact", "hnsw"], default="exact", help="the search engine")
    add("--host", help="address to listen on; 127.0.0.1 where left out")
    add("--port", type=_port, metavar="PORT", help="port to listen on; the first free one from 7860 where left out")
    add("--share", action="store_true", help="make a public link, by Gradio's service")
    help_ = f"encode OpenMoji into {OPENMOJI_CODES.name}/, and stop"
    add("--write-openmoji-codes", action="store_true", help=help_)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
