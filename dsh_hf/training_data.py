"""What the networks see while training: pictures prepared once, kept in files, handed out in distorted batches."""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from dsh_hf.augmentation import Draws, distort_images, distort_lines
from dsh_hf.configuration import DSHConfig
from dsh_hf.modeling import DSHModel
from dsh_hf.processes import Processes
from dsh_hf.processing import PictureError, prepare_image, prepare_sketch, prepared_batches
from dsh_hf.training_errors import TrainingError

if TYPE_CHECKING:
    from datasets import Dataset

Rows = NDArray[np.intp]


class PreparedPictures:
    """Sketches, images and the images' sketch-tokens, ready for the networks.

    Args:
        model: its sizes decide how pictures are prepared, and its networks draw the sketch-tokens.
        sketches: a data set with an ``image`` column.
        images: another one.
        folder: where prepared pixels are kept; files of the same data and sizes are used again.
        keep_features: compute the image trunk's features now, for training that leaves the trunk as it is.
        processes: those that share this work; by default this one does it alone.

    Attributes:
        lines: how many rows :meth:`lines_at` knows: the sketches, then the sketch-tokens.

    Raises:
        TrainingError: a picture cannot be used; the message names it.
    """

    def __init__(
        self,
        model: DSHModel,
        sketches: "Dataset",
        images: "Dataset",
        folder: Path,
        *,
        keep_features: bool,
        processes: Processes | None = None,
    ) -> None:
        self._device = model.device
        self._sketches, self._images = prepare_files(model.config, sketches, images, folder)
        size = model.config.sketch_size
        self._tokens = np.empty((len(images), size, size), dtype=np.uint8)
        self._features = self._draw_tokens(model, processes or Processes(model.device), keep_features)
        self.lines = len(self._sketches) + len(self._images)

    def lines_at(self, rows: Rows, part: slice) -> Tensor:
        """Give distorted drawings, 0..1, shape ``(n, 1, h, w)``: sketches come first, then sketch-tokens.

        Args:
            rows: those of a whole batch.
            part: those wanted of it.
        """
        first = len(self._sketches)
        picked = [self._sketches[row] if row < first else self._tokens[row - first] for row in rows[part]]
        lines = torch.from_numpy(np.stack(picked))[:, None].float() / 255
        lines = distort_lines(lines, Draws(len(rows), part))
        return lines.to(self._device).contiguous(memory_format=torch.channels_last)

    def distorted_features(self, model: DSHModel, rows: Rows, part: slice) -> tuple[Tensor, Tensor]:
        """Run the image stream's trunks on distorted pictures; take the image's features where they were kept.

        Args:
            model: the model.
            rows: those of a whole batch.
            part: those wanted of it.

        Returns:
            What the head takes: the features of the sketch-tokens and of the images, one row a picture.
        """
        draws = Draws(len(rows), part)
        if self._features is None:
            pixels = distort_images(self._pixels(rows[part]), draws)
            return model.token_features(model.sketch_tokens(pixels)), model.image_features(pixels)
        tokens = self.lines_at(rows + len(self._sketches), part)
        features = self._features[torch.from_numpy(rows[part]), draws.coins()].to(self._device)
        return model.token_features(tokens), features

    def plain_outputs(self, model: DSHModel, rows: Rows) -> Tensor:
        """Run the image stream on pictures as they are, otherwise as :meth:`distorted_features`."""
        if self._features is None:
            return model.image_outputs_of_all_lengths(self._pixels(rows))
        tokens = torch.from_numpy(self._tokens[rows])[:, None].float().to(self._device) / 255
        return model.image_head(
            model.token_features(tokens), self._features[torch.from_numpy(rows), 0].to(self._device)
        )

    def _draw_tokens(self, model: DSHModel, processes: Processes, keep_features: bool) -> Tensor | None:
        """Draw all sketch-tokens; give the features of the images and their mirror images, ``(n, 2, d)``."""
        model.eval()
        features = []
        everything = np.arange(len(self._images))
        size = 32 * processes.count
        with torch.inference_mode():
            for start in tqdm(
                range(0, len(everything), size), desc="sketch-tokens", unit="batch", disable=not processes.is_main
            ):
                rows = everything[start : start + size]
                pixels = self._pixels(rows[processes.part(len(rows))])
                tokens = (model.sketch_tokens(pixels)[:, 0] * 255).round().byte()
                self._tokens[rows] = processes.whole(tokens, len(rows)).cpu().numpy()
                if keep_features:
                    both = torch.stack([model.image_features(pixels), model.image_features(pixels.flip(3))], dim=1)
                    features.append(processes.whole(both, len(rows)).cpu())
        return torch.cat(features).clone() if features else None  # clone: an inference tensor cannot train

    def _pixels(self, rows: Rows) -> Tensor:
        # Fancy indexing copies out of the file; the channels-last layout is the file's own.
        return torch.from_numpy(self._images[rows]).to(self._device).permute(0, 3, 1, 2).float()


def prepare_files(
    config: DSHConfig, sketches: "Dataset", images: "Dataset", folder: Path
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give the prepared pixels of both data sets, made now where the folder does not have them yet."""
    size, side = config.sketch_size, config.image_size
    return (
        _prepared(folder, "sketches", sketches, lambda p: prepare_sketch(p, size), (size, size)),
        _prepared(folder, "images", images, lambda p: prepare_image(p, side), (side, side, 3)),
    )


def check_data(data: Mapping[str, "Dataset"], lone_classes: bool = False) -> list[str]:
    """Check that there is something to train on, and give the names of the classes.

    Args:
        data: the parts, by name.
        lone_classes: allow classes with pictures in one domain alone.

    Raises:
        TrainingError: a part is empty, the parts' classes differ, or a class has too few pictures in one domain.
    """
    sketches, images = data["train_sketches"], data["train_images"]
    for name, part in (("sketches", sketches), ("images", images)):
        if not len(part):
            raise TrainingError(f"there are no {name} to train on (TU-Berlin has images in its Extended version only)")
    if "validation_sketches" in data and not len(data["validation_sketches"]):
        raise TrainingError("the split has no validation sketches: train without them")
    classes: list[str] = list(sketches.features["label"].names)
    if classes != list(images.features["label"].names):
        raise TrainingError("sketches and images have different class names: load them together")
    if lone_classes:
        return classes
    of_sketches, of_images = (
        np.bincount(np.asarray(part["label"]), minlength=len(classes)) for part in (sketches, images)
    )
    for name, own in (("sketches", of_sketches), ("images", of_images)):
        # A class with nothing in either is one that was left out on purpose.
        short = [
            f"{classes[label]} ({own[label]})" for label in np.flatnonzero((own < 2) & (of_sketches + of_images > 0))
        ]
        if short:
            raise TrainingError(
                f"{len(short)} of the classes have too few {name} to train on: {', '.join(short[:5])}; each needs two. "
                "Add some, or leave the class out"
            )
    return classes


def undecoded(dataset: "Dataset") -> Any:
    """Give the image column as paths or bytes: the decoding is ours, and it runs in threads."""
    from datasets import Image

    return dataset.cast_column("image", Image(decode=False))["image"]


def data_identity(dataset: "Dataset") -> str:
    """Tell data sets apart, and a data set from what it was before one of its files changed."""
    digest = hashlib.sha256(dataset._fingerprint.encode())
    for picture in undecoded(dataset):
        if picture["bytes"] is None and os.path.isfile(picture["path"]):
            status = os.stat(picture["path"])
            digest.update(f"{picture['path']} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _faults(pictures: Any, prepare: Callable[[Any], NDArray[np.uint8]]) -> list[str]:
    """Say what is wrong with each picture that cannot be used."""
    faults = []
    for picture in pictures:
        try:
            prepare(picture)
        except (PictureError, FileNotFoundError) as error:
            faults.append(str(error))
    return faults


def _prepared(
    folder: Path,
    name: str,
    dataset: "Dataset",
    prepare: Callable[[Any], NDArray[np.uint8]],
    shape: tuple[int, ...],
) -> NDArray[np.uint8]:
    """Prepare a data set's pictures into a file, or open the file where that is done."""
    key = hashlib.sha256(f"{data_identity(dataset)} {shape}".encode()).hexdigest()[:16]
    path = folder / f"{name}-{key}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = len(dataset) * math.prod(shape), shutil.disk_usage(folder).free
        if needed > free:  # writing into a mapped file that outgrows the disk would kill the process
            raise TrainingError(f"{folder} has no room for the prepared {name}: {needed / 1e9:.1f} GB are needed")
        temporary = path.with_suffix(".tmp")
        pixels = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(dataset), *shape))
        done = 0
        with tqdm(total=len(dataset), desc=f"prepare {name}", unit="picture") as bar:
            try:
                for batch in prepared_batches(undecoded(dataset), prepare, 64):
                    pixels[done : done + len(batch)] = batch
                    done += len(batch)
                    bar.update(len(batch))
            except (PictureError, FileNotFoundError) as error:
                faults = _faults(undecoded(dataset), prepare)
                raise TrainingError(
                    f"{len(faults)} of the {name} cannot be used: {'; '.join(faults[:5])}. "
                    "Remove or replace them, then start again"
                ) from error
        pixels.flush()
        temporary.replace(path)
    return np.load(path, mmap_mode="r")
