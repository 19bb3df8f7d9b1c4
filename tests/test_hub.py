"""Downloading: one line says what is wrong and the way out, at once; what stumbles is tried again."""

import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from loopback_hub import Fault, LoopbackHub, Repo

from dsh_hf.hub import DownloadError, download

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 400, "more/notes.txt": b"notes"}
WEIGHTS = "/org/model/resolve/[^/]+/model.safetensors"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home")
        hub.repos["org/model"] = Repo()
        hub.repos["org/model"].commit("main", dict(FILES), "first")
        yield hub


def get(name: str = "org/model", **options) -> Path:
    return download(name, ["config.json", "model.safetensors"], what="a checkpoint", **options)


def complaint(**options) -> str:
    with pytest.raises(DownloadError) as caught:
        get(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_files_come_as_they_lie_there(hub):
    folder = get()
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert (folder / "config.json").read_bytes() == b"{}"
    assert not (folder / "more").exists()


def test_a_file_in_a_folder_lies_in_that_folder(hub):
    folder = download("org/model", ["more/notes.txt", "config.json"], what="a checkpoint")
    assert (folder / "more" / "notes.txt").read_bytes() == b"notes"
    assert (folder / "config.json").is_file()


def test_a_data_set_has_a_name_of_its_own(hub):
    hub.repos["datasets/org/model"] = Repo()
    hub.repos["datasets/org/model"].commit("main", {"config.json": b"[]"}, "first")
    folder = download("org/model", ["config.json"], what="a data set", repo_type="dataset")
    assert (folder / "config.json").read_bytes() == b"[]"
    hub.repos["datasets/org/model"].gated = True
    with pytest.raises(DownloadError, match=f"accept its terms at {hub.url}/datasets/org/model, then log in"):
        download("org/model", ["config.json"], what="a data set", repo_type="dataset", cache_dir=folder)


def test_a_push_in_between_does_not_mix_two_commits(hub, monkeypatch):
    repo, fetch = hub.repos["org/model"], huggingface_hub.hf_hub_download
    first = repo.refs["main"]

    def fetch_and_let_someone_push(*args, **options):
        path = fetch(*args, **options)
        repo.commit("main", FILES | {"model.safetensors": b"newer"}, "second")
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch_and_let_someone_push)
    folder = get()
    assert folder.name == first
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_what_is_in_the_cache_is_not_downloaded_again(hub):
    get()
    hub.requests.clear()
    get()
    assert hub.requests and all(request.startswith("HEAD ") for request in hub.requests)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "bad name/x"}, "bad name/x is neither a folder nor a Hub id like org/name"),
        (
            {"name": "org/none"},
            "org/none: no such folder here, and no such repository on the Hub (or it is private: log in with "
            "`hf auth login` or pass token=)",
        ),
        ({"revision": "v9"}, "org/model has no revision 'v9' on the Hub: look at its branches and tags"),
        (
            {"token": "hf_wrong"},
            "org/model: the Hub answered 401 (Invalid credentials in Authorization header): log in anew with "
            "`hf auth login`, or pass another token=",
        ),
    ],
)
def test_what_was_asked_for_wrongly_is_told_with_the_way_out(hub, options, message):
    assert complaint(**options) == message


def test_a_repository_of_something_else_is_told(hub):
    hub.repos["org/other"] = Repo()
    hub.repos["org/other"].commit("main", {"pytorch_model.bin": b""}, "first")
    assert complaint(name="org/other") == (
        "org/other on the Hub is not a checkpoint: it lacks config.json or model.safetensors"
    )


def test_a_private_repository_opens_with_the_token_alone(hub):
    hub.repos["org/model"].private = True
    assert "or it is private: log in" in complaint()
    assert (get(token=hub.token) / "config.json").is_file()


@pytest.mark.parametrize("signed_in", [False, True])
def test_a_gated_repository_is_told_with_the_page_where_to_ask(hub, signed_in):
    hub.repos["org/model"].gated = True
    told = complaint(token=hub.token if signed_in else False)
    assert told.startswith(f"org/model is gated: accept its terms at {hub.url}/org/model, then log in")


# Without a network


@pytest.fixture
def unanswered(monkeypatch):
    """Waiting for a retry is what must not happen."""

    def wait(seconds):
        raise AssertionError(f"the client waits {seconds} s before it asks again")

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", wait)


def test_a_hub_that_is_not_there_is_told_at_once(hub, unanswered):
    hub.stop()
    told = complaint()
    assert told.startswith("org/model: no such folder here, it is not in the local cache, and the Hub was not reached")
    assert hub.url in told and told.endswith("check the name and the network")
    assert len(hub.requests) == 0


def test_a_hub_that_is_not_there_is_not_needed_for_what_is_in_the_cache(hub, unanswered):
    folder = get()
    hub.stop()
    assert get() == folder
    assert get(revision=folder.name) == folder
    assert "it is not in the local cache" in complaint(revision="v2")


def test_half_a_download_is_not_taken_for_a_whole_one(hub, unanswered):
    download("org/model", ["config.json"], what="a config")
    hub.stop()
    assert "it is not in the local cache" in complaint()


@pytest.mark.parametrize("how", ["local_files_only", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked(hub, monkeypatch, how):
    options = {"local_files_only": True} if how == "local_files_only" else {}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not options)
    assert complaint(**options).endswith(
        "and the Hub is not to be asked: leave out local_files_only=True and HF_HUB_OFFLINE once"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = get()
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not options)
    assert get(**options) == folder
    assert hub.requests == []


def test_offline_by_the_environment_in_a_process_of_its_own(hub, tmp_path):
    code = "from dsh_hf.hub import download; print(download('org/model', ['config.json'], what='a config'))"
    env = hub.env(tmp_path / "own") | {"PYTHONPATH": str(Path(__file__).parents[1])}

    def run(**more: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", code], env=env | more, capture_output=True, text=True)

    assert "is not to be asked" in run(HF_HUB_OFFLINE="1").stderr
    folder = run().stdout
    hub.requests.clear()
    assert run(HF_HUB_OFFLINE="1").stdout == folder
    assert hub.requests == []


# With a bad one


def test_a_server_that_stumbles_is_asked_again(hub):
    hub.faults = [Fault("HEAD /org/model", 503, times=2), Fault(f"GET {WEIGHTS}", "half")]
    assert (get() / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert all(fault.times == 0 for fault in hub.faults)


def test_a_slow_server_is_waited_for(hub):
    hub.delay = 0.1
    assert (get() / "config.json").is_file()


def test_a_server_that_goes_on_failing_is_told(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.faults = [Fault("HEAD ", 503, times=99)]
    assert "and the Hub was not reached" in complaint()
    hub.faults = [Fault(f"GET {WEIGHTS}", 500)]
    assert complaint() == "org/model: the Hub answered 500 (out of order): try again later"
