"""The rows of a ``datasets`` data set, as candidates for a gallery."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dsh_hf.gallery.items import Candidate, Item, RetrieverError, metadata_text

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

_ROWS = 32  # read at once


def dataset_candidates(
    dataset: "Dataset | IterableDataset",
    image_column: str | None = None,
    id_column: str | None = None,
    metadata_columns: Sequence[str] | None = None,
) -> Iterator[Candidate]:
    """Give the rows of a data set, read a few at a time and not decoded.

    Args:
        dataset: a data set, map-style or streaming.
        image_column: the pictures, or their paths; by default the one column of pictures there is.
        id_column: the ids, as str; by default rows are numbered "0", "1", ...
        metadata_columns: what a hit carries; by default every other column of texts, numbers or labels.

    Raises:
        RetrieverError: a column is not there, or has to be named; before the first row is given.
    """
    if isinstance(dataset, Mapping):
        raise RetrieverError(f"this is a dict of data sets: give one of them, {', '.join(map(repr, dataset))}")
    features = dataset.features
    if features is None:  # a stream that does not know its columns
        if image_column is None:
            raise RetrieverError("this stream does not tell which column has the pictures: give image_column=")
        if metadata_columns is None:
            raise RetrieverError("this stream does not tell its columns: give metadata_columns=, [] for none")
        names: dict[str, list[str]] = {}
    else:
        image_column = _image_column(features, image_column)
        if metadata_columns is None:
            metadata_columns = _plain_columns(features, {image_column, id_column})
        wanted = list(dict.fromkeys([image_column, *([id_column] if id_column else []), *metadata_columns]))
        _check_columns(features, wanted)
        names = {name: features[name].names for name in metadata_columns if hasattr(features[name], "names")}
        dataset = _undecoded(dataset.with_format(None).select_columns(wanted), features, image_column)
    return _rows(dataset, image_column, id_column, metadata_columns, names)


def _image_column(features: "Features", given: str | None) -> str:
    from datasets import Image

    if given is not None:
        return given
    columns = [name for name, feature in features.items() if isinstance(feature, Image)]
    if len(columns) != 1:
        found = f"several columns of pictures ({', '.join(columns)})" if columns else "no column of pictures"
        raise RetrieverError(f"the data set has {found} among {', '.join(features)}: give image_column=")
    return columns[0]


def _plain_columns(features: "Features", others: set[str | None]) -> list[str]:
    from datasets import ClassLabel, Value

    return [
        name
        for name, feature in features.items()
        if name not in others
        and isinstance(feature, ClassLabel | Value)
        and "binary" not in str(getattr(feature, "dtype", ""))
    ]


def _check_columns(features: "Features", wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in features:
            raise RetrieverError(f"the data set has no column {name!r}, only {', '.join(features)}")


def _undecoded(dataset: Any, features: "Features", image_column: str) -> Any:
    """Leave pictures as they are stored: a damaged one then costs its own row alone."""
    from datasets import Image

    if isinstance(features[image_column], Image):
        return dataset.cast_column(image_column, Image(decode=False))
    return dataset


def _rows(
    dataset: Any,
    image_column: str,
    id_column: str | None,
    metadata_columns: Sequence[str],
    names: Mapping[str, list[str]],
) -> Iterator[Candidate]:
    seen: set[str] = set()
    number = 0
    for batch in dataset.iter(batch_size=_ROWS):
        for row, image in enumerate(batch[image_column]):
            key = str(batch[id_column][row]) if id_column else str(number)
            metadata = {column: _plain(batch[column][row], names.get(column)) for column in metadata_columns}
            if key in seen:
                yield Candidate(f"row {number}", None, Item(), f"row {number}: the id {key!r} is an earlier row's, too")
            else:
                seen.add(key)
                yield _candidate(key, image, metadata_text(metadata), number)
            number += 1


def _plain(value: Any, names: list[str] | None) -> Any:
    if names is not None:
        return names[value] if isinstance(value, int) and value >= 0 else None
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else str(value)


def _candidate(key: str, image: Any, metadata: str, number: int) -> Candidate:
    if image is None:
        return Candidate(key, None, Item(), f"row {number} has no picture")
    path = image.get("path") if isinstance(image, Mapping) else image if isinstance(image, str) else None
    here = path is not None and os.path.isfile(path)
    source = path if path is not None and (here or "://" in path) else None
    if isinstance(image, Mapping) and image.get("bytes") is None and not here:
        try:
            image = _fetch(image)
        except Exception as error:  # whatever the file system behind the address raises
            return Candidate(key, None, Item(), f"row {number}: {path} cannot be read ({error})")
    return Candidate(key, image, Item(source, metadata))


def _fetch(image: Mapping[str, Any]) -> Any:
    """Read a picture of a streamed data set, which may lie in an archive or on the Hub."""
    from datasets import Image

    return Image().decode_example(dict(image))
