"""What a gallery knows of each picture: metadata that filters, and outputs that fit into half precision."""

import numpy as np
import pytest

from dsh_hf.gallery.hits import rerank_hits, to_hits
from dsh_hf.gallery.items import Item, RetrieverError, check_ids, kept_outputs, matches, metadata_keys, metadata_text


def item(**metadata):
    return Item(metadata=metadata_text(metadata))


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({}, True),
        ({"label": "cat"}, True),
        ({"label": "ca"}, False),
        ({"label": ["dog", "cat"]}, True),
        ({"label": ("dog",)}, False),
        ({"label": "cat", "year": 1999}, True),
        ({"label": "cat", "year": 2000}, False),
        ({"tags": ["fur"]}, False),  # a list is one of several values
        ({"tags": [["fur", "paws"]]}, True),
        ({"note": None}, True),
        ({"absent": None}, False),
    ],
)
def test_metadata_matches_by_value_or_list_of_values(where, fits):
    assert matches(item(label="cat", year=1999, tags=["fur", "paws"], note=None), where) is fits


def test_keys_of_all_metadata_are_known():
    assert metadata_keys([item(label="cat"), item(label="dog", year=1999), item()]) == {"label", "year"}


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_outputs_of_any_size_keep_their_direction(scale):
    outputs = np.random.default_rng(0).normal(size=(3, 64))
    rows = [np.frombuffer(row, np.float16) for row in kept_outputs(outputs * scale, 3)]
    for row, expected in zip(rows, outputs, strict=True):
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-3)


def test_outputs_of_zero_stay_zero():
    assert kept_outputs(np.zeros((1, 4)), 1) == [bytes(8)]


@pytest.mark.parametrize("shape", [(3, 64), (64,), (2, 4, 8)])
def test_outputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(2, bits\)"):
        kept_outputs(np.zeros(shape), 2)


@pytest.mark.parametrize(
    ("ids", "metadata", "message"),
    [
        ([1, 2], None, "ids of a gallery are strs, got 1"),
        (["a"], None, "2 pictures need as many ids"),
        (["a", "b"], [{}], "2 pictures need as many ids"),
        (["a", "a"], None, "'a' is given more than once"),
    ],
)
def test_ids_that_do_not_fit_are_refused(ids, metadata, message):
    with pytest.raises(ValueError, match=message):
        check_ids(ids, ["x.png", "y.png"], metadata)


@pytest.mark.parametrize("text", ["{", "3", "[]", "[" * 100_000])
def test_damaged_metadata_is_told(text):
    with pytest.raises(RetrieverError, match="the gallery holds damaged metadata"):
        to_hits([("a.png", 0, Item(metadata=text))], None)
    with pytest.raises(RetrieverError, match="the gallery holds damaged metadata"):
        matches(Item(metadata=text), {"label": "cat"})


def test_hits_are_put_in_the_order_of_the_cosine():
    outputs = kept_outputs(np.array([[1.0, 0], [5, 5], [0, 9]]), 3)
    found = [(str(row), row, Item(outputs=outputs[row])) for row in range(3)]
    found.insert(1, ("unknown", 1, Item()))
    hits = rerank_hits(to_hits(found, None), found, np.array([0, 0.1], np.float32))
    assert [hit.id for hit in hits] == ["2", "1", "0", "unknown"]
    assert [hit.score for hit in hits[:3]] == pytest.approx([1, 0.7071, 0], abs=1e-3)
    assert hits[3].score is None
