"""The pictures of a part, read as they are asked for."""

import os
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

from dsh_hf.bulk.parts import Part, place_of
from dsh_hf.gallery.dataset import dataset_candidates
from dsh_hf.gallery.items import Candidate, Item

_ROWS = 64  # read from a parquet file at once


def read_pictures(part: Part) -> Iterator[Candidate]:
    """Give the pictures of a part in their order, undecoded; those far away as their address.

    Each has an id: the path of its file under the source's root; of a row its ``id``, a WebDataset's shard and key,
    or else its file and number. ``item.source`` says where it lies; of a row that does not know, it is the file.

    Raises:
        OSError: a file of rows cannot be read.
        ValueError: it is damaged, or has no pictures.
    """
    if part.kind == "pictures":
        for name in part.files:
            place = place_of(part.root, name)
            fault = "" if _is_text(place) else f"{place!a} is a name that is no UTF-8: give the file another one"
            yield Candidate(name, None if fault else place, Item(place), fault)
        return
    from dsh_hf.data.sources import plain_errors

    place = place_of(part.root, part.files[0])
    read = {"parquet": _parquet_rows, "webdataset": _webdataset_rows, "rows": _other_rows}[part.kind]
    with plain_errors(place):
        for candidate in read(part, place):
            source = candidate.item.source
            yield candidate if source else candidate._replace(item=Item(place))


def _is_text(name: str) -> bool:
    """Tell whether a file's name can be written down in parquet."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet_rows(part: Part, place: str) -> Iterator[Candidate]:
    import fsspec
    import pyarrow.parquet as pq
    from datasets import Features

    from dsh_hf.data.columns import image_column

    stop = part.stop or 0
    with fsspec.open(place) as file:
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        image = image_column(Features.from_arrow_schema(parquet.schema_arrow), place)
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        groups, row = _groups_with(sizes, part.start, stop)
        columns = [image, "id"] if "id" in names else [image]
        for batch in parquet.iter_batches(_ROWS, groups, columns):
            pictures = batch[image].to_pylist()
            ids = batch["id"].to_pylist() if "id" in names else [None] * len(pictures)
            for key, picture in zip(ids, pictures, strict=True):
                if part.start <= row < stop:
                    key = f"{_name(part)}/{row}" if key is None else str(key)
                    yield _candidate(key, picture, f"{place}, row {row}", part.root)
                row += 1


def _name(part: Part) -> str:
    """Name a part's file: its path under the root, without the suffix."""
    return str(PurePosixPath(part.files[0]).with_suffix(""))


def _groups_with(sizes: list[int], start: int, stop: int) -> tuple[list[int], int]:
    """Give the row groups of these sizes that hold rows ``start`` to ``stop``, and the first one's first row."""
    ends = list(accumulate(sizes))
    groups = [group for group, end in enumerate(ends) if end > start and end - sizes[group] < stop]
    return groups, ends[groups[0]] - sizes[groups[0]] if groups else 0


def _candidate(key: str, picture: Mapping[str, Any] | None, row: str, root: str) -> Candidate:
    path = picture.get("path") if picture else None
    source = path if path and ("://" in path or os.path.isfile(path)) else None
    if picture is None or (picture.get("bytes") is None and path is None):
        return Candidate(key, None, Item(), f"{row} has no picture")
    if picture.get("bytes") is None and not _may_be_read(str(path), root):
        return Candidate(key, None, Item(), f"{row} names {path} in place of a picture, which is not of this source")
    return Candidate(key, path if picture.get("bytes") is None else picture, Item(source))


def _may_be_read(path: str, root: str) -> bool:
    """Tell whether a row may name this file: whoever made a data set could else have any address asked."""
    return path.startswith(f"{root.rstrip('/')}/") if "://" in path else "://" not in root


def _webdataset_rows(part: Part, place: str) -> Iterator[Candidate]:
    from datasets import load_dataset

    from dsh_hf.data.columns import LABELS, as_pictures

    rows = load_dataset("webdataset", data_files=[place], split="train", streaming=True)
    unused = [name for name in rows.features if name in (*LABELS, "json")]  # to number classes reads all twice
    own_ids = "id" in rows.features
    for candidate in dataset_candidates(as_pictures(rows.remove_columns(unused), place), "image", "id", []):
        # Tars of the same name may lie in several folders.
        inside = candidate.key.partition("/")[2]
        yield candidate if own_ids else candidate._replace(key=f"{_name(part)}/{inside}")


def _other_rows(part: Part, place: str) -> Iterator[Candidate]:
    from dsh_hf.data.sources import open_source

    rows = open_source(part.root).select(range(part.start, part.stop or 0))
    yield from dataset_candidates(rows, "image", "id", [])
