"""Hash codes: signs packed into bytes, and the Hamming distance between them.

The layout is the one that sentence-transformers calls ``ubinary`` and that FAISS, usearch and Milvus read
as it is: eight bits a byte, the first bit is the most significant one, the last byte padded with zeros.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Codes = NDArray[np.uint8]


def code_bytes(bits: int) -> int:
    """Give the bytes that one code of ``bits`` bits takes."""
    return (bits + 7) // 8


def pack_signs(values: ArrayLike) -> Codes:
    """Pack the signs of real values into codes: bit k is 1 where value k is above 0.

    Args:
        values: real numbers of shape ``(..., bits)``.

    Returns:
        uint8 codes of shape ``(..., ceil(bits / 8))``.
    """
    return np.packbits(np.asarray(values) > 0, axis=-1)


def unpack_codes(codes: Codes, bits: int) -> NDArray[np.int8]:
    """Unpack codes of shape ``(..., ceil(bits / 8))`` into int8 values of -1 and +1, shape ``(..., bits)``."""
    ones = np.unpackbits(codes, axis=-1, count=bits)
    return ones.astype(np.int8) * 2 - 1


def hamming_distances(queries: Codes, gallery: Codes) -> NDArray[np.int64]:
    """Count the differing bits between every query and every gallery code.

    Args:
        queries: uint8 codes of shape ``(q, bytes)``.
        gallery: uint8 codes of shape ``(n, bytes)``.

    Returns:
        int64 distances of shape ``(q, n)``.
    """
    distances = np.zeros((len(queries), len(gallery)), dtype=np.int64)
    for column in range(queries.shape[1]):  # byte by byte: no (q, n, bytes) array is ever held
        distances += np.bitwise_count(queries[:, column, None] ^ gallery[None, :, column])
    return distances


def check_codes(codes: ArrayLike, bits: int, name: str = "codes") -> Codes:
    """Give ``codes`` as a contiguous uint8 array of shape ``(n, ceil(bits / 8))``.

    Raises:
        ValueError: another shape, another dtype, or padding bits that are set.
    """
    array = np.asarray(codes)
    width = code_bytes(bits)
    if array.dtype != np.uint8:
        raise ValueError(f"{name} must be packed uint8 codes (see dsh_hf.codes.pack_signs), got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{name} of {bits} bits must have the shape (n, {width}), got {array.shape}")
    if bits % 8 and np.any(array[:, -1] & (0xFF >> bits % 8)):
        raise ValueError(f"{name} have bits set beyond bit {bits}: they are longer than {bits} bits")
    return np.ascontiguousarray(array)
