"""What each part of DSH is worth, beside other ways to codes: one table and one figure, each row in minutes."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._ablation_report import Results, draw, markdown
from benchmarks._ablation_rows import ROWS, RUNS, Table
from dsh_hf.cli.options import add_device, checked_device, machine
from dsh_hf.configuration import DSHConfig
from dsh_hf.files import replaced_atomically, write_atomically
from dsh_hf.training import TrainingConfig

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from dsh_hf.data import Split

SPLITS = ("open", "sketchy-25")  # of Sketchy
ZERO_SHOT_RUNS = ("untrained", "triplet", "softmax", "dsh")  # where classes are unseen
_SPARE = 0.9  # of the minutes, since rounds differ


@dataclass(frozen=True)
class Budget:
    """What rows may cost.

    Attributes:
        minutes: of training, for each row.
        warm_rounds: of softmax training, once, whose trunk of sketches all rows start from.
    """

    minutes: float
    warm_rounds: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; write ``ablation.md``, ``ablation.png``, ``results.json`` and the rankings of each query."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ablation", description=__doc__)
    parser.add_argument("--sketchy", metavar="DIR", help="root of Sketchy, whole or in part")
    parser.add_argument("--quickdraw-pairs", nargs=2, metavar=("QUICKDRAW", "CALTECH"), help="the second data set")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), help="of Sketchy; sketchy-25 is zero-shot")
    parser.add_argument("--minutes", type=float, default=5, help="of training, for each row, at most")
    parser.add_argument("--rounds", type=int, default=20, help="of training, at most, in the row of DSH whole")
    parser.add_argument(
        "--warm-rounds", type=int, default=0, help="of softmax training, once a table: all rows go on from its trunk"
    )
    parser.add_argument("--bits", type=int, nargs="+", default=[32, 64, 128], help="code lengths")
    parser.add_argument("--rows", nargs="+", default=RUNS, choices=RUNS, metavar="ROW", help=", ".join(RUNS))
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--out", type=Path, default=Path("ablation"), help="folder; a stopped run goes on from it")
    add_device(parser)
    arguments = parser.parse_args(argv)
    if not (arguments.sketchy or arguments.quickdraw_pairs):
        raise ValueError("name the data: --sketchy DIR, --quickdraw-pairs QUICKDRAW CALTECH, or both")
    if arguments.minutes <= 0 or arguments.rounds < 1 or arguments.warm_rounds < 0:
        raise ValueError("--minutes must be above 0, --rounds 1 or more, and --warm-rounds not negative")
    budget = Budget(arguments.minutes, arguments.warm_rounds)
    bits = tuple(sorted(set(arguments.bits)))
    networks = DSHConfig(bits=64 if 64 in bits else bits[0], lengths=bits)
    config = TrainingConfig(model=networks, rounds=arguments.rounds, seed=arguments.seed)
    results = Results(arguments.out, {"training": asdict(config), "budget": asdict(budget)})
    device = checked_device(arguments.device)
    for name, about, data, split in _data(arguments):
        rows = [row for row in arguments.rows if row in ZERO_SHOT_RUNS or not split.unseen_classes]
        fill_table(results, name, about, parts_of(data, split), config, rows, budget, device)
    table = markdown(results, bits)
    write_atomically(arguments.out / "ablation.md", table.encode())
    draw(results, bits, arguments.out / "ablation.png")
    print(f"{table}\nwritten to {arguments.out}: results.json, ablation.md, ablation.png, and rankings of each query")
    return 0


def parts_of(data: "DatasetDict", split: "Split") -> "dict[str, Dataset]":
    """Divide the data; what would validate trains here, since nothing is chosen by it."""
    from datasets import concatenate_datasets

    parts = split.select(data)
    validation = parts.pop("validation_sketches")
    if len(validation):
        parts["train_sketches"] = concatenate_datasets([parts["train_sketches"], validation])
    return dict(parts)


def fill_table(
    results: Results,
    name: str,
    about: str,
    parts: Mapping[str, "Dataset"],
    config: TrainingConfig,
    rows: Sequence[str],
    budget: Budget,
    device: str,
) -> None:
    """Measure the rows of a table that are not measured yet.

    Args:
        results: where figures and rankings go.
        name: of the table, and of the folder of its rankings.
        about: what data these are.
        parts: ``train_sketches``, ``train_images``, ``query_sketches`` and ``gallery_images``.
        config: settings of the row ``dsh``; no row has more network steps than its ``rounds`` give.
        rows: some of ``RUNS``.
        budget: how long each row may train, and what comes before.
        device: where the networks run.
    """
    rows = [row for row in rows if not results.has(name, row)]
    if not rows:
        return
    folder = results.out / "prepared"
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(parts, config, folder, device)
    if budget.warm_rounds:
        table.warm_up(budget.warm_rounds, results.out / name / "warm")
    if name not in results.facts:
        rounds = min(config.rounds, max(1, int(_SPARE * 60 * budget.minutes / table.seconds_of_a_round())))
        results.facts[name] = {
            "data": about,
            "classes": len(parts["train_sketches"].features["label"].names),
            "queries": len(table.labels["query"]),
            "gallery": len(table.labels["gallery"]),
            "steps": rounds * table.steps(),
            "warm_steps": budget.warm_rounds * table.steps("softmax"),
            "machine": machine(device),
        }
        _save_pictures(results.out / name / "pictures.npz", table, parts)
        results.save()
    for row in rows:
        measured, seconds = table.run(row, results.facts[name]["steps"])
        for of, lengths in measured.items():
            for length, rankings in lengths.items():
                rankings.save(results.path_of(name, of, length))
            told = ", ".join(f"{length} {found.average_precisions.mean():.3f}" for length, found in lengths.items())
            print(f"{name}, {ROWS[of].title}: MAP {told}; trained {seconds:.0f} s", flush=True)
        figures = {
            of: {length: found.figures() | {"seconds": seconds} for length, found in lengths.items()}
            for of, lengths in measured.items()
        }
        results.add(name, figures)  # last: what is told there has its rankings


def _save_pictures(path: Path, table: Table, parts: Mapping[str, "Dataset"]) -> None:
    """Write what the rows and columns of all rankings of a table are: ids and labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            query_ids=np.array(parts["query_sketches"]["id"][:]),
            query_labels=table.labels["query"],
            gallery_ids=np.array(parts["gallery_images"]["id"][:]),
            gallery_labels=table.labels["gallery"],
        )


def _data(arguments: argparse.Namespace) -> "Iterator[tuple[str, str, DatasetDict, Split]]":
    """Give for each table its name, what it is about, the data and the split."""
    from dsh_hf.data import load_folders, load_sketchy, make_split

    if arguments.sketchy:
        data = load_sketchy(arguments.sketchy)
        for name in arguments.splits:
            split = make_split(data, name)
            unseen = f", {len(split.unseen_classes)} unseen classes" if split.unseen_classes else ""
            yield name, f"Sketchy, split {name}{unseen}", data, split
    if arguments.quickdraw_pairs:
        sketches, images = arguments.quickdraw_pairs
        data = load_folders(sketches=sketches, images=images, classes="shared")
        yield "quickdraw", "QuickDraw sketches, Caltech-101 photographs", data, make_split(data, "open")
