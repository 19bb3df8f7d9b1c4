"""Writing files so that nothing is lost, and reading JSON of any origin."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new one, never a mixture."""
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary file to write in; when the block ends without an error it takes the place of ``path``.

    It gets the permissions of the file it replaces, a new one those that the umask leaves.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.touch(exist_ok=False)
    try:
        mode = (path if path.exists() else temporary).stat().st_mode & 0o777
        temporary.chmod(mode | 0o600)  # until it is whole it must be writable
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # again: safetensors puts a file of its own in this place
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of any origin.

    Raises:
        ValueError: it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
