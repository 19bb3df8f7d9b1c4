"""The simulation behind docs/collapse.md."""

from PIL import Image

from benchmarks.__main__ import main
from benchmarks.collapse import simulate


def test_the_published_objective_collapses_and_ours_does_not():
    paper, balanced = (simulate(60, 32, 4, kind, 0) for kind in ("paper", "balanced"))
    assert paper.trivial < paper.wanted  # the trivial answer is the better one there
    assert balanced.wanted < 0.1 < 1 < balanced.trivial
    assert paper.random < 0.3
    assert balanced.random == balanced.words == 1


def test_with_few_classes_the_published_objective_works():
    paper = simulate(3, 32, 4, "paper", 0)
    assert paper.wanted < paper.trivial
    assert paper.words == 1


def test_asking_other_classes_for_the_opposite_costs_bits():
    assert simulate(60, 32, 4, "weighted", 0).away > 0.05
    assert simulate(60, 32, 4, "balanced", 0).away == 0


def test_the_command_prints_a_row_for_each_setting_and_draws(tmp_path, capsys):
    figure = tmp_path / "collapse.png"
    command = ["collapse", "--classes", "2", "4", "--bits", "16", "32", "--items", "2", "--out", str(figure)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert [line.split()[:2] for line in told.splitlines()[7:11]] == [
        ["2", "16"],
        ["4", "16"],
        ["2", "32"],
        ["4", "32"],
    ]
    assert "random codes' semantic part of J over their pairs' part, 4 classes, 32 bits: paper" in told
    with Image.open(figure) as picture:
        assert picture.format == "PNG"


def test_losses_are_of_one_order_only_where_they_are_normalised():
    assert simulate(60, 32, 4, "paper", 0).semantic < 1e-4
    assert 0.01 < simulate(60, 32, 4, "balanced", 0).semantic < 1


def test_one_class_is_refused(capsys):
    assert main(["collapse", "--classes", "1"]) == 2
    assert "--classes must be 2 or more" in capsys.readouterr().err
