"""A gallery from a folder: built, searched, synced, saved and reopened; damaged files skipped and reported."""

import json
import logging
import os
import threading

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


def test_link_to_nothing_is_skipped_and_reported(photos, model, caplog):
    (photos / "cats/link.png").symlink_to(photos / "gone.png")
    with caplog.at_level(logging.WARNING):
        retriever = SketchRetriever.from_folder(photos, model)
    assert len(retriever) == 5
    assert "No such file" in retriever.skipped["cats/link.png"]
    assert str(photos / "cats/link.png") in caplog.text


def test_file_that_vanishes_while_the_folder_is_listed_is_skipped(photos, model, monkeypatch):
    retriever = SketchRetriever.from_folder(photos, model)
    walk = os.walk

    def slow_walk(*args, **options):
        for entry in walk(*args, **options):
            (photos / "e.png").unlink(missing_ok=True)
            yield entry

    monkeypatch.setattr(os, "walk", slow_walk)
    assert retriever.sync() == {"added": 0, "removed": 1, "skipped": 2}
    assert "e.png" in retriever.skipped


def test_folder_that_cannot_be_read_is_reported(photos, model, monkeypatch):
    scan = os.scandir

    def closed(path):
        if str(path).endswith("dogs"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    retriever = SketchRetriever.from_folder(photos, model)
    assert len(retriever) == 3
    assert retriever.skipped["dogs"] == f"{photos / 'dogs'}: Permission denied"


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


def test_sync_that_would_leave_nothing_changes_nothing(photos, model, sketch):
    retriever = SketchRetriever.from_folder(photos, model)
    before = retriever.search(sketch)
    for path in photos.rglob("*.*"):
        path.write_bytes(b"damaged")
    with pytest.raises(RetrieverError, match="no picture that can be used"):
        retriever.sync()
    assert retriever.search(sketch) == before


def test_sync_looks_at_each_file_a_few_times_only(tmp_path, model, monkeypatch):
    class Key(str):
        looks = 0

        def __hash__(self):
            Key.looks += 1
            return super().__hash__()

    count = 80
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    retriever = SketchRetriever.from_folder(tmp_path, model)
    retriever._items = {Key(key): item | {"stamp": "another"} for key, item in retriever._items.items()}
    Key.looks = 0
    assert retriever.sync()["added"] == count
    assert Key.looks < 10 * count


def test_search_while_a_sync_removes_what_it_finds(photos, model, sketch, monkeypatch):
    retriever = SketchRetriever.from_folder(photos, model)
    (photos / "e.png").unlink()
    search, synced = retriever.index.search, threading.Event()
    syncing = threading.Thread(target=lambda: (retriever.sync(), synced.set()))

    def slow_search(*args):
        found = search(*args)
        syncing.start()
        synced.wait(1)  # in vain: the sync has to wait for the search
        return found

    monkeypatch.setattr(retriever.index, "search", slow_search)
    assert len(retriever.search(sketch, k=10)) == 5
    syncing.join()
    monkeypatch.undo()
    assert len(retriever.search(sketch, k=10)) == 4


def test_file_name_that_is_no_utf8_is_an_id_like_others(photos, model, sketch, tmp_path):
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"bad \xff.jpg", "grün.png".encode())]
    try:
        for name in names[:2]:
            (photos / name).write_bytes((photos / "e.png").read_bytes()[: 300 if name.endswith("jpg") else None])
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    (photos / names[2]).write_bytes((photos / "e.png").read_bytes())
    retriever = SketchRetriever.from_folder(photos, model)
    retriever.save(tmp_path / "gallery")
    opened = SketchRetriever.load(tmp_path / "gallery", model)
    assert opened.search(sketch, k=10) == retriever.search(sketch, k=10)
    assert {names[0], names[2]} < {hit.id for hit in opened.search(sketch, k=10)}
    assert names[1] in opened.skipped
    assert opened.sync() == {"added": 0, "removed": 0, "skipped": 2}


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
    assert len(list((tmp_path / "gallery").iterdir())) == 3  # of the save that failed nothing stays behind


def test_second_save_replaces_the_files_of_the_first(photos, model, tmp_path):
    gallery = tmp_path / "gallery"
    retriever = SketchRetriever.from_folder(photos, model)
    retriever.save(gallery)
    first = {file.name for file in gallery.iterdir()}
    (gallery / "index-of-mine.txt").write_text("another's file")
    retriever.save(gallery)
    second = {file.name for file in gallery.iterdir()}
    assert first & second == {"retriever.json"}
    assert "index-of-mine.txt" in second
    assert len(second) == 4


@pytest.mark.parametrize("step", ["index", "items", "retriever.json"])
def test_two_that_save_at_once_leave_one_whole_gallery(photos, model, sketch, tmp_path, monkeypatch, step):
    import dsh_hf.files

    gallery = tmp_path / "gallery"
    first, second = SketchRetriever.from_folder(photos, model), SketchRetriever.from_folder(photos, model)
    first.save(gallery)
    second.add([sketch], ["drawn"])
    replace, waiting = os.replace, ["second"]

    def second_in_between(source, target):
        if waiting and os.path.basename(target).startswith(step):
            waiting.clear()
            second.save(gallery)
        replace(source, target)

    monkeypatch.setattr(dsh_hf.files.Path, "replace", second_in_between)
    first.save(gallery)
    assert not waiting
    opened = SketchRetriever.load(gallery, model)
    assert opened.search(sketch, k=10) == first.search(sketch, k=10)  # who comes last prevails


def test_index_and_items_of_different_galleries_are_refused(photos, model, tmp_path):
    SketchRetriever.from_folder(photos, model).save(tmp_path / "gallery")
    items = next((tmp_path / "gallery").glob("items-*"))
    content = json.loads(items.read_text())
    content["another.png"] = content.pop("e.png")
    items.write_text(json.dumps(content))
    with pytest.raises(RetrieverError, match="do not belong together"):
        SketchRetriever.load(tmp_path / "gallery", model)


@pytest.mark.parametrize("ids", [[1, 2], ["a", 2], [None, "b"]])
def test_ids_that_are_no_strs_are_refused(model, ids):
    retriever = SketchRetriever(model)
    with pytest.raises(ValueError, match=r"ids of a gallery are strs, got (1|2|None)"):
        retriever.add_codes(np.zeros((2, 8), np.uint8), ids)
    with pytest.raises(ValueError, match="ids of a gallery are strs"):
        retriever.add(["unread.png", "unread.png"], ids)
    assert len(retriever) == 0


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
