"""What people send: drawings in files, and pictures of their own to search. Nothing is believed, little is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures import THUMBNAIL, as_jpeg, small_copy
from PIL import Image

if TYPE_CHECKING:
    import numpy as np

    from dsh_hf.codes import Codes
    from dsh_hf.processing import Picture

LARGEST_FILE = "12mb"  # Gradio cuts off what is larger
MOST_PIXELS = 50_000_000  # decoded, 150 MB
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]  # no SVG: it may hold scripts and ask for other files
MOST_OWN = 24  # pictures of a visitor
OWN_SIZE = 1024  # pixels that are kept of one, longer side


class UploadError(ValueError):
    """A file that was sent is not used; the message names it and says why."""


@dataclass(frozen=True)
class OwnPicture:
    """A visitor's picture: what is left of it is in memory alone.

    Attributes:
        name: its file's.
        code: its code.
        picture: JPEG bytes, reduced.
        thumbnail: JPEG bytes, reduced further.
    """

    name: str
    code: "np.ndarray"
    picture: bytes
    thumbnail: bytes


def upload_folder() -> str:
    """Give the folder that Gradio puts what is sent into."""
    from gradio.utils import get_upload_folder

    return get_upload_folder()


def check_upload(sent: Any) -> tuple[Path, str]:
    """Give path and name of a file that was sent.

    Args:
        sent: what Gradio tells of the file. No path but one in the folder for uploads is opened, though the page's
            programming interface would let another one through.

    Raises:
        UploadError: it lies elsewhere, is no picture of a known kind, or has too many pixels.
    """
    if not isinstance(sent, dict) or not isinstance(sent.get("path"), str):
        raise UploadError("only uploaded files are used")
    path = Path(sent["path"]).resolve()
    if not path.is_relative_to(Path(upload_folder()).resolve()) or not path.is_file():
        raise UploadError("only uploaded files are used")
    name = Path(str(sent.get("orig_name") or path.name)).name
    try:
        with Image.open(path, formats=FORMATS) as picture:  # reads the header alone
            width, height = picture.size
    except (Image.UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, Image.DecompressionBombError):
            raise UploadError(_too_many(name)) from error
        kinds = ", ".join(FORMATS)
        raise UploadError(f"{name} is not a picture that can be read ({kinds})") from error
    if width * height > MOST_PIXELS:
        raise UploadError(_too_many(name))
    return path, name


def add_own(
    own: Sequence[OwnPicture],
    files: Sequence[tuple[Path, str]],
    encode: "Callable[[Sequence[Picture]], Codes]",
) -> tuple[OwnPicture, ...]:
    """Take up a visitor's pictures; their files are deleted.

    Args:
        own: those there before; there may be ``MOST_OWN`` in all.
        files: path and name of each, as :func:`check_upload` gives them.
        encode: makes codes of pictures.

    Raises:
        UploadError: there would be too many, or one is damaged; none is taken up then.
    """
    from dsh_hf.processing import PictureError, open_picture

    try:
        if len(own) + len(files) > MOST_OWN:
            raise UploadError(f"{MOST_OWN} pictures of your own at most: {len(own)} are here, {len(files)} more came")
        pictures = []
        for path, name in files:
            try:
                pictures.append(small_copy(open_picture(path, least_size=OWN_SIZE), OWN_SIZE))
            except (PictureError, OSError) as error:
                raise UploadError(str(error).replace(str(path), name)) from error
        codes = encode(pictures)
    finally:
        for path, _ in files:
            path.unlink(missing_ok=True)
    new = [
        OwnPicture(name, code, as_jpeg(picture), as_jpeg(small_copy(picture, THUMBNAIL)))
        for (_, name), code, picture in zip(files, codes, pictures, strict=True)
    ]
    return (*own, *new)


def _too_many(name: str) -> str:
    return f"{name} has more than {MOST_PIXELS:,} pixels: make it smaller"
