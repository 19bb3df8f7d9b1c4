"""The page: sketchpad, uploads and own pictures on the left, results on the right, and the card behind a tab."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from answers import MOST, Answer
from api import Endpoints
from card import FIGURES, NUMBERS, card_files, read_numbers
from events import Events
from galleries import Gallery
from PIL import Image
from sketchpad import make_sketchpad
from uploads import LARGEST_FILE, MOST_OWN, refuse_addresses

if TYPE_CHECKING:
    import gradio as gr

    from dsh_hf import DSHModel

# Read when gradio, and the Hub's client, are imported: nobody is told that or how the page is used.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

HERE = Path(__file__).parent
LAUNCH: dict[str, Any] = {  # for launch()
    "css": (HERE / "page.css").read_text(encoding="utf-8"),
    "footer_links": ["gradio", "api"],
    "run_history": False,
    "max_file_size": LARGEST_FILE,
    # Visits whose answer and own pictures are kept in memory. At worst 24 pictures of 250 kB (noise; a photograph has
    # a quarter) and an answer of 48 thumbnails of 50 kB that nobody else has: 8.4 MB each, 2.2 GB in all.
    "state_session_capacity": 256,
}
UPLOADS_KEPT = (600, 3600)  # every ten minutes, files older than an hour are deleted; at the end, all are
ABOUT = """
Two neural networks turn drawings and pictures into codes of {bits} bits, trained so that a drawing and a picture of
the same thing differ in few bits (Deep Sketch Hashing, Liu et al., CVPR 2017). Beside its colours, the second network
sees a picture's *sketch-token*: its contours, drawn as lines. The pictures were encoded beforehand; your drawing is
encoded after every stroke, and the best of those with the fewest differing bits are shown. Where even the nearest
differs in as many bits as that of a random code would, nothing like your drawing is there.

Everything is computed on the machine that serves this page.
"""


def build_page(model: "DSHModel", galleries: Sequence[Gallery], checkpoint: str | None = None) -> "gr.Blocks":
    """Build the page.

    Args:
        model: encodes drawings and pictures.
        galleries: what there is to search, one at least; their titles differ.
        checkpoint: where the model comes from, for its card's figures: a folder, or an id on the Hub.

    Returns:
        The page; ``launch(**LAUNCH)`` starts it.
    """
    import gradio as gr

    refuse_addresses()
    events = Events(model, galleries)
    with gr.Blocks(title="Draw and find", analytics_enabled=False, delete_cache=UPLOADS_KEPT) as demo:
        gr.Markdown("# Draw and find\nA few strokes are enough: the results change while you draw.")
        with gr.Tab("Find"):
            _build_search(events)
        with gr.Tab("Explain"):
            gr.Markdown(ABOUT.format(bits=model.config.bits))
            _build_card(checkpoint)
    return demo


def _build_search(events: Events) -> None:
    import gradio as gr

    answer, own = gr.State(None), gr.State(())
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
                    elem_id="upload",
                )
            with gr.Tab("Add pictures"):
                gr.Markdown(
                    f"Search your own pictures too, {MOST_OWN} at most. Only you see them, and only this visit."
                )
                adding = gr.UploadButton("Add pictures", file_count="multiple", file_types=["image"], size="md")
                shown = gr.HTML(elem_id="own")
                forget = gr.Button("Forget them", elem_id="forget", size="sm")
        with gr.Column(min_width=300):
            titles = list(events.galleries)
            title = gr.Dropdown(titles, value=titles[0], label="Gallery", visible=len(titles) > 1, elem_id="gallery")
            results = gr.HTML(
                events.again(MOST, titles[0], (), None)[0],
                elem_id="results",
                js_on_load=_script("results"),
                apply_default_css=False,
            )
            why = gr.HTML(elem_id="why", js_on_load=_script("why"), apply_default_css=False)
            opening = gr.HTML(elem_id="opening", js_on_load=_script("opening"))
            count = gr.Slider(1, MOST, value=12, step=1, label="Number of results")
            about = gr.Markdown(events.first.about)

    def open_result(event: gr.EventData, answer: Answer | None) -> str:
        clicked = event._data or {}
        return events.open(clicked.get("place"), clicked.get("id"), answer)

    hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    # All that gives an answer waits in one line: the last to come is the last to be answered.
    one_line: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": 1}
    found: dict[str, Any] = {"outputs": [results, answer], "trigger_mode": "always_last", **one_line, **hidden}
    again: dict[str, Any] = {"fn": events.again, "inputs": [count, title, own, answer], **found}
    pad.input(events.draw, [pad, count, title, own], **found)
    # Without Gradio's own reading of files: a broken one shall be named, with the reason.
    file.input(events.upload, [file, count, title, own], preprocess=False, **found)
    count.change(**again)
    title.change(events.about, title, about, **hidden).then(**again)
    adding.upload(events.add, [adding, own], [own, shown], preprocess=False, **hidden).then(**again)
    forget.click(lambda: ((), ""), None, [own, shown], **hidden).then(**again)
    results.rest(events.why, answer, why, trigger_mode="always_last", **hidden)
    results.open(open_result, answer, opening, **hidden)
    _build_api(Endpoints(events), file, count, title)


def _build_api(endpoints: Endpoints, file: "gr.Image", count: "gr.Slider", title: "gr.Dropdown") -> None:
    """Add the endpoints for programs: their events come from no button that anybody sees."""
    import gradio as gr

    button = gr.Button(visible=False)
    pictures = gr.Gallery(label="pictures", format="jpeg", visible=False)
    button.click(
        endpoints.search,
        [file, count, title],
        [pictures, gr.JSON(label="answer", visible=False)],
        preprocess=False,
        api_name="search",
    )
    button.click(endpoints.encode, file, gr.JSON(label="code", visible=False), preprocess=False, api_name="encode")


def _build_card(checkpoint: str | None) -> None:
    import gradio as gr

    files = card_files(checkpoint) if checkpoint else {}
    gr.Markdown(read_numbers(files.get(NUMBERS)))
    for name, caption in FIGURES.items():
        with suppress(KeyError, OSError, SyntaxError):  # not there, or damaged
            figure = Image.open(files[name])
            figure.load()
            gr.Markdown(caption)
            # A small copy of our own in the page: the file itself is served to nobody.
            gr.Image(figure, show_label=False, interactive=False, format="png", width=760, buttons=["fullscreen"])


def _script(name: str) -> str:
    return (HERE / f"{name}.js").read_text(encoding="utf-8")
