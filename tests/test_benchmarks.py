"""The benchmarks' own measures, on pictures whose answer is known."""

import numpy as np
import pytest
import torch
from tiny_checkpoint import tiny_model

from benchmarks.__main__ import main
from benchmarks.tokens import agreement, canny, encode_gallery


def tokens(*columns, top=0):
    """A token of 16 x 16 with lines down some columns, from a row on."""
    picture = torch.ones(1, 1, 16, 16)
    for column in columns:
        picture[..., top:, column] = 0
    return picture


@pytest.mark.parametrize(
    ("drawn", "wanted", "expected"),
    [
        (tokens(5), tokens(5), (1, 1, 1)),
        (tokens(5), tokens(6), (1, 1, 1)),  # a pixel beside it still counts
        (tokens(5), tokens(7), (0, 0, 0)),
        (tokens(5), tokens(5, 12), (1, 1 / 2, 2 / 3)),
        (tokens(5, 12), tokens(5), (1 / 2, 1, 2 / 3)),
        (tokens(5, top=8), tokens(5), (1, 9 / 16, 18 / 25)),  # eight pixels long, and one beyond its end
        (tokens(), tokens(), (1, 1, 1)),
        (tokens(), tokens(5), (0, 0, 0)),
        (tokens(5), tokens(), (0, 0, 0)),
        (0.4 + 0.2 * tokens(5), tokens(5), (1, 1, 1)),  # ink is what is darker than half
    ],
)
def test_agreement_of_lines(drawn, wanted, expected):
    torch.testing.assert_close(agreement(drawn, wanted), torch.tensor([expected], dtype=torch.float32))


def test_agreement_is_told_for_each_picture():
    drawn, wanted = torch.cat([tokens(2), tokens(2)]), torch.cat([tokens(2), tokens(9)])
    assert agreement(drawn, wanted)[:, 2].tolist() == [1, 0]


def test_canny_draws_dark_lines_on_white_where_the_brightness_jumps():
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'opencv-python-headless<5'")
    picture = np.full((32, 32, 3), 200, dtype=np.uint8)
    picture[8:24, 8:24] = 40
    drawn = canny(picture)
    assert drawn.shape == (32, 32)
    assert set(np.unique(drawn)) == {0, 255}
    outline = torch.ones(1, 1, 32, 32)
    outline[..., 8:24, 8:24] = 0
    outline[..., 9:23, 9:23] = 1
    assert agreement(torch.from_numpy(drawn)[None, None] / 255, outline)[0, 2] == 1


def test_canny_of_a_flat_picture_is_blank_paper():
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'opencv-python-headless<5'")
    assert (canny(np.full((16, 16, 3), 90, dtype=np.uint8)) == 255).all()


def test_only_the_tokens_differ_between_galleries():
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'opencv-python-headless<5'")
    model = tiny_model()
    pictures = list(np.random.default_rng(0).integers(256, size=(5, 48, 60, 3), dtype=np.uint8))
    paper = torch.ones(5, 1, 32, 32)
    codes, drawn = encode_gallery(model, pictures, hed=paper)
    np.testing.assert_array_equal(codes["network"], model.encode_images(pictures))
    np.testing.assert_array_equal(codes["hed"], codes["blank"])  # the same tokens, so the same codes
    assert (codes["network"] != codes["blank"]).any()
    assert (drawn["network"] != paper).any()


def test_benchmarks_are_listed(capsys):
    assert main([]) == 0
    assert "  tokens: The sketch-token network" in capsys.readouterr().out


def test_an_unknown_benchmark_is_named(capsys):
    assert main(["speed"]) == 2
    assert "no benchmark 'speed'; there are" in capsys.readouterr().err


def test_bad_input_is_one_line(capsys):
    assert main(["tokens", "--sketchy", "none", "--hed", "none.h5", "--limit", "0"]) == 2
    assert capsys.readouterr().err == "python -m benchmarks tokens: --limit must be 1 or more, got 0\n"
