"""A source of pictures cut into parts, each of which becomes one file of codes."""

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from dsh_hf.processing import PICTURE_SUFFIXES

Kind = Literal["pictures", "parquet", "webdataset", "rows"]

_LOOKED_INTO = 16  # parquet files whose number of rows is asked for at once: far away, each takes a while


class Part(NamedTuple):
    """Some pictures of a source, in order.

    Attributes:
        kind: what its files are: pictures, one file of rows (parquet, WebDataset), or any other source of rows.
        root: the folder or address that the files' names begin at.
        files: places under the root; "" is the root itself.
        start: the first row of the file that is meant.
        stop: where the rows end; ``None`` where nobody knows before the file is read.
    """

    kind: Kind
    root: str
    files: tuple[str, ...]
    start: int = 0
    stop: int | None = None

    @property
    def pictures(self) -> int | None:
        """How many pictures there are to read, where that is known."""
        return len(self.files) if self.kind == "pictures" else self.stop and self.stop - self.start


def place_of(root: str, name: str) -> str:
    """Give the path or address of a file under a root."""
    return f"{root.rstrip('/')}/{name}" if name else root


def cut_source(source: str, rows: int) -> Iterator[Part]:
    """Find the pictures of a source and cut them into parts.

    Args:
        source: a folder of pictures in any depth; all that :func:`dsh_hf.data.open_source` opens; or an address that
            fsspec knows (``s3://``, ``gs://``, ``hf://``, ...) of such a folder, of parquet or of WebDataset files,
            with ``*`` for several.
        rows: the most pictures that a part has. A WebDataset tar, whose rows nobody has counted, is one part.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: it has no pictures, or is of a kind that cannot be cut.
        ImportError: the package that reads such addresses is not installed.
    """
    kind, root, files = _found(source)
    if not files:
        raise ValueError(f"{source} has no pictures, parquet files or WebDataset tars in it")
    if kind == "pictures":
        for start in range(0, len(files), rows):
            yield Part(kind, root, tuple(files[start : start + rows]))
    elif kind == "webdataset":
        yield from (Part(kind, root, (name,)) for name in files)
    else:
        for name, count in zip(files, _counts(kind, root, files), strict=True):
            yield from (Part(kind, root, (name,), at, min(at + rows, count)) for at in range(0, count, rows))


def parts_to_text(parts: Iterable[Part]) -> str:
    """Write parts down, a line of JSON each."""
    return "".join(json.dumps(part._asdict()) + "\n" for part in parts)


def parts_from_text(text: str) -> list[Part]:
    """Read what :func:`parts_to_text` wrote."""
    read = map(json.loads, text.splitlines())
    return [Part(**(part | {"files": tuple(part["files"])})) for part in read]


def _found(source: str) -> tuple[Kind, str, list[str]]:
    """Give the kind of a source, its root, and its files under that."""
    from dsh_hf.data.sources import holds_rows, looks_like_a_path, plain_errors
    from dsh_hf.gallery.folder import find_pictures

    path = Path(source).expanduser()
    if "://" in source:
        if urlsplit(source).password:
            raise ValueError("the address holds a password, which would be written down: put it into the environment")
        return _sorted_out(*_listed(source))
    if not holds_rows(source):
        if path.is_dir():
            found, unreadable = find_pictures(path)
            return "pictures", str(path.resolve()), [*found, *unreadable]  # these will be named as skipped
        if not path.exists():
            raise FileNotFoundError(f"{source}: no such file or folder")
        return "rows", source, [""]  # an archive of class folders
    if path.is_file():
        return _sorted_out(str(path.resolve().parent), [str(path.resolve())])
    if path.is_dir() and not any(file for kind in ("parquet", "tar") for file in path.rglob(f"*.{kind}")):
        return "rows", source, [""]  # Quick, Draw! files, or what save_to_disk wrote
    if any(letter in source for letter in "*?[") and looks_like_a_path(source):
        files = [str(Path(name).resolve()) for name in sorted(glob.glob(str(path)))]
        return _sorted_out(os.path.commonpath([str(Path(name).parent) for name in files]) if files else "", files)
    with plain_errors(source):
        return _sorted_out(*_known_to_datasets(source))


def _listed(address: str) -> tuple[str, list[str]]:
    """List what lies under an address; its root is what comes before the first ``*``."""
    from fsspec.core import url_to_fs

    files, path = url_to_fs(address)
    if glob.has_magic(path):
        root = glob.escape(path).partition("[")[0].rpartition("/")[0]
        found = files.glob(path)
    elif files.isfile(path):
        root, found = path.rpartition("/")[0], [path]
    else:
        root, found = path, files.find(path)  # nothing, where there is no such place
    if not found:
        raise FileNotFoundError(f"{address}: nothing is there")
    return files.unstrip_protocol(root), [files.unstrip_protocol(name) for name in sorted(found)]


def _known_to_datasets(source: str) -> tuple[str, list[str]]:
    """List the files of a split, of a folder laid out for ``datasets`` or of a data set on the Hub."""
    from dsh_hf.data.sources import builder_of, chosen_split, parted

    place, options = parted(source)
    here = Path(place).expanduser()
    place = str(here.resolve()) if here.is_dir() else place
    builder = builder_of(place, options[0] if len(options) == 2 else None)
    files = builder.config.data_files or {}
    names = sorted(files[chosen_split(place, list(files), options)]) if files else []
    # datasets 4.0 gives the web page of a data set on the Hub as its base, and its files at hf://.
    on_the_hub = re.match(r"hf://datasets/[^@]+@[^/]+", "".join(names[:1]))
    return on_the_hub[0] if on_the_hub else str(builder.base_path), names


def _sorted_out(root: str, addresses: list[str]) -> tuple[Kind, str, list[str]]:
    """Take those files that can be read: parquet before WebDataset before pictures, since these may lie beside."""
    suffixes: dict[Kind, frozenset[str]] = {
        "parquet": frozenset({".parquet"}),
        "webdataset": frozenset({".tar"}),
        "pictures": PICTURE_SUFFIXES,
    }
    root = root.rstrip("/")
    for kind, known in suffixes.items():
        files = [address for address in addresses if PurePosixPath(address).suffix.lower() in known]
        if files:
            return kind, root, [address.removeprefix(root + "/") for address in files]
    return "pictures", root, []


def _counts(kind: Kind, root: str, files: Sequence[str]) -> list[int]:
    """Count the rows of each file, of parquet by its footer alone."""
    import fsspec
    import pyarrow.parquet as pq

    from dsh_hf.data.sources import open_source, plain_errors

    if kind == "rows":
        return [len(open_source(root))]

    def count(name: str) -> int:
        place = place_of(root, name)
        with plain_errors(place), fsspec.open(place) as file:
            return pq.ParquetFile(file).metadata.num_rows

    with ThreadPoolExecutor(_LOOKED_INTO) as pool:
        return list(pool.map(count, files))
