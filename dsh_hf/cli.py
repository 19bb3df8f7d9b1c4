"""The command ``dsh-hf``: train, evaluate, index and search from a shell."""

import argparse
import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsh_hf import __version__

if TYPE_CHECKING:
    from datasets import Dataset

    from dsh_hf.configuration import DSHConfig
    from dsh_hf.data import Split

# In a clone the released checkpoint lies beside the package; elsewhere --checkpoint has to be given.
RELEASED = Path(__file__).resolve().parents[1] / "model_card" / "dsh-sketchy-subset"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; give 0, or 2 with one line on stderr where the input is at fault."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given)
    arguments.given = given
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Each request of the Hub's client would be a line of the log, too.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    from dsh_hf.training import TrainingError

    try:
        arguments.run(arguments)
    except (ValueError, OSError, ImportError, TrainingError) as error:
        print(f"dsh-hf {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ndsh-hf {arguments.command}: stopped; what was saved stays", file=sys.stderr)
        return 130
    return 0


def train(arguments: argparse.Namespace) -> None:
    """Train a model on Sketchy, and leave a checkpoint with its split and how it was made."""
    from dsh_hf.data import load_quickdraw, load_sketchy, make_split
    from dsh_hf.data.openmoji import openmoji_images, openmoji_sketches
    from dsh_hf.data.quickdraw import sketchy_words
    from dsh_hf.files import write_atomically
    from dsh_hf.training import Trainer, TrainingConfig

    data = load_sketchy(arguments.sketchy)
    split = make_split(data, arguments.split, arguments.split_seed)
    parts = split.select(data)
    names = data["images"].features["label"].names
    sketches, images = [parts["train_sketches"]], [parts["train_images"]]
    if not arguments.validate:
        sketches.append(parts["validation_sketches"])
    pictures = sum(map(len, [*sketches, *images]))
    sources = [_source("Sketchy", "research use; photographs from ImageNet", pictures)]
    if arguments.quickdraw:
        words = [path.stem for path in Path(arguments.quickdraw).glob("*.ndjson")]
        drawings = load_quickdraw(arguments.quickdraw, sketchy_words(names, words))
        sketches.append(drawings)
        sources.append(_source("Quick, Draw!", "CC BY 4.0, Google", len(drawings)))
    if arguments.openmoji:
        sketches.append(openmoji_sketches(names))
        images.append(openmoji_images(names))
        sources.append(_source("OpenMoji", "CC BY-SA 4.0", 2 * len(images[-1])))
    parts["train_sketches"], parts["train_images"] = _join(sketches), _join(images)
    if not arguments.validate:
        del parts["validation_sketches"]
    weights = ("semantic_weight", "quantization_weight", "code_word_weight")
    given = {name: value for name in weights if (value := getattr(arguments, name)) is not None}
    config = (TrainingConfig.paper if arguments.mode == "paper" else TrainingConfig)(
        model=_networks(arguments),
        **given,
        rounds=arguments.rounds,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        imagenet_weights=not (arguments.random_weights or arguments.paper_networks),
        train_image_trunk=bool(arguments.train_image_trunk or arguments.paper_networks),
        seed=arguments.seed,
    )
    out = Path(arguments.out)
    trainer = Trainer(config, parts, out, device=_device(arguments.device))
    model = trainer.train(resume=not arguments.restart)
    split.save(out / "checkpoint" / "split.json")
    initial = [
        _source("sketch-token network of dsh_hf", "taught by HED (MIT) on Caltech-101 and OpenMoji", None),
        _source("GloVe 6B word vectors", "PDDL 1.0", None),
    ]
    if config.imagenet_weights:
        initial.append(_source(config.model.image_backbone, "Apache-2.0; trained on ImageNet", None))
    about = {
        "command": "dsh-hf " + shlex.join(arguments.given),
        "seconds": round(sum(record["seconds"] for record in trainer.history)),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, device {trainer.device}",
        "seed": arguments.seed,
        "data": sources,
        "initial_weights": initial,
        "fingerprint": model.fingerprint,
    }
    write_atomically(out / "checkpoint" / "training.json", _json(about))
    print(
        f"checkpoint written to {out / 'checkpoint'}; measure it with: dsh-hf evaluate {out / 'checkpoint'} "
        f"--sketchy {arguments.sketchy}"
    )


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a checkpoint: print a table, write evaluation.json, pr_curve.png, and with them probes and card."""
    import numpy as np

    from dsh_hf import DSHModel
    from dsh_hf.data import load_sketchy, make_split
    from dsh_hf.evaluation import draw_pr_curve
    from dsh_hf.evaluation import evaluate as measure
    from dsh_hf.files import write_atomically
    from dsh_hf.model_card import write_card, write_probes
    from dsh_hf.training_data import undecoded

    if not arguments.out and not Path(arguments.checkpoint).is_dir():
        raise ValueError(f"{arguments.checkpoint} is no folder here: say where to write with --out DIR")
    model = DSHModel.from_pretrained(arguments.checkpoint, device=_device(arguments.device))
    data = load_sketchy(arguments.sketchy)
    split = split_of(arguments.checkpoint)
    if split is None:
        split = make_split(data, "open", 0)
        print(f"{arguments.checkpoint} has no split.json: measured on the split 'open', seed 0")
    parts = split.select(data)
    queries, gallery = parts["query_sketches"], parts["gallery_images"]
    began = time.perf_counter()
    query_codes = model.encode_sketches(undecoded(queries), show_progress_bar=True)
    gallery_codes = model.encode_images(undecoded(gallery), show_progress_bar=True)
    seconds = time.perf_counter() - began
    result = measure(
        query_codes,
        gallery_codes,
        np.asarray(queries["label"]),
        np.asarray(gallery["label"]),
        bits=model.config.bits,
    )
    low, high = result.bootstrap()
    dataset = arguments.name
    print(f"{dataset}, split {split.name} (seed {split.seed}), {result.bits} bits, model {model.fingerprint[:12]}")
    print(result.table())
    print(f"95% interval of mAP over queries: {low:.3f} to {high:.3f}; encoded in {seconds:.0f} s")
    out = Path(arguments.out or arguments.checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    per_class = result.per_class(data["images"].features["label"].names)
    about = {
        "fingerprint": model.fingerprint,
        "dataset": dataset,
        "split": split.name,
        "seed": split.seed,
        **result.to_dict(),
        "precision_radius_2": result.precision_radius,
        "map_interval": [low, high],
        "map_by_class": {name: round(value, 4) for name, value in per_class.items()},
        "command": "dsh-hf " + shlex.join(arguments.given),
    }
    write_atomically(out / "evaluation.json", _json(about))
    draw_pr_curve({f"{result.bits} bits": result}, out / "pr_curve.png")
    written = ["evaluation.json", "pr_curve.png"]
    if (out / "config.json").is_file():  # beside the weights: what publishing needs, too
        written += [write_probes(model, out).name, write_card(out).name]
    print(f"written to {out}: {', '.join(written)}")


def index(arguments: argparse.Namespace) -> None:
    """Encode a folder of pictures and save the gallery; done before, only what changed is encoded."""
    from dsh_hf import DSHModel, SketchRetriever
    from dsh_hf.retrieval import MANIFEST_NAME

    out, folder = Path(arguments.out), Path(arguments.folder).resolve()
    if out.is_file() or out.resolve() == folder:
        raise ValueError(f"--out {out} is a file or the folder of the pictures: give another place for the gallery")
    model = DSHModel.from_pretrained(arguments.checkpoint, device=_device(arguments.device))
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


def import_caffe(arguments: argparse.Namespace) -> None:
    """Turn the authors' trained Caffe networks into a checkpoint."""
    from dsh_hf.caffe import import_caffe as convert

    model = convert(arguments.image, arguments.sketch, arguments.out, bits=arguments.bits, dtype=arguments.dtype)
    print(
        f"checkpoint written to {arguments.out}: codes of {model.config.bits} bits. The authors published neither the "
        "mean of their sketches nor what drew their sketch-tokens: this package's stand in for them"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dsh-hf", description="Deep Sketch Hashing: find pictures by drawing.")
    parser.add_argument("--version", action="version", version=f"dsh-hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run: Any, example: str) -> argparse.ArgumentParser:
        about = (run.__doc__ or "").strip()
        sub = commands.add_parser(
            run.__name__.replace("_", "-"),
            help=about,
            description=about,
            epilog=f"example: {example}",
            formatter_class=_Formatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(train, "dsh-hf train --sketchy data/sketchy --out runs/first")
    sub.add_argument("--sketchy", required=True, metavar="DIR", help="folder with Sketchy's 256x256/{sketch,photo}")
    sub.add_argument("--quickdraw", metavar="DIR", help="folder of Quick, Draw! .ndjson files: more sketches")
    sub.add_argument("--openmoji", action="store_true", help="add OpenMoji's pictures of the same classes")
    sub.add_argument("--out", required=True, metavar="DIR", help="state, log and checkpoint; a run resumes from here")
    sub.add_argument("--restart", action="store_true", help="ignore the state of an earlier run")
    sub.add_argument("--split", choices=("open", "strict"), default="open", help="what is held out")
    sub.add_argument("--split-seed", type=int, default=0, help="seed of the split")
    sub.add_argument("--validate", action="store_true", help="keep the validation sketches out, log mAP each round")
    sub.add_argument("--bits", type=int, default=64, help="length of the codes")
    sub.add_argument("--paper-networks", choices=("sketchy", "tu-berlin"), help="the published networks, from scratch")
    sub.add_argument("--image-backbone", default="tf_efficientnet_lite0", help="a timm name, or caffenet")
    sub.add_argument("--sketch-backbone", default="tf_efficientnet_lite0", help="a timm name, or dsh-c2")
    sub.add_argument("--image-size", type=int, default=192, help="pixels")
    sub.add_argument("--sketch-size", type=int, default=112, help="pixels")
    sub.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float16", help="stored weights")
    sub.add_argument("--mode", choices=("balanced", "paper"), default="balanced", help="the objective")
    sub.add_argument("--semantic-weight", type=float, help="lambda; 0.1, in paper mode 0.01")
    sub.add_argument("--quantization-weight", type=float, help="gamma; 0.1, in paper mode 1e-5")
    sub.add_argument("--code-word-weight", type=float, help="of the class's word in the network step; 0.3, paper: 0")
    sub.add_argument("--rounds", type=int, default=20, help="code steps, each with one pass of the networks")
    sub.add_argument("--batch-size", type=int, default=64, help="sketches in a step")
    sub.add_argument("--learning-rate", type=float, default=1e-3, help="of the trunks; heads: three times")
    sub.add_argument("--random-weights", action="store_true", help="do not start from ImageNet weights")
    sub.add_argument("--train-image-trunk", action="store_true", help="train the image trunk, too")
    sub.add_argument("--seed", type=int, default=0, help="of everything drawn at random")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, ...")

    sub = command(evaluate, "dsh-hf evaluate runs/first/checkpoint --sketchy data/sketchy")
    sub.add_argument("checkpoint", help="folder or Hub id; its split.json says what is measured")
    sub.add_argument("--sketchy", required=True, metavar="DIR", help="folder with Sketchy's 256x256/{sketch,photo}")
    sub.add_argument("--name", default="Sketchy", help="what the results call the data set")
    sub.add_argument("--out", metavar="DIR", help="where to write; by default the checkpoint's folder")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, ...")

    sub = command(index, "dsh-hf index photos --out photos.gallery")
    sub.add_argument("folder", help="pictures, in folders or not")
    sub.add_argument("--out", required=True, metavar="DIR", help="the gallery")
    _add_checkpoint(sub)
    sub.add_argument("--engine", choices=("exact", "hnsw"), default="exact", help="the search engine")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, ...")

    sub = command(search, "dsh-hf search cat.png --index photos.gallery")
    sub.add_argument("sketch", help="a picture of a drawing")
    sub.add_argument("--index", required=True, metavar="DIR", help="a gallery made by dsh-hf index")
    _add_checkpoint(sub)
    sub.add_argument("-k", type=int, default=10, help="number of results")

    sub = command(import_caffe, "dsh-hf import-caffe deploy_it_64.caffemodel deploy_sk_64.caffemodel --out dsh-64")
    sub.add_argument("image", help=".caffemodel of the image network")
    sub.add_argument("sketch", help=".caffemodel of the sketch network; the same file where it holds both")
    sub.add_argument("--out", required=True, metavar="DIR", help="a new folder for the checkpoint")
    sub.add_argument("--bits", type=int, help="the code length that you rely on")
    sub.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="stored weights")
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    if RELEASED.is_dir():
        parser.add_argument("--checkpoint", default=str(RELEASED), metavar="X", help="folder or Hub id")
    else:
        parser.add_argument("--checkpoint", required=True, metavar="X", help="folder or Hub id")


def _networks(arguments: argparse.Namespace) -> "DSHConfig":
    from dsh_hf.configuration import DSHConfig

    if arguments.paper_networks:
        return replace(DSHConfig.paper(arguments.paper_networks, arguments.bits), dtype=arguments.dtype)
    return DSHConfig(
        bits=arguments.bits,
        image_backbone=arguments.image_backbone,
        sketch_backbone=arguments.sketch_backbone,
        image_size=arguments.image_size,
        sketch_size=arguments.sketch_size,
        dtype=arguments.dtype,
    )


def _join(datasets: list["Dataset"]) -> "Dataset":
    """Put data sets of the same classes below each other, whatever order each numbers them in."""
    from datasets import concatenate_datasets

    features = datasets[0].select_columns(["image", "label", "id"]).features
    numbers = {name: number for number, name in enumerate(features["label"].names)}
    return concatenate_datasets(
        [
            dataset.align_labels_with_mapping(numbers, "label").select_columns(["image", "label", "id"]).cast(features)
            for dataset in datasets
        ]
    )


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


def _device(name: str) -> str:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} is not to be had here: use cpu") from error
    return name


def _source(name: str, terms: str, items: int | None) -> dict[str, Any]:
    source: dict[str, Any] = {"name": name, "terms": terms}
    return source if items is None else {**source, "items": items}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
