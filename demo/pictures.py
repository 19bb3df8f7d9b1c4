"""Pictures as the page sends them: small copies, JPEG, inside the page itself, so that no file is served."""

import base64
import io

from PIL import Image

THUMBNAIL = 256  # pixels, longer side


def small_copy(picture: Image.Image, size: int) -> Image.Image:
    """Give an RGB copy whose longer side is ``size`` pixels at most, transparent parts white."""
    from dsh_hf.processing import to_eight_bits

    picture = to_eight_bits(picture).copy()
    picture.thumbnail((size, size))
    rgba = picture.convert("RGBA")
    paper = Image.new("RGB", rgba.size, "white")
    paper.paste(rgba, mask=rgba)
    return paper


def as_jpeg(picture: Image.Image) -> bytes:
    """Give a picture as a JPEG file, with nothing in it but the pixels: no place, no camera."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def open_jpeg(content: bytes) -> Image.Image:
    """Open a JPEG file that is in memory."""
    return Image.open(io.BytesIO(content))


def as_address(jpeg: bytes) -> str:
    """Give a JPEG file as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
