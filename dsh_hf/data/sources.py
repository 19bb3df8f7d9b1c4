"""Pictures from wherever they lie: folders, archives, QuickDraw, parquet, WebDataset, the Hub; two of them joined."""

import glob
import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dsh_hf.data.archives import ARCHIVE_SUFFIXES, FOREIGN_SUFFIXES, TAR_SUFFIXES, is_archive, refuse_foreign
from dsh_hf.data.assemble import pair_classes
from dsh_hf.data.columns import as_pictures, renumbered

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder, DatasetDict, IterableDataset

logger = logging.getLogger(__name__)

_FILES = (*ARCHIVE_SUFFIXES, *FOREIGN_SUFFIXES, ".parquet", ".ndjson", ".arrow", ".csv", ".json", ".jpg", ".png")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+){0,2}")
_LOOKED_AT = 100  # members of a tar, to tell a WebDataset from class folders


def open_source(source: str, *, streaming: bool = False) -> "Dataset | IterableDataset":
    """Open a data set of pictures, whatever it is.

    A source is one of: a folder of ``<class>/<picture>`` files, or an archive of such a folder (zip, tar); a
    folder of QuickDraw's ``<class>.ndjson``; a parquet file, or a folder of them; a WebDataset tar (``1.jpg``
    beside ``1.cls`` or ``1.json``), or a folder of them; a folder that ``Dataset.save_to_disk`` wrote; several
    files by a pattern with ``*``; or the id of a data set on the Hub, ``org/name``. A split is named after a
    colon, ``org/name:train``, and so is a configuration: ``org/name:large:train``. What exists here as a file
    or folder is never looked for on the Hub.

    Args:
        source: where the pictures are.
        streaming: read pictures as they are asked for. Parquet, WebDataset and the Hub's data are otherwise
            first converted into the ``datasets`` cache; folders are never copied.

    Returns:
        The columns ``image`` (RGB when decoded), ``label`` (``ClassLabel``; only where there are classes) and
        ``id`` (str), see :func:`dsh_hf.data.columns.as_pictures`.

    Raises:
        FileNotFoundError: there is no such file, folder or data set.
        ValueError: it is of no kind known, it has several splits and none was named, or no pictures.
    """
    with plain_errors(source):
        place, options = parted(source)
        path = Path(place).expanduser()
        if path.is_dir():
            return _from_folder(path, options, streaming)
        if path.exists():
            return _from_files([path], source, streaming)
        if any(letter in place for letter in "*?["):
            return _from_files([Path(name) for name in sorted(glob.glob(place))], source, streaming)
        if looks_like_a_path(source):
            raise FileNotFoundError(f"{source}: no such file or folder")
        logger.info("%s: no such file or folder here, so it is looked for on the Hub", place)
        _ask_the_hub(place)
        return _from_builder(place, options, streaming)


def join_domains(sketches: "Dataset", images: "Dataset", classes: Sequence[str] | str | None = None) -> "DatasetDict":
    """Put sketches and images of the same classes together, whatever order each numbers them in.

    Classes are the same if their names differ only in case, spaces and punctuation; the sketches' spelling
    stays. Pictures are neither decoded nor copied.

    Args:
        sketches: any data set with a picture and a class column, see :func:`dsh_hf.data.columns.as_pictures`.
        images: another one.
        classes: the names of those wanted, or ``"shared"`` for those on both sides. Default: all.

    Returns:
        ``sketches`` and ``images`` with the columns ``image``, ``label`` (the same sorted names in both) and
        ``id``, and ``photo_id`` where there is one.

    Raises:
        ValueError: a domain has no classes, a class is in one domain only or is there twice in different
            spelling, or an unknown class is wanted.
    """
    from datasets import DatasetDict

    parts = {"sketches": as_pictures(sketches, "sketches"), "images": as_pictures(images, "images")}
    there = {}
    for domain, part in parts.items():
        if "label" not in part.features:
            raise ValueError(f"the {domain} have no column of classes")
        there[domain] = {name: Path(domain, name) for name in _classes_with_rows(part)}
    hint = "leave them out with a list of classes, or add what is missing"
    names = [name for name, _, _ in pair_classes(there["sketches"], there["images"], classes, hint)]
    return DatasetDict({domain: _of_classes(part, names) for domain, part in parts.items()})


def holds_rows(source: str) -> bool:
    """Tell a data set of rows (parquet, WebDataset, saved data, Quick, Draw! files, the Hub) from picture files."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _is_saved(path) or _is_built(path) or any(path.glob("*.ndjson"))
    if path.is_file():
        name = path.name.lower()
        return not is_archive(path) or (name.endswith(TAR_SUFFIXES) and _is_webdataset(path))
    return any(letter in source for letter in "*?[") or not looks_like_a_path(source)


def looks_like_a_path(source: str) -> bool:
    """Tell a file or folder, mistyped perhaps, from the id of a data set on the Hub."""
    if source.startswith((".", "/", "~")) or source.lower().endswith(_FILES) or not _HUB_ID.fullmatch(source):
        return True
    return Path(source.partition("/")[0]).is_dir()  # data/sketchez, where there is a folder data


def parted(source: str) -> tuple[str, list[str]]:
    """Part a source from the configuration and the split that follow it; what exists is taken as it is.

    Returns:
        The place, and of ``place:split`` one word, of ``place:configuration:split`` two.
    """
    place, *options = source.split(":")
    if Path(source).expanduser().exists() or not options or len(options) > 2:
        return source, []
    drive = len(place) == 1 and place.isalpha()  # C:\pictures
    return (source, []) if drive else (place, options)


def _from_folder(folder: Path, options: list[str], streaming: bool) -> "Dataset | IterableDataset":
    from datasets import DatasetDict, load_from_disk

    from dsh_hf.data.folders import load_class_folders
    from dsh_hf.data.quickdraw import load_quickdraw

    if _is_saved(folder):
        saved = load_from_disk(folder)
        if isinstance(saved, DatasetDict):
            saved = saved[chosen_split(str(folder), list(saved), options)]
        return _streamed(as_pictures(saved, folder.name), streaming)
    parquet = any(path for depth in ("*.parquet", "*/*.parquet") for path in folder.glob(depth))
    if parquet or any(_is_webdataset(path) for path in sorted(folder.glob("*.tar"))[:1]):
        return _from_builder(str(folder), options, streaming)
    if options:
        raise ValueError(f"{folder} has no splits: leave out :{':'.join(options)}")
    if any(folder.glob("*.ndjson")):
        return load_quickdraw(folder, streaming=True) if streaming else load_quickdraw(folder)
    return _streamed(load_class_folders(folder), streaming)


def _is_saved(folder: Path) -> bool:
    """Tell whether ``save_to_disk`` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _is_built(folder: Path) -> bool:
    """Tell whether a folder holds files that ``datasets`` itself knows how to read."""
    return any(folder.rglob("*.parquet")) or any(_is_webdataset(path) for path in sorted(folder.glob("*.tar"))[:1])


def _from_files(paths: list[Path], source: str, streaming: bool) -> "Dataset | IterableDataset":
    from datasets import load_dataset

    from dsh_hf.data.folders import load_class_folders

    if not paths:
        raise FileNotFoundError(f"{source}: no such files")
    refuse_foreign(paths[0])
    names = [path.name.lower() for path in paths]
    if all(name.endswith(".parquet") for name in names):
        kind = "parquet"
    elif all(name.endswith(TAR_SUFFIXES) for name in names) and _is_webdataset(paths[0]):
        kind = "webdataset"
    elif len(paths) == 1 and is_archive(paths[0]):
        return _streamed(load_class_folders(paths[0]), streaming)
    else:
        raise ValueError(f"{source} is no source of pictures: give a folder, an archive, parquet or a WebDataset")
    files = [str(path) for path in paths]
    return as_pictures(load_dataset(kind, data_files=files, split="train", streaming=streaming), paths[0].stem)


def _from_builder(place: str, options: list[str], streaming: bool) -> "Dataset | IterableDataset":
    """Open what ``datasets`` knows by its name or folder: data on the Hub, or files laid out as there."""
    builder = builder_of(place, options[0] if len(options) == 2 else None)
    splits = list(builder.config.data_files or builder.info.splits or ())
    split = chosen_split(place, splits, options)
    name = PurePosixPath(place).name + (f"/{split}" if len(splits) > 1 else "")
    if streaming:
        return as_pictures(builder.as_streaming_dataset(split), name)
    builder.download_and_prepare()
    return as_pictures(builder.as_dataset(split), name)


def builder_of(place: str, config: str | None) -> "DatasetBuilder":
    """Give what ``datasets`` builds a data set with, which knows its files and splits.

    Args:
        place: a folder of parquet or WebDataset files, or the id of a data set on the Hub.
        config: the name of a configuration; needed where there are several.

    Raises:
        ValueError: there is no such configuration, or there are several and none was named.
    """
    from datasets import get_dataset_config_names, load_dataset_builder

    try:
        return load_dataset_builder(place, config)
    except ValueError:
        names = get_dataset_config_names(place)
        if config in names or (config is None and len(names) == 1):
            raise
        raise ValueError(
            f"{place} has the configurations {', '.join(names)}: say which, like {place}:{names[0]}:train"
        ) from None


def _ask_the_hub(place: str) -> None:
    """Say at once that the Hub is not reached, as ``datasets`` would after half a minute of attempts.

    Raises:
        FileNotFoundError: that is so, and the cache has no such data set either.
    """
    from datasets import config
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    from dsh_hf.hub import is_unreachable

    try:
        HfApi().dataset_info(place, timeout=10)
    except OfflineModeIsEnabled:
        return
    except HTTPError as error:
        cached = Path(config.HF_DATASETS_CACHE) / place.replace("/", "___")
        if is_unreachable(error) and not cached.is_dir():
            raise FileNotFoundError(f"{place}: no such file or folder here, and the Hub was not reached") from error


def chosen_split(place: str, splits: list[str], options: list[str]) -> str:
    """Give the split that is meant: the one that was named, or else the only one.

    Args:
        place: what messages call the source.
        splits: all that it has.
        options: what followed the source, see :func:`parted`; the split is the last.

    Raises:
        ValueError: there is no such split, or there are several and none was named.
    """
    if options and options[-1] in splits:
        return options[-1]
    if options:
        raise ValueError(f"{place} has no split {options[-1]}, only {', '.join(splits)}")
    if len(splits) > 1:
        raise ValueError(f"{place} has the splits {', '.join(splits)}: say which, like {place}:{splits[0]}")
    return splits[0]


def _streamed(dataset: "Dataset", streaming: bool) -> "Dataset | IterableDataset":
    return dataset.to_iterable_dataset() if streaming else dataset


def _classes_with_rows(part: "Dataset") -> list[str]:
    names = part.features["label"].names
    return sorted(names[label] for label in set(_labels(part)))


def _labels(part: "Dataset") -> list[int]:
    return list(part.select_columns(["label"])[:]["label"])


def _of_classes(part: "Dataset", names: Sequence[str]) -> "Dataset":
    """Number the classes in the order of ``names``; rows of other classes are left out."""
    if list(part.features["label"].names) == list(names):
        return part
    part = renumbered(part, names)
    labels = _labels(part)
    return part if -1 not in labels else part.select([row for row, label in enumerate(labels) if label >= 0])


def _is_webdataset(path: Path) -> bool:
    """Tell whether the pictures in a tar have files of the same name beside them, or lie in no folder at all."""
    from dsh_hf.processing import PICTURE_SUFFIXES

    with tarfile.open(path) as archive:
        members = [PurePosixPath(member.name) for member in islice(archive, _LOOKED_AT) if member.isfile()]
    members = [member for member in members if not member.name.startswith(".")]
    pictures = [member for member in members if member.suffix.lower() in PICTURE_SUFFIXES]
    others = {member.with_suffix("") for member in members if member.suffix.lower() not in PICTURE_SUFFIXES}
    return any(member.with_suffix("") in others or member.parent == PurePosixPath() for member in pictures)


@contextmanager
def plain_errors(source: str) -> Iterator[None]:
    """Turn what ``datasets`` and pyarrow raise into an error of one line that names the source and the cause.

    Args:
        source: what messages call it.

    Raises:
        FileNotFoundError: there is no such source, or the Hub was not reached.
        ValueError: it cannot be read.
    """
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from pyarrow import ArrowException

    try:
        yield
    except DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"{source}: no such file or folder here, and no such data set on the Hub (or it is private: log in with "
            "`hf auth login`)"
        ) from error
    except ConnectionError as error:
        raise FileNotFoundError(f"{source}: no such file or folder here, and the Hub was not reached") from error
    except (DatasetsError, RuntimeError, tarfile.TarError, ArrowException) as error:
        cause = error.__cause__ or error
        raise ValueError(f"{source} cannot be read: {' '.join(str(cause).split())}") from error
    except ValueError as error:
        if source.partition(":")[0] in str(error):
            raise
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error
