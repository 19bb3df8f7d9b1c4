"""A checkpoint on the Hugging Face Hub: checked before it leaves, sent in one commit, read back and compared."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dsh_hf.model_card import EVALUATION_NAME, check_card, check_probes, probe_codes, read_record
from dsh_hf.sending import create_repo, patiently

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

    from dsh_hf.modeling import DSHModel


def check_checkpoint(folder: Path, repo_id: str) -> "DSHModel":
    """Open the model and check that card, evaluation and probes are there and of this very model.

    Raises:
        OSError: a file is missing or damaged.
        ValueError: a file belongs to another model.
    """
    from dsh_hf.modeling import DSHModel

    evaluation = read_record(folder / EVALUATION_NAME, ["fingerprint"])
    model = DSHModel.from_pretrained(folder)
    if evaluation["fingerprint"] != model.fingerprint:
        raise ValueError(
            f"{folder / EVALUATION_NAME} is of a model with the fingerprint {evaluation['fingerprint']}, the "
            f"weights here have {model.fingerprint}: evaluate these weights and write the card anew"
        )
    check_card(folder, repo_id)
    check_probes(model, folder, tolerance_bits=1)  # another processor rounds sums otherwise
    return model


def prepare_repo(api: "HfApi", repo_id: str, *, private: bool, branch: str | None) -> None:
    """Create repository and branch where they are missing.

    Args:
        api: the Hub's client.
        repo_id: ``"org/name"``.
        private: whether the repository has to be a private one.
        branch: the branch to send to, or a pull request that is open, ``"refs/pr/1"``; by default main.

    Raises:
        ValueError: the repository is public where a private one was asked for.
    """
    create_repo(api, repo_id, private=private)
    if branch and not branch.startswith("refs/"):
        patiently(lambda: api.create_branch(repo_id, branch=branch, exist_ok=True))


def stale_files(api: "HfApi", repo_id: str, folder: Path, branch: str | None) -> list[str]:
    """List what is on the Hub and not in the folder."""
    there = patiently(lambda: api.list_repo_files(repo_id, revision=branch))
    return sorted(name for name in there if name != ".gitattributes" and not (folder / name).is_file())


def send_checkpoint(api: "HfApi", folder: Path, repo_id: str, *, branch: str | None, create_pr: bool) -> "CommitInfo":
    """Send the folder in one commit; where nothing has changed there is none, and the latest one is given.

    Raises:
        ValueError: the Hub refuses the card.
    """

    def upload() -> "CommitInfo":
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=f"Upload {folder.resolve().name}",
            revision=branch,
            create_pr=create_pr,
        )

    return upload() if create_pr else patiently(upload)  # twice would open two pull requests


def verify_checkpoint(api: "HfApi", repo_id: str, revision: str, sent: "DSHModel") -> None:
    """Download into an empty cache and compare the codes of the probe pictures.

    Raises:
        RuntimeError: what lies on the Hub is another model, or makes other codes.
    """
    from dsh_hf.modeling import DSHModel

    with tempfile.TemporaryDirectory() as cache:
        folder = patiently(lambda: api.snapshot_download(repo_id, revision=revision, cache_dir=cache))
        there = DSHModel.from_pretrained(folder)
    codes, expected = probe_codes(there), probe_codes(sent)
    same = all((codes[kind] == expected[kind]).all() for kind in expected)
    if there.fingerprint != sent.fingerprint or not same:
        raise RuntimeError(
            f"{repo_id} at {revision} is not what was sent: its fingerprint is {there.fingerprint}, not "
            f"{sent.fingerprint}; look at its latest commits"
        )
