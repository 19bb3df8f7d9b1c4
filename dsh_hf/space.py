"""The demo as a Space on the Hugging Face Hub: its own files, this library, and the checkpoint it opens."""

import shutil
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dsh_hf.sending import check_arrived, create_repo, files_to_send, patiently

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CHECKPOINT_VARIABLE = "DSH_CHECKPOINT"
_NAME = "dsh-hf"
_SUFFIXES = {".c", ".css", ".js", ".json", ".md", ".parquet", ".png", ".py", ".safetensors", ".txt"}


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
            delete_patterns=["dsh_hf/*", "openmoji-codes/*"],  # modules and codes of an earlier version
        )
    )
    check_arrived(api, space_id, commit.oid, space, files_to_send(space, _SUFFIXES), "space")
    return f"{api.endpoint}/spaces/{space_id}"


def _requirements() -> list[str]:
    """Give what the library and its demo need, without the library: that lies beside the demo."""
    extras = ["demo"]
    lines: dict[str, None] = {}  # a set that keeps its order
    for extra in extras:
        for one in _declared(Path(__file__).parents[1] / "pyproject.toml", extra):
            if canonicalize_name(one.name) == _NAME:  # one extra that asks for another
                extras += sorted(one.extras.difference(extras))
            else:
                lines[f"{one.name}{one.specifier}"] = None
    return list(lines)


def _declared(project: Path, extra: str) -> list[Requirement]:
    """Give what the library needs with an extra: by a clone's ``pyproject.toml``, elsewhere by what was installed.

    In a clone the installed metadata are those of the day it was installed.
    """
    about = tomllib.loads(project.read_text(encoding="utf-8"))["project"] if project.is_file() else {}
    if about.get("name") == _NAME:
        needed = [Requirement(line) for line in about["dependencies"] + about["optional-dependencies"][extra]]
    else:
        try:
            needed = [Requirement(line) for line in requires(_NAME) or []]
        except PackageNotFoundError as error:
            raise ValueError("dsh_hf is not installed, so what it needs is not known: pip install -e .") from error
    return [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]
