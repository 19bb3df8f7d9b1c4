"""The contact sheet shows sketches, images and their sketch-tokens, a row a class, each where it belongs."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from dsh_hf.contact_sheet import SIDE, draw_results, draw_sheet, draw_tokens, save_sheet, spread_classes, spread_rows
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


def test_rows_are_spread_over_the_classes_in_whatever_order_they_come():
    labels = [2, 0, 1, 0, 2, 1, 0]
    assert spread_rows(labels, 3) == [1, 2, 0]
    assert spread_rows(labels, 2) == [1, 2]
    assert [labels[row] for row in spread_rows(labels, 4)] == [0, 0, 1, 2]
    assert sorted(spread_rows(labels, 10)) == list(range(7))


# Results

GREEN, RED = (0x1B, 0x78, 0x37), (0xC5, 0x1B, 0x1B)


def result_at(sheet: Image.Image, row: int, place: int) -> np.ndarray:
    """Give the pixels of a result, counted from the right: the names' column is as wide as they need."""
    left = sheet.width - (10 - place) * (SIDE + 4)
    top = 24 + row * (SIDE + 4)
    return np.asarray(sheet)[top : top + SIDE, left : left + SIDE]


@pytest.fixture
def searched():
    """Two queries, and a gallery whose classes are numbered otherwise: 3 ants at 0, 2 and 4 bits, 9 bees between."""
    queries = domain([encoded((90, 90, 90))] * 2, [0, 1])
    labels = ["ant", "bee", "ant", "bee", "ant"] + ["bee"] * 7
    features = Features({"image": ImageFeature(mode="RGB"), "label": ClassLabel(names=CLASSES[::-1])})
    pictures = [{"bytes": encoded((10 * place, 0, 200)), "path": None} for place in range(12)]
    gallery = Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    codes = np.array([[(1 << place) - 1] for place in range(5)] + [[255]] * 7, np.uint8)
    return queries, gallery, np.zeros((2, 1), np.uint8), codes


def test_results_come_in_order_and_are_told_right_from_wrong(searched):
    sheet = draw_results(*searched)
    for place in range(10):
        result = result_at(sheet, 0, place)
        right = place in (0, 2, 4)
        assert tuple(result[SIDE // 2, SIDE // 2]) == (10 * place, 0, 200)
        assert tuple(result[0, 0]) == (GREEN if right else RED)
        crossed = (result[8:16, -16:-8] == RED).all(axis=2).any()
        assert crossed != right
        assert tuple(result_at(sheet, 1, place)[0, 0]) == (RED if right else GREEN)


def test_a_credit_stands_below(searched):
    plain, credited = draw_results(*searched), draw_results(*searched, credit="by somebody")
    assert credited.height > plain.height
    assert (np.asarray(credited)[plain.height :] == 0).all(axis=2).any()
    assert not (np.asarray(plain)[-4:] == 0).all(axis=2).any()


def test_a_small_gallery_leaves_places_empty(searched):
    queries, gallery, query_codes, codes = searched
    sheet = draw_results(queries, gallery.select(range(2)), query_codes, codes[:2])
    assert sheet.size == draw_results(*searched).size
    assert (result_at(sheet, 0, 2) == 0xD8).all()


def test_a_sheet_is_saved_whole_and_looks_the_same(searched, tmp_path):
    sheet = draw_results(*searched)
    save_sheet(sheet, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        difference = np.abs(np.asarray(saved.convert("RGB")).astype(int) - np.asarray(sheet))
    assert difference.max() < 30
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


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
