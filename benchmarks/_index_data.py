"""The codes that the benchmark of the index searches: of a model, uniform ones, and few ones repeated."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsh_hf.codes import Codes
from dsh_hf.files import replaced_atomically

KINDS = {  # of codes, as the options and the tables call them
    "real": "photographs of the released model, repeated with its bit errors; queries are held-out sketches",
    "uniform": "every bit a fair coin",
    "repeated": "5,000 distinct codes in clusters, repeated; half of the queries are copies",
}
DISTINCT, CLUSTERS, CLUSTER_FLIPS = 5000, 250, (0.1, 0.2)
CHUNK = 250_000  # codes made at a time
PICTURES = (".jpg", ".jpeg", ".png")


class ModelCodes(NamedTuple):
    """What a model makes of the pictures."""

    photographs: Codes  # of the gallery
    sketches: Codes  # the held-out queries
    words: Codes  # one a class: what most of its photographs have
    errors: NDArray[np.float64]  # of every bit: the share of held-out pictures that differ from their class's word
    heldout: int  # pictures that the errors were measured on
    classes: int  # classes that these pictures are of


def make_codes(kind: str, size: int, queries: int, bits: int, model: ModelCodes | None) -> tuple[Codes, Codes]:
    """Give ``size`` codes and at most ``queries`` queries of a kind; the same ones every time."""
    draws = np.random.default_rng(0)
    if kind == "uniform":
        codes = draws.integers(0, 256, (size + queries, bits // 8), dtype=np.uint8)
        return codes[queries:], codes[:queries]
    if kind == "repeated":
        words = np.packbits(draws.random((CLUSTERS, bits)) < 0.5, axis=1)
        flips = draws.uniform(*CLUSTER_FLIPS, (DISTINCT + queries, 1))
        near = flipped(words[draws.integers(CLUSTERS, size=DISTINCT + queries)], flips, draws, bits)
        distinct, others = near[:DISTINCT], near[DISTINCT + queries // 2 :]
        codes = distinct[draws.integers(DISTINCT, size=size)]
        return codes, np.concatenate([distinct[: queries // 2], others])
    if model is None:
        raise ValueError("codes of the kind 'real' need --sketchy and --heldout")
    shown = np.linspace(0, len(model.sketches) - 1, min(queries, len(model.sketches))).astype(int)
    return repeated_with_errors(model.photographs, size, model.errors, bits), model.sketches[shown]


def repeated_with_errors(codes: Codes, size: int, errors: ArrayLike, bits: int, seed: int = 0) -> Codes:
    """Repeat codes in turn until there are ``size``, each bit flipped with its own probability."""
    draws = np.random.default_rng(seed)
    made = [
        flipped(codes[np.arange(first, min(first + CHUNK, size)) % len(codes)], errors, draws, bits)
        for first in range(0, size, CHUNK)
    ]
    return np.concatenate(made)


def flipped(codes: Codes, errors: ArrayLike, draws: np.random.Generator, bits: int) -> Codes:
    """Flip each bit with the probability that ``errors`` gives it; they broadcast to ``(n, bits)``."""
    flips = draws.random((len(codes), bits), dtype=np.float32) < np.asarray(errors)
    return codes ^ np.packbits(flips, axis=1)


def bit_errors(codes: Codes, labels: NDArray[np.int64], words: Codes, bits: int) -> NDArray[np.float64]:
    """Give, a bit, the share of codes that differ from the word of their class; shape ``(bits,)``."""
    return np.unpackbits(codes ^ words[labels], axis=1, count=bits).mean(axis=0)


def class_words(codes: Codes, labels: NDArray[np.int64], classes: int, bits: int) -> Codes:
    """Give the bits that most codes of each class have, packed; a class without codes gets zeros."""
    votes = np.zeros((classes, bits))
    np.add.at(votes, labels, 2.0 * np.unpackbits(codes, axis=1, count=bits) - 1)
    return np.packbits(votes > 0, axis=1)


def model_codes(checkpoint: str, sketchy: str, heldout: str, cache: Path) -> tuple[ModelCodes, int, str]:
    """Encode with a checkpoint what "real" codes are made of, or read them from the cache; its bits and fingerprint.

    Args:
        checkpoint: folder or repository of the model, with its split.
        sketchy: folder of the Sketchy database.
        heldout: pictures that the model never saw, in one folder a class; those of its classes are used.
        cache: folder to keep the codes in.

    Raises:
        OSError: the data or the checkpoint are not there.
        ValueError: no folder of ``heldout`` has the name of a class.
    """
    from dsh_hf import DSHModel
    from dsh_hf.cli.evaluate import split_of
    from dsh_hf.data import load_sketchy, make_split
    from dsh_hf.training_data import undecoded

    model = DSHModel.from_pretrained(checkpoint)
    bits = model.config.bits
    kept = cache / f"real-{bits}-{model.fingerprint[:12]}.npz"
    if kept.is_file():
        with np.load(kept) as arrays:
            named = {name: arrays[name] for name in ModelCodes._fields}
            return (
                ModelCodes(**named | {name: int(named[name]) for name in ("heldout", "classes")}),
                bits,
                model.fingerprint,
            )
    data = load_sketchy(sketchy)
    names = data["images"].features["label"].names
    unseen = list(_pictures_of(Path(heldout), names))
    if not unseen:
        raise ValueError(f"no folder in {heldout} has the name of a class of {sketchy}, such as {names[0]}")
    parts = (split_of(checkpoint) or make_split(data, "open", 0)).select(data)
    gallery, queries = parts["gallery_images"], parts["query_sketches"]
    photographs = model.encode_images(undecoded(gallery), show_progress_bar=True)
    words = class_words(photographs, np.asarray(gallery["label"]), len(names), bits)
    labels = np.array([label for label, _ in unseen])
    codes = model.encode_images([path for _, path in unseen], show_progress_bar=True)
    errors = bit_errors(codes, labels, words, bits)
    sketches = model.encode_sketches(undecoded(queries), show_progress_bar=True)
    made = ModelCodes(photographs, sketches, words, errors, len(unseen), len(set(labels.tolist())))
    cache.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(kept) as temporary, temporary.open("wb") as file:
        np.savez(file, **made._asdict())
    return made, bits, model.fingerprint


def _pictures_of(folder: Path, classes: list[str]) -> Iterator[tuple[int, Path]]:
    """Give the label and path of every picture whose folder has the name of a class."""
    for label, name in enumerate(classes):
        for place in {folder / name, folder / name.replace("_", " ")}:
            if place.is_dir():
                pictures = (path for path in sorted(place.iterdir()) if path.suffix.lower() in PICTURES)
                yield from ((label, path) for path in pictures)
