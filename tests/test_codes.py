import numpy as np
import pytest

from dsh_hf.codes import check_codes, code_bytes, hamming_distances, pack_signs, unpack_codes


@pytest.mark.parametrize(("bits", "width"), [(8, 1), (9, 2), (12, 2), (60, 8), (64, 8), (65, 9)])
def test_a_code_takes_one_byte_for_eight_bits(bits, width):
    assert code_bytes(bits) == width
    assert pack_signs(np.ones((3, bits))).shape == (3, width)


def test_the_first_bit_is_the_most_significant_one():
    assert pack_signs([1.0, -1, -1, -1, -1, -1, -1, -1]).tolist() == [0b10000000]
    assert pack_signs([-1.0, -1, 1, -1, -1, -1, -1, 1]).tolist() == [0b00100001]


def test_only_what_is_above_zero_is_a_one():
    assert pack_signs([0.0, -0.0, 1e-30, -1e-30, 5, -5, 0, 0]).tolist() == [0b00101000]


def test_the_last_byte_is_padded_with_zeros():
    assert pack_signs(np.ones(11)).tolist() == [0xFF, 0b11100000]


@pytest.mark.parametrize("shape", [(60,), (4, 60), (2, 3, 60)])
def test_unpacking_gives_the_signs_back(shape):
    values = np.random.default_rng(0).standard_normal(shape)
    signs = unpack_codes(pack_signs(values), 60)
    assert signs.dtype == np.int8
    np.testing.assert_array_equal(signs, np.sign(values))


@pytest.mark.parametrize("bits", [8, 60, 64, 512])
def test_distances_count_the_differing_signs(bits):
    rng = np.random.default_rng(bits)
    queries, gallery = rng.standard_normal((3, bits)), rng.standard_normal((7, bits))
    distances = hamming_distances(pack_signs(queries), pack_signs(gallery))
    assert distances.dtype == np.int64
    np.testing.assert_array_equal(distances, ((queries > 0)[:, None] != (gallery > 0)[None]).sum(axis=2))


def test_opposite_codes_are_as_far_apart_as_they_are_long():
    # 1024 would not fit the uint8 of a byte's count
    assert hamming_distances(pack_signs(np.ones((1, 1024))), pack_signs(-np.ones((1, 1024)))).item() == 1024


@pytest.mark.parametrize(("queries", "gallery"), [(0, 5), (5, 0), (0, 0)])
def test_no_codes_have_no_distances(queries, gallery):
    shape = hamming_distances(np.zeros((queries, 8), np.uint8), np.zeros((gallery, 8), np.uint8)).shape
    assert shape == (queries, gallery)


def test_good_codes_pass_the_check_as_they_are():
    codes = pack_signs(np.ones((3, 60)))
    np.testing.assert_array_equal(check_codes(codes, 60), codes)
    np.testing.assert_array_equal(check_codes(codes[:0], 60), codes[:0])


def test_checked_codes_are_contiguous():
    every_other = pack_signs(np.ones((6, 64)))[::2, :]
    assert not every_other.flags.c_contiguous
    assert check_codes(every_other, 64).flags.c_contiguous


@pytest.mark.parametrize(
    ("codes", "complaint"),
    [
        (np.ones((2, 8)), "packed uint8 codes .* got float64"),  # the signs themselves, not packed
        ([[1, 2, 3, 4, 5, 6, 7, 8]], "packed uint8 codes .* got int64"),
        (np.zeros(8, np.uint8), r"shape \(n, 8\), got \(8,\)"),
        (np.zeros((2, 4), np.uint8), r"shape \(n, 8\), got \(2, 4\)"),  # 32 bits
        (np.zeros((2, 1, 8), np.uint8), r"shape \(n, 8\), got \(2, 1, 8\)"),
        (pack_signs(np.ones((2, 64))), "longer than 60 bits"),  # as many bytes, but more bits
    ],
)
def test_bad_codes_are_refused_by_name(codes, complaint):
    with pytest.raises(ValueError, match=f"^hits.*{complaint}"):
        check_codes(codes, 60, "hits")
