"""The card says what was measured, in a form that the Hub accepts; probes hold a model to its codes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub
from packaging.version import Version
from tiny_checkpoint import FIGURES, TRAINING, tiny_model, write_checkpoint

from dsh_hf.cli.evaluate import WHOLE
from dsh_hf.data.splits import SPLIT_NAMES
from dsh_hf.model_card import check_card, check_probes, probe_codes, probe_pictures, write_card, write_probes

RELEASED = Path(__file__).parents[1] / "model_card"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def written(tmp_path_factory, model) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("written") / "dsh-tiny", model)


@pytest.fixture
def folder(tmp_path, written) -> Path:
    return shutil.copytree(written, tmp_path / "dsh-tiny")


def edit(path: Path, **changes) -> None:
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


def test_the_front_matter_says_what_the_hub_wants_to_know(folder):
    data = ModelCard.load(folder / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("dsh-hf", "image-feature-extraction")
    assert data.license == "apache-2.0"
    assert {"sketch-based-image-retrieval", "hashing", "arxiv:1703.05605"} <= set(data.tags)
    by_name = {result.metric_name: result for result in data.eval_results}
    assert by_name["mAP"].metric_value == round(FIGURES["map"], 4)
    assert by_name["Precision@200"].metric_value == FIGURES["precision_at"]["200"]
    assert by_name["mAP"].dataset_name == FIGURES["dataset"]
    assert by_name["mAP"].dataset_split == FIGURES["split"]
    assert by_name["mAP"].dataset_args == {"seed": FIGURES["seed"]}


def test_the_other_lengths_of_a_checkpoint_have_a_line_each(folder):
    edit(folder / "config.json", lengths=[32, 60, 128])
    evaluation = json.loads((folder / "evaluation.json").read_text())
    for bits, figure, fingerprint in ((32, 0.4441, evaluation["fingerprint"]), (128, 0.7771, "of other weights")):
        record = evaluation | {"bits": bits, "map": figure, "fingerprint": fingerprint}
        (folder / f"evaluation-{bits}.json").write_text(json.dumps(record))
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert "| 32 bits | 0.444 (95% interval 0.490 to 0.530) | 0.600 |" in text
    assert "0.777" not in text


def test_the_training_that_was_started_from_is_told(folder):
    start = {"command": "dsh-hf train --quickdraw drawings", "seconds": 7300, "machine": "4 cores", "seed": 0}
    edit(folder / "training.json", start=start)
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert "in 2 h 2 min on 4 cores" in text
    assert "dsh-hf train --quickdraw drawings" in text


@pytest.mark.skipif(
    Version(huggingface_hub.__version__) < Version("2.2"), reason="huggingface_hub before 2.2 asks huggingface.co alone"
)
def test_the_hub_accepts_the_front_matter(folder, tmp_path, monkeypatch):
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home")
        ModelCard.load(folder / "README.md").validate()
        assert hub.requests == ["POST /api/validate-yaml"]


def test_the_text_names_figures_data_and_terms(folder, model):
    text = (folder / "README.md").read_text()
    for needed in (
        *(
            "0.512",
            "0.490",
            "0.530",
            "split `open`",
            "seed 0",
            "700 sketches",
            "1000 photographs",
            "1 h 7 min",
        ),
        *("| precision@10 | 0.600 |", "| precision@200 | 0.100 |", "| Sketchy | 1000 | research use |"),
        *(
            "| EfficientNet-Lite0 | Apache-2.0 |",
            "dsh-hf train --data sketchy",
            "dsh-hf evaluate",
            "2 CPU cores",
        ),
        *("not Deep *Supervised* Hashing", "1703.05605", "@inproceedings", "ant, bee", "codes of 60 bits"),
        model.fingerprint,
    ):
        assert needed in text
    assert "{{" not in text and "{%" not in text


def test_the_text_says_which_categories_fail(folder):
    by_class = {f"class {n:02}": n / 20 for n in range(20)}
    edit(folder / "evaluation.json", map_by_class=by_class, map=0.475)
    text = write_card(folder).read_text()
    assert "Of 20 measured, 5 have an mAP below half of the mean." in text
    rows = [line for line in text.splitlines() if line.startswith("| class ")]
    assert rows[0] == "| class 00 | 0.000 | class 19 | 0.950 |"
    assert rows[-1] == "| class 04 | 0.200 | class 15 | 0.750 |"
    assert len(rows) == 5


def test_the_text_tells_size_and_speed(folder, model):
    size = (folder / "model.safetensors").stat().st_size
    text = (folder / "README.md").read_text()
    assert "## Size\n" in text and f"`model.safetensors` has {size / 1e6:.1f} MB" in text
    numbers = sum(tensor.numel() for tensor in model.own_tensors().values())
    assert f"{numbers:,} numbers, stored as F32" in text
    speed = {"images_per_second": 12.34, "sketches_per_second": 56.78, "machine": "2 CPU cores"}
    edit(folder / "evaluation.json", speed=speed)
    text = write_card(folder).read_text()
    assert "## Size and speed\n" in text
    assert "On 2 CPU cores it encodes 12 photographs or 57 sketches a second" in text
    edit(folder / "evaluation.json", speed={"images_per_second": 1})
    with pytest.raises(ValueError, match=r"evaluation\.json, speed: the key 'sketches_per_second' is missing"):
        write_card(folder)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("sheet.png", "(sheet.png)"), ("pr_curve.png", "(pr_curve.png)"), ("tokens.png", "(tokens.png)")],
)
def test_a_picture_is_shown_where_there_is_one(folder, name, shown):
    assert shown not in (folder / "README.md").read_text()
    (folder / name).write_bytes(b"png")
    assert shown in write_card(folder).read_text()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"map": float("nan")}, "map is nan"),
        ({"precision_at": {"10": "0.6"}}, "precision_at 10 is '0.6'"),
        ({"precision_radius_2": float("inf")}, "precision_radius_2 is inf"),
        ({"map_by_class": {"ant": float("nan")}}, "map_by_class ant is nan"),
    ],
)
def test_a_figure_that_is_no_number_never_reaches_the_card(folder, changes, named):
    edit(folder / "evaluation.json", **changes)
    with pytest.raises(ValueError, match=rf"evaluation\.json: {named}"):
        write_card(folder)


def test_weights_that_are_missing_or_damaged_are_named(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or truncated"):
        write_card(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: no such file"):
        write_card(folder)


def test_the_released_card_is_what_its_figures_give():
    for config in RELEASED.glob("*/config.json"):
        check_card(config.parent)


def test_the_snippet_runs_as_it_stands(folder):
    snippet = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", snippet]
    run = subprocess.run(command, cwd=folder.parent, env=env, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\[\[\d+ \d+\]\]", run.stdout.strip())


def test_the_snippet_names_the_repository_where_it_is_known(folder):
    write_card(folder, repo_id="org/name")
    assert 'from_pretrained("org/name")\n' in (folder / "README.md").read_text()


def test_a_folder_may_be_renamed_and_the_card_written_for_any_name(folder, tmp_path):
    renamed = folder.rename(tmp_path / "v2")
    check_card(renamed)
    write_card(renamed, repo_id="org/name")
    assert "\n# name\n" in check_card(renamed)
    edit(renamed / "evaluation.json", map=0.9)
    with pytest.raises(ValueError, match=r"README\.md is not what evaluation\.json"):
        check_card(renamed)


@pytest.mark.parametrize("split", [*SPLIT_NAMES, WHOLE])
def test_every_split_is_explained(folder, split):
    edit(folder / "evaluation.json", split=split)
    figures = re.search(r"codes of 60 bits\.(.*)\n", write_card(folder).read_text())
    assert len(figures[1]) > 40


def test_a_measurement_of_everything_says_that_training_data_may_be_in_it(folder):
    edit(folder / "evaluation.json", split=WHOLE)
    assert "Nothing was held out" in write_card(folder).read_text()


def test_without_a_training_record_the_card_is_silent_about_training(folder):
    (folder / "training.json").unlink()
    text = write_card(folder).read_text()
    assert "## Training" not in text
    assert "## Results" in text and "## Limits" in text


@pytest.mark.parametrize("key", ["fingerprint", "bits", *FIGURES])
def test_a_missing_figure_is_named_with_its_file(folder, key):
    edit(folder / "evaluation.json", **{key: None})
    before = (folder / "README.md").read_text()
    with pytest.raises(ValueError, match=rf"evaluation\.json: the key '{key}' is missing"):
        write_card(folder)
    assert (folder / "README.md").read_text() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": None}, r"training\.json: the key 'command' is missing"),
        (
            {"data": [TRAINING["data"][0], {"name": "x"}]},
            r"training\.json, data\[1\]: the key 'terms' is missing",
        ),
        ({"initial_weights": [{"name": "x"}]}, r"initial_weights\[0\]: the key 'terms' is missing"),
    ],
)
def test_terms_are_not_left_out(folder, changes, message):
    edit(folder / "training.json", **changes)
    with pytest.raises(ValueError, match=message):
        write_card(folder)


def test_figures_of_another_code_length_are_refused(folder):
    edit(folder / "evaluation.json", bits=32)
    with pytest.raises(ValueError, match="codes of 32 bits, the model makes 60"):
        write_card(folder)


def test_a_record_that_is_no_json_is_named(folder):
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation\.json is not valid JSON"):
        write_card(folder)
    (folder / "evaluation.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"evaluation\.json: no such file"):
        write_card(folder)


@pytest.mark.parametrize(
    "text", ["# no front matter", "---\nlibrary_name: timm\nlicense: mit\n---\n", "---\ntags: [\n---\n"]
)
def test_a_card_of_something_else_is_refused(folder, text):
    assert check_card(folder) == (folder / "README.md").read_text()
    (folder / "README.md").write_text(text)
    with pytest.raises(ValueError, match="write_card"):
        check_card(folder)


def test_probe_pictures_are_three_and_differ(model):
    assert list(probe_pictures()) == ["disc", "house", "stripes"]
    for codes in probe_codes(model).values():
        assert codes.shape == (3, 8) and codes.dtype == np.uint8
        assert len({code.tobytes() for code in codes}) == 3


def test_probes_hold_for_the_model_that_wrote_them_and_no_other(folder, model):
    check_probes(model, folder)
    with pytest.raises(ValueError, match="is of a model with the fingerprint"):
        check_probes(tiny_model(seed=1), folder)


def test_one_differing_bit_is_seen_and_may_be_tolerated(folder, model):
    probes = json.loads((folder / "probes.json").read_text())
    code = probes["images"][1]["image"]
    probes["images"][1]["image"] = f"{int(code[0], 16) ^ 1:x}" + code[1:]
    (folder / "probes.json").write_text(json.dumps(probes))
    with pytest.raises(ValueError, match=r"image code of the picture 'house' differs .* in 1 of 60 bits"):
        check_probes(model, folder)
    check_probes(model, folder, tolerance_bits=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images.pop(), "'stripes' has no sketch code of 8 bytes"),
        (lambda images: images[0].update(sketch="00"), "'disc' has no sketch code of 8 bytes"),
        (lambda images: images[0].update(image="z" * 16), "'disc' has no image code of 8 bytes"),
        (lambda images: images[2].pop("image"), r"images\[2\]: the key 'image' is missing"),
    ],
)
def test_damaged_probes_are_named(folder, model, change, message):
    probes = json.loads((folder / "probes.json").read_text())
    change(probes["images"])
    (folder / "probes.json").write_text(json.dumps(probes))
    with pytest.raises(ValueError, match=message):
        check_probes(model, folder)


def test_probes_can_be_written_anew(folder):
    other = tiny_model(seed=1)
    other.save_pretrained(folder)
    write_probes(other, folder)
    check_probes(other, folder)
