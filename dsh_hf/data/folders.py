"""One's own sketches and images, from folders of classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsh_hf.data.assemble import folder_dataset, pair_classes
from dsh_hf.data.layout import open_root
from dsh_hf.data.quickdraw import load_quickdraw, word_files
from dsh_hf.data.scan import by_spelling, class_folders, is_picture, visible_folders

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def load_folders(
    *, sketches: str | Path, images: str | Path, classes: Sequence[str] | Literal["shared"] | None = None
) -> "DatasetDict":
    """Load one's own sketches and images, ``<class>/<file>`` each.

    Classes are matched by their names, of which only letters and digits count (case aside); the sketches' names are
    shown. Files that are no pictures by their suffix, and folders in class folders, are left out. Pictures are
    not copied: the data hold paths, and a picture is decoded when its row is read.

    Args:
        sketches: a folder with a folder for each class; or one with Quick, Draw! files (``<word>.ndjson``), which
            are rendered once, into the ``datasets`` cache; or a zip or tar archive of such a folder, unpacked beside
            itself.
        images: a folder with a folder for each class, or an archive of it.
        classes: the names of those wanted, or ``"shared"`` for those on both sides. Default: all.

    Returns:
        ``sketches`` and ``images``, both with the columns ``image`` (RGB), ``label`` (the same sorted class names
        in both) and ``id`` (``"cat/my drawing"``).

    Raises:
        FileNotFoundError: no such folder, or no pictures in it or in a class.
        ValueError: classes on one side only, unknown, or twice in different spellings; damaged pictures; an
            archive that is damaged or refused.
    """
    from datasets import DatasetDict

    drawn, shown = open_folder(sketches), open_folder(images)
    words = any(drawn.glob("*.ndjson"))
    pairs = pair_classes(
        word_files(drawn) if words else class_folders(drawn),
        class_folders(shown),
        classes,
        hint='add what is missing, or load some: classes=["cat", ...], or classes="shared" for those on both sides',
    )
    names, sketch_places, image_folders = zip(*pairs, strict=True)
    if words:
        sketch_set = load_quickdraw(drawn, {name: name for name in names})
    else:
        sketch_set = folder_dataset(names, sketch_places)
    return DatasetDict(sketches=sketch_set, images=folder_dataset(names, image_folders))


def load_class_folders(folder: str | Path) -> "Dataset":
    """Load the pictures in ``<class>/<file>``, of one domain alone.

    Args:
        folder: with a folder for each class, or a zip or tar archive of it, unpacked beside itself.

    Returns:
        The columns ``image`` (RGB when decoded), ``label`` (sorted class names) and ``id``.

    Raises:
        FileNotFoundError: no such folder, or no pictures in it or in a class.
        ValueError: a class twice in different spellings; damaged pictures; an archive that is damaged or refused.
    """
    classes = class_folders(open_folder(folder))
    by_spelling(classes)
    return folder_dataset(list(classes), list(classes.values()))


def open_folder(place: str | Path) -> Path:
    """Go down while there is nothing but one folder without pictures: archives have such a layer."""
    folder = open_root(place)
    while len(inside := visible_folders(folder)) == 1 and _is_layer(inside[0]):
        folder = inside[0]
    return folder


def _is_layer(folder: Path) -> bool:
    names = [path.name for path in folder.iterdir()]
    holds = bool(visible_folders(folder)) or any(name.endswith(".ndjson") for name in names)
    return holds and not any(is_picture(name) for name in names)
