"""Publishing: what is pushed makes the same codes when loaded by name, and what should not leave stays."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, constants
from loopback_hub import Fault, LoopbackHub
from tiny_checkpoint import tiny_model, write_checkpoint

from dsh_hf import DSHModel, sending
from dsh_hf.model_card import probe_codes, render_card, write_card

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "push_to_hub.py"
PARTS = ["README.md", "evaluation.json", "probes.json", "training.json"]
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


@pytest.fixture(scope="module")
def written(tmp_path_factory, model) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("written") / "dsh-tiny", model)


@pytest.fixture
def folder(tmp_path, written) -> Path:
    return shutil.copytree(written, tmp_path / "dsh-tiny")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(sending, "WAITS", (0.0, 0.0))
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


def test_a_second_push_by_the_class_replaces_the_weights_and_keeps_the_card(hub, model):
    model.push_to_hub("org/by-class")
    files = hub.repos["org/by-class"].files()
    files["README.md"] = card = b"---\nlicense: mit\n---\n# Mine\n"
    other = tiny_model(seed=1)
    other.push_to_hub("org/by-class", branch="main")
    assert hub.repos["org/by-class"].files()["README.md"] == card
    assert DSHModel.from_pretrained("org/by-class").fingerprint == other.fingerprint


def test_the_class_alone_does_not_overwrite_a_published_checkpoint(hub, push, model, tmp_path):
    assert push()[0] == 0
    before = hub.repos["org/model"].files()
    refused = r"org/model holds evaluation\.json and probes\.json, which new weights alone would make wrong"
    other = tiny_model(seed=1)
    with pytest.raises(ValueError, match=refused):
        other.push_to_hub("org/model")
    with pytest.raises(ValueError, match=refused):
        other.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="org/model")
    assert hub.repos["org/model"].files() == before


def test_a_checkpoint_pushed_by_the_command_is_loaded_by_name(hub, folder, model, tmp_path):
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(folder), "--repo", "org/model"]
    env = hub.env(tmp_path / "sender", token=hub.token) | {"PYTHONPATH": str(ROOT)}
    del env["HF_HUB_DISABLE_PROGRESS_BARS"]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "verified: org/model" in run.stdout
    assert "model.safetensors: 100%" in run.stderr.replace("  ", " ")  # progress, by the client
    assert codes_in_a_fresh_process(hub, tmp_path / "other", "org/model") == codes_here(model)


def test_every_file_arrives_in_one_commit(hub, push, folder):
    code, out, _ = push()
    assert code == 0
    repo = hub.repos["org/model"]
    sent = {path.name: path.read_bytes() for path in folder.iterdir()}
    sent["README.md"] = render_card(folder, "org/model").encode()
    assert repo.files() == sent | {".gitattributes": repo.files()[".gitattributes"]}
    assert repo.messages == ["initial commit", "Upload model"]
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


def test_the_card_on_the_hub_has_the_repositorys_name_whatever_the_folder_is_called(hub, script, folder, tmp_path):
    """As after training: the folder is called checkpoint, and was moved since."""
    checkpoint = folder.rename(tmp_path / "checkpoint")
    before = (checkpoint / "README.md").read_bytes()
    assert script.main(["--checkpoint", str(checkpoint), "--repo", "org/model"]) == 0
    card = ModelCard(hub.repos["org/model"].files()["README.md"].decode())
    assert card.data.model_name == "model"
    assert "\n# model\n" in card.text and "dsh-tiny" not in str(card) and 'checkpoint"' not in str(card)
    snippet = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1]
    env = hub.env(tmp_path / "reader") | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", snippet], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert re.fullmatch(r"\[\[\d+ \d+\]\]", run.stdout.strip()), run.stderr
    assert (checkpoint / "README.md").read_bytes() == before


def test_what_the_card_is_without_is_told_with_the_command_that_makes_it(push, folder):
    out = push("--dry-run")[1]
    assert "note: the card is without the precision-recall curve: dsh-hf evaluate" in out
    assert "note: the card is without the speed: dsh-hf evaluate" in out
    assert "note: the card is without a sheet of results: python -m benchmarks sheet --quickdraw" in out
    speed = {"images_per_second": 1, "sketches_per_second": 2, "machine": "this"}
    evaluation = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(evaluation | {"speed": speed}))
    for name in ("pr_curve.png", "sheet.png"):
        (folder / name).write_bytes(b"png")
    write_card(folder)
    code, out, _ = push("--dry-run")
    assert (code, "note:" in out) == (0, False)


def test_a_checkpoint_without_its_training_data_and_their_terms_is_refused(hub, push, folder):
    (folder / "training.json").unlink()
    write_card(folder)
    code, _, err = push()
    assert (code, hub.requests) == (2, [])
    assert "needs training.json (by dsh-hf train; for weights from elsewhere write their data and its terms" in err


@pytest.mark.parametrize("name", ["training.json", "evaluation.json"])
def test_a_command_with_this_machines_folders_does_not_leave(hub, push, folder, name):
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(record | {"command": "dsh-hf --sketchy /home/anna/client-x/sketchy"}))
    write_card(folder)
    code, _, err = push()
    assert (code, hub.requests) == (2, [])
    assert "tells of a place on this machine (/home/anna/client-x/sketchy)" in err


def test_what_is_not_listed_does_not_leave(hub, push, folder):
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "private.cpython-311.pyc").write_bytes(b"x")
    code, out, _ = push()
    assert (code, "private" in out) == (0, False)
    assert not [name for name in hub.repos["org/model"].files() if "private" in name]


def test_files_that_are_no_longer_in_the_folder_are_told_and_left(hub, push, folder):
    HfApi(token=hub.token).create_repo("org/model")
    hub.repos["org/model"].files()["old.txt"] = b"old"
    code, out, _ = push()
    assert code == 0
    assert f"note: on the Hub, not in {folder}, and left as they are: old.txt" in out
    assert "old.txt" in hub.repos["org/model"].files()


def test_a_private_model_is_closed_to_others(hub, push, folder):
    code, out, _ = push("--private")
    assert (code, "verified: org/model" in out) == (0, True)
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
    code, out, _ = push("--revision", "v2")
    assert (code, "verified: org/model" in out) == (0, True)
    assert list(hub.repos["org/model"].files()) == [".gitattributes"]
    assert DSHModel.from_pretrained("org/model", revision="v2").fingerprint == model.fingerprint


@pytest.mark.parametrize("xet", [False, True])
def test_a_pull_request_leaves_main_as_it_is(hub, push, model, monkeypatch, xet):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    hub.lfs_suffixes = () if xet else hub.lfs_suffixes
    code, out, _ = push("--create-pr")
    assert (code, "/discussions/1" in out) == (0, True)
    assert "verified: org/model at refs/pr/1" in out
    assert list(hub.repos["org/model"].files()) == [".gitattributes"]
    assert DSHModel.from_pretrained("org/model", revision="refs/pr/1").fingerprint == model.fingerprint


def test_a_pull_request_that_broke_off_is_finished_where_it_is(hub, push):
    hub.faults = [Fault("POST /api/models/org/model/commit", "half")]
    code, _, err = push("--create-pr")
    assert code == 1
    assert f"{hub.url}/org/model/discussions, repeat with --revision refs/pr/NUMBER in place of --create-pr" in err
    code, out, _ = push("--revision", "refs/pr/1")
    assert (code, "verified: org/model" in out) == (0, True)
    assert list(hub.repos["org/model"].refs) == ["main", "refs/pr/1"]
    assert list(hub.repos["org/model"].files()) == [".gitattributes"]


# A bad network


def test_a_server_that_dies_in_mid_upload_leaves_the_repository_as_it_was(hub, push, folder, model):
    assert push()[0] == 0
    before = hub.repos["org/model"].files()
    other = tiny_model(seed=1)
    write_checkpoint(folder, other)
    hub.faults = [Fault("POST /api/models/org/model/commit", "die")]
    code, _, err = push()
    assert code == 1
    told = err.splitlines()[-1]
    assert told.startswith(f"push_to_hub.py: {hub.url}: ")
    assert told.endswith("one commit, so org/model is as it was, or whole: repeat the same command")
    assert hub.repos["org/model"].files() == before
    hub.start_again()
    hub.requests.clear()
    code, out, _ = push()
    assert (code, "verified: org/model" in out) == (0, True)
    assert not [request for request in hub.requests if request.startswith("PUT")]  # the weights had arrived
    assert DSHModel.from_pretrained("org/model").fingerprint == other.fingerprint != model.fingerprint


def test_a_server_that_is_slow_and_fails_now_and_then_is_put_up_with(hub, push):
    hub.delay = 0.02
    hub.faults = [
        Fault("POST /api/repos/create", 502),
        Fault("GET /api/models/org/model/tree", "cut"),
        Fault("POST /api/validate-yaml", 503),
        Fault("PUT /lfs/", "half"),
        Fault("POST /api/models/org/model/commit", "cut"),
        Fault("GET /org/model/resolve/[^/]+/model.safetensors", "half"),
    ]
    code, out, err = push()
    assert (code, "verified: org/model" in out) == (0, True), err
    assert [fault.request for fault in hub.faults if fault.times] == []
    assert len(hub.repos["org/model"].messages) == 2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, push):
    hub.faults = [Fault("POST /api/models/org/model/commit", "half")]
    code, out, _ = push()
    assert (code, "verified: org/model" in out) == (0, True)
    assert hub.repos["org/model"].messages == ["initial commit", "Upload model"]


def test_what_could_not_be_read_back_is_said_to_be_there(hub, push):
    hub.faults = [Fault("GET /org/model/resolve", 500, times=99)]
    code, out, err = push()
    assert (code, "verified" in out) == (1, False)
    assert f"sent to org/model at {hub.repos['org/model'].refs['main']}: repeat the same command" in err


def test_an_interruption_says_what_to_repeat(hub, push, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_commit", interrupted)
    code, _, err = push()
    assert (code, err.count("\n")) == (130, 1)
    assert "interrupted; " in err and "repeat the same command" in err


def test_other_weights_on_the_hub_are_found_out(hub, push, monkeypatch, tmp_path):
    upload = HfApi.create_commit
    other = write_checkpoint(tmp_path / "other", tiny_model(seed=1))

    def upload_and_exchange(api, *given, **options):
        commit = upload(api, *given, **options)
        hub.repos["org/model"].files()["model.safetensors"] = (other / "model.safetensors").read_bytes()
        return commit

    monkeypatch.setattr(HfApi, "create_commit", upload_and_exchange)
    code, out, err = push()
    assert (code, "is not what was sent" in err) == (1, True)
    assert "verified" not in out


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", *PARTS])
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


@pytest.mark.parametrize("name", [".env", "train.py", "figures/.secret.png"])
def test_a_stray_file_is_refused(hub, push, folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    code, _, err = push()
    assert (code, name.split("/")[-1] in err) == (2, True)
    assert hub.requests == []


def test_a_link_is_refused(hub, push, folder):
    os.symlink("..", folder / "inside.json")
    code, _, err = push()
    assert (code, "is a link" in err) == (2, True)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("options", "repo", "message"),
    [
        (["--create-pr", "--revision", "v2"], "org/model", "leave out --revision or --create-pr"),
        (["--space", "org/demo", "--revision", "v2"], "org/model", "a Space opens what is on main"),
        (["--space", "org/demo", "--create-pr"], "org/model", "a Space opens what is on main"),
        (["--space", "demo"], "org/model", "--space demo: give the namespace too, like org/demo"),
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


# The Space


def test_the_demo_goes_with_the_checkpoint_as_a_space(hub, push):
    code, out, err = push("--space", "org/demo")
    assert code == 0, err
    space = hub.repos["spaces/org/demo"]
    assert space.variables == {"DSH_CHECKPOINT": "org/model"}
    assert {"app.py", "README.md", "requirements.txt", "dsh_hf/modeling.py"} <= set(space.files())
    assert f"sent and compared: {hub.url}/spaces/org/demo" in out
    for name, content in space.files().items():
        assert name == ".gitattributes" or f"{len(content):,}  {name}\n" in out
    hub.requests.clear()
    assert push("--space", "org/demo")[0] == 0
    assert not [request for request in hub.requests if "/commit/" in request or request.startswith("PUT")]


def test_a_dry_run_shows_the_space_and_sends_nothing(hub, push):
    code, out, _ = push("--space", "org/demo", "--dry-run")
    assert (code, hub.requests) == (0, [])
    assert "demo -> org/demo, a Space that opens org/model" in out and "  dsh_hf/modeling.py" in out


def test_a_space_that_the_hub_wants_money_for_leaves_the_model_published(hub, push, model):
    hub.spaces_are_paid_for = False
    code, out, err = push("--space", "org/demo")
    assert (code, "verified: org/model" in out) == (1, True)
    assert "org/model is published, the Space org/demo is not: 402 Payment required" in err
    assert "once that is settled, repeat the same command: only the Space will be sent" in err
    assert DSHModel.from_pretrained("org/model").fingerprint == model.fingerprint


def test_a_private_checkpoint_makes_a_private_space_that_needs_a_secret(hub, push):
    code, out, _ = push("--space", "org/demo", "--private")
    assert code == 0
    assert hub.repos["spaces/org/demo"].private
    assert "give the Space a secret HF_TOKEN" in out
