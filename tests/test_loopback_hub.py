"""The loopback Hub behaves, towards the unpatched client, as the Hub does."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import (
    _CACHED_NO_EXIST,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session
from loopback_hub import Fault, LoopbackHub

WEIGHTS = bytes(range(256)) * 40
CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home")
        yield hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "model"
    (folder / "figures").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "figures" / "curve.png").write_bytes(b"png")
    return folder


@pytest.fixture
def pushed(api, folder):
    api.create_repo("org/model")
    return api.upload_folder(repo_id="org/model", folder_path=folder)


def test_a_folder_comes_back_as_it_was_sent(hub, pushed, folder):
    snapshot = Path(snapshot_download("org/model"))
    sent = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path: (snapshot / path).read_bytes() for path in sent} == sent
    assert snapshot.name == pushed.oid


def test_weights_travel_by_lfs_and_text_inside_the_commit(hub, pushed):
    assert list(hub.lfs.values()) == [WEIGHTS]
    assert sum(request.startswith("PUT /lfs/") for request in hub.requests) == 1
    assert hub.repos["org/model"].files()["README.md"] == CARD.encode()


def test_sending_the_same_again_makes_no_commit(hub, api, pushed, folder):
    hub.requests.clear()
    again = api.upload_folder(repo_id="org/model", folder_path=folder)
    assert again.oid == pushed.oid
    assert not [request for request in hub.requests if "/commit/" in request or request.startswith("PUT")]


def test_files_can_be_deleted(hub, api, pushed):
    api.delete_folder("figures", repo_id="org/model")
    assert sorted(hub.repos["org/model"].files()) == [".gitattributes", "README.md", "model.safetensors"]
    assert "figures/curve.png" in hub.repos["org/model"].files(pushed.oid)


def test_the_tree_lists_folders_one_level_at_a_time(api, pushed):
    top = [entry.path for entry in api.list_repo_tree("org/model")]
    assert top == [".gitattributes", "README.md", "figures", "model.safetensors"]
    assert [entry.path for entry in api.list_repo_tree("org/model", "figures")] == ["figures/curve.png"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("org/model", "nowhere"))


def test_a_repository_is_created_once(api):
    api.create_repo("org/model")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("org/model")
    assert api.create_repo("org/model", exist_ok=True).repo_id == "org/model"


def test_a_download_can_be_continued(hub, pushed):
    address = f"{hub.url}/org/model/resolve/main/model.safetensors"
    part = get_session().get(address, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, WEIGHTS[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(WEIGHTS)}"
    assert get_session().get(address, headers={"Range": "bytes=999999-"}).status_code == 416


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"repo_id": "org/other", "filename": "README.md"}, RepositoryNotFoundError),
        ({"repo_id": "org/model", "filename": "none.txt"}, RemoteEntryNotFoundError),
        ({"repo_id": "org/model", "filename": "README.md", "revision": "dev"}, RevisionNotFoundError),
    ],
)
def test_what_is_missing_is_named_by_the_clients_own_exception(pushed, asked, error):
    with pytest.raises(error):
        hf_hub_download(**asked)


def test_a_missing_file_is_remembered_as_missing(pushed):
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("org/model", "none.txt")
    assert try_to_load_from_cache("org/model", "none.txt") is _CACHED_NO_EXIST


def test_weights_are_taken_only_under_their_own_checksum(hub, api):
    api.create_repo("org/model")
    oid = hashlib.sha256(WEIGHTS).hexdigest()
    assert get_session().put(f"{hub.url}/lfs/{oid}", content=b"other bytes").status_code == 400
    lines = [
        {"key": "header", "value": {"summary": "weights that were never sent"}},
        {"key": "lfsFile", "value": {"path": "w.safetensors", "algo": "sha256", "oid": oid, "size": len(WEIGHTS)}},
    ]
    address = f"{hub.url}/api/models/org/model/commit/main"
    body = "\n".join(map(json.dumps, lines)).encode()
    answer = get_session().post(address, content=body, headers={"Authorization": f"Bearer {hub.token}"})
    assert answer.status_code == 400
    assert hub.repos["org/model"].messages == ["initial commit"]


def test_a_private_repository_needs_the_token(hub, api, folder):
    api.create_repo("org/secret", private=True)
    api.upload_folder(repo_id="org/secret", folder_path=folder)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("org/secret", "README.md", token=False)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        api.repo_info("org/secret", token="hf_wrong")
    assert Path(hf_hub_download("org/secret", "README.md", token=hub.token)).read_text() == CARD


def test_nothing_is_written_without_the_token(hub, folder):
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(endpoint=hub.url, token=False).create_repo("org/model")
    assert not hub.repos


def test_a_branch_and_a_pull_request_leave_main_alone(hub, api, pushed, folder):
    (folder / "README.md").write_text(CARD + "more\n")
    api.create_branch("org/model", branch="v2")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch("org/model", branch="v2")
    api.upload_folder(repo_id="org/model", folder_path=folder, revision="v2")
    request = api.upload_folder(repo_id="org/model", folder_path=folder, create_pr=True)
    assert request.pr_revision == "refs/pr/1"
    repo = hub.repos["org/model"]
    assert repo.files("v2")["README.md"] == repo.files("refs/pr/1")["README.md"] != repo.files()["README.md"]
    assert Path(hf_hub_download("org/model", "README.md", revision="refs/pr/1")).read_text().endswith("more\n")


@pytest.mark.parametrize(
    "front_matter",
    [
        "license: [unclosed",
        "- a list",
        "pipeline_tag: [a, b]",
        "tags: [1]",
        "model-index: [{results: []}]",
        "model-index: [{name: m, results: [{task: {type: t}, dataset: {type: d, name: D}}]}]",
        "model-index: [{name: m, results: [{task: {}, metrics: [{type: map, value: 1}]}]}]",
    ],
)
def test_a_card_that_the_hub_would_refuse_is_refused(hub, api, folder, front_matter):
    api.create_repo("org/model")
    (folder / "README.md").write_text(f"---\n{front_matter}\n---\n# A model\n")
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_folder(repo_id="org/model", folder_path=folder)
    assert "model.safetensors" not in hub.repos["org/model"].files()


def test_data_sets_and_spaces_have_their_own_names(hub, api, folder):
    for kind in ("dataset", "space"):
        api.create_repo("org/model", repo_type=kind, space_sdk="gradio" if kind == "space" else None)
        api.upload_folder(repo_id="org/model", repo_type=kind, folder_path=folder)
        name = hf_hub_download("org/model", "figures/curve.png", repo_type=kind)
        assert Path(name).read_bytes() == b"png"
    assert sorted(hub.repos) == ["datasets/org/model", "spaces/org/model"]


def test_a_fresh_process_finds_it_through_the_environment(hub, pushed, tmp_path):
    code = "from huggingface_hub import hf_hub_download as get; print(get('org/model', 'README.md'))"
    env = hub.env(tmp_path / "other")
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    path = Path(run.stdout.strip())
    assert path.read_text() == CARD
    assert path.is_relative_to(tmp_path / "other")


def test_the_xet_client_opens_a_pull_request_before_it_sends(hub, api, pushed, folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.lfs_suffixes = ()
    (folder / "README.md").write_text(CARD + "more\n")
    request = api.upload_folder(repo_id="org/model", folder_path=folder, create_pr=True)
    assert request.pr_revision == "refs/pr/1"
    assert request.pr_url == f"{hub.url}/org/model/discussions/1"
    repo = hub.repos["org/model"]
    assert repo.files("refs/pr/1")["README.md"] != repo.files()["README.md"] == CARD.encode()


@pytest.mark.parametrize("token", [False, "hf_loopback"])
def test_a_gated_repository_shows_its_page_and_keeps_its_files(hub, pushed, token):
    hub.repos["org/model"].gated = True
    assert HfApi(token=token).repo_info("org/model").id == "org/model"
    with pytest.raises(GatedRepoError):
        hf_hub_download("org/model", "README.md", token=token)


def test_a_space_has_variables(hub, api):
    api.create_repo("org/demo", repo_type="space", space_sdk="gradio")
    api.add_space_variable("org/demo", "A", "1")
    assert set(api.add_space_variable("org/demo", "B", "2")) == {"A", "B"}
    assert hub.repos["spaces/org/demo"].variables == {"A": "1", "B": "2"}


def test_a_space_may_be_refused_for_want_of_money(hub, api):
    hub.spaces_are_paid_for = False
    with pytest.raises(HfHubHTTPError, match="402"):
        api.create_repo("org/demo", repo_type="space", space_sdk="gradio", exist_ok=True)
    api.create_repo("org/demo", exist_ok=True)
    assert list(hub.repos) == ["org/demo"]


@pytest.mark.parametrize(("does", "done"), [(503, False), ("cut", False), ("half", True)])
def test_a_request_goes_wrong_as_often_as_it_should(hub, api, does, done):
    hub.faults = [Fault("POST /api/repos/create", does)]
    with pytest.raises(HTTPError):
        api.create_repo("org/model")
    assert ("org/model" in hub.repos) == done
    api.create_repo("org/model", exist_ok=True)


def test_a_dead_server_refuses_connections_and_comes_back_with_all_it_had(hub, api, pushed, folder):
    (folder / "README.md").write_text(CARD + "more\n")
    hub.faults = [Fault("POST /api/models/org/model/commit", "die")]
    with pytest.raises(HTTPError):
        api.upload_folder(repo_id="org/model", folder_path=folder)
    with pytest.raises(HTTPError, match="refused"):
        api.repo_info("org/model")
    hub.start_again()
    assert api.repo_info("org/model").sha == pushed.oid
