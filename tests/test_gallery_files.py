"""A saved gallery: whole or not at all, one that saves at a time, and no file that is not its own."""

import fcntl
import json
import os

import numpy as np
import pytest

from dsh_hf.gallery.files import read_items, read_manifest, without_password, write_items
from dsh_hf.gallery.items import Item, RetrieverError, metadata_text
from dsh_hf.gallery.store import Gallery
from dsh_hf.index import open_index

FINGERPRINT = "f" * 64
FACTS = {"folder": None, "skipped": {}}


def some_items(count, start=0):
    return {str(i): Item(f"/photos/{i}.png", metadata_text({"label": f"class {i % 3}"})) for i in range(start, count)}


def make_gallery(count=5, keep_outputs=False):
    gallery = Gallery("exact", 64, FINGERPRINT, keep_outputs)
    gallery.add(np.random.default_rng(0).integers(0, 256, (count, 8), dtype=np.uint8), some_items(count))
    return gallery


def reopened(path):
    return Gallery.open(path, 64, FINGERPRINT, None)[0]


@pytest.fixture
def saved(tmp_path):
    make_gallery().save(tmp_path / "gallery", FACTS)
    return tmp_path / "gallery"


def file_of(folder, kind):
    return folder / read_manifest(folder)[0][kind]


@pytest.mark.parametrize("outputs", [False, True])
def test_items_are_read_as_they_were_written(tmp_path, outputs):
    rng = np.random.default_rng(0)
    items = {
        "plain": Item("a.png", '{"label": "cat"}', None),
        "in the folder/x.png": Item(None, "{}", (123, 1_700_000_000_123_456_789)),
        "grün": Item("https://example.org/grün.png", metadata_text({"n": None, "list": [1, 2.5], "ü": "ü"})),
    }
    if outputs:
        items = {key: item._replace(outputs=rng.bytes(2 * 60)) for key, item in items.items()}
    write_items(tmp_path / "items.parquet", items)
    read = read_items(tmp_path / "items.parquet")
    assert list(read.items()) == list(items.items())


def test_names_that_are_no_utf8_come_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    items = {name: Item(f"/photos/{name}", metadata_text({"label": name})), "plain": Item(), "\ud800": Item("")}
    write_items(tmp_path / "items.parquet", items)
    assert read_items(tmp_path / "items.parquet") == items


def test_an_empty_gallery_is_saved_too(tmp_path):
    make_gallery(0).save(tmp_path, FACTS)
    assert len(reopened(tmp_path).items) == 0


def test_a_manifest_names_two_files_and_their_checksums(saved):
    manifest, _ = read_manifest(saved)
    assert manifest["format_version"] == 2
    assert {file.name for file in saved.iterdir()} == {"retriever.json", manifest["index"], manifest["items"]}
    assert (manifest["pictures"], manifest["metadata"]) == (5, ["label"])
    assert (manifest["bits"], manifest["fingerprint"], manifest["engine"]) == (64, FINGERPRINT, "exact")


@pytest.mark.parametrize("kind", ["index", "items"])
def test_a_file_of_another_gallery_is_refused(saved, tmp_path, kind):
    other = tmp_path / "other"
    gallery = make_gallery()
    gallery.remove(["0"])
    gallery.add(np.zeros((1, 8), np.uint8), {"0": Item()})  # as many items, the same ids
    gallery.save(other, FACTS)
    file_of(saved, kind).write_bytes(file_of(other, kind).read_bytes())
    with pytest.raises(RetrieverError, match="not the file that was saved"):
        reopened(saved)


@pytest.mark.parametrize("kind", ["index", "items"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-50]), "not the file that was saved"),
        (lambda file: file.unlink(), "is missing"),
    ],
)
def test_damaged_and_missing_files_are_named(saved, kind, damage, message):
    file = file_of(saved, kind)
    damage(file)
    with pytest.raises(RetrieverError, match=message) as refusal:
        reopened(saved)
    assert file.name in str(refusal.value)


@pytest.mark.parametrize("kind", ["index", "items"])
def test_a_manifest_leads_to_no_file_elsewhere(saved, tmp_path, kind):
    file = file_of(saved, kind)
    file.rename(tmp_path / file.name)
    manifest = json.loads((saved / "retriever.json").read_text())
    (saved / "retriever.json").write_text(json.dumps(manifest | {kind: f"../{file.name}"}))
    with pytest.raises(RetrieverError, match="no file beside it"):
        reopened(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "newer dsh_hf"),
        ({"engine": ...}, "lacks 'engine'"),
        ({"engine": 3}, "tells 'engine' as 3"),
        ({"engine": "fast"}, "the engine 'fast', which this version of dsh_hf has not"),
        ({"metadata": ["label", 3]}, "tells 'metadata' as"),
        ({"items": ...}, "lacks 'items'"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(saved, change, message):
    manifest = json.loads((saved / "retriever.json").read_text()) | change
    kept = {key: value for key, value in manifest.items() if value is not ...}
    (saved / "retriever.json").write_text(json.dumps(kept))
    with pytest.raises(RetrieverError, match=message):
        reopened(saved)


def write_format_1(folder):
    """Write a gallery as version 1 of the format has it."""
    folder.mkdir()
    index = open_index("exact", bits=64, fingerprint=FINGERPRINT)
    index.add(np.zeros((2, 8), np.uint8), ["cats/a.png", "drawn"])
    index.save(folder / "index-0123456789abcdef0123456789abcdef")
    items = {
        "cats/a.png": {"source": "/photos/cats/a.png", "metadata": {"label": "cats"}, "stamp": [12, 34]},
        "drawn": {"source": "/elsewhere/drawn.png", "metadata": {}, "stamp": None},
    }
    (folder / "items-0123456789abcdef0123456789abcdef.json").write_text(json.dumps(items))
    manifest = {"format_version": 1, "engine": "exact", "bits": 64, "fingerprint": FINGERPRINT, "skipped": {}}
    manifest |= {"folder": "/photos", "index": "index-0123456789abcdef0123456789abcdef"}
    manifest |= {"items": "items-0123456789abcdef0123456789abcdef.json"}
    (folder / "retriever.json").write_text(json.dumps(manifest))


def test_galleries_of_format_1_open_and_are_saved_as_format_2(tmp_path):
    write_format_1(tmp_path / "gallery")
    gallery = reopened(tmp_path / "gallery")
    expected = {
        "cats/a.png": Item(None, '{"label": "cats"}', (12, 34)),
        "drawn": Item("/elsewhere/drawn.png", "{}", None),
    }
    assert gallery.items == expected
    assert len(gallery.nearest(np.zeros(8, np.uint8), 2, {"label": "cats"})) == 1
    gallery.save(tmp_path / "gallery", FACTS)
    assert len(list((tmp_path / "gallery").iterdir())) == 3
    assert reopened(tmp_path / "gallery").items == expected


def test_damaged_items_of_format_1_are_refused(tmp_path):
    write_format_1(tmp_path / "gallery")
    next((tmp_path / "gallery").glob("items-*")).write_text('{"cats/a.png": {}}')
    with pytest.raises(RetrieverError, match="damaged"):
        reopened(tmp_path / "gallery")


def test_only_one_process_saves_at_a_time(saved):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    other = os.open(saved, os.O_RDONLY)  # a lock belongs to what was opened: this is another process's
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(RetrieverError, match="another process is saving this gallery"):
        make_gallery().save(saved, FACTS)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    os.close(other)
    make_gallery().save(saved, FACTS)


def test_a_file_system_without_locks_takes_galleries_too(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    make_gallery().save(tmp_path, FACTS)
    assert len(reopened(tmp_path).items) == 5


def test_a_platform_without_locks_takes_galleries_too(tmp_path, monkeypatch):
    monkeypatch.setattr("dsh_hf.gallery.files.fcntl", None)
    gallery = make_gallery()
    gallery.save(tmp_path, FACTS)
    gallery.save(tmp_path, FACTS)
    assert len(reopened(tmp_path).items) == 5
    assert len(list(tmp_path.iterdir())) == 3


def test_leftovers_of_saves_cut_short_go_and_nothing_else_does(saved):
    mark = "0123456789abcdef0123456789abcdef"
    left = [
        f".index-{mark}.safetensors.lock",
        f"index-{mark}.safetensors",
        f"items-{mark}.parquet",
        f".items-{mark}.parquet.12345678.tmp",
    ]
    foreign = ["index-of-mine.txt", "items.json", "index", ".hidden", "notes.tmp", ".index.lock"]
    for name in left + foreign:
        (saved / name).write_text("x")
    make_gallery().save(saved, FACTS)
    names = {file.name for file in saved.iterdir()}
    assert names.isdisjoint(left)
    assert names > set(foreign)
    assert len(names) == 3 + len(foreign)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("exact", "exact"),
        ("postgresql://me:secret@host:5432/db?table=codes", "postgresql://me@host:5432/db?table=codes"),
        (
            "postgresql://host/db?user=me&password=secret&sslmode=require",
            "postgresql://host/db?user=me&sslmode=require",
        ),
        ("milvus+http://root:secret@host:19530/codes?token=secret", "milvus+http://root@host:19530/codes"),
        ("milvus+https://:secret@host/codes", "milvus+https://@host/codes"),
        ("postgresql://me:secret@host", "postgresql://me@host"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:pa#secret@host/db", "postgresql://me@host/db"),
        ("postgresql://me:pa?secret@host/db?table=codes", "postgresql://me@host/db?table=codes"),
        ("postgresql://me:pa@secret:@host/db", "postgresql://me@host/db"),
        ("postgresql://host?password=secret@x", "postgresql://host"),
        ("postgresql://host/db?p%61ssword=secret&SSLPASSWORD=secret/@", "postgresql://host/db"),
        ("postgresql://me@one:1,two:2/db?table=a%26b", "postgresql://me@one:1,two:2/db?table=a%26b"),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///db?host=/run/postgresql"),
    ],
)
def test_a_url_is_kept_without_its_password(url, kept):
    assert without_password(url) == kept


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:pa#ss@host/db",
        "postgresql://me:pa#ss@host:5432/db?sslmode=require&password=word",
        "postgresql://host?password=word",
    ],
)
def test_what_libpq_takes_for_a_password_is_not_kept(url):
    conninfo = pytest.importorskip("psycopg").conninfo
    given = conninfo.conninfo_to_dict(url)
    assert conninfo.conninfo_to_dict(without_password(url)) == {k: v for k, v in given.items() if k != "password"}
