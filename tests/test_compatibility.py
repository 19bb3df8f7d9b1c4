"""What earlier versions saved still opens, and what later ones save is refused with the way out.

Before a release that raises a format version, the files of the version before go into ``fixtures``, made by the code
of that version and never touched again:

- ``checkpoint-vN.zip``: what ``save_pretrained`` and ``write_probes`` write for a model of two ``test_efficientnet``.
  Each weight is one of three values, so that the archive stays below 100 kB.
- ``gallery-vN``: what ``SketchRetriever.save`` writes for three probe pictures in a folder and one without a file,
  with that model.

Index files have their fixtures in ``test_index_*.py``.
"""

import json
import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dsh_hf import DSHModel, SketchRetriever, configuration
from dsh_hf.checkpoint import CheckpointError, read_config
from dsh_hf.gallery import files
from dsh_hf.model_card import check_probes, probe_pictures
from dsh_hf.retrieval import RetrieverError

FIXTURES = Path(__file__).parent / "fixtures"
CHECKPOINTS = sorted(FIXTURES.glob("checkpoint-v*.zip"))
GALLERIES = sorted(FIXTURES.glob("gallery-v*"))


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return unpack(FIXTURES / "checkpoint-v1.zip", tmp_path / "checkpoint")


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("archive", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_of_each_format_gives_the_codes_it_gave(archive, tmp_path):
    folder = unpack(archive, tmp_path)
    model = DSHModel.from_pretrained(folder)
    assert model.config.classes == ["ant", "bee"]
    check_probes(model, folder, tolerance_bits=1)  # the codes, and the fingerprint
    assert archive.stat().st_size < 100_000


def test_a_checkpoint_saved_again_is_the_same_model(checkpoint, tmp_path):
    model = DSHModel.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "again")
    assert DSHModel.from_pretrained(tmp_path / "again").fingerprint == model.fingerprint


@pytest.mark.parametrize("gallery", GALLERIES, ids=lambda path: path.name)
def test_a_gallery_of_each_format_opens_and_finds_what_it_found(gallery, tmp_path, checkpoint):
    folder = shutil.copytree(gallery, tmp_path / "gallery")
    model = DSHModel.from_pretrained(checkpoint)
    retriever = SketchRetriever.load(folder, model)
    assert len(retriever) == 4
    assert retriever.folder == Path("/photos")
    red = np.full((40, 40, 3), (200, 30, 30), np.uint8)
    first = retriever.search_code(model.encode_images(red), k=1)[0]
    assert (first.id, first.source, dict(first.metadata)) == ("red", None, {"label": "colour"})
    assert first.distance <= 1
    house = retriever.search_code(model.encode_images(probe_pictures()["house"]), k=1)[0]
    assert (house.id, house.source) == ("ant/house.png", "/photos/ant/house.png")
    assert dict(house.metadata) == {"label": "ant"} and house.distance <= 1
    retriever.save(folder)
    assert len(SketchRetriever.load(folder, model)) == 4


def test_every_format_before_todays_has_its_fixture():
    assert {path.stem for path in CHECKPOINTS} >= {f"checkpoint-v{n}" for n in range(1, configuration.FORMAT_VERSION)}
    assert {path.name for path in GALLERIES} >= {f"gallery-v{n}" for n in range(1, files.FORMAT_VERSION)}


# Later ones


def test_a_setting_that_is_not_known_yet_is_left_out_with_a_warning(checkpoint, caplog):
    edit(checkpoint / "config.json", sketch_pose=3, image_pose=4)
    with caplog.at_level(logging.WARNING, logger="dsh_hf"):
        model = DSHModel.from_pretrained(checkpoint)
    assert [record.message for record in caplog.records] == [
        f"{checkpoint / 'config.json'}: not known to this version of dsh_hf, and left out: image_pose, sketch_pose"
    ]
    check_probes(model, checkpoint, tolerance_bits=1)


def test_a_config_of_today_is_read_without_a_word(checkpoint, caplog):
    with caplog.at_level(logging.WARNING, logger="dsh_hf"):
        read_config(checkpoint / "config.json")
    assert caplog.records == []


def test_a_setting_that_did_not_exist_yet_takes_its_default(checkpoint):
    settings = json.loads((checkpoint / "config.json").read_text())
    del settings["channel_order"]
    (checkpoint / "config.json").write_text(json.dumps(settings))
    assert read_config(checkpoint / "config.json").channel_order == "rgb"


def test_a_checkpoint_of_a_later_format_is_refused(checkpoint):
    edit(checkpoint / "config.json", format_version=99, new_layout=True)
    with pytest.raises(CheckpointError, match=r"has format 99, newer .*: upgrade with `pip install -U dsh-hf`"):
        DSHModel.from_pretrained(checkpoint)


def test_a_gallery_of_a_later_format_is_refused(tmp_path, checkpoint):
    folder = shutil.copytree(FIXTURES / "gallery-v1", tmp_path / "gallery")
    edit(folder / "retriever.json", format_version=99)
    with pytest.raises(RetrieverError, match="saved by a newer dsh_hf: upgrade"):
        SketchRetriever.load(folder, DSHModel.from_pretrained(checkpoint))
