"""The contact sheet shows sketches, images and their sketch-tokens, a row a class, each where it belongs."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from dsh_hf.contact_sheet import SIDE, draw_sheet, draw_tokens, spread_classes
from dsh_hf.processing import PictureError
from dsh_hf.tokens import TokenNetwork

CLASSES = ["ant", "bee"]


def encoded(colour, size=(30, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def domain(pictures: list[bytes], labels: list[int]) -> Dataset:
    rows = {"image": [{"bytes": content, "path": None} for content in pictures], "label": labels}
    return Dataset.from_dict(
        rows, features=Features({"image": ImageFeature(mode="RGB"), "label": ClassLabel(names=CLASSES)})
    )


@pytest.fixture
def data() -> DatasetDict:
    """Sketches are grey, images red (ant) and blue (bee)."""
    return DatasetDict(
        sketches=domain([encoded((90, 90, 90))] * 3, [0, 0, 1]),
        images=domain([encoded((200, 0, 0)), encoded((0, 0, 200)), encoded((200, 0, 0))], [0, 1, 0]),
    )


def share(sheet: Image.Image, colour) -> float:
    """Count the pictures of a colour."""
    return (np.asarray(sheet) == colour).all(axis=2).sum() / SIDE**2


def test_each_class_has_its_row(data):
    sheet = draw_sheet(data, CLASSES, 2)
    rows = np.asarray(sheet)
    red, blue = ((rows == colour).all(axis=2).any(axis=1) for colour in ((200, 0, 0), (0, 0, 200)))
    assert np.flatnonzero(red).max() < np.flatnonzero(blue).min()
    assert share(sheet, (200, 0, 0)) == 2
    assert share(sheet, (0, 0, 200)) == 1
    assert share(sheet, (90, 90, 90)) == pytest.approx(3, abs=0.1)


def test_only_the_wanted_classes_and_numbers_are_shown(data):
    sheet = draw_sheet(data, ["ant"], 1)
    assert share(sheet, (200, 0, 0)) == 1
    assert share(sheet, (0, 0, 200)) == 0
    assert sheet.height < 2 * SIDE


def test_tokens_stand_beside_their_images():
    pixels = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    pixels[30:80, 30:80] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    one = DatasetDict(sketches=domain([], []), images=domain([file.getvalue()], [0]))
    sheet = np.asarray(draw_sheet(one, ["ant"], 1))
    network = TokenNetwork()
    network.load_trained()
    expected = np.asarray(draw_tokens(network, [pixels])[0])
    assert expected.min() < 50 < 200 < expected.max()
    assert (sheet[24 : 24 + SIDE, -4 - SIDE : -4, 0] == expected).all()


def test_sketches_keep_their_shape_on_white_paper():
    tall = encoded((0, 0, 0, 255), size=(10, 30))
    clear = encoded((0, 0, 0, 0))
    data = DatasetDict(sketches=domain([tall, clear], [0, 0]), images=domain([], []))
    sheet = draw_sheet(data, ["ant"], 2)
    assert share(sheet, (0, 0, 0)) == pytest.approx(1 / 3, abs=0.03)
    assert share(sheet, (255, 255, 255)) > 1.5


def test_the_same_data_give_the_same_sheet(data):
    assert draw_sheet(data, CLASSES).tobytes() == draw_sheet(data, CLASSES).tobytes()


def test_classes_are_spread():
    assert spread_classes(list("abcdefgh"), 4) == ["a", "c", "e", "g"]
    assert spread_classes(list("ab"), 4) == ["a", "b"]


@pytest.mark.parametrize(
    ("classes", "each", "message"),
    [
        (["ant", "fly"], 1, "no such class: fly; there are ant, bee"),
        (["ant"], 0, "at least 1 picture"),
        ([], 1, "1 to 250 classes"),
    ],
)
def test_bad_wishes_are_refused(data, classes, each, message):
    with pytest.raises(ValueError, match=message):
        draw_sheet(data, classes, each)


def test_a_broken_picture_is_refused(data):
    data["images"] = domain([encoded((200, 0, 0))[:60]], [0])
    with pytest.raises(PictureError, match=r"damaged or truncated|not a picture"):
        draw_sheet(data, ["ant"], 1)
