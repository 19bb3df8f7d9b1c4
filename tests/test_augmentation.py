"""Random changes keep what training relies on: shape, range, paper white, and the seed's say."""

import torch

from dsh_hf.augmentation import distort_images, distort_lines


def drawings(count=8):
    pictures = torch.ones(count, 1, 48, 48)
    pictures[:, :, 10:38, 20:22] = 0
    return pictures


def test_lines_stay_lines_on_white_paper():
    torch.manual_seed(0)
    changed = distort_lines(drawings())
    assert changed.shape == (8, 1, 48, 48)
    assert changed.min() >= 0
    assert changed.max() <= 1
    ink = (changed < 0.5).float().mean(dim=(1, 2, 3))
    assert (ink > 0.005).all()  # something is left of every drawing
    assert (ink < 0.2).all()


def test_blank_paper_stays_blank():
    assert torch.allclose(distort_lines(torch.ones(4, 1, 48, 48)), torch.ones(4, 1, 48, 48), atol=1e-5)


def test_every_drawing_is_changed_in_its_own_way():
    torch.manual_seed(0)
    changed = distort_lines(drawings())
    assert all(not torch.allclose(changed[0], other, atol=0.05) for other in changed[1:])


def test_same_seed_same_changes():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append((distort_lines(drawings()), distort_images(torch.full((4, 3, 32, 32), 90.0))))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_images_keep_shape_and_range():
    torch.manual_seed(0)
    pixels = torch.rand(6, 3, 40, 40) * 255
    changed = distort_images(pixels)
    assert changed.shape == pixels.shape
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert not torch.allclose(changed, pixels)
