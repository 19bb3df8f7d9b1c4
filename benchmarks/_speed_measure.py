"""What the benchmark of speed measures with: interleaved runs, CPU seconds, peak memory, growth."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WORSE_THAN_LINEAR = 1.05  # an exponent above this; measuring errs by a few hundredths


class Taken(NamedTuple):
    """What something takes, median of its runs, in seconds: by the clock, and of all processor cores together."""

    seconds: float
    cpu: float


def interleaved(parts: Mapping[str, Callable[[], Any]], runs: int) -> dict[str, Taken]:
    """Run parts in turns, ``runs`` times each after one that is not counted; give the medians."""
    taken: dict[str, list[Taken]] = {name: [] for name in parts}
    for _ in range(runs + 1):
        for name, part in parts.items():
            began = time.perf_counter(), time.process_time()
            part()
            taken[name].append(Taken(time.perf_counter() - began[0], time.process_time() - began[1]))
    return {name: median_of(found[1:]) for name, found in taken.items()}


def median_of(found: Sequence[Taken]) -> Taken:
    """Give the medians of both times."""
    return Taken(*(statistics.median(values) for values in zip(*found, strict=True)))


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Fit ``time = a * size ** b`` by least squares of the logarithms; give b.

    Raises:
        ValueError: fewer than two sizes.
    """
    if len(set(sizes)) < 2:
        raise ValueError("an exponent needs at least two sizes")
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def spread(values: Sequence[float]) -> float:
    """Give how far the largest value is above the smallest: 0.1 is 10%."""
    return max(values) / min(values) - 1


def machine(device: str) -> dict[str, str]:
    """Name the machine and the versions that times depend on."""
    import torch

    about = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()}, Python {platform.python_version()}, PyTorch {torch.__version__}",
    }
    if device != "cpu":
        about["device"] = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return about


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def peak_memory() -> float:
    """Give the most memory that this process has held so far, in MB."""
    try:  # what getrusage tells begins with the memory of the parent process
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3
    except (OSError, StopIteration):
        unit = 1e6 if sys.platform == "darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def in_child(module: str, *arguments: str) -> dict[str, Any]:
    """Run ``python -m benchmarks.MODULE`` in a process of its own; give what it prints last, read as JSON.

    The time of now, in seconds since 1970, is its last argument.

    Raises:
        OSError: it failed.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, str(time.time())]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
