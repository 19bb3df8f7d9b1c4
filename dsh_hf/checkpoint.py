"""Finding, reading and writing a checkpoint: its folder here or on the Hub, its config, weights and fingerprint."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from dsh_hf.configuration import DSHConfig
from dsh_hf.files import parse_json, replaced_atomically, write_atomically
from dsh_hf.hub import DownloadError, download

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_SAVED = ".saved"  # holds a whole checkpoint on its way into the folder around it
_PORTION = 2**24  # numbers that are read from a checkpoint at once, if not one tensor alone has more


class CheckpointError(OSError):
    """A checkpoint cannot be opened; the message names the file and the way out."""


def find_checkpoint(
    id_or_path: str | os.PathLike,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
) -> Path:
    """Find a checkpoint's folder, downloading its two files from the Hub where need be."""
    name = os.fspath(id_or_path)
    if Path(name).is_dir():
        finish_saving(Path(name))
        return Path(name)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name or Path(name).exists()
    if looks_local:
        raise CheckpointError(f"{name}: no such folder; give a checkpoint's folder or a Hub id like org/name")
    try:
        return download(
            name,
            (CONFIG_NAME, WEIGHTS_NAME),
            what="a dsh_hf checkpoint",
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    except DownloadError as error:
        raise CheckpointError(str(error)) from error


def read_config(path: Path) -> DSHConfig:
    """Read a ``config.json``.

    Raises:
        CheckpointError: it is missing, no JSON, or no config of this library.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a checkpoint needs {CONFIG_NAME} and {WEIGHTS_NAME}")
    try:
        settings = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): download or copy it again") from error
    if not isinstance(settings, dict) or "bits" not in settings:
        raise CheckpointError(f"{path} is not the config of a dsh_hf checkpoint: it has no 'bits'")
    known = {field.name for field in fields(DSHConfig)}
    try:
        config = DSHConfig(**{key: value for key, value in settings.items() if key in known})
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    unknown = sorted(settings.keys() - known)
    if unknown:
        logger.warning("%s: not known to this version of dsh_hf, and left out: %s", path, ", ".join(unknown))
    return config


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> None:
    """Fill tensors from a safetensors file that must hold just these, in these shapes.

    Args:
        path: the file.
        expected: the tensors to fill, by name.

    Raises:
        CheckpointError: the file is missing or damaged, or a tensor is missing, unknown or of another shape.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a checkpoint needs {CONFIG_NAME} and {WEIGHTS_NAME}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or truncated ({error}): download or copy it again") from error
    missing, surplus = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing or surplus:
        raise CheckpointError(
            f"{path} does not fit its {CONFIG_NAME}: missing {missing[:3]} ({len(missing)} in all), "
            f"unknown {surplus[:3]} ({len(surplus)} in all); use the two files of one checkpoint"
        )
    for name, tensor in expected.items():
        if tensor.shape != stored[name]:
            raise CheckpointError(
                f"{path} does not fit its {CONFIG_NAME}: {name} has the shape {stored[name]}, "
                f"expected {tuple(tensor.shape)}"
            )
    # The file is mapped into memory: opened anew for each portion, it is never there as a whole.
    for portion in _portions(expected):
        with torch.no_grad(), safetensors.safe_open(path, framework="pt") as file:
            for name, tensor in portion.items():
                tensor.copy_(file.get_tensor(name))


def write_checkpoint(folder: Path, config: DSHConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write ``model.safetensors``, then ``config.json``, each whole or not at all."""
    from safetensors.torch import save_file

    with replaced_atomically(folder / WEIGHTS_NAME) as temporary:
        save_file(dict(tensors), temporary, metadata={"format": "pt"})
    settings = json.dumps(config.to_dict(), indent=2, sort_keys=True)
    write_atomically(folder / CONFIG_NAME, settings.encode())


def put_in_place(fresh: Path, folder: Path) -> None:
    """Move a checkpoint's files, in a folder of their own, into the one around it: all of them or none.

    The move cannot be stopped half-way for good: from the renaming on, whoever opens or saves the checkpoint next
    finishes it.

    Args:
        fresh: a folder in ``folder``; it is gone afterwards.
        folder: what is in it under the same names is replaced.
    """
    finish_saving(folder)
    fresh.rename(folder / _SAVED)
    finish_saving(folder)


def finish_saving(folder: Path) -> None:
    """Finish a save that was stopped while its files were put in place, if there was one.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    saved = folder / _SAVED
    if not saved.is_dir():
        return
    try:
        with suppress(FileNotFoundError):  # another process finishes it, too
            for file in sorted(saved.iterdir()):
                with suppress(FileNotFoundError):
                    file.replace(folder / file.name)
            saved.rmdir()
    except OSError as error:
        raise CheckpointError(
            f"{folder} was being saved when the process was stopped, and cannot be finished ({error.strerror}): "
            "open it once where it can be written"
        ) from error


def fingerprint(config: DSHConfig, tensors: Mapping[str, Tensor]) -> str:
    """Give the SHA-256 of a config and of tensors as they are stored, in hex; of several lengths, whichever is open."""
    settings = config.to_dict()
    if "lengths" in settings:
        del settings["bits"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _portions(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Part tensors, in order, into portions that have just enough numbers."""
    portion: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        portion[name] = tensor
        if sum(part.numel() for part in portion.values()) > _PORTION:
            yield portion
            portion = {}
    yield portion
