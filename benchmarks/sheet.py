"""A checkpoint's sheet of results: Quick, Draw! drawings search OpenMoji pictures, and both are free to be shown."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dsh_hf import DSHModel
from dsh_hf.cli.options import RELEASED
from dsh_hf.contact_sheet import draw_results, save_sheet, spread_classes, spread_rows
from dsh_hf.data import load_quickdraw
from dsh_hf.data.openmoji import openmoji_images
from dsh_hf.data.quickdraw import sketchy_words, word_files
from dsh_hf.model_card import SHEET_NAME, TRAINING_NAME, read_record
from dsh_hf.training_data import undecoded

QUERIES = 10
CREDIT = "Quick, Draw! (CC BY 4.0, Google), OpenMoji (CC BY-SA 4.0)"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sheet: 10 queries of as many classes, evenly spread, with their first 10 results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sheet", description=__doc__)
    parser.add_argument("--quickdraw", required=True, metavar="DIR", help="folder of <word>.ndjson files")
    parser.add_argument("--checkpoint", default=str(RELEASED), metavar="X", help="folder or Hub id")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"by default {SHEET_NAME} beside the weights")
    arguments = parser.parse_args(argv)
    if arguments.out is None and not Path(arguments.checkpoint).is_dir():
        raise ValueError(f"{arguments.checkpoint} is no folder here: say where to write with --out FILE")
    model = DSHModel.from_pretrained(arguments.checkpoint)
    gallery = openmoji_images(model.config.classes)
    shown = {model.config.classes[label] for label in gallery["label"][:]}
    words = sketchy_words(sorted(shown), word_files(Path(arguments.quickdraw)))
    if not words:
        raise ValueError(f"{arguments.quickdraw} draws none of the model's {len(model.config.classes)} classes")
    drawings = load_quickdraw(arguments.quickdraw, {name: words[name] for name in spread_classes(list(words), QUERIES)})
    queries = drawings.select(spread_rows(drawings["label"][:], QUERIES))
    sheet = draw_results(
        queries,
        gallery,
        model.encode_sketches(undecoded(queries)),
        model.encode_images(undecoded(gallery)),
        credit=_credit(Path(arguments.checkpoint) / TRAINING_NAME),
    )
    out = arguments.out or Path(arguments.checkpoint) / SHEET_NAME
    save_sheet(sheet, out)
    print(f"written to {out}: {len(queries)} drawings, {len(gallery)} pictures of {len(shown)} classes to search")
    return 0


def _credit(training: Path) -> str:
    """Name the makers, and say what of theirs the model was trained on: such results flatter it."""
    names = [item["name"] for item in read_record(training, ["data"])["data"]] if training.is_file() else []
    seen = [name for name in ("Quick, Draw!", "OpenMoji") if name in names]
    return CREDIT + (f"; the model was trained on these of {' and '.join(seen)}" if seen else "")
