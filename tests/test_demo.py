import functools
import os
import re
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from PIL import Image, ImageDraw
from tiny_checkpoint import tiny_model

pytest.importorskip("gradio", reason='the demo needs gradio: pip install "dsh-hf[demo]"')
DEMO = Path(__file__).resolve().parents[1] / "demo"
sys.path.insert(0, str(DEMO))

import app  # noqa: E402
import httpx  # noqa: E402
import sketchpad  # noqa: E402
from gradio_client import Client, handle_file  # noqa: E402

from dsh_hf import DSHModel  # noqa: E402
from dsh_hf.data import openmoji  # noqa: E402


def draw(folder, name="drawing.png"):
    paper = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(paper).polygon([(30, 40), (170, 60), (90, 160)], outline=0, width=5)
    paper.save(folder / name)
    return folder / name


def make_photos(folder):
    for label, colour in (("sky", "navy"), ("sun", "gold"), ("grass", "green")):
        (folder / label).mkdir(parents=True)
        photo = Image.new("RGB", (600, 400), colour)
        ImageDraw.Draw(photo).ellipse((150, 100, 450, 300), fill="white")
        photo.save(folder / label / "1.jpg")
    return folder


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
    encode = DSHModel.encode_images

    def counting(self, inputs, **options):
        calls.append(len(inputs))
        return encode(self, inputs, **options)

    monkeypatch.setattr(DSHModel, "encode_images", counting)
    return calls


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def searcher(photos, model):
    return app.open_folder(photos, model)


@pytest.fixture(scope="module")
def url(searcher):
    demo = app.build_demo(searcher)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.PAGE)
    yield url
    demo.close()


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def test_gives_the_nearest_pictures_with_name_and_distance(client, searcher, tmp_path):
    drawing = draw(tmp_path)
    results, status = client.predict(handle_file(drawing), 2, api_name="/search")
    distances, ids = searcher.index.search(searcher.model.encode_sketches(drawing), 2)
    expected = [
        f"{Path(key).parent} · {distance} {'bit' if distance == 1 else 'bits'}"
        for distance, key in zip(distances, ids, strict=True)
    ]
    assert [result["caption"] for result in results] == expected
    assert re.fullmatch(r"encoded in \d+ ms, searched in [\d.]+ ms · 3 pictures · 64 bits · exact · cpu", status)


def test_shows_small_copies(client, tmp_path):
    results, _ = client.predict(handle_file(draw(tmp_path)), 1, api_name="/search")
    assert Image.open(results[0]["image"]).size == (256, 171)


def test_serves_no_files_of_the_gallery(url, photos):
    assert httpx.get(f"{url}gradio_api/file={photos}/sky/1.jpg").status_code == 403


def test_reads_only_what_was_uploaded(url, tmp_path):
    drawing = draw(tmp_path)
    for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
        data = [{"path": str(drawing), **meta}, 2]
        event = httpx.post(f"{url}gradio_api/call/search", json={"data": data}).json()["event_id"]
        assert "event: error" in httpx.get(f"{url}gradio_api/call/search/{event}").text


def test_uploads_and_results_are_deleted(searcher, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    monkeypatch.setattr(app, "UPLOADS_KEPT", (1, 2))
    demo = app.build_demo(searcher)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.PAGE)

    def served():
        return [file for file in (tmp_path / "served").rglob("*") if file.is_file()]

    try:
        Client(url, verbose=False, download_files=False).predict(handle_file(draw(tmp_path)), 2, api_name="/search")
        assert {file.suffix for file in served()} == {".png", ".jpeg"}
        patience = time.monotonic() + 20
        while served() and time.monotonic() < patience:
            time.sleep(0.2)
        assert served() == []
    finally:
        demo.close()


def test_an_empty_drawing_gives_a_hint(client, tmp_path):
    Image.new("L", (200, 200), 255).save(tmp_path / "empty.png")
    for drawing in (handle_file(tmp_path / "empty.png"), None):
        assert client.predict(drawing, 2, api_name="/search") == ([], app.HINT)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("letter.png", b"Dear Madam,", "letter.png is not a picture that can be read"),
        ("half.png", None, "half.png is damaged or truncated"),
    ],
)
def test_a_broken_file_is_named_with_the_reason(client, tmp_path, name, content, reason):
    whole = draw(tmp_path).read_bytes()
    (tmp_path / name).write_bytes(content or whole[: len(whole) // 2])
    results, status = client.predict(handle_file(tmp_path / name), 2, api_name="/search")
    assert results == []
    assert status.startswith(reason)


def test_has_one_endpoint(client):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/search"]


def test_a_number_of_results_out_of_range_is_brought_into_it(client, tmp_path):
    for count, found in ((-1, 1), (1000, 3)):
        results, _ = client.predict(handle_file(draw(tmp_path)), count, api_name="/search")
        assert len(results) == found


def test_the_second_start_encodes_nothing(model, tmp_path, encoded):
    photos = make_photos(tmp_path / "photos")
    first = app.open_folder(photos, model)
    assert encoded == [3]
    second = app.open_folder(photos, model)
    assert sum(encoded) == 3
    code = model.encode_sketches(draw(tmp_path))
    assert [list(found) for found in second.index.search(code, 3)] == [
        list(found) for found in first.index.search(code, 3)
    ]


def test_encodes_what_is_new_and_forgets_what_is_gone(model, tmp_path, encoded):
    photos = make_photos(tmp_path / "photos")
    app.open_folder(photos, model)
    encoded.clear()
    (photos / "sun" / "1.jpg").unlink()
    Image.new("RGB", (60, 60), "red").save(photos / "rose.png")
    for _ in range(2):
        assert len(app.open_folder(photos, model).index) == 3
    assert sum(encoded) == 1


def test_another_model_encodes_anew(model, tmp_path, encoded):
    photos = make_photos(tmp_path / "photos")
    app.open_folder(photos, model)
    other = tiny_model(seed=1, bits=64)
    assert app.open_folder(photos, other).index.fingerprint == other.fingerprint
    assert sum(encoded) == 6


def test_a_damaged_cache_is_made_anew(model, tmp_path, encoded, assets):
    photos = make_photos(tmp_path / "photos")
    before = set(assets.rglob("index-*"))
    app.open_folder(photos, model)
    for file in set(assets.rglob("index-*")) - before:
        file.write_bytes(b"")
    assert len(app.open_folder(photos, model).index) == 3
    assert sum(encoded) == 6


def test_takes_the_engine_asked_for(model, tmp_path):
    pytest.importorskip("hnswlib")
    assert app.open_folder(make_photos(tmp_path / "photos"), model, "hnsw").index.engine == "hnsw"


def refuse(*_, **__):
    raise PermissionError(13, "Permission denied")


@pytest.fixture(params=["no folder can be made", "the folder is read-only"])
def read_only_home(request, monkeypatch):
    if request.param == "no folder can be made":
        monkeypatch.setattr(huggingface_hub, "cached_assets_path", refuse)
    else:
        monkeypatch.setattr("dsh_hf.index.files.replaced_atomically", refuse)


def test_a_folder_is_opened_without_a_place_to_keep_codes(model, tmp_path, read_only_home, capsys):
    searcher = app.open_folder(make_photos(tmp_path / "photos"), model)
    results, _, _ = app.search_drawing(searcher, draw(tmp_path), 3)
    assert len(results) == 3
    assert capsys.readouterr().out.count("codes are not kept for the next time") == 1


def test_a_file_name_that_is_no_utf8_is_shown_all_the_same(model, tmp_path):
    photos = tmp_path / os.fsdecode(b"photos \xe9")
    try:
        make_photos(photos)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    (photos / "sun").rename(photos / os.fsdecode(b"soleil lev\xe9"))
    for _ in range(2):
        searcher = app.open_folder(photos, model)
        results, _, _ = app.search_drawing(searcher, draw(tmp_path), 3)
        assert "soleil lev\ufffd" in {caption.split(" · ")[0] for _, caption in results}
        assert searcher.about.endswith("photos \ufffd.")


def test_thumbnails_are_upright_and_on_white(model, tmp_path):
    photo = Image.new("RGBA", (800, 400), (0, 0, 0, 0))
    photo.getexif()[0x0112] = 6  # taken with the camera on its side
    photo.save(tmp_path / "clear.png", exif=photo.getexif())
    thumbnail = app.open_folder(tmp_path, model).thumbnail("clear.png")
    assert (thumbnail.mode, thumbnail.size) == ("RGB", (128, 256))
    assert thumbnail.getpixel((64, 128)) == (255, 255, 255)


def test_a_picture_that_vanished_is_left_out(model, tmp_path):
    photos = make_photos(tmp_path / "photos")
    searcher = app.open_folder(photos, model)
    (photos / "sun" / "1.jpg").unlink()
    results, _, _ = app.search_drawing(searcher, draw(tmp_path), 3)
    assert sorted(caption.split()[0] for _, caption in results) == ["grass", "sky"]


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
    codes = tmp_path / "codes.safetensors"
    app.encode_openmoji(model, "exact", ["1F34E", "1F41F", "2602"]).save(codes)
    monkeypatch.setattr(huggingface_hub, "cached_assets_path", refuse)
    searcher = app.open_openmoji(model, codes=codes)
    results, _, _ = app.search_drawing(searcher, draw(tmp_path), 3)
    assert len(results) == 3
    assert capsys.readouterr().out == ""


def test_emoji_are_opened_without_a_place_to_keep_codes(three_emoji, model, tmp_path, read_only_home, encoded, capsys):
    searcher = app.open_openmoji(model, codes=tmp_path / "missing")
    assert len(searcher.index) == 3
    assert encoded == [3]
    assert capsys.readouterr().out.count("codes are not kept for the next time") == 1


def test_codes_of_this_model_are_used(three_emoji, model, tmp_path, encoded):
    codes = tmp_path / "codes.safetensors"
    app.encode_openmoji(model, "exact", ["1F34E", "1F41F", "2602"]).save(codes)
    encoded.clear()
    searcher = app.open_openmoji(model, codes=codes)
    results, _, _ = app.search_drawing(searcher, draw(tmp_path), 3)
    assert encoded == []
    assert sorted(caption.split(" · ")[0] for _, caption in results) == ["fish", "red apple", "umbrella"]


@pytest.mark.parametrize("fault", ["another model", "other emoji", "damaged", "missing"])
def test_other_codes_are_not_used_and_new_ones_kept(three_emoji, tmp_path, encoded, fault):
    codes = tmp_path / "codes.safetensors"
    mine = tiny_model(seed=["another model", "other emoji", "damaged", "missing"].index(fault) + 2, bits=64)
    if fault == "another model":
        app.encode_openmoji(tiny_model(bits=64), "exact", ["1F34E", "1F41F", "2602"]).save(codes)
    elif fault == "other emoji":
        app.encode_openmoji(mine, "exact", ["1F34E", "1F41F", "1F431"]).save(codes)
    elif fault == "damaged":
        codes.write_bytes(b"no index")
    encoded.clear()
    for _ in range(2):
        searcher = app.open_openmoji(mine, codes=codes)
        assert searcher.index.fingerprint == mine.fingerprint
        assert searcher.index.search(mine.encode_images([openmoji.render_emoji("2602")])[0], 1)[1] == ["2602"]
    assert encoded.count(3) == 1  # of the two starts, the first alone


def test_says_where_the_pictures_come_from(three_emoji, model):
    about = app.open_openmoji(model).about
    assert "openmoji.org" in about
    assert "CC BY-SA 4.0" in about


def test_draws_strokes_black_on_white():
    picture = np.asarray(sketchpad.render_strokes([[10, 50, 90, 50]], size=200))
    assert picture.shape == (200, 200)
    assert picture[100, 30:170].max() < 60
    assert picture[:90].min() == 255


def test_a_tap_is_a_dot():
    assert np.asarray(sketchpad.render_strokes([[50, 50]])).min() < 60


def test_strokes_that_leave_the_pad_stay_at_its_edge():
    picture = np.asarray(sketchpad.render_strokes([[50, 50, 1e9, 50]], size=200))
    assert picture[100, 199] < 60


def test_a_drawing_without_end_is_cut():
    endless = [[50, 50] * sketchpad.MAX_NUMBERS]
    assert np.asarray(sketchpad.render_strokes(endless)).min() == 255


@pytest.mark.parametrize("name", sketchpad.EXAMPLES)
def test_examples_lie_on_the_pad(name):
    values = np.concatenate(sketchpad.EXAMPLES[name])
    assert 2 <= values.min() < values.max() <= 98


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--checkpoint", "./nowhere"], "./nowhere: no such folder"),
        (["--checkpoint", "CHECKPOINT", "--gallery", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_wrong_path_is_one_line(arguments, reason, model, tmp_path, capsys):
    model.save_pretrained(tmp_path)
    assert app.main([str(tmp_path) if part == "CHECKPOINT" else part for part in arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.startswith("app.py: ")
    assert error.count("\n") == 1


def test_the_space_starts_the_app():
    from huggingface_hub import RepoCard

    card = RepoCard.load(DEMO / "README.md", repo_type="space").data
    assert (DEMO / card.app_file).is_file()
    assert card.sdk == "gradio"
    assert len(card.short_description) <= 60
