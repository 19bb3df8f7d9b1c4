"""A gallery on the Hugging Face Hub: sent with a card and without this machine's paths, and fetched again."""

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsh_hf.gallery.files import MANIFEST_NAME, is_url, read_manifest, without_password
from dsh_hf.gallery.items import Item, RetrieverError
from dsh_hf.gallery.store import Gallery
from dsh_hf.hub import DownloadError, download
from dsh_hf.sending import check_arrived, create_repo, patiently, without_place

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

_TEMPLATE = Path(__file__).with_name("card_template.md")
_TAGS = ["dsh-hf", "sketch-based-image-retrieval", "hashing", "image-retrieval"]


def push_gallery(
    gallery: Gallery,
    repo_id: str,
    model_id: str | None,
    private: bool,
    token: str | None,
    revision: str | None,
    create_pr: bool,
) -> str:
    """Send a gallery in one commit; arguments as of ``SketchRetriever.push_to_hub``.

    Returns:
        The address of the commit or pull request.

    Raises:
        RuntimeError: what lies on the Hub then is not what was sent.
    """
    from huggingface_hub import HfApi

    if gallery.on_server:
        raise RetrieverError(
            f"the codes of this gallery lie on {gallery.engine}, not here: push a gallery of an engine in this "
            "process, such as exact"
        )
    if create_pr and revision:
        raise ValueError("a pull request is opened against main: leave out revision or create_pr")
    api = HfApi(token=token, library_name="dsh-hf")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _export(gallery, folder, repo_id, model_id)
        create_repo(api, repo_id, private=private, kind="dataset")
        if revision:
            patiently(lambda: api.create_branch(repo_id, repo_type="dataset", branch=revision, exist_ok=True))

        def upload() -> "CommitInfo":
            return api.upload_folder(
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=folder,
                commit_message=f"Upload a gallery of {len(gallery.items)} pictures",
                revision=revision,
                create_pr=create_pr,
            )

        commit = upload() if create_pr else patiently(upload)  # twice would open two pull requests
        check_arrived(api, repo_id, commit.pr_revision or commit.oid, folder, sorted(folder.iterdir()), "dataset")
    return commit.pr_url or commit.commit_url


def download_gallery(
    id_or_path: str | os.PathLike,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | os.PathLike | None,
    local_files_only: bool,
) -> Path:
    """Find a gallery's folder, downloading its files from the Hub where need be.

    Raises:
        RetrieverError: no such folder or repository, it holds no gallery, or it cannot be had.
    """
    name = os.fspath(id_or_path)
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise RetrieverError(f"{name}: no such folder; give a gallery's folder or a Hub id like org/name")
    about: dict[str, Any] = {"what": "a dsh_hf gallery", "repo_type": "dataset"}
    about |= {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    try:
        folder = download(name, [MANIFEST_NAME], revision=revision, **about)
        manifest, _ = read_manifest(folder)
        if is_url(manifest["engine"]):
            raise RetrieverError(
                f"{name} names a server for its codes, {without_password(manifest['engine'])}: such a gallery is "
                "no complete one, and no connection is made to what a download names"
            )
        # Of the same commit, whatever is pushed meanwhile.
        return download(name, [manifest["index"], manifest["items"]], revision=folder.name, **about)
    except DownloadError as error:
        raise RetrieverError(str(error)) from error


def _export(gallery: Gallery, folder: Path, repo_id: str, model_id: str | None) -> None:
    """Write what is sent: files of fixed names, and nothing of this machine in them."""
    inside = any(item.stamp is not None for item in list(gallery.items.values()))
    gallery.write(folder, {"folder": None, "skipped": {}}, _without_place)
    manifest, _ = read_manifest(folder)
    (folder / "README.md").write_text(_card(manifest, inside, repo_id, model_id), encoding="utf-8")


def _without_place(key: str, item: Item) -> Item:
    """Keep addresses and relative paths; of a place on this machine what is inside the folder, or the file's name."""
    source = key if item.stamp is not None else item.source
    return item._replace(source=None if source is None else without_place(source), stamp=None)


def _card(manifest: dict[str, Any], inside: bool, repo_id: str, model_id: str | None) -> str:
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCardData(
        tags=list(_TAGS),
        configs=[{"config_name": "default", "data_files": manifest["items"]}],
    )
    card = DatasetCard.from_template(
        data,
        template_str=_TEMPLATE.read_text(encoding="utf-8"),
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        model_id=model_id,
        inside=inside,
        **{key: manifest[key] for key in ("pictures", "bits", "fingerprint", "engine", "keep_outputs", "metadata")},
    )
    return str(card)
