"""The folder of codes: its manifest, what it was cut into, and a parquet file of (id, code, source) for each part."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dsh_hf.bulk.parts import Part, parts_from_text, parts_to_text
from dsh_hf.codes import Codes, code_bytes
from dsh_hf.files import write_atomically

if TYPE_CHECKING:
    from dsh_hf.bulk.encoding import Encoded

MANIFEST_NAME = "codes.json"
FORMAT_VERSION = 1
_PLAN_NAME = "parts.jsonl"
_FACTS = b"dsh_hf"  # key of what each file of codes says about itself
_WAY_OUT = "run dsh-hf encode again"


class CodesError(ValueError):
    """A folder of codes cannot be used; the message names the file and the way out."""


class CodesPart(NamedTuple):
    """Codes as they were stored.

    Attributes:
        ids: strs.
        codes: uint8 of shape ``(len(ids), ceil(bits / 8))``.
        sources: where the pictures lie, where that is known.
    """

    ids: list[str]
    codes: Codes
    sources: list[str | None]


def part_file(folder: Path, number: int) -> Path:
    """Give the place of a part's codes."""
    return folder / f"part-{number:06}.parquet"


def begin(folder: Path, facts: dict[str, Any], parts: Iterable[Part]) -> list[Part]:
    """Give the parts of a run that was begun in this folder, or note down those of a new one.

    Args:
        folder: made where missing.
        facts: what must be equal for the run to go on: fingerprint, bits, kind, source and rows of a part.
        parts: of a new run; not looked at where one goes on.

    Raises:
        CodesError: codes of another model, source, ... lie there, or files that are not ours.
    """
    manifest = folder / MANIFEST_NAME
    if manifest.is_file():
        there = _read_manifest(folder)
        different = [name for name, value in facts.items() if there.get(name) != value]
        if different:
            told = ", ".join(f"{name} {there.get(name)}, not {facts[name]}" for name in different)
            raise CodesError(f"{folder} was begun with {told}: go on with that, or give another place for the codes")
        return parts_from_text((folder / _PLAN_NAME).read_text(encoding="utf-8"))
    if folder.is_file() or (folder.is_dir() and any(folder.glob("*.parquet"))):
        raise CodesError(f"{folder} is a file, or holds other parquet files: give a folder of its own for the codes")
    planned = list(parts)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _PLAN_NAME, parts_to_text(planned).encode())
    _write_manifest(folder, {**facts, "complete": False})
    return planned


def finish(folder: Path, facts: dict[str, Any], count: int) -> dict[str, Any]:
    """Write the manifest of a folder whose parts are all there, and give it.

    Raises:
        CodesError: a part is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    skipped: dict[str, str] = {}
    for number in range(count):
        file = part_file(folder, number)
        try:
            metadata = pq.read_metadata(file)
            skipped |= json.loads(metadata.metadata[_FACTS])["skipped"]
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(file, error) from error
        parts.append({"file": file.name, "codes": metadata.num_rows})
    codes = sum(part["codes"] for part in parts)
    manifest = {**facts, "complete": True, "codes": codes, "skipped": skipped, "parts": parts}
    _write_manifest(folder, manifest)
    for leftover in folder.glob(".part-*.parquet.*.tmp"):  # of a run that was cut short
        leftover.unlink(missing_ok=True)
    return manifest


def as_parquet(encoded: "Iterable[Encoded]", facts: dict[str, Any]) -> bytes:
    """Give the bytes of a part's parquet file: ``id`` and ``source`` (str), ``code`` (bytes as a list of uint8)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = code_bytes(facts["bits"])
    ids: list[str] = []
    sources: list[str | None] = []
    codes = [np.zeros((0, width), np.uint8)]
    skipped: dict[str, str] = {}
    for some in encoded:
        ids += some.ids
        sources += some.sources
        codes.append(some.codes)
        skipped |= some.skipped
    values = pa.array(np.concatenate(codes).reshape(-1))
    columns = {
        "id": pa.array(ids, pa.string()),
        "code": pa.FixedSizeListArray.from_arrays(values, width),
        "source": pa.array(sources, pa.string()),
    }
    told = {"format_version": FORMAT_VERSION, **facts, "skipped": skipped}
    table = pa.table(columns).replace_schema_metadata({_FACTS: json.dumps(told)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def holds_codes(folder: Path) -> bool:
    """Tell whether ``dsh-hf encode`` wrote a folder."""
    return (folder / MANIFEST_NAME).is_file()


def read_codes(folder: Path | str, *, bits: int, fingerprint: str) -> Iterator[CodesPart]:
    """Read the codes in a folder part by part, in the order of their source.

    Args:
        folder: written by ``dsh-hf encode``.
        bits: the length that the codes must have.
        fingerprint: of the model that must have made them.

    Raises:
        CodesError: the folder has no codes, not all of them yet, those of another model or length, or a part of it
            is missing or damaged; of model and length before the first part is given.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    if not manifest.get("complete"):
        raise CodesError(f"{folder} has not all of its codes yet: {_WAY_OUT}, it goes on where it stopped")
    _check(folder, manifest, bits, fingerprint)
    return (_read_part(folder / part["file"], part["codes"], bits, fingerprint) for part in manifest["parts"])


def skipped_in(folder: Path) -> dict[str, str]:
    """Give why pictures have no code, by id."""
    skipped: dict[str, str] = _read_manifest(folder).get("skipped", {})
    return skipped


def _read_part(file: Path, count: int, bits: int, fingerprint: str) -> CodesPart:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        facts = json.loads(table.schema.metadata[_FACTS])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error
    _check(file, facts, bits, fingerprint)
    if len(table) != count:
        raise CodesError(f"{file} holds {len(table)} codes, not {count}: delete it and {_WAY_OUT}")
    values = table["code"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    codes = values.reshape(-1, code_bytes(bits))
    return CodesPart(table["id"].to_pylist(), codes, table["source"].to_pylist())


def _damaged(file: Path, error: Exception) -> CodesError:
    return CodesError(f"{file} is missing or damaged ({error}): delete it and {_WAY_OUT}")


def _check(place: Path, facts: dict[str, Any], bits: int, fingerprint: str) -> None:
    if facts.get("fingerprint") != fingerprint:
        raise CodesError(
            f"{place} holds codes of the model {facts.get('fingerprint')}, not {fingerprint}: "
            "open the model that made them, or encode the pictures again"
        )
    if facts.get("bits") != bits:
        raise CodesError(
            f"{place} holds codes of {facts.get('bits')} bits, not {bits}: "
            "open the model with that length, or encode the pictures again"
        )


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST_NAME
    if not file.is_file():
        raise CodesError(f"{folder} has no codes ({MANIFEST_NAME} is not there): make them with dsh-hf encode")
    try:
        manifest = json.loads(file.read_bytes())
        version = manifest.get("format_version", 0)
    except (ValueError, AttributeError) as error:
        raise CodesError(f"{file} is damaged ({error}): delete it with its folder and {_WAY_OUT}") from error
    if version > FORMAT_VERSION:
        raise CodesError(f"{folder} was written by a newer dsh_hf: upgrade with `pip install -U dsh-hf`")
    return manifest


def _write_manifest(folder: Path, content: dict[str, Any]) -> None:
    text = json.dumps({"format_version": FORMAT_VERSION, **content}, indent=1)
    write_atomically(folder / MANIFEST_NAME, text.encode())
