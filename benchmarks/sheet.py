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
LEFT_OUT = Path(__file__).with_name("quickdraw_test_ids.txt")
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
    unseen = _left_out(Path(arguments.checkpoint) / TRAINING_NAME)
    words = sketchy_words(sorted(shown), word_files(Path(arguments.quickdraw)))
    if unseen:
        drawn = {key.rpartition("/")[0] for key in unseen}
        words = {name: word for name, word in words.items() if word in drawn}
    if not words:
        raise ValueError(f"{arguments.quickdraw} draws none of the model's {len(model.config.classes)} classes")
    drawings = load_quickdraw(arguments.quickdraw, {name: words[name] for name in spread_classes(list(words), QUERIES)})
    if unseen:
        drawings = drawings.select([row for row, key in enumerate(drawings["id"][:]) if key in unseen])
    queries = drawings.select(spread_rows(drawings["label"][:], QUERIES))
    sheet = draw_results(
        queries,
        gallery,
        model.encode_sketches(undecoded(queries)),
        model.encode_images(undecoded(gallery)),
        credit=_credit(Path(arguments.checkpoint) / TRAINING_NAME, bool(unseen)),
    )
    out = arguments.out or Path(arguments.checkpoint) / SHEET_NAME
    save_sheet(sheet, out)
    print(f"written to {out}: {len(queries)} drawings, {len(gallery)} pictures of {len(shown)} classes to search")
    return 0


def _left_out(training: Path) -> set[str]:
    """Give the ids of the test drawings that are unseen, where the training left them out, and so did its start."""
    if not training.is_file():
        return set()
    record = read_record(training, ["command"])
    commands = [record["command"], record.get("start", record)["command"]]
    if not all(f"--leave-out {LEFT_OUT.name}" in command for command in commands):
        return set()
    return set(LEFT_OUT.read_text(encoding="utf-8").split("\n")) - {""}


def _credit(training: Path, unseen: bool) -> str:
    """Name the makers, and say what of theirs the model was trained on: such results flatter it."""
    names = [item["name"] for item in read_record(training, ["data"])["data"]] if training.is_file() else []
    seen = [name for name in ("Quick, Draw!", "OpenMoji") if name in names and not (unseen and name == "Quick, Draw!")]
    told = f"; the model was trained on these of {' and '.join(seen)}" if seen else ""
    return CREDIT + told + ("; not on these drawings" if unseen else "")
