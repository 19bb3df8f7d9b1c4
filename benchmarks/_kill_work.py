"""What is killed: training, indexing, encoding and saving, small enough that hundreds of runs take minutes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from dsh_hf import DSHConfig, DSHModel
from dsh_hf.index import open_index

NAMES = ["cross", "disc", "square"]
_BITS = 16
Work = Callable[[Path, Callable[[], None]], None]  # takes a folder, and what is called after each whole step


def _model(seed: int) -> DSHModel:
    torch.manual_seed(seed)
    return DSHModel(_networks()).eval()


def _networks() -> DSHConfig:
    small: dict[str, Any] = {"image_size": 32, "sketch_size": 32, "sketch_hidden": [16], "fusion_hidden": [16]}
    backbones: dict[str, Any] = {"image_backbone": "test_efficientnet", "sketch_backbone": "test_efficientnet"}
    return DSHConfig(bits=_BITS, classes=NAMES, **small, **backbones)


def draw_pictures(folder: Path, each: int = 8) -> None:
    """Draw some shapes of each class, in folders ``sketches`` and ``images``."""
    rng = np.random.default_rng(0)
    for domain in ("sketches", "images"):
        for name in NAMES:
            (folder / domain / name).mkdir(parents=True)
            for number in range(each):
                picture = Image.new("RGB", (48, 48), "white")
                x, y, side = (int(rng.integers(low, high)) for low, high in ((2, 10), (2, 10), (20, 35)))
                box, pen = (x, y, x + side, y + side), ImageDraw.Draw(picture)
                fill = tuple(rng.integers(0, 200, 3).tolist()) if domain == "images" else None
                if name == "cross":
                    pen.line(box, "black", 4)
                    pen.line((x, y + side, x + side, y), "black", 4)
                else:
                    (pen.ellipse if name == "disc" else pen.rectangle)(box, fill, "black", 3)
                picture.save(folder / domain / name / f"{number}.png")


def train(pictures: Path) -> Work:
    """Train four rounds; a step is a round."""
    import torch.utils.tensorboard  # noqa: F401 (each run would load it for itself)

    from dsh_hf.data import load_folders
    from dsh_hf.training import Trainer, TrainingConfig

    _model(0)
    data = load_folders(sketches=pictures / "sketches", images=pictures / "images")
    parts = {"train_sketches": data["sketches"], "train_images": data["images"]}
    settings: dict[str, Any] = {"rounds": 4, "batch_size": 8, "imagenet_weights": False}

    def work(folder: Path, step: Callable[[], None]) -> None:
        trainer = Trainer(TrainingConfig(model=_networks(), **settings), parts, folder, word_vectors=np.eye(3))
        run = trainer._round

        def noted(*given: Any) -> dict[str, Any]:
            step()
            return run(*given)

        trainer._round = noted  # type: ignore[assignment,method-assign]
        trainer.train()

    return work


def index(pictures: Path) -> Work:
    """Run ``dsh-hf index`` on a folder of pictures; a step is a save of the growing gallery."""
    from dsh_hf.cli import main
    from dsh_hf.gallery import building, store

    checkpoint = pictures.parent / "checkpoint"
    _model(0).save_pretrained(checkpoint)
    building._PORTION, building._BATCHES = 6, 1

    def work(folder: Path, step: Callable[[], None]) -> None:
        save = store.Gallery.save

        def noted(*given: Any) -> None:
            step()
            save(*given)

        store.Gallery.save = noted  # type: ignore[assignment,method-assign]
        status = main(["index", str(pictures / "images"), "--out", str(folder), "--checkpoint", str(checkpoint)])
        if status:
            raise RuntimeError(f"dsh-hf index ended with {status}")

    return work


def encode(pictures: Path) -> Work:
    """Run ``dsh-hf encode`` on a folder of pictures; a step is a file of codes that is there."""
    from dsh_hf.bulk import running
    from dsh_hf.cli import main

    checkpoint = pictures.parent / "checkpoint"
    _model(0).save_pretrained(checkpoint)
    write = running.write_atomically

    def work(folder: Path, step: Callable[[], None]) -> None:
        def noted(*given: Any) -> None:
            write(*given)
            step()

        running.write_atomically = noted  # type: ignore[assignment]
        given = [str(pictures / "images"), str(folder), "--checkpoint", str(checkpoint), "--part-rows", "6"]
        status = main(["encode", *given])
        if status:
            raise RuntimeError(f"dsh-hf encode ended with {status}")

    return work


def models_to_save() -> list[DSHModel]:
    """Give two models that differ in config and weights, and in no shape."""
    one, other = _model(1), _model(2)
    other.config = replace(other.config, classes=NAMES[::-1])
    return [one, other]


def indexes_to_save() -> list[Any]:
    """Give two indexes of other sizes."""
    made = []
    for count in (2_000, 3_000):
        index = open_index("exact", bits=_BITS, fingerprint="f")
        index.add(np.random.default_rng(count).integers(0, 256, (count, _BITS // 8), dtype=np.uint8))
        made.append(index)
    return made
