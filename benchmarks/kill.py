"""Training, indexing, encoding and saving, killed at random moments: what was done stays, and the end is the same."""

import argparse
import json
import math
import os
import random
import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import _kill_work as work
from dsh_hf import DSHModel, SketchRetriever
from dsh_hf.index import open_index
from dsh_hf.retrieval import RetrieverError
from dsh_hf.training import STATE_NAME


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each kind of work, and what was lost; give 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kill", description=__doc__)
    parser.add_argument("--times", type=int, default=20, metavar="N", help="kills of each kind")
    parser.add_argument("--only", choices=_KINDS, help="one kind alone")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # what is forked must not wait for threads that are not there
    dice, faults = random.Random(arguments.seed), []
    print(f"{'killed':<16} {'kills':>6} {'before any step':>16} {'the same in the end':>20}")
    for name, run in _KINDS.items():
        if arguments.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            kills, early, own = run(Path(folder), arguments.times, dice)
        print(f"{name:<16} {kills:>6} {early:>16} {kills - len(own):>20}", flush=True)
        faults += [f"{name}: {fault}" for fault in own]
    for fault in faults:
        print(f"LOST {fault}")
    return 1 if faults else 0


Result = tuple[int, int, list[str]]  # kills, those before the first step, and what went wrong


def _run_to_the_end(job: work.Work, times: int, dice: random.Random, place: Path, check: "_Check") -> Result:
    """Kill a job at random moments of its run, let it run again to the end, and compare with a run in peace."""
    began = time.monotonic()
    if not _in_child(job, place / "peace")[0]:
        raise RuntimeError("the run in peace failed")
    seconds = time.monotonic() - began
    wanted = check.result(place / "peace")
    kills, early, faults = 0, 0, []
    for _ in range(5 * times):
        folder = place / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        ended, steps = _in_child(job, folder, dice.uniform(0, seconds))
        if ended:
            seconds *= 0.8  # it was faster this time
            continue
        kills, early = kills + 1, early + (steps == 0)
        began = time.monotonic()
        try:
            kept = check.kept(folder, steps)
            if not _in_child(job, folder)[0]:
                faults.append(f"does not go on after {steps} steps")
            elif check.result(folder) != wanted:
                faults.append(f"ends in something else after {steps} steps")
            elif kept and not check.is_kept(folder, kept):
                faults.append(f"did finished steps again after {steps} steps")
        except Exception as error:
            faults.append(f"{error!r} after {steps} steps")
        seconds = min(seconds, time.monotonic() - began)  # what others compute meanwhile makes some runs long
        if kills == times:
            break
    return kills, early, faults


def _in_child(job: work.Work, folder: Path, seconds: float | None = None) -> tuple[bool, int]:
    """Run a job in a process of its own, killed after some seconds; tell whether it ended, and its whole steps."""
    reads, writes = os.pipe()

    def step() -> None:
        os.write(writes, b".")

    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            job(folder, step)
            status = 0
        finally:
            os._exit(status)
    os.close(writes)
    end = time.monotonic() + (math.inf if seconds is None else seconds)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    with open(reads, "rb") as told:
        steps = len(told.read())
    return ended[1] == 0, steps


class _Check(ABC):
    """How two runs are compared, and what a killed one has kept."""

    @abstractmethod
    def result(self, folder: Path) -> Any:
        """Give what has to be equal."""

    def kept(self, folder: Path, steps: int) -> Any:
        return None

    def is_kept(self, folder: Path, kept: Any) -> bool:
        return True


class _TrainingCheck(_Check):
    def result(self, folder: Path) -> Any:
        files = ("checkpoint/model.safetensors", "checkpoint/config.json")
        return [(folder / name).read_bytes() for name in files]

    def kept(self, folder: Path, steps: int) -> Any:
        from safetensors import safe_open

        state = folder / STATE_NAME
        history = []
        if state.exists():
            with safe_open(state, framework="pt") as file:
                history = json.loads(file.metadata()["history"])
        # A step is told when its round begins: all rounds before it are done, the last of them being saved.
        if len(history) < steps - 1:
            raise RuntimeError(f"{len(history)} rounds are kept of {steps - 1}")
        return history

    def is_kept(self, folder: Path, kept: Any) -> bool:
        lines = (folder / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines[: len(kept)]] == kept


class _GalleryCheck(_Check):
    def __init__(self, checkpoint: Path) -> None:
        self.model = DSHModel.from_pretrained(checkpoint)

    def result(self, folder: Path) -> Any:
        retriever = SketchRetriever.load(folder, self.model)
        code = self.model.encode_images(Image.new("RGB", (32, 32), "white"))
        return [(hit.id, hit.distance, hit.metadata) for hit in retriever.search_code(code, 1000)], retriever.skipped

    def kept(self, folder: Path, steps: int) -> Any:
        try:
            found, _ = self.result(folder)
        except RetrieverError:
            if steps > 1:
                raise
            return []
        return found

    def is_kept(self, folder: Path, kept: Any) -> bool:
        leftovers = [file.name for file in folder.iterdir() if file.name.startswith(".")]
        return set(map(str, kept)) <= set(map(str, self.result(folder)[0])) and not leftovers


class _CodesCheck(_Check):
    def result(self, folder: Path) -> Any:
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    def kept(self, folder: Path, steps: int) -> Any:
        times = {file: file.stat().st_mtime_ns for file in folder.glob("part-*.parquet")}
        if len(times) < steps:
            raise RuntimeError(f"{len(times)} files are kept of {steps}")
        return times

    def is_kept(self, folder: Path, kept: Any) -> bool:
        return all(file.stat().st_mtime_ns == time for file, time in kept.items())


def _train(place: Path, times: int, dice: random.Random) -> Result:
    work.draw_pictures(place / "pictures")
    return _run_to_the_end(work.train(place / "pictures"), times, dice, place, _TrainingCheck())


def _index(place: Path, times: int, dice: random.Random) -> Result:
    work.draw_pictures(place / "pictures", each=40)
    job = work.index(place / "pictures")
    return _run_to_the_end(job, times, dice, place, _GalleryCheck(place / "checkpoint"))


def _encode(place: Path, times: int, dice: random.Random) -> Result:
    work.draw_pictures(place / "pictures", each=40)
    return _run_to_the_end(work.encode(place / "pictures"), times, dice, place, _CodesCheck())


def _save_over_and_over(
    things: Sequence[Any], save: Callable[[Any, Path], None], open_saved: Callable[[Path], Any], place: Path,
    times: int, dice: random.Random,
) -> Result:  # fmt: skip
    """Save two things in turn into one place, killed at a random moment; what is there must be one of them, whole."""
    path = place / "saved"

    def job(folder: Path, step: Callable[[], None]) -> None:
        while True:
            for thing in things:
                save(thing, folder)
                step()

    wanted = []
    began = time.monotonic()
    for thing in things:
        save(thing, path)
        wanted.append(open_saved(path))
    seconds = (time.monotonic() - began) / len(things)
    early, faults = 0, []
    for number in range(times):
        steps = _in_child(job, path, dice.uniform(0, 4 * seconds))[1]
        early += steps == 0
        try:
            if open_saved(path) not in wanted:
                faults.append(f"kill {number + 1} leaves a mixture")
            save(things[0], path)
            if open_saved(path) != wanted[0]:
                faults.append(f"after kill {number + 1} saving does not help")
        except Exception as error:
            faults.append(f"{error!r} after kill {number + 1}")
    return times, early, faults


def _save_models(place: Path, times: int, dice: random.Random) -> Result:
    return _save_over_and_over(
        work.models_to_save(),
        lambda model, folder: model.save_pretrained(folder),
        lambda folder: DSHModel.from_pretrained(folder).fingerprint,
        place,
        times,
        dice,
    )


def _save_indexes(place: Path, times: int, dice: random.Random) -> Result:
    def save(index: Any, path: Path) -> None:
        index._seen.clear()  # two indexes take turns in one file, which otherwise is refused
        index.save(path)

    def open_saved(path: Path) -> int:
        return len(open_index("exact", bits=16, path=path, fingerprint="f"))

    return _save_over_and_over(work.indexes_to_save(), save, open_saved, place, times, dice)


_KINDS = {
    "train": _train,
    "index": _index,
    "encode": _encode,
    "save_pretrained": _save_models,
    "index.save": _save_indexes,
}
