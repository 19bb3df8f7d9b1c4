"""A gallery from a folder: built, searched, synced, saved and reopened; damaged files skipped and reported."""

import os

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dsh_hf import DSHConfig, DSHModel, Hit, SketchRetriever
from dsh_hf.index import IndexMismatchError
from dsh_hf.processing import PictureError
from dsh_hf.retrieval import RetrieverError

TINY = {"image_backbone": "test_efficientnet", "sketch_backbone": "test_efficientnet"}


@pytest.fixture(scope="module")
def model():
    import torch

    torch.manual_seed(0)
    return DSHModel(DSHConfig(**TINY, image_size=48, sketch_size=48)).eval()


@pytest.fixture
def photos(tmp_path):
    """Five pictures in two folders, and two files that are none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name in ("cats/a.png", "cats/b.jpg", "dogs/c.png", "dogs/deep/d.png", "e.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    (folder / "cats/broken.jpg").write_bytes((folder / "cats/b.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def sketch():
    picture = Image.new("L", (100, 100), 255)
    ImageDraw.Draw(picture).ellipse((20, 30, 80, 70), outline=0, width=3)
    return picture


def test_folder_becomes_a_gallery(photos, model, sketch):
    retriever = SketchRetriever.from_folder(photos, model)
    assert len(retriever) == 5
    hits = retriever.search(sketch, k=3)
    assert len(hits) == 3
    assert all(isinstance(hit, Hit) for hit in hits)
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    by_id = {hit.id: hit for hit in retriever.search(sketch, k=100)}
    assert set(by_id) == {"cats/a.png", "cats/b.jpg", "dogs/c.png", "dogs/deep/d.png", "e.png"}
    assert by_id["cats/a.png"].metadata == {"label": "cats"}
    assert by_id["e.png"].metadata == {}
    assert by_id["dogs/c.png"].source == str(photos / "dogs/c.png")


def test_distance_is_between_the_two_codes(photos, model, sketch):
    hit = SketchRetriever.from_folder(photos, model).search(sketch, k=1)[0]
    query, item = model.encode_sketches(sketch), model.encode_images(hit.source)
    assert hit.distance == int(np.bitwise_count(query ^ item).sum())


def test_damaged_file_is_skipped_and_reported(photos, model):
    retriever = SketchRetriever.from_folder(photos, model)
    assert list(retriever.skipped) == ["cats/broken.jpg"]
    assert "damaged or truncated" in retriever.skipped["cats/broken.jpg"]


def test_saved_gallery_reopens_equal(photos, model, sketch, tmp_path):
    retriever = SketchRetriever.from_folder(photos, model)
    retriever.save(tmp_path / "gallery")
    opened = SketchRetriever.load(tmp_path / "gallery", model)
    assert opened.search(sketch, k=5) == retriever.search(sketch, k=5)
    assert opened.folder == photos
    assert opened.skipped == retriever.skipped


def test_reopening_encodes_nothing(photos, model, tmp_path, monkeypatch):
    SketchRetriever.from_folder(photos, model).save(tmp_path / "gallery")
    opened = SketchRetriever.load(tmp_path / "gallery", model)
    (photos / "cats/broken.jpg").unlink()
    monkeypatch.setattr(DSHModel, "_encode", lambda *_: pytest.fail("a picture was encoded again"))
    assert opened.sync() == {"added": 0, "removed": 0, "skipped": 0}


def test_sync_follows_the_folder(photos, model, sketch):
    retriever = SketchRetriever.from_folder(photos, model)
    (photos / "e.png").unlink()
    Image.new("RGB", (30, 30), "red").save(photos / "new.png")
    Image.new("RGB", (30, 30), "blue").save(photos / "cats/a.png")
    os.utime(photos / "cats/a.png", (1, 1))
    assert retriever.sync() == {"added": 2, "removed": 2, "skipped": 1}
    hits = {hit.id: hit.distance for hit in retriever.search(sketch, k=100)}
    assert "e.png" not in hits
    query, changed = model.encode_sketches(sketch), model.encode_images(photos / "cats/a.png")
    assert hits["cats/a.png"] == int(np.bitwise_count(query ^ changed).sum())


def test_interrupted_save_leaves_the_old_gallery(photos, model, sketch, tmp_path, monkeypatch):
    retriever = SketchRetriever.from_folder(photos, model)
    retriever.save(tmp_path / "gallery")
    before = retriever.search(sketch, k=5)
    retriever.add([sketch], ["drawn"])

    def fail(path, content):
        if path.name == "retriever.json":
            raise OSError("disk full")
        original(path, content)

    import dsh_hf.retrieval

    original = dsh_hf.retrieval.write_atomically
    monkeypatch.setattr(dsh_hf.retrieval, "write_atomically", fail)
    with pytest.raises(OSError, match="disk full"):
        retriever.save(tmp_path / "gallery")
    assert SketchRetriever.load(tmp_path / "gallery", model).search(sketch, k=5) == before


def test_pictures_are_added_with_metadata(model, sketch):
    retriever = SketchRetriever(model)
    retriever.add([Image.new("RGB", (20, 20), c) for c in ("red", "green")], ["r", "g"], [{"c": "red"}, {"c": "green"}])
    hits = {hit.id: hit for hit in retriever.search(sketch, k=5)}
    assert hits["r"].metadata == {"c": "red"}
    assert hits["g"].source is None


def test_another_model_is_refused(photos, model, tmp_path):
    SketchRetriever.from_folder(photos, model).save(tmp_path / "gallery")
    other = DSHModel(DSHConfig(**TINY, image_size=48, sketch_size=48)).eval()
    with pytest.raises(IndexMismatchError, match="model"):
        SketchRetriever.load(tmp_path / "gallery", other)
    longer = DSHModel(DSHConfig(**TINY, image_size=48, sketch_size=48, bits=128)).eval()
    with pytest.raises(IndexMismatchError, match="64"):
        SketchRetriever.load(tmp_path / "gallery", longer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "has no pictures"),
        (lambda path: (path.mkdir(), (path / "x.png").write_text("no")), "no picture that can be used"),
    ],
)
def test_folder_without_pictures_is_refused(make, message, tmp_path, model):
    make(tmp_path / "folder")
    with pytest.raises(RetrieverError, match=message):
        SketchRetriever.from_folder(tmp_path / "folder", model)


def test_folder_without_gallery_is_refused(tmp_path, model):
    with pytest.raises(RetrieverError, match="holds no saved gallery"):
        SketchRetriever.load(tmp_path, model)


def test_damaged_manifest_is_refused(photos, model, tmp_path):
    SketchRetriever.from_folder(photos, model).save(tmp_path / "gallery")
    (tmp_path / "gallery/retriever.json").write_text("{")
    with pytest.raises(RetrieverError, match="damaged"):
        SketchRetriever.load(tmp_path / "gallery", model)


def test_empty_sketch_is_refused(photos, model):
    with pytest.raises(PictureError, match="empty"):
        SketchRetriever.from_folder(photos, model).search(Image.new("L", (50, 50), 255))
