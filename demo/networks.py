"""The networks as the page uses them: on the GPU where there is one, on a borrowed one in a ZeroGPU Space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dsh_hf import DSHModel
    from dsh_hf.processing import Picture

    Outputs = NDArray[np.float32]  # of shape (bits,) for one picture, (n, bits) for several


@dataclass(frozen=True)
class Networks:
    """What the page asks of a model.

    Attributes:
        model: the model itself, for its code length, fingerprint and device.
        embed_sketch: gives the float outputs of one drawing, and the device that made them.
        embed_images: gives the float outputs of pictures; their signs are the codes' bits.
        draw_token: gives a picture's sketch-token, a grey picture.
    """

    model: "DSHModel"
    embed_sketch: Callable[["Picture"], tuple["Outputs", str]]
    embed_images: Callable[[Sequence["Picture"]], "Outputs"]
    draw_token: Callable[["Picture"], Image.Image]


def open_networks(model: "DSHModel") -> Networks:
    """Make a model's networks ready for the page."""
    import torch

    from dsh_hf.processing import prepare_image

    def embed_sketch(drawing: "Picture") -> tuple["Outputs", str]:
        return model.embed_sketches(drawing), str(model.device)

    def embed_images(pictures: Sequence["Picture"]) -> "Outputs":
        return model.embed_images(pictures)

    def draw_token(picture: "Picture") -> Image.Image:
        pixels = torch.from_numpy(prepare_image(picture, model.config.image_size).copy())
        with torch.inference_mode():
            images = pixels.permute(2, 0, 1)[None].to(model.device, model.dtype)
            token = model.sketch_tokens(images)[0, 0].float().cpu()
        return Image.fromarray((255 * token).round().byte().numpy())

    return Networks(model, *(on_gpu(model, function) for function in (embed_sketch, embed_images, draw_token)))


def first_device() -> str:
    """Give the device to load a model on: where GPUs are borrowed, there is none before the first call."""
    if _spaces():  # first of all: it must come before torch is asked for a GPU
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def on_gpu(model: "DSHModel", function: Callable[..., Any]) -> Callable[..., Any]:
    """Borrow a GPU for each call where the package ``spaces`` is there; elsewhere nothing changes."""
    spaces = _spaces()
    if spaces is None:
        return function
    import torch

    def borrowing(*given: Any) -> Any:
        if torch.cuda.is_available():
            model.to("cuda")  # nothing to do from the second time on
        return function(*given)

    return spaces.GPU(borrowing)


def _spaces() -> Any:
    try:
        return import_module("spaces")
    except ImportError:
        return None
