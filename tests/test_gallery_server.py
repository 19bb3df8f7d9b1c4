"""A gallery whose codes lie on a server: the same calls, no password on disk, a build cut short goes on."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tiny_checkpoint import tiny_model

from dsh_hf import DSHModel, SketchRetriever
from dsh_hf.gallery.files import without_password
from dsh_hf.index import ExactIndex, IndexMismatchError
from dsh_hf.retrieval import RetrieverError

URL = "postgresql://me:secret@db.example.org/photos?table=codes"
KEPT = "postgresql://me@db.example.org/photos?table=codes"


class Table(ExactIndex):
    """What an index on a server is to a gallery: others see its codes at once, and there is no file."""

    def known(self, ids):
        return set(ids) & set(self.search(np.zeros(8, np.uint8), 1000)[1].tolist())

    def save(self, path):
        raise io.UnsupportedOperation("the codes live on the server")


@pytest.fixture
def server(monkeypatch):
    """The tables of a server by URL, whoever asks and with whatever password."""
    from dsh_hf.gallery import store

    tables, open_here, asked = {}, store.open_index, []

    def open_index(spec, *, bits, path=None, fingerprint=None):
        if "://" not in spec:
            return open_here(spec, bits=bits, path=path, fingerprint=fingerprint)
        asked.append(spec)
        table = tables.setdefault(spec.rpartition("@")[2], Table(bits=bits, fingerprint=fingerprint))
        if (table.bits, table.fingerprint) != (bits, fingerprint):
            raise IndexMismatchError("the table holds codes of another model")
        return table

    monkeypatch.setattr(store, "open_index", open_index)
    tables["asked"] = asked
    return tables


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number in range(20):
        (folder / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number % 2}" / f"{number:02}.png")
    return folder


@pytest.fixture
def query():
    return Image.new("RGB", (8, 8), "white")


def test_the_same_calls_work(server, photos, model, query, tmp_path):
    retriever = SketchRetriever.from_folder(photos, model, engine=URL)
    here = SketchRetriever.from_folder(photos, model)
    assert retriever.search_image(query, k=5) == here.search_image(query, k=5)
    assert retriever.search_image(query, k=50, where={"label": "1"}) == here.search_image(
        query, 50, where={"label": "1"}
    )
    (photos / "0/00.png").unlink()
    assert retriever.sync() == {"added": 0, "removed": 1, "skipped": 0}
    retriever.save(tmp_path / "gallery")
    opened = SketchRetriever.load(tmp_path / "gallery", model, engine=URL)
    assert opened.search_image(query, k=50) == retriever.search_image(query, k=50)
    assert server["asked"] == [URL, URL]


def test_a_password_is_neither_shown_nor_saved(server, photos, model, tmp_path):
    retriever = SketchRetriever.from_folder(photos, model, engine=URL)
    assert retriever.engine == KEPT
    retriever.save(tmp_path / "gallery")
    for file in (tmp_path / "gallery").iterdir():
        assert b"secret" not in file.read_bytes()
    SketchRetriever.load(tmp_path / "gallery", model, engine=URL)
    assert server["asked"] == [URL, URL]


@pytest.mark.parametrize("open_gallery", [SketchRetriever.load, SketchRetriever.from_pretrained])
def test_no_connection_is_made_to_a_url_that_a_file_names(server, photos, model, tmp_path, open_gallery):
    gallery = tmp_path / "gallery"
    SketchRetriever.from_folder(photos, model, engine=URL, save_to=gallery)
    asked = len(server["asked"])
    manifest = json.loads((gallery / "retriever.json").read_text())
    for named in (KEPT, "postgresql://me:secret@stranger.example.org/photos"):
        (gallery / "retriever.json").write_text(json.dumps(manifest | {"engine": named}))
        with pytest.raises(RetrieverError, match=r"a server: say where to connect with engine=URL") as refusal:
            open_gallery(gallery, model)
        assert repr(without_password(named)) in str(refusal.value)
        assert "secret" not in str(refusal.value)
    assert len(server["asked"]) == asked


def test_a_gallery_of_this_process_is_not_opened_on_a_server(server, photos, model, tmp_path):
    SketchRetriever.from_folder(photos, model, save_to=tmp_path / "gallery")
    with pytest.raises(RetrieverError, match="open it without engine='postgresql://me@db") as refusal:
        SketchRetriever.load(tmp_path / "gallery", model, engine=URL)
    assert "secret" not in str(refusal.value)
    assert not server["asked"]


def test_opening_does_not_read_the_table(server, photos, model, tmp_path, monkeypatch):
    SketchRetriever.from_folder(photos, model, engine=URL, save_to=tmp_path / "gallery")
    for name in ("search", "search_radius", "__len__"):
        monkeypatch.setattr(Table, name, lambda *_: pytest.fail("the table was read"))
    SketchRetriever.load(tmp_path / "gallery", model, engine=URL)


def test_what_others_add_is_found_and_what_they_remove_is_not(server, photos, model, query, tmp_path):
    SketchRetriever.from_folder(photos, model, engine=URL, save_to=tmp_path / "gallery")
    first, second = (SketchRetriever.load(tmp_path / "gallery", model, engine=URL) for _ in range(2))
    second.add([query], ["new"], [{"label": "1"}])
    hit = first.search_image(query, k=1)[0]
    assert (hit.id, hit.distance, hit.source, hit.metadata) == ("new", 0, None, {})
    first.index.remove(["0/00.png"])
    assert "0/00.png" not in {hit.id for hit in second.search_image(query, k=100)}
    (photos / "0/00.png").unlink()
    assert second.sync()["removed"] == 1


def test_a_table_that_holds_codes_is_not_taken_for_a_new_gallery(server, photos, model):
    SketchRetriever.from_folder(photos, model, engine=URL)
    with pytest.raises(RetrieverError, match="holds 20 codes already") as refusal:
        SketchRetriever.from_folder(photos, model, engine=URL)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("portions", [0, 1])
def test_a_build_that_is_cut_short_goes_on(server, photos, model, query, tmp_path, monkeypatch, portions):
    from dsh_hf.gallery.store import Gallery

    monkeypatch.setattr("dsh_hf.gallery.building._PORTION", 8)
    save, saves = Gallery.save, []

    def cut_short(*args):
        if len(saves) > portions:
            raise KeyboardInterrupt  # codes are on the server, items not yet in the folder
        saves.append(1)
        save(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Gallery, "save", cut_short)
        SketchRetriever.from_folder(photos, model, engine=URL, batch_size=1, save_to=tmp_path / "gallery")
    retriever = SketchRetriever.load(tmp_path / "gallery", model, engine=URL)
    assert len(retriever) == 8 * (portions + 1)
    assert retriever.sync(save_to=tmp_path / "gallery")["added"] == 20 - 8 * portions
    assert len(retriever) == 20
    hits = SketchRetriever.load(tmp_path / "gallery", model, engine=URL).search_image(query, k=100)
    assert len(hits) == 20
    assert all(hit.source for hit in hits)


def test_a_build_on_postgresql_goes_on_in_few_calls_and_leaves_what_is_of_others(
    photos, model, query, tmp_path, monkeypatch
):
    pytest.importorskip("psycopg")
    from servers import postgres_url

    from dsh_hf.index.postgres import PostgresIndex

    url, gallery = postgres_url(), tmp_path / "gallery"
    retriever = SketchRetriever.from_folder(photos, model, engine=url, save_to=gallery)
    code = model.encode_images([query])
    lost = {f"{number % 2}/new{number:02}.png": Image.new("RGB", (8, 8), (0, number, 0)) for number in range(40)}
    for name, picture in lost.items():
        picture.save(photos / name)
    # A build was cut short after it had sent these; another process has removed one item, and added another.
    retriever.index.add(np.repeat(code, 40, axis=0), list(lost))
    retriever.index.add(code, ["of another"])
    retriever.index.remove(["0/00.png"])
    calls = []
    for name in ("known", "remove", "add"):
        original = getattr(PostgresIndex, name)
        monkeypatch.setattr(
            PostgresIndex, name, lambda *args, name=name, original=original: (calls.append(name), original(*args))[1]
        )
    (photos / "0/00.png").unlink()
    (photos / "1/01.png").unlink()
    opened = SketchRetriever.load(gallery, model, engine=url)
    assert opened.sync(save_to=gallery) == {"added": 40, "removed": 2, "skipped": 0}
    assert calls == ["known", "remove", "add", "known", "remove"]
    assert len(opened) == 18 + 40 + 1
    hits = {hit.id: hit for hit in SketchRetriever.load(gallery, model, engine=url).search_image(query, k=100)}
    assert set(hits) == set(opened._gallery.items) | {"of another"}
    assert hits["0/new02.png"].distance == int(
        np.bitwise_count(model.encode_images(photos / "0/new02.png") ^ code[0]).sum()
    )
    where = opened.search_image(query, k=100, where={"label": "1"})
    assert {hit.id for hit in where} == {key for key in hits if key.startswith("1/")}


def test_items_vanish_while_they_are_removed(server, photos, model):
    retriever = SketchRetriever.from_folder(photos, model, engine=URL)
    index, known = retriever.index, retriever.index.known

    def overtaken(ids):
        found = known(ids)
        if "0/02.png" in found:
            index.remove(["0/02.png"])  # by another process, at this moment
        return found

    index.known = overtaken
    for name in ("0/00.png", "0/02.png"):
        (photos / name).unlink()
    assert retriever.sync()["removed"] == 2
    assert len(retriever) == 18


def test_a_gallery_made_anew_takes_no_item_from_others(server, photos, model, query):
    others = SketchRetriever.from_folder(photos, model, engine=URL)
    retriever = SketchRetriever(model, engine=URL)
    retriever.folder = photos
    with pytest.raises(ValueError, match="is in the index already"):
        retriever.sync()
    assert len(others.search_image(query, k=100)) == 20


def test_a_gallery_may_move_to_another_server_but_not_into_the_process(server, photos, model, tmp_path):
    SketchRetriever.from_folder(photos, model, engine=URL, save_to=tmp_path / "gallery")
    opened = SketchRetriever.load(tmp_path / "gallery", model, engine="postgresql://elsewhere/photos")
    assert opened.engine == "postgresql://elsewhere/photos"
    with pytest.raises(RetrieverError, match="saved with the engine"):
        SketchRetriever.load(tmp_path / "gallery", model, engine="exact")


def test_another_model_is_refused(server, photos, model, tmp_path):
    SketchRetriever.from_folder(photos, model, engine=URL, save_to=tmp_path / "gallery")
    with pytest.raises(IndexMismatchError):
        SketchRetriever.load(tmp_path / "gallery", tiny_model(seed=1), engine=URL)


def test_codes_on_a_server_are_not_pushed(server, photos, model):
    retriever = SketchRetriever.from_folder(photos, model, engine=URL)
    with pytest.raises(RetrieverError, match="lie on postgresql://me@db"):
        retriever.push_to_hub("org/gallery")


def test_float_outputs_stay_with_the_gallery(server, photos, model, query, tmp_path):
    SketchRetriever.from_folder(photos, model, engine=URL, keep_outputs=True, save_to=tmp_path / "gallery")
    opened = SketchRetriever.load(tmp_path / "gallery", model, engine=URL)
    opened.index.add(model.encode_images([query]), ["of another"])
    hits = opened.search_image(query, k=30, rerank=30)
    assert [hit.score is None for hit in hits] == [False] * 20 + [True]
    scores = [hit.score for hit in hits[:20]]
    assert scores == sorted(scores, reverse=True)


def test_encoding_happens_outside_the_lock(server, photos, model, query, monkeypatch):
    retriever = SketchRetriever.from_folder(photos, model, engine=URL)
    Image.new("RGB", (8, 8), "red").save(photos / "new.png")
    encode, found = DSHModel.encode_images, []

    def searching(*args, **options):
        if not found:
            found.append(None)
            found.extend(retriever.search_code(np.zeros(8, np.uint8), k=3))
        return encode(*args, **options)

    monkeypatch.setattr(DSHModel, "encode_images", searching)
    retriever.sync()
    assert len(found) == 4
