"""What the demo's tests share: its modules on the path, a drawing, a folder of photographs."""

import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

pytest.importorskip("gradio", reason='the demo needs gradio: pip install "dsh-hf[demo]"')
DEMO = Path(__file__).resolve().parents[1] / "demo"
sys.path.insert(0, str(DEMO))


def draw(folder, name="drawing.png"):
    paper = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(paper).polygon([(30, 40), (170, 60), (90, 160)], outline=0, width=5)
    paper.save(folder / name)
    return folder / name


def make_photos(folder):
    for label, colour in (("sky", "navy"), ("sun", "gold"), ("grass", "green")):
        (folder / label).mkdir(parents=True)
        photo = Image.new("RGB", (600, 400), colour)
        ImageDraw.Draw(photo).ellipse((150, 100, 450, 300), fill="white")
        photo.save(folder / label / "1.jpg")
    return folder
