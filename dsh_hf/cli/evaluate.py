"""``dsh-hf evaluate``."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsh_hf.cli.data_options import add_data, add_split, chosen_split, data_name, load_data, refuse_split_options
from dsh_hf.cli.options import add_bits, add_command, add_device, as_json, checked_device, machine, quoted_command

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from dsh_hf.data import Split

SPLIT_NAME = "split.json"
WHOLE = "whole"  # in place of a split: every sketch searches every image


def add_to(commands: Any) -> None:
    """Add the command of this module."""
    sub = add_command(commands, evaluate, "dsh-hf evaluate runs/first/checkpoint --sketchy data/sketchy")
    sub.add_argument("checkpoint", help="folder or Hub id; its split.json says what is measured")
    add_data(sub)
    add_bits(sub)
    add_split(sub, default=None)
    sub.add_argument("--name", help="what the results call the data set; by default its own name")
    sub.add_argument("--out", metavar="DIR", help="where to write; by default the checkpoint's folder")
    sub.add_argument(
        "--sheet", metavar="FILE", help="draw 10 queries with their first 10 results, too: a .png of yours"
    )
    sub.add_argument("--json", action="store_true", help="print what evaluation.json holds in place of the table")
    add_device(sub)


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a checkpoint: print a table, write evaluation.json, pr_curve.png, and with them probes and card."""
    import numpy as np

    from dsh_hf import DSHModel
    from dsh_hf.checkpoint import find_checkpoint, read_config
    from dsh_hf.contact_sheet import draw_results, save_sheet, spread_rows
    from dsh_hf.evaluation import draw_pr_curve
    from dsh_hf.evaluation import evaluate as measure
    from dsh_hf.files import write_atomically
    from dsh_hf.model_card import CURVE_NAME, EVALUATION_NAME, other_evaluation_name, write_card, write_probes
    from dsh_hf.training_data import undecoded

    if not arguments.out and not Path(arguments.checkpoint).is_dir():
        raise ValueError(f"{arguments.checkpoint} is no folder here: say where to write with --out DIR")
    _check_sheet(arguments.sheet)
    folder = find_checkpoint(arguments.checkpoint)
    model = DSHModel.from_pretrained(folder, bits=arguments.bits, device=checked_device(arguments.device))
    data = load_data(arguments)
    name, seed, queries, gallery = _measured(arguments, folder, data)
    began = time.perf_counter()
    query_codes = model.encode_sketches(undecoded(queries), show_progress_bar=True)
    between = time.perf_counter()
    gallery_codes = model.encode_images(undecoded(gallery), show_progress_bar=True)
    ended = time.perf_counter()
    result = measure(
        query_codes,
        gallery_codes,
        np.asarray(queries["label"]),
        np.asarray(gallery["label"]),
        bits=model.config.bits,
    )
    low, high = result.bootstrap()
    dataset = arguments.name or data_name(data, arguments)
    out = Path(arguments.out or arguments.checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    per_class = result.per_class(gallery.features["label"].names)
    about = {
        "fingerprint": model.fingerprint,
        "dataset": dataset,
        "split": name,
        "seed": seed,
        **result.to_dict(),
        "precision_radius_2": result.precision_radius,
        "map_interval": [low, high],
        "map_by_class": {name: round(value, 4) for name, value in per_class.items()},
        "speed": {
            "sketches_per_second": round(len(queries) / (between - began), 1),
            "images_per_second": round(len(gallery) / (ended - between), 1),
            "machine": machine(model.device),
        },
        "command": quoted_command(arguments.given),
    }
    if arguments.json:
        print(as_json(about).decode())
    else:
        print(f"{dataset}, split {name} (seed {seed}), {result.bits} bits, model {model.fingerprint[:12]}")
        print(result.table())
        print(f"95% interval of mAP over queries: {low:.3f} to {high:.3f}; encoded in {ended - began:.0f} s")
    beside_weights = (out / "config.json").is_file()
    chosen = not beside_weights or read_config(out / "config.json").bits == result.bits
    # The card is of the length that the checkpoint opens with, and has a line on each of the others.
    written = [EVALUATION_NAME, CURVE_NAME]
    if not chosen:
        written = [other_evaluation_name(result.bits), f"{Path(CURVE_NAME).stem}-{result.bits}.png"]
    write_atomically(out / written[0], as_json(about))
    draw_pr_curve({f"{result.bits} bits": result}, out / written[1])
    if arguments.sheet:
        rows = spread_rows(queries["label"][:])
        save_sheet(draw_results(queries.select(rows), gallery, query_codes[rows], gallery_codes), arguments.sheet)
    if beside_weights and chosen:  # what publishing needs, too
        written.append(write_probes(model, out).name)
    if beside_weights and (out / EVALUATION_NAME).is_file():
        written.append(write_card(out).name)
    if not arguments.json:
        print(f"written to {out}: {', '.join(written)}")


def _check_sheet(place: str | None) -> None:
    """Refuse a sheet that cannot be written, or that would be published with a checkpoint: its pictures may not be."""
    if place is None:
        return
    out = Path(place)
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise ValueError(f"--sheet {out}: give a .png file in a folder that exists")
    if any((folder / "config.json").is_file() for folder in out.resolve().parents):
        raise ValueError(f"--sheet {out}: the data set's pictures may not be yours to publish: write it elsewhere")


def _measured(arguments: argparse.Namespace, folder: Path, data: "DatasetDict") -> "tuple[str, int, Dataset, Dataset]":
    """Give the name and seed of the split, the queries and the gallery."""
    if arguments.split in (WHOLE, None):
        refuse_split_options(arguments, "every sketch and image" if arguments.split else "the checkpoint's own split")
    if arguments.split == WHOLE:
        return WHOLE, 0, data["sketches"], data["images"]
    split = chosen_split(arguments, data) if arguments.split else _split_in(arguments.checkpoint, folder)
    if split is None:
        raise ValueError(f"{arguments.checkpoint} has no split.json: say with --split what to measure on")
    parts = split.select(data)
    return split.name, split.seed, parts["query_sketches"], parts["gallery_images"]


def split_of(checkpoint: str) -> "Split | None":
    """Read the split that a checkpoint was trained with, from its folder or its repository on the Hub.

    Raises:
        OSError: there is no such checkpoint, or it cannot be had; a checkpoint without a split gives ``None``.
    """
    from dsh_hf.checkpoint import find_checkpoint

    return _split_in(checkpoint, find_checkpoint(checkpoint))


def _split_in(checkpoint: str, folder: Path) -> "Split | None":
    """Read the split beside the weights in ``folder``; what came from the Hub is asked for at the same commit."""
    from dsh_hf.data import Split
    from dsh_hf.hub import DownloadError, FileAbsentError, download

    if not Path(checkpoint).is_dir():
        try:
            download(checkpoint, [SPLIT_NAME], what="a checkpoint with a split", revision=folder.name)
        except FileAbsentError:
            return None
        except DownloadError as error:
            raise DownloadError(f"{SPLIT_NAME} of {error}; or say with --split what to measure on") from error
    path = folder / SPLIT_NAME
    return Split.load(path) if path.is_file() else None
