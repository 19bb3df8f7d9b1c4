"""``dsh-hf train``."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsh_hf.cli.data_options import add_data, add_split, chosen_split, data_flags, data_name, data_terms, load_data
from dsh_hf.cli.extra_sources import Sources, add_extra_sources
from dsh_hf.cli.options import add_command, add_device, as_json, checked_device, machine, quoted_command
from dsh_hf.cli.origins import initial_weights, start_of
from dsh_hf.sending import without_place

if TYPE_CHECKING:
    from dsh_hf.configuration import DSHConfig
    from dsh_hf.data import Split
    from dsh_hf.training import TrainingConfig


def add_to(commands: Any) -> None:
    """Add the command of this module."""
    sub = add_command(commands, train, "dsh-hf train --sketchy data/sketchy --out runs/first")
    add_data(sub)
    sub.add_argument("--name", help="what the model card calls the data set; by default its own name")
    sub.add_argument("--terms", help="terms of data of your own, for the model card")
    add_extra_sources(sub)
    sub.add_argument("--out", required=True, metavar="DIR", help="state, log and checkpoint; a run resumes from here")
    sub.add_argument("--restart", action="store_true", help="ignore the state of an earlier run")
    add_split(sub, default="open")
    sub.add_argument("--validate", action="store_true", help="keep the validation sketches out, log mAP each round")
    sub.add_argument(
        "--word-vectors", metavar="X", help="file of GloVe, word2vec or fastText, or a sentence encoder's id"
    )
    sub.add_argument("--word-aliases", metavar="FILE", help="JSON: what to look up in place of a class name")
    sub.add_argument(
        "--bits",
        type=int,
        nargs="+",
        default=[64],
        help="code lengths to train; the first is the checkpoint's own choice",
    )
    sub.add_argument("--paper-networks", choices=("sketchy", "tu-berlin"), help="the published networks, from scratch")
    sub.add_argument("--image-backbone", default="tf_efficientnet_lite0", help="a timm name, or caffenet")
    sub.add_argument("--sketch-backbone", default="tf_efficientnet_lite0", help="a timm name, or dsh-c2")
    sub.add_argument("--image-size", type=int, default=192, help="pixels")
    sub.add_argument("--sketch-size", type=int, default=112, help="pixels")
    sub.add_argument("--hidden", type=int, default=512, help="numbers before either stream's hash layer, even")
    sub.add_argument(
        "--mirror-sketches", action="store_true", help="encode a drawing and its mirror image: better, twice the time"
    )
    sub.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float16", help="stored weights")
    sub.add_argument("--mode", choices=("balanced", "paper"), default="balanced", help="the objective")
    sub.add_argument("--semantic-weight", type=float, help="lambda; 0.1, in paper mode 0.01")
    sub.add_argument("--quantization-weight", type=float, help="gamma; 0.1, in paper mode 1e-5")
    sub.add_argument("--code-word-weight", type=float, help="of the class's word in the network step; 0.3, paper: 0")
    sub.add_argument("--classifier-weight", type=float, help="of the sketch's class in the network step; 1, paper: 0")
    sub.add_argument("--head-passes", type=int, help="of the last layers alone, at the end; 16, paper: 0")
    sub.add_argument("--rounds", type=int, default=20, help="code steps, each with one pass of the networks")
    sub.add_argument("--batch-size", type=int, default=64, help="sketches in a step")
    sub.add_argument("--learning-rate", type=float, default=1e-3, help="of the trunks; heads: three times")
    sub.add_argument(
        "--start-from", metavar="CHECKPOINT", help="start from the networks of a checkpoint, all but the last layers"
    )
    sub.add_argument("--random-weights", action="store_true", help="do not start from ImageNet weights")
    sub.add_argument("--compile", action="store_true", help="compile the trunks: needs a C++ compiler")
    sub.add_argument("--train-image-trunk", action="store_true", help="train the image trunk, too")
    sub.add_argument("--seed", type=int, default=0, help="of everything drawn at random")
    add_device(sub)


def train(arguments: argparse.Namespace) -> None:
    """Train a model, and leave a checkpoint with its split and how it was made."""
    from dsh_hf.data import class_vectors
    from dsh_hf.data.quickdraw import WORD_ALIASES
    from dsh_hf.data.words import WORD_VECTORS_NAME, save_class_vectors
    from dsh_hf.files import write_atomically
    from dsh_hf.training import Trainer

    config = _settings(arguments)  # before the data: a wrong setting is told at once
    sources, split = _sources(arguments)
    parts = sources.parts()
    out = Path(arguments.out)
    names = sources.classes
    aliases = arguments.word_aliases or (WORD_ALIASES if arguments.more_classes else None)
    vectors = class_vectors(names, arguments.word_vectors, aliases=aliases)
    trainer = Trainer(config, parts, out, word_vectors=vectors, device=checked_device(arguments.device))
    model = trainer.train(resume=not arguments.restart)
    if not trainer.processes.is_main:
        return
    if split is not None:
        split.save(out / "checkpoint" / "split.json")
    vectors_from = without_place(arguments.word_vectors or "GloVe 6B word vectors")
    vector_terms = "as their makers state" if arguments.word_vectors else "PDDL 1.0"
    save_class_vectors(out / "checkpoint" / WORD_VECTORS_NAME, names, vectors, vectors_from)
    about: dict[str, Any] = {
        "command": quoted_command(arguments.given),
        "seconds": round(sum(record["seconds"] for record in trainer.history)),
        "machine": machine(trainer.device, trainer.processes.count),
        "seed": arguments.seed,
        "data": sources.about,
        "initial_weights": initial_weights(config, vectors_from, vector_terms),
        "fingerprint": model.fingerprint,
    }
    if start := start_of(config):
        about["start"] = start
    write_atomically(out / "checkpoint" / "training.json", as_json(about))
    measure = f"dsh-hf evaluate {out / 'checkpoint'} {data_flags(arguments)}"
    print(f"checkpoint written to {out / 'checkpoint'}" + (f"; measure it with: {measure}" if split else ""))


def _sources(arguments: argparse.Namespace) -> "tuple[Sources, Split | None]":
    """Gather all that trains; without a data set that is more to train on alone, and there is no split.

    Raises:
        ValueError: options that do not go together.
        OSError: some of the data is not there.
    """
    if arguments.repeat < 1:
        raise ValueError(f"--repeat must be 1 or more, got {arguments.repeat}")
    if arguments.quickdraw and not data_flags(arguments):
        if arguments.validate:
            raise ValueError(
                "--validate needs a data set: --sketchy ROOT, --tu-berlin ROOT, or --sketches with --images"
            )
        if arguments.repeat > 1:
            raise ValueError("--repeat needs a data set, whose sketches come more often")
        sources = Sources([], [], [])
        sources.add_extra(arguments)
        return sources, None
    data = load_data(arguments)
    split = chosen_split(arguments, data)
    parts = split.select(data)
    classes = list(parts["train_images"].features["label"].names)
    sources = Sources(classes, [parts["train_sketches"]], [parts["train_images"]])
    if arguments.validate:
        sources.validation = parts["validation_sketches"]
    else:
        sources.sketches.append(parts["validation_sketches"])
        split = replace(split, validation_sketches=())  # what is kept says what was trained on
    pictures = sum(map(len, [*sources.sketches, *sources.images]))
    sources.tell(arguments.name or data_name(data, arguments), arguments.terms or data_terms(data), pictures)
    sources.sketches *= arguments.repeat
    sources.add_extra(arguments)
    return sources, split


def _settings(arguments: argparse.Namespace) -> "TrainingConfig":
    from dsh_hf.training import TrainingConfig

    own = ("semantic_weight", "quantization_weight", "code_word_weight", "classifier_weight", "head_passes")
    given = {name: value for name in own if (value := getattr(arguments, name)) is not None}
    return (TrainingConfig.paper if arguments.mode == "paper" else TrainingConfig)(
        model=_networks(arguments),
        **given,
        rounds=arguments.rounds,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        imagenet_weights=not (arguments.random_weights or arguments.paper_networks),
        train_image_trunk=bool(arguments.train_image_trunk or arguments.paper_networks),
        start_from=arguments.start_from,
        compile=arguments.compile,
        lone_classes=arguments.more_classes,
        seed=arguments.seed,
    )


def _networks(arguments: argparse.Namespace) -> "DSHConfig":
    from dsh_hf.configuration import DSHConfig

    bits, lengths = arguments.bits[0], tuple(sorted(arguments.bits))
    if arguments.paper_networks:
        if len(lengths) > 1:
            raise ValueError("the published networks make codes of one length: give --bits one")
        return replace(DSHConfig.paper(arguments.paper_networks, bits), dtype=arguments.dtype)
    return DSHConfig(
        bits=bits,
        lengths=lengths,
        image_backbone=arguments.image_backbone,
        sketch_backbone=arguments.sketch_backbone,
        image_size=arguments.image_size,
        sketch_size=arguments.sketch_size,
        sketch_hidden=[arguments.hidden],
        fusion_hidden=[arguments.hidden // 2],  # of two layers side by side
        mirror_sketches=arguments.mirror_sketches,
        dtype=arguments.dtype,
    )
