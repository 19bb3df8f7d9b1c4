"""Pictures go through a model; one that cannot be used is named, and costs no more than its own place in a batch."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes, pack_signs
from dsh_hf.encoding import encode_pictures
from dsh_hf.gallery.items import Candidate
from dsh_hf.modeling import DSHModel
from dsh_hf.processing import Picture, PictureError, prepare_image, prepare_sketch, sketch_to_tensor_layout

_BATCHES = 8  # that are read before they go through the networks


class Encoded(NamedTuple):
    """What became of some pictures.

    Attributes:
        ids: of those that have a code.
        codes: uint8 of shape ``(len(ids), ceil(bits / 8))``.
        sources: where each of them lies, where that is known.
        skipped: why each of the others could not be used, by id.
    """

    ids: list[str]
    codes: Codes
    sources: list[str | None]
    skipped: dict[str, str]


def encode_candidates(
    model: DSHModel,
    candidates: Iterable[Candidate],
    *,
    sketches: bool = False,
    batch_size: int = 32,
) -> Iterator[Encoded]:
    """Encode pictures, a few batches at a time, so that memory stays flat however many there are.

    Args:
        model: encodes them, on the device that it is on.
        candidates: the pictures; one may be an address that fsspec knows.
        sketches: they are free-hand drawings, not photographs.
        batch_size: pictures that go through the networks at once.
    """
    candidates = iter(candidates)
    while chunk := list(islice(candidates, _BATCHES * batch_size)):
        yield _encode_chunk(model, chunk, sketches, batch_size)


def _encode_chunk(model: DSHModel, chunk: list[Candidate], sketches: bool, batch_size: int) -> Encoded:
    size = model.config.sketch_size if sketches else model.config.image_size
    faults: dict[int, str] = {}

    def prepare(place: Any) -> NDArray[np.uint8]:
        try:
            picture = _opened(chunk[place])
            return sketch_to_tensor_layout(prepare_sketch(picture, size)) if sketches else prepare_image(picture, size)
        except (PictureError, OSError) as error:
            faults[place] = " ".join(str(error).split())
            return np.full((size, size, 3), 255, np.uint8)  # fills its place in the batch; its code is left out

    places: Sequence[Any] = range(len(chunk))
    network = model.sketch_outputs if sketches else model.image_outputs
    codes = encode_pictures(model, places, prepare, network, pack_signs, batch_size=batch_size, show_progress_bar=False)
    good = [place for place in places if place not in faults]
    return Encoded(
        ids=[chunk[place].key for place in good],
        codes=codes[good],
        sources=[chunk[place].item.source for place in good],
        skipped={chunk[place].key: faults[place] for place in sorted(faults)},
    )


def _opened(candidate: Candidate) -> Picture:
    """Give a candidate's picture, fetched if it lies at an address: several at once, as pictures are decoded.

    Raises:
        PictureError: there is none, or it cannot be had.
    """
    picture = candidate.picture
    if picture is None:
        raise PictureError(candidate.fault)
    if not isinstance(picture, str) or "://" not in picture:
        return picture
    import fsspec

    try:
        with fsspec.open(picture) as file:
            return {"bytes": file.read(), "path": picture}
    except Exception as error:  # whatever the file system behind the address raises
        raise PictureError(f"{picture} cannot be read ({error})") from error
