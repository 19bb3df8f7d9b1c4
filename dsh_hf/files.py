"""Writing files so that nothing is lost, and reading JSON of any origin."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new one, never a mixture."""
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary file to write in; when the block ends without an error it takes the place of ``path``.

    It gets the permissions of the file it replaces, a new one those that the umask leaves.

    Raises:
        OSError: it cannot be written, with the kind and number of the first error; an earlier file stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = (path if path.exists() else temporary).stat().st_mode & 0o777
        temporary.chmod(mode | 0o600)  # until it is whole it must be writable
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # again: safetensors puts a file of its own in this place
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError | SafetensorError):
            raise _told(path, error) from error
        raise


def _told(path: Path, error: Exception) -> OSError:
    """Say which file was to be written; safetensors tells the system's error in words alone."""
    number = getattr(error, "errno", None) or int((re.search(r"os error (\d+)", str(error)) or [0, 0])[1])
    reason = os.strerror(number) if number else " ".join(str(error).split())
    return OSError(number, f"{path} could not be written ({reason}); what was there before is kept")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of any origin.

    Raises:
        ValueError: it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
