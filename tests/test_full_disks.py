"""Where nothing can be written, one line says so, and what was there before is whole."""

import os
import resource
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_checkpoint import tiny_model

from dsh_hf import DSHModel
from dsh_hf.cli import main
from dsh_hf.data.splits import Split
from dsh_hf.data.words import load_class_vectors, save_class_vectors
from dsh_hf.gallery.items import Item
from dsh_hf.gallery.store import Gallery
from dsh_hf.index import open_index
from dsh_hf.training_errors import TrainingError
from dsh_hf.training_state import TrainingState

BITS = 64
CODES = np.random.default_rng(0).integers(0, 256, (3000, BITS // 8), dtype=np.uint8)


class IndexFile:
    def save(self, place, count):
        index = open_index("exact", bits=BITS, fingerprint="f")
        index.add(CODES[: 2000 + count])
        index.save(place / "codes.index")

    def saved(self, place):
        return len(open_index("exact", bits=BITS, path=place / "codes.index", fingerprint="f")) - 2000


class SavedGallery:
    def save(self, place, count):
        gallery = Gallery("exact", BITS, "f", keep_outputs=False)
        gallery.add(CODES[: 2000 + count], {str(number): Item() for number in range(2000 + count)})
        gallery.save(place, {"folder": None, "skipped": {}})

    def saved(self, place):
        return len(Gallery.open(place, BITS, "f", None)[0].items) - 2000


class Checkpoint:
    def save(self, place, count):
        tiny_model(seed=count).save_pretrained(place)

    def saved(self, place):
        fingerprint = DSHModel.from_pretrained(place).fingerprint
        return next(seed for seed in (1, 2) if tiny_model(seed).fingerprint == fingerprint)


class State:
    def _state(self, count):
        model, classifier = tiny_model(seed=count), torch.nn.Linear(2, 2)
        optimizer = torch.optim.AdamW([*model.parameters(), *classifier.parameters()])
        return TrainingState(
            model, classifier, optimizer, averaged={}, lengths=[], history=[{"round": n} for n in range(count)]
        )

    def save(self, place, count):
        self._state(count).save(place / "state.safetensors", {})

    def saved(self, place):
        state = self._state(0)
        state.load(place / "state.safetensors", {})
        return len(state.history)


class SplitFile:
    def save(self, place, count):
        Split("open", count, query_sketches=tuple(f"{count}/{n}" for n in range(4000))).save(place / "split.json")

    def saved(self, place):
        return Split.load(place / "split.json").seed


class WordVectors:
    def save(self, place, count):
        save_class_vectors(place / "words.safetensors", ["a"], np.full((1, 9000), count), "by hand")

    def saved(self, place):
        return int(load_class_vectors(place / "words.safetensors").vectors[0, 0])


KINDS = [IndexFile, SavedGallery, Checkpoint, State, SplitFile, WordVectors]


@contextmanager
def full_disk(place):
    """No file may grow beyond 8 kB."""
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, no_limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)


@contextmanager
def closed_folder(place):
    """Nobody may write into the folder; the superuser, who always may, is somebody else meanwhile."""
    place.chmod(0o555)
    superuser = os.geteuid() == 0
    if superuser:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("the superuser may write anywhere, and cannot be somebody else here")
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)
        place.chmod(0o755)


@pytest.fixture
def place():
    """A folder that everybody can reach, as those of ``tmp_path`` cannot be."""
    folder = Path(tempfile.mkdtemp(prefix="dsh-hf-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("trouble", "reason"), [(full_disk, "File too large"), (closed_folder, "Permission denied")])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_before_is_whole(place, kind, trouble, reason):
    thing = kind()
    thing.save(place, 1)
    names = sorted(place.iterdir())
    with pytest.raises((OSError, TrainingError)) as told, trouble(place):
        thing.save(place, 2)
    assert reason in str(told.value)
    assert str(place) in str(told.value)
    assert "\n" not in str(told.value)
    assert thing.saved(place) == 1
    assert sorted(place.iterdir()) == names  # and no half file is left
    thing.save(place, 2)
    assert thing.saved(place) == 2


def test_a_full_disk_is_told_in_one_line_by_the_commands(place, capsys):
    Checkpoint().save(place / "checkpoint", 1)
    (place / "photos").mkdir()
    from PIL import Image

    for number in range(300):
        Image.new("L", (1, 1)).save(place / "photos" / f"{number:0200}.png")
    with full_disk(place):
        status = main(["index", f"{place}/photos", "--out", f"{place}/gallery", "--checkpoint", f"{place}/checkpoint"])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith("dsh-hf index: ")
    assert f"{place}/gallery" in error
    assert "could not be written (File too large); what was there before is kept" in error


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_commands_tell_that_memory_ran_out(place, capsys, monkeypatch, error):
    def exhausted(*_, **__):
        raise error

    monkeypatch.setattr("dsh_hf.DSHModel.from_pretrained", exhausted)
    assert main(["search", "cat.png", "--index", str(place)]) == 2
    assert capsys.readouterr().err.startswith("dsh-hf search: out of memory: close other programs")
