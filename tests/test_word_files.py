import base64
import gzip
import struct

import numpy as np
import pytest

from dsh_hf.data.word_files import read_vectors

WORDS = {"the": [0.5, -1, 2], "cat": [1, 2, 3], "naïve": [-4, 0, 0.25], "dog": [7, 8, 9]}

# A model that fastText itself trained: skip-gram, 2 dimensions, n-grams of 2 and 3 letters in 7 buckets,
# the words "ant", "bee" and "naïve"; and the vectors that it gives.
FASTTEXT = base64.b64decode(
    "uhZPLwwAAAACAAAABQAAAAUAAAABAAAABQAAAAEAAAACAAAAAgAAAAcAAAACAAAAAwAAAGQAAAAtQxzr4jYaPwQAAAAEAAAAAAAAANAHAAAAAA"
    "AA//////////9hbnQAIAMAAAAAAAAAYmVlAFgCAAAAAAAAAG5hw692ZQCQAQAAAAAAAAA8L3M+AMgAAAAAAAAAAAALAAAAAAAAAAIAAAAAAAAA"
    "ebOKv/Pkgj//ffS8DbvmPFuJar74VV0+Zv/uvriL4T4+0fm+qMHrPqErK79FiSE/2hV1v3FKZz9eieq+9lXdPtoVdb9xSmc/yE7Mv+vOwD8nIR"
    "LAl+cJQAAEAAAAAAAAAAIAAAAAAAAAeyQMPzRBBL/lryc/tz8ev4a1Kz9hCyK/YK8xPyGvJ78="
)
FASTTEXT_VECTORS = {
    "ant": [-1.4282278, 1.3478403],
    "naïve": [-1.2304189, 1.161165],  # its n-grams are of letters, not of bytes
    "antïe": [-1.0715916, 1.0112772],  # not in the model's list
    "q": [-0.7648779, 0.7218271],
}
QUANTISED_FLAG = 148  # where the list of words ends


def glove(words=WORDS):
    return "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in words.items()).encode()


def word2vec_text(words=WORDS):
    return f"{len(words)} 3\n".encode() + glove(words)


def word2vec_binary(words=WORDS, end=b"\n"):
    rows = [word.encode() + b" " + struct.pack("<3f", *row) + end for word, row in words.items()]
    return f"{len(words)} 3\n".encode() + b"".join(rows)


FORMATS = {
    "GloVe": glove(),
    "GloVe with tabs": glove().replace(b" ", b"\t"),
    "GloVe with Windows line ends": glove().replace(b"\n", b"\r\n"),
    "word2vec text": word2vec_text(),
    "fastText .vec": word2vec_text().replace(b"\n", b" \n"),
    "word2vec binary": word2vec_binary(),
    "word2vec binary without line ends": word2vec_binary(end=b""),
}


def written(folder, content, name="vectors"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
def test_the_wanted_words_are_read_from_every_format(tmp_path, content, zipped):
    path = written(tmp_path, gzip.compress(content) if zipped else content)
    vectors = read_vectors(path, {"cat", "naïve", "zeppelin"})
    assert set(vectors) == {"cat", "naïve"}
    assert vectors["cat"].dtype == np.float32
    np.testing.assert_array_equal(vectors["cat"], [1, 2, 3])
    np.testing.assert_array_equal(vectors["naïve"], [-4, 0, 0.25])


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
def test_a_fasttext_model_gives_what_the_library_gives(tmp_path, zipped):
    path = written(tmp_path, gzip.compress(FASTTEXT) if zipped else FASTTEXT)
    vectors = read_vectors(path, FASTTEXT_VECTORS)
    assert set(vectors) == set(FASTTEXT_VECTORS)
    for word, vector in FASTTEXT_VECTORS.items():
        np.testing.assert_allclose(vectors[word], vector, rtol=1e-5)


def test_old_supervised_fasttext_models_have_no_ngrams(tmp_path):
    old = bytearray(FASTTEXT)
    struct.pack_into("<i", old, 4, 11)  # the version
    struct.pack_into("<i", old, 36, 3)  # the kind of model
    vectors = read_vectors(written(tmp_path, bytes(old)), ["ant", "antïe"])
    assert set(vectors) == {"ant"}
    np.testing.assert_array_equal(vectors["ant"], np.frombuffer(FASTTEXT, "<f4", 2, QUANTISED_FLAG + 17))


def test_words_beyond_one_chunk_are_found(tmp_path):
    many = {f"w{number}": [number, 0.5, 1] for number in range(80_000)}  # 1.4 MB as binary
    for content in (word2vec_binary(many), word2vec_text(many)):
        vectors = read_vectors(written(tmp_path, content), ["w0", "w60000", "w79999"])
        assert {word: vector[0] for word, vector in vectors.items()} == {"w0": 0, "w60000": 60000, "w79999": 79999}


def test_a_word_with_a_space_in_the_file_is_not_taken_for_its_first_part(tmp_path):
    content = glove({"the": [0.5, -1, 2], "cat at example.org": [9, 9, 9], "cat": [1, 2, 3]})
    np.testing.assert_array_equal(read_vectors(written(tmp_path, content), ["cat"])["cat"], [1, 2, 3])


def test_of_a_word_given_twice_the_first_counts(tmp_path):
    content = glove() + b"cat 0 0 0\n"
    np.testing.assert_array_equal(read_vectors(written(tmp_path, content), ["cat"])["cat"], [1, 2, 3])


def test_blank_lines_at_the_end_do_no_harm(tmp_path):
    assert set(read_vectors(written(tmp_path, glove() + b"\n\n"), ["dog"])) == {"dog"}


CUT = {
    "GloVe": (glove()[:-5], "last line is cut off"),
    "word2vec text, within a line": (word2vec_text()[:-5], "last line is cut off"),
    "word2vec text, between lines": (word2vec_text().rpartition(b"dog")[0], "cut off: 3 of 4 words"),
    "word2vec binary": (word2vec_binary()[:-5], "cut off: 3 of 4 words"),
    "word2vec, its header alone": (b"4 3\n", "cut off: 0 of 4 words"),
    "fastText, within its settings": (FASTTEXT[:50], "cut off"),
    "fastText, within its words": (FASTTEXT[:130], "cut off: 2 of 4 words"),
    "fastText, within its vectors": (FASTTEXT[:240], "cut off within its vectors"),
    "gzip": (gzip.compress(glove())[:-12], "end-of-stream"),
}


@pytest.mark.parametrize(("content", "why"), CUT.values(), ids=CUT)
def test_a_file_that_is_cut_off_is_named(tmp_path, content, why):
    path = written(tmp_path, content, "cut.vec")
    with pytest.raises(ValueError, match=rf"cut\.vec cannot be read as word vectors .*{why}"):
        read_vectors(path, ["the"])


BAD = {
    "empty": (b"", "first line"),
    "prose": (b"It was a dark and stormy night.\n", "first line"),
    "a word alone": (b"the\n", "first line"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(2000), "first line"),
    "no line end": (b"a" * 3_000_000, "first line"),
    "no words": (b"0 300\n", "announces 0 words"),
    "impossible dimensions": (b"10 99999999999\n", "announces 10 words of 99999999999 dimensions"),
    "a word that never ends": (b"10 3\n" + b"\1" * 3_000_000, "word 1 does not end"),
    "letters for numbers": (glove().replace(b"7 8 9", b"7 x 9") + b"end 1 1 1\n", "line 4 is not a word and 3 numbers"),
    "not a number": (word2vec_text().replace(b"7 8 9", b"7 nan 9") + b"end 1 1 1\n", "line 5 is not a word"),
    "not a number, binary": (word2vec_binary({"dog": [1, 2, float("nan")]}), "other than numbers"),
    "fastText of tomorrow": (FASTTEXT[:4] + struct.pack("<i", 13) + FASTTEXT[8:], "unknown version 13"),
    "fastText without sense": (FASTTEXT[:8] + struct.pack("<i", -1) + FASTTEXT[12:], "makes no sense"),
    "fastText with impossible n-grams": (FASTTEXT[:84] + struct.pack("<q", 2**62) + FASTTEXT[92:], "makes no sense"),
    "fastText of another size": (FASTTEXT[:8] + struct.pack("<i", 3) + FASTTEXT[12:], "do not begin where"),
}


@pytest.mark.parametrize(("content", "why"), BAD.values(), ids=BAD)
def test_a_file_of_something_else_is_named(tmp_path, content, why):
    path = written(tmp_path, content, "bad.txt")
    with pytest.raises(ValueError, match=rf"bad\.txt cannot be read as word vectors .*{why}"):
        read_vectors(path, ["dog"])


def test_a_quantised_fasttext_model_is_refused_with_the_way_out(tmp_path):
    content = FASTTEXT[:QUANTISED_FLAG] + b"\1" + FASTTEXT[QUANTISED_FLAG + 1 :]
    path = written(tmp_path, content, "small.ftz")
    with pytest.raises(ValueError, match=r"small\.ftz .* quantised .* take the \.bin or \.vec file"):
        read_vectors(path, ["ant"])


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.vec"):
        read_vectors(tmp_path / "none.vec", ["cat"])
