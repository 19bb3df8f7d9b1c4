"""What programs ask of the page: the endpoints ``/search`` and ``/encode``, for drawings in picture files."""

from html import escape
from typing import Any

from answers import HINT, MOST, Query, encode_drawing
from answers import search as find
from events import Events
from pictures import open_jpeg
from PIL import Image
from uploads import OwnPicture, UploadError, check_upload


class Endpoints:
    """The endpoints; their arguments and results are documented on the page, by what is written here.

    Args:
        events: what the page itself does.
    """

    def __init__(self, events: Events) -> None:
        self.events = events

    def search(
        self, drawing: dict[str, Any] | None, count: int = 12, gallery: str | None = None
    ) -> tuple[list[tuple[Image.Image, str]], dict[str, Any]]:
        """Find the pictures nearest to a drawing in a picture file.

        Gives small copies of them, with name and distance; and what was found, best first, with ids, distances, the
        scores (cosines of float outputs) that they are ordered by, where these are kept, times and code length.
        """
        self._check(count, gallery)
        query, why_not = self._query_of_file(drawing)
        found = find(self.events.networks, self.events.gallery(gallery), (), query, count, why_not)
        index = found.gallery.index
        told = {
            "hits": [
                {"id": result.found.id, "name": result.name, "distance": result.distance, "score": result.score}
                for result in found.results
                if not isinstance(result.found, OwnPicture)
            ],
            "message": found.message,
            "by_chance": found.by_chance,
            "gallery": found.gallery.title,
            "items": len(index),
            "bits": index.bits,
            "engine": index.engine,
            "device": query.device if query else str(self.events.networks.model.device),
            "encode_ms": round(query.milliseconds, 2) if query else None,
            "search_ms": round(found.milliseconds, 3),
        }
        pictures = [
            (
                open_jpeg(result.thumbnail),
                f"{result.name} · {result.distance} {'bit' if result.distance == 1 else 'bits'}",
            )
            for result in found.results
            if result.thumbnail
        ]
        return pictures, told

    def encode(self, drawing: dict[str, Any] | None) -> dict[str, Any]:
        """Give the code of a drawing in a picture file: packed bytes, the same in hex, code length, fingerprint."""
        import gradio as gr

        query, why_not = self._query_of_file(drawing)
        if query is None:
            raise gr.Error(why_not)
        model = self.events.networks.model
        code = query.code
        return {
            "code": code.tolist(),
            "hex": code.tobytes().hex(),
            "bits": model.config.bits,
            "fingerprint": model.fingerprint,
        }

    def _check(self, count: Any, gallery: Any) -> None:
        import gradio as gr

        if not isinstance(count, int | float) or count not in range(1, MOST + 1):
            raise gr.Error(f"count is a whole number from 1 to {MOST}", print_exception=False)
        if gallery is not None and gallery not in list(self.events.galleries):
            known = escape(", ".join(self.events.galleries))
            raise gr.Error(f"there is no such gallery; there are: {known}", print_exception=False)

    def _query_of_file(self, drawing: Any) -> tuple[Query | None, str]:
        from dsh_hf.processing import EmptySketchError, PictureError

        if not drawing:
            return None, HINT
        try:
            path, name = check_upload(drawing)
            return encode_drawing(self.events.networks, path, name), ""
        except EmptySketchError:
            return None, f"{name} is empty: no ink was found on it."
        except (UploadError, PictureError) as error:
            return None, str(error)
