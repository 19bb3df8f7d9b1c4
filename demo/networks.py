"""The networks as the page uses them: on the GPU where there is one, on a borrowed one in a ZeroGPU Space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

if TYPE_CHECKING:
    from dsh_hf import DSHModel
    from dsh_hf.codes import Codes
    from dsh_hf.processing import Picture

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Networks:
    """What the page asks of a model.

    Attributes:
        model: the model itself, for its code length, fingerprint and device.
        encode_sketch: gives the code of one drawing.
        encode_images: gives the codes of pictures.
        draw_token: gives a picture's sketch-token, a grey picture.
    """

    model: "DSHModel"
    encode_sketch: Callable[["Picture"], "Codes"]
    encode_images: Callable[[Sequence["Picture"]], "Codes"]
    draw_token: Callable[["Picture"], Image.Image]


def open_networks(model: "DSHModel") -> Networks:
    """Make a model's networks ready for the page."""
    import torch

    from dsh_hf.processing import prepare_image

    @on_gpu
    def encode_sketch(drawing: "Picture") -> "Codes":
        return model.encode_sketches(drawing)

    @on_gpu
    def encode_images(pictures: Sequence["Picture"]) -> "Codes":
        return model.encode_images(pictures)

    @on_gpu
    def draw_token(picture: "Picture") -> Image.Image:
        pixels = torch.from_numpy(prepare_image(picture, model.config.image_size).copy())
        with torch.inference_mode():
            images = pixels.permute(2, 0, 1)[None].to(model.device, model.dtype)
            token = model.sketch_tokens(images)[0, 0].float().cpu()
        return Image.fromarray((255 * token).round().byte().numpy())

    return Networks(model, encode_sketch, encode_images, draw_token)


def on_gpu(function: Function) -> Function:
    """Borrow a GPU for each call where the package ``spaces`` is there; elsewhere nothing changes."""
    try:
        spaces = import_module("spaces")
    except ImportError:
        return function
    return spaces.GPU(function)
