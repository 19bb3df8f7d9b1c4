"""The containers under the local engines."""

import numpy as np
import pytest

from dsh_hf.index.arrays import GrowingArray, KeyTable


def test_a_growing_array_keeps_what_it_was_given():
    grown = GrowingArray(np.empty((2, 0), np.uint64))
    for count in (3, 0, 1, 40, 2):
        grown.extend(np.full((2, count), count, np.uint64))
    expected = np.repeat([3, 1, 40, 2], [3, 1, 40, 2])
    assert np.array_equal(grown.array, [expected, expected])


def test_a_growing_array_leaves_the_array_it_began_with_alone():
    began = np.arange(3)
    grown = GrowingArray(began)
    grown.extend(np.array([9]))
    grown.array[0] = 7
    assert began.tolist() == [0, 1, 2]


@pytest.mark.parametrize("words", [1, 3])
def test_a_key_table_finds_like_a_dict(words):
    rng = np.random.default_rng(words)
    pool = np.unique(rng.integers(0, 12, size=(4000, words)).astype(np.uint64), axis=0)
    pool = rng.permutation(pool)
    keys, table, known = np.empty((words, 0), np.uint64), KeyTable(), {}
    for batch in np.array_split(pool, 7):
        places = keys.shape[1] + np.arange(len(batch))
        keys = np.concatenate([keys, batch.T], axis=1)
        table.put(places, keys)
        known |= {tuple(key): place for key, place in zip(batch.tolist(), places.tolist(), strict=True)}
        expected = [known.get(tuple(key), -1) for key in pool.tolist()]
        assert table.find(np.ascontiguousarray(pool.T), keys).tolist() == expected


def test_a_key_put_again_moves_to_its_new_place():
    keys = np.array([[5, 6, 5]], np.uint64)
    table = KeyTable()
    table.put(np.array([0, 1]), keys)
    table.put(np.array([2]), keys)
    assert table.find(np.array([[5, 6, 7]], np.uint64), keys).tolist() == [2, 1, -1]


def test_keys_that_all_want_the_same_slot_find_places(monkeypatch):
    monkeypatch.setattr(KeyTable, "_home", lambda self, keys: np.full(keys.shape[1], self._slots.size - 1))
    keys = np.arange(100, dtype=np.uint64)[None]
    table = KeyTable()
    for places in np.array_split(np.arange(90), 4):
        table.put(places, keys)
    assert table.find(keys, keys).tolist() == [*range(90), *[-1] * 10]
