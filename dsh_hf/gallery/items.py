"""What a gallery knows of each picture beside its code."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsh_hf.files import parse_json
from dsh_hf.processing import Picture

Items = dict[str, "Item"]  # by id


class RetrieverError(ValueError):
    """A gallery cannot be built, saved or opened; the message names the folder or file and the way out."""


class Item(NamedTuple):
    """What is known of one picture.

    Attributes:
        source: where it lies; ``None`` where that is not known, or is its id's place in the gallery's folder.
        metadata: a JSON object, as text: a million of them stay small, and nobody can change one unseen.
        stamp: bytes and time of change of its file, for pictures of the gallery's folder alone.
        outputs: float16 bytes of the image stream's outputs, as :func:`kept_outputs` has them, where they are kept.
    """

    source: str | None = None
    metadata: str = "{}"
    stamp: tuple[int, int] | None = None
    outputs: bytes | None = None


class Candidate(NamedTuple):
    """A picture on its way into a gallery; ``fault`` says why there is none where ``picture`` is ``None``."""

    key: str
    picture: Picture | None
    item: Item
    fault: str = ""


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Give metadata as the text that an :class:`Item` holds.

    Raises:
        ValueError: a value is none of JSON's.
    """
    try:
        return json.dumps(dict(metadata))  # ASCII: file names that are no UTF-8 pass through unchanged
    except TypeError as error:
        raise ValueError(f"metadata {dict(metadata)!r} cannot be kept ({error}): give texts and numbers") from error


def kept_outputs(outputs: NDArray[np.floating], count: int) -> list[bytes]:
    """Scale float outputs to length 1: all that the cosine needs, and never beyond float16's range.

    Args:
        outputs: shape ``(count, bits)``.
        count: how many there must be.

    Returns:
        The float16 bytes of each row: a million of them are opened in no time, a million arrays are not.

    Raises:
        ValueError: another shape.
    """
    if np.ndim(outputs) != 2 or len(outputs) != count:
        raise ValueError(f"outputs of {count} pictures must have the shape ({count}, bits), got {np.shape(outputs)}")
    values = np.asarray(outputs, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return [row.tobytes() for row in (values / np.where(lengths > 0, lengths, 1)).astype(np.float16)]


def metadata_keys(items: Iterable[Item]) -> set[str]:
    """Give every key that the metadata of some item has."""
    return {key for text in {item.metadata for item in items} for key in _parsed(text)}


def matches(item: Item, where: Mapping[str, Any]) -> bool:
    """Tell whether an item's metadata has, for every key, the value or one of the list of values."""
    metadata = _parsed(item.metadata)
    return all(key in metadata and metadata[key] in _values(wanted) for key, wanted in where.items())


def _values(wanted: Any) -> list[Any]:
    return list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]


def parse_metadata(text: str) -> dict[str, Any]:
    """Give metadata of the text that :func:`metadata_text` made of it.

    Raises:
        RetrieverError: nothing of that kind.
    """
    try:
        metadata = parse_json(text)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise RetrieverError(f"the gallery holds damaged metadata, {text[:80]!r}: build it again with dsh-hf index")
    return metadata


_parsed = lru_cache(maxsize=10_000)(parse_metadata)  # a gallery has few different labels


def check_ids(ids: Sequence[str], pictures: Sized, metadata: Sequence[Any] | None) -> None:
    """Check that there is one id, a str of its own, for each picture, and as much metadata.

    Raises:
        ValueError: it is not so; the message names what is wrong.
    """
    for key in ids:
        if not isinstance(key, str):
            raise ValueError(f"ids of a gallery are strs, got {key!r}: give str({key!r})")
    if len(ids) != len(pictures) or (metadata is not None and len(metadata) != len(pictures)):
        raise ValueError(f"{len(pictures)} pictures need as many ids and metadata, got {len(ids)} ids")
    repeated = [key for key, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(f"id {repeated[0]!r} is given more than once")
