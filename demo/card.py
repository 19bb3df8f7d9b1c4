"""What the checkpoint's card says of itself: its figures and numbers, for the page's explanation."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

FIGURES = {
    "sheet.png": "Sketches that no training saw, and the pictures found for them",
    "pr_curve.png": "Precision over recall, by Hamming distance",
    "tokens.png": "Photographs and the sketch-tokens that the network sees in them",
}
NUMBERS = "evaluation.json"


def card_files(checkpoint: str) -> dict[str, Path]:
    """Find the files of a card that there are, by name: in the checkpoint's folder, or on the Hub."""
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return {name: folder / name for name in (*FIGURES, NUMBERS) if (folder / name).is_file()}
    from dsh_hf.hub import DownloadError, download

    found = {}
    for name in (*FIGURES, NUMBERS):
        with suppress(DownloadError):
            found[name] = download(checkpoint, [name], what="a card") / name
    return found


def read_numbers(file: Path | None) -> str:
    """Give the evaluation's main numbers as a sentence in Markdown; nothing where they cannot be read."""
    try:
        numbers: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file else {}
        return (
            f"**Measured** on {numbers['dataset']} (split `{numbers['split']}`, {numbers['bits']} bits): "
            f"mAP **{numbers['map']:.3f}**, precision@10 **{numbers['precision_at']['10']:.3f}**, over "
            f"{numbers['queries']:,} sketches that no training saw and {numbers['gallery']:,} photographs."
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""
