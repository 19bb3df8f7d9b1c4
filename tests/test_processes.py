"""Several processes train one model: the same as one process would, where no layer draws or sees only its part."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import toy_config, toy_data

from dsh_hf.augmentation import Draws, distort_images, distort_lines
from dsh_hf.processes import Processes, _bounds
from dsh_hf.training import Trainer, TrainingError

SCRIPT = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[2])
import test_processes
test_processes.train_together(pathlib.Path(sys.argv[1]))
"""


def plain_trainer(folder: Path, out: str) -> Trainer:
    """Networks without BatchNorm and dropout: there a batch may be shared without a trace."""
    config = toy_config(rounds=2, batch_size=10)
    plain = {"image_backbone": "test_convnext", "sketch_backbone": "test_convnext"}
    config.model = replace(
        config.model, **plain, bits=16, lengths=(8, 16), sketch_dropout=[0.0], fusion_dropout=[0.0, 0.0]
    )
    return Trainer(config, toy_data(folder / "data"), folder / out, word_vectors=np.eye(3))


def train_together(folder: Path) -> None:
    """What each of the processes does."""
    trainer = plain_trainer(folder, "together")
    model = trainer.train()
    number = os.environ["RANK"]
    assert trainer.processes.is_main == (number == "0")
    (folder / f"{number}.json").write_text(json.dumps([trainer.processes.count, model.fingerprint]))


def test_two_processes_train_what_one_trains(tmp_path):
    toy_data(tmp_path / "data")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [sys.executable, *launch, sys.executable, "-c", SCRIPT, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1)]
    assert told[0] == told[1]
    assert told[0][0] == 2

    alone = plain_trainer(tmp_path, "alone")
    alone.train()
    for line, record in zip((tmp_path / "together/log.jsonl").read_text().splitlines(), alone.history, strict=True):
        shared = json.loads(line)
        for name in ("J", "sketch_loss", "image_loss", "validation_map"):
            assert shared[name] == pytest.approx(record[name], rel=1e-3), name
    first, second = (load_file(tmp_path / out / "state.safetensors") for out in ("together", "alone"))
    for name, tensor in first.items():
        assert torch.allclose(tensor.float(), second[name].float(), rtol=1e-3, atol=1e-4), name


# Parts of a batch


@pytest.mark.parametrize(("rows", "count"), [(8, 1), (8, 2), (9, 2), (10, 4), (2, 3)])
def test_parts_cover_a_batch_once_and_evenly(rows, count):
    bounds = _bounds(rows, count)
    assert [row for start, end in bounds for row in range(start, end)] == list(range(rows))
    sizes = [end - start for start, end in bounds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("distort", [distort_lines, distort_images])
def test_a_part_of_a_batch_is_distorted_as_in_the_whole(distort):
    pictures = torch.rand(6, 1 if distort is distort_lines else 3, 32, 32)
    torch.manual_seed(0)
    whole = distort(pictures)
    torch.manual_seed(0)
    assert torch.equal(distort(pictures[2:5], Draws(6, slice(2, 5))), whole[2:5])


def test_a_process_alone_shares_nothing():
    alone = Processes(torch.device("cpu"))
    tensor = torch.arange(3.0)
    assert (alone.count, alone.is_main, alone.part(5)) == (1, True, slice(0, 5))
    assert alone.whole(tensor, 3) is tensor
    alone.add_up([tensor])
    assert tensor.tolist() == [0, 1, 2]
    assert alone.as_in_main("text") == "text"
    with alone.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_batch_too_small_for_the_processes_is_refused(tmp_path, monkeypatch):
    made = Processes.__init__

    def of_four(self, device):
        made(self, device)
        self.count = 4

    monkeypatch.setattr(Processes, "__init__", of_four)
    with pytest.raises(TrainingError, match="batch_size 10 is too small for 4 processes: give at least 16"):
        plain_trainer(tmp_path, "run")
