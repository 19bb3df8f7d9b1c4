"""What is special to the torch engine."""

import numpy as np
import pytest
import torch

from dsh_hf.codes import pack_signs
from dsh_hf.index import torch as engine
from dsh_hf.index.exact import ExactIndex
from dsh_hf.index.torch import TorchIndex


def uniform(seed, count, bits):
    return pack_signs(np.random.default_rng(seed).standard_normal((count, bits)))


def filled(index, codes):
    """Codes with removals, codes that come again, and repeated ones."""
    index.add(codes)
    index.remove(range(0, len(codes) // 2, 2))
    index.add(codes[: len(codes) // 4])
    index.add(codes[: len(codes) // 4])
    return index


@pytest.mark.parametrize("bits", [5, 64, 100, 254, 255, 600])
def test_answers_are_those_of_the_exact_engine_ties_included(bits):
    codes, queries = uniform(0, 400, bits), uniform(1, 40, bits)
    index, exact = filled(TorchIndex(bits=bits), codes), filled(ExactIndex(bits=bits), codes)
    queries = np.concatenate([queries, codes[:10], ~codes[:10] if bits % 8 == 0 else codes[:10]])
    for k in (1, 9, 200, 1000):
        for found, wanted in zip(index.search(queries, k), exact.search(queries, k), strict=True):
            assert np.array_equal(found, wanted)
    for found, wanted in zip(
        index.search_radius(queries, bits // 2), exact.search_radius(queries, bits // 2), strict=True
    ):
        assert all(map(np.array_equal, found, wanted))


def test_the_farthest_of_all_is_no_empty_row():
    zero = np.zeros((1, 2), np.uint8)
    index = TorchIndex(bits=16)
    index.add(np.concatenate([zero, ~zero, zero + 1]))
    index.remove([2])
    distances, ids = index.search(zero[0], 3)
    assert (distances.tolist(), ids.tolist()) == ([0, 16], [0, 1])


def test_blocks_of_any_size_give_the_same(monkeypatch):
    codes, queries = uniform(0, 500, 40), uniform(1, 30, 40)
    index = TorchIndex(bits=40)
    index.add(codes)
    whole = index.search(queries, 20)
    monkeypatch.setattr(engine, "BLOCK", 7)
    monkeypatch.setattr(engine, "DISTANCES", 1100)  # two queries at a time
    for part, found in zip(whole, index.search(queries, 20), strict=True):
        assert np.array_equal(part, found)
    monkeypatch.setattr(engine, "DISTANCES", 1)  # fewer than one query has: still one
    assert np.array_equal(index.search(queries, 20)[1], whole[1])


def test_additions_after_a_search_are_found():
    codes = uniform(0, 300, 40)
    index = TorchIndex(bits=40)
    for part in np.array_split(codes, 3):
        index.add(part)
        assert not index.search(part, 1)[0].any()
    index.remove(range(250))
    assert not index.search(codes[250:], 1)[0].any()
    assert index.search(codes[:250], 1)[0].all()


def test_half_precision_is_exact_as_far_as_it_is_used():
    """On a GPU products are in half precision up to 2,048 bits; every whole number up to there is its own."""
    numbers = torch.arange(-2048, 2049, dtype=torch.float32)
    assert torch.equal(numbers.half().float(), numbers)


def test_stats_name_the_device():
    index = TorchIndex(bits=40)
    assert index.stats()["device"] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_saved_index_is_the_codes_alone(tmp_path):
    codes = uniform(0, 300, 40)
    index = TorchIndex(bits=40)
    index.add(codes)
    index.search(codes, 1)
    index.save(tmp_path / "index")
    again = TorchIndex.load(tmp_path / "index")
    assert np.array_equal(again.search(codes, 5)[1], index.search(codes, 5)[1])
    exact = ExactIndex(bits=40)
    exact.add(codes)
    exact.save(tmp_path / "exact")
    assert (tmp_path / "index").stat().st_size == pytest.approx((tmp_path / "exact").stat().st_size, abs=64)
