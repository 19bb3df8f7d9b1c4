"""The Sketchy database, read from its folders as people unpack them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_FOLDER = "tx_000000000000"  # pictures as drawn and photographed; the other tx_ folders shift or scale them
_DOMAINS = {"sketches": ("sketch", ".png"), "images": ("photo", ".jpg")}


def load_sketchy(root: str | Path) -> "DatasetDict":
    """Load the sketches and photographs of the Sketchy database.

    Pictures are read from ``256x256/sketch/tx_000000000000/<class>/*.png`` and
    ``256x256/photo/tx_000000000000/<class>/*.jpg``. Nothing is copied: the data hold paths, and a picture is
    decoded when its row is read.

    Args:
        root: the folder that holds ``256x256``, that folder itself, or the folder one above.

    Returns:
        ``sketches`` and ``images``, both with the columns ``image`` (RGB), ``label`` (the same sorted class
        names in both) and ``id`` (``"cat/n02121620_1039-3"``); sketches also have ``photo_id``, the id of the
        photograph that was drawn (``"cat/n02121620_1039"``).

    Raises:
        FileNotFoundError: no such folder, a domain's folder is not there, or it holds no pictures.
        ValueError: classes with sketches but no photographs, or the other way round.
    """
    from datasets import DatasetDict

    base = _find_base(Path(root))
    files = {key: _pictures(base / domain / _FOLDER, suffix) for key, (domain, suffix) in _DOMAINS.items()}
    _check_same_classes(files, base)
    return DatasetDict({key: _as_dataset(paths, photo_ids=key == "sketches") for key, paths in files.items()})


def _find_base(root: Path) -> Path:
    """Find the folder that holds ``sketch`` and ``photo``."""
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root} (expected the unpacked Sketchy database)")
    folders = _visible_folders(root)
    candidates = [root, root / "256x256", *(folder / "256x256" for folder in folders)]
    # A root where only one domain was unpacked is still the right one: the best match names what is missing.
    found = max(candidates, key=lambda base: sum((base / d / _FOLDER).is_dir() for d, _ in _DOMAINS.values()))
    missing = [f"{d}/{_FOLDER}" for d, _ in _DOMAINS.values() if not (found / d / _FOLDER).is_dir()]
    if missing:
        here = ", ".join(folder.name for folder in _visible_folders(found)) or "no folders"
        raise FileNotFoundError(f"Sketchy: expected {' and '.join(missing)} in {found}, where there is: {here}")
    return found


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path, suffix: str) -> dict[str, list[Path]]:
    """Give the pictures of each class in a fixed order, hidden and AppleDouble (``._*``) files left out."""
    pictures = {
        place.name: sorted(p for p in place.glob(f"*{suffix}") if not p.name.startswith("."))
        for place in _visible_folders(folder)
    }
    pictures = {name: paths for name, paths in pictures.items() if paths}
    if not pictures:
        raise FileNotFoundError(f"Sketchy: no pictures found: expected <class>/*{suffix} in {folder}")
    return pictures


def _check_same_classes(files: dict[str, dict[str, list[Path]]], base: Path) -> None:
    sketches, images = set(files["sketches"]), set(files["images"])
    problems = []
    if sketches - images:
        problems.append(f"classes with sketches but no photographs: {', '.join(sorted(sketches - images))}")
    if images - sketches:
        problems.append(f"classes with photographs but no sketches: {', '.join(sorted(images - sketches))}")
    if problems:
        raise ValueError(f"Sketchy in {base}: {'; '.join(problems)}")


def _as_dataset(files: dict[str, list[Path]], *, photo_ids: bool) -> "Dataset":
    from datasets import ClassLabel, Dataset, Features, Image, Value

    names = sorted(files)
    rows = [(name, path) for name in names for path in files[name]]
    ids = [f"{name}/{path.stem}" for name, path in rows]
    columns: dict[str, list[str]] = {
        "image": [str(path) for _, path in rows],
        "label": [name for name, _ in rows],
        "id": ids,
    }
    features = {"image": Image(mode="RGB"), "label": ClassLabel(names=names), "id": Value("string")}
    if photo_ids:
        columns["photo_id"] = [identity.rpartition("-")[0] or identity for identity in ids]
        features["photo_id"] = Value("string")
    return Dataset.from_dict(columns, features=Features(features))
