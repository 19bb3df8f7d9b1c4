"""Candidates are encoded and let into a gallery, those left out that cannot be used."""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from dsh_hf.codes import Codes, code_bytes, pack_signs
from dsh_hf.gallery.items import Candidate, Item, kept_outputs
from dsh_hf.gallery.store import Gallery
from dsh_hf.processing import PictureError

if TYPE_CHECKING:
    from dsh_hf.modeling import DSHModel

logger = logging.getLogger(__name__)

_BATCHES = 8  # that go through the networks between two looks at the progress bar
# Pictures that enter the gallery, and its saved files, at once; a twentieth of the gallery where that is more, so
# that all saves of a long build together cost a few times the last one.
_PORTION = 10_000


class Progress(NamedTuple):
    """How many pictures came into a gallery, how many left it for them, and why others could not be used, by key."""

    added: int
    removed: int
    faults: dict[str, str]


def build(
    gallery: Gallery,
    model: "DSHModel",
    candidates: Iterable[Candidate],
    total: int | None,
    batch_size: int,
    show_progress_bar: bool | None,
    save: Callable[[], None] | None,
) -> Progress:
    """Encode pictures and let them into a gallery, portion by portion, in the place of those under the same ids.

    Args:
        gallery: where they go.
        model: encodes them.
        candidates: the pictures.
        total: how many there are, where known.
        batch_size: pictures that go through the networks at once.
        show_progress_bar: ``None`` shows one from a thousand pictures on, and where nobody knows how many.
        save: saves the gallery; called between portions, and in the beginning where codes lie on a server, so that
            there is a way back to those of a build that is cut short.
    """
    added = removed = 0
    faults: dict[str, str] = {}
    items: dict[str, Item] = {}
    codes: list[Codes] = []
    if save is not None and gallery.on_server:
        save()
    for encoded in _encode(model, candidates, total, gallery.keep_outputs, batch_size, show_progress_bar):
        faults |= encoded.faults
        items |= {candidate.key: candidate.item for candidate in encoded.kept}
        codes.append(encoded.codes)
        if len(items) >= max(_PORTION, len(gallery.items) // 20):
            removed += gallery.replace(np.concatenate(codes), items)
            added += len(items)
            items, codes = {}, []
            if save is not None:
                save()
    if items:
        removed += gallery.replace(np.concatenate(codes), items)
    return Progress(added + len(items), removed, faults)


class Encoded(NamedTuple):
    """What became of some candidates.

    Attributes:
        kept: those that could be used; their items hold the float outputs where these were asked for.
        codes: theirs, uint8 of shape ``(len(kept), ceil(bits / 8))``.
        faults: why each of the others could not be used, by key.
    """

    kept: list[Candidate]
    codes: Codes
    faults: dict[str, str]


def _encode(
    model: "DSHModel",
    candidates: Iterable[Candidate],
    total: int | None,
    keep_outputs: bool,
    batch_size: int,
    show_progress_bar: bool | None,
) -> Iterator[Encoded]:
    """Encode candidates, a few batches at a time, so that memory stays flat however many there are."""
    show = (total is None or total >= 1000) if show_progress_bar is None else show_progress_bar
    candidates = iter(candidates)
    with tqdm(total=total, desc="encode gallery", unit="picture", disable=not show) as bar:
        while chunk := list(islice(candidates, _BATCHES * batch_size)):
            usable = [candidate for candidate in chunk if candidate.picture is not None]
            encoded = _encode_usable(model, usable, keep_outputs, batch_size)
            missing = {candidate.key: candidate.fault for candidate in chunk if candidate.picture is None}
            for fault in missing.values():
                logger.warning("skipped: %s", fault)
            yield encoded._replace(faults=encoded.faults | missing)
            bar.update(len(chunk))


def _encode_usable(model: "DSHModel", candidates: list[Candidate], keep_outputs: bool, batch_size: int) -> Encoded:
    """Encode what can be; halves again and again: one bad file costs a few batches."""
    nothing = np.zeros((0, code_bytes(model.config.bits)), np.uint8)
    if not candidates:
        return Encoded([], nothing, {})
    pictures = [candidate.picture for candidate in candidates if candidate.picture is not None]
    try:
        if not keep_outputs:
            return Encoded(candidates, model.encode_images(pictures, batch_size=batch_size), {})
        outputs = model.embed_images(pictures, batch_size=batch_size)
    except (PictureError, OSError) as error:
        if len(candidates) == 1:
            logger.warning("skipped: %s", error)
            return Encoded([], nothing, {candidates[0].key: str(error)})
        middle = len(candidates) // 2
        first = _encode_usable(model, candidates[:middle], keep_outputs, batch_size)
        second = _encode_usable(model, candidates[middle:], keep_outputs, batch_size)
        codes = np.concatenate([first.codes, second.codes])
        return Encoded(first.kept + second.kept, codes, first.faults | second.faults)
    kept = [
        candidate._replace(item=candidate.item._replace(outputs=row))
        for candidate, row in zip(candidates, kept_outputs(outputs, len(candidates)), strict=True)
    ]
    return Encoded(kept, pack_signs(outputs), {})
