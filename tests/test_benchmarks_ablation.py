"""The ablation on a toy problem: every row is trained, measured, told and kept."""

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image, ImageDraw

from benchmarks.__main__ import main
from benchmarks._ablation_measures import itq, rank_codes, rank_floats
from benchmarks._ablation_report import Results, draw, markdown
from benchmarks._ablation_rows import ROWS, RUNS, Table, without_tokens
from benchmarks.ablation import Budget, fill_table, parts_of
from dsh_hf import DSHConfig
from dsh_hf.codes import pack_signs
from dsh_hf.data import make_split
from dsh_hf.evaluation import evaluate
from dsh_hf.training import TrainingConfig

NAMES = ["cross", "disc", "square"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def shape(name, rng, *, filled):
    """A shape at a random place: outlined as a sketch, filled with its class's colour as an image."""
    picture = Image.new("RGB", (48, 48), "white")
    pen = ImageDraw.Draw(picture)
    x, y = rng.integers(3, 12, 2).tolist()
    size, colour = int(rng.integers(24, 32)), {"cross": "red", "disc": "green", "square": "blue"}[name]
    if name == "cross":
        for start, end in (((x, y), (x + size, y + size)), ((x + size, y), (x, y + size))):
            pen.line((start, end), colour if filled else "black", width=8 if filled else 2)
    else:
        draw_shape = pen.ellipse if name == "disc" else pen.rectangle
        draw_shape((x, y, x + size, y + size), fill=colour if filled else None, outline=colour if filled else "black")
    return picture


def toy_data(folder, per_class=12):
    rng, data = np.random.default_rng(0), {}
    features = Features({"image": ImageFeature(mode="RGB"), "label": ClassLabel(names=NAMES), "id": Value("string")})
    for domain in ("sketches", "images"):
        rows = {"image": [], "label": [], "id": []}
        for name in NAMES:
            for number in range(per_class):
                path = folder / domain / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                shape(name, rng, filled=domain == "images").save(path)
                for column, value in (("image", str(path)), ("label", name), ("id", f"{name}/{number}")):
                    rows[column].append(value)
        data[domain] = Dataset.from_dict(rows, features=features)
    return DatasetDict(data)


def toy_config(**changes):
    networks = DSHConfig(
        bits=64,
        lengths=(16, 64),
        image_backbone="test_efficientnet",
        sketch_backbone="test_efficientnet",
        image_size=32,
        sketch_size=32,
        sketch_hidden=[16],
        fusion_hidden=[16],
    )
    return TrainingConfig(**({"model": networks, "rounds": 1, "batch_size": 16, "imagenet_weights": False} | changes))


def toy_table(folder, split="open", **changes):
    data = toy_data(folder / "data")
    unseen = {"unseen": ["disc"]} if split == "zero-shot" else {}
    parts = parts_of(data, make_split(data, split, **unseen))
    (folder / "prepared").mkdir()
    return Table(parts, toy_config(**changes), folder / "prepared", "cpu")


def test_every_row_is_measured_told_and_kept(tmp_path, capsys):
    data = toy_data(tmp_path / "data")
    parts = parts_of(data, make_split(data, "open"))
    results = Results(tmp_path / "out", {"seed": 0})
    fill_table(results, "toy", "shapes", parts, toy_config(), RUNS, Budget(5), "cpu")
    kept = json.loads((tmp_path / "out" / "results.json").read_text())["tables"]["toy"]
    assert set(kept) == set(ROWS)
    for name, row in ROWS.items():
        assert set(kept[name]) == ({"floats"} if row.kind in ("untrained", "floats") else {"16", "64"})
    for name, length in (("softmax", "floats"), ("dsh", "64")):
        with np.load(tmp_path / "out" / "toy" / f"{name}-{length}.npz") as rankings:
            assert rankings["average_precisions"].mean() == pytest.approx(kept[name][length]["map"])
            assert rankings["first"].shape == (3, 36)  # a query of each class, all images
    with np.load(tmp_path / "out" / "toy" / "pictures.npz") as pictures:
        assert pictures["query_ids"].shape == (3,)
        assert pictures["gallery_ids"][-1] == "square/11"
    text = markdown(results, (16, 64))
    assert all(f"| {row.title} |" in text for row in ROWS.values())
    draw(results, (16, 64), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 400
    assert "toy, DSH whole: MAP 16" in capsys.readouterr().out


def test_a_stopped_run_goes_on_where_it_was(tmp_path, capsys):
    data = toy_data(tmp_path / "data")
    parts = parts_of(data, make_split(data, "open"))
    settings = {"seed": 0}
    fill_table(
        Results(tmp_path / "out", settings), "toy", "shapes", parts, toy_config(), ["untrained"], Budget(5), "cpu"
    )
    capsys.readouterr()
    again = Results(tmp_path / "out", settings)
    fill_table(again, "toy", "shapes", parts, toy_config(), ["untrained", "gamma-0"], Budget(5), "cpu")
    told = capsys.readouterr().out
    assert "gamma = 0" in told
    assert "untrained" not in told
    with pytest.raises(ValueError, match="measured with other settings: give another --out"):
        Results(tmp_path / "out", {"seed": 1})


def test_rows_have_as_many_steps_as_whole_rounds_allow(tmp_path):
    table = toy_table(tmp_path, batch_size=4)
    # 33 sketches train, and with them the sketch-tokens of 36 images.
    assert table.steps("dsh") == table.steps("gamma-0") == 69 // 4
    assert table.steps("no-tokens") == table.steps("paper") == 33 // 4


def test_each_row_changes_what_its_title_says(tmp_path):
    table = toy_table(tmp_path)

    def made(name):
        return table._trainer(name, None, tmp_path / name, 1)

    assert all(objective.pair_scale > 0 for objective in made("dsh").objectives)
    assert all(objective.pair_scale == 0 for objective in made("no-pairwise").objectives)
    assert made("gdh").objectives[0].vectors.shape == (3, 3)  # the labels
    assert made("dsh").objectives[0].vectors.shape[1] > 3
    assert made("paper").objectives[0].same_weight == 1
    assert made("gamma-0").config.quantization_weight == 0
    assert made("no-semantic").config.semantic_weight == 0
    assert made("softmax").config.model.lengths == (512,)
    assert made("dsh").config.model.lengths == (16, 64)


def test_rows_can_start_from_a_trunk_trained_before(tmp_path):
    table = toy_table(tmp_path)
    table.warm_up(1, tmp_path / "warm")
    state = table._trainer("dsh", None, tmp_path / "dsh", 1)._start()
    warm = table._warm.own_tensors()
    name = next(name for name in warm if name.startswith("sketch_trunk.") and warm[name].ndim == 4)
    for tensor in (state.model.own_tensors()[name], state.averaged[name]):
        torch.testing.assert_close(tensor, warm[name])
    assert (table._base.own_tensors()[name] != warm[name]).any()
    kept = (tmp_path / "warm" / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    table.warm_up(1, tmp_path / "warm")
    assert (tmp_path / "warm" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == kept


def test_without_tokens_the_networks_see_blank_paper(tmp_path):
    pictures = toy_table(tmp_path)._pictures["train"]
    rows = np.array([33, 34])  # behind the sketches
    assert (without_tokens(pictures).lines_at(rows, slice(None)) == 1).all()
    assert not (pictures.lines_at(rows, slice(None)) == 1).all()


@pytest.mark.parametrize("name", ["softmax", "triplet"])
def test_trained_floats_bring_the_views_of_a_class_together(tmp_path, name):
    table = toy_table(tmp_path, learning_rate=3e-3)
    before, after = (table.run(name, steps)[0][name]["floats"] for steps in (1, 60))
    assert after.average_precisions.mean() > before.average_precisions.mean() + 0.2


def test_unseen_classes_are_ranked_among_themselves(tmp_path):
    table = toy_table(tmp_path, "zero-shot")
    assert len(table.labels["query"]) == len(table.labels["gallery"]) == 12
    measured, _ = table.run("dsh", 1)
    assert measured["dsh"]["64"].first.shape == (12, 12)
    assert measured["dsh"]["64"].average_precisions == pytest.approx(1)  # one class: all is relevant


def test_codes_are_measured_as_the_package_does(tmp_path):
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(20, 16)), rng.normal(size=(300, 16))
    labels = rng.integers(3, size=20), rng.integers(3, size=300)
    found = rank_codes(queries, gallery, *labels)
    expected = evaluate(pack_signs(queries), pack_signs(gallery), *labels, bits=16, ks=(10,))
    np.testing.assert_allclose(found.average_precisions, expected.average_precisions)
    assert found.precisions.mean() == pytest.approx(expected.precision_at[10])


def test_floats_are_ranked_by_cosine():
    queries, gallery = np.array([[1.0, 0]]), np.array([[0, 9.0], [0.1, 0.1], [5, 0.1], [-1, 0]])
    found = rank_floats(queries, gallery, np.array([1]), np.array([1, 0, 1, 0]))
    assert found.first.tolist() == [[2, 1, 0, 3]]
    assert found.average_precisions == pytest.approx([(1 + 2 / 3) / 2])


def test_itq_keeps_groups_apart():
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(4, 32)), np.repeat(np.arange(4), 50)
    values = (centres[labels] + 0.05 * rng.normal(size=(200, 32))).astype(np.float32)
    train, queries = itq(values, 8, values, values[::10])
    found = rank_codes(queries, train, labels[::10], labels)
    assert found.average_precisions.mean() > 0.95


def test_itq_needs_as_many_pictures_as_bits():
    with pytest.raises(ValueError, match="ITQ of 8 bits needs as many pictures to learn from, got 5"):
        itq(np.eye(5, 16, dtype=np.float32), 8)


def test_data_must_be_named(capsys):
    assert main(["ablation"]) == 2
    assert "name the data: --sketchy DIR" in capsys.readouterr().err
