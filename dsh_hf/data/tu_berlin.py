"""The TU-Berlin sketches and the images of their Extension, read as people have them."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from dsh_hf.data.assemble import known_set
from dsh_hf.data.layout import find_parts, has_part, open_root
from dsh_hf.data.published import TU_BERLIN

if TYPE_CHECKING:
    from datasets import DatasetDict

logger = logging.getLogger(__name__)

SKETCHES = "png"
EXTENDED = "ImageResized"


def load_tu_berlin(root: str | Path, *, extended: bool | None = None) -> "DatasetDict":
    """Load the TU-Berlin sketches, and the images of the Extended version.

    Sketches are read from ``png/<class>/<n>.png``, images from ``ImageResized_ready/<class>/*.jpg`` or
    ``ImageResized/<class>/*.jpg``. The class names of the two differ in spaces and the like (``bear (animal)``,
    ``bear_(animal)``): only letters and digits count, case aside, and the sketches' names are shown. Zip and tar
    archives of these folders are unpacked beside themselves. Nothing else is copied: the data hold paths, and a
    picture is decoded when its row is read.

    Args:
        root: a folder with these folders in it or up to three levels down; or an archive of such a folder.
        extended: take the images, too. Default: if they are there, in a folder or an archive.

    Returns:
        ``sketches`` and ``images``, both with the columns ``image`` (RGB), ``label`` (the same sorted class
        names in both) and ``id`` (``"bear (animal)/1201"``). The plain TU-Berlin has no images: ``images`` is
        without rows. ``info.dataset_name`` is ``"tu-berlin"``, ``info.config_name`` ``"plain"`` or ``"extended"``.

    Raises:
        FileNotFoundError: no such folder, a domain's folder is not there, or it or a class holds no pictures.
        ValueError: classes on one side only, or twice in different spellings; a folder that is there twice;
            damaged pictures; an archive that is damaged or refused.
    """
    place = open_root(root)
    if extended is None:
        extended = has_part(place, EXTENDED)
        if not extended:
            logger.warning("TU-Berlin: no %s in %s: sketches alone are loaded", EXTENDED, place)
    parts = find_parts("TU-Berlin", place, [SKETCHES, EXTENDED] if extended else [SKETCHES])
    images = parts[1] if extended else None
    version = "extended" if extended else "plain"
    return known_set(TU_BERLIN, parts[0], images, version=version)
