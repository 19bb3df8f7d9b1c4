"""Answers: nearest first, a visitor's own among them, and no pretence where nothing is alike."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from demo_parts import draw, make_photos
from PIL import Image
from tiny_checkpoint import tiny_model

from dsh_hf import SketchRetriever
from dsh_hf.codes import unpack_codes
from dsh_hf.index import open_index
from dsh_hf.processing import EmptySketchError, PictureError

# isort: split
from answers import HINT, Query, chance_distance, code_of, encode_drawing, open_result, search
from galleries import Gallery, open_folder
from markup import results_html, why_html
from networks import first_device, on_gpu, open_networks
from pictures import small_copy
from uploads import OwnPicture


@pytest.fixture(scope="module")
def networks():
    return open_networks(tiny_model(bits=64))


def gallery_of(codes, names=None, picture=lambda hit, size: RED, outputs=None):
    retriever = SketchRetriever(tiny_model(bits=8 * len(codes[0])), keep_outputs=outputs is not None)
    ids = [str(number) for number in range(len(codes))]
    retriever.add_codes(np.asarray(codes, np.uint8), ids, outputs=outputs)
    return Gallery("test", "", retriever, lambda hit: names[int(hit.id)] if names else f"item {hit.id}", picture)


def query_of(code):
    return Query(Image.new("L", (9, 9)), outputs_of(code), 1.0, "cpu", 8)


def own_of(code, name="mine"):
    return OwnPicture(name, outputs_of(code), b"large", b"small")


def outputs_of(code):
    return unpack_codes(np.asarray(code, np.uint8), 8 * len(code)).astype(np.float32)


RED = Image.new("RGB", (300, 200), "red")
FAR, NEAR, ZERO = [255] * 8, [1] + [0] * 7, [0] * 8


def test_gives_the_nearest_with_names_and_distances(networks):
    answer = search(networks, gallery_of([FAR, NEAR, ZERO]), (), query_of(ZERO), 2)
    assert [(result.name, result.distance) for result in answer.results] == [("item 2", 0), ("item 1", 1)]
    assert answer.message == "Best: item 2, which differs in 0 of 64 bits."
    assert not answer.by_chance
    assert re.fullmatch(r"encoded in 1 ms, searched in [\d.]+ ms · 3 pictures · 64 bits · exact · cpu", answer.facts)


@pytest.mark.parametrize(("count", "found"), [(None, 1), (-1, 1), (0, 1), (2, 2), (1000, 3)])
def test_a_number_of_results_out_of_range_is_brought_into_it(networks, count, found):
    assert len(search(networks, gallery_of([FAR, NEAR, ZERO]), (), query_of(ZERO), count).results) == found


def test_without_a_drawing_there_is_a_hint(networks):
    answer = search(networks, gallery_of([ZERO]), (), None, 12)
    assert (answer.message, answer.results, answer.facts) == (HINT, (), "1 picture · 64 bits · exact · cpu")


def test_own_pictures_are_among_the_results_first_where_equal(networks):
    answer = search(networks, gallery_of([NEAR, FAR]), [own_of(NEAR), own_of(ZERO, "best")], query_of(ZERO), 3)
    assert [(result.name, result.distance) for result in answer.results] == [("best", 0), ("mine", 1), ("item 0", 1)]
    assert "2 pictures and 2 of yours" in answer.facts
    assert code_of(networks, answer, answer.results[1], RED).tolist() == NEAR


def test_float_outputs_order_the_nearest_where_they_are_kept(networks):
    sure = outputs_of(ZERO)
    sure[-1] *= 9  # of its last bit
    outputs = [outputs_of([0] * 7 + [1]), outputs_of([0xE0] + [0] * 7), outputs_of(FAR)]  # the first differs there
    gallery = gallery_of([[0] * 7 + [1], [0xE0] + [0] * 7, FAR], outputs=outputs)
    query = replace(query_of(ZERO), outputs=sure)
    own = replace(own_of(ZERO), outputs=sure - 2)
    answer = search(networks, gallery, [own], query, 3)
    assert [(result.name, result.distance) for result in answer.results] == [("mine", 0), ("item 1", 3), ("item 0", 1)]
    assert answer.message == "Best: mine, which differs in 0 of 64 bits."
    without = search(networks, gallery_of([[0] * 7 + [1], [0xE0] + [0] * 7, FAR]), [own], query, 3)
    assert [result.distance for result in without.results] == [0, 1, 3]


def test_a_picture_that_is_gone_is_shown_by_name(networks):
    def gone(hit, size):
        raise FileNotFoundError(hit.id)

    answer = search(networks, gallery_of([ZERO], picture=gone), (), query_of(ZERO), 1)
    assert answer.results[0].thumbnail == b""
    assert "not here" in results_html(answer)
    with pytest.raises(FileNotFoundError):
        open_result(networks, answer, answer.results[0])


def test_says_where_nothing_is_nearer_than_chance(networks):
    answer = search(networks, gallery_of([FAR] * 100), (), query_of(ZERO), 3)
    assert answer.by_chance
    assert answer.message.startswith("Nothing like it here: the nearest differs in 64 of 64 bits")
    assert len(answer.results) == 3
    assert 'class="hits chance"' in results_html(answer)


@pytest.mark.parametrize(
    ("items", "bits", "distance"), [(2113, 64, 15), (100_000, 64, 12), (1, 64, 24), (4000, 12, -1)]
)
def test_one_random_code_in_twenty_comes_as_near_as_chance_allows(items, bits, distance):
    assert chance_distance(items, bits) == distance


def test_the_bound_holds_for_random_codes():
    codes = np.random.default_rng(0).integers(0, 256, (1500, 8), np.uint8)
    index = open_index("exact", bits=64)
    index.add(codes[:1000])
    nearest, _ = index.search(codes[1000:], 1)
    limit = chance_distance(1000, 64)
    assert (nearest <= limit).mean() <= 0.05 < (nearest <= limit + 2).mean()


def test_codes_too_short_to_tell_are_always_shown(networks):
    assert not search(networks, gallery_of([[255]] * 500), (), query_of([0]), 1).by_chance


def test_names_are_shown_as_they_are_and_run_nothing(networks):
    names = ["<img src=x onerror=alert(1)>", '" onclick="alert(1)', "${alert(1)}{{value}}</script>"]
    html = results_html(search(networks, gallery_of([ZERO] * 3, names), (), query_of(ZERO), 3))
    assert "<img src=x" not in html
    assert '" onclick="' not in html.replace('data-place="', "")
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


def test_bits_that_differ_are_marked_in_both_codes(networks):
    answer = search(networks, gallery_of([[3, *[0] * 7]]), (), query_of(ZERO), 1)
    html = why_html(answer, answer.results[0], b"sketch", b"token", np.array([3, *[0] * 7], np.uint8))
    assert "2 of 64 bits differ" in html
    codes = re.findall(r"<svg.*?</svg>", html)
    assert len(codes) == 2
    for code in codes:
        cells = {kind: path.count("M") for kind, path in re.findall(r'class="(.*?)" d="(.*?)"', code)}
        assert cells["one unlike"] + cells["zero unlike"] == 2
        assert sum(cells.values()) == 64


def test_a_code_that_is_not_certain_is_not_shown(networks):
    answer = search(networks, gallery_of([ZERO]), (), query_of(ZERO), 1)  # not the code that its picture has
    assert code_of(networks, answer, answer.results[0], RED) is None
    html = why_html(answer, answer.results[0], b"sketch", None, None)
    assert html.count("<svg") == 1


def test_the_code_of_a_gallerys_picture_is_found_again(networks, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.cached_assets_path", lambda *_: tmp_path / "assets")
    gallery = open_folder(make_photos(tmp_path / "photos"), networks.model)
    answer = search(networks, gallery, (), encode_drawing(networks, draw(tmp_path)), 3)
    for result in answer.results:
        picture = open_result(networks, answer, result, whole=False)
        code = code_of(networks, answer, result, picture)
        assert np.bitwise_count(code ^ answer.query.code).sum() == result.distance
        assert open_result(networks, answer, result).size == (600, 400)


def test_an_empty_drawing_and_one_full_of_ink_are_told_as_empty(networks):
    for grey in (0, 255):
        with pytest.raises(EmptySketchError):
            encode_drawing(networks, Image.new("L", (200, 200), grey))


def test_a_broken_drawing_is_called_by_the_name_it_was_sent_under(networks, tmp_path):
    path = draw(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PictureError, match=r"^my cat.png is damaged or truncated"):
        encode_drawing(networks, path, "my cat.png")


def test_a_sketch_token_is_drawn_of_any_picture(networks):
    token = networks.draw_token(Image.new("RGBA", (50, 80), "red"))
    assert token.mode == "L"
    assert token.size == (32, 32)


def test_a_thumbnail_of_a_16_bit_grey_is_not_white():
    grey = Image.fromarray(np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64))
    copy = np.asarray(small_copy(grey, 64))
    assert copy.shape == (64, 64, 3)
    assert copy[0, 0, 0] < 5
    assert 120 < copy[32, 0, 0] < 135


class Borrowed:
    """A model that notes where it was moved, and where it was when it encoded."""

    def __init__(self):
        self.device = "cpu"

    def to(self, device):
        self.device = device

    def embed_sketches(self, drawing):
        return self.device


@pytest.fixture
def spaces(monkeypatch):
    """Make this a ZeroGPU Space: a GPU is there while a function runs that borrows one, and asked for in no other."""
    import torch

    class Spaces:
        lent = False

        @classmethod
        def GPU(cls, function):
            def borrowing(*given):
                cls.lent = True
                try:
                    return function(*given)
                finally:
                    cls.lent = False

            return borrowing

    def is_available():
        assert Spaces.lent
        return True

    monkeypatch.setitem(sys.modules, "spaces", Spaces)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)


def test_a_model_moves_to_the_gpu_that_is_borrowed(spaces):
    assert first_device() == "cpu"
    model = Borrowed()
    networks = open_networks(model)
    assert model.device == "cpu"
    query = encode_drawing(networks, RED)
    assert query.outputs == query.device == "cuda"


def test_the_device_that_encoded_is_shown(networks):
    query = replace(query_of(ZERO), device="cuda:0")
    assert search(networks, gallery_of([ZERO]), (), query, 1).facts.endswith("exact · cuda:0")


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_without_the_package_spaces_a_model_stays_where_it_is_loaded(monkeypatch, there, device):
    import torch

    monkeypatch.setitem(sys.modules, "spaces", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert first_device() == device
    assert on_gpu(None, abs) is abs
