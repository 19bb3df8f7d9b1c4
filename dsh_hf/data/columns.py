"""Which columns of any data set are the picture, its class and its id, and the same three columns from all of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from dsh_hf.data.spelling import spelling

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# What data sets call the class of a picture, the plainest name first.
LABELS = ("label", "labels", "class", "cls", "category", "class_name", "class_label", "class_id", "target")
_KEPT = "photo_id"  # of a sketch: the photograph that it draws


def as_pictures(dataset: "Dataset | IterableDataset", name: str = "the data set") -> "Dataset | IterableDataset":
    """Bring a data set to the columns that all of dsh_hf works with.

    The picture is the one column of pictures, or of several the one called ``image``. The class is the one
    ``ClassLabel`` column, or one called ``label``, ``class``, ``category``, ... (in a WebDataset also inside
    its ``json``); words and numbers become a ``ClassLabel`` with sorted names. Other columns are left out.

    Pictures are neither decoded nor copied. A streamed data set whose labels are plain words or numbers is read
    through once, now, to know its classes.

    Args:
        dataset: with at least a column of pictures.
        name: what messages call it; also the start of ids that are made from row numbers.

    Returns:
        The columns ``image`` (RGB when decoded), ``label`` (``ClassLabel``; only where there are classes) and
        ``id`` (str: the column ``id``, a WebDataset's shard and key, or else the row's number as
        ``"<name>/0"``), and ``photo_id`` where there is one.

    Raises:
        ValueError: no column of pictures, several, a row without a class, or ids that are not unique. In a stream,
            a row without a class is told when it is read, and ids are not compared.
    """
    from datasets import Dataset

    features = dataset.features
    if features is None:  # a stream that does not know its columns before its first row
        dataset = dataset._resolve_features()
        features = dataset.features
    image, label = image_column(features, name), _label_column(features, name)
    if isinstance(dataset, Dataset):
        return _as_table(dataset, image, label, name)
    return _as_stream(dataset, image, label, name)


def class_names(dataset: "Dataset | IterableDataset") -> list[str]:
    """Give the names of a data set's classes, none where it has no ``label``."""
    return list(dataset.features["label"].names) if "label" in dataset.features else []


def renumbered(dataset: "Dataset", names: Sequence[str]) -> "Dataset":
    """Number the labels anew, in the order of ``names``; spelling aside, rows of other classes get -1.

    The rows that were chosen stay chosen: where ``add_column`` copies their pictures, only the labels are made anew.

    Args:
        dataset: with a column ``label`` (``ClassLabel``).
        names: of the classes that stay.

    Returns:
        The same columns in the same order.
    """
    from datasets import ClassLabel, Dataset

    numbers = {spelling(name): number for number, name in enumerate(names)}
    numbers |= {name: number for number, name in enumerate(names)}
    given = dataset.features["label"].names
    new = np.array([*(numbers.get(name, numbers.get(spelling(name), -1)) for name in given), -1])  # and for -1 itself
    every = Dataset(dataset.data, dataset.info, dataset.split, fingerprint=dataset._fingerprint)
    labels = new[np.asarray(every.data.column("label"))]
    every = every.remove_columns("label").add_column("label", labels, feature=ClassLabel(names=list(names)))
    every = every.select_columns(dataset.column_names)
    return Dataset(every.data, every.info, every.split, dataset._indices, every._fingerprint)


def image_column(features: Mapping[str, Any], name: str) -> str:
    """Find the one column of pictures, or of several the one called ``image``.

    Args:
        features: of a data set.
        name: what messages call it.

    Raises:
        ValueError: there is no column of pictures, or there are several and none is called ``image``.
    """
    from datasets import Image

    found = [column for column, feature in features.items() if isinstance(feature, Image)]
    # Parquet that other tools wrote: the same bytes and path, without the word that they are a picture.
    found = found or [column for column, feature in features.items() if _fields(feature) >= {"bytes", "path"}]
    if not found:
        raise ValueError(f"{name} has no column of pictures, only {', '.join(features)}")
    if len(found) > 1 and "image" not in found:
        raise ValueError(f"{name} has several columns of pictures ({', '.join(found)}): call the one you mean 'image'")
    return "image" if "image" in found else found[0]


def _label_column(features: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """Find the label: a column, or a column and the field inside it."""
    from datasets import ClassLabel

    classes = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    named = [column for column in LABELS if column in (classes or features)]
    if len(classes) > 1 and not named:
        raise ValueError(f"{name} has several columns of classes ({', '.join(classes)}): call the one you mean 'label'")
    if named or classes:
        return ((named or classes)[0],)
    inside = [field for field in LABELS if field in _fields(features.get("json"))]
    return ("json", inside[0]) if inside else None


def _fields(feature: Any) -> set[str]:
    return set(feature) if isinstance(feature, dict) else set()


def _as_table(dataset: "Dataset", image: str, label: tuple[str, ...] | None, name: str) -> "Dataset":
    from datasets import ClassLabel, Image, Value

    # What is as wanted stays where it is: adding a column to chosen rows would copy their pictures.
    names = {image: "image"}
    if label is not None and isinstance(dataset.features[label[0]], ClassLabel):
        names[label[0]] = "label"
    names |= {column: column for column in ("id", _KEPT) if dataset.features.get(column) == Value("string")}
    result = dataset.select_columns(list(names))
    result = result.rename_columns({old: new for old, new in names.items() if old != new})
    result = result.cast_column("image", Image(mode="RGB"))
    if label is not None:
        values = [_value(row, label[1:]) for row in _values(dataset, label[0])]
        missing = [row for row, value in enumerate(values) if value is None or value == -1]
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise ValueError(f"{name} has no class in {len(missing)} of its rows ({shown}): fill them in or drop them")
        if "label" not in result.features:
            classes, numbers = _numbered(values, name)
            result = result.add_column("label", [numbers[v] for v in values], feature=ClassLabel(names=classes))
    ids = _ids(dataset, name)
    if len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ValueError(f"{name} gives the id {twice!r} to more than one picture: make its ids unique")
    if "id" not in result.features:
        result = result.add_column("id", ids, feature=Value("string"))
    order = ("image", "label", "id", _KEPT)
    return result.select_columns([column for column in order if column in result.features])


def _values(dataset: "Dataset", column: str) -> list[Any]:
    return list(dataset.select_columns([column])[:][column])


def _value(value: Any, fields: Sequence[str]) -> Any:
    for field in fields:
        value = None if value is None else value[field]
    return value


def _numbered(values: Iterable[Any], name: str) -> tuple[list[str], dict[Any, int]]:
    """Give the sorted names of classes, and the number of each value."""
    different = set()
    for value in values:
        if not isinstance(value, str | int):
            raise ValueError(f"{name} has a label that is neither a word nor a number: {value!r}; one class a picture")
        different.add(value)
    ordered = sorted(different, key=lambda value: (isinstance(value, str), value))
    return [str(value) for value in ordered], {value: number for number, value in enumerate(ordered)}


def _ids(dataset: "Dataset", name: str) -> list[str]:
    columns = _id_columns(dataset.features)
    if not columns:
        return [f"{name}/{row}" for row in range(len(dataset))]
    rows = zip(*(_values(dataset, column) for column in columns), strict=True)
    return [_identity(dict(zip(columns, row, strict=True))) for row in rows]


def _id_columns(features: Mapping[str, Any]) -> list[str]:
    if "id" in features:
        return ["id"]
    return ["__url__", "__key__"] if "__key__" in features else []


def _identity(row: Mapping[str, Any]) -> str:
    """Give a row's own id: its ``id``, or a WebDataset's shard and key (each shard may count from 0)."""
    if "id" in row:
        return str(row["id"])
    shard = PurePosixPath(str(row["__url__"]).replace("\\", "/")).name.partition(".")[0]
    return f"{shard}/{row['__key__']}"


def _as_stream(dataset: "IterableDataset", image: str, label: tuple[str, ...] | None, name: str) -> "IterableDataset":
    from datasets import ClassLabel, Features, Image, Value

    features = {"image": Image(mode="RGB")}
    numbers: dict[Any, int] | None = None
    if label is not None:
        given = dataset.features[label[0]]
        if not isinstance(given, ClassLabel):
            column = dataset.select_columns([label[0]])
            names, numbers = _numbered((_value(row[label[0]], label[1:]) for row in column), name)
            given = ClassLabel(names=names)
        features["label"] = given
    own_ids = bool(_id_columns(dataset.features))
    features["id"] = Value("string")
    if _KEPT in dataset.features:
        features[_KEPT] = Value("string")

    def pick(row: dict[str, Any], number: int) -> dict[str, Any]:
        picked = {"image": row[image], "id": _identity(row) if own_ids else f"{name}/{number}"}
        if label is not None:
            value = _value(row[label[0]], label[1:])
            if value is None or value == -1:
                raise ValueError(f"{name} has no class in row {number}: fill it in or drop it")
            picked["label"] = value if numbers is None else numbers[value]
        return picked

    undecoded = dataset.cast_column(image, Image(decode=False))
    others = [column for column in dataset.column_names if column not in features]
    # A stream that is told its features in map() takes its pictures for decoded; told afterwards, it decodes them.
    return undecoded.map(pick, with_indices=True, remove_columns=others).cast(Features(features))
