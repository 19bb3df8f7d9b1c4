"""A gallery that sketches search: built, searched, filtered, re-ranked, synced, saved and reopened."""

import logging
import os
import signal
import subprocess
import sys
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


def test_a_picture_is_a_query_too(photos, model):
    retriever = SketchRetriever.from_folder(photos, model)
    nearest = retriever.search_image(photos / "dogs/c.png", k=5)
    assert nearest[0].distance == 0
    code = model.encode_images(photos / "dogs/c.png")
    assert nearest == retriever.search_code(code, k=5)


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
    assert retriever.sync() == {"added": 0, "removed": 0, "skipped": 2}
    assert "e.png" in retriever.skipped
    assert retriever.sync() == {"added": 0, "removed": 1, "skipped": 1}


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


@pytest.mark.parametrize("place", ["dogs", "."])
def test_folder_that_cannot_be_read_for_a_moment_loses_nothing(photos, model, sketch, tmp_path, monkeypatch, place):
    retriever = SketchRetriever.from_folder(photos, model, save_to=tmp_path / "gallery")
    before = retriever.search(sketch, k=10)
    scan = os.scandir

    def closed(path):
        if str(path) == str(photos / place):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        assert retriever.sync(save_to=tmp_path / "gallery")["removed"] == 0
        assert place in retriever.skipped
    assert SketchRetriever.load(tmp_path / "gallery", model).search(sketch, k=10) == before
    (photos / "dogs/c.png").unlink()
    assert retriever.sync() == {"added": 0, "removed": 1, "skipped": 1}


def test_file_that_cannot_be_reached_for_a_moment_stays(photos, model, monkeypatch):
    outside = photos.parent / "volume"
    (photos / "dogs").rename(outside)
    (photos / "dogs").mkdir()
    for name in ("c.png", "c.png.png"):
        (photos / "dogs" / name).symlink_to(outside / "c.png")
    retriever = SketchRetriever.from_folder(photos, model)
    outside.rename(photos.parent / "unmounted")
    (photos / "dogs/c.png.png").unlink()
    assert retriever.sync() == {"added": 0, "removed": 1, "skipped": 2}
    assert "dogs/c.png" in retriever._gallery.items
    (photos / "dogs/c.png").unlink()
    assert retriever.sync() == {"added": 0, "removed": 1, "skipped": 1}


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
    monkeypatch.setattr(DSHModel, "encode_images", lambda *_, **__: pytest.fail("a picture was encoded again"))
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
    gallery = retriever._gallery
    gallery.items = {Key(key): item._replace(stamp=(0, 0)) for key, item in gallery.items.items()}
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

    import dsh_hf.gallery.files

    original = dsh_hf.gallery.files.write_atomically
    monkeypatch.setattr(dsh_hf.gallery.files, "write_atomically", fail)
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


def labelled(model, labels, engine="exact", **options):
    """A gallery of codes at random, each with a label, its number and its parity."""
    rng = np.random.default_rng(0)
    retriever = SketchRetriever(model, engine=engine, **options)
    codes = rng.integers(0, 256, (len(labels), 8), dtype=np.uint8)
    metadata = [{"label": label, "number": i, "even": i % 2 == 0} for i, label in enumerate(labels)]
    outputs = rng.normal(size=(len(labels), 64)) if options.get("keep_outputs") else None
    retriever.add_codes(codes, [str(i) for i in range(len(labels))], metadata=metadata, outputs=outputs)
    return retriever


@pytest.mark.parametrize(
    ("where", "looks"),
    [
        ({"label": "misspelled"}, [100]),
        ({"label": "near"}, [100]),
        ({"label": ["near", "rare"]}, [100, 400, 1600]),  # until the last of them is found, and no further
        ({"label": "cat"}, [100]),
    ],
)
def test_a_filter_looks_no_deeper_than_its_matches_lie(model, monkeypatch, where, looks):
    retriever = SketchRetriever(model)
    labels = ["near"] + ["cat"] * 999 + ["rare"] + ["cat"] * 5999
    codes = np.zeros((len(labels), 8), np.uint8)  # all as near: in the order of insertion
    retriever.add_codes(codes, [str(i) for i in range(len(labels))], metadata=[{"label": label} for label in labels])
    search, looked = retriever.index.search, []
    monkeypatch.setattr(retriever.index, "search", lambda code, k: (looked.append(k), search(code, k))[1])
    hits = retriever.search_code(codes[0], k=10, where=where)
    fits = [str(i) for i, label in enumerate(labels) if label in np.atleast_1d(where["label"])]
    assert [hit.id for hit in hits] == fits[:10]
    assert looked == looks


@pytest.mark.parametrize("engine", ["exact", "hnsw"])
@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({"label": "rare"}, lambda item: item["label"] == "rare"),
        ({"label": ["rare", "dog"]}, lambda item: item["label"] in ("rare", "dog")),
        ({"label": {"cat"}, "even": True}, lambda item: item["label"] == "cat" and item["even"]),
        ({"number": range(5)}, lambda item: False),  # one value, and nobody has it
        ({"number": [7, 9999, "7"]}, lambda item: item["number"] == 7),
        ({"label": []}, lambda item: False),
    ],
)
def test_a_filtered_answer_is_the_unfiltered_one_filtered(model, engine, where, fits):
    labels = ["rare" if i in (3, 500, 1499) else "dog" if i % 3 else "cat" for i in range(1500)]
    retriever = labelled(model, labels, engine)
    query = np.full(8, 0b10101010, np.uint8)
    everything = retriever.search_code(query, k=1500)
    assert len(everything) == 1500
    for k in (1, 10, 2000):
        expected = [hit for hit in everything if fits(hit.metadata)][:k]
        assert retriever.search_code(query, k, where=where) == expected


def test_a_key_that_no_picture_has_is_named_with_those_there_are(model, sketch):
    retriever = labelled(model, ["cat"])
    with pytest.raises(RetrieverError, match=r"'lable' \(known: even, label, number\)"):
        retriever.search(sketch, where={"lable": "cat"})
    with pytest.raises(RetrieverError, match="known: there are none"):
        SketchRetriever(model).search(sketch, where={"label": "cat"})


def test_filters_work_on_a_gallery_opened_again(photos, model, sketch, tmp_path):
    SketchRetriever.from_folder(photos, model).save(tmp_path / "gallery")
    opened = SketchRetriever.load(tmp_path / "gallery", model)
    assert {hit.id for hit in opened.search(sketch, where={"label": "dogs"})} == {"dogs/c.png", "dogs/deep/d.png"}
    with pytest.raises(RetrieverError, match="known: label"):
        opened.search(sketch, where={"colour": "red"})


def test_changing_a_hit_leaves_the_gallery_as_it_is(photos, model, sketch):
    retriever = SketchRetriever.from_folder(photos, model)
    for hit in retriever.search(sketch, k=5, where={"label": "cats"}):
        hit.metadata["label"] = "changed"
    assert len(retriever.search(sketch, where={"label": "cats"})) == 2


def test_metadata_that_json_cannot_hold_is_refused_before_anything_is_added(model):
    retriever = SketchRetriever(model)
    with pytest.raises(ValueError, match="cannot be kept"):
        retriever.add_codes(np.zeros((1, 8), np.uint8), ["a"], metadata=[{"when": object()}])
    assert len(retriever) == 0


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("reopened", [False, True])
def test_first_hits_are_put_in_the_order_of_the_outputs(photos, model, sketch, tmp_path, reopened):
    retriever = SketchRetriever.from_folder(photos, model, keep_outputs=True)
    if reopened:
        retriever.save(tmp_path / "gallery")
        retriever = SketchRetriever.load(tmp_path / "gallery", model)
    plain = retriever.search(sketch, k=5)
    query = model.embed_sketches(sketch)
    expected = {hit.id: cosine(query, model.embed_images(hit.source)) for hit in plain}
    hits = retriever.search(sketch, k=5, rerank=100)
    assert [hit.id for hit in hits] == sorted(expected, key=expected.get, reverse=True)
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.id], abs=1e-3)
    three = retriever.search(sketch, k=4, rerank=3)
    assert {hit.id for hit in three[:3]} == {hit.id for hit in plain[:3]}
    assert three[3] == plain[3]
    picture = retriever.search_image(photos / "e.png", k=1, rerank=5)[0]
    assert picture.distance == 0
    assert picture.score == pytest.approx(1, abs=1e-3)


def test_float_outputs_search_as_their_sketch_does(photos, model, sketch):
    retriever = SketchRetriever.from_folder(photos, model, keep_outputs=True)
    assert retriever.keep_outputs
    outputs = model.embed_sketches(sketch)
    for options in ({}, {"rerank": 3}):
        assert retriever.search_outputs(outputs, k=4, **options) == retriever.search(sketch, k=4, **options)
    with pytest.raises(ValueError, match=r"outputs of one picture have the shape \(64,\), got \(40,\)"):
        retriever.search_outputs(outputs[:40])


def test_more_hits_are_ranked_than_are_asked_for(model, sketch):
    retriever = labelled(model, ["cat", "dog"] * 50, keep_outputs=True)
    best = retriever.search(sketch, k=100, rerank=100)
    assert retriever.search(sketch, k=1, rerank=100) == best[:1]
    dogs = [hit for hit in best if hit.metadata["label"] == "dog"]
    assert retriever.search(sketch, k=3, rerank=100, where={"label": "dog"}) == dogs[:3]


def test_ranking_by_outputs_that_were_not_kept_is_refused(photos, model, sketch):
    with pytest.raises(RetrieverError, match="keep_outputs=True"):
        SketchRetriever.from_folder(photos, model).search(sketch, rerank=10)
    with pytest.raises(ValueError, match="rerank"):
        SketchRetriever(model).search(sketch, rerank=-1)


@pytest.mark.parametrize("options", [{}, {"where": {"label": "cat"}}, {"rerank": 5}])
def test_less_than_one_hit_cannot_be_asked_for(model, sketch, options):
    retriever = labelled(model, ["cat"] * 5, keep_outputs=True)
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be at least 1"):
            retriever.search(sketch, k, **options)
    with pytest.raises(ValueError, match="k must be at least 1"):
        retriever.search_code(np.zeros(8, np.uint8), 0)


@pytest.mark.parametrize("kept", [False, True])
def test_codes_come_with_outputs_where_these_are_kept_and_only_there(model, kept):
    retriever = SketchRetriever(model, keep_outputs=kept)
    outputs = None if kept else np.zeros((1, 64))
    with pytest.raises(ValueError, match="keep_outputs=True"):
        retriever.add_codes(np.zeros((1, 8), np.uint8), ["a"], outputs=outputs)
    assert len(retriever) == 0


def test_outputs_and_codes_come_of_one_pass(photos, model, monkeypatch):
    passes = []
    outputs = DSHModel.image_outputs
    monkeypatch.setattr(DSHModel, "image_outputs", lambda *args: passes.append(len(args[1])) or outputs(*args))
    retriever = SketchRetriever(model, keep_outputs=True)
    retriever.add([photos / "e.png"], ["e"])
    assert passes == [1]
    assert retriever.search_image(photos / "e.png", rerank=1)[0].distance == 0
    assert passes == [1, 1]


@pytest.mark.parametrize("ids", [["a", "a"], ["a"]])
def test_an_id_for_each_picture_or_nothing(model, ids):
    retriever = SketchRetriever(model)
    with pytest.raises(ValueError, match=r"more than once|as many ids"):
        retriever.add(["unread.png", "unread.png"], ids)
    assert len(retriever) == 0


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr("dsh_hf.gallery.building._PORTION", 8)


def many(folder, count=20):
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number:02}.png")
    return folder


def stop_after(monkeypatch, pictures):
    """Let so many pictures through, and then be interrupted; give those that were encoded."""
    encoded, encode = [], DSHModel.encode_images

    def interrupted(model, inputs, **options):
        if len(encoded) >= pictures:
            raise KeyboardInterrupt
        encoded.extend(path.name for path in inputs)
        return encode(model, inputs, **options)

    monkeypatch.setattr(DSHModel, "encode_images", interrupted)
    return encoded


def test_a_build_that_is_cut_short_goes_on_where_it_was(tmp_path, model, small_portions, monkeypatch):
    folder = many(tmp_path / "photos")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 16)
        SketchRetriever.from_folder(folder, model, batch_size=1, save_to=tmp_path / "gallery")
    retriever = SketchRetriever.load(tmp_path / "gallery", model)
    assert len(retriever) == 16
    with monkeypatch.context() as patch:
        encoded = stop_after(patch, 100)
        assert retriever.sync(save_to=tmp_path / "gallery")["added"] == 4
    assert encoded == ["16.png", "17.png", "18.png", "19.png"]
    assert len(SketchRetriever.load(tmp_path / "gallery", model)) == 20


def test_a_sync_that_is_cut_short_loses_nothing(tmp_path, model, sketch, small_portions, monkeypatch):
    folder = many(tmp_path / "photos")
    retriever = SketchRetriever.from_folder(folder, model)
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    (folder / "00.png").unlink()
    before = retriever.search(sketch, k=100)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 8)
        retriever.sync(batch_size=1)
    assert {hit.id for hit in retriever.search(sketch, k=100)} == {hit.id for hit in before}
    assert retriever.sync() == {"added": 11, "removed": 12, "skipped": 0}


BUILD_AND_DIE = """
import os, signal, sys
from dsh_hf import DSHModel, SketchRetriever
import dsh_hf.gallery.building as building
building._PORTION = 8
encode, calls = DSHModel.encode_images, []
def dying(*args, **options):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*args, **options)
DSHModel.encode_images = dying
checkpoint, folder, gallery = sys.argv[1:]
SketchRetriever.from_folder(folder, DSHModel.from_pretrained(checkpoint), batch_size=1, save_to=gallery)
"""


def test_what_was_encoded_survives_a_kill(tmp_path, model):
    model.save_pretrained(tmp_path / "model")
    places = [str(tmp_path / "model"), str(many(tmp_path / "photos")), str(tmp_path / "gallery")]
    assert subprocess.run([sys.executable, "-c", BUILD_AND_DIE, *places]).returncode == -signal.SIGKILL
    opened = SketchRetriever.load(tmp_path / "gallery", DSHModel.from_pretrained(tmp_path / "model"))
    assert len(opened) == 16
    assert opened.sync(save_to=tmp_path / "gallery")["added"] == 4


def test_two_syncs_at_once_do_the_work_once(photos, model, monkeypatch):
    retriever = SketchRetriever.from_folder(photos, model)
    Image.new("RGB", (30, 30), "red").save(photos / "new.png")
    started, encode, counts = threading.Event(), DSHModel.encode_images, []
    second = threading.Thread(target=lambda: counts.append(retriever.sync()))

    def slow(*args, **options):
        if not started.is_set():
            started.set()
            second.start()
            second.join(0.2)  # in vain: the second waits for the first
        return encode(*args, **options)

    monkeypatch.setattr(DSHModel, "encode_images", slow)
    counts.append(retriever.sync())
    second.join()
    assert sorted(count["added"] for count in counts) == [0, 1]


def test_a_gallery_that_another_has_saved_since_is_not_overwritten(photos, model, sketch, tmp_path):
    gallery = tmp_path / "gallery"
    SketchRetriever.from_folder(photos, model).save(gallery)
    first, second = SketchRetriever.load(gallery, model), SketchRetriever.load(gallery, model)
    first.add([sketch], ["drawn"])
    first.save(gallery)
    first.save(gallery)  # its own save is no other's
    second.add([sketch], ["mine"])
    with pytest.raises(RetrieverError, match="saved by another process since"):
        second.save(gallery)
    second.save(tmp_path / "elsewhere")
    assert {"drawn", "e.png"} < {hit.id for hit in SketchRetriever.load(gallery, model).search(sketch)}


def test_a_gallery_that_is_saved_anew_while_it_is_opened_opens(photos, model, sketch, tmp_path, monkeypatch):
    import dsh_hf.gallery.store as store

    retriever = SketchRetriever.from_folder(photos, model)
    retriever.save(tmp_path / "gallery")
    check, waiting = store.checked_file, ["save"]

    def saved_in_between(*args):
        if waiting:
            waiting.clear()
            retriever.add([sketch], ["drawn"])
            retriever.save(tmp_path / "gallery")
        return check(*args)

    monkeypatch.setattr(store, "checked_file", saved_in_between)
    assert len(SketchRetriever.load(tmp_path / "gallery", model)) == 6


def test_a_gallery_moved_elsewhere_opens(photos, model, sketch, tmp_path):
    SketchRetriever.from_folder(photos, model).save(tmp_path / "gallery")
    (tmp_path / "gallery").rename(tmp_path / "moved")
    assert len(SketchRetriever.load(tmp_path / "moved", model).search(sketch)) == 5


def test_another_engine_than_the_saved_one_is_refused(photos, model, tmp_path):
    SketchRetriever.from_folder(photos, model).save(tmp_path / "gallery")
    with pytest.raises(RetrieverError, match="saved with the engine 'exact'"):
        SketchRetriever.load(tmp_path / "gallery", model, engine="hnsw")
