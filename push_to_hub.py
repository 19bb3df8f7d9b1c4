"""Send a checkpoint to the Hugging Face Hub, and prove that what lies there makes the same codes.

    python push_to_hub.py --checkpoint model_card/dsh-sketchy-subset --repo org/name

The folder is checked first, down to the figures in its card being those of its weights; ``--dry-run`` stops
there. Exit codes: 0 done, 1 the Hub refused or what it holds is not what was sent, 2 the input is at fault.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import validate_repo_id

from dsh_hf.model_card import EVALUATION_NAME, check_card, check_probes, probe_codes, read_record

if TYPE_CHECKING:
    from dsh_hf import DSHModel

SUFFIXES = {".json", ".md", ".png", ".safetensors", ".txt"}
NAMES = {"LICENSE"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    args = _parser().parse_args(arguments)
    try:
        _check_arguments(args)
        files = files_to_send(args.checkpoint)
        model = check_checkpoint(args.checkpoint, args.repo)
    except (ValueError, OSError) as error:
        return _fail(2, error)
    print(f"{args.checkpoint} -> {args.repo}, codes of {model.config.bits} bits, {model.fingerprint[:16]}...")
    for path in files:
        print(f"{path.stat().st_size:>12,}  {path.relative_to(args.checkpoint)}")
    print(f"{sum(path.stat().st_size for path in files):>12,}  bytes in {len(files)} files")
    if args.repo not in check_card(args.checkpoint, args.repo):
        print(f"note: the card's snippet does not name {args.repo}; write_card(folder, repo_id=...) would")
    if args.dry_run:
        print("dry run: all checks passed, nothing was sent")
        return 0
    try:
        revision = send(args)
        verify(args.repo, revision, model, args.token)
    except ValueError as error:
        return _fail(2, error)
    except HTTPError as error:  # of the HTTP library that the client uses; the Hub's own errors derive from it
        reason = getattr(error, "server_message", None) or error
        return _fail(1, f"{constants.ENDPOINT}: {reason}; check the name, the network and the token (--token)")
    except (OSError, RuntimeError) as error:
        return _fail(1, error)
    print(f"verified: {args.repo} at {revision} makes the same codes")
    return 0


def files_to_send(folder: Path) -> list[Path]:
    """List the files of a checkpoint folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: something in it should not leave: hidden, a link, or of a kind no checkpoint has.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the folder of a checkpoint")
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a link, which may lead out of the folder: put the file itself there")
        if path.name.startswith("."):
            raise ValueError(f"{path} is hidden: remove it, or send a folder without it")
        if path.is_dir():
            continue
        if path.suffix.lower() not in SUFFIXES and path.name not in NAMES:
            kinds = ", ".join([*sorted(SUFFIXES), *NAMES])
            raise ValueError(f"{path} does not belong to a checkpoint ({kinds} do): remove it")
        files.append(path)
    return files


def check_checkpoint(folder: Path, repo_id: str) -> "DSHModel":
    """Open the model and check that card, evaluation and probes are there and of this very model.

    Raises:
        OSError: a file is missing or damaged.
        ValueError: a file belongs to another model.
    """
    from dsh_hf import DSHModel

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


def send(args: argparse.Namespace) -> str:
    """Send the folder in one commit; give the revision it is at.

    Raises:
        ValueError: the repository is public where a private one was asked for, or the Hub refuses the card.
    """
    api = HfApi(token=args.token)
    api.create_repo(args.repo, private=args.private or None, exist_ok=True)
    if args.private and not api.repo_info(args.repo).private:
        raise ValueError(f"{args.repo} exists and is public: make it private on its page, or leave out --private")
    if args.revision:
        api.create_branch(args.repo, branch=args.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=args.repo,
        folder_path=args.checkpoint,
        commit_message=f"Upload {args.checkpoint.resolve().name}",
        revision=args.revision,
        create_pr=args.create_pr,
    )
    print(f"on the Hub: {commit.pr_url or commit.commit_url}")
    return commit.pr_revision or commit.oid


def verify(repo: str, revision: str, sent: "DSHModel", token: str | None) -> None:
    """Download into an empty cache and compare the codes of the probe pictures.

    Raises:
        RuntimeError: what lies on the Hub is another model, or makes other codes.
    """
    from dsh_hf import DSHModel

    with tempfile.TemporaryDirectory() as cache:
        folder = HfApi(token=token).snapshot_download(repo, revision=revision, cache_dir=cache)
        there = DSHModel.from_pretrained(folder)
    codes, expected = probe_codes(there), probe_codes(sent)
    same = all((codes[kind] == expected[kind]).all() for kind in expected)
    if there.fingerprint != sent.fingerprint or not same:
        raise RuntimeError(
            f"{repo} at {revision} is not what was sent: its fingerprint is {there.fingerprint}, not "
            f"{sent.fingerprint}; look at its latest commits, and send again"
        )


def _check_arguments(args: argparse.Namespace) -> None:
    validate_repo_id(args.repo)
    if "/" not in args.repo:
        raise ValueError(f"--repo {args.repo}: give the namespace too, like org/{args.repo}")
    if args.create_pr and args.revision:
        raise ValueError("a pull request is opened against main: leave out --revision or --create-pr")


def _fail(code: int, error: Exception | str) -> int:
    print(f"push_to_hub.py: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Send a checkpoint to the Hugging Face Hub and verify it there.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--repo", required=True, help="where to: org/name; created if need be")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to send to; created if need be")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of changing main")
    parser.add_argument("--dry-run", action="store_true", help="check everything, send nothing")
    parser.add_argument("--token", help="access token; by default the one of `hf auth login` or HF_TOKEN")
    return parser


if __name__ == "__main__":
    sys.exit(main())
