"""A checkpoint on the Hugging Face Hub: checked before it leaves, sent in one commit, read back and compared."""

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dsh_hf.model_card import (
    CARD_NAME,
    CONFIG_NAME,
    CURVE_NAME,
    EVALUATION_NAME,
    PROBES_NAME,
    SHEET_NAME,
    TRAINING_NAME,
    WEIGHTS_NAME,
    check_card,
    check_probes,
    probe_codes,
    read_record,
    render_card,
)
from dsh_hf.sending import CHECKPOINT_SUFFIXES, check_places, create_repo, files_to_send, patiently

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

    from dsh_hf.modeling import DSHModel


_EVALUATE = "dsh-hf evaluate CHECKPOINT, with the data"
_NEEDED = {  # what a checkpoint has to have, and what writes it
    EVALUATION_NAME: _EVALUATE,
    TRAINING_NAME: "dsh-hf train; for weights from elsewhere write their data and its terms down by hand",
    PROBES_NAME: _EVALUATE,
    CARD_NAME: _EVALUATE,
}


def check_checkpoint(folder: Path) -> "DSHModel":
    """Open the model and check that all is there, of this very model, and tells nothing of this machine.

    Raises:
        OSError: a file is missing or damaged.
        ValueError: a file should not leave, or belongs to another model.
    """
    from dsh_hf.modeling import DSHModel

    files = files_to_send(folder, CHECKPOINT_SUFFIXES)
    missing = [f"{name} (by {command})" for name, command in _NEEDED.items() if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: a checkpoint to publish needs {', '.join(missing)}")
    evaluation = read_record(folder / EVALUATION_NAME, ["fingerprint"])
    model = DSHModel.from_pretrained(folder)
    if evaluation["fingerprint"] != model.fingerprint:
        raise ValueError(
            f"{folder / EVALUATION_NAME} is of a model with the fingerprint {evaluation['fingerprint']}, the "
            f"weights here have {model.fingerprint}: evaluate these weights and write the card anew"
        )
    check_places(files)
    check_card(folder)
    check_probes(model, folder, tolerance_bits=1)  # another processor rounds sums otherwise
    return model


def left_out(folder: Path) -> list[str]:
    """List what the card would show if it were there, each with the command that makes it."""
    wanted = {
        "the precision-recall curve": ((folder / CURVE_NAME).is_file(), _EVALUATE),
        "the speed": ("speed" in read_record(folder / EVALUATION_NAME, []), _EVALUATE),
        "a sheet of results": (
            (folder / SHEET_NAME).is_file(),
            "python -m benchmarks sheet --quickdraw DIR --checkpoint CHECKPOINT, then evaluate",
        ),
    }
    return [f"the card is without {what}: {command}" for what, (there, command) in wanted.items() if not there]


def contents_to_send(folder: Path, repo_id: str) -> dict[str, Path | bytes]:
    """Give what lies on the Hub under which name: the folder's files, and the card under the repository's name.

    Raises:
        OSError: there is no such folder, or a file that the card is made from is missing.
        ValueError: a file should not leave, or the card cannot be made.
    """
    files = files_to_send(folder, CHECKPOINT_SUFFIXES)
    contents: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in files}
    return contents | {CARD_NAME: render_card(folder, repo_id).encode()}


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


def stale_files(api: "HfApi", repo_id: str, names: Collection[str], branch: str | None) -> list[str]:
    """List what is on the Hub and not among these names."""
    there = patiently(lambda: api.list_repo_files(repo_id, revision=branch))
    return sorted(set(there).difference(names, [".gitattributes"]))


def send_checkpoint(
    api: "HfApi", contents: Mapping[str, Path | bytes], repo_id: str, *, branch: str | None, create_pr: bool
) -> "CommitInfo":
    """Send files in one commit; where nothing has changed there is none, and the latest one is given.

    Raises:
        ValueError: the Hub refuses the card.
    """
    from huggingface_hub import CommitOperationAdd

    def upload() -> "CommitInfo":
        return api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=f"Upload {repo_id.rpartition('/')[2]}",
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


def names_to_push(repo_id: str, branch: str | None, token: str | bool | None) -> list[str] | None:
    """Give what ``DSHModel.push_to_hub`` may send: weights and config alone where a card is; ``None`` for all.

    Raises:
        ValueError: the repository is a published checkpoint, whose card and probes would be of other weights then.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        there = patiently(lambda: HfApi(token=token).list_repo_files(repo_id, revision=branch))
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None
    figures = sorted({EVALUATION_NAME, PROBES_NAME}.intersection(there))
    if figures:
        raise ValueError(
            f"{repo_id} holds {' and '.join(figures)}, which new weights alone would make wrong: save the model, "
            "evaluate it, and send all with push_to_hub.py"
        )
    return [CONFIG_NAME, WEIGHTS_NAME] if CARD_NAME in there else None
