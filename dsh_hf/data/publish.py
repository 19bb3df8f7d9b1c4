"""A data set of one's own on the Hugging Face Hub: a card, the pictures as parquet, the proof that all arrived."""

import hashlib
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from dsh_hf.data.published import SKETCHY, TU_BERLIN, PublishedSet
from dsh_hf.data.spelling import spelling

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from huggingface_hub import DatasetCard, HfApi

logger = logging.getLogger(__name__)

_SKETCHY_NAME = re.compile(r"n\d{8}_\d+(-\d+)?")  # of its sketches, and of ImageNet's photographs
_EXTENDED_NAME = re.compile(r"ext_\d+")
_FOLDERS = {"tx_000000000000": SKETCHY, "EXTEND_image_sketchy": SKETCHY, "ImageResized": TU_BERLIN}
_TU_BERLIN_SIZE = (1111, 1111)
_NEARLY_ALL = 0.9  # of a published set's classes: then it is that set, whatever its files are called
_MOSTLY = 0.5  # of the set's own class names
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
_LICENCE = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")

_CARD = """\
---
license: {licence}
pretty_name: {title}
task_categories:
- image-feature-extraction
size_categories:
- {size}
tags:
- sketch
- sketch-based-image-retrieval
---

# {title}

{sketches:,} sketches and {images:,} images of {classes} classes, for sketch-based image retrieval.

The splits are `sketches` and `images`; the columns are `image`, `label` (the same classes in both) and `id`.

```python
from dsh_hf.data.sources import join_domains, open_source

data = join_domains(open_source("{repo}:sketches"), open_source("{repo}:images"))
```

To train a model that finds these images by drawing:

```
dsh-hf train --sketches {repo}:sketches --images {repo}:images --out runs/first
```

| class | sketches | images |
| --- | ---: | ---: |
{table}
"""


def refuse_published(data: "DatasetDict") -> None:
    """Refuse the pictures of Sketchy and TU-Berlin: they are not ours to publish.

    They are known by the loader that gave them, by their folders, by their files' names, by TU-Berlin's size of
    sketches, and by their classes.

    Args:
        data: ``sketches`` and ``images``.

    Raises:
        ValueError: they are among these pictures; the message says what gave them away.
    """
    for domain, part in data.items():
        evidence = _evidence(part)
        if evidence is not None:
            published, why = evidence
            raise ValueError(
                f"the {domain} are {published.title}'s ({why}), and not ours to publish: {published.terms}. "
                "Publish pictures of your own, and let others load that set from its authors"
            )


def dataset_card(data: "DatasetDict", repo_id: str, licence: str) -> str:
    """Write the card: licence, counts, classes, and how to load it.

    Args:
        data: ``sketches`` and ``images``.
        repo_id: where it will lie, ``org/name``.
        licence: the Hub's word for it, as ``cc-by-4.0``.

    Raises:
        ValueError: that is no such word.
    """
    if not _LICENCE.fullmatch(licence):
        raise ValueError(f"--licence {licence}: give the Hub's word for it, as cc-by-4.0, cc0-1.0 or other")
    names = data["images"].features["label"].names
    counts = {domain: Counter(_column(part, "label")) for domain, part in data.items()}
    rows = [
        f"| {name.replace('|', chr(92) + '|')} | {counts['sketches'][label]:,} | {counts['images'][label]:,} |"
        for label, name in enumerate(names)
    ]
    total = sum(map(len, data.values()))
    return _CARD.format(
        licence=licence,
        title=repo_id.partition("/")[2],
        size=next((words for most, words in _SIZES.items() if total < most), "n>1M"),
        sketches=len(data["sketches"]),
        images=len(data["images"]),
        classes=len(names),
        repo=repo_id,
        table="\n".join(rows),
    )


def send_dataset(data: "DatasetDict", repo_id: str, card: str, *, private: bool, token: str | None) -> str:
    """Send the card and the pictures as parquet; give the revision that both are at.

    The card goes first, so that the pictures are never there without their licence. Where one with this licence is
    there already, it goes last, so that what breaks off in between leaves no new card over old pictures; and where
    nothing else has changed, nothing is sent.

    Raises:
        ValueError: the repository is public where a private one was asked for, or the Hub refuses the card.
    """
    from huggingface_hub import DatasetCard, HfApi

    from dsh_hf.sending import create_repo, patiently

    api = HfApi(token=token)
    create_repo(api, repo_id, private=private, kind="dataset")
    new, old = DatasetCard(card), _card_on_the_hub(api, repo_id)
    if old is not None and old.data.get("pretty_name") != new.data.get("pretty_name"):
        logger.warning("%s has another card: it is replaced, and stays in the repository's history", repo_id)
    if old is None or old.data.get("license") != new.data.get("license"):
        _send_card(api, repo_id, new, old)
    commit = patiently(lambda: _alike(data).push_to_hub(repo_id, token=token, commit_message="Sketches and images"))
    sent = _card_on_the_hub(api, repo_id)
    changed = sent is None or sent.text.strip() != new.text.strip()
    return _send_card(api, repo_id, new, sent) if changed else str(commit.oid)


def verify_dataset(data: "DatasetDict", repo_id: str, revision: str, token: str | None) -> None:
    """Read all of it back, as a stream, and compare ids, classes and the bytes of the pictures.

    Raises:
        RuntimeError: what lies on the Hub is not what was sent; the message names the first row that differs.
    """
    from datasets import load_dataset

    for domain, part in data.items():
        there = load_dataset(repo_id, split=domain, revision=revision, streaming=True, token=token)
        there = there.decode(False)
        names = [dataset.features["label"].names for dataset in (part, there)]
        pairs = zip_longest(_rows(_undecoded(part), names[0]), _rows(there, names[1]))
        for row, (sent, found) in enumerate(pairs):
            if sent != found:
                raise RuntimeError(
                    f"{repo_id} at {revision} is not what was sent: the {domain} differ in row {row:,} of {len(part):,}"
                )


def _card_on_the_hub(api: "HfApi", repo_id: str) -> "DatasetCard | None":
    from huggingface_hub import DatasetCard
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from dsh_hf.sending import patiently

    with tempfile.TemporaryDirectory() as cache:
        try:
            path = patiently(lambda: api.hf_hub_download(repo_id, "README.md", repo_type="dataset", cache_dir=cache))
        except RemoteEntryNotFoundError:
            return None
        return DatasetCard.load(path)


def _send_card(api: "HfApi", repo_id: str, new: "DatasetCard", old: "DatasetCard | None") -> str:
    """Send a card, with what ``datasets`` has written of the parquet files into the old one; give the revision."""
    from dsh_hf.sending import patiently

    kept = {key: old.data.get(key) for key in ("configs", "dataset_info") if old is not None and old.data.get(key)}
    for key, value in kept.items():
        new.data[key] = value
    commit = patiently(
        lambda: api.upload_file(
            path_or_fileobj=str(new).encode(),
            path_in_repo="README.md",
            repo_id=repo_id,
            repo_type="dataset",
            commit_message="Card",
        )
    )
    return str(commit.oid)


def _evidence(part: "Dataset") -> tuple[PublishedSet, str] | None:
    known = {"sketchy": SKETCHY, "tu-berlin": TU_BERLIN}
    if part.info.dataset_name in known:
        return known[part.info.dataset_name], "as its loader says"
    names = part.features["label"].names
    for published in (SKETCHY, TU_BERLIN):
        there = {spelling(name) for name in names}
        if sum(spelling(name) in there for name in published.classes) >= _NEARLY_ALL * len(published.classes):
            return published, "these are its classes"
    sketchy_like, tu_berlin_like = (published.share_of(names) > _MOSTLY for published in (SKETCHY, TU_BERLIN))
    for row in _undecoded(part):
        path = str(row["image"]["path"] or "")
        for folder, published in _FOLDERS.items():
            if folder in path:
                return published, f"{path} is in its folder {folder}"
        for name in (os.path.basename(path), row["id"].rpartition("/")[2]):
            stem = os.path.splitext(name)[0]
            if _SKETCHY_NAME.fullmatch(stem) or (sketchy_like and _EXTENDED_NAME.fullmatch(stem)):
                return SKETCHY, f"{row['id']} is named as its files are"
            if tu_berlin_like and stem.isdecimal() and _size(row["image"]) == _TU_BERLIN_SIZE:
                return TU_BERLIN, f"{row['id']} has the name and the size of its sketches"
    return None


def _size(picture: dict[str, Any]) -> tuple[int, int]:
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(picture["bytes"]) if picture["bytes"] else picture["path"]) as opened:
        return opened.size


def _alike(data: "DatasetDict") -> "DatasetDict":
    """Give both domains the same columns, as parquet in one repository has to have them."""
    from datasets import DatasetDict, Value

    columns = {column for part in data.values() for column in part.column_names}
    order = [column for column in ("image", "label", "id", "photo_id") if column in columns]
    alike = {}
    for domain, part in data.items():
        if "photo_id" in columns and "photo_id" not in part.column_names:
            part = part.add_column("photo_id", [None] * len(part), feature=Value("string"))
        alike[domain] = part.select_columns(order)
    return DatasetDict(alike)


def _undecoded(part: "Dataset") -> Iterable[dict[str, Any]]:
    from datasets import Image

    rows: Iterable[dict[str, Any]] = part.cast_column("image", Image(decode=False))
    return rows


def _rows(rows: Iterable[dict[str, Any]], names: list[str]) -> Iterator[tuple[str, str, bytes]]:
    """Give each row's id, its class, and what tells the picture's bytes apart."""
    for row in rows:
        content = row["image"]["bytes"]
        if content is None:
            with open(row["image"]["path"], "rb") as file:
                content = file.read()
        yield row["id"], names[row["label"]], hashlib.blake2b(content, digest_size=16).digest()


def _column(part: "Dataset", column: str) -> list[Any]:
    return list(part.select_columns([column])[:][column])
