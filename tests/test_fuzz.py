"""Altered files are read or refused by an error that names them; what fuzzing once found stays mended."""

import random

import numpy as np
import pytest

from benchmarks._fuzz_targets import TARGETS, Target
from benchmarks.fuzz import Counts, _by_bytes, table, try_file

BY_NAME = {target.name: target for target in TARGETS}
DEEP = b"[" * 100_000
ENDLESS = b"9" * 400  # digits: larger than any float


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_altered_files_are_read_or_refused(tmp_path, target):
    counts, dice = Counts(), random.Random(0)

    def attempt(content):
        content = target.mend(content) if target.mend and dice.random() < 0.7 else content
        try_file(target, content, tmp_path / target.name, counts, tmp_path / "findings")
        return counts.read + counts.refused + len(counts.findings) < 60

    _by_bytes(target, target.seeds(), dice, attempt)
    assert counts.findings == {}
    assert counts.refused > 5


FOUND = [
    ("cat.ndjson", b'{"key_id": "1", "drawing": [[[1e999, 0], [0, 1]]]}'),
    ("cat.ndjson", b'{"key_id": "1", "drawing": [[[NaN, 0], [0, 1]]]}'),
    ("cat.ndjson", b'{"key_id": "1", "drawing": [[[%s, 0.5], [0, 1]]]}' % ENDLESS),
    ("cat.ndjson", DEEP),
    ("cat.ndjson", b'{"key_id": "1", "drawing": [[[], []]]}'),
    ("vectors.txt", b"3 " + b"9" * 5000 + b"\na 1\n"),
    ("config.json", b'{"bits": 64, "image_mean": [%s, 0, 0]}' % ENDLESS),
    ("config.json", DEEP),
    ("split.json", b'{"format": Infinity}'),
    ("split.json", DEEP),
    ("aliases.json", DEEP),
    ("gallery", DEEP),
]


@pytest.mark.parametrize(("name", "content"), FOUND, ids=lambda given: str(given)[:40])
def test_what_was_found_is_refused_clearly(tmp_path, name, content):
    counts = Counts()
    try_file(BY_NAME[name], content, tmp_path / name, counts, tmp_path)
    assert (counts.findings, counts.refused) == ({}, 1)


@pytest.mark.parametrize(
    ("read", "finding"),
    [
        (lambda path: 1 / 0, "ZeroDivisionError"),
        (lambda path: [].pop(), "IndexError"),
        (lambda path: int("x"), "unclear: ValueError"),
    ],
)
def test_a_reader_that_fails_otherwise_is_a_finding(tmp_path, read, finding):
    counts = Counts()
    try_file(Target("x.bin", list, read), b"content", tmp_path / "x.bin", counts, tmp_path / "findings")
    (what,) = counts.findings
    assert what.startswith(finding)
    (kept,) = (tmp_path / "findings").iterdir()
    assert kept.read_bytes() == b"content"
    assert what in table({"x.bin": counts})


def test_an_index_with_an_altered_header_passes_for_a_sound_one(tmp_path):
    """The fuzzing looks behind the checksum, not only at it."""
    target = BY_NAME["exact.index"]
    content = target.seeds()[0]
    altered = content.replace(b'\\"count\\": 39', b'\\"count\\": 38')
    assert altered != content
    path = tmp_path / "exact.index"
    path.write_bytes(target.mend(altered))
    with pytest.raises(ValueError, match="holds what no index has"):
        target.read(path)
    path.write_bytes(target.mend(content))
    assert target.read(path) is None
    assert np.frombuffer(target.mend(b"nonsense"), np.uint8).size == 8
