"""What may train beside the data set: Quick, Draw! drawings, OpenMoji, more photographs, and their own classes."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsh_hf.sending import without_place

if TYPE_CHECKING:
    from datasets import Dataset


def add_extra_sources(parser: argparse.ArgumentParser) -> None:
    """Add what says which pictures train beside the data set's."""
    more = parser.add_argument_group("more to train on", "pictures of the data set's classes, from elsewhere")
    more.add_argument("--quickdraw", metavar="DIR", help="folder of Quick, Draw! .ndjson files: more sketches")
    more.add_argument("--openmoji", action="store_true", help="OpenMoji's pictures as images, their lines as sketches")
    more.add_argument("--photographs", metavar="SOURCE", help="class folders, or the like, of more images")
    more.add_argument(
        "--more-classes",
        action="store_true",
        help="also those of Quick, Draw!'s other words that there are emoji or photographs of",
    )
    more.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="times that the data set's own sketches come in a round"
    )
    more.add_argument("--leave-out", metavar="FILE", help="ids of drawings never to train on, one a line: cat/5201136")


@dataclass
class Sources:
    """What a model is trained on.

    Attributes:
        classes: the names, those of the data set first.
        sketches: data sets of sketches.
        images: data sets of images.
        validation: sketches to validate with.
        about: what the model card says of each source.
    """

    classes: list[str]
    sketches: "list[Dataset]"
    images: "list[Dataset]"
    validation: "Dataset | None" = None
    about: list[dict[str, Any]] = field(default_factory=list)

    def add_extra(self, arguments: argparse.Namespace) -> None:
        """Add what the command names beside the data set.

        Raises:
            ValueError: an option that goes with another one which is not there, or there are no images.
            OSError: a folder or file is not there.
        """
        if arguments.more_classes and not arguments.quickdraw:
            raise ValueError("--more-classes are Quick, Draw!'s: give --quickdraw DIR, too")
        if arguments.leave_out and not arguments.quickdraw:
            raise ValueError("--leave-out names Quick, Draw! drawings: give --quickdraw DIR, too")
        own = len(self.classes)
        if arguments.more_classes:
            self._add_words(arguments.quickdraw)
        if arguments.openmoji:
            self._add_openmoji()
        if arguments.photographs:
            self._add_photographs(arguments.photographs)
        if not self.images:
            raise ValueError("there are no images to train on: give --openmoji, --photographs SOURCE, or a data set")
        self._leave_unpictured(own)
        if arguments.quickdraw:
            self._add_quickdraw(arguments.quickdraw, arguments.leave_out)

    def parts(self) -> "dict[str, Dataset]":
        """Give ``train_sketches``, ``train_images`` and, if any, ``validation_sketches``, of all classes."""
        parts = {"train_sketches": self._joined(self.sketches), "train_images": self._joined(self.images)}
        if self.validation is not None:
            parts["validation_sketches"] = self._joined([self.validation])
        return parts

    def _joined(self, datasets: "list[Dataset]") -> "Dataset":
        """Put data sets below each other, whatever order each numbers its classes in."""
        from datasets import concatenate_datasets

        from dsh_hf.data.columns import renumbered

        return concatenate_datasets(
            [renumbered(data, self.classes).select_columns(["image", "label", "id"]) for data in datasets]
        )

    def tell(self, name: str, terms: str, items: int) -> None:
        """Note a source for the model card."""
        self.about.append({"name": name, "terms": terms, "items": items})

    def _add_words(self, folder: str) -> None:
        """Add the words that none of the classes is drawn by, as classes."""
        from dsh_hf.data.quickdraw import sketchy_words, word_files

        words = list(word_files(Path(folder)))
        known = {*sketchy_words(self.classes, words).values(), *self.classes}
        self.classes += [word for word in words if word not in known]

    def _leave_unpictured(self, own: int) -> None:
        """Leave out those of the added classes that have no images: nothing could be found by them."""
        pictured = {data.features["label"].names[label] for data in self.images for label in set(data["label"][:])}
        self.classes = [name for place, name in enumerate(self.classes) if place < own or name in pictured]

    def _add_quickdraw(self, folder: str, leave_out: str | None) -> None:
        from dsh_hf.data import load_quickdraw
        from dsh_hf.data.quickdraw import sketchy_words, word_files

        drawings = load_quickdraw(folder, sketchy_words(self.classes, list(word_files(Path(folder)))))
        if leave_out:
            drawings = _without(drawings, leave_out)
        self.sketches.append(drawings)
        self.tell("Quick, Draw!", "CC BY 4.0, Google", len(drawings))

    def _add_openmoji(self) -> None:
        from dsh_hf.data.openmoji import openmoji_images, openmoji_sketches

        self.sketches.append(openmoji_sketches(self.classes))
        self.images.append(openmoji_images(self.classes))
        self.tell("OpenMoji", "CC BY-SA 4.0", 2 * len(self.images[-1]))

    def _add_photographs(self, source: str) -> None:
        from datasets import ClassLabel

        from dsh_hf.data.columns import class_names
        from dsh_hf.data.sources import open_source

        data = open_source(source)
        theirs = class_names(data)
        numbers = self._numbers(theirs)
        if max(numbers, default=-1) < 0:
            raise ValueError(f"{source} has none of the classes that are trained: {', '.join(theirs[:5])}, ...")
        labels = [numbers[label] for label in data["label"][:]]
        wanted = [row for row, number in enumerate(labels) if number >= 0]
        data = data.remove_columns("label").add_column("label", labels, feature=ClassLabel(names=self.classes))
        self.images.append(data.select(wanted))
        self.tell(without_place(source), "as their owner states", len(wanted))

    def _numbers(self, names: Sequence[str]) -> list[int]:
        """Give the class that each name means, by its spelling or as Quick, Draw! calls it; -1 for none."""
        from dsh_hf.data.quickdraw import sketchy_words
        from dsh_hf.data.spelling import spelling

        places = {word: self.classes.index(name) for name, word in sketchy_words(self.classes, names).items()}
        spelt = {spelling(name): place for place, name in enumerate(self.classes)}
        return [spelt.get(spelling(name), places.get(name, -1)) for name in names]


def _without(drawings: "Dataset", file: str) -> "Dataset":
    """Leave out the drawings whose ids are in a file; those of words that are not trained may be there, too.

    Raises:
        ValueError: an id is of no drawing there.
    """
    unwanted = set(Path(file).read_text(encoding="utf-8").split("\n")) - {""}
    ids = drawings["id"][:]
    words = {key.partition("/")[0] for key in ids}
    strange = sorted(key for key in unwanted - set(ids) if key.partition("/")[0] in words or "/" not in key)
    if strange:
        raise ValueError(f"{file}: {len(strange)} of its ids are of no drawing, such as {strange[0]!r}")
    return drawings.select([row for row, key in enumerate(ids) if key not in unwanted])
