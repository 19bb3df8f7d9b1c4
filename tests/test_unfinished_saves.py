"""A save that was killed while its files were put in place is finished by whoever comes next."""

import shutil
import threading

import pytest
from tiny_checkpoint import tiny_model

from dsh_hf import DSHModel
from dsh_hf.checkpoint import CheckpointError, finish_saving


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two checkpoints of the same shapes, and the fingerprints of their models."""
    folder = tmp_path_factory.mktemp("saved")
    models = [tiny_model(seed=1), tiny_model(seed=2)]
    models[1].config.classes = ["bee", "ant"]
    for name, model in zip(("old", "new"), models, strict=True):
        model.save_pretrained(folder / name)
    return folder, [model.fingerprint for model in models]


def killed(saved, tmp_path, moved):
    """The old checkpoint, and a save of the new one that was killed when so many files had been moved."""
    folder, _ = saved
    shutil.copytree(folder / "old", tmp_path / "checkpoint")
    shutil.copytree(folder / "new", tmp_path / "checkpoint" / ".saved")
    for file in sorted((tmp_path / "checkpoint" / ".saved").iterdir())[:moved]:
        file.replace(tmp_path / "checkpoint" / file.name)
    return tmp_path / "checkpoint"


def names(folder):
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_opening_finishes_it(saved, tmp_path, moved):
    folder = killed(saved, tmp_path, moved)
    assert DSHModel.from_pretrained(folder).fingerprint == saved[1][1]
    assert names(folder) == {"README.md", "config.json", "model.safetensors"}


def test_saving_finishes_it_first(saved, tmp_path):
    folder = killed(saved, tmp_path, 1)
    model = DSHModel.from_pretrained(saved[0] / "old")
    model.save_pretrained(folder)
    assert DSHModel.from_pretrained(folder).fingerprint == saved[1][0]
    assert names(folder) == {"README.md", "config.json", "model.safetensors"}


def test_a_save_that_is_killed_before_leaves_the_old_checkpoint(saved, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    shutil.copytree(saved[0] / "old", folder)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dsh_hf.modeling.put_in_place", stop)
    with pytest.raises(KeyboardInterrupt):
        DSHModel.from_pretrained(saved[0] / "new").save_pretrained(folder)
    assert DSHModel.from_pretrained(folder).fingerprint == saved[1][0]


def test_two_may_finish_it_at_once(saved, tmp_path):
    folder = killed(saved, tmp_path, 0)
    threads = [threading.Thread(target=finish_saving, args=[folder]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert DSHModel.from_pretrained(folder).fingerprint == saved[1][1]


def test_where_it_cannot_be_finished_no_mixture_is_opened(saved, tmp_path, monkeypatch):
    folder = killed(saved, tmp_path, 1)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(CheckpointError, match=r"was being saved when the process was stopped.*open it once where"):
        DSHModel.from_pretrained(folder)
