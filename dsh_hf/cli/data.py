"""``dsh-hf data check`` and ``dsh-hf data sheet``."""

import argparse
import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsh_hf.cli.data_options import SOURCES
from dsh_hf.cli.options import add_command

if TYPE_CHECKING:
    from datasets import DatasetDict


def add_to(commands: Any) -> None:
    """Add the commands of this module."""
    about = "Look at a data set: check it, or draw a contact sheet of it."
    example = "example: dsh-hf data check data/sketchy"
    group = commands.add_parser("data", help=about, description=about, epilog=example)
    inner = group.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    sub = add_command(inner, check, "dsh-hf data check data/sketchy")
    _add_places(sub)
    sub.add_argument("--json", action="store_true", help="print all that was found as JSON")
    sub.add_argument("--workers", type=int, metavar="N", help="threads that decode; by default one for each core")

    sub = add_command(inner, sheet, "dsh-hf data sheet data/sketchy sheet.png --classes cat,dog,owl")
    _add_places(sub)
    sub.add_argument("out", metavar="OUT", help="the picture to write, a .png file")
    sub.add_argument("--classes", default="16", metavar="X", help="how many, evenly spread, or names with commas")
    sub.add_argument("--each", type=int, default=4, metavar="N", help="sketches and images of each class")


def _add_places(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("root", nargs="?", metavar="ROOT", help="Sketchy, TU-Berlin, or sketches/ and images/ of your own")
    sub.add_argument("--sketches", metavar="SOURCE", help=f"instead of ROOT, with --images: {SOURCES}")
    sub.add_argument("--images", metavar="SOURCE", help="as --sketches")


def check(arguments: argparse.Namespace) -> int:
    """Check a data set: classes, counts, damaged and doubled pictures; the exit status is 1 if there are faults."""
    from dsh_hf.data.check import check_data, check_rows
    from dsh_hf.data.recognition import find_pair, find_set
    from dsh_hf.data.sources import holds_rows, open_source

    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"--workers must be 1 or more, got {arguments.workers}")
    named = [arguments.sketches, arguments.images] if _is_pair(arguments) else [arguments.root]
    if any(holds_rows(source) for source in named):
        domains = zip(("sketches", "images") if len(named) == 2 else ("pictures",), named, strict=True)
        rows = {domain: open_source(source, streaming=True) for domain, source in domains}
        report = check_rows(rows, arguments.workers)
    else:
        report = check_data(find_pair(*named) if len(named) == 2 else find_set(*named), arguments.workers)
    print(json.dumps(report.to_dict(), indent=1, ensure_ascii=False) if arguments.json else report.text())
    return 0 if report.sound else 1


def sheet(arguments: argparse.Namespace) -> None:
    """Draw a contact sheet of a data set: a row for each class, with sketches, images and their sketch-tokens."""
    from dsh_hf.contact_sheet import draw_sheet, spread_classes
    from dsh_hf.files import write_atomically

    out = Path(arguments.out)
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise ValueError(f"{out}: give a .png file in a folder that exists")
    data = _load(arguments)
    names = data["images"].features["label"].names
    if arguments.classes.isdecimal():
        classes = spread_classes(names, int(arguments.classes))
    else:
        classes = [name.strip() for name in arguments.classes.split(",")]
    picture = draw_sheet(data, classes, arguments.each)
    file = BytesIO()
    picture.save(file, "PNG")
    write_atomically(out, file.getvalue())
    print(f"written to {out}: {len(classes)} of {len(names)} classes, {picture.width} x {picture.height} pixels")


def _is_pair(arguments: argparse.Namespace) -> bool:
    """Tell whether two sources were named in place of a root."""
    named = [arguments.root, arguments.sketches, arguments.images]
    if [bool(place) for place in named] not in ([True, False, False], [False, True, True]):
        raise ValueError("name one data set: ROOT, or --sketches with --images")
    return not arguments.root


def _load(arguments: argparse.Namespace) -> "DatasetDict":
    from dsh_hf.data.recognition import find_set, load_found
    from dsh_hf.data.sources import join_domains, open_source

    if _is_pair(arguments):
        return join_domains(open_source(arguments.sketches), open_source(arguments.images), "shared")
    return load_found(find_set(arguments.root))
