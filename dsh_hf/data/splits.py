"""Which sketches search, which validate and which pictures train: chosen by hash or by class, kept in a small file."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.data.columns import renumbered
from dsh_hf.data.spelling import spelling
from dsh_hf.data.zero_shot import UNSEEN_CLASSES
from dsh_hf.files import parse_json, write_atomically

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SPLIT_NAMES = ("open", "strict", "paper", "zero-shot", *UNSEEN_CLASSES)

_FORMAT = 2  # of the file; the first one had no unseen classes, and no number
_PAPER_QUERIES = {"sketchy": 50, "tu-berlin": 10}  # of a class, by the name that the loaders give the data
_QUERY_SHARE = 8  # one in so many sketches, which is the paper's share of TU-Berlin
_HELD_OUT_SHARE = 10  # one in so many images
_LEAST_HELD_OUT = 3


@dataclass(frozen=True)
class Split:
    """A split of sketches and images: by their ids, or by their classes.

    Attributes:
        name: one of ``SPLIT_NAMES``.
        seed: what the choice was made from.
        query_sketches: ids of the sketches that search the gallery, never trained on.
        validation_sketches: ids of the sketches kept for choosing settings. A training that chooses none may train
            on them, too; its split then has none: ``dataclasses.replace(split, validation_sketches=())``.
        held_out_images: ids of the images never trained on, which alone are the gallery; where there are none,
            every image trains and is gallery.
        unseen_classes: names of the classes never trained on: all their sketches are queries, and all their images
            are the gallery. A split by class has no ids.
    """

    name: str
    seed: int
    query_sketches: tuple[str, ...] = ()
    validation_sketches: tuple[str, ...] = ()
    held_out_images: tuple[str, ...] = ()
    unseen_classes: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, whole or not at all."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"
        write_atomically(Path(path), text.encode())

    @classmethod
    def load(cls, path: str | Path) -> "Split":
        """Read a split that ``save`` wrote, in this version or an earlier one.

        Raises:
            ValueError: the file is not a split, or a later version wrote it in another format.
        """
        try:
            content = parse_json(Path(path).read_text(encoding="utf-8"))
            number = int(content.get("format", 1))
            if number <= _FORMAT:
                return cls(
                    name=content["name"],
                    seed=content["seed"],
                    query_sketches=_strings(content["query_sketches"]),
                    validation_sketches=_strings(content["validation_sketches"]),
                    held_out_images=_strings(content["held_out_images"]),
                    unseen_classes=_strings(content.get("unseen_classes", [])),
                )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is not a split written by Split.save: {error!r}") from error
        raise ValueError(
            f"{path} is a split of format {number}, and this version reads up to {_FORMAT}: "
            "pip install --upgrade dsh-hf"
        )

    def select(self, data: "DatasetDict") -> "DatasetDict":
        """Divide the data as the split says.

        What trains knows only the classes that train: in a split by class the labels of ``train_sketches``,
        ``validation_sketches`` and ``train_images`` are numbered anew, without the unseen classes. The other parts
        keep their labels.

        Args:
            data: ``sketches`` and ``images``, each with the columns ``id`` and ``label``.

        Returns:
            ``train_sketches``, ``validation_sketches``, ``query_sketches``, ``train_images`` and
            ``gallery_images``, each in the order of the data. In a split by class no sketches are validation.

        Raises:
            ValueError: ids or classes of the split are not in the data.
        """
        from datasets import DatasetDict

        sketches, images = data["sketches"], data["images"]
        return DatasetDict(self._by_class(sketches, images) if self.unseen_classes else self._by_id(sketches, images))

    def _by_id(self, sketches: "Dataset", images: "Dataset") -> "dict[str, Dataset]":
        sketch_ids, image_ids = sketches["id"][:], images["id"][:]
        own_sketches = _own_ids({*self.query_sketches, *self.validation_sketches}, sketch_ids, "sketches")
        own_images = _own_ids(set(self.held_out_images), image_ids, "images")
        queries = _among(sketch_ids, map(own_sketches.get, self.query_sketches))
        validation = _among(sketch_ids, map(own_sketches.get, self.validation_sketches))
        held_out = _among(image_ids, own_images.values())
        return {
            "train_sketches": _where(sketches, ~(queries | validation)),
            "validation_sketches": _where(sketches, validation),
            "query_sketches": _where(sketches, queries),
            "train_images": _where(images, ~held_out),
            "gallery_images": _where(images, held_out) if held_out.any() else images,
        }

    def _by_class(self, sketches: "Dataset", images: "Dataset") -> "dict[str, Dataset]":
        queries = _of_classes(sketches, self.unseen_classes, "sketches")
        gallery = _of_classes(images, self.unseen_classes, "images")
        seen_sketches = _without_classes(sketches, self.unseen_classes)
        return {
            "train_sketches": _where(seen_sketches, ~queries),
            "validation_sketches": seen_sketches.select([]),
            "query_sketches": _where(sketches, queries),
            "train_images": _where(_without_classes(images, self.unseen_classes), ~gallery),
            "gallery_images": _where(images, gallery),
        }


def make_split(
    data: "DatasetDict",
    name: str = "open",
    seed: int = 0,
    *,
    queries_per_class: int | None = None,
    unseen: Sequence[str] | None = None,
) -> Split:
    """Make a split.

    ``"paper"``: 50 sketches of each class of Sketchy, 10 of TU-Berlin, are queries. All images train and are
    gallery.

    ``"open"``: in each class all sketches of one photograph are queries, so that sketches of one photograph never
    lie on two sides. Where it is not known what photographs were drawn, one sketch in eight is a query, and at
    least one. All images train and are gallery.

    ``"strict"``: the queries of ``"open"``; also one image in ten of each class, and at least three, are held out
    of training, and they alone are the gallery.

    In these three as many sketches (or photographs) as there are queries are kept for validation, in the classes
    where at least as many again are left to train. The paper keeps none: its ``train_sketches`` are these and the
    ``validation_sketches`` together. All is taken in the order of the SHA-256 of ``"<seed>/<id>"``,
    so that a seed gives the same split on any machine. Ids begin with the names of the classes' folders: other names
    make another choice, but a split that is made finds its pictures under any spelling of them.

    ``"sketchy-25"``, ``"sketchy-21"``, ``"tu-berlin-30"``: the usual zero-shot splits. The classes in
    ``UNSEEN_CLASSES`` search and are the gallery, all others train. ``"zero-shot"`` does so with the classes in
    ``unseen``. Names of classes are the same if their letters and digits are, whatever their case.

    Args:
        data: ``sketches`` and ``images``, each with the columns ``label`` and ``id``; where the sketches have a
            ``photo_id``, it says what photograph each one draws.
        name: one of the above.
        seed: another seed makes another choice.
        queries_per_class: of ``"paper"``, in place of the paper's number; data other than Sketchy and TU-Berlin
            need it.
        unseen: of ``"zero-shot"``, the names of the unseen classes.

    Raises:
        ValueError: an unknown name, an argument that the split lacks or does not know, classes too small to divide,
            or unseen classes that the data lack.
    """
    if name not in SPLIT_NAMES:
        raise ValueError(f"name must be one of {', '.join(SPLIT_NAMES)}, got {name!r}")
    if queries_per_class is not None and name != "paper":
        raise ValueError(f'queries_per_class belongs to the split "paper", not to "{name}"')
    if unseen is not None and name != "zero-shot":
        raise ValueError(f'unseen belongs to the split "zero-shot", not to "{name}"')
    if name == "zero-shot" and (not unseen or isinstance(unseen, str)):
        raise ValueError('the split "zero-shot" needs unseen=[...], a list with the names of the unseen classes')
    unseen = UNSEEN_CLASSES.get(name, unseen)
    if unseen:
        return _zero_shot(data, name, seed, tuple(dict.fromkeys(unseen)))
    queries, validation = (
        _paper_sketches(data, seed, queries_per_class) if name == "paper" else _held_out_sketches(data, seed)
    )
    held_out = _held_out_images(data["images"], seed) if name == "strict" else set()
    return Split(name, seed, *(tuple(sorted(ids)) for ids in (queries, validation, held_out)))


def _zero_shot(data: "DatasetDict", name: str, seed: int, unseen: tuple[str, ...]) -> Split:
    for view in ("sketches", "images"):
        if _of_classes(data[view], unseen, view).all():
            raise ValueError(f"the data have no {view} of other classes than the unseen ones: none are left to train")
    return Split(name, seed, unseen_classes=unseen)


def _paper_sketches(data: "DatasetDict", seed: int, count: int | None) -> tuple[set[str], set[str]]:
    """Choose a fixed number of sketches a class as queries, and as many for validation."""
    sketches = data["sketches"]
    if count is None:
        count = _PAPER_QUERIES.get(str(sketches.info.dataset_name))
    if count is None or count < 1:
        raise ValueError(
            "queries_per_class must be 1 or more: the paper's numbers are for Sketchy (50) and TU-Berlin (10), "
            f"and this data set is called {sketches.info.dataset_name!r}"
        )
    ids = _grouped(sketches, sketches["id"][:])
    need = f"need more than {count} sketches for as many queries (queries_per_class sets another number)"
    _check_classes(ids, sketches, count + 1, need)
    return _chosen(ids, seed, lambda _: count)


def _held_out_sketches(data: "DatasetDict", seed: int) -> tuple[set[str], set[str]]:
    """Choose by the photographs that were drawn, or among the sketches where these are not known."""
    sketches = data["sketches"]
    ids = sketches["id"][:]
    if "photo_id" not in sketches.column_names:
        alone = _grouped(sketches, ids)
        _check_classes(alone, sketches, 2, "need two or more sketches")
        return _chosen(alone, seed, lambda size: max(1, size // _QUERY_SHARE))
    # A sketch of an unknown photograph is a group of its own.
    drawn = [photo_id or i for photo_id, i in zip(sketches["photo_id"][:], ids, strict=True)]
    groups = _grouped(sketches, drawn)
    _check_classes(groups, sketches, 2, "need sketches of two or more photographs")
    sides = _chosen(groups, seed, lambda _: 1)
    queries, validation = ({i for i, photo_id in zip(ids, drawn, strict=True) if photo_id in side} for side in sides)
    return queries, validation


def _held_out_images(images: "Dataset", seed: int) -> set[str]:
    groups = _grouped(images, images["id"][:])
    least = _LEAST_HELD_OUT + 1
    _check_classes(groups, images, least, f"need {least} or more images for a strict split")
    counts = {label: max(_LEAST_HELD_OUT, len(ids) // _HELD_OUT_SHARE) for label, ids in groups.items()}
    return {i for label, ids in groups.items() for i in _in_order(ids, seed)[: counts[label]]}


def _chosen(groups: Mapping[int, set[str]], seed: int, count: Callable[[int], int]) -> tuple[set[str], set[str]]:
    """Choose queries and validation in each class; ``count`` gives how many, from how many there are."""
    queries: set[str] = set()
    validation: set[str] = set()
    for ids in groups.values():
        order, number = _in_order(ids, seed), count(len(ids))
        queries.update(order[:number])
        if len(order) >= 3 * number:
            validation.update(order[number : 2 * number])
    return queries, validation


def _grouped(dataset: "Dataset", values: Iterable[str]) -> dict[int, set[str]]:
    """Give the distinct values in each class."""
    groups: dict[int, set[str]] = defaultdict(set)
    for label, value in zip(dataset["label"][:], values, strict=True):
        groups[label].add(value)
    return groups


def _in_order(ids: Iterable[str], seed: int) -> list[str]:
    return sorted(ids, key=lambda i: hashlib.sha256(f"{seed}/{i}".encode()).digest())


def _check_classes(groups: Mapping[int, set[str]], dataset: "Dataset", least: int, need: str) -> None:
    small = [dataset.features["label"].int2str(label) for label in sorted(groups) if len(groups[label]) < least]
    if small:
        raise ValueError(f"these classes {need}: {', '.join(small)}")


def _strings(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a list of strings was expected")
    return tuple(values)


def _own_ids(wanted: set[str], ids: Sequence[str], what: str) -> dict[str, str]:
    """Give the data's own id for each of the split's: the same, or else that of a class in another spelling."""
    own = {identity: identity for identity in wanted.intersection(ids)}
    if len(own) < len(wanted):
        respelled = {_spelled(identity): identity for identity in ids}
        own |= {i: respelled[_spelled(i)] for i in wanted if i not in own and _spelled(i) in respelled}
    missing = sorted(wanted.difference(own))
    if missing:
        raise ValueError(
            f"{len(missing)} of the split's {len(wanted)} {what} are not in the data (as {missing[0]!r}): "
            "the split was made from other data"
        )
    return own


def _spelled(identity: str) -> str:
    folder, slash, file = identity.partition("/")
    return f"{spelling(folder)}/{file}" if slash else identity


def _among(ids: Iterable[str], wanted: Iterable[str | None]) -> NDArray[np.bool_]:
    chosen = set(wanted)
    return np.array([identity in chosen for identity in ids], dtype=bool)


def _of_classes(dataset: "Dataset", names: Iterable[str], what: str) -> NDArray[np.bool_]:
    """Mark the rows of the classes, each of which must have some."""
    labels, own_names = np.asarray(dataset["label"][:], dtype=np.intp), dataset.features["label"].names
    present = {spelling(own_names[label]) for label in np.unique(labels)}
    wanted = {spelling(name): name for name in names}
    missing = [name for spelled, name in wanted.items() if spelled not in present]
    if missing:
        raise ValueError(
            f"the data have no {what} of {len(missing)} of the split's {len(wanted)} unseen classes: "
            f"{', '.join(missing)}"
        )
    return np.array([spelling(name) in wanted for name in own_names], dtype=bool)[labels]


def _without_classes(dataset: "Dataset", names: Iterable[str]) -> "Dataset":
    """Number the labels anew without the classes; their rows get -1, the label of no class."""
    gone = {spelling(name) for name in names}
    own_names = dataset.features["label"].names
    kept = [spelling(name) not in gone for name in own_names]
    return renumbered(dataset, [name for name, keep in zip(own_names, kept, strict=True) if keep])


def _where(dataset: "Dataset", rows: NDArray[np.bool_]) -> "Dataset":
    return dataset.select(np.flatnonzero(rows))
