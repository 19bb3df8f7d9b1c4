"""What lies beside the weights: the model card, and probe pictures with the codes the model gave them."""

import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import code_bytes
from dsh_hf.data.zero_shot import UNSEEN_CLASSES
from dsh_hf.files import write_atomically

if TYPE_CHECKING:
    from dsh_hf.modeling import DSHModel

CARD_NAME = "README.md"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CURVE_NAME = "pr_curve.png"
SHEET_NAME = "sheet.png"
TOKENS_NAME = "tokens.png"
EVALUATION_NAME = "evaluation.json"
PROBES_NAME = "probes.json"
TRAINING_NAME = "training.json"

TEMPLATE = Path(__file__).with_name("model_card_template.md")

_TASK = "image-feature-extraction"  # the Hub's list of tasks has none for retrieval by sketch
_TAGS = ["sketch-based-image-retrieval", "hashing", "image-retrieval", "arxiv:1703.05605"]
_UNSEEN_NOTE = "Neither sketches nor photographs of the measured classes were seen in training."
_SPLIT_NOTES = {  # of every split there is, and of none
    "open": "The photographs of the gallery were training data too, as in the paper; the sketches were not.",
    "paper": (
        "The queries are as many of each class as in the paper, and were not trained on; the photographs of the "
        "gallery were, as in the paper."
    ),
    "strict": "Neither the sketches nor the photographs of the gallery were seen in training.",
    "zero-shot": _UNSEEN_NOTE,
    **dict.fromkeys(UNSEEN_CLASSES, _UNSEEN_NOTE),
    "whole": (
        "Nothing was held out: every sketch searches every photograph, also those that the model was trained on, if "
        "it was trained on this data set."
    ),
}
_CONFIG_KEYS = ["bits", "image_backbone", "sketch_backbone", "image_size", "sketch_size"]
_EVALUATION_KEYS = [
    *("fingerprint", "bits", "dataset", "split", "seed", "queries", "gallery", "command"),
    *("map", "map_interval", "precision_at", "precision_radius_2", "map_by_class"),
]
_SPEED_KEYS = ["images_per_second", "sketches_per_second", "machine"]
_TRAINING_KEYS = ["command", "seconds", "machine", "seed", "data", "initial_weights"]
_PROBE_SIZE = 128
_EXTREMES = 5  # categories listed as failing most, and as doing best


def write_card(folder: str | os.PathLike, repo_id: str | None = None) -> Path:
    """Write a checkpoint's ``README.md`` from its config, its weights, ``evaluation.json`` and ``training.json``.

    Pictures beside them are shown: ``sheet.png``, ``pr_curve.png``, ``tokens.png``.

    Args:
        folder: the checkpoint. Without a ``training.json`` the card says nothing about training, without
            ``speed`` in ``evaluation.json`` nothing about speed.
        repo_id: the name on the Hub, ``"org/name"``, for the card's title and snippet; by default the folder's name.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: ``config.json``, ``model.safetensors`` or ``evaluation.json`` is missing.
        ValueError: a file is no JSON, lacks a key (the message names both), is of another code length, or holds a
            figure that is no number.
    """
    path = Path(folder) / CARD_NAME
    write_atomically(path, render_card(folder, repo_id).encode())
    return path


def render_card(folder: str | os.PathLike, repo_id: str | None = None) -> str:
    """Give the text that :func:`write_card` writes."""
    from huggingface_hub import ModelCard, ModelCardData

    folder = Path(folder).resolve()
    name = repo_id or folder.name
    title = name.rpartition("/")[2]
    config = read_record(folder / CONFIG_NAME, _CONFIG_KEYS)
    evaluation = read_record(folder / EVALUATION_NAME, _EVALUATION_KEYS)
    if evaluation["bits"] != config["bits"]:
        raise ValueError(
            f"{folder / EVALUATION_NAME} is of codes of {evaluation['bits']} bits, the model makes "
            f"{config['bits']}: evaluate this model"
        )
    _check_figures(folder / EVALUATION_NAME, evaluation)
    training = None
    if (folder / TRAINING_NAME).exists():
        training = read_record(folder / TRAINING_NAME, _TRAINING_KEYS)
        for at, item in enumerate(training["data"]):
            _check_keys(f"{folder / TRAINING_NAME}, data[{at}]", item, ["name", "terms", "items"])
        for at, item in enumerate(training["initial_weights"]):
            _check_keys(f"{folder / TRAINING_NAME}, initial_weights[{at}]", item, ["name", "terms"])
    card_data = ModelCardData(
        library_name="dsh-hf",
        pipeline_tag=_TASK,
        license="apache-2.0",
        tags=list(_TAGS),
        model_name=title,
        eval_results=_results(evaluation),
    )
    card = ModelCard.from_template(
        card_data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=title,
        name=name,
        config=config,
        code_bytes=code_bytes(config["bits"]),
        evaluation=evaluation,
        size=_size(folder / WEIGHTS_NAME),
        speed=evaluation.get("speed"),
        **_by_class(evaluation),
        has_sheet=(folder / SHEET_NAME).is_file(),
        has_curve=(folder / CURVE_NAME).is_file(),
        has_tokens=(folder / TOKENS_NAME).is_file(),
        split_note=_SPLIT_NOTES.get(evaluation["split"]),
        training=training,
        duration=_duration(training["seconds"]) if training else None,
        start_duration=_duration(training["start"]["seconds"]) if training and "start" in training else None,
        other_lengths=_other_lengths(folder, config, evaluation),
    )
    return str(card)


def check_card(folder: str | os.PathLike) -> str:
    """Check that the folder's ``README.md`` is the card that its figures give, and give its text.

    Which name the card was written for does not matter: the folder may have another one by now.

    Raises:
        FileNotFoundError: there is no ``README.md``.
        ValueError: its front matter cannot be read, or names another library or no licence.
    """
    from huggingface_hub import ModelCard

    path = Path(folder) / CARD_NAME
    way_out = "write it with dsh_hf.model_card.write_card"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {way_out}")
    try:
        card = ModelCard.load(path)
    except Exception as error:  # the YAML parser's errors share no base class with ours
        raise ValueError(f"{path}: the front matter cannot be read ({error}): {way_out}") from error
    if card.data.library_name != "dsh-hf" or not card.data.license:
        raise ValueError(f"{path}: the front matter needs library_name: dsh-hf and a license; {way_out}")
    named = re.search(r'from_pretrained\("([^"]+)"\)', card.text)
    if named is None or str(card) != str(ModelCard(render_card(folder, named[1]))):
        raise ValueError(f"{path} is not what {EVALUATION_NAME}, {TRAINING_NAME} and {CONFIG_NAME} give: {way_out}")
    return str(card)


def write_probes(model: "DSHModel", folder: str | os.PathLike) -> Path:
    """Write ``probes.json``: the codes that ``model`` gives the probe pictures, as sketches and as images.

    Returns:
        The path of the file.
    """
    codes = probe_codes(model)
    probes = {
        "fingerprint": model.fingerprint,
        "bits": model.config.bits,
        "images": [
            {"name": name, "sketch": sketch.tobytes().hex(), "image": image.tobytes().hex()}
            for name, sketch, image in zip(probe_pictures(), codes["sketch"], codes["image"], strict=True)
        ],
    }
    path = Path(folder) / PROBES_NAME
    write_atomically(path, (json.dumps(probes, indent=2) + "\n").encode())
    return path


def check_probes(model: "DSHModel", folder: str | os.PathLike, tolerance_bits: int = 0) -> None:
    """Check that ``model`` gives the probe pictures the codes stored in the folder's ``probes.json``.

    Args:
        model: the model, as it was opened.
        folder: where ``probes.json`` lies.
        tolerance_bits: bits of a code that may differ; sums are rounded otherwise on other hardware.

    Raises:
        FileNotFoundError: there is no ``probes.json``.
        ValueError: it is of another model, lacks a picture, or a code differs; the message says which.
    """
    path = Path(folder) / PROBES_NAME
    probes = read_record(path, ["fingerprint", "bits", "images"])
    way_out = "write it anew with dsh_hf.model_card.write_probes if these weights are the ones you mean"
    if probes["fingerprint"] != model.fingerprint:
        raise ValueError(
            f"{path} is of a model with the fingerprint {probes['fingerprint']}, the weights here have "
            f"{model.fingerprint}: {way_out}"
        )
    for at, item in enumerate(probes["images"]):
        _check_keys(f"{path}, images[{at}]", item, ["name", "sketch", "image"])
    stored = {item["name"]: item for item in probes["images"]}
    for kind, codes in probe_codes(model).items():
        for name, code in zip(probe_pictures(), codes, strict=True):
            expected = str(stored.get(name, {}).get(kind))
            if not re.fullmatch(f"[0-9a-f]{{{2 * len(code)}}}", expected):
                raise ValueError(f"{path}: the picture {name!r} has no {kind} code of {len(code)} bytes: {way_out}")
            differing = (int.from_bytes(code.tobytes()) ^ int(expected, 16)).bit_count()
            if differing > tolerance_bits:
                raise ValueError(
                    f"{path}: the {kind} code of the picture {name!r} differs from the model's in "
                    f"{differing} of {model.config.bits} bits: {way_out}"
                )


def probe_codes(model: "DSHModel") -> dict[str, NDArray[np.uint8]]:
    """Encode the probe pictures as sketches and as images: uint8 codes of shape ``(3, bytes)`` each."""
    pictures = list(probe_pictures().values())
    return {"sketch": model.encode_sketches(pictures), "image": model.encode_images(pictures)}


def probe_pictures() -> dict[str, NDArray[np.uint8]]:
    """Draw the probe pictures: a disc, a house and stripes, black on white, uint8 of shape (128, 128, 3).

    Whole numbers alone decide each pixel, so that they are the same with every version of every library.
    """
    y, x = np.mgrid[:_PROBE_SIZE, :_PROBE_SIZE]
    walls = (abs(x - 64) <= 36) & (y >= 60) & (y <= 110)
    roof = (y >= 20) & (y < 60) & (abs(x - 64) <= y - 16)
    ink = {
        "disc": (x - 64) ** 2 + (y - 64) ** 2 <= 44**2,
        "house": walls | roof,
        "stripes": (x // 8) % 3 == 0,
    }
    return {name: np.repeat(np.where(mask, 0, 255).astype(np.uint8)[..., None], 3, -1) for name, mask in ink.items()}


def read_record(path: Path, keys: list[str]) -> dict[str, Any]:
    """Read a JSON object that holds at least ``keys``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON object, or a key is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a checkpoint to publish has it")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): write it anew") from error
    _check_keys(str(path), record, keys)
    return record


def _check_keys(place: str, record: Any, keys: list[str]) -> None:
    missing = [key for key in keys if key not in record] if isinstance(record, dict) else keys
    if missing:
        raise ValueError(f"{place}: the key {missing[0]!r} is missing; needed are {', '.join(keys)}")


def _check_figures(path: Path, evaluation: dict[str, Any]) -> None:
    """Check that the figures are numbers: JSON as Python reads it may hold NaN, which the Hub's YAML may not."""
    if "speed" in evaluation:
        _check_keys(f"{path}, speed", evaluation["speed"], _SPEED_KEYS)
    figures = {"map": evaluation["map"], "precision_radius_2": evaluation["precision_radius_2"]}
    figures |= {f"precision_at {k}": value for k, value in evaluation["precision_at"].items()}
    figures |= {f"map_by_class {name}": value for name, value in evaluation["map_by_class"].items()}
    for name, value in figures.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{path}: {name} is {value!r}, which is no figure: evaluate this model anew")


def _by_class(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Give what the card says of single categories: all, how many fail, and pairs of a bad one and a good one."""
    ranked = sorted(evaluation["map_by_class"].items(), key=lambda item: (item[1], item[0]))
    shown = min(_EXTREMES, len(ranked) // 2)
    extremes = list(zip(ranked[:shown], reversed(ranked[-shown:]), strict=True)) if shown else []
    failing = sum(value < evaluation["map"] / 2 for _, value in ranked)
    return {"by_class": ranked, "failing": failing, "extremes": extremes}


def _size(path: Path) -> dict[str, Any]:
    """Give how many numbers the weights are, how they are stored, and in how many bytes."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a checkpoint to publish has it")
    try:
        with safe_open(path, framework="np") as file:
            tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
            numbers = sum(math.prod(tensor.get_shape()) for tensor in tensors)
            dtypes = sorted({tensor.get_dtype() for tensor in tensors})
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}): download or copy it again") from error
    return {"numbers": numbers, "dtypes": dtypes, "bytes": path.stat().st_size}


def _results(evaluation: dict[str, Any]) -> list[Any]:
    """Give the figures as the front matter's ``model-index`` wants them."""
    from huggingface_hub import EvalResult

    figures = [("map", "mAP", evaluation["map"])]
    figures += [("precision", f"Precision@{k}", value) for k, value in evaluation["precision_at"].items()]
    figures += [("precision", "Precision within Hamming radius 2", evaluation["precision_radius_2"])]
    return [
        EvalResult(
            task_type=_TASK,
            task_name="Sketch-Based Image Retrieval",
            dataset_type=evaluation["dataset"].lower().replace(" ", "-"),
            dataset_name=evaluation["dataset"],
            dataset_split=evaluation["split"],
            dataset_args={"seed": evaluation["seed"]},
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for metric, name, value in figures
    ]


def _other_lengths(folder: Path, config: dict[str, Any], evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the evaluations of the checkpoint's other code lengths, those that were made of these weights."""
    found = []
    for bits in config.get("lengths", []):
        file = folder / other_evaluation_name(bits)
        if bits != config["bits"] and file.is_file():
            other = read_record(file, _EVALUATION_KEYS)
            if other["fingerprint"] == evaluation["fingerprint"]:
                found.append(other)
    return found


def other_evaluation_name(bits: int) -> str:
    """Give the name of the file that holds the evaluation of a code length that is not the checkpoint's own choice."""
    return f"{Path(EVALUATION_NAME).stem}-{bits}.json"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
