"""Galleries: opened, encoded once, brought up to date, and what is kept of them."""

import functools
import os

import huggingface_hub
import pytest
from datasets import Dataset
from datasets import Image as ImageFeature
from demo_parts import draw, make_photos
from PIL import Image
from tiny_checkpoint import tiny_model

from dsh_hf import DSHModel, SketchRetriever
from dsh_hf.data import openmoji
from dsh_hf.processing import PictureError

# isort: split
import galleries
from pictures import open_jpeg


@pytest.fixture(scope="module")
def model():
    return tiny_model(bits=64)


@pytest.fixture(scope="module", autouse=True)
def assets(tmp_path_factory):
    """Keep what is cached in a folder of this test."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("assets")
        in_folder = functools.partial(huggingface_hub.cached_assets_path, assets_dir=folder)
        patch.setattr(huggingface_hub, "cached_assets_path", in_folder)
        yield folder


@pytest.fixture
def encoded(monkeypatch):
    """List how many images each call encodes."""
    calls = []
    encode = DSHModel.embed_images

    def counting(self, inputs, **options):
        calls.append(len(inputs))
        return encode(self, inputs, **options)

    monkeypatch.setattr(DSHModel, "embed_images", counting)
    return calls


def nearest(gallery, model, folder):
    """Give the three hits nearest to a drawing."""
    return gallery.search(model.embed_sketches(draw(folder)), 3)


def found(gallery, model, folder):
    """Give their names."""
    return [gallery.name(hit) for hit in nearest(gallery, model, folder)]


def test_the_second_start_encodes_nothing(model, tmp_path, encoded):
    photos = make_photos(tmp_path / "photos")
    first = galleries.open_folder(photos, model)
    assert encoded == [3]
    second = galleries.open_folder(photos, model)
    assert sum(encoded) == 3
    code = model.encode_sketches(draw(tmp_path))
    assert [list(found) for found in second.index.search(code, 3)] == [
        list(found) for found in first.index.search(code, 3)
    ]


def test_a_kept_gallery_without_outputs_is_made_anew(model, tmp_path, encoded):
    photos = make_photos(tmp_path / "photos")
    kept = galleries._kept_for("galleries", str(photos.resolve()), model, "exact")
    SketchRetriever.from_folder(photos, model).save(kept)
    for _ in range(2):
        assert galleries.open_folder(photos, model).retriever.keep_outputs
    assert sum(encoded) == 3


def test_encodes_what_is_new_and_forgets_what_is_gone(model, tmp_path, encoded):
    photos = make_photos(tmp_path / "photos")
    galleries.open_folder(photos, model)
    encoded.clear()
    (photos / "sun" / "1.jpg").unlink()
    Image.new("RGB", (60, 60), "red").save(photos / "rose.png")
    for _ in range(2):
        assert len(galleries.open_folder(photos, model).index) == 3
    assert sum(encoded) == 1


def test_another_model_encodes_anew(model, tmp_path, encoded):
    photos = make_photos(tmp_path / "photos")
    galleries.open_folder(photos, model)
    other = tiny_model(seed=1, bits=64)
    assert galleries.open_folder(photos, other).index.fingerprint == other.fingerprint
    assert sum(encoded) == 6


def test_a_damaged_cache_is_made_anew(model, tmp_path, encoded, assets):
    photos = make_photos(tmp_path / "photos")
    before = set(assets.rglob("index-*"))
    galleries.open_folder(photos, model)
    for file in set(assets.rglob("index-*")) - before:
        file.write_bytes(b"")
    assert len(galleries.open_folder(photos, model).index) == 3
    assert sum(encoded) == 6


def test_takes_the_engine_asked_for(model, tmp_path):
    pytest.importorskip("hnswlib")
    assert galleries.open_folder(make_photos(tmp_path / "photos"), model, "hnsw").index.engine == "hnsw"


def refuse(*_, **__):
    raise PermissionError(13, "Permission denied")


@pytest.fixture(params=["no folder can be made", "the folder is read-only"])
def read_only_home(request, monkeypatch):
    if request.param == "no folder can be made":
        monkeypatch.setattr(huggingface_hub, "cached_assets_path", refuse)
    else:
        monkeypatch.setattr("dsh_hf.index.files.replaced_atomically", refuse)


def test_a_folder_is_opened_without_a_place_to_keep_codes(model, tmp_path, read_only_home, capsys):
    gallery = galleries.open_folder(make_photos(tmp_path / "photos"), model)
    names = found(gallery, model, tmp_path)
    assert len(names) == 3
    assert capsys.readouterr().out.count("codes are not kept for the next time") == 1


def test_a_file_name_that_is_no_utf8_is_shown_all_the_same(model, tmp_path):
    photos = tmp_path / os.fsdecode(b"photos \xe9")
    try:
        make_photos(photos)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    (photos / "sun").rename(photos / os.fsdecode(b"soleil lev\xe9"))
    for _ in range(2):
        gallery = galleries.open_folder(photos, model)
        names = found(gallery, model, tmp_path)
        assert "soleil lev\ufffd" in names
        assert gallery.about.endswith("photos \ufffd.")


def test_thumbnails_are_small_upright_and_on_white(model, tmp_path):
    photo = Image.new("RGBA", (800, 400), (0, 0, 0, 0))
    photo.getexif()[0x0112] = 6  # taken with the camera on its side
    photo.save(tmp_path / "clear.png", exif=photo.getexif())
    gallery = galleries.open_folder(tmp_path, model)
    (hit,) = nearest(gallery, model, tmp_path / "..")
    thumbnail = open_jpeg(gallery.thumbnail(hit))
    assert (thumbnail.mode, thumbnail.size) == ("RGB", (128, 256))
    assert thumbnail.getpixel((64, 128)) == (255, 255, 255)
    assert gallery.picture(hit, None).size == (400, 800)


def test_a_thumbnail_is_made_once_and_old_ones_are_forgotten(model, tmp_path, monkeypatch):
    photos = make_photos(tmp_path / "photos")
    gallery = galleries.open_folder(photos, model)
    first, second, _ = nearest(gallery, model, tmp_path)
    kept = gallery.thumbnail(first)
    (photos / first.id).unlink()
    assert gallery.thumbnail(first) is kept
    monkeypatch.setattr(galleries, "KEPT", 1)
    gallery.thumbnail(second)
    with pytest.raises(FileNotFoundError):
        gallery.thumbnail(first)


def test_a_data_set_is_opened_and_encoded_once(model, tmp_path, encoded):
    photos = make_photos(tmp_path / "photos")
    for _ in range(2):
        gallery = galleries.open_data_set(str(photos), model)
        assert sorted(found(gallery, model, tmp_path)) == ["grass", "sky", "sun"]
        hit = nearest(gallery, model, tmp_path)[0]
        assert gallery.picture(hit, None).size == (600, 400)
        assert open_jpeg(gallery.thumbnail(hit)).size == (256, 171)
    assert sum(encoded) == 3


def test_a_data_set_of_rows_is_opened_and_encoded_once(model, tmp_path, encoded):
    data = {"image": [str(path) for path in sorted(make_photos(tmp_path / "photos").rglob("*.jpg"))]}
    data = Dataset.from_dict(data).cast_column("image", ImageFeature())
    data.to_parquet(tmp_path / "rows.parquet")
    for _ in range(2):
        gallery = galleries.open_data_set(str(tmp_path / "rows.parquet"), model)
        assert gallery.picture(nearest(gallery, model, tmp_path)[0], None).size == (600, 400)
    assert sum(encoded) == 3


def test_a_saved_retriever_is_opened_with_its_pictures(model, tmp_path):
    photos = make_photos(tmp_path / "photos")
    SketchRetriever.from_folder(photos, model).save(tmp_path / "saved")
    gallery = galleries.open_retriever(tmp_path / "saved", model)
    assert gallery.title == "saved"
    assert sorted(found(gallery, model, tmp_path)) == ["grass", "sky", "sun"]
    assert gallery.picture(nearest(gallery, model, tmp_path)[0], None).size == (600, 400)


def test_pictures_of_a_retriever_that_lie_nowhere_have_names_all_the_same(model, tmp_path):
    retriever = SketchRetriever(model)
    retriever.add([Image.new("RGB", (60, 60), "red")], ids=["rose.png"])
    retriever.save(tmp_path / "saved")
    gallery = galleries.open_retriever(tmp_path / "saved", model)
    (hit,) = nearest(gallery, model, tmp_path)
    assert gallery.name(hit) == "rose"
    with pytest.raises(PictureError, match=r"rose\.png"):
        gallery.thumbnail(hit)


@pytest.fixture
def three_emoji(monkeypatch):
    pytest.importorskip("resvg_py")
    three = [
        openmoji.Emoji("1F34E", "red apple"),
        openmoji.Emoji("1F41F", "fish"),
        openmoji.Emoji("2602", "umbrella"),
    ]
    monkeypatch.setattr(openmoji, "load_openmoji", lambda: three)


def test_codes_of_this_model_need_no_place_to_keep_others(three_emoji, model, tmp_path, monkeypatch, capsys):
    codes = tmp_path / "codes"
    galleries.encode_openmoji(model, "exact", ["1F34E", "1F41F", "2602"]).save(codes)
    monkeypatch.setattr(huggingface_hub, "cached_assets_path", refuse)
    gallery = galleries.open_openmoji(model, codes=codes)
    names = found(gallery, model, tmp_path)
    assert len(names) == 3
    assert capsys.readouterr().out == ""


def test_emoji_are_opened_without_a_place_to_keep_codes(three_emoji, model, tmp_path, read_only_home, encoded, capsys):
    gallery = galleries.open_openmoji(model, codes=tmp_path / "missing")
    assert len(gallery.index) == 3
    assert encoded == [3]
    assert capsys.readouterr().out.count("codes are not kept for the next time") == 1


def test_codes_of_this_model_are_used(three_emoji, model, tmp_path, encoded):
    codes = tmp_path / "codes"
    galleries.encode_openmoji(model, "exact", ["1F34E", "1F41F", "2602"]).save(codes)
    encoded.clear()
    gallery = galleries.open_openmoji(model, codes=codes)
    names = found(gallery, model, tmp_path)
    assert encoded == []
    assert sorted(names) == ["fish", "red apple", "umbrella"]
    hit = nearest(gallery, model, tmp_path)[0]
    assert gallery.picture(hit, None).size == (1024, 1024)
    assert open_jpeg(gallery.thumbnail(hit)).size == (256, 256)


@pytest.mark.parametrize("fault", ["another model", "other emoji", "damaged", "missing"])
def test_other_codes_are_not_used_and_new_ones_kept(three_emoji, tmp_path, encoded, fault):
    codes = tmp_path / "codes"
    mine = tiny_model(seed=["another model", "other emoji", "damaged", "missing"].index(fault) + 2, bits=64)
    if fault == "another model":
        galleries.encode_openmoji(tiny_model(bits=64), "exact", ["1F34E", "1F41F", "2602"]).save(codes)
    elif fault == "other emoji":
        galleries.encode_openmoji(mine, "exact", ["1F34E", "1F41F", "1F431"]).save(codes)
    elif fault == "damaged":
        codes.mkdir()
        (codes / "retriever.json").write_bytes(b"no manifest")
    encoded.clear()
    for _ in range(2):
        gallery = galleries.open_openmoji(mine, codes=codes)
        assert gallery.index.fingerprint == mine.fingerprint
        assert gallery.index.search(mine.encode_images([openmoji.render_emoji("2602")])[0], 1)[1] == ["2602"]
    assert encoded.count(3) == 1  # of the two starts, the first alone


def test_says_where_the_pictures_come_from(three_emoji, model):
    about = galleries.open_openmoji(model).about
    assert "openmoji.org" in about
    assert "CC BY-SA 4.0" in about
