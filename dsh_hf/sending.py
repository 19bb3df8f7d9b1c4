"""Sending to the Hugging Face Hub: what may leave, patience with a server that stumbles, and reading back."""

import logging
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Literal, TypeVar

from dsh_hf.hub import is_unreachable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

CHECKPOINT_SUFFIXES = {".json", ".md", ".png", ".safetensors", ".txt"}
WAITS = (1.0, 3.0)  # seconds before a step is tried again
_TEXTS = {".css", ".js", ".json", ".md", ".py", ".txt"}
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
# A path of one machine: /home/me/x, ~/x, C:\x, file:/x; in JSON a backslash is written twice. /usr/share is everyone's.
_PLACE = re.compile(
    r"""(?:(?<![^\s"'`=(\[,:])|(?<=::))(?:~?/(?!usr/share/)[\w.+-]+/|~/|file:/|[A-Za-z]:\\{1,2}\w)[^\s"'`;)\]]*"""
)
_STUMBLES = {408, 429, 500, 502, 503, 504}

Answer = TypeVar("Answer")
Kind = Literal["model", "dataset", "space"]


def files_to_send(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files of a folder that is to be sent; Python's own ``__pycache__`` is left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: something in it should not leave: hidden, a link, of a kind not among ``suffixes``, or with an
            access token in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a link, which may lead out of the folder: put the file itself there")
        if path.name.startswith("."):
            raise ValueError(f"{path} is hidden: remove it, or send a folder without it")
        if path.is_dir() or path.parent.name == "__pycache__":
            continue
        if path.suffix.lower() not in suffixes and path.name != "LICENSE":
            raise ValueError(f"{path} does not belong there ({', '.join(sorted(suffixes))}, LICENSE do): remove it")
        if path.suffix.lower() in _TEXTS and _TOKEN.search(path.read_bytes()):
            raise ValueError(f"{path} has an access token in it (hf_...): remove it there, and revoke it on the Hub")
        files.append(path)
    return files


def is_here(path: str) -> bool:
    """Tell whether a path means something on one machine alone: it begins at a root, a home or a drive."""
    return path.startswith(("/", "\\", "~", "file:")) or PureWindowsPath(path).drive != ""


def without_place(path: str) -> str:
    """Keep a relative path or an address; of a place on this machine only the last component."""
    parts = path.split("::")  # zip://cat.png::/home/me/photos.zip
    return re.split(r"[/\\]", parts[0].rstrip("/\\"))[-1] if any(map(is_here, parts)) else path


def check_places(files: Iterable[Path]) -> None:
    """Check that no text, and no metadata of a safetensors file, tells where on this machine something lies.

    Raises:
        ValueError: one does; the message names the file and the place.
    """
    home = str(Path.home())
    for path in files:
        text = _text_of(path)
        found = _PLACE.search(text)
        if found or (len(home) > 1 and home in text):
            raise ValueError(
                f"{path} tells of a place on this machine ({found[0] if found else home}): leave only its last "
                "component there, and write the card anew with dsh_hf.model_card.write_card"
            )


def create_repo(api: "HfApi", repo_id: str, *, private: bool, kind: Kind = "model") -> None:
    """Create the repository of a model, a data set or a Gradio Space where there is none.

    Raises:
        ValueError: it exists and is public where a private one was asked for.
    """
    sdk = "gradio" if kind == "space" else None
    patiently(lambda: api.create_repo(repo_id, repo_type=kind, space_sdk=sdk, private=private or None, exist_ok=True))
    if private and not patiently(lambda: api.repo_info(repo_id, repo_type=kind)).private:
        raise ValueError(f"{repo_id} exists and is public: make it private on its page, or leave out --private")


def patiently(step: Callable[[], Answer]) -> Answer:
    """Do a step that does no harm when done twice; where the server stumbles or hangs up, try it again."""
    for wait in WAITS:
        try:
            return step()
        except Exception as error:
            if not _may_pass(error):
                raise
            logger.warning("%s; trying again in %.0f s", reason_of(error), wait)
            time.sleep(wait)
    return step()


def check_arrived(
    api: "HfApi", repo_id: str, revision: str, folder: Path, files: Iterable[Path], kind: Kind = "model"
) -> None:
    """Download into an empty cache what was sent, and compare it byte by byte.

    Raises:
        RuntimeError: a file is not there as it was sent.
    """
    with tempfile.TemporaryDirectory() as cache:
        there = patiently(lambda: api.snapshot_download(repo_id, repo_type=kind, revision=revision, cache_dir=cache))
        for path in files:
            copy = Path(there) / path.relative_to(folder)
            if not copy.is_file() or copy.read_bytes() != path.read_bytes():
                raise RuntimeError(f"{repo_id}: {path.relative_to(folder)} is not there as it was sent: send it again")


def reason_of(error: BaseException) -> str:
    """Give an error of the client in one line, in the server's own words where it had any."""
    words = str(getattr(error, "server_message", None) or error) or type(error).__name__
    response = getattr(error, "response", None)
    status = "" if response is None else f"{response.status_code} "
    return status + " ".join(words.split())


def _text_of(path: Path) -> str:
    """Give a text file's content, a safetensors file's metadata, and of other files nothing."""
    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                return "\n".join((file.metadata() or {}).values())
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or truncated ({error}): write it anew, or remove it") from error
    return path.read_text(encoding="utf-8", errors="replace") if path.suffix.lower() in _TEXTS else ""


def _may_pass(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:  # what the client makes of a failed question
        return _may_pass(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _STUMBLES
    return isinstance(error, HTTPError) and not is_unreachable(error)
