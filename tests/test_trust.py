"""Nothing that is read is run, and nothing is asked of the network that nobody asked for."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import TRAIN, draw

ROOT = Path(__file__).parent.parent
SOURCES = [*sorted((ROOT / "dsh_hf").rglob("*.py")), *sorted((ROOT / "demo").glob("*.py")), ROOT / "push_to_hub.py"]
RUNS_WHAT_IT_READS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def dangers(source):
    """Name what could run what is read: modules that unpickle, eval and exec, loads that are not told not to."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name.partition(".")[0] in RUNS_WHAT_IT_READS)
        if not isinstance(node, ast.Call):
            continue
        options = {option.arg: getattr(option.value, "value", None) for option in node.keywords}
        called = ast.unparse(node.func)
        if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"):
            yield called
        if called == "torch.load" and options.get("weights_only") is not True:
            yield "torch.load without weights_only=True"
        if called.endswith("load") and options.get("allow_pickle") not in (None, False):
            yield "allow_pickle"
        if options.get("shell") not in (None, False) or options.get("trust_remote_code") not in (None, False):
            yield "shell or trust_remote_code"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(path):
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_a_source_that_does_would_be_told(source):
    assert list(dangers(source))


def test_no_script_of_the_page_runs_text():
    for path in (ROOT / "demo").glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not any(
            danger in text for danger in ("eval(", "new Function", "document.write", "insertAdjacentHTML")
        ), path


OFFLINE = """
import json, os, socket, sys

asked = []
def refuse(*given, **_):
    asked.append(repr(given[-2:]))
    raise OSError("there is no network here")

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse)

from dsh_hf.cli import main

for command in json.loads(sys.argv[1]):
    assert main(command) == 0, command
assert not asked, asked
"""


def test_training_indexing_and_searching_ask_nothing_of_the_network(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("apple", "door"):
        for number in range(4):
            for domain in ("sketches", "images"):
                draw(tmp_path / domain / name / f"{number}.png", name, rng)
    data = ["--sketches", "sketches", "--images", "images"]
    used = ["--checkpoint", "run/checkpoint"]
    commands = [
        ["data", "check", *data],
        ["train", *data, "--out", "run", *TRAIN, "--rounds=1"],
        ["evaluate", "run/checkpoint", *data],
        ["index", "images", "--out", "gallery", *used],
        ["search", "sketches/apple/0.png", "--index", "gallery", *used],
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    environment |= {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OFFLINE, json.dumps(commands)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_demo_switches_telemetry_off():
    code = (
        "import app, os, huggingface_hub.constants as hub\n"
        "assert hub.HF_HUB_DISABLE_TELEMETRY\n"
        "assert os.environ['GRADIO_ANALYTICS_ENABLED'] == 'False'\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if "TELEMETRY" not in name and "GRADIO" not in name
    }
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "demo", env=environment, check=True)
