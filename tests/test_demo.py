"""The demo's page as programs see it: its two endpoints, what it serves, and its command line."""

import base64
import re
import time
from pathlib import Path

import httpx
import huggingface_hub
import pytest
from demo_parts import DEMO, draw, make_photos
from gradio_client import Client, handle_file
from PIL import Image
from tiny_checkpoint import tiny_model, write_checkpoint

# isort: split
import app
import card
import gradio as gr
import page
from answers import HINT
from api import Endpoints
from events import Events
from galleries import Gallery, open_folder


@pytest.fixture(scope="module")
def model():
    return tiny_model(bits=64)


@pytest.fixture(scope="module", autouse=True)
def assets(tmp_path_factory):
    """Keep what is cached in a folder of this test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub, "cached_assets_path", lambda *_: tmp_path_factory.mktemp("assets"))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture(scope="module")
def gallery(photos, model):
    return open_folder(photos, model)


@pytest.fixture(scope="module")
def other(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    Image.new("RGB", (60, 60), "red").save(folder / "rose.png")
    return open_folder(folder, model)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), model)


@pytest.fixture(scope="module")
def url(gallery, other, model, checkpoint):
    demo = page.build_page(model, [gallery, other], str(checkpoint))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **page.LAUNCH)
    yield url
    demo.close()


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def test_a_bare_file_is_searched_with(client, gallery, model, tmp_path):
    drawing = draw(tmp_path)
    pictures, answer = client.predict(handle_file(drawing), api_name="/search")
    hits = gallery.retriever.search(drawing, 12, rerank=200)
    rows = [(hit.id, Path(hit.id).parent.name, hit.distance) for hit in hits]
    assert [(hit["id"], hit["name"], hit["distance"]) for hit in answer["hits"]] == rows
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in hits], abs=1e-5)
    captions = [f"{name} · {distance} {'bit' if distance == 1 else 'bits'}" for _, name, distance in rows]
    assert [picture["caption"] for picture in pictures] == captions
    assert Image.open(pictures[0]["image"]).size == (256, 171)  # a small copy
    told = {"gallery": "photos", "items": 3, "bits": 64, "engine": "exact", "device": "cpu"}
    assert {key: answer[key] for key in told} == told
    assert answer["encode_ms"] > 0 and answer["search_ms"] > 0


def test_gallery_and_number_of_results_are_chosen(client, other, tmp_path):
    drawing = handle_file(draw(tmp_path))
    _, answer = client.predict(drawing, 1, api_name="/search")
    assert len(answer["hits"]) == 1
    _, answer = client.predict(drawing, 5, other.title, api_name="/search")
    assert [hit["name"] for hit in answer["hits"]] == ["rose"]


def test_gives_the_code_of_a_drawing(client, model, tmp_path):
    drawing = draw(tmp_path)
    told = client.predict(handle_file(drawing), api_name="/encode")
    code = model.encode_sketches(drawing)
    assert told == {
        "code": code.tolist(),
        "hex": code.tobytes().hex(),
        "bits": 64,
        "fingerprint": model.fingerprint,
    }


def test_the_endpoints_are_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/search", "/encode"]
    search = endpoints["/search"]
    assert [given["parameter_name"] for given in search["parameters"]] == ["drawing", "count", "gallery"]
    assert [given["python_type"]["type"] for given in search["parameters"][1:]] == [
        "float",
        "Literal['photos', 'other0']",
    ]
    assert "nearest to a drawing" in search["description"]
    assert "code" in endpoints["/encode"]["description"]


def test_an_empty_drawing_is_told_and_none_gives_a_hint(client, tmp_path):
    Image.new("L", (200, 200), 255).save(tmp_path / "empty.png")
    empty = "empty.png is empty: no ink was found on it."
    for drawing, message in ((handle_file(tmp_path / "empty.png"), empty), (None, HINT)):
        pictures, answer = client.predict(drawing, 2, api_name="/search")
        assert (pictures, answer["hits"], answer["message"]) == ([], [], message)
        with pytest.raises(Exception, match=re.escape(message)):
            client.predict(drawing, api_name="/encode")


@pytest.mark.parametrize("port", ["0", "99999", "-1", "http"])
def test_a_port_that_is_none_is_refused_at_once(port, capsys):
    with pytest.raises(SystemExit):
        app._parser().parse_args([f"--port={port}"])
    assert f"'{port}' is no port: give a number from 1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("letter.png", b"Dear Madam,", "letter.png is not a picture that can be read"),
        ("half.png", None, "half.png is damaged or truncated"),
        ("cat.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "cat.svg is not a picture"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(client, tmp_path, name, content, reason):
    whole = draw(tmp_path).read_bytes()
    (tmp_path / name).write_bytes(content or whole[: len(whole) // 2])
    pictures, answer = client.predict(handle_file(tmp_path / name), 2, api_name="/search")
    assert pictures == []
    assert answer["message"].startswith(reason)


def test_serves_neither_the_gallery_nor_anything_else_as_files(url, photos, checkpoint):
    for path in (photos / "sky" / "1.jpg", checkpoint / "config.json", DEMO / "app.py", Path("/etc/passwd")):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404)
        assert httpx.get(f"{url}gradio_api/file={DEMO}/../{path}").status_code in (403, 404)


@pytest.mark.parametrize("endpoint", ["search", "encode"])
def test_reads_only_what_was_uploaded(url, tmp_path, endpoint):
    drawing = draw(tmp_path)
    for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
        data = [{"path": str(drawing), **meta}, 2, None][: 3 if endpoint == "search" else 1]
        event = httpx.post(f"{url}gradio_api/call/{endpoint}", json={"data": data}).json()["event_id"]
        told = httpx.get(f"{url}gradio_api/call/{endpoint}/{event}").text
        assert "event: error" in told or "only uploaded files are used" in told
        assert "distance" not in told


@pytest.fixture
def asked(monkeypatch):
    """Note what the server would ask other servers for."""
    from gradio import processing_utils, route_utils

    hosts = []

    async def look_up(host, *_, **__):
        hosts.append(host)
        raise OSError("no network")

    monkeypatch.setattr(processing_utils.sh, "get", look_up)
    monkeypatch.setattr(route_utils.safehttpx, "async_validate_url", look_up)
    return hosts


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("address", ["http://example.com/cat.png", "https://169.254.169.254/latest/meta-data"])
def test_an_address_in_place_of_a_file_is_not_asked_for(url, asked, place, address):
    data = [None, 2, None]
    data[place] = {"path": address, "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{url}gradio_api/call/search", json={"data": data}).json()["event_id"]
    told = httpx.get(f"{url}gradio_api/call/search/{event}").text
    assert asked == []
    assert "event: error" in told
    assert "only uploaded files are used" in told


def test_nothing_is_fetched_from_elsewhere_for_anybody(url, asked):
    assert httpx.get(f"{url}gradio_api/file=http://example.com/cat.png").status_code == 403
    assert asked == []


@pytest.mark.parametrize("count", [0, 49, -1, 2.5, "many", None])
def test_a_wrong_number_of_results_is_told_with_the_range(events, count):
    with pytest.raises(gr.Error, match="count is a whole number from 1 to 48"):
        Endpoints(events).search(None, count)


@pytest.mark.parametrize("title", ["no such", "", 7, ["photos"]])
def test_the_galleries_are_named_where_there_is_no_such_one(events, title):
    with pytest.raises(gr.Error, match="no such gallery; there are: photos, other0"):
        Endpoints(events).search(None, 12, title)


def test_a_file_larger_than_the_limit_is_refused(url):
    files = {"files": ("large.png", b"x" * 13_000_000)}
    assert httpx.post(f"{url}gradio_api/upload", files=files).status_code == 413


def test_uploads_and_results_are_deleted(gallery, model, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    monkeypatch.setattr(page, "UPLOADS_KEPT", (1, 2))
    demo = page.build_page(model, [gallery])
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **page.LAUNCH)

    def served():
        return [file for file in (tmp_path / "served").rglob("*") if file.is_file()]

    try:
        asked = Client(url, verbose=False, download_files=False)
        pictures, _ = asked.predict(handle_file(draw(tmp_path)), 2, api_name="/search")
        assert [Path(each["image"]["path"]).is_relative_to(tmp_path / "served") for each in pictures] == [True, True]
        patience = time.monotonic() + 60
        while served() and time.monotonic() < patience:
            time.sleep(0.2)
        assert served() == []
    finally:
        demo.close()


@pytest.fixture
def events(model, gallery, other):
    return Events(model, [gallery, other])


STROKES = [[20, 20, 80, 20, 50, 80, 20, 20]]


def test_the_page_tells_which_drawing_an_answer_is_for(events):
    html, answer = events.draw(STROKES, 2, "photos", ())
    assert 'data-drawn="8"' in html
    assert len(answer.results) == 2


def test_an_unknown_gallery_is_the_first_one(events):
    assert events.draw(STROKES, 2, "no such", ())[1].gallery.title == "photos"


def test_the_same_drawing_is_searched_with_in_another_gallery(events):
    _, answer = events.draw(STROKES, 2, "photos", ())
    html, again = events.again(5, "other0", (), answer)
    assert again.query is answer.query
    assert "rose" in html


def test_ten_thousand_strokes_and_pure_ink_break_nothing(events):
    many = [[n % 100, n // 100, (n + 3) % 100, n // 100] for n in range(10_000)]
    assert "data-drawn" in events.draw(many, 2, "photos", ())[0]
    full = [[0, y / 2, 100, y / 2] for y in range(200)]
    assert "data-drawn" in events.draw(full, 2, "photos", ())[0]


@pytest.mark.parametrize("strokes", [7, "ab", [[1]], [[]], [["x", "y"]], [[1e999, 0]], {"a": 1}])
def test_what_is_no_drawing_is_answered_in_one_line(events, strokes):
    html, answer = events.draw(strokes, 2, "photos", ())
    assert answer.results == ()
    assert "This is no drawing" in html


@pytest.mark.parametrize("place", [None, -1, 2, 10**9, "0", 0.5, [0]])
def test_only_results_are_opened(events, place):
    _, answer = events.draw(STROKES, 2, "photos", ())
    key = answer.results[0].key
    assert "have changed" in events.open(place, key, answer)
    assert "have changed" in events.open(0, key, None)


def test_a_click_on_an_older_answer_opens_no_other_picture(events):
    html, older = events.draw(STROKES, 2, "photos", ())
    key = older.results[0].key
    assert f'data-place="0" data-id="{key}"' in html
    _, newer = events.again(2, "other0", (), older)
    for wrong in (key, older.results[1].key, None, 0):
        assert "have changed" in events.open(0, wrong, newer)
    assert "rose" in events.open(0, newer.results[0].key, newer)


def test_all_that_gives_an_answer_waits_in_one_line(gallery, model):
    """Else two searches of one visit run at once, and the last to finish is shown, not the last to be asked for."""
    functions = page.build_page(model, [gallery]).fns.values()
    lines = {one.name: (one.concurrency_id, one.concurrency_limit) for one in functions}
    assert lines["draw"] == lines["upload"] == lines["again"] == ("search", 1)
    assert lines["add"][0] != lines["open_result"][0] != "search"


def test_a_result_is_opened_in_full_size_with_the_reason(events):
    _, answer = events.draw(STROKES, 2, "photos", ())
    html = events.open(0, answer.results[0].key, answer)
    (jpeg,) = [part.partition('"')[0] for part in html.split('class="original" src="data:image/jpeg;base64,')[1:]]
    assert page_picture(jpeg).size == (600, 400)
    assert "lines that the network sees" in html
    assert html.count("<svg") == 2


def page_picture(text):
    import io

    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_why_is_told_of_the_first_result_and_of_none_where_there_is_none(events):
    _, answer = events.draw(STROKES, 2, "photos", ())
    assert f"Why {answer.results[0].name}?" in events.why(answer)
    assert events.why(events.draw([], 2, "photos", ())[1]) == events.why(None) == ""


def test_the_cards_figures_are_found_and_absent_ones_left_out(checkpoint, tmp_path):
    assert set(card.card_files(str(checkpoint))) == {"evaluation.json"}
    Image.new("RGB", (9, 9)).save(tmp_path / "sheet.png")
    assert set(card.card_files(str(tmp_path))) == {"sheet.png"}
    told = card.read_numbers(checkpoint / "evaluation.json")
    assert "mAP **0.512**" in told and "precision@10 **0.600**" in told
    for content in ("{", "[]", "{}"):
        (tmp_path / "evaluation.json").write_text(content)
        assert card.read_numbers(tmp_path / "evaluation.json") == ""
    assert card.read_numbers(None) == ""


def test_a_damaged_figure_of_a_card_does_not_stop_the_start(gallery, model, tmp_path):
    Image.effect_noise((99, 99), 50).save(tmp_path / "sheet.png")
    whole = (tmp_path / "sheet.png").read_bytes()
    (tmp_path / "tokens.png").write_bytes(b"no picture")
    (tmp_path / "pr_curve.png").write_bytes(whole[: len(whole) // 2])
    shown = [
        getattr(block, "value", None) for block in page.build_page(model, [gallery], str(tmp_path)).blocks.values()
    ]
    assert card.FIGURES["sheet.png"] in shown
    assert card.FIGURES["tokens.png"] not in shown
    assert card.FIGURES["pr_curve.png"] not in shown


def test_two_galleries_of_one_name_are_told_apart(model, tmp_path):
    folders = [str(make_photos(tmp_path / part / "photos")) for part in "ab"]
    args = app._parser().parse_args(["--gallery", folders[0], "--gallery", folders[1]])
    opened = app.open_galleries(args, model)
    assert [gallery.title for gallery in opened] == ["photos", "photos (2)"]
    assert all(isinstance(gallery, Gallery) for gallery in opened)


def test_all_kinds_of_galleries_are_opened_in_the_order_of_the_command_line(model, photos, tmp_path, monkeypatch):
    from dsh_hf import SketchRetriever

    SketchRetriever.from_folder(photos, model).save(tmp_path / "saved")
    monkeypatch.setattr(app, "open_openmoji", lambda model, engine: Gallery("OpenMoji", "", None, None, None))
    line = ["--dataset", str(photos), "--gallery", "openmoji", "--gallery", str(photos)]
    args = app._parser().parse_args([*line, "--retriever", str(tmp_path / "saved")])
    assert [one.title for one in app.open_galleries(args, model)] == ["OpenMoji", "photos", str(photos), "saved"]
    assert [one.title for one in app.open_galleries(app._parser().parse_args([]), model)] == ["OpenMoji"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--checkpoint", "./nowhere"], "./nowhere: no such folder"),
        (["--checkpoint", "CHECKPOINT", "--gallery", "nowhere"], "nowhere: no such folder"),
        (["--checkpoint", "CHECKPOINT", "--dataset", "./nowhere"], "./nowhere: no such file or folder"),
        (["--checkpoint", "CHECKPOINT", "--retriever", "./nowhere"], "nowhere"),
        (["--checkpoint", "CHECKPOINT", "--bits", "7"], "makes codes of 64 bits, not 7"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, reason, checkpoint, capsys):
    assert app.main([str(checkpoint) if part == "CHECKPOINT" else part for part in arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.startswith("app.py: ")
    assert error.count("\n") == 1


def test_the_space_starts_the_app():
    from huggingface_hub import RepoCard

    said = RepoCard.load(DEMO / "README.md", repo_type="space").data
    assert (DEMO / said.app_file).is_file()
    assert said.sdk == "gradio"
    assert len(said.short_description) <= 60
