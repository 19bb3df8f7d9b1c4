"""What the exact engine does beyond what every engine does."""

import subprocess
import sys

import numpy as np
import pytest

from dsh_hf.codes import hamming_distances, pack_signs
from dsh_hf.index import exact, open_index


def nearest(queries, codes, k):
    """The k first by a full stable sort."""
    distances = hamming_distances(queries, codes)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


@pytest.mark.parametrize("order", ["random", "nearest last", "nearest first"])
@pytest.mark.parametrize("k", [1, 6, 300])
def test_what_lies_in_which_block_makes_no_difference(order, k, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", 64)
    rng = np.random.default_rng(0)
    codes = pack_signs(rng.standard_normal((1000, 64)))
    queries = codes[:1] ^ np.array([[0], [1]], np.uint8)
    if order != "random":
        by_distance = np.argsort(hamming_distances(queries, codes)[0])
        codes = codes[by_distance[::-1] if order == "nearest last" else by_distance]
    index = open_index("exact", bits=64)
    index.add(codes)
    for k_or_all in (k, 1000):
        distances, ids = index.search(queries, k_or_all)
        expected_distances, expected_ids = nearest(queries, codes, k_or_all)
        assert np.array_equal(distances, expected_distances)
        assert np.array_equal(ids, expected_ids)


@pytest.mark.parametrize("bits", [1, 7, 8, 254, 255, 256, 600])
def test_the_greatest_distance_that_the_bits_allow(bits):
    index = open_index("exact", bits=bits)
    index.add(pack_signs(np.array([[1] * bits, [0] * bits, [1] * bits])))
    index.remove([1])  # leaves an empty row, which no distance may reach
    query = pack_signs(np.zeros(bits))
    assert [found.tolist() for found in index.search(query, 9)] == [[bits, bits], [0, 2]]
    assert [found.tolist() for found in index.search_radius(query, bits)] == [[bits, bits], [0, 2]]
    assert index.search_radius(query, bits - 1)[0].size == 0


def test_removed_codes_give_their_memory_back():
    codes = pack_signs(np.random.default_rng(0).standard_normal((1000, 64)))
    index = open_index("exact", bits=64)
    index.add(codes)
    full = index.stats()["bytes"]
    index.remove(range(900))
    assert index.stats()["bytes"] < full / 5
    assert np.array_equal(index.search(codes[900:], 1)[1][:, 0], np.arange(900, 1000))


def test_needs_numpy_alone():
    code = (
        "import sys, numpy; from dsh_hf.index import open_index;"
        "index = open_index('exact', bits=8); index.add(numpy.zeros((1, 1), numpy.uint8));"
        "assert index.search(numpy.zeros(1, numpy.uint8), 1)[1].tolist() == [0];"
        "print([name for name in ('torch', 'hnswlib', 'datasets', 'timm') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
