"""Downloading from the Hugging Face Hub, with an answer in one line where something is wrong."""

import os
from collections.abc import Sequence
from pathlib import Path


class DownloadError(OSError):
    """Something cannot be downloaded; the message says what, why, and the way out."""


class FileAbsentError(DownloadError):
    """The repository is there, and lacks a file."""


def download(
    name: str,
    files: Sequence[str],
    *,
    what: str,
    repo_type: str = "model",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
) -> Path:
    """Download files of one repository, all of the same commit, or find them in the cache.

    Args:
        name: the repository, ``"org/name"``.
        files: their paths in it.
        what: what the files make up, for messages: ``"a dsh_hf checkpoint"``.
        repo_type: ``"model"`` or ``"dataset"``.
        revision: branch, tag or commit; the main branch by default.
        token: access token; by default the one you are logged in with.
        cache_dir: where downloads are kept.
        local_files_only: never ask the network.

    Returns:
        The folder that the files lie in.

    Raises:
        FileAbsentError: the repository lacks one of the files.
        DownloadError: there is no such repository or revision, it is closed to you, or the Hub is not reached and
            the cache lacks them.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, HTTPError, RemoteEntryNotFoundError

    unreached = None

    def get(file: str, at: str | None) -> Path:
        return Path(
            hf_hub_download(
                name,
                file,
                repo_type=repo_type,
                revision=at,
                token=token,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                local_files_only=local_files_only or unreached is not None,
                library_name="dsh-hf",
            )
        )

    try:
        unreached = None if local_files_only else _why_unreached(name, files[0], repo_type, revision, token)
        folder = get(files[0], revision).parents[files[0].count("/")]
        for file in files[1:]:
            get(file, folder.name)  # the folder's name is the commit: nobody's push comes in between
    except (HTTPError, HFValidationError, OSError) as error:
        told = _told(error, name, files, what, repo_type, revision) or _told_of_the_network(
            error, unreached, local_files_only
        )
        absent = isinstance(error, RemoteEntryNotFoundError)
        raise (FileAbsentError if absent else DownloadError)(f"{name}{told}") from error
    return folder


def _told(
    error: Exception, name: str, files: Sequence[str], what: str, repo_type: str, revision: str | None
) -> str | None:
    """Say what is wrong with what was asked for; ``None`` where that is not it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    log_in = "log in with `hf auth login` or pass token="
    place, kind = ("datasets/", "data set") if repo_type == "dataset" else ("", "repository")
    page = f"{constants.ENDPOINT}/{place}{name}"
    messages = {
        HFValidationError: " is neither a folder nor a Hub id like org/name",
        RevisionNotFoundError: f" has no revision {revision!r} on the Hub: look at its branches and tags",
        GatedRepoError: f" is gated: accept its terms at {page}, then {log_in}",
        RepositoryNotFoundError: f": no such folder here, and no such {kind} on the Hub (or it is private: {log_in})",
        RemoteEntryNotFoundError: f" on the Hub is not {what}: it lacks {' or '.join(files)}",
    }
    return next((message for cause, message in messages.items() if isinstance(error, cause)), None)


def _told_of_the_network(error: Exception, unreached: Exception | None, local_files_only: bool) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        if local_files_only or constants.HF_HUB_OFFLINE:
            reason = "is not to be asked: leave out local_files_only=True and HF_HUB_OFFLINE once"
        else:
            cause = _in_one_line(unreached or error.__cause__ or error)
            reason = f"was not reached ({constants.ENDPOINT}: {cause}): check the name and the network"
        return f": no such folder here, it is not in the local cache, and the Hub {reason}"
    if isinstance(error, HfHubHTTPError):
        answered = error.response.status_code
        way_out = "log in anew with `hf auth login`, or pass another token=" if answered == 401 else "try again later"
        return f": the Hub answered {answered} ({_in_one_line(error.server_message or error)}): {way_out}"
    return f": the download failed ({_in_one_line(error)}): try again"  # a connection that broke, a full disk


def _why_unreached(
    name: str, file: str, repo_type: str, revision: str | None, token: str | bool | None
) -> Exception | None:
    """Ask the Hub, and give the error where no connection can be made.

    The client's own retries would take half a minute then, and six where a firewall swallows what is sent. Any
    other error is left to the download, which the client does retry.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    address = hf_hub_url(name, file, repo_type=repo_type, revision=revision)
    for _ in range(2):  # a connection kept open from before may break first
        try:
            get_hf_file_metadata(address, token=token, library_name="dsh-hf")
        except OfflineModeIsEnabled as error:
            return error
        except OSError:  # the Hub answered, if not with the file
            return None
        except HTTPError as error:
            if is_unreachable(error):
                return error
        else:
            return None
    return None


def is_unreachable(error: BaseException) -> bool:
    """Tell whether an error of the client says that no connection could be made."""
    # By the class's name: the client changed its HTTP library between versions that we take.
    return type(error).__name__ in ("ConnectError", "ConnectTimeout")


def _in_one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
