"""The demo as a Space on the Hugging Face Hub: its own files, this library, and the checkpoint it opens."""

import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from dsh_hf.sending import create_repo, files_to_send, patiently

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CHECKPOINT_VARIABLE = "DSH_CHECKPOINT"
_SUFFIXES = {".c", ".css", ".js", ".json", ".md", ".png", ".py", ".safetensors", ".txt"}


def build_space(demo: Path, space: Path, model_id: str) -> list[Path]:
    """Lay out in ``space`` what the Space will hold: the demo, this very version of the library beside it.

    Args:
        demo: the demo's folder; its ``README.md`` says ``sdk: gradio``.
        space: an empty folder.
        model_id: the checkpoint's name on the Hub, for the link on the Space's page.

    Returns:
        The files.

    Raises:
        OSError: the demo lacks a file.
        ValueError: a file in the demo should not leave, or its card is not that of a Gradio Space.
    """
    from huggingface_hub import SpaceCard

    library = Path(__file__).parent
    for source, target in ((demo, space), (library, space / library.name)):
        for path in files_to_send(source, _SUFFIXES):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    card = SpaceCard.load(space / "README.md")
    if card.data.get("sdk") != "gradio" or not (space / card.data.get("app_file", "app.py")).is_file():
        raise ValueError(f"{demo / 'README.md'}: a Space needs sdk: gradio, and the file that app_file names")
    card.data["models"] = [model_id]
    card.save(space / "README.md")
    (space / "requirements.txt").write_text("\n".join(_requirements()) + "\n")
    return files_to_send(space, _SUFFIXES)


def send_space(api: "HfApi", space: Path, space_id: str, model_id: str, *, private: bool) -> str:
    """Send a folder that :func:`build_space` made, and read it back.

    Returns:
        The address of the Space.

    Raises:
        RuntimeError: what lies there is not what was sent.
    """
    create_repo(api, space_id, private=private, kind="space")
    patiently(lambda: api.add_space_variable(space_id, CHECKPOINT_VARIABLE, model_id))
    commit = patiently(
        lambda: api.upload_folder(
            repo_id=space_id,
            repo_type="space",
            folder_path=space,
            commit_message=f"The demo, with {model_id}",
            delete_patterns="dsh_hf/*",  # modules of an earlier version
        )
    )
    with tempfile.TemporaryDirectory() as cache:
        there = patiently(
            lambda: api.snapshot_download(space_id, repo_type="space", revision=commit.oid, cache_dir=cache)
        )
        for path in files_to_send(space, _SUFFIXES):
            copy = Path(there) / path.relative_to(space)
            if not copy.is_file() or copy.read_bytes() != path.read_bytes():
                raise RuntimeError(f"{space_id}: {path.relative_to(space)} is not there as it was sent: send it again")
    return f"{api.endpoint}/spaces/{space_id}"


def _requirements() -> list[str]:
    """Give what the library and its demo need, without the library: that lies beside the demo."""
    try:
        needed = [Requirement(line) for line in requires("dsh-hf") or []]
    except PackageNotFoundError as error:
        raise ValueError("dsh_hf is not installed, so what it needs is not known: pip install -e .") from error
    chosen = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": "demo"})]
    return [f"{one.name}{one.specifier}" for one in chosen]
