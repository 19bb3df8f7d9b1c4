"""The Sketchy database and its Extended version, read as people have them."""

from pathlib import Path
from typing import TYPE_CHECKING

from dsh_hf.data.assemble import known_set
from dsh_hf.data.layout import find_parts, has_part, open_root
from dsh_hf.data.published import SKETCHY

if TYPE_CHECKING:
    from datasets import DatasetDict

SKETCHES = "sketch/tx_000000000000"  # as drawn; the other tx_ folders shift or scale them
PHOTOGRAPHS = "photo/tx_000000000000"
EXTENDED = "EXTEND_image_sketchy"


def load_sketchy(root: str | Path, *, extended: bool | None = None) -> "DatasetDict":
    """Load the sketches and images of the Sketchy database, plain or Extended.

    Sketches are read from ``256x256/sketch/tx_000000000000/<class>/*.png``. The images are those of
    ``256x256/photo/tx_000000000000/<class>/*.jpg``, or in the Extended version those of
    ``EXTEND_image_sketchy_ready/<class>/*.jpg`` alone: that folder also holds the photographs, 12,499 under their
    own names and one as ``camel/c.jpg``. Zip and tar archives of these folders are unpacked beside themselves.
    Nothing else is copied: the data hold paths, and a picture is decoded when its row is read.

    Args:
        root: a folder with ``256x256`` and, if Extended, ``EXTEND_image_sketchy`` or ``EXTEND_image_sketchy_ready``
            in it or up to two levels down; or an archive of such a folder.
        extended: take the Extended images. Default: if they are there, in a folder or an archive.

    Returns:
        ``sketches`` and ``images``, both with the columns ``image`` (RGB), ``label`` (the same sorted class
        names in both) and ``id`` (``"cat/n02121620_1039-3"``); sketches also have ``photo_id``, the id of the
        photograph that was drawn (``"cat/n02121620_1039"``). ``info.dataset_name`` is ``"sketchy"``,
        ``info.config_name`` is ``"plain"`` or ``"extended"``.

    Raises:
        FileNotFoundError: no such folder, a domain's folder is not there, or it or a class holds no pictures.
        ValueError: classes on one side only, or twice in different spellings; a folder that is there twice;
            damaged pictures; an archive that is damaged or refused.
    """
    place = open_root(root)
    if extended is None:
        extended = has_part(place, EXTENDED)
    sketches, images = find_parts("Sketchy", place, [SKETCHES, EXTENDED if extended else PHOTOGRAPHS])
    version, kind = ("extended", "extended images") if extended else ("plain", "photographs")
    return known_set(SKETCHY, sketches, images, version=version, kind=kind, photo_ids=True)
