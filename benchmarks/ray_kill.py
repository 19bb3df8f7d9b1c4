"""A Ray cluster of two nodes encodes pictures while a node and a worker are killed; compared with one process."""

import argparse
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dsh_hf import DSHConfig, DSHModel
from dsh_hf.bulk.files import read_codes
from dsh_hf.bulk.running import encode_source

_AT_WORK = "ray::MapWorker(MapBatches(Encoder)).submit"  # as Ray calls a process that encodes


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was killed when, and whether the codes are complete, without doubles, and equal; 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ray_kill", description=__doc__)
    parser.add_argument("--pictures", type=int, default=600, help="pictures to encode, drawn at random")
    parser.add_argument("--part-rows", type=int, default=20, help="pictures of a part")
    arguments = parser.parse_args(argv)
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError as error:
        raise ImportError('this benchmark needs Ray: pip install "dsh-hf[ray]"') from error

    # The nodes are this machine's, and gone in the end.
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    model = _small_model()
    with tempfile.TemporaryDirectory() as name:
        pictures, alone, together = (Path(name, part) for part in ("pictures", "alone", "together"))
        _draw(pictures, arguments.pictures)
        began = time.perf_counter()
        encode_source(model, str(pictures), alone, part_rows=arguments.part_rows)
        print(f"one process: {arguments.pictures} pictures in {time.perf_counter() - began:.0f} s")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        try:
            second = cluster.add_node(num_cpus=2)
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            killer = threading.Thread(target=_kill, args=(together, cluster, second), daemon=True)
            killer.start()
            began = time.perf_counter()
            encode_source(model, str(pictures), together, part_rows=arguments.part_rows, ray=cluster.address)
            print(f"two nodes, of which one was killed: {time.perf_counter() - began:.0f} s")
            survived = killer.is_alive()
        finally:
            ray.shutdown()
            cluster.shutdown()
        if survived:
            print("it was done before all could be killed: give more --pictures")
            return 1
        return _compare(model, arguments.pictures, alone, together)


def _small_model() -> DSHModel:
    torch.manual_seed(0)
    tiny = "test_efficientnet"
    config = DSHConfig(bits=64, image_backbone=tiny, sketch_backbone=tiny, image_size=128, sketch_size=64)
    return DSHModel(config).eval()


def _draw(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((256, 256)).save(folder / f"{number:05}.jpg")


def _kill(codes: Path, cluster: Any, second: Any) -> None:
    """Kill the second node while it encodes, and some parts later a process of the first one while it does."""
    there = _wait(codes, 2, second)
    cluster.remove_node(second, allow_graceful=False)
    print(f"killed after {there} parts: the second node", flush=True)
    there = _wait(codes, there + 4, cluster.head_node)
    while not (encoding := _encoding(cluster.head_node)):
        time.sleep(0.01)
    os.kill(encoding[0], signal.SIGKILL)
    print(f"killed after {there} parts: a worker of the first node", flush=True)


def _wait(codes: Path, least: int, node: Any) -> int:
    """Wait for so many parts, and for a node that encodes; give how many parts there are."""
    while (there := len(list(codes.glob("part-*.parquet")))) < least or not _encoding(node):
        time.sleep(0.01)
    return there


def _encoding(node: Any) -> list[int]:
    """Give the processes that encode, of those that a node has started."""
    from ray._private.ray_constants import PROCESS_TYPE_RAYLET

    parent = node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            started_by = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if started_by == parent and (place / "cmdline").read_text().startswith(_AT_WORK):
                found.append(int(place.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def _compare(model: DSHModel, count: int, alone: Path, together: Path) -> int:
    found = []
    for folder in (alone, together):
        parts = list(read_codes(folder, bits=model.config.bits, fingerprint=model.fingerprint))
        found.append(([key for part in parts for key in part.ids], np.concatenate([part.codes for part in parts])))
    (ids, codes), (other_ids, other_codes) = found
    facts = {
        "complete": len(set(other_ids)) == count,
        "without doubles": len(other_ids) == len(set(other_ids)),
        "equal": ids == other_ids and np.array_equal(codes, other_codes),
    }
    print(", ".join(f"{name}: {'yes' if holds else 'NO'}" for name, holds in facts.items()))
    return 0 if all(facts.values()) else 1
