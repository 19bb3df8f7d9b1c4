"""The folder of a saved gallery: a manifest, the index, and what is known of each picture."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from dsh_hf.files import parse_json, replaced_atomically, write_atomically
from dsh_hf.gallery.items import Item, Items, RetrieverError, metadata_text

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch

try:
    import fcntl
except ImportError:  # Windows: a save is whole or not at all there too, but two of them are not told of each other
    fcntl = None  # type: ignore[assignment]

MANIFEST_NAME = "retriever.json"
FORMAT_VERSION = 2
_WAY_OUT = "restore a copy, or build the gallery again"
_OURS = re.compile(
    r"(index|items)-[0-9a-f]{32}[.a-z]*|[.](index|items|retriever).*[.]tmp|[.]index-[0-9a-f]{32}[.a-z]*[.]lock"
)
# What of a manifest is used without a further look.
_KINDS: dict[str, type | UnionType] = {
    "format_version": int,
    "engine": str,
    "folder": str | None,
    "skipped": dict,
    "metadata": list,
    "sha256": dict,
    "keep_outputs": bool,
}
_SECRETS = {"password", "sslpassword", "token"}


@contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Keep other processes from saving into a folder while the block runs.

    Yields:
        Whether that is sure: not on Windows, nor on a file system without locks. Saves are whole there, too.

    Raises:
        RetrieverError: another process is saving into it.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)  # the folder itself: a file to lock would be one more to explain
    try:
        yield _lock(handle, folder)
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RetrieverError(f"another process is saving this gallery ({folder}): try again after it") from None
    except OSError:
        return False
    return True


def names_of_files(folder: Path) -> set[Any]:
    """Give the names of the files that make up the gallery in a folder; none where there is no sound one."""
    try:
        manifest, _ = read_manifest(folder)
    except RetrieverError:
        return set()
    return {manifest["index"], manifest["items"]}


def remove_leftovers(folder: Path, among: Collection[str] | None) -> None:
    """Remove files of earlier saves, and of saves that were cut short.

    Args:
        folder: a gallery; only files named as we name them go, and never those of the gallery as it is now.
        among: only these; ``None`` where no other process can be saving, whose files would look the same.
    """
    kept = names_of_files(folder)
    for file in folder.iterdir():
        if _OURS.fullmatch(file.name) and file.name not in kept and (among is None or file.name in among):
            file.unlink(missing_ok=True)


def write_gallery(
    folder: Path,
    facts: Mapping[str, Any],
    write_index: Callable[[Path | None], Items],
    on_server: bool,
    mark: str,
) -> str:
    """Write a gallery's files, the manifest last: with it they become the gallery.

    Args:
        folder: where to.
        facts: what the manifest says beside the names of the files.
        write_index: writes the index into a file and gives the items of that moment.
        on_server: the codes lie there, and no file is written of them.
        mark: part of the files' names, another one for each save.

    Returns:
        The digest of the manifest.
    """
    names = {"items": f"items{mark}.parquet"} | ({} if on_server else {"index": f"index{mark}.safetensors"})
    files = {kind: folder / name for kind, name in names.items()}
    try:
        items = write_index(files.get("index"))
        write_items(files["items"], items)
        checksums = {kind: _sha256(file) for kind, file in files.items()}
        content = {"format_version": FORMAT_VERSION, "pictures": len(items), **facts, "index": None, **names}
        content["sha256"] = checksums
        text = json.dumps(content, indent=1).encode()
        write_atomically(folder / MANIFEST_NAME, text)
    except Exception:  # not KeyboardInterrupt: that may come when the manifest names them already
        for file in files.values():
            file.unlink(missing_ok=True)
        raise
    return hashlib.sha256(text).hexdigest()


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """Read a gallery's manifest; give it with its digest.

    Raises:
        RetrieverError: it is not there, damaged, or of a newer format.
    """
    file = folder / MANIFEST_NAME
    if not file.is_file():
        raise RetrieverError(f"{folder} holds no saved gallery ({file.name} is not there): run dsh-hf index first")
    text = file.read_bytes()
    manifest = _parse_object(text, file)
    for key, kinds in _KINDS.items():
        if key in manifest and not isinstance(manifest[key], kinds):
            raise RetrieverError(f"{file} tells {key!r} as {manifest[key]!r}, which it cannot be: {_WAY_OUT}")
    if manifest.get("format_version", 0) > FORMAT_VERSION:
        raise RetrieverError(f"{folder} was saved by a newer dsh_hf: upgrade with `pip install -U dsh-hf`")
    for key in ("engine", "index", "items", "folder", "skipped"):
        if key not in manifest:
            raise RetrieverError(f"{file} lacks {key!r}: {_WAY_OUT}")
    if not all(isinstance(key, str) for key in manifest.get("metadata", [])):
        raise RetrieverError(f"{file} tells 'metadata' as {manifest['metadata']!r}, which it cannot be: {_WAY_OUT}")
    for name in filter(None, (manifest["index"], manifest["items"])):
        if not isinstance(name, str) or re.search(r"[/\\]|^[.]", name):
            raise RetrieverError(f"{file} names {name!r}, which is no file beside it: {_WAY_OUT}")
    return manifest, hashlib.sha256(text).hexdigest()


def digest_of_manifest(folder: Path) -> str | None:
    """Give the digest of the manifest that is there now, ``None`` where there is none."""
    file = folder / MANIFEST_NAME
    return _sha256(file) if file.is_file() else None


def checked_file(folder: Path, manifest: Mapping[str, Any], kind: str) -> Path:
    """Give the file that a manifest names, after a look that it is the one that was saved.

    Raises:
        RetrieverError: it is missing, or was altered.
    """
    file = folder / str(manifest[kind])
    if not file.is_file():
        raise RetrieverError(f"{file} is missing: {_WAY_OUT}")
    expected = manifest.get("sha256", {}).get(kind)  # format 1 has none
    if expected is not None and _sha256(file) != expected:
        raise RetrieverError(f"{file} is not the file that was saved with this gallery: {_WAY_OUT}")
    return file


def write_items(file: Path, items: Items) -> None:
    """Write what is known of each picture as a Parquet table, one row a picture."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = list(items.values())
    columns = {
        "id": _to_column(list(items)),
        "source": _to_column([item.source for item in known]),
        "metadata": pa.array([item.metadata for item in known], pa.string()),
        "file_bytes": pa.array([item.stamp and item.stamp[0] for item in known], pa.int64()),
        "file_changed": pa.array([item.stamp and item.stamp[1] for item in known], pa.int64()),
    }
    outputs = [item.outputs for item in known if item.outputs is not None]
    if outputs:
        values = pa.array(np.frombuffer(b"".join(outputs), np.float16))
        columns["outputs"] = pa.FixedSizeListArray.from_arrays(values, len(outputs[0]) // 2)
    with replaced_atomically(file) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_items(file: Path) -> Items:
    """Read what :func:`write_items` wrote, or the JSON of format 1.

    Raises:
        RetrieverError: the file is damaged.
    """
    if file.suffix == ".json":
        return _read_json_items(file)
    import pyarrow as pa
    import pyarrow.parquet as pq

    items: Items = {}
    try:
        for batch in pq.ParquetFile(file).iter_batches():  # all at once would take twice the memory
            items.update(_read_batch(batch))
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RetrieverError(f"{file} is damaged ({reason}): {_WAY_OUT}") from error
    return items


def _read_batch(batch: "RecordBatch") -> Iterator[tuple[str, Item]]:
    ids, sources = _from_column(batch["id"]), _from_column(batch["source"])
    metadata, lengths, times = (batch[name].to_pylist() for name in ("metadata", "file_bytes", "file_changed"))
    outputs: Any = repeat(None)
    if "outputs" in batch.schema.names:
        joined = batch["outputs"].flatten().to_numpy().tobytes()
        size = len(joined) // len(ids)
        outputs = (joined[start : start + size] for start in range(0, len(joined), size))
    for key, source, text, length, time, row in zip(ids, sources, metadata, lengths, times, outputs, strict=False):
        yield key, Item(source, text, None if length is None else (length, time), row)


def is_url(engine: str) -> bool:
    """Tell whether an engine is on a server."""
    return "://" in engine


def without_password(engine: str) -> str:
    """Give an engine's name, or its URL without what is secret in it."""
    if not is_url(engine):
        return engine
    scheme, _, rest = engine.partition("://")
    # Passwords may hold # and ?: libpq takes them so. The query begins where a parameter does.
    address, *query = re.split(r"[?](?=[\w%]+=)", rest, maxsplit=1)
    authority, slash, path = address.partition("/")
    user, at, host = authority.rpartition("@")
    parts = "".join(query).split("&")
    kept = "&".join(part for part in parts if unquote(part.partition("=")[0]).lower() not in _SECRETS)
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path}{'?' if kept else ''}{kept}"


def _read_json_items(file: Path) -> Items:
    content = _parse_object(file.read_bytes(), file)
    try:
        return {
            key: Item(
                None if item["stamp"] else item["source"],
                metadata_text(item["metadata"]),
                tuple(item["stamp"]) if item["stamp"] else None,
            )
            for key, item in content.items()
        }
    except (KeyError, TypeError) as error:
        raise RetrieverError(f"{file} is damaged ({error!r}): {_WAY_OUT}") from error


def _to_column(texts: Sequence[str | None]) -> "Array":
    import pyarrow as pa

    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:  # a file name that is no UTF-8
        return pa.array([text and text.encode("utf-8", "surrogatepass") for text in texts], pa.binary())


def _from_column(column: "Array") -> list[Any]:
    import pyarrow as pa

    values = column.to_pylist()
    if pa.types.is_binary(column.type):
        return [value if value is None else value.decode("utf-8", "surrogatepass") for value in values]
    return values


def _parse_object(text: bytes, file: Path) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise RetrieverError(f"{file} is damaged ({error}): {_WAY_OUT}") from error
    if not isinstance(content, dict):
        raise RetrieverError(f"{file} is damaged: {_WAY_OUT}")
    return content


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
