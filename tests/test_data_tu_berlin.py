import logging

import datasets
import pytest
from folder_trees import encoded, packed, put, tu_berlin_tree

from dsh_hf.data import load_tu_berlin

NAMES = ["bear (animal)", "hot air balloon", "t-shirt"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    return tu_berlin_tree(tmp_path / "TUBerlin")


def test_classes_are_matched_by_spelling_and_shown_as_the_sketches_name_them(root):
    data = load_tu_berlin(root)
    assert set(data) == {"sketches", "images"}
    for part in data.values():
        assert part.column_names == ["image", "label", "id"]
        assert part.features["label"].names == NAMES
        assert part.features["image"].mode == "RGB"
    assert data["sketches"]["label"][:] == [0, 0, 1, 1, 2, 2]
    assert data["images"]["label"][:] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data["sketches"]["id"][:4] == [
        "bear (animal)/1",
        "bear (animal)/2",
        "hot air balloon/81",
        "hot air balloon/82",
    ]
    assert data["images"]["id"][3:5] == ["hot air balloon/a", "hot air balloon/b"]


def test_says_which_set_and_version_it_is(root):
    for extended in (None, True):
        for part in load_tu_berlin(root, extended=extended).values():
            assert (part.info.dataset_name, part.info.config_name) == ("tu-berlin", "extended")


def test_the_plain_version_has_no_images(tmp_path, caplog):
    root = tu_berlin_tree(tmp_path / "plain", images=None)
    data = load_tu_berlin(root)
    assert "no ImageResized" in caplog.text
    assert (len(data["sketches"]), len(data["images"])) == (6, 0)
    assert data["images"].features == data["sketches"].features
    assert data["sketches"].info.config_name == "plain"


def test_the_plain_version_can_be_asked_for(root):
    data = load_tu_berlin(root, extended=False)
    assert (len(data["sketches"]), len(data["images"])) == (6, 0)
    assert data["sketches"].info.config_name == "plain"


def test_the_extended_version_can_be_insisted_on(tmp_path):
    root = tu_berlin_tree(tmp_path / "plain", images=None)
    with pytest.raises(FileNotFoundError, match=r"TU-Berlin: expected ImageResized in .*plain, where there is: png"):
        load_tu_berlin(root, extended=True)


def test_resized_images_win_over_the_originals(root, caplog):
    put(root / "ImageResized" / "t-shirt" / "original.jpg")
    with caplog.at_level(logging.INFO):
        data = load_tu_berlin(root)
    assert "t-shirt/original" not in data["images"]["id"][:]
    assert "ImageResized_ready is used" in caplog.text


def test_originals_alone_are_taken(tmp_path):
    assert len(load_tu_berlin(tu_berlin_tree(tmp_path / "set", images="ImageResized"))["images"]) == 9


def test_archives_are_opened(root, tmp_path):
    place = tmp_path / "downloads"
    place.mkdir()
    for name, folder in (("sketches_png", "png"), ("ImageResized_ready", "ImageResized_ready")):
        (tmp_path / "one").mkdir()
        (root / folder).rename(tmp_path / "one" / folder)
        packed(tmp_path / "one", place / f"{name}.zip")
        (tmp_path / "one").rename(tmp_path / name)
    data = load_tu_berlin(place)
    assert (len(data["sketches"]), len(data["images"])) == (6, 9)
    assert data["images"][0]["image"].size == (8, 6)


def test_one_archive_of_everything_gives_the_extended_version_every_time(root, tmp_path):
    (tmp_path / "downloads").mkdir()
    packed(root, tmp_path / "downloads" / "TUBerlin.zip")
    assert [len(load_tu_berlin(tmp_path / "downloads")["images"]) for _ in range(2)] == [9, 9]


def test_a_class_without_images_is_told(root):
    put(root / "png" / "zebra" / "20000.png")
    with pytest.raises(ValueError, match=r"classes with sketches but no images: zebra \(in .*png\)"):
        load_tu_berlin(root)


def test_a_broken_image_is_told(root):
    put(root / "ImageResized_ready" / "t-shirt" / "broken.jpg", encoded(".jpg")[:-60])
    with pytest.raises(ValueError, match=r"1 of 10 pictures cannot be used: .*/t-shirt/broken.jpg"):
        load_tu_berlin(root)


def test_another_number_of_classes_is_logged(root, caplog):
    load_tu_berlin(root)
    assert "TU-Berlin has 250 classes, 20,000 sketches, 204,489 images; loaded with " in caplog.text
    assert "png: 3 classes, 6 sketches, 9 images" in caplog.text
