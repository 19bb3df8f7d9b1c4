"""From a drawing to an answer: its code, the best of the nearest pictures, and whether they are nearer than chance."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galleries import Gallery
from networks import Networks
from pictures import open_jpeg, small_copy
from PIL import Image
from uploads import OwnPicture

if TYPE_CHECKING:
    import numpy as np

    from dsh_hf import Hit

MOST = 48  # results
CANDIDATES = 200  # nearest codes, put in the order of float outputs where the gallery keeps them
CHANCE = 0.05
LARGEST = 4096  # pixels of an opened picture, longer side
HINT = "Draw something, upload a drawing, or click an example."


@dataclass(frozen=True)
class Query:
    """A drawing and its code.

    Attributes:
        drawing: a picture, or the file it was sent in.
        outputs: the network's float outputs, shape ``(bits,)``.
        milliseconds: how long encoding took.
        device: what encoded it.
        drawn: numbers that its strokes have, by which the page tells an old answer; 0 for a file.
    """

    drawing: Image.Image | Path
    outputs: "np.ndarray"
    milliseconds: float
    device: str
    drawn: int = 0

    @property
    def code(self) -> "np.ndarray":
        """Its code, packed bits."""
        return code_of_outputs(self.outputs)


@dataclass(frozen=True)
class Result:
    """A picture that was found; ``found`` is the gallery's hit, or the visitor's own picture.

    ``score`` is the cosine of its float outputs and the drawing's, where the gallery keeps them.
    """

    name: str
    distance: int
    thumbnail: bytes
    found: "Hit | OwnPicture"
    score: float | None = None

    @property
    def key(self) -> str:
        """What the page calls it by: the hit's id, or the name of the visitor's own picture."""
        return self.name if isinstance(self.found, OwnPicture) else str(self.found.id)


@dataclass(frozen=True)
class Answer:
    """What was found for a query.

    Attributes:
        gallery: what was searched.
        message: one sentence on it, or what is wrong with the drawing.
        facts: how long it took, over how many pictures, with what.
        query: the drawing; ``None`` where there is none.
        results: the pictures, best first.
        by_chance: a random code would have come as near.
        milliseconds: how long the search took.
    """

    gallery: Gallery
    message: str
    facts: str
    query: Query | None = None
    results: Sequence[Result] = ()
    by_chance: bool = False
    milliseconds: float = 0.0


def encode_drawing(networks: Networks, drawing: Image.Image | Path, name: str = "the drawing", drawn: int = 0) -> Query:
    """Encode a drawing.

    Raises:
        EmptySketchError: there is nothing on it.
        PictureError: it cannot be used; the message calls it ``name``.
    """
    from dsh_hf.processing import EmptySketchError, PictureError

    started = time.perf_counter()
    try:
        outputs, device = networks.embed_sketch(drawing)
    except EmptySketchError:
        raise
    except (PictureError, OSError) as error:
        raise PictureError(str(error).replace(str(drawing), name)) from error
    return Query(drawing, outputs, 1000 * (time.perf_counter() - started), device, drawn)


def search(
    networks: Networks,
    gallery: Gallery,
    own: Sequence[OwnPicture],
    query: Query | None,
    count: Any,
    why_not: str = HINT,
) -> Answer:
    """Find the pictures nearest to a query, a visitor's own among them; without one, say ``why_not``.

    Where the gallery keeps float outputs, the nearest codes are put in their order: a bit that the network is sure
    of counts for more there than one that it is not.
    """
    facts = _facts(gallery, len(own), query.device if query else str(networks.model.device))
    if query is None:
        return Answer(gallery, why_not, facts)
    count = min(max(int(count or 1), 1), MOST)
    started = time.perf_counter()
    hits = gallery.search(query.outputs, CANDIDATES)
    milliseconds = 1000 * (time.perf_counter() - started)
    scored = gallery.retriever.keep_outputs
    results = _own_results(own, query, scored)
    nearest = min([*(result.distance for result in results), *(hit.distance for hit in hits)], default=0)
    results += _gallery_results(gallery, hits[:count])
    # Stable: a visitor's own come first.
    results = sorted(results, key=lambda result: result.distance if result.score is None else -result.score)[:count]
    bits = gallery.index.bits
    by_chance = 0 <= chance_distance(len(gallery.index) + len(own), bits) < nearest
    return Answer(
        gallery,
        _message(results, nearest if by_chance else None, bits),
        f"encoded in {query.milliseconds:.0f} ms, searched in {milliseconds:.1f} ms · {facts}",
        query,
        results,
        by_chance,
        milliseconds,
    )


@lru_cache
def chance_distance(items: int, bits: int) -> int:
    """Give the greatest distance that is nearer than chance; -1 where the codes are too short to tell.

    A bit of a random code differs with probability 1/2, so its distance from any one code follows the binomial
    distribution, and the nearest of ``items`` codes lies within d with probability 1 - (1 - F(d))^items at most.
    The greatest d where that is 5% is what a random code hardly reaches: a drawing whose nearest picture lies
    further away is not known to be nearer to it than to anything.
    """
    within, limit = 0, -1
    for distance in range(bits):
        within += math.comb(bits, distance)
        if -math.expm1(items * math.log1p(-within / 2**bits)) > CHANCE:
            break
        limit = distance
    return limit


def open_result(networks: Networks, answer: Answer, result: Result, *, whole: bool = True) -> Image.Image:
    """Open the picture of a result: as large as it is, or as it was read when the gallery was encoded.

    Raises:
        OSError: it cannot be read any more.
        ValueError: it is not here, or damaged.
    """
    if isinstance(result.found, OwnPicture):
        return open_jpeg(result.found.picture)
    if whole:
        return small_copy(answer.gallery.picture(result.found, None), LARGEST)
    return answer.gallery.picture(result.found, 2 * networks.model.config.image_size)


def code_of(networks: Networks, answer: Answer, result: Result, picture: Image.Image) -> "np.ndarray | None":
    """Give the code of a result by its picture; ``None`` where that has another code now."""
    if isinstance(result.found, OwnPicture):
        return code_of_outputs(result.found.outputs)
    # An index gives no codes back. The picture's is made again, and is the right one if the index knows it so.
    code = code_of_outputs(networks.embed_images([picture])[0])
    _, ids = answer.gallery.index.search_radius(code, 0)
    return code if result.found.id in {str(key) for key in ids} else None


def _gallery_results(gallery: Gallery, hits: "Sequence[Hit]") -> list[Result]:
    results = []
    for hit in hits:
        try:
            thumbnail = gallery.thumbnail(hit)
        except (OSError, ValueError):  # a file that vanished since the start, or was never here
            thumbnail = b""
        results.append(Result(gallery.name(hit), hit.distance, thumbnail, hit, hit.score))
    return results


def _own_results(own: Sequence[OwnPicture], query: Query, scored: bool) -> list[Result]:
    import numpy as np

    results, code = [], query.code
    for picture in own:
        distance = int(np.bitwise_count(code_of_outputs(picture.outputs) ^ code).sum())
        score = cosine(picture.outputs, query.outputs) if scored else None
        results.append(Result(picture.name, distance, picture.thumbnail, picture, score))
    return results


def cosine(a: "np.ndarray", b: "np.ndarray") -> float:
    """Give the cosine of the angle between two vectors; 0 where one of them is 0."""
    import numpy as np

    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), np.finfo(np.float32).tiny))


def code_of_outputs(outputs: "np.ndarray") -> "np.ndarray":
    """Give the code whose bits are the signs of float outputs."""
    from dsh_hf.codes import pack_signs

    return pack_signs(outputs)


def _message(results: Sequence[Result], chance: int | None, bits: int) -> str:
    """Say what the best result is, or that the nearest picture is at a distance of chance."""
    if not results:
        return "There is nothing to search."
    if chance is not None:
        return f"Nothing like it here: the nearest differs in {chance} of {bits} bits, as chance would have it."
    return f"Best: {results[0].name}, which differs in {results[0].distance} of {bits} bits."


def _facts(gallery: Gallery, own: int, device: str) -> str:
    index = gallery.index
    items = f"{len(index):,} picture{'' if len(index) == 1 else 's'}" + (f" and {own} of yours" if own else "")
    engine = f"{index.engine}, re-ranked" if gallery.retriever.keep_outputs else index.engine
    return f"{items} · {index.bits} bits · {engine} · {device}"
