"""``dsh-hf evaluate``."""

import argparse
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsh_hf.cli.data_options import add_data, add_split, chosen_split, data_name, load_data
from dsh_hf.cli.options import add_bits, add_command, add_device, as_json, checked_device, machine

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from dsh_hf.data import Split

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
    add_device(sub)


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a checkpoint: print a table, write evaluation.json, pr_curve.png, and with them probes and card."""
    import numpy as np

    from dsh_hf import DSHModel
    from dsh_hf.checkpoint import read_config
    from dsh_hf.evaluation import draw_pr_curve
    from dsh_hf.evaluation import evaluate as measure
    from dsh_hf.files import write_atomically
    from dsh_hf.model_card import write_card, write_probes
    from dsh_hf.training_data import undecoded

    if not arguments.out and not Path(arguments.checkpoint).is_dir():
        raise ValueError(f"{arguments.checkpoint} is no folder here: say where to write with --out DIR")
    model = DSHModel.from_pretrained(arguments.checkpoint, bits=arguments.bits, device=checked_device(arguments.device))
    data = load_data(arguments)
    name, seed, queries, gallery = _measured(arguments, data)
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
    print(f"{dataset}, split {name} (seed {seed}), {result.bits} bits, model {model.fingerprint[:12]}")
    print(result.table())
    print(f"95% interval of mAP over queries: {low:.3f} to {high:.3f}; encoded in {ended - began:.0f} s")
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
        "command": "dsh-hf " + shlex.join(arguments.given),
    }
    beside_weights = (out / "config.json").is_file()
    chosen = not beside_weights or read_config(out / "config.json").bits == result.bits
    suffix = "" if chosen else f"-{result.bits}"  # the card is of the length that the checkpoint opens with
    written = [f"evaluation{suffix}.json", f"pr_curve{suffix}.png"]
    write_atomically(out / written[0], as_json(about))
    draw_pr_curve({f"{result.bits} bits": result}, out / written[1])
    if beside_weights and chosen:  # what publishing needs, too
        written += [write_probes(model, out).name, write_card(out).name]
    print(f"written to {out}: {', '.join(written)}")


def _measured(arguments: argparse.Namespace, data: "DatasetDict") -> "tuple[str, int, Dataset, Dataset]":
    """Give the name and seed of the split, the queries and the gallery."""
    if arguments.split == WHOLE:
        return WHOLE, 0, data["sketches"], data["images"]
    split = chosen_split(arguments, data) if arguments.split else split_of(arguments.checkpoint)
    if split is None:
        raise ValueError(f"{arguments.checkpoint} has no split.json: say with --split what to measure on")
    parts = split.select(data)
    return split.name, split.seed, parts["query_sketches"], parts["gallery_images"]


def split_of(checkpoint: str) -> "Split | None":
    """Read the split that a checkpoint was trained with, from its folder or its repository on the Hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from dsh_hf.data import Split

    path = Path(checkpoint) / "split.json"
    if not Path(checkpoint).is_dir():
        try:
            path = Path(hf_hub_download(checkpoint, "split.json"))
        except RemoteEntryNotFoundError:
            return None
    return Split.load(path) if path.is_file() else None
