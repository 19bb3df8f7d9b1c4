"""DSHModel: three streams of networks that turn sketches and images into codes of one Hamming space."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from numpy.typing import NDArray
from torch import Tensor, nn

from dsh_hf.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    CheckpointError,
    find_checkpoint,
    fingerprint,
    put_in_place,
    read_config,
    read_weights,
    write_checkpoint,
)
from dsh_hf.codes import Codes, pack_signs
from dsh_hf.configuration import DSHConfig, told
from dsh_hf.encoders import (
    LateFusion,
    SketchHead,
    SkipInitialisation,
    build_trunk,
    fill_head_as_published,
    share_convolutions,
)
from dsh_hf.encoding import encode_pictures
from dsh_hf.processing import Picture, prepare_image, prepare_sketch, sketch_to_tensor_layout
from dsh_hf.tokens import TokenNetwork


class DSHModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="dsh-hf",
    pipeline_tag="image-feature-extraction",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/1703.05605",
    tags=["sketch-based-image-retrieval", "hashing", "image-retrieval", "arxiv:1703.05605"],
):
    """Deep Sketch Hashing: sketches and images to binary codes (Liu et al., CVPR 2017, section 4).

    Free-hand sketches go through the sketch trunk and head. An image goes through its own trunk, and its
    sketch-token, a line drawing that a small network makes of it, through a twin of the sketch trunk which
    shares the convolutions; late fusion joins the two. The sign of each output is one bit of the code.

    Example:
        >>> model = DSHModel.from_pretrained("model_card/dsh-sketchy-subset")  # doctest: +SKIP
        >>> model.encode_images(["a.jpg", "b.png"]).shape  # doctest: +SKIP
        (2, 8)
    """

    _image_mean: Tensor
    _image_std: Tensor
    _sketch_mean: Tensor
    _sketch_std: Tensor

    def __init__(self, config: DSHConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = TokenNetwork(config.token_width)
        self.sketch_trunk = build_trunk(config.sketch_backbone, config.sketch_size)
        self.token_trunk = share_convolutions(self.sketch_trunk)
        self.image_trunk = build_trunk(config.image_backbone, config.image_size)
        self.sketch_head = SketchHead(
            self.sketch_trunk.features, config.sketch_hidden, config.sketch_dropout, sum(config.lengths)
        )
        self.image_head = LateFusion(
            self.token_trunk.features + self.image_trunk.features,
            config.fusion_hidden,
            config.fusion_dropout,
            sum(config.lengths),
        )
        if config.sketch_backbone == "dsh-c2":
            fill_head_as_published(self.sketch_head)
        if config.image_backbone == "caffenet":
            fill_head_as_published(self.image_head)
        for name in ("image_mean", "image_std", "sketch_mean", "sketch_std"):
            value = torch.tensor(getattr(config, name)).reshape(1, 3, 1, 1)
            self.register_buffer(f"_{name}", value, persistent=False)

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the networks compute in: float32 unless the model was cast."""
        return next(self.parameters()).dtype

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the config and of the weights as they are stored, in hex.

        Codes of two models go together only if their fingerprints are equal, and their lengths. A checkpoint of
        several lengths has one fingerprint, whichever length it was opened with.
        """
        return fingerprint(self.config, self._stored_tensors())

    def sketch_outputs(self, sketches: Tensor) -> Tensor:
        """Give the hash layer's outputs F2 for sketches.

        Args:
            sketches: pixels in 0..255 of shape ``(n, 3, sketch_size, sketch_size)``, ink dark on white.

        Returns:
            Real values of shape ``(n, bits)``; the code is their sign.
        """
        return self._of_active_length(self.sketch_outputs_of_all_lengths(sketches))

    def image_outputs(self, images: Tensor) -> Tensor:
        """Give the hash layer's outputs F1 for images; their sketch-tokens are made on the way.

        Args:
            images: RGB pixels in 0..255 of shape ``(n, 3, image_size, image_size)``.

        Returns:
            Real values of shape ``(n, bits)``; the code is their sign.
        """
        return self._of_active_length(self.image_outputs_of_all_lengths(images))

    def sketch_outputs_of_all_lengths(self, sketches: Tensor) -> Tensor:
        """Give what :meth:`sketch_outputs` does for every length: ``(n, sum(lengths))``, see ``config.columns``."""
        outputs = self.sketch_head(self.sketch_features(sketches))
        if self.config.mirror_sketches and not self.training:  # in training, half of the sketches are mirrored anyway
            outputs = (outputs + self.sketch_head(self.sketch_features(sketches.flip(3)))) / 2
        return outputs

    def image_outputs_of_all_lengths(self, images: Tensor) -> Tensor:
        """Give what :meth:`image_outputs` does for every length: ``(n, sum(lengths))``, see ``config.columns``."""
        token_features = self.token_features(self.sketch_tokens(images))
        return self.image_head(token_features, self.image_features(images))

    def _of_active_length(self, outputs: Tensor) -> Tensor:
        return outputs[:, self.config.columns(self.config.bits)]

    def sketch_tokens(self, images: Tensor) -> Tensor:
        """Draw the sketch-tokens of images.

        Args:
            images: RGB pixels in 0..255 of shape ``(n, 3, h, w)``.

        Returns:
            Lines on paper (0 is ink, 1 is paper) of shape ``(n, 1, sketch_size, sketch_size)``.
        """
        size = (self.config.sketch_size, self.config.sketch_size)
        if images.shape[-2:] != size:
            whole = images.float()  # processors reduce pictures in float32 only
            whole = F.interpolate(whole, size=size, mode="bilinear", antialias=True, align_corners=False)
            images = whole.to(images.dtype)
        return self.tokens(images / 255)

    def sketch_features(self, sketches: Tensor) -> Tensor:
        """Give the sketch trunk's features of pixels in 0..255, shape ``(n, 3, sketch_size, sketch_size)``."""
        return self.sketch_trunk(self._normalise_sketches(sketches / 255))

    def token_features(self, tokens: Tensor) -> Tensor:
        """Give the features of sketch-tokens of shape ``(n, 1, sketch_size, sketch_size)``, 0..1."""
        return self.token_trunk(self._normalise_sketches(tokens.expand(-1, 3, -1, -1)))

    def image_features(self, images: Tensor) -> Tensor:
        """Give the image trunk's features of RGB pixels in 0..255, shape ``(n, 3, image_size, image_size)``."""
        pixels = images / 255
        if self.config.channel_order == "bgr":
            pixels = pixels.flip(1)
        return self.image_trunk((pixels - self._image_mean) / self._image_std)

    def _normalise_sketches(self, sketches: Tensor) -> Tensor:
        return (sketches - self._sketch_mean) / self._sketch_std

    def encode_sketches(
        self,
        inputs: Picture | Sequence[Picture],
        *,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        show_progress_bar: bool | None = None,
    ) -> Codes:
        """Turn free-hand sketches into hash codes.

        Args:
            inputs: one drawing or many: paths, PIL images, arrays or a ``datasets`` column. Black on white,
                white on black, transparent, scanned or photographed: all become the same canonical sketch.
            batch_size: pictures that go through the networks at once.
            device: where to compute; by default where the model is, and the model stays there.
            show_progress_bar: ``None`` shows one from a thousand pictures on.

        Returns:
            uint8 codes of shape ``(n, ceil(bits / 8))``, or ``(ceil(bits / 8),)`` for one drawing.

        Raises:
            PictureError: a file is no picture, is damaged, or is an empty sketch; the message names it.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "device": device, "show_progress_bar": show_progress_bar}
        return encode_pictures(self, inputs, self._prepare_sketch, self.sketch_outputs, pack_signs, **options)

    def encode_images(
        self,
        inputs: Picture | Sequence[Picture],
        *,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        show_progress_bar: bool | None = None,
    ) -> Codes:
        """Turn natural images into hash codes; one picture in, one code out.

        Args:
            inputs: one picture or many: paths, PIL images, arrays or a ``datasets`` column.
            batch_size: pictures that go through the networks at once.
            device: where to compute; by default where the model is, and the model stays there.
            show_progress_bar: ``None`` shows one from a thousand pictures on.

        Returns:
            uint8 codes of shape ``(n, ceil(bits / 8))``, or ``(ceil(bits / 8),)`` for one picture.

        Raises:
            PictureError: a file is no picture or is damaged; the message names it.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "device": device, "show_progress_bar": show_progress_bar}
        return encode_pictures(self, inputs, self._prepare_image, self.image_outputs, pack_signs, **options)

    def embed_sketches(
        self,
        inputs: Picture | Sequence[Picture],
        *,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        show_progress_bar: bool | None = None,
    ) -> NDArray[np.float32]:
        """Give the hash layer's real values for free-hand sketches; ``pack_signs`` makes their codes of them.

        Args:
            inputs: one drawing or many; the other arguments, too, are those of :meth:`encode_sketches`.
            batch_size: pictures that go through the networks at once.
            device: where to compute.
            show_progress_bar: whether to show one.

        Returns:
            float32 of shape ``(n, bits)``, or ``(bits,)`` for one drawing.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "device": device, "show_progress_bar": show_progress_bar}
        return encode_pictures(self, inputs, self._prepare_sketch, self.sketch_outputs, np.asarray, **options)

    def embed_images(
        self,
        inputs: Picture | Sequence[Picture],
        *,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        show_progress_bar: bool | None = None,
    ) -> NDArray[np.float32]:
        """Give the hash layer's real values for natural images; ``pack_signs`` makes their codes of them.

        Args:
            inputs: one picture or many; the other arguments, too, are those of :meth:`encode_images`.
            batch_size: pictures that go through the networks at once.
            device: where to compute.
            show_progress_bar: whether to show one.

        Returns:
            float32 of shape ``(n, bits)``, or ``(bits,)`` for one picture.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "device": device, "show_progress_bar": show_progress_bar}
        return encode_pictures(self, inputs, self._prepare_image, self.image_outputs, np.asarray, **options)

    def _prepare_sketch(self, picture: Picture) -> NDArray[np.uint8]:
        return sketch_to_tensor_layout(prepare_sketch(picture, self.config.sketch_size))

    def _prepare_image(self, picture: Picture) -> NDArray[np.uint8]:
        return prepare_image(picture, self.config.image_size)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        id_or_path: str | os.PathLike,
        *,
        bits: int | None = None,
        device: str | torch.device | None = None,
        backend: str = "torch",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
    ) -> "DSHModel":
        """Open a checkpoint: a local folder, or a repository on the Hugging Face Hub.

        Args:
            id_or_path: a folder with ``config.json`` and ``model.safetensors``, or ``"org/name"``.
            bits: the code length, one of those that the checkpoint was trained for; by default the one it was
                saved with.
            device: where to put the model; the CPU by default.
            backend: what computes codes and outputs: ``"torch"``, or ``"onnx"`` for ONNX Runtime, which takes half
                the time or less on a CPU and a minute to export the encoders when it first meets a checkpoint.
            revision: branch, tag or commit on the Hub.
            token: access token for private repositories; by default the one you are logged in with.
            cache_dir: where downloads are kept.
            local_files_only: never ask the network.

        Returns:
            The model, ready to encode (``eval`` mode, float32).

        Raises:
            CheckpointError: no such folder or repository, a file is missing or damaged, or the weights do not
                fit the config. Nothing is ever filled with random weights.
            ValueError: another backend, or ONNX is to compute elsewhere than on a CPU.
        """
        if backend not in ("torch", "onnx"):
            raise ValueError(f"backend must be 'torch' or 'onnx', got {backend!r}")
        folder = find_checkpoint(id_or_path, revision, token, cache_dir, local_files_only)
        config = read_config(folder / CONFIG_NAME)
        if bits is not None and bits not in config.lengths:
            raise CheckpointError(
                f"{id_or_path} makes codes of {told(config.lengths)} bits, not {bits}: open it with "
                f"bits={config.bits}, or train a model with `dsh-hf train --bits {bits}`"
            )
        config.bits = config.bits if bits is None else bits
        try:
            with SkipInitialisation():
                model = cls(config)
        except (RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / CONFIG_NAME}: {error}") from error
        read_weights(folder / WEIGHTS_NAME, model.own_tensors())
        # Channels last is more than twice as fast on CPUs.
        model.to(memory_format=torch.channels_last)
        model.to(device or "cpu").eval()
        if backend == "onnx":
            from dsh_hf.onnx_backend import use_onnx

            use_onnx(model)
        return model

    def own_tensors(self) -> dict[str, Tensor]:
        """Give every tensor of the model once, by name: the shared convolutions under the sketch trunk's."""
        seen: set[int] = set()
        own = {}
        for name, tensor in self.state_dict(keep_vars=True).items():
            if id(tensor) not in seen and not name.endswith("num_batches_tracked"):
                seen.add(id(tensor))
                own[name] = tensor
        return own

    def _stored_tensors(self) -> dict[str, Tensor]:
        """Give the tensors as a checkpoint holds them: matrices and kernels in ``config.dtype``.

        Vectors (biases, BatchNorm) stay in float32: they are a few percent of the bytes, and running
        variances leave float16's range.
        """
        dtype = getattr(torch, self.config.dtype)
        return {
            name: tensor.detach().cpu().to(dtype if tensor.ndim > 1 else torch.float32).contiguous()
            for name, tensor in self.own_tensors().items()
        }

    def save_pretrained(self, save_directory: str | os.PathLike, **arguments: Any) -> str | None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, replacing an earlier checkpoint's at the end.

        All lengths are saved; the one in ``config.bits`` is what the checkpoint opens with.

        Args:
            save_directory: the folder, made where missing.
            arguments: as ``huggingface_hub.PyTorchModelHubMixin.save_pretrained`` takes them.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.get("push_to_hub"):
            arguments.setdefault("repo_id", folder.resolve().name)
        # The mixin deletes the old config.json before it begins, so it gets a folder of its own.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
            fresh = Path(temporary) / "checkpoint"
            answer = super().save_pretrained(fresh, **arguments)
            if (folder / "README.md").exists():  # a card may have been written
                (fresh / "README.md").unlink(missing_ok=True)
            put_in_place(fresh, folder)
        return answer

    def push_to_hub(self, repo_id: str, **arguments: Any) -> str:
        """Send ``config.json`` and ``model.safetensors``, and a short card where there is none.

        Args:
            repo_id: ``"org/name"``.
            arguments: as ``huggingface_hub.PyTorchModelHubMixin`` takes them.

        Raises:
            ValueError: a checkpoint with figures lies there; ``push_to_hub.py`` sends all that belongs together.
        """
        from dsh_hf.publishing import names_to_push

        names = names_to_push(repo_id, arguments.get("branch"), arguments.get("token"))
        address: str = super().push_to_hub(repo_id, **{"allow_patterns": names} | arguments)
        return address

    def _save_pretrained(self, save_directory: Path) -> None:
        # With the config of now: else the mixin writes the first one.
        write_checkpoint(save_directory, self.config, self._stored_tensors())
