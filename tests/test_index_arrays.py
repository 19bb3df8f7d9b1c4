"""The containers under the local engines."""

import numpy as np
import pytest

from dsh_hf.codes import pack_signs
from dsh_hf.index.arrays import GrowingArray, KeyTable, NumberSet, distinct, mixed, place_dtype, to_codes, to_words


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


def test_a_growing_array_forgets_what_it_is_cut_by():
    grown = GrowingArray(np.arange(5))
    grown.truncate(9)
    grown.truncate(3)
    grown.extend(np.array([7]))
    assert grown.array.tolist() == [0, 1, 2, 7]


def test_a_set_of_numbers_grows_and_takes_a_bit_each():
    numbers = NumberSet(5)
    numbers.add(np.array([0, 4, 4]))
    for count in (9, 7, 20):
        numbers.grow(count)
    numbers.add(np.array([19, 8]))
    assert np.flatnonzero(numbers.mask(20)).tolist() == [0, 4, 8, 19]
    assert numbers.has(np.array([19, 18, 0])).tolist() == [True, False, True]
    assert NumberSet(8000).nbytes == 1000


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


def test_a_key_takes_at_most_16_bytes():
    table = KeyTable()
    for start in range(0, 50_000, 5_000):
        table.put(np.arange(start, start + 5_000), np.arange(50_000, dtype=np.uint64)[None])
        assert table.nbytes <= 16 * (start + 5_000)


def test_places_are_as_narrow_as_their_count_allows():
    assert place_dtype(2**31 - 1) is np.int32
    assert place_dtype(2**31) is np.int64


@pytest.mark.parametrize("bits", [1, 12, 64, 100, 256])
def test_codes_become_words_and_codes_again(bits):
    codes = pack_signs(np.random.default_rng(bits).standard_normal((30, bits)))
    words = to_words(codes)
    assert words.shape == (-(-bits // 64), 30)
    assert words.dtype == np.uint64
    assert np.bitwise_count(words).sum() == np.unpackbits(codes).sum()
    assert np.array_equal(to_codes(words, codes.shape[1]), codes)
    every_second = codes[::2, :]  # not contiguous
    assert np.array_equal(to_codes(to_words(every_second), codes.shape[1]), every_second)


@pytest.mark.parametrize("words", [1, 2])
def test_distinct_codes_in_order_of_appearance(words):
    codes = np.random.default_rng(words).integers(0, 4, (words, 100)).astype(np.uint64)
    first, group = distinct(codes)
    seen = list(dict.fromkeys(map(tuple, codes.T.tolist())))
    assert [tuple(code) for code in codes[:, first].T.tolist()] == seen
    assert [seen[place] for place in group] == list(map(tuple, codes.T.tolist()))


def test_keys_of_one_word_keep_apart_when_mixed():
    keys = np.concatenate([np.arange(1000), np.arange(1000) << 40]).astype(np.uint64)[None]
    assert np.unique(mixed(keys)).size == np.unique(keys).size
