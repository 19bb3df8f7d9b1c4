"""What happens on the page: a stroke, an upload, a click; each is a question, answered at once."""

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from answers import HINT, Answer, Query, Result, code_of, encode_drawing, open_result, search
from galleries import Gallery
from markup import opened_html, pictures_html, results_html, why_html
from networks import Networks, open_networks
from pictures import as_jpeg
from PIL import Image
from sketchpad import read_strokes, render_strokes
from uploads import OwnPicture, UploadError, add_own, check_upload, find_upload

if TYPE_CHECKING:
    from dsh_hf import DSHModel

TOLD = 3  # reasons why files are not added, in one message
CHANGED = "<p>The results have changed: close this, and click again.</p>"


class Events:
    """What the page does: each method answers one event, from what is on the page at that moment.

    Args:
        model: encodes drawings and pictures.
        galleries: what there is to search, the first one at the start.
    """

    def __init__(self, model: "DSHModel", galleries: Sequence[Gallery]) -> None:
        self.networks: Networks = open_networks(model)
        self.galleries = {gallery.title: gallery for gallery in galleries}
        self.first = galleries[0]

    def draw(self, strokes: Any, count: int, title: str, own: Sequence[OwnPicture]) -> tuple[str, Answer]:
        """Search with what is on the sketchpad."""
        try:
            lines = read_strokes(strokes)
        except (ValueError, TypeError) as error:
            return self._shown(title, own, None, count, f"This is no drawing: {error}")
        drawn = sum(map(len, lines))
        return self._encoded(title, own, count, render_strokes(lines) if lines else None, drawn=drawn)

    def upload(self, sent: Any, count: int, title: str, own: Sequence[OwnPicture]) -> tuple[str, Answer]:
        """Search with an uploaded drawing."""
        import gradio as gr

        if not sent:
            return self._shown(title, own, None, count)
        try:
            path, name = check_upload(sent)
        except UploadError as error:
            gr.Warning(escape(str(error)))
            return self._shown(title, own, None, count, str(error))
        return self._encoded(title, own, count, path, name)

    def again(self, count: int, title: str, own: Sequence[OwnPicture], answer: Answer | None) -> tuple[str, Answer]:
        """Search with the same drawing once more: in another gallery, or for another number of results."""
        return self._shown(title, own, answer.query if answer else None, count)

    def about(self, title: str) -> str:
        """Say what a gallery is and who made it."""
        return self.gallery(title).about

    def add(self, sent: Any, own: Sequence[OwnPicture]) -> tuple[Sequence[OwnPicture], str]:
        """Take up a visitor's own pictures."""
        import gradio as gr

        try:
            own, faults = add_own(own, [find_upload(one) for one in sent or []], self.networks.embed_images)
        except UploadError as error:
            faults = [str(error)]
        if faults:
            more = f", and {len(faults) - TOLD} more" if len(faults) > TOLD else ""
            gr.Warning(escape(f"Not added: {'; '.join(faults[:TOLD])}{more}"))
        return own, pictures_html([(picture.name, picture.thumbnail) for picture in own])

    def why(self, answer: Answer | None) -> str:
        """Say why the first result was found."""
        return _new(self._why(answer, answer.results[0])) if answer and answer.results else ""

    def open(self, place: Any, key: Any, answer: Answer | None) -> str:
        """Open the result at a place: its picture in full size, and why it was found.

        The page may show an older answer than the last one: only what has this key at this place is opened.
        """
        results = answer.results if answer else ()
        if not isinstance(place, int) or not 0 <= place < len(results) or results[place].key != key:
            return _new(CHANGED)
        assert answer is not None
        result = results[place]
        try:
            picture = as_jpeg(open_result(self.networks, answer, result))
        except (OSError, ValueError):
            picture = None
        return _new(opened_html(result.name, result.key, picture, self._why(answer, result)))

    def gallery(self, title: str | None) -> Gallery:
        """Give a gallery by its title, the first one for an unknown title."""
        return self.galleries.get(title or "", self.first)

    def _encoded(
        self,
        title: str,
        own: Sequence[OwnPicture],
        count: int,
        drawing: Image.Image | Path | None,
        name: str = "the drawing",
        drawn: int = 0,
    ) -> tuple[str, Answer]:
        from dsh_hf.processing import EmptySketchError, PictureError

        if drawing is None:
            return self._shown(title, own, None, count)
        try:
            query = encode_drawing(self.networks, drawing, name, drawn)
        except EmptySketchError:
            return self._shown(title, own, None, count, HINT if drawn else f"{name} is empty: no ink was found on it.")
        except PictureError as error:
            return self._shown(title, own, None, count, str(error))
        return self._shown(title, own, query, count)

    def _shown(
        self, title: str, own: Sequence[OwnPicture], query: Query | None, count: int, why_not: str = HINT
    ) -> tuple[str, Answer]:
        answer = search(self.networks, self.gallery(title), own, query, count, why_not)
        return results_html(answer), answer

    def _why(self, answer: Answer, result: Result) -> str:
        """Draw what the networks see. Not done with every stroke: it costs as much as a search."""
        from dsh_hf.processing import PictureError, prepare_sketch

        assert answer.query is not None
        size = self.networks.model.config.sketch_size
        try:
            sketch = as_jpeg(Image.fromarray(prepare_sketch(answer.query.drawing, size)))
        except (PictureError, OSError):  # an upload that is deleted by now
            return ""
        try:
            picture = open_result(self.networks, answer, result, whole=False)
        except (OSError, ValueError):
            return why_html(answer, result, sketch, None, None)
        token = as_jpeg(self.networks.draw_token(picture))
        return why_html(answer, result, sketch, token, code_of(self.networks, answer, result, picture))


def _new(html: str) -> str:
    """Mark HTML as unlike all before: the page takes no notice of a text that it shows already."""
    return f'<div data-time="{time.monotonic_ns()}">{html}</div>'
