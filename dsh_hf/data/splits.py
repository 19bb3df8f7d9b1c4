"""Which sketches search, which validate and which pictures train: chosen by hash, kept in a small file."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsh_hf.files import write_atomically

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_HELD_OUT_PER_CLASS = 3


@dataclass(frozen=True)
class Split:
    """A split of sketches and images, by their ids.

    Attributes:
        name: ``"open"`` (every image trains and is gallery) or ``"strict"`` (the gallery is held out).
        seed: what the choice was made from.
        query_sketches: ids of the sketches that search the gallery, never trained on.
        validation_sketches: ids of the sketches kept for choosing settings, never trained on.
        held_out_images: ids of the images never trained on, which alone are the gallery; empty if open.
    """

    name: str
    seed: int
    query_sketches: tuple[str, ...]
    validation_sketches: tuple[str, ...]
    held_out_images: tuple[str, ...]

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, whole or not at all."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_atomically(Path(path), text.encode())

    @classmethod
    def load(cls, path: str | Path) -> "Split":
        """Read a split that ``save`` wrote.

        Raises:
            ValueError: the file is not a split.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                name=content["name"],
                seed=content["seed"],
                query_sketches=tuple(content["query_sketches"]),
                validation_sketches=tuple(content["validation_sketches"]),
                held_out_images=tuple(content["held_out_images"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a split written by Split.save: {error!r}") from error

    def select(self, data: "DatasetDict") -> "DatasetDict":
        """Divide the data as the split says.

        Args:
            data: ``sketches`` and ``images``, each with an ``id`` column.

        Returns:
            ``train_sketches``, ``validation_sketches``, ``query_sketches``, ``train_images`` and
            ``gallery_images``, each in the order of the data.

        Raises:
            ValueError: ids of the split are not in the data.
        """
        from datasets import DatasetDict

        queries, validation, held_out = map(set, (self.query_sketches, self.validation_sketches, self.held_out_images))
        sketches, images = data["sketches"], data["images"]
        _check_present(queries | validation, sketches, "sketches")
        _check_present(held_out, images, "images")
        return DatasetDict(
            train_sketches=_where(sketches, lambda i: i not in queries and i not in validation),
            validation_sketches=_where(sketches, validation.__contains__),
            query_sketches=_where(sketches, queries.__contains__),
            train_images=_where(images, lambda i: i not in held_out),
            gallery_images=_where(images, held_out.__contains__) if held_out else images,
        )


def make_split(data: "DatasetDict", name: Literal["open", "strict"] = "open", seed: int = 0) -> Split:
    """Make a split in which sketches of one photograph never lie on two sides.

    In each class the sketches of one photograph are queries and, where three or more photographs were drawn,
    those of another one are validation. ``"strict"`` has the same queries and also holds out three
    photographs a class. Photographs are taken in the order of the SHA-256 of ``"<seed>/<photograph's id>"``,
    so the split is the same on any machine.

    Args:
        data: ``sketches`` with the columns ``label``, ``id`` and ``photo_id``, and ``images`` with ``label``
            and ``id``, as ``load_sketchy`` gives them.
        name: ``"open"`` or ``"strict"``.
        seed: another seed makes another choice.

    Raises:
        ValueError: an unknown name, sketches without ``photo_id``, or classes too small to divide.
    """
    if name not in ("open", "strict"):
        raise ValueError(f'name must be "open" or "strict", got {name!r}')
    if "photo_id" not in data["sketches"].column_names:
        raise ValueError("the sketches have no photo_id column, which says what photograph each one draws")

    queries: set[str] = set()
    validation: set[str] = set()
    drawn = _grouped(data["sketches"], "photo_id")
    _check_classes(drawn, data["sketches"], 2, "need sketches of two or more photographs")
    for photo_ids in drawn.values():
        order = _in_order(photo_ids, seed)
        queries.add(order[0])
        if len(order) >= 3:
            validation.add(order[1])

    held_out: list[str] = []
    if name == "strict":
        photographs = _grouped(data["images"], "id")
        least = _HELD_OUT_PER_CLASS + 1
        _check_classes(photographs, data["images"], least, f"need {least} or more images for a strict split")
        for ids in photographs.values():
            held_out += _in_order(ids, seed)[:_HELD_OUT_PER_CLASS]

    sketches = list(zip(data["sketches"]["id"], data["sketches"]["photo_id"], strict=True))
    return Split(
        name=name,
        seed=seed,
        query_sketches=tuple(sorted(i for i, photo_id in sketches if photo_id in queries)),
        validation_sketches=tuple(sorted(i for i, photo_id in sketches if photo_id in validation)),
        held_out_images=tuple(sorted(held_out)),
    )


def _grouped(dataset: "Dataset", column: str) -> dict[int, set[str]]:
    """Give the distinct values of a column in each class."""
    groups: dict[int, set[str]] = defaultdict(set)
    for label, value in zip(dataset["label"], dataset[column], strict=True):
        groups[label].add(value)
    return groups


def _in_order(ids: Iterable[str], seed: int) -> list[str]:
    return sorted(ids, key=lambda i: hashlib.sha256(f"{seed}/{i}".encode()).hexdigest())


def _check_classes(groups: dict[int, set[str]], dataset: "Dataset", least: int, need: str) -> None:
    small = [dataset.features["label"].int2str(label) for label in sorted(groups) if len(groups[label]) < least]
    if small:
        raise ValueError(f"these classes {need}: {', '.join(small)}")


def _check_present(ids: set[str], dataset: "Dataset", what: str) -> None:
    missing = sorted(ids.difference(dataset["id"]))
    if missing:
        raise ValueError(
            f"{len(missing)} of the split's {len(ids)} {what} are not in the data (as {missing[0]!r}): "
            "the split was made from other data"
        )


def _where(dataset: "Dataset", wanted: Callable[[str], bool]) -> "Dataset":
    return dataset.select([row for row, identity in enumerate(dataset["id"]) if wanted(identity)])
