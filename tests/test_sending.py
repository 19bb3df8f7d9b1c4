"""What may leave a folder, and how long a server that stumbles is put up with."""

import logging
import os

import numpy as np
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from loopback_hub import Fault, LoopbackHub
from safetensors.numpy import save_file

from dsh_hf import sending
from dsh_hf.sending import check_places, create_repo, files_to_send, patiently, reason_of, without_place


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(sending, "WAITS", (0.0, 0.0))
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home", token=hub.token)
        yield hub


def write(folder, name, content="x"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_files_are_listed_in_order_with_those_in_folders(tmp_path):
    for name in ("b.json", "a.md", "sub/c.json", "LICENSE", "sub/__pycache__/d.cpython-311.pyc"):
        write(tmp_path, name)
    files = files_to_send(tmp_path, {".json", ".md"})
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["LICENSE", "a.md", "b.json", "sub/c.json"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("weights.pt", r"weights\.pt does not belong there \(\.json, \.md, LICENSE do\): remove it"),
        ("noext", "noext does not belong there"),
        (".env", r"\.env is hidden: remove it"),
        ("sub/.git/x.md", r"\.git is hidden"),
    ],
)
def test_a_file_that_should_not_leave_is_named(tmp_path, name, message):
    write(tmp_path, name)
    with pytest.raises(ValueError, match=message):
        files_to_send(tmp_path, {".json", ".md"})


@pytest.mark.parametrize("target", ["../outside.json", ".."])
def test_a_link_is_named(tmp_path, target):
    folder = write(tmp_path, "in/a.json").parent
    write(tmp_path, "outside.json")
    os.symlink(target, folder / "b.json")
    with pytest.raises(ValueError, match=r"b\.json is a link"):
        files_to_send(folder, {".json"})


def test_an_access_token_in_a_text_does_not_leave(tmp_path):
    token = "hf_" + "aB3" * 11
    write(tmp_path, "training.json", f'{{"command": "train --token {token}"}}')
    with pytest.raises(ValueError, match=r"training\.json has an access token in it") as caught:
        files_to_send(tmp_path, {".json"})
    assert token not in str(caught.value)
    write(tmp_path, "training.json", '{"command": "train --token hf_..."}')
    assert len(files_to_send(tmp_path, {".json"})) == 1


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        files_to_send(tmp_path / "none", {".json"})


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/home/anna/client-x/sketchy", "sketchy"),
        ("/home/anna/client-x/", "client-x"),
        ("~/photos", "photos"),
        (r"C:\Users\anna\photos", "photos"),
        ("zip://in/a.png::/home/anna/photos.zip", "a.png"),
        ("data/sketchy", "data/sketchy"),
        ("org/name", "org/name"),
        ("https://example.org/a/b.zip", "https://example.org/a/b.zip"),
        ("--plain", "--plain"),
    ],
)
def test_of_a_place_on_this_machine_its_last_component_is_kept(path, kept):
    assert without_place(path) == kept


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"command": "dsh-hf train --sketchy /home/anna/x"}', "/home/anna/x"),
        ('{"command": "dsh-hf train --out=/mnt/runs/x"}', "/mnt/runs/x"),
        ('["/data/a"]', "/data/a"),
        ("see `~/notes`", "~/notes"),
        (r'{"a": "C:\\Users\\anna"}', "Users"),
        ("file:///srv/x", "file:///srv/x"),
        ("zip://a.png::/srv/x.zip", "/srv/x.zip"),
        ("about my-home-folder/here", "my-home-folder"),
    ],
)
def test_a_text_that_tells_of_a_place_on_this_machine_is_named(tmp_path, monkeypatch, text, place):
    monkeypatch.setenv("HOME", "my-home-folder")
    with pytest.raises(ValueError, match=r"a\.json tells of a place on this machine") as refused:
        check_places([write(tmp_path, "a.json", text)])
    assert place in str(refused.value)


def test_metadata_of_weights_are_looked_at_too(tmp_path):
    path = tmp_path / "words.safetensors"
    save_file({"x": np.zeros(1)}, path, metadata={"source": "/home/anna/glove.txt"})
    with pytest.raises(
        ValueError, match=r"words\.safetensors tells of a place on this machine \(/home/anna/glove\.txt\)"
    ):
        check_places([path])


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a/b",
        "sketches and/or photos, 1/2, 3 / 4",
        "<b>x</b>",
        "cat/n01_1-2",
        "data/sketchy",
        "of /usr/share/x/;",
    ],
)
def test_other_texts_with_slashes_may_leave(tmp_path, text):
    check_places([write(tmp_path, "a.md", text), write(tmp_path, "b.png", "/home/anna/x")])


@pytest.mark.parametrize("fault", [500, 502, 503, 504, 429, "cut", "half"])
def test_what_may_pass_is_tried_again(hub, fault, caplog):
    hub.faults = [Fault("POST /api/repos/create", fault)]
    with caplog.at_level(logging.WARNING, logger="dsh_hf"):
        create_repo(HfApi(), "org/model", private=False)
    assert "org/model" in hub.repos
    assert hub.requests.count("POST /api/repos/create") == 2
    assert "trying again in 0 s" in caplog.text


def test_patience_ends(hub):
    hub.faults = [Fault("POST ", 503, times=99)]
    with pytest.raises(HfHubHTTPError, match="503"):
        create_repo(HfApi(), "org/model", private=False)
    assert hub.requests.count("POST /api/repos/create") == 3


@pytest.mark.parametrize("status", [400, 402, 403])
def test_a_refusal_is_not_asked_again(hub, status):
    hub.faults = [Fault("POST ", status)]
    with pytest.raises(HfHubHTTPError):
        create_repo(HfApi(), "org/model", private=False)
    assert hub.requests.count("POST /api/repos/create") == 1


def test_a_hub_that_is_not_there_is_not_waited_for(hub):
    tries = []
    hub.stop()

    def step():
        tries.append(1)
        create_repo(HfApi(), "org/model", private=False)

    with pytest.raises(HTTPError):
        patiently(step)
    assert len(tries) == 1


def test_a_private_push_never_lands_in_a_public_repository(hub):
    create_repo(HfApi(), "org/new", private=True)
    assert hub.repos["org/new"].private
    create_repo(HfApi(), "org/new", private=True)
    create_repo(HfApi(), "org/public", private=False)
    with pytest.raises(ValueError, match=r"org/public exists and is public: make it private on its page"):
        create_repo(HfApi(), "org/public", private=True)


def test_a_space_is_created_as_one(hub):
    create_repo(HfApi(), "org/demo", private=False, kind="space")
    assert list(hub.repos) == ["spaces/org/demo"]


def test_a_reason_is_one_line_in_the_servers_words(hub):
    hub.faults = [Fault("POST ", 402)]
    with pytest.raises(HfHubHTTPError) as caught:
        create_repo(HfApi(), "org/model", private=False)
    assert reason_of(caught.value) == "402 out of order"
    assert reason_of(OSError("two\nlines")) == "two lines"
    assert reason_of(KeyError()) == "KeyError"
