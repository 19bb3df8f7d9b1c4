"""The data that a command takes: a known set by its root, or any two sources of sketches and images."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import DatasetDict

    from dsh_hf.data import Split

SOURCES = "class folders, parquet, WebDataset, an archive, or a Hub id"


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add what says where sketches and images come from."""
    data = parser.add_argument_group("data", "--sketchy, or --tu-berlin, or --sketches with --images")
    data.add_argument("--sketchy", metavar="ROOT", help="folder or archive of Sketchy, plain or Extended")
    data.add_argument("--tu-berlin", metavar="ROOT", help="folder or archive of TU-Berlin, plain or Extended")
    data.add_argument("--plain", action="store_true", help="leave the images of the Extended version out")
    data.add_argument("--sketches", metavar="SOURCE", help=f"{SOURCES}; or Quick, Draw! .ndjson files")
    data.add_argument("--images", metavar="SOURCE", help=SOURCES)
    data.add_argument("--classes", nargs="+", metavar="NAME", help="only these classes; shared: those that both have")


def load_data(arguments: argparse.Namespace) -> "DatasetDict":
    """Load the sketches and images that the command names.

    Raises:
        ValueError: not exactly one data set is named.
        OSError: it is not there.
    """
    from dsh_hf.data import load_sketchy, load_tu_berlin
    from dsh_hf.data.sources import join_domains, open_source

    own = arguments.sketches or arguments.images
    if sum(map(bool, (arguments.sketchy, arguments.tu_berlin, own))) != 1:
        raise ValueError("name one data set: --sketchy ROOT, or --tu-berlin ROOT, or --sketches with --images")
    if own:
        if not (arguments.sketches and arguments.images):
            raise ValueError("--sketches and --images belong together: give both")
        classes = "shared" if arguments.classes == ["shared"] else arguments.classes
        return join_domains(open_source(arguments.sketches), open_source(arguments.images), classes)
    if arguments.classes:
        raise ValueError("--classes goes with --sketches and --images")
    extended = False if arguments.plain else None
    if arguments.sketchy:
        return load_sketchy(arguments.sketchy, extended=extended)
    return load_tu_berlin(arguments.tu_berlin, extended=extended)


def data_name(data: "DatasetDict", arguments: argparse.Namespace) -> str:
    """Name the data set as results should call it."""
    info = data["images"].info
    if info.dataset_name in ("sketchy", "tu-berlin"):
        name = {"sketchy": "Sketchy", "tu-berlin": "TU-Berlin"}[info.dataset_name]
        return f"{name} Extended" if info.config_name == "extended" else name
    return f"{Path(arguments.sketches).name} and {Path(arguments.images).name}"


def data_terms(data: "DatasetDict") -> str:
    """Say under which terms the data set is known to be had."""
    known = {
        "sketchy": "research use; photographs from ImageNet",
        "tu-berlin": "sketches CC BY 4.0; images of the Extended version: research use",
    }
    return known.get(data["images"].info.dataset_name, "as their owner states")


def add_split(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add what says which pictures are held out."""
    from dsh_hf.data.splits import SPLIT_NAMES

    names = f"{', '.join(SPLIT_NAMES)}, or a file that a training wrote"
    told = "" if default else "; by default the checkpoint's own; whole: every sketch searches every image"
    parser.add_argument("--split", default=default, metavar="NAME", help=names + told)
    parser.add_argument("--split-seed", type=int, metavar="N", help="seed of the split; 0 by default")
    parser.add_argument("--queries-per-class", type=int, metavar="N", help="for the split paper on data of your own")
    parser.add_argument("--unseen", nargs="+", metavar="CLASS", help="for the split zero-shot: classes to hold out")


def chosen_split(arguments: argparse.Namespace, data: "DatasetDict") -> "Split":
    """Make the split that the command names, or read it from its file.

    Raises:
        ValueError: options that do not go with the split.
    """
    from dsh_hf.data import Split, make_split

    if Path(arguments.split).is_file():
        refuse_split_options(arguments, f"the split in {arguments.split}")
        return Split.load(arguments.split)
    return make_split(
        data,
        arguments.split,
        arguments.split_seed or 0,
        queries_per_class=arguments.queries_per_class,
        unseen=arguments.unseen,
    )


def refuse_split_options(arguments: argparse.Namespace, split: str) -> None:
    """Refuse options of a split that is made where none is made.

    Args:
        arguments: what :func:`add_split` added.
        split: what is measured or trained on instead, in words.

    Raises:
        ValueError: there are such options.
    """
    options = ("split_seed", "queries_per_class", "unseen")
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(arguments, name) is not None]
    if given:
        raise ValueError(f"{', '.join(given)} would change nothing: {split} is used as it is; name a split to make")


def data_flags(arguments: argparse.Namespace) -> str:
    """Give the words of a command line that name this data again."""
    names = ("sketchy", "tu_berlin", "sketches", "images")
    words = [[f"--{name.replace('_', '-')}", value] for name in names if (value := getattr(arguments, name))]
    words += [["--plain"]] if arguments.plain else []
    words += [["--classes", *arguments.classes]] if arguments.classes else []
    return shlex.join(word for part in words for word in part)
