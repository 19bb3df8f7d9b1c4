"""Listed sketches and images to one ``DatasetDict``; nothing is copied, pictures are decoded when read."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsh_hf.data.damage import check_pictures
from dsh_hf.data.published import PublishedSet
from dsh_hf.data.scan import PictureFolder, by_spelling, class_folders, digest_of, list_pictures
from dsh_hf.data.spelling import spelling

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

ClassPair = tuple[str, Path, Path]  # the name shown, where its sketches are, where its images are


def known_set(
    published: PublishedSet,
    sketches: Path,
    images: Path | None,
    *,
    version: str,
    kind: str = "images",
    photo_ids: bool = False,
) -> "DatasetDict":
    """Load a set that others know, too, from the folders of its domains.

    Args:
        published: what is known of it; its title in lower case becomes ``info.dataset_name``. Other numbers of
            classes and pictures than the published ones are told in the log.
        sketches: folder of the sketches' class folders.
        images: that of the images; None for a set without images.
        version: becomes ``info.config_name``.
        kind: what the images are called in ``published.pictures``.
        photo_ids: the sketches' file names say what photograph is drawn.

    Returns:
        ``sketches`` and ``images``.
    """
    from datasets import DatasetDict

    drawn = class_folders(sketches)
    if images is None:
        by_spelling(drawn)
        names, sketch_folders, image_folders = tuple(drawn), tuple(drawn.values()), ()
    else:
        names, sketch_folders, image_folders = zip(*pair_classes(drawn, class_folders(images)), strict=True)
    make = partial(folder_dataset, names, dataset_name=published.title.lower(), version=version)
    data = DatasetDict(
        sketches=make(sketch_folders, photo_ids=photo_ids),
        images=make(image_folders),
    )
    counts = {"sketches": len(data["sketches"])} | ({} if images is None else {kind: len(data["images"])})
    _compare(published, len(names), counts, sketches)
    return data


def _compare(published: PublishedSet, classes: int, counts: Mapping[str, int], place: Path) -> None:
    """Tell in the log where there is less, or more, than was published: as after half an unpacking."""
    if classes == len(published.classes) and all(count in published.pictures[kind] for kind, count in counts.items()):
        return
    whole = [f"{' or '.join(f'{n:,}' for n in published.pictures[kind])} {kind}" for kind in counts]
    here = [f"{count:,} {kind}" for kind, count in counts.items()]
    logger.warning(
        "%s has %s; loaded with %s: %s",
        published.title,
        ", ".join([f"{len(published.classes)} classes", *whole]),
        place,
        ", ".join([f"{classes} classes", *here]),
    )


def pair_classes(
    sketches: Mapping[str, Path],
    images: Mapping[str, Path],
    classes: Sequence[str] | str | None = None,
    hint: str = "unpack or copy what is missing",
) -> list[ClassPair]:
    """Match the classes of the two domains by their spelling; the name shown is the sketches'.

    Args:
        sketches: where each class's sketches are.
        images: where each class's images are.
        classes: the names of those wanted, or ``"shared"`` for those on both sides. Default: all.
        hint: the way out where a class is on one side only.

    Returns:
        The classes, sorted by name.

    Raises:
        ValueError: a class twice in different spellings, classes on one side only, or unknown names.
    """
    drawn, shown = by_spelling(sketches), by_spelling(images)
    if classes == "shared":
        wanted = set(drawn) & set(shown)
        if not wanted:
            raise ValueError(f"no class is both in {_place(sketches)} and in {_place(images)}")
    elif classes is None:
        wanted = set(drawn) | set(shown)
    elif isinstance(classes, str):
        raise ValueError(f'classes is a list of names or "shared", got {classes!r}')
    else:
        names = {spelling(name): name for name in classes}
        unknown = sorted(name for key, name in names.items() if key not in drawn and key not in shown)
        if unknown or not names:
            known = ", ".join(sorted(drawn.values())) or "none"
            raise ValueError(f"no such class: {', '.join(unknown) or '(no name given)'}; there are {known}")
        wanted = set(names)
    problems = [
        f"classes with {here} but no {there}: {', '.join(sorted(alone))} (in {_place(places)})"
        for here, there, alone, places in (
            ("sketches", "images", {drawn[key] for key in wanted - set(shown)}, sketches),
            ("images", "sketches", {shown[key] for key in wanted - set(drawn)}, images),
        )
        if alone
    ]
    if problems:
        raise ValueError(f"{'; '.join(problems)}: {hint}")
    return sorted((drawn[key], sketches[drawn[key]], images[shown[key]]) for key in wanted)


def folder_dataset(
    names: Sequence[str],
    folders: Sequence[Path],
    *,
    photo_ids: bool = False,
    dataset_name: str | None = None,
    version: str | None = None,
) -> "Dataset":
    """Make a data set of the pictures in class folders, after a look at each file.

    Args:
        names: of the classes, sorted; the numbers of the labels.
        folders: one for each class, or none for a data set without rows.
        photo_ids: add the column ``photo_id``, a sketch's id up to the last hyphen of the file's name.
        dataset_name: of a set that others know, too.
        version: of that set.

    Returns:
        The columns ``image``, ``label``, ``id`` and perhaps ``photo_id``. An id is ``<class>/<file name without
        its suffix>``; where this names two files, each keeps its suffix. The fingerprint says which files there
        are, with their sizes and times.
    """
    import pyarrow as pa
    from datasets import ClassLabel, Dataset, DatasetInfo, Features, Image, Value

    listed = list_pictures(folders)
    if listed:
        check_pictures(listed)
    ids = [f"{name}/{part}" for name, folder in zip(names, listed, strict=False) for part in _id_parts(folder)]
    starts = [f"{folder.path}{os.sep}" for folder in listed]
    paths = pa.array(
        [start + name for start, part in zip(starts, listed, strict=True) for name in part.names], pa.string()
    )
    columns = {
        "image": pa.StructArray.from_arrays([pa.nulls(len(ids), pa.binary()), paths], names=["bytes", "path"]),
        "label": pa.array(np.repeat(np.arange(len(listed)), [len(folder) for folder in listed]), pa.int64()),
        "id": pa.array(ids, pa.string()),
    }
    features = {"image": Image(mode="RGB"), "label": ClassLabel(names=list(names)), "id": Value("string")}
    if photo_ids:
        columns["photo_id"] = pa.array([_photo_id(identity) for identity in ids], pa.string())
        features["photo_id"] = Value("string")
    fingerprint = hashlib.sha256(f"{list(names)} {photo_ids} {digest_of(listed)}".encode()).hexdigest()[:32]
    info = DatasetInfo(features=Features(features), dataset_name=dataset_name, config_name=version)
    return Dataset(pa.table(columns), info=info, fingerprint=fingerprint)


def _photo_id(sketch_id: str) -> str:
    name, _, file = sketch_id.rpartition("/")
    return f"{name}/{file.rpartition('-')[0] or file}"


def _place(classes: Mapping[str, Path]) -> str:
    return str(next(iter(classes.values())).parent)


def _id_parts(folder: PictureFolder) -> Sequence[str]:
    stems = [name[: name.rindex(".")] for name in folder.names]
    counts = Counter(stems)
    if len(counts) == len(stems):
        return stems
    return [stem if counts[stem] == 1 else name for stem, name in zip(stems, folder.names, strict=True)]
