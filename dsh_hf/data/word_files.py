"""Files of word vectors as they circulate: GloVe, word2vec and fastText, each read once and never held whole.

What a file is, its content says: fastText's model files begin with a number of their own, word2vec's with a line of
two numbers (how many words, how many dimensions), and GloVe's with the first word. Any of them may be gzipped.
"""

import gzip
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

Vectors = dict[str, NDArray[np.float32]]

_CHUNK = 1 << 20
_LONGEST = 1 << 20  # bytes of a line, or of a word: more is no file of word vectors
_MOST_DIMENSIONS = 1 << 16
_MOST_DIGITS = 15
_GZIP = b"\x1f\x8b"
_FASTTEXT = struct.pack("<i", 793712314)
_FASTTEXT_VERSIONS = (11, 12)
_FASTTEXT_HEADER = struct.Struct("<4x13id3i2q")  # 12 settings and a rate, 3 counts of words, tokens, pruned n-grams
_SUPERVISED = 3


class _DamagedError(ValueError):
    """What is wrong with a file, before its name is known."""


def read_vectors(path: str | Path, words: Collection[str]) -> Vectors:
    """Read the vectors of some words from a file, in one pass and in memory for these words only.

    Args:
        path: GloVe's text, word2vec's text or binary, fastText's ``.vec`` or ``.bin``, gzipped or not.
        words: the words wanted, as the file spells them.

    Returns:
        A float32 vector of shape ``(d,)`` for each word that the file knows. fastText's ``.bin`` also gives vectors
        to words that it does not list: the mean of their character n-grams'.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is none of these, is damaged, or holds a quantised model (``.ftz``).
    """
    with Path(path).open("rb") as plain:
        zipped = plain.read(len(_GZIP)) == _GZIP
        plain.seek(0)
        file = cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if zipped else plain
        try:
            return _read(file, {word.encode(): word for word in words})
        except (_DamagedError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} cannot be read as word vectors (GloVe, word2vec, fastText): {error}") from error


def _read(file: BinaryIO, wanted: dict[bytes, str]) -> Vectors:
    start = file.read(len(_FASTTEXT))
    file.seek(0)
    if start == _FASTTEXT:
        return _read_fasttext(file, list(wanted.values()))
    first, second = file.readline(_LONGEST), file.readline(_LONGEST)
    header = _header(first)
    if header is None:
        file.seek(0)
        return _read_text(file, wanted, _dimensions(first), None)
    count, dimensions = header
    file.seek(len(first))
    if _is_row(second, dimensions):
        return _read_text(file, wanted, dimensions, count)
    return _read_binary(file, wanted, dimensions, count)


def _header(line: bytes) -> tuple[int, int] | None:
    """Read how many words and dimensions word2vec announces."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    told = [field[:_MOST_DIGITS] for field in fields]  # Python reads no int of thousands of digits
    count, dimensions = map(int, told)
    if told != fields or not count or not 0 < dimensions <= _MOST_DIMENSIONS:
        raise _DamagedError(f"its first line announces {count} words of {dimensions} dimensions")
    return count, dimensions


def _dimensions(line: bytes) -> int:
    """Count the numbers in a line of GloVe's."""
    dimensions = len(line.split()) - 1
    if dimensions < 1 or not line.endswith(b"\n") or not _is_row(line, dimensions):
        raise _DamagedError("its first line is not a word and its numbers")
    return dimensions


def _is_row(line: bytes, dimensions: int) -> bool:
    fields = line.split()
    try:
        return len(fields) > dimensions and bool(np.isfinite([float(field) for field in fields[-dimensions:]]).all())
    except ValueError:
        return False


def _read_text(file: BinaryIO, wanted: dict[bytes, str], dimensions: int, count: int | None) -> Vectors:
    found: Vectors = {}
    last, rows = b"", 0
    for line in iter(lambda: file.readline(_LONGEST), b""):
        if line.isspace():
            continue
        last, rows = line, rows + 1
        word = wanted.get(line.split(None, 1)[0])
        if word is None or word in found:
            continue
        fields = line.split()
        if len(fields) > dimensions + 1:  # another word, with a space in it
            continue
        if not _is_row(line, dimensions):
            raise _DamagedError(f"line {rows + (count is not None)} is not a word and {dimensions} numbers")
        found[word] = np.array(fields[1:]).astype(np.float32)
    if not _is_row(last, dimensions):
        raise _DamagedError("its last line is cut off")
    if count is not None and rows < count:
        raise _DamagedError(f"it is cut off: {rows} of {count} words")
    return found


def _read_binary(file: BinaryIO, wanted: dict[bytes, str], dimensions: int, count: int) -> Vectors:
    found: Vectors = {}
    for raw, numbers in _records(file, count, b" ", 4 * dimensions):
        word = wanted.get(raw.lstrip(b"\n"))  # some writers end each vector with a newline
        if word is not None and word not in found:
            found[word] = _vector(numbers)
    return found


def _records(file: BinaryIO, count: int, end: bytes, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Give words and the ``size`` bytes that follow them, where ``end`` ends a word."""
    buffer, start = b"", 0
    for number in range(count):
        stop = buffer.find(end, start)
        while stop < 0 or stop + 1 + size > len(buffer):
            if stop < 0 and len(buffer) - start > _LONGEST:
                raise _DamagedError(f"word {number + 1} does not end")
            more = file.read(_CHUNK)
            if not more:
                raise _DamagedError(f"it is cut off: {number} of {count} words")
            buffer, start = buffer[start:] + more, 0
            stop = buffer.find(end)
        yield buffer[start:stop], buffer[stop + 1 : stop + 1 + size]
        start = stop + 1 + size


def _vector(numbers: bytes) -> NDArray[np.float32]:
    vector = np.frombuffer(numbers, dtype="<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise _DamagedError("a vector holds something other than numbers")
    return vector


@dataclass(frozen=True)
class _FastText:
    """What fastText's model file says before its vectors: one for each word, then one for each bucket of n-grams."""

    dimensions: int
    words: int
    buckets: int
    shortest: int
    longest: int
    row_of: dict[str, int]

    def rows(self, word: str) -> list[int]:
        """Give the rows whose mean is the word's vector: its own, and those of its n-grams."""
        own = [self.row_of[word]] if word in self.row_of else []
        return own + [self.words + _hash(ngram) % self.buckets for ngram in self._ngrams(word)]

    def _ngrams(self, word: str) -> Iterator[str]:
        marked = f"<{word}>"
        for start in range(len(marked)):
            for end in range(start + max(self.shortest, 1), min(start + self.longest, len(marked)) + 1):
                if end - start > 1 or 0 < start < len(marked) - 1:  # the marks alone are no n-grams
                    yield marked[start:end]


def _hash(ngram: str) -> int:
    """Compute fastText's variant of 32-bit FNV-1a, which takes bytes as signed."""
    value = 2166136261
    for byte in ngram.encode():
        value = (value ^ (byte | 0xFFFFFF00 if byte > 127 else byte)) * 16777619 & 0xFFFFFFFF
    return value


def _read_fasttext(file: BinaryIO, words: list[str]) -> Vectors:
    model, start = _fasttext_dictionary(file, words)
    rows = {word: model.rows(word) for word in words}
    size = 4 * model.dimensions
    read = {}
    # In the order of the file: a gzipped one cannot go back.
    for row in sorted({row for some in rows.values() for row in some}):
        file.seek(start + row * size)
        numbers = file.read(size)
        if len(numbers) < size:
            raise _DamagedError("it is cut off within its vectors")
        read[row] = _vector(numbers)
    file.seek(start + (model.words + model.buckets) * size - 1)
    if not file.read(1):
        raise _DamagedError("it is cut off within its vectors")
    return {word: np.mean([read[row] for row in some], axis=0) for word, some in rows.items() if some}


def _fasttext_dictionary(file: BinaryIO, wanted: list[str]) -> tuple[_FastText, int]:
    """Read the settings and the wanted words' rows; give also where in the file the first row begins."""
    content = file.read(_FASTTEXT_HEADER.size)
    if len(content) < _FASTTEXT_HEADER.size:
        raise _DamagedError("it is cut off")
    version, dimensions, *settings, entries, words, _, _, pruned = _FASTTEXT_HEADER.unpack(content)
    kind, buckets, shortest, longest = settings[6:10]
    if version not in _FASTTEXT_VERSIONS:
        raise _DamagedError(f"it is a fastText model of the unknown version {version}")
    if version == 11 and kind == _SUPERVISED:
        longest = 0
    sizes_fit = 0 < dimensions <= _MOST_DIMENSIONS and 0 <= words <= entries and pruned <= buckets
    if not sizes_fit or buckets < (longest > 0):
        raise _DamagedError("the beginning of the fastText model makes no sense")
    row_of, position = {}, _FASTTEXT_HEADER.size
    known = {word.encode(): word for word in wanted}
    for row, (word, _) in enumerate(_records(file, entries, b"\0", 9)):
        position += len(word) + 10
        if row < words and word in known:
            row_of[known[word]] = row
    position += 8 * max(pruned, 0)
    file.seek(position)
    matrix = file.read(17)
    if matrix[:1] == b"\1":
        raise _DamagedError("it is a quantised fastText model (.ftz): take the .bin or .vec file that it was made from")
    if matrix != struct.pack("<?2q", False, words + buckets, dimensions):
        raise _DamagedError("the vectors of the fastText model do not begin where they should")
    return _FastText(dimensions, words, buckets, shortest, longest, row_of), position + 17
