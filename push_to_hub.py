"""Send a checkpoint to the Hugging Face Hub, and prove that what lies there makes the same codes.

    python push_to_hub.py --checkpoint model_card/dsh-sketchy-subset --repo org/name

Or send sketches and images of your own as a data set, read back picture by picture:

    python push_to_hub.py --sketches drawings --images photos --licence cc-by-4.0 --repo org/name

A checkpoint's folder is checked first, down to the figures in its card being those of its weights; ``--dry-run`` stops
there. ``--space org/demo`` also sends the demo, to open this checkpoint. Whatever fails, the same command may be
repeated: what is there already is not sent again. Exit codes: 0 done, 1 the Hub refused or what it holds is not what
was sent, 2 the input is at fault, 130 interrupted.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import validate_repo_id

from dsh_hf.publishing import (
    check_checkpoint,
    contents_to_send,
    left_out,
    prepare_repo,
    send_checkpoint,
    stale_files,
    verify_checkpoint,
)
from dsh_hf.sending import reason_of
from dsh_hf.space import build_space, send_space

if TYPE_CHECKING:
    from dsh_hf import DSHModel

DEMO = Path(__file__).parent / "demo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    args = _parser().parse_args(arguments)
    if args.sketches or args.images:
        return publish_data(args)
    with ExitStack() as temporary:
        space = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="space-"))) if args.space else None
        try:
            _check_arguments(args)
            model = check_checkpoint(args.checkpoint)
            contents = contents_to_send(args.checkpoint, args.repo)
            space_files = build_space(DEMO, space, args.repo) if space else []
        except (ValueError, OSError) as error:
            return _fail(2, error)
        print(f"{args.checkpoint} -> {args.repo}, codes of {model.config.bits} bits, {model.fingerprint[:16]}...")
        print_contents(contents)
        for note in left_out(args.checkpoint):
            print(f"note: {note}")
        if space:
            print(f"{DEMO.name} -> {args.space}, a Space that opens {args.repo}")
            print_contents({path.relative_to(space).as_posix(): path for path in space_files})
        if args.dry_run:
            print("dry run: all checks passed, nothing was sent")
            return 0
        return publish(args, model, contents) or (publish_space(args, space) if space else 0)


def publish(args: argparse.Namespace, model: "DSHModel", contents: Mapping[str, Path | bytes]) -> int:
    """Send the checkpoint, read it back, and say how it went; give the exit code."""
    api = HfApi(token=args.token)

    def send() -> str:
        prepare_repo(api, args.repo, private=args.private, branch=args.revision)
        if stale := stale_files(api, args.repo, contents, args.revision):
            print(f"note: on the Hub, not in {args.checkpoint}, and left as they are: {', '.join(stale)}")
        commit = send_checkpoint(api, contents, args.repo, branch=args.revision, create_pr=args.create_pr)
        print(f"on the Hub: {commit.pr_url or commit.commit_url}")
        return commit.pr_revision or commit.oid

    def verify(revision: str) -> None:
        verify_checkpoint(api, args.repo, revision, model)

    return _deliver(args, send, verify, "makes the same codes")


def publish_data(args: argparse.Namespace) -> int:
    """Check sketches and images of one's own, send them, read them back, and say how it went; give the exit code."""
    from dsh_hf.data.publish import dataset_card, refuse_published, send_dataset, verify_dataset
    from dsh_hf.data.sources import join_domains, open_source

    try:
        _check_data_arguments(args)
        data = join_domains(open_source(args.sketches), open_source(args.images))
        refuse_published(data)
        card = dataset_card(data, args.repo, args.licence)
    except (ValueError, OSError) as error:
        return _fail(2, error)
    counts = ", ".join(f"{len(part):,} {domain}" for domain, part in data.items())
    print(f"{counts} of {len(data['images'].features['label'].names)} classes, {args.licence} -> {args.repo}")
    if args.dry_run:
        print(f"{card}\ndry run: all checks passed, nothing was sent")
        return 0
    return _deliver(
        args,
        lambda: send_dataset(data, args.repo, card, private=args.private, token=args.token),
        lambda revision: verify_dataset(data, args.repo, revision, args.token),
        "has the same pictures",
    )


def publish_space(args: argparse.Namespace, space: Path) -> int:
    """Send the Space, and say how it went; give the exit code."""
    try:
        address = send_space(HfApi(token=args.token), space, args.space, args.repo, private=args.private)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        told = f"{args.repo} is published, the Space {args.space} is not: {reason_of(error)}"
        if getattr(getattr(error, "response", None), "status_code", None) == 402:
            told += " (the Hub asks for a subscription, or for a Space made by hand on its pages)"
        return _fail(1, f"{told}; once that is settled, repeat the same command: only the Space will be sent")
    print(f"sent and compared: {address}")
    if args.private:
        print("the checkpoint is private: give the Space a secret HF_TOKEN that may read it, in its settings")
    return 0


def _check_arguments(args: argparse.Namespace) -> None:
    for option, name in (("--repo", args.repo), ("--space", args.space)):
        if name is not None:
            validate_repo_id(name)
            if "/" not in name:
                raise ValueError(f"{option} {name}: give the namespace too, like org/{name}")
    if not (args.checkpoint or args.sketches):
        raise ValueError("name what to send: --checkpoint, or --sketches and --images with --licence")
    if args.create_pr and args.revision:
        raise ValueError("a pull request is opened against main: leave out --revision or --create-pr")
    if args.space and (args.create_pr or args.revision):
        raise ValueError("a Space opens what is on main: leave out --space, or --revision and --create-pr")


def _check_data_arguments(args: argparse.Namespace) -> None:
    if args.checkpoint or args.space or args.revision or args.create_pr:
        raise ValueError("--checkpoint, --space, --revision and --create-pr are for models: send the data set apart")
    if not (args.sketches and args.images and args.licence):
        raise ValueError("a data set needs all of --sketches, --images and --licence (as cc-by-4.0)")
    _check_arguments(args)


def _deliver(args: argparse.Namespace, send: Callable[[], str], verify: Callable[[str], None], told: str) -> int:
    """Send, verify what lies at the revision that sending gave, and say how it went; give the exit code."""
    revision = None
    try:
        revision = send()
        verify(revision)
    except HTTPError as error:  # of the HTTP library that the client uses; the Hub's own errors derive from it
        return _fail(1, f"{constants.ENDPOINT}: {reason_of(error)}; {_way_on(args, revision)}")
    except ValueError as error:
        return _fail(2, error)
    except (OSError, RuntimeError) as error:
        return _fail(1, f"{error}; {_way_on(args, revision)}")
    except KeyboardInterrupt:
        return _fail(130, f"interrupted; {_way_on(args, revision)}")
    print(f"verified: {args.repo} at {revision} {told}")
    return 0


def print_contents(contents: Mapping[str, Path | bytes]) -> None:
    """Print what will be sent, with sizes in bytes."""
    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in contents.items()
    }
    for name, size in sizes.items():
        print(f"{size:>12,}  {name}")
    print(f"{sum(sizes.values()):>12,}  bytes in {len(sizes)} files")


def _way_on(args: argparse.Namespace, revision: str | None) -> str:
    """Say what state the repository is in after a failure, and what to do."""
    if revision:
        return (
            f"sent to {args.repo} at {revision}: repeat the same command, which sends what is missing and verifies it"
        )
    check = "check the name, the network and the token (--token)"
    if args.sketches:
        return f"{check}; card and pictures go one after the other: repeat the same command, which sends the rest"
    if args.create_pr:
        return (
            f"{check}; main is as it was; a pull request may be open: if one is listed at {constants.ENDPOINT}/"
            f"{args.repo}/discussions, repeat with --revision refs/pr/NUMBER in place of --create-pr"
        )
    return f"{check}; all files go in one commit, so {args.repo} is as it was, or whole: repeat the same command"


def _fail(code: int, error: Exception | str) -> int:
    print(f"push_to_hub.py: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Send a checkpoint or a data set to the Hugging Face Hub and verify it."
    )
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--sketches", metavar="SOURCE", help="of a data set of your own; goes with --images")
    parser.add_argument("--images", metavar="SOURCE", help="of the same data set")
    parser.add_argument("--licence", metavar="WORD", help="of the data set, in the Hub's word for it: cc-by-4.0, ...")
    parser.add_argument("--repo", required=True, help="where to: org/name; created if need be")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to send to; created if need be")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of changing main")
    parser.add_argument(
        "--space", metavar="ORG/NAME", help="send the demo as well, as a Space that opens the checkpoint"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, send nothing")
    parser.add_argument("--token", help="access token; by default the one of `hf auth login` or HF_TOKEN")
    return parser


if __name__ == "__main__":
    sys.exit(main())
