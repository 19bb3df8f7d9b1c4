"""Drawings as strokes: read, drawn, and the examples."""

import numpy as np
import pytest
from demo_parts import DEMO  # noqa: F401

# isort: split
from sketchpad import EXAMPLES, MAX_NUMBERS, read_strokes, render_strokes


def test_draws_strokes_black_on_white():
    picture = np.asarray(render_strokes([[10, 50, 90, 50]], size=200))
    assert picture.shape == (200, 200)
    assert picture[100, 30:170].max() < 60
    assert picture[:90].min() == 255


def test_a_tap_is_a_dot():
    assert np.asarray(render_strokes([[50, 50]])).min() < 60


def test_strokes_that_leave_the_pad_stay_at_its_edge():
    picture = np.asarray(render_strokes([[50, 50, 1e9, 50]], size=200))
    assert picture[100, 199] < 60


def test_any_number_is_a_place():
    (stroke,) = strokes = read_strokes([[50, 50, 10**400, 50]])
    assert len(stroke) == 4
    assert np.asarray(render_strokes(strokes, size=200))[100, 199] < 60


def test_nothing_sent_is_an_empty_drawing():
    assert read_strokes(None) == read_strokes([]) == []


def test_a_drawing_without_end_is_cut():
    strokes = [[50, 50] * (MAX_NUMBERS // 4), [10, 10, 20, 20], [50, 50] * MAX_NUMBERS, [1, 1]]
    assert read_strokes(strokes) == strokes[:2]
    assert sum(map(len, read_strokes([[50, 50]] * 100_000))) == 20_000


@pytest.mark.parametrize(
    "sent",
    [
        [[1, 2, 3]],
        [[]],
        [{}],
        [["1", "2"]],
        ["12"],
        [[None, None]],
        [[float("nan"), 1]],
        [[float("inf"), 1]],
        [[[1, 2], [3, 4]]],
        [7],
        7,
        {"a": 1},
    ],
)
def test_what_is_no_list_of_strokes_is_refused(sent):
    with pytest.raises((ValueError, TypeError)):
        read_strokes(sent)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_lie_on_the_pad(name):
    values = np.concatenate(EXAMPLES[name])
    assert 2 <= values.min() < values.max() <= 98
