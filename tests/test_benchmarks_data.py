"""The data benchmark on small shares of the sets."""

import re

import datasets
import numpy as np
import pytest
from folder_trees import noise, sketchy_tree

from benchmarks import data
from dsh_hf.processing import prepare_image


@pytest.mark.parametrize("name", ["sketchy", "tu-berlin"])
def test_data_sets_of_a_share_of_the_size_are_scanned_split_and_opened_again(name, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    classes, *counts = (round(0.016 * number) for number in data.SIZES[name])
    assert data.make_tree(tmp_path / "set", name, 0.016) == sum(counts)
    files = [path for path in (tmp_path / "set").rglob("*.*") if path.is_file()]
    assert {path.suffix for path in files} == {".png", ".jpg"}
    assert all(2048 < path.stat().st_size < 4096 for path in files)  # read at both ends; a disk's block each
    first, again = (data.measure(name, str(tmp_path / "set")) for _ in range(2))
    assert first["fingerprints"] == again["fingerprints"]
    assert len(set(first["fingerprints"])) == 2
    assert 0 < first["scan"] < first["peak"]  # seconds, megabytes
    folders = {"sketchy": "EXTEND_image_sketchy_ready", "tu-berlin": "ImageResized_ready"}
    assert len(list((tmp_path / "set" / folders[name]).iterdir())) == classes


def test_decoding_is_compared_with_pil_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data.print_decoding(str(sketchy_tree(tmp_path / "set")), runs=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 photographs to 192 px")
    assert re.fullmatch(r"PIL alone [\d,]+ a second, loader [\d,]+ a second: \d+\.\d\d x", lines[1])
    assert re.fullmatch(r"CPU of a picture: \d+\.\d\d ms, \d+\.\d\d ms: \d+\.\d\d x", lines[2])


def test_pil_alone_does_the_loaders_work(tmp_path):
    """As large pictures are shrunk while they are decoded, both must do it or the comparison is no such."""
    path = tmp_path / "large.jpg"
    path.write_bytes(noise(side=1600))
    np.testing.assert_array_equal(data._decode(str(path)), prepare_image(path, 192))
