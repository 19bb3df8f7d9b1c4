"""Altered files of every kind that is read, for as long as told: each is read or refused by a clear error."""

import argparse
import copy
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._fuzz_targets import TARGETS, Target

_HANG = 10  # seconds of computing for one file
_MEMORY = 1 << 30  # bytes that reading one file may take beyond what the process has
_SLICE = 20  # seconds at most for a target before it is the next one's turn
_TOKENS = [
    *(b"NaN", b"Infinity", b"-1", b"null", b"true", b"[]", b"{}", b'""', b"0", b"1e999", b"\\ud800", b"9" * 5000),
    *(b"[" * 3000, b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80" * 10, b"../../etc/passwd"),
]
_ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", "a", "\0", "../x", "\ud800", "9" * 400, [], {}, [[]], [0], [None], [float("nan")] * 3, [10**400] * 3),
    *({"a": 1}, [1, [2, [3]]], [True], ["a", "a"]),
]


@dataclass
class Counts:
    """How the files of one target ended."""

    read: int = 0
    refused: int = 0
    findings: dict[str, str] = field(default_factory=dict)  # what was found, once each; and its file


class _HangError(BaseException):
    """Reading takes too long."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, a row for each reader, and what was found; give 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1, help="for how long, in all")
    parser.add_argument("--engine", choices=[*_ENGINES, "atheris"], help="how files are altered; by default in turn")
    parser.add_argument("--only", choices=[target.name for target in TARGETS], help="one reader alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="fuzz-findings", metavar="DIR", help="where files that were findings are kept")
    arguments = parser.parse_args(argv)
    logging.disable()  # of each name that a config has and no version knows
    targets = [target for target in TARGETS if arguments.only in (None, target.name)]
    if arguments.engine == "atheris":
        from benchmarks._fuzz_atheris import run_atheris

        return run_atheris(targets, arguments.minutes, Path(arguments.out))
    engines = [arguments.engine] if arguments.engine else list(_ENGINES)
    if "hypothesis" in engines:
        import hypothesis  # noqa: F401 (here once, not by each child)
    counts = {target.name: Counts() for target in targets}
    for target in targets:  # what reading loads is loaded once, not by each child
        with tempfile.TemporaryDirectory() as folder:
            for content in target.seeds():
                (Path(folder) / target.name).write_bytes(content)
                target.read(Path(folder) / target.name)
    end, turn = time.monotonic() + 60 * arguments.minutes, 0
    share = 60 * arguments.minutes / (len(targets) * len(engines))
    while time.monotonic() < end:
        for target in targets:
            for engine in engines:
                seconds = min(_SLICE, share, end - time.monotonic())
                if seconds > 0:
                    in_child(target, engine, seconds, arguments.seed + turn, Path(arguments.out), counts[target.name])
                    turn += 1
    print(table(counts))
    return 1 if any(count.findings for count in counts.values()) else 0


def table(counts: dict[str, Counts]) -> str:
    """Give the counts as a table, and the findings below it."""
    lines = [f"{'reader':<26} {'files':>9} {'read':>9} {'refused':>9} {'findings':>9}"]
    for name, count in counts.items():
        tried = count.read + count.refused + len(count.findings)
        lines.append(f"{name:<26} {tried:>9,} {count.read:>9,} {count.refused:>9,} {len(count.findings):>9,}")
    total = sum(count.read + count.refused for count in counts.values())
    lines.append(f"{total:,} files")
    lines += [
        f"FOUND {name}: {what} ({kept})" for name, count in counts.items() for what, kept in count.findings.items()
    ]
    return "\n".join(lines)


def in_child(target: Target, engine: str, seconds: float, seed: int, out: Path, counts: Counts) -> None:
    """Fuzz one target in a process of its own, which may crash or fill its memory; add up what comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        path, report = Path(folder) / target.name, Path(folder) / "report.json"
        arguments = (target, engine, seconds, seed, path, report, out)
        child = multiprocessing.get_context("fork").Process(target=_work, args=arguments)
        child.start()
        child.join(seconds + 300)
        if child.is_alive():
            child.kill()
            child.join()
            counts.findings["does not come back"] = keep(path.read_bytes(), target, out)
        elif child.exitcode or not report.exists():
            counts.findings[f"the process ended with {child.exitcode}"] = keep(path.read_bytes(), target, out)
        else:
            own = json.loads(report.read_text())
            counts.read += own["read"]
            counts.refused += own["refused"]
            for what, kept in own["findings"].items():
                counts.findings.setdefault(what, kept)


def _work(target: Target, engine: str, seconds: float, seed: int, path: Path, report: Path, out: Path) -> None:
    counts, dice = Counts(), random.Random(seed)
    seeds = target.seeds()
    signal.signal(signal.SIGVTALRM, _hang)
    own = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (own + _MEMORY, resource.RLIM_INFINITY))
    end = time.monotonic() + seconds

    def attempt(content: bytes) -> bool:
        if target.mend and dice.random() < 0.7:
            content = target.mend(content)
        try_file(target, content, path, counts, out)
        return time.monotonic() < end

    _ENGINES[engine](target, seeds, dice, attempt)
    report.write_text(json.dumps(asdict(counts)))


def try_file(target: Target, content: bytes, path: Path, counts: Counts, out: Path) -> None:
    """Read one altered file; count how that ended."""
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_VIRTUAL, _HANG)
    try:
        target.read(path)
        counts.read += 1
        return
    except (ValueError, OSError) as error:
        text = str(error)
        if path.name in text and "\n" not in text:
            counts.refused += 1
            return
        what = f"unclear: {_told(error)}"
    except (Exception, _HangError) as error:
        what = _told(error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if what not in counts.findings:
        counts.findings[what] = keep(content, target, out)


def _told(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "dsh_hf" in frame.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "nowhere"
    return f"{type(error).__name__} in {place}"


def _hang(*_: Any) -> None:
    raise _HangError(f"more than {_HANG} s")


def keep(content: bytes, target: Target, out: Path) -> str:
    """Keep the file of a finding; say where."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{time.time_ns()}-{target.name}"
    file.write_bytes(content)
    return str(file)


def _by_bytes(target: Target, seeds: list[bytes], dice: random.Random, attempt: Callable[[bytes], bool]) -> None:
    """Alter sound files byte by byte, and the values of JSON."""
    going = True
    while going:
        content = dice.choice(seeds)
        if target.json and dice.random() < 0.6:
            going = attempt(_altered_json(content, dice))
        else:
            for _ in range(dice.choice([1, 1, 2, 5, 20])):
                content = _altered(content, seeds, dice)
            going = attempt(content)


def _altered(content: bytes, seeds: list[bytes], dice: random.Random) -> bytes:
    if not content:
        return dice.choice(_TOKENS)
    # Half of the changes are where files tell what they are.
    at = dice.randrange(dice.choice([min(len(content), 400), len(content)]))
    size = dice.choice([1, 1, 2, 4, 8, 50])
    changes = [
        content[:at] + bytes([dice.randrange(256)]) + content[at + 1 :],
        content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :],
        content[:at] + dice.randbytes(size) + content[at + size :],
        content[:at] + dice.randbytes(size) + content[at:],
        content[:at] + content[at + size :],
        content[:at],
        content[:at] + content[at : at + size] * dice.choice([2, 100]) + content[at:],
        content[:at] + dice.choice(_TOKENS) + content[at + dice.choice([0, 1, 4, 8]) :],
        content[:at] + dice.choice(seeds)[at:],
    ]
    return dice.choice(changes)


def _altered_json(content: bytes, dice: random.Random) -> bytes:
    value = json.loads(content.splitlines()[0])
    for _ in range(dice.choice([1, 1, 2])):
        places = list(_places(value))
        if not places:
            break
        holder, key = dice.choice(places)
        change = dice.random()
        if change < 0.15:
            del holder[key]
        elif change < 0.3 and isinstance(holder, dict):
            holder[dice.choice(["", "a", "format", "\ud800"])] = copy.deepcopy(dice.choice(_ODD_VALUES))
        else:
            holder[key] = copy.deepcopy(dice.choice(_ODD_VALUES))
    text = json.dumps(value)
    return (text if dice.random() < 0.95 else f'{text[:-1]}, "deep": {"[" * 20_000}{"]" * 20_000}}}').encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _by_hypothesis(target: Target, seeds: list[bytes], dice: random.Random, attempt: Callable[[bytes], bool]) -> None:
    """Let hypothesis edit sound files, and make up the values of JSON."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=16)), max_size=6)

    def edited(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
        for place, gone, new in changes:
            at = int(place * len(content))
            content = content[:at] + new + content[at + gone :]
        return content

    files = st.builds(edited, st.sampled_from(seeds), edits)
    if target.json:
        plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
        values = st.recursive(plain, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=3))
        known = sorted({key for content in seeds for key in json.loads(content.splitlines()[0])})
        changes = st.dictionaries(st.sampled_from(known), values, max_size=3)
        merged = st.builds(
            lambda base, new: {**json.loads(base.splitlines()[0]), **new}, st.sampled_from(seeds), changes
        )
        files |= merged.map(lambda value: json.dumps(value).encode())
    going = True

    @given(files)
    @settings(
        max_examples=500, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )
    def look(content: bytes) -> None:
        nonlocal going
        going = going and attempt(content)

    while going:
        seed(dice.randrange(2**32))(look)()


_ENGINES = {"bytes": _by_bytes, "hypothesis": _by_hypothesis}
