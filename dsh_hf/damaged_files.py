"""Damage that decoders pass over: a file of full size of which only the beginning arrived."""

import struct
import zlib
from collections.abc import Iterator

_EMPTY_END = 16  # zero bytes; what an encoder writes ends in three at most
_WEBP_FRAMES = (b"VP8 ", b"VP8L", b"ANMF")


def hidden_damage(content: bytes) -> str | None:
    """Say what is wrong with a picture's file that would nevertheless be decoded, if anything.

    Args:
        content: a whole file; only PNG and WebP are looked at.

    Returns:
        What is wrong in a few words, or ``None``.
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        for name, start, end in _chunks(content, 8, ">"):
            # Pillow checks the sums of all others.
            if name == b"IDAT" and content[end : end + 4] != zlib.crc32(content[start - 4 : end]).to_bytes(4, "big"):
                return "a checksum is wrong"
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        for name, start, end in _chunks(content, 12, "<"):
            if name in _WEBP_FRAMES and not content[max(start, end - _EMPTY_END) : end].strip(b"\0"):
                return "it ends in zeros"
    return None


def _chunks(content: bytes, position: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Give the name of each chunk of a PNG (order ``>``) or WebP (``<``), and where what it holds starts and ends."""
    while position + 8 <= len(content):
        if order == ">":
            length, name = struct.unpack_from(">I4s", content, position)
        else:
            name, length = struct.unpack_from("<4sI", content, position)
        start = position + 8
        yield name, start, start + length
        if name == b"IEND":  # what comes behind it is no chunk
            return
        position = start + length + (4 if order == ">" else length % 2)
