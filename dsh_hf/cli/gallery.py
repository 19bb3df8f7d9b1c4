"""``dsh-hf index`` and ``dsh-hf search``."""

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsh_hf.cli.data_options import SOURCES
from dsh_hf.cli.options import add_backend, add_checkpoint, add_command, add_device, checked_device, opened_again

if TYPE_CHECKING:
    from dsh_hf import SketchRetriever


def add_to(commands: Any) -> None:
    """Add the commands of this module."""
    sub = add_command(commands, index, "dsh-hf index photos --out photos.gallery")
    sub.add_argument("source", help=f"a folder of pictures; or {SOURCES}; or codes that dsh-hf encode wrote")
    sub.add_argument("--out", required=True, metavar="DIR", help="the gallery")
    add_checkpoint(sub)
    sub.add_argument("--engine", default="exact", help="the search engine: exact, hnsw, faiss-ivf, ..., or a URL")
    sub.add_argument("--keep-outputs", action="store_true", help="keep float outputs, for search --rerank")
    add_device(sub)
    add_backend(sub)
    sub.add_argument("--json", action="store_true", help="print what was done as one JSON object")

    sub = add_command(commands, search, "dsh-hf search cat.png --index photos.gallery --where label=cat")
    sub.add_argument("sketch", help="a picture of a drawing; with --image, any picture")
    sub.add_argument("--index", required=True, metavar="DIR", help="a gallery made by dsh-hf index; or its Hub id")
    sub.add_argument("--engine", metavar="URL", help="where the codes are, if on a server")
    add_checkpoint(sub)
    sub.add_argument("-k", type=int, default=10, help="number of results")
    sub.add_argument("--image", action="store_true", help="search by a picture, not by a drawing")
    sub.add_argument("--where", action="append", metavar="KEY=VALUE", help="only results with this; may be repeated")
    sub.add_argument("--rerank", type=int, default=0, metavar="N", help="order the first N by their float outputs")
    sub.add_argument("--json", action="store_true", help="print one JSON object a result")


def index(arguments: argparse.Namespace) -> None:
    """Encode pictures and save the gallery; done before, only what is new is encoded."""
    from dsh_hf import DSHModel, SketchRetriever
    from dsh_hf.bulk.files import holds_codes
    from dsh_hf.data.sources import holds_rows, open_source
    from dsh_hf.retrieval import MANIFEST_NAME

    out = Path(arguments.out)
    if holds_codes(Path(arguments.source)):
        _index_codes(arguments, out)
        return
    # A folder of pictures in any depth is synced; all else is a data set.
    is_folder = Path(arguments.source).is_dir() and not holds_rows(arguments.source)
    folder = Path(arguments.source).resolve() if is_folder else None
    if out.is_file() or out.resolve() == folder:
        raise ValueError(f"--out {out} is a file or the folder of the pictures: give another place for the gallery")
    rows = None if folder else open_source(arguments.source, streaming=True)
    options = {"bits": arguments.bits, "device": checked_device(arguments.device), "backend": arguments.backend}
    model = DSHModel.from_pretrained(arguments.checkpoint, **options)
    if (out / MANIFEST_NAME).is_file():
        retriever = SketchRetriever.load(out, model, engine=arguments.engine if "://" in arguments.engine else None)
        _check_same(retriever, folder, arguments)
        changes = (
            retriever.sync(show_progress_bar=True, save_to=out)
            if rows is None
            else retriever.add_dataset(rows, id_column="id", show_progress_bar=True, save_to=out)
        )
    else:
        new: dict[str, Any] = {"engine": arguments.engine, "keep_outputs": arguments.keep_outputs}
        new |= {"show_progress_bar": True, "save_to": out}
        retriever = (
            SketchRetriever.from_folder(arguments.source, model, **new)
            if rows is None
            else SketchRetriever.from_dataset(rows, model, id_column="id", **new)
        )
        changes = {"added": len(retriever), "skipped": len(retriever.skipped)}
    _tell(retriever, arguments, changes)


def _index_codes(arguments: argparse.Namespace, out: Path) -> None:
    """Make a gallery of codes that are there: nothing is encoded."""
    from tqdm.auto import tqdm

    from dsh_hf import DSHModel, SketchRetriever
    from dsh_hf.bulk.files import read_codes, skipped_in

    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"--out {out} is not empty: codes make a gallery of their own, give another place for it")
    if arguments.keep_outputs:
        raise ValueError("--keep-outputs: codes have no float outputs, make the gallery of the pictures themselves")
    model = DSHModel.from_pretrained(arguments.checkpoint, bits=arguments.bits)
    parts = read_codes(arguments.source, bits=model.config.bits, fingerprint=model.fingerprint)
    retriever = SketchRetriever(model, engine=arguments.engine)
    if len(retriever):
        raise ValueError(f"{retriever.engine} holds {len(retriever)} codes already: give a table of its own")
    with tqdm(desc="index", unit="code") as bar:
        for part in parts:
            retriever.add_codes(part.codes, part.ids, part.sources)
            bar.update(len(part.ids))
    retriever.skipped = skipped_in(Path(arguments.source))
    retriever.save(out)
    _tell(retriever, arguments, {"added": len(retriever), "skipped": len(retriever.skipped)})


def _tell(retriever: "SketchRetriever", arguments: argparse.Namespace, changes: dict[str, int]) -> None:
    if arguments.json:
        about = {"pictures": len(retriever), "added": 0, "removed": 0, **changes, "faults": retriever.skipped}
        print(json.dumps(about, ensure_ascii=False))
        return
    told = ", ".join(f"{count} {what}" for what, count in changes.items())
    there = " --engine URL" if "://" in arguments.engine else ""
    print(
        f"{len(retriever)} pictures in {Path(arguments.out)} ({told}); "
        f"search with: dsh-hf search SKETCH --index {Path(arguments.out)}{there}{opened_again(arguments)}"
    )


def _check_same(retriever: "SketchRetriever", folder: Path | None, arguments: argparse.Namespace) -> None:
    from dsh_hf.gallery.files import without_password

    if retriever.folder != folder:
        raise ValueError(
            f"{arguments.out} holds the gallery of {retriever.folder or 'a data set'}: "
            f"give another --out for {arguments.source}"
        )
    if retriever.engine != without_password(arguments.engine):
        raise ValueError(f"{arguments.out} holds a gallery of the engine {retriever.engine}: give another --out")


def search(arguments: argparse.Namespace) -> None:
    """Print the pictures nearest to a sketch: Hamming distance and place."""
    from dsh_hf import DSHModel, SketchRetriever
    from dsh_hf.processing import EmptySketchError

    where = _conditions(arguments.where or [])
    model = DSHModel.from_pretrained(arguments.checkpoint, bits=arguments.bits)
    if arguments.engine:
        retriever = SketchRetriever.load(arguments.index, model, engine=arguments.engine)
    else:
        retriever = SketchRetriever.from_pretrained(arguments.index, model)
    find = retriever.search_image if arguments.image else retriever.search
    try:
        hits = find(arguments.sketch, arguments.k, where=where or None, rerank=arguments.rerank)
    except EmptySketchError as error:
        raise ValueError(f"{error}; to search by a photograph give --image") from error
    if not hits:
        print(f"no picture has {' and '.join(arguments.where or [])}", file=sys.stderr)
    for hit in hits:
        if arguments.json:
            about = {"id": hit.id, "distance": hit.distance, "source": hit.source, "metadata": dict(hit.metadata)}
            print(json.dumps(about, ensure_ascii=False))
        else:
            print(f"{hit.distance:4d}  {hit.source or hit.id}")


def _conditions(given: list[str]) -> dict[str, list[Any]]:
    """Read what results must have: KEY=VALUE each, values of the same key being alternatives."""
    where: dict[str, list[Any]] = {}
    for condition in given:
        key, equals, value = condition.partition("=")
        if not equals:
            raise ValueError(f"--where {condition}: give KEY=VALUE, like label=cat")
        where.setdefault(key, []).append(value)
        with suppress(ValueError):  # year=1999: a number, too
            where[key].append(json.loads(value))
    return where
