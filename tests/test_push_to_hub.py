"""Publishing: what is pushed makes the same codes when loaded by name, and what should not leave stays."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download
from loopback_hub import LoopbackHub
from tiny_checkpoint import tiny_model, write_checkpoint

from dsh_hf import DSHModel
from dsh_hf.model_card import probe_codes, write_card

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "push_to_hub.py"
LOAD_BY_NAME = """
import sys
from dsh_hf import DSHModel
from dsh_hf.model_card import probe_codes
codes = probe_codes(DSHModel.from_pretrained(sys.argv[1]))
print({kind: code.tobytes().hex() for kind, code in codes.items()})
"""


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def folder(tmp_path, model) -> Path:
    return write_checkpoint(tmp_path / "dsh-tiny", model)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home", token=hub.token)
        yield hub


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("push_to_hub", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def push(script, folder, capsys):
    """Run the script on the checkpoint; give the exit code and what it printed."""

    def run(*options: str, repo: str = "org/model") -> tuple[int, str, str]:
        code = script.main(["--checkpoint", str(folder), "--repo", repo, *options])
        return code, *capsys.readouterr()

    return run


def codes_in_a_fresh_process(hub: LoopbackHub, home: Path, name: str) -> str:
    env = hub.env(home) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOAD_BY_NAME, name]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def codes_here(model: DSHModel) -> str:
    return str({kind: code.tobytes().hex() for kind, code in probe_codes(model).items()})


def writes(hub: LoopbackHub) -> list[str]:
    reading = ("GET ", "HEAD ", "POST /api/validate-yaml")
    return [request for request in hub.requests if not request.startswith(reading)]


def test_a_model_pushed_by_its_class_is_loaded_by_name(hub, model, tmp_path):
    model.push_to_hub("org/by-class")
    assert {"config.json", "model.safetensors", "README.md"} <= set(hub.repos["org/by-class"].files())
    assert codes_in_a_fresh_process(hub, tmp_path / "other", "org/by-class") == codes_here(model)


def test_a_checkpoint_pushed_by_the_command_is_loaded_by_name(hub, folder, model, tmp_path):
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(folder), "--repo", "org/model"]
    env = hub.env(tmp_path / "sender", token=hub.token) | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "verified: org/model" in run.stdout
    assert codes_in_a_fresh_process(hub, tmp_path / "other", "org/model") == codes_here(model)


def test_every_file_arrives_in_one_commit(hub, push, folder):
    code, out, _ = push()
    assert code == 0
    repo = hub.repos["org/model"]
    sent = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert repo.files() == sent | {".gitattributes": repo.files()[".gitattributes"]}
    assert repo.messages == ["initial commit", "Upload dsh-tiny"]
    for name, content in sent.items():
        assert f"{len(content):,}  {name}" in out


def test_a_second_push_sends_nothing_new(hub, push):
    assert push()[0] == 0
    hub.requests.clear()
    code, out, _ = push()
    assert (code, "verified: org/model" in out) == (0, True)
    assert len(hub.repos["org/model"].messages) == 2
    assert not [request for request in hub.requests if "/commit/" in request or request.startswith("PUT")]


def test_it_works_with_the_xet_client_too(hub, push, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.lfs_suffixes = ()  # without a Xet store behind it, a Hub takes every file inside the commit
    assert push()[0] == 0
    assert push()[0] == 0
    assert len(hub.repos["org/model"].messages) == 2


def test_a_dry_run_checks_everything_and_sends_nothing(hub, push, folder):
    code, out, _ = push("--dry-run")
    assert (code, hub.requests) == (0, [])
    assert "model.safetensors" in out and "nothing was sent" in out
    (folder / "evaluation.json").unlink()
    assert push("--dry-run")[0] == 2


def test_the_card_is_said_to_lack_the_name(hub, push, folder):
    assert "does not name org/model" in push("--dry-run")[1]
    write_card(folder, repo_id="org/model")
    assert "does not name" not in push("--dry-run")[1]


def test_a_private_model_is_closed_to_others(hub, push, folder):
    assert push("--private")[0] == 0
    assert hub.repos["org/model"].private
    with pytest.raises(OSError, match="private: log in"):
        DSHModel.from_pretrained("org/model", token=False)
    loaded = DSHModel.from_pretrained("org/model", token=hub.token)
    assert loaded.fingerprint == DSHModel.from_pretrained(folder).fingerprint


def test_a_private_push_never_lands_in_a_public_repository(hub, push):
    HfApi(token=hub.token).create_repo("org/model")
    code, _, err = push("--private")
    assert (code, "is public" in err) == (2, True)
    assert list(hub.repos["org/model"].files()) == [".gitattributes"]


def test_a_branch_takes_the_push(hub, push, model):
    assert push("--revision", "v2")[0] == 0
    assert list(hub.repos["org/model"].files()) == [".gitattributes"]
    assert DSHModel.from_pretrained("org/model", revision="v2").fingerprint == model.fingerprint


def test_a_pull_request_leaves_main_as_it_is(hub, push, model):
    code, out, _ = push("--create-pr")
    assert (code, "/discussions/1" in out) == (0, True)
    assert list(hub.repos["org/model"].files()) == [".gitattributes"]
    assert DSHModel.from_pretrained("org/model", revision="refs/pr/1").fingerprint == model.fingerprint


def test_other_weights_on_the_hub_are_found_out(hub, push, monkeypatch, tmp_path):
    upload = HfApi.upload_folder
    other = write_checkpoint(tmp_path / "other", tiny_model(seed=1))

    def upload_and_exchange(api, **options):
        commit = upload(api, **options)
        hub.repos["org/model"].files()["model.safetensors"] = (other / "model.safetensors").read_bytes()
        return commit

    monkeypatch.setattr(HfApi, "upload_folder", upload_and_exchange)
    code, out, err = push()
    assert (code, "is not what was sent" in err) == (1, True)
    assert "verified" not in out


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "evaluation.json", "probes.json"])
def test_a_missing_file_is_named(hub, push, folder, name):
    (folder / name).unlink()
    code, _, err = push()
    assert (code, name in err) == (2, True)
    assert hub.requests == []


def test_figures_of_another_model_are_refused(hub, push, folder):
    evaluation = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(evaluation | {"fingerprint": "0" * 64}))
    code, _, err = push()
    assert (code, "evaluation.json is of a model with the fingerprint 0000" in err) == (2, True)
    assert hub.requests == []


def test_a_figure_changed_in_the_card_is_refused(hub, push, folder):
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("0.", "0.9", 1))
    code, _, err = push()
    assert (code, "README.md is not what evaluation.json" in err) == (2, True)
    assert hub.requests == []


def test_a_tampered_probe_is_refused(hub, push, folder):
    probes = json.loads((folder / "probes.json").read_text())
    probes["images"][0]["sketch"] = "0" * 16
    (folder / "probes.json").write_text(json.dumps(probes))
    code, _, err = push()
    assert (code, "sketch code of the picture 'disc' differs" in err) == (2, True)
    assert hub.requests == []


@pytest.mark.parametrize("name", [".env", "train.py", "weights.pt", "codes", ".cache/x.json", "figures/.secret.png"])
def test_a_stray_file_is_refused(hub, push, folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    code, _, err = push()
    assert (code, name.split("/")[0] in err) == (2, True)
    assert hub.requests == []


@pytest.mark.parametrize("target", ["../outside.json", ".."])
def test_a_link_is_refused(hub, push, folder, target):
    (folder.parent / "outside.json").write_text("{}")
    os.symlink(target, folder / "inside.json")
    code, _, err = push()
    assert (code, "is a link" in err) == (2, True)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("options", "repo", "message"),
    [
        (["--create-pr", "--revision", "v2"], "org/model", "leave out --revision or --create-pr"),
        ([], "model", "give the namespace too"),
        ([], "org/no spaces", "Repo id must"),
    ],
)
def test_arguments_that_cannot_work_are_refused_at_once(hub, push, options, repo, message):
    code, _, err = push(*options, repo=repo)
    assert (code, message in err) == (2, True)
    assert hub.requests == []


def test_a_missing_folder_is_named(script, hub, tmp_path, capsys):
    assert script.main(["--checkpoint", str(tmp_path / "none"), "--repo", "org/model"]) == 2
    assert "none: no such folder" in capsys.readouterr().err


def test_a_card_that_the_hub_refuses_is_the_inputs_fault(hub, push, folder, monkeypatch):
    monkeypatch.setattr("dsh_hf.model_card._TAGS", ["hashing", 5])
    write_card(folder)
    code, _, err = push()
    assert (code, "Invalid metadata in README.md" in err) == (2, True)
    assert list(hub.repos["org/model"].files()) == [".gitattributes"]


def test_a_wrong_token_is_one_plain_line(hub, push):
    code, _, err = push("--token", "hf_wrong")
    assert (code, err.count("\n")) == (1, 1)
    assert "Invalid credentials" in err and "check the name, the network and the token" in err
    assert "hf_wrong" not in err
    assert not hub.repos


def test_an_unreachable_hub_is_one_plain_line(hub, push, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = push()
    assert (code, err.count("\n")) == (1, 1)
    assert "http://127.0.0.1:9: " in err and "check the name, the network and the token" in err


def test_the_card_on_the_hub_is_the_one_that_was_written(hub, push, folder):
    assert push()[0] == 0
    assert Path(hf_hub_download("org/model", "README.md")).read_bytes() == (folder / "README.md").read_bytes()
