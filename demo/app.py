"""Draw a few strokes, see the pictures you meant: a sketchpad on a gallery, searched while you draw.

python demo/app.py                      the trained checkpoint on OpenMoji's colour pictures
python demo/app.py --gallery ~/Pictures a folder of your own, encoded once
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw

from dsh_hf.processing import EmptySketchError, Picture, PictureError, open_picture

if TYPE_CHECKING:
    from dsh_hf import DSHModel
    from dsh_hf.codes import Codes
    from dsh_hf.index import Index

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE.parent / "model_card" / "dsh-sketchy-subset"
OPENMOJI_CODES = HERE / "openmoji-codes.safetensors"  # made by --write-openmoji-codes
CANVAS = 480  # side of the sketchpad, in pixels
THUMBNAIL = 256  # longer side of a result, in pixels
HINT = "Draw something, upload a drawing, or click an example."

# Gradio's editor starts, and starts again after Clear, without a tool in hand: give it the pen, until it keeps it.
PEN = """() => {
  const started = Date.now();
  const timer = setInterval(() => {
    const pen = document.querySelector("#pad button[aria-label=Brush]");
    if (pen && !pen.classList.contains("highlight")) pen.click();
    if (Date.now() - started > 3000) clearInterval(timer);
  }, 100);
}"""
