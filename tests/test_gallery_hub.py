"""A gallery on the Hub: sent with a card and without this machine's paths, opened by name like a model."""

import json

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from loopback_hub import Fault, LoopbackHub
from PIL import Image
from tiny_checkpoint import tiny_model

from dsh_hf import SketchRetriever, sending
from dsh_hf.index import IndexMismatchError
from dsh_hf.retrieval import RetrieverError

REPO = "org/gallery"
KEY = f"datasets/{REPO}"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name in ("cats/a.png", "dogs/b.png", "c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"torn")
    return folder


@pytest.fixture
def retriever(photos, model):
    return SketchRetriever.from_folder(photos, model)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(sending, "WAITS", (0.0, 0.0))
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home", token=hub.token)
        yield hub


def sent(hub, revision="main"):
    return hub.repos[KEY].files(revision)


def test_a_gallery_is_opened_by_name(hub, retriever, photos, model, tmp_path):
    address = retriever.push_to_hub(REPO)
    assert address.startswith(hub.url)
    opened = SketchRetriever.from_pretrained(REPO, model, cache_dir=tmp_path / "elsewhere")
    query = photos / "c.png"
    there = [(hit.id, hit.distance, hit.source, hit.metadata) for hit in opened.search_image(query)]
    assert there == [(hit.id, hit.distance, hit.id, hit.metadata) for hit in retriever.search_image(query)]


def test_files_have_names_of_their_own(hub, retriever):
    retriever.push_to_hub(REPO)
    assert set(sent(hub)) == {".gitattributes", "README.md", "index.safetensors", "items.parquet", "retriever.json"}


def test_sources_are_places_inside_the_folder_and_nothing_tells_this_machine(hub, retriever, model, photos, tmp_path):
    sources = {
        str(photos / "c.png"): "c.png",
        "cats/a.png": "cats/a.png",
        "https://example.org/x.png": "https://example.org/x.png",
        r"C:\photos\x.png": "x.png",
        "file:///home/me/x.png": "x.png",
        "~/x.png": "x.png",
        f"zip://in/x.png::{tmp_path}/photos.zip": "x.png",
        "zip://x.png::https://example.org/x.zip": "zip://x.png::https://example.org/x.zip",
    }
    code = np.zeros((len(sources), 8), np.uint8)
    retriever.add_codes(code, [f"added {number}" for number in range(len(sources))], list(sources))
    here = retriever.search_code(code[0], k=20)
    retriever.push_to_hub(REPO)
    opened = SketchRetriever.from_pretrained(REPO, model)
    there = opened.search_code(code[0], k=20)
    for before, after in zip(here, there, strict=True):
        assert after.source == (sources[before.source] if before.id.startswith("added") else before.id)
    for name, content in sent(hub).items():
        assert str(tmp_path).encode() not in content, name
        assert b"broken.png" not in content, name
    assert opened.folder is None
    assert opened.skipped == {}
    assert retriever.search_code(code[0], k=20) == here  # here all is as it was
    opened.push_to_hub("org/again")
    again = SketchRetriever.from_pretrained("org/again", model)
    assert again.search_code(code[0], k=20) == there


def test_metadata_and_outputs_travel_along(hub, photos, model):
    retriever = SketchRetriever.from_folder(photos, model, keep_outputs=True)
    retriever.push_to_hub(REPO)
    opened = SketchRetriever.from_pretrained(REPO, model)
    query = photos / "c.png"
    there = opened.search_image(query, where={"label": "cats"}, rerank=3)
    here = retriever.search_image(query, where={"label": "cats"}, rerank=3)
    assert [(hit.id, hit.score, hit.metadata) for hit in there] == [(hit.id, hit.score, hit.metadata) for hit in here]


def test_the_card_tells_what_it_is(hub, retriever, model):
    retriever.push_to_hub(REPO, model_id="org/model")
    card = sent(hub)["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert "sketch-based-image-retrieval" in front["tags"]
    for part in ("3 pictures", "64" if model.config.bits == 64 else "60 bits", model.fingerprint, "exact", "label"):
        assert part in card
    assert 'SketchRetriever.from_pretrained("org/gallery", model)' in card
    assert 'DSHModel.from_pretrained("org/model")' in card
    assert "The pictures themselves are not included" in card


def test_the_items_are_a_data_set(hub, retriever, tmp_path):
    retriever.push_to_hub(REPO)
    (tmp_path / "items.parquet").write_bytes(sent(hub)["items.parquet"])
    rows = load_dataset("parquet", data_files=str(tmp_path / "items.parquet"), cache_dir=tmp_path)["train"]
    assert sorted(rows["id"]) == ["c.png", "cats/a.png", "dogs/b.png"]


def test_a_second_push_replaces_the_first(hub, retriever, model, photos):
    retriever.push_to_hub(REPO)
    retriever.add([photos / "c.png"], ["added"])
    retriever.push_to_hub(REPO)
    assert len(sent(hub)) == 5
    assert len(SketchRetriever.from_pretrained(REPO, model)) == 4


def test_a_private_gallery_is_closed_to_others(hub, retriever, model):
    retriever.push_to_hub(REPO, private=True)
    assert hub.repos[KEY].private
    with pytest.raises(RetrieverError, match="private: log in"):
        SketchRetriever.from_pretrained(REPO, model, token=False)
    assert len(SketchRetriever.from_pretrained(REPO, model, token=hub.token)) == 3


def test_a_private_push_never_lands_in_a_public_repository(hub, retriever):
    HfApi(token=hub.token).create_repo(REPO, repo_type="dataset")
    with pytest.raises(ValueError, match="is public"):
        retriever.push_to_hub(REPO, private=True)
    assert list(sent(hub)) == [".gitattributes"]


def test_a_branch_takes_the_push(hub, retriever, model):
    retriever.push_to_hub(REPO, revision="v2")
    assert list(sent(hub)) == [".gitattributes"]
    assert len(SketchRetriever.from_pretrained(REPO, model, revision="v2")) == 3


def test_a_pull_request_leaves_main_as_it_is(hub, retriever, model):
    assert "/discussions/1" in retriever.push_to_hub(REPO, create_pr=True)
    assert list(sent(hub)) == [".gitattributes"]
    assert len(SketchRetriever.from_pretrained(REPO, model, revision="refs/pr/1")) == 3
    with pytest.raises(ValueError, match="leave out revision or create_pr"):
        retriever.push_to_hub(REPO, create_pr=True, revision="v2")


def test_a_server_that_fails_now_and_then_is_put_up_with(hub, retriever, model):
    hub.faults = [
        Fault("POST /api/repos/create", 502),
        Fault("POST /api/datasets/org/gallery/branch", "cut"),
        Fault("POST /api/datasets/org/gallery/commit", 503),
        Fault("GET /datasets/org/gallery/resolve", "half"),
    ]
    retriever.push_to_hub(REPO, revision="v2")
    assert [fault.request for fault in hub.faults if fault.times] == []
    assert hub.repos[KEY].messages == ["initial commit", "Upload a gallery of 3 pictures"]


def test_a_server_that_dies_leaves_the_gallery_as_it_was(hub, retriever, photos, model):
    retriever.push_to_hub(REPO)
    before = sent(hub)
    retriever.add([photos / "c.png"], ["added"])
    hub.faults = [Fault("POST /api/datasets/org/gallery/commit", "die")]
    with pytest.raises(HTTPError):
        retriever.push_to_hub(REPO)
    assert sent(hub) == before
    hub.start_again()
    retriever.push_to_hub(REPO)
    assert len(SketchRetriever.from_pretrained(REPO, model)) == 4


def test_a_pull_request_is_not_opened_twice(hub, retriever):
    hub.faults = [Fault("POST /api/datasets/org/gallery/commit", "half")]
    with pytest.raises(HTTPError):
        retriever.push_to_hub(REPO, create_pr=True)
    assert list(hub.repos[KEY].refs) == ["main", "refs/pr/1"]


def test_another_content_on_the_hub_is_found_out(hub, retriever, monkeypatch):
    upload = HfApi.upload_folder

    def upload_and_exchange(api, **options):
        commit = upload(api, **options)
        sent(hub)["items.parquet"] = b"something else"
        return commit

    monkeypatch.setattr(HfApi, "upload_folder", upload_and_exchange)
    with pytest.raises(RuntimeError, match=r"org/gallery: items\.parquet is not there as it was sent"):
        retriever.push_to_hub(REPO)


def test_offline_only_what_was_downloaded_opens(hub, retriever, model, tmp_path):
    retriever.push_to_hub(REPO)
    with pytest.raises(RetrieverError, match="not in the local cache"):
        SketchRetriever.from_pretrained(REPO, model, local_files_only=True, cache_dir=tmp_path / "cache")
    SketchRetriever.from_pretrained(REPO, model, cache_dir=tmp_path / "cache")
    asked = len(hub.requests)
    opened = SketchRetriever.from_pretrained(REPO, model, local_files_only=True, cache_dir=tmp_path / "cache")
    assert (len(opened), len(hub.requests)) == (3, asked)


def test_another_model_is_refused(hub, retriever):
    retriever.push_to_hub(REPO)
    with pytest.raises(IndexMismatchError, match="model"):
        SketchRetriever.from_pretrained(REPO, tiny_model(seed=1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./none", "no such folder"),
        ("none", "no such folder"),
        ("org/none", "no such folder here, and no such data set on the Hub"),
        ("org/bad--name", "neither a folder nor a Hub id"),
        ("org/other", "is not a dsh_hf gallery: it lacks retriever.json"),
    ],
)
def test_what_is_no_gallery_is_named(hub, model, name, message):
    HfApi(token=hub.token).create_repo("org/other", repo_type="dataset")
    with pytest.raises(RetrieverError, match=message):
        SketchRetriever.from_pretrained(name, model)


def test_a_missing_revision_is_named(hub, retriever, model):
    retriever.push_to_hub(REPO)
    with pytest.raises(RetrieverError, match="no revision 'v9'"):
        SketchRetriever.from_pretrained(REPO, model, revision="v9")


def test_a_manifest_that_leads_elsewhere_is_refused(hub, retriever, model):
    retriever.push_to_hub(REPO)
    manifest = sent(hub)["retriever.json"]
    sent(hub)["retriever.json"] = manifest.replace(b'"items.parquet"', b'"../../items.parquet"')
    with pytest.raises(RetrieverError, match="no file beside it"):
        SketchRetriever.from_pretrained(REPO, model)


@pytest.mark.parametrize("index", [None, "README.md"])
def test_no_connection_is_made_to_a_server_that_a_download_names(hub, retriever, model, monkeypatch, index):
    def connect(*args, **options):
        pytest.fail("a connection was made")

    retriever.push_to_hub(REPO)
    named = {"engine": "postgresql://me:secret@stranger.example.org/photos", "index": index, "sha256": {}}
    sent(hub)["retriever.json"] = json.dumps(json.loads(sent(hub)["retriever.json"]) | named).encode()
    monkeypatch.setattr("dsh_hf.gallery.store.open_index", connect)
    with pytest.raises(RetrieverError, match="names a server for its codes, postgresql://me@stranger"):
        SketchRetriever.from_pretrained(REPO, model)


def test_a_saved_gallery_opens_by_its_folder_too(retriever, model, tmp_path):
    retriever.save(tmp_path / "gallery")
    assert len(SketchRetriever.from_pretrained(tmp_path / "gallery", model)) == 3
