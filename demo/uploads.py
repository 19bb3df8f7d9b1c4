"""What people send: drawings in files, and pictures of their own to search. Nothing is believed, little is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pictures import THUMBNAIL, as_jpeg, small_copy
from PIL import Image

if TYPE_CHECKING:
    import numpy as np

    from dsh_hf.processing import Picture

LARGEST_FILE = "12mb"  # Gradio cuts off what is larger
MOST_PIXELS = 25_000_000  # decoded, 75 MB; everybody's strokes wait for as long
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]  # no SVG: it may hold scripts and ask for other files
MOST_OWN = 24  # pictures of a visitor
OWN_SIZE = 512  # pixels that are kept of one, longer side
ONLY_UPLOADS = "only uploaded files are used"


class UploadError(ValueError):
    """A file that was sent is not used; the message names it and says why."""


@dataclass(frozen=True)
class OwnPicture:
    """A visitor's picture: what is left of it is in memory alone.

    Attributes:
        name: its file's.
        outputs: float outputs of the networks, shape ``(bits,)``.
        picture: JPEG bytes, reduced.
        thumbnail: JPEG bytes, reduced further.
    """

    name: str
    outputs: "np.ndarray"
    picture: bytes
    thumbnail: bytes


def upload_folder() -> str:
    """Give the folder that Gradio puts what is sent into."""
    from gradio.utils import get_upload_folder

    return get_upload_folder()


def refuse_addresses() -> None:
    """Keep Gradio from fetching what lies elsewhere: it takes an address in place of any file, and asks for it.

    Gradio has no option for this. What is replaced is all that it fetches with for those who ask the page.
    """
    import gradio as gr
    from fastapi import HTTPException
    from gradio import processing_utils, routes

    async def refuse(*_: Any, **__: Any) -> NoReturn:
        raise gr.Error(ONLY_UPLOADS, print_exception=False)

    async def forbid(*_: Any, **__: Any) -> NoReturn:
        raise HTTPException(403, ONLY_UPLOADS)

    processing_utils.async_ssrf_protected_download = refuse
    processing_utils.async_ssrf_protected_get = refuse
    routes.secure_url_stream_response = forbid  # "/file=" with an address


def check_upload(sent: Any) -> tuple[Path, str]:
    """Give path and name of a picture that was sent.

    Args:
        sent: what Gradio tells of the file.

    Raises:
        UploadError: it lies elsewhere, is no picture of a known kind, or has too many pixels.
    """
    path, name = find_upload(sent)
    _check_picture(path, name)
    return path, name


def find_upload(sent: Any) -> tuple[Path, str]:
    """Give path and name of a file that was sent.

    Args:
        sent: what Gradio tells of the file. No path but one in the folder for uploads is taken, though the page's
            programming interface would let another one through.

    Raises:
        UploadError: it lies elsewhere.
    """
    if not isinstance(sent, dict) or not isinstance(sent.get("path"), str):
        raise UploadError(ONLY_UPLOADS)
    path = Path(sent["path"]).resolve()
    if not path.is_relative_to(Path(upload_folder()).resolve()) or not path.is_file():
        raise UploadError(ONLY_UPLOADS)
    return path, Path(str(sent.get("orig_name") or path.name)).name


def _check_picture(path: Path, name: str) -> None:
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


def add_own(
    own: Sequence[OwnPicture],
    files: Sequence[tuple[Path, str]],
    embed: "Callable[[Sequence[Picture]], np.ndarray]",
) -> tuple[tuple[OwnPicture, ...], list[str]]:
    """Take up a visitor's pictures; their files are not needed any more, and are deleted with all uploads.

    Not here: whoever sends the same picture at the same time has the same file.

    Args:
        own: those there before; there may be ``MOST_OWN`` in all.
        files: path and name of each, as :func:`find_upload` gives them.
        embed: gives the float outputs of pictures.

    Returns:
        The visitor's pictures, and what is wrong with each that is not among them.
    """
    from dsh_hf.processing import PictureError, open_picture

    names: list[str] = []
    pictures: list[Image.Image] = []
    faults: list[str] = []
    for path, name in files:
        try:
            if len(own) + len(pictures) == MOST_OWN:
                raise UploadError(f"{name} is one too many: {MOST_OWN} pictures of your own at most")
            _check_picture(path, name)
            pictures.append(small_copy(open_picture(path, least_size=OWN_SIZE), OWN_SIZE))
            names.append(name)
        except UploadError as error:
            faults.append(str(error))
        except (PictureError, OSError) as error:
            faults.append(str(error).replace(str(path), name))
    if not pictures:
        return tuple(own), faults
    new = [
        OwnPicture(name, outputs, as_jpeg(picture), as_jpeg(small_copy(picture, THUMBNAIL)))
        for name, outputs, picture in zip(names, embed(pictures), pictures, strict=True)
    ]
    return (*own, *new), faults


def _too_many(name: str) -> str:
    return f"{name} has more than {MOST_PIXELS:,} pixels: make it smaller"
