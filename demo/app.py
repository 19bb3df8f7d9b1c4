"""Draw a few strokes, see the pictures you meant: a sketchpad on a gallery that is searched while you draw.

``python demo/app.py`` opens the trained checkpoint on OpenMoji's colour pictures, ``--gallery DIR`` on a folder of
your own, which is encoded once.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from sketchpad import EXAMPLES, Stroke, make_sketchpad, render_strokes

if TYPE_CHECKING:
    import gradio as gr

    from dsh_hf import DSHModel, SketchRetriever
    from dsh_hf.codes import Codes
    from dsh_hf.index import Index

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

HERE = Path(__file__).resolve().parent
CHECKPOINT = os.environ.get("DSH_CHECKPOINT", str(HERE.parent / "model_card" / "dsh-sketchy-subset"))
OPENMOJI_CODES = HERE / "openmoji-codes.safetensors"
THUMBNAIL = 256  # longer side of a result, in pixels
KEPT = 256  # results kept in memory, 50 MB at most
CSS = """
#results .grid-wrap { max-height: none; min-height: 120px; }
#results .grid-container { grid-template-columns: repeat(auto-fill, minmax(min(130px, 30%), 1fr)); }
#results .thumbnail-item { aspect-ratio: auto; height: auto; background: white; }
#results .thumbnail-item img { aspect-ratio: 1; height: auto; object-fit: contain; }
#results .caption-label { position: static; max-width: none; border-width: 1px 0 0; text-align: center;
  white-space: normal; text-wrap: balance; line-height: 1.3; }
@media (max-width: 640px) { .gradio-container .app { padding: 12px; } }
"""
PAGE: dict[str, Any] = {"css": CSS, "footer_links": ["gradio", "api"], "run_history": False}  # for launch()
MOST = 48  # results
UPLOADS_KEPT = (3600, 86400)  # every hour, drawings and results older than a day are deleted; at the end, all are
HINT = "Draw something, upload a drawing, or click an example."

Query = tuple["Codes", float]  # a drawing's code, and how long encoding took, in milliseconds
Answer = tuple[list[tuple[Image.Image, str]], str, Query | None]  # results with captions, status line, query


@dataclass(frozen=True)
class Searcher:
    """A gallery and the model that made its codes.

    Attributes:
        model: encodes the drawings.
        index: the codes of the pictures, by id.
        name: gives what a picture is called, by id.
        thumbnail: gives a small RGB picture, by id.
        about: what the gallery is and who made it, in Markdown.
    """

    model: "DSHModel"
    index: "Index"
    name: Callable[[str], str]
    thumbnail: Callable[[str], Image.Image]
    about: str


def open_openmoji(model: "DSHModel", engine: str = "exact", codes: Path = OPENMOJI_CODES) -> Searcher:
    """Open OpenMoji's colour pictures; where ``codes`` is not of this model, encode them once and keep that."""
    from dsh_hf.data.openmoji import load_openmoji, render_emoji

    names = {emoji.id: emoji.name for emoji in load_openmoji()}
    index = _read_codes(codes, model, engine, set(names))
    if index is None:
        folder = _cache_folder("openmoji-codes", f"{model.fingerprint[:16]}-{engine}")
        index = _read_codes(folder / codes.name, model, engine, set(names)) if folder else None
        if index is None:
            index = encode_openmoji(model, engine, list(names))
            if folder:
                _keep(index, folder / codes.name)
    about = (
        "The pictures are [OpenMoji](https://openmoji.org), the open-source emoji and icon project, "
        "licence [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/)."
    )
    return Searcher(model, index, names.__getitem__, lru_cache(KEPT)(render_emoji), about)


def encode_openmoji(model: "DSHModel", engine: str, ids: Sequence[str]) -> "Index":
    """Encode emoji, with a progress bar."""
    from tqdm import tqdm

    from dsh_hf.data.openmoji import render_emoji
    from dsh_hf.index import open_index

    index = open_index(engine, bits=model.config.bits, fingerprint=model.fingerprint)
    with tqdm(total=len(ids), desc="encode OpenMoji, once", unit="picture") as bar:
        for start in range(0, len(ids), 32):
            batch = ids[start : start + 32]
            index.add(model.encode_images([render_emoji(code) for code in batch]), batch)
            bar.update(len(batch))
    return index


def open_folder(folder: str, model: "DSHModel", engine: str = "exact") -> Searcher:
    """Open a folder of pictures: encoded the first time, later only what has changed in it.

    Raises:
        RetrieverError: there is no such folder, or no picture in it.
    """
    from dsh_hf import SketchRetriever
    from dsh_hf.processing import open_picture

    root = Path(folder).expanduser().resolve()
    key = hashlib.sha256(os.fsencode(f"{root}\n{model.fingerprint}\n{engine}")).hexdigest()[:32]
    kept = _cache_folder("galleries", key)
    retriever = None
    if kept:
        with suppress(ValueError, OSError):  # not there yet, or damaged
            retriever = SketchRetriever.load(kept, model, engine=engine if "://" in engine else None)
    if retriever is None:
        retriever = SketchRetriever.from_folder(root, model, engine=engine, show_progress_bar=True)
        changed = True
    else:
        changes = retriever.sync()
        told = f"{changes['added']} pictures added, {changes['removed']} removed since the last time"
        print(f"{_readable(root.name)}: {told}")
        changed = changes["added"] + changes["removed"] > 0
    if kept and changed:
        _keep(retriever, kept)

    @lru_cache(KEPT)
    def thumbnail(key: str) -> Image.Image:
        picture = open_picture(root / key, least_size=THUMBNAIL)
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        rgba = picture.convert("RGBA")
        paper = Image.new("RGB", rgba.size, "white")
        paper.paste(rgba, mask=rgba)
        return paper

    def name(key: str) -> str:
        label, inside, _ = key.partition("/")
        return _readable(label if inside else Path(key).stem)

    about = f"The pictures are those in the folder {_readable(root.name)}."
    return Searcher(model, retriever.index, name, thumbnail, about)


def _cache_folder(namespace: str, subfolder: str) -> Path | None:
    """Give the folder to keep codes in, or say why there is none."""
    from huggingface_hub import cached_assets_path

    try:
        return cached_assets_path("dsh-hf", namespace, subfolder)
    except (OSError, ValueError) as error:  # a home that is read-only, or a file where a folder should be
        print(f"codes are not kept for the next time: {error}")
        return None


def _keep(codes: "Index | SketchRetriever", path: Path) -> None:
    """Save codes for the next time; where that fails, this time goes on."""
    try:
        codes.save(path)
    except (OSError, ValueError) as error:  # another demo may be saving them
        print(f"codes are not kept for the next time: {error}")


def _readable(name: str) -> str:
    """Give a file's name as text, whatever bytes are in it."""
    return os.fsencode(name).decode(errors="replace")


def _read_codes(file: Path, model: "DSHModel", engine: str, ids: set[str]) -> "Index | None":
    """Read an index file, or say why it is of no use."""
    from dsh_hf.codes import pack_signs
    from dsh_hf.index import IndexFileError, IndexMismatchError, open_index

    if not file.is_file():
        return None
    bits = model.config.bits
    try:
        index = open_index(engine, bits=bits, path=file, fingerprint=model.fingerprint)
    except (IndexFileError, IndexMismatchError) as error:
        print(f"not used: {error}")
        return None
    _, held = index.search_radius(pack_signs([0] * bits), bits)  # every id
    if set(held) != ids:
        print(f"not used: {file} is of another version of OpenMoji")
        return None
    return index


def search_drawing(searcher: Searcher, drawing: Any, count: int, name: str = "the drawing") -> Answer:
    """Find the pictures nearest to a drawing; what is wrong with it becomes the status line."""
    import gradio as gr

    from dsh_hf.processing import EmptySketchError, PictureError

    started = time.perf_counter()
    try:
        code = searcher.model.encode_sketches(drawing)
    except EmptySketchError:
        return [], HINT, None
    except (PictureError, OSError) as error:
        reason = str(error).replace(str(drawing), name)
        gr.Warning(reason)
        return [], reason, None
    return search_code(searcher, (code, 1000 * (time.perf_counter() - started)), count)


def search_code(searcher: Searcher, query: Query | None, count: int) -> Answer:
    """Find the pictures nearest to a code."""
    if query is None:
        return [], HINT, None
    code, encoding = query
    started = time.perf_counter()
    distances, ids = searcher.index.search(code, min(max(int(count or 1), 1), MOST))
    searching = 1000 * (time.perf_counter() - started)
    results = []
    for distance, key in zip(distances, ids, strict=True):
        try:
            results.append(
                (searcher.thumbnail(key), f"{searcher.name(key)} · {distance} {'bit' if distance == 1 else 'bits'}")
            )
        except (OSError, ValueError):  # a file that vanished since the start
            continue
    index = searcher.index
    status = (
        f"encoded in {encoding:.0f} ms, searched in {searching:.1f} ms · {len(index):,} pictures · "
        f"{index.bits} bits · {index.engine} · {searcher.model.device}"
    )
    return results, status, query


def build_demo(searcher: Searcher) -> "gr.Blocks":
    """Build the page: sketchpad and upload on the left, results on the right; the API endpoint is ``/search``."""
    import gradio as gr

    def search_strokes(strokes: list[Stroke] | None, count: int) -> Answer:
        return search_drawing(searcher, render_strokes(strokes or []), count)

    def search(drawing: dict[str, Any] | None, count: int = 12) -> Answer:
        """Find the pictures nearest to a drawing in a picture file; give them with captions, and a status line."""
        if not drawing or not drawing["path"]:
            return [], HINT, None
        path = Path(drawing["path"]).resolve()
        if not path.is_relative_to(Path(file.GRADIO_CACHE).resolve()):  # Gradio lets bare paths through
            raise gr.Error("only uploaded files are searched with")
        return search_drawing(searcher, path, count, drawing.get("orig_name") or "the file")

    with gr.Blocks(title="Draw and find", analytics_enabled=False, delete_cache=UPLOADS_KEPT) as demo:
        gr.Markdown("# Draw and find\nA few strokes are enough: the results change while you draw.")
        query = gr.State(None)
        with gr.Row():
            with gr.Column(min_width=300):
                with gr.Tab("Draw"):
                    pad = make_sketchpad()
                with gr.Tab("Upload a drawing"):
                    file = gr.Image(
                        label="A photo, scan or screenshot of a drawing",
                        sources=["upload", "clipboard"],
                        type="filepath",
                        image_mode=None,
                        height=380,
                    )
            with gr.Column(min_width=300):
                status = gr.Markdown(HINT, elem_id="status")
                results = gr.Gallery(
                    elem_id="results",
                    format="jpeg",  # WebP takes ten times longer to write
                    show_label=False,
                    columns=4,
                    object_fit="contain",
                    height="auto",
                    buttons=[],
                    interactive=False,
                )
                count = gr.Slider(1, MOST, value=12, step=1, label="Number of results")
        with gr.Accordion("How it works", open=False):
            gr.Markdown(
                "Two neural networks turn drawings and pictures into codes of "
                f"{searcher.model.config.bits} bits, trained so that a drawing and a picture of the same thing "
                "differ in few bits (Deep Sketch Hashing, Liu et al., CVPR 2017). The pictures were encoded "
                "beforehand; your drawing is encoded after every stroke, and those with the fewest differing bits "
                "are shown. Everything is computed on the machine that serves this page."
            )
        gr.Markdown(searcher.about)

        found: dict[str, Any] = {"outputs": [results, status, query], "show_progress": "hidden"}
        pad.input(search_strokes, [pad, count], trigger_mode="always_last", api_visibility="private", **found)
        # Without Gradio's own reading of the file: a broken one shall be named, with the reason.
        file.input(search, [file, count], preprocess=False, api_name="search", **found)
        count.change(
            lambda query, count: search_code(searcher, query, count),
            [query, count],
            trigger_mode="always_last",
            api_visibility="private",
            **found,
        )
    return demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    args = _parser().parse_args(arguments)
    print("loading the model ...", flush=True)
    import torch

    from dsh_hf import DSHModel

    try:
        model = DSHModel.from_pretrained(args.checkpoint, device="cuda" if torch.cuda.is_available() else "cpu")
        if args.write_openmoji_codes:
            from dsh_hf.data.openmoji import load_openmoji

            encode_openmoji(model, "exact", [emoji.id for emoji in load_openmoji()]).save(OPENMOJI_CODES)
            print(f"written: {OPENMOJI_CODES}")
            return 0
        print("opening the gallery ...", flush=True)
        searcher = open_folder(args.gallery, model, args.engine) if args.gallery else open_openmoji(model, args.engine)
        model.encode_sketches(render_strokes(EXAMPLES["apple"]))  # the first time is slow
        print(f"{len(searcher.index):,} pictures; starting the page ...", flush=True)
        build_demo(searcher).launch(server_name=args.host, server_port=args.port, share=args.share, **PAGE)
    except (OSError, ValueError, ImportError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draw a few strokes, see the pictures you meant.")
    parser.add_argument("--checkpoint", default=CHECKPOINT, help="a checkpoint's folder or its id on the Hub")
    parser.add_argument("--gallery", metavar="DIR", help="a folder of pictures; OpenMoji's where left out")
    parser.add_argument("--engine", choices=["exact", "hnsw"], default="exact", help="the search engine")
    parser.add_argument("--host", help="address to listen on; 127.0.0.1 where left out")
    parser.add_argument("--port", type=int, help="port to listen on; the first free one from 7860 where left out")
    parser.add_argument("--share", action="store_true", help="make a public link, by Gradio's service")
    parser.add_argument(
        "--write-openmoji-codes", action="store_true", help=f"encode OpenMoji into {OPENMOJI_CODES.name}, and stop"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
