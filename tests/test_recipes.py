"""The recipes run as they stand, and what other libraries find is what we find."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tiny_checkpoint import tiny_model

from dsh_hf import DSHModel
from dsh_hf.codes import hamming_distances

RECIPES = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
SETUP, *BLOCKS = re.findall(r"```python\n(.*?)```", RECIPES, re.DOTALL)


def block(word: str) -> str:
    found = [text for text in BLOCKS if word in text]
    assert len(found) == 1, word
    return found[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    tiny_model(bits=64).save_pretrained(folder / "model_card" / "dsh-sketchy-subset")
    rng = np.random.default_rng(0)
    for number in range(6):
        path = folder / "photos" / ("ant", "bee")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).resize((80, 80)).save(path)
    drawing = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(drawing).ellipse((24, 24, 104, 104), outline="black", width=4)
    drawing.save(folder / "drawing.png")
    return folder


@pytest.fixture
def run(checkpoint, monkeypatch, capsys):
    """Run the setup and then some blocks; give the names they leave and the lines they print."""
    monkeypatch.chdir(checkpoint)

    def run(*blocks: str) -> tuple[dict[str, Any], list[str]]:
        names: dict[str, Any] = {"__name__": "recipe"}
        for text in (SETUP, *blocks):
            exec(compile(text, "recipes.md", "exec"), names)
        return names, capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def expected(checkpoint) -> list[tuple[int, str]]:
    """Give distances and paths of all photographs, nearest first."""
    model = DSHModel.from_pretrained(checkpoint / "model_card" / "dsh-sketchy-subset")
    paths = sorted((checkpoint / "photos").rglob("*.png"))
    distances = hamming_distances(model.encode_sketches(checkpoint / "drawing.png")[None], model.encode_images(paths))
    return sorted((int(distance), path.name) for distance, path in zip(distances[0], paths, strict=True))


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def test_every_block_is_tested_here():
    words = ["semantic_search_faiss", "semantic_search_usearch", "Dataset.from_dict", "add_faiss_index"]
    words += ["langchain_core", "llama_index", "haystack"]
    assert [block(word) for word in words] == BLOCKS


def found(lines: list[str]) -> list[int]:
    """Give the distances that a recipe printed."""
    return [int(float(line.split()[0])) for line in lines]


def test_codes_go_straight_into_semantic_search_faiss(run, expected):
    needs("sentence_transformers", "faiss")
    names, lines = run(block("semantic_search_faiss"))
    assert found(lines) == [distance for distance, _ in expected[:3]]
    assert lines[0].endswith(expected[0][1])
    assert names["index"].ntotal == 6


def test_codes_go_straight_into_semantic_search_usearch(run, expected):
    needs("sentence_transformers", "faiss", "usearch")
    _, lines = run(block("semantic_search_faiss"), block("semantic_search_usearch"))
    assert found(lines[3:]) == [distance for distance, _ in expected[:3]]
    assert lines[3].endswith(expected[0][1])


def test_codes_become_a_column_that_is_searched(run, expected):
    needs("sentence_transformers", "faiss")
    blocks = [block(word) for word in ("semantic_search_faiss", "Dataset.from_dict", "add_faiss_index")]
    names, lines = run(*blocks)
    assert lines[3] == "List(Value('uint8'))"
    assert (np.asarray(names["photos"]["code"], dtype=np.uint8) == names["gallery"]).all()
    assert found(lines[4:]) == [distance for distance, _ in expected[:3]]


def test_langchain_gets_documents(run, expected):
    needs("langchain_core")
    _, lines = run(block("langchain_core"))
    assert found(lines) == [distance for distance, _ in expected[:3]]
    assert lines[0].endswith(expected[0][1])


def test_llama_index_gets_nodes(run, expected):
    needs("llama_index")
    _, lines = run(block("llama_index"))
    assert [float(line.split()[0]) for line in lines] == [1 - distance / 64 for distance, _ in expected[:3]]
    assert lines[0].endswith(expected[0][1])


def test_haystack_gets_documents(run, expected):
    needs("haystack")
    _, lines = run(block("haystack"))
    assert found(lines) == [distance for distance, _ in expected[:3]]
    assert lines[0].endswith(expected[0][1])
