import os
import subprocess
import sys
from dataclasses import replace

import datasets
import PIL.Image
import pytest
from folder_trees import packed, sketchy_tree

from dsh_hf.data import load_sketchy
from dsh_hf.data.published import SKETCHY

SKETCHES = {
    "cat": ["n02121620_10-1", "n02121620_10-2", "n02121620_11-1"],
    "car_(sedan)": ["n02958343_7-12"],
}
PHOTOS = {"cat": ["n02121620_10", "n02121620_11", "n02121620_12"], "car_(sedan)": ["n02958343_7"]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def picture(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, (8, 6), 200 if mode == "L" else (200, 10, 10)).save(path)


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "unpacked" / "256x256"
    for name, stems in SKETCHES.items():
        for stem in stems:
            picture(base / "sketch" / "tx_000000000000" / name / f"{stem}.png", mode="L")
    for name, stems in PHOTOS.items():
        for stem in stems:
            picture(base / "photo" / "tx_000000000000" / name / f"{stem}.jpg")
    return tmp_path / "unpacked"


def test_gives_sketches_and_images_with_the_same_sorted_classes(root):
    data = load_sketchy(root)
    assert set(data) == {"sketches", "images"}
    assert data["sketches"].column_names == ["image", "label", "id", "photo_id"]
    assert data["images"].column_names == ["image", "label", "id"]
    for part in data.values():
        assert part.features["label"].names == ["car_(sedan)", "cat"]
    assert data["sketches"]["label"][:] == [0, 1, 1, 1]
    assert data["images"]["label"][:] == [0, 1, 1, 1]


def test_ids_name_the_class_and_the_file_and_a_sketch_knows_its_photograph(root):
    data = load_sketchy(root)
    assert data["sketches"]["id"][:] == [
        "car_(sedan)/n02958343_7-12",
        "cat/n02121620_10-1",
        "cat/n02121620_10-2",
        "cat/n02121620_11-1",
    ]
    assert data["sketches"]["photo_id"][:] == [
        "car_(sedan)/n02958343_7",
        "cat/n02121620_10",
        "cat/n02121620_10",
        "cat/n02121620_11",
    ]
    assert set(data["sketches"]["photo_id"]) <= set(data["images"]["id"])


def test_hyphens_in_a_class_name_are_no_part_of_the_number(root):
    picture(root / "256x256/sketch/tx_000000000000/hot-air_balloon/n02782093_5-3.png")
    picture(root / "256x256/photo/tx_000000000000/hot-air_balloon/n02782093_5.jpg")
    assert load_sketchy(root)["sketches"]["photo_id"][-1] == "hot-air_balloon/n02782093_5"


def test_pictures_are_rgb_and_stay_where_they_are(root):
    data = load_sketchy(root)
    sketch = data["sketches"][0]["image"]
    assert (sketch.mode, sketch.size) == ("RGB", (8, 6))
    stored = data["sketches"].data.column("image")[0].as_py()
    assert stored["bytes"] is None
    assert stored["path"].startswith(str(root))


@pytest.mark.parametrize("given", [".", "256x256", ".."])
def test_finds_the_folders_where_people_unpacked_them(root, given):
    # ".." is the folder above: <given>/<unpacked>/256x256
    assert len(load_sketchy(root / given)["sketches"]) == 4


def test_skips_hidden_and_appledouble_files_and_folders(root):
    before = load_sketchy(root)["images"]["id"][:]
    photos = root / "256x256/photo/tx_000000000000"
    (photos / "cat/._n02121620_10.jpg").write_bytes(b"\x00\x05\x16\x07")
    (photos / ".DS_Store").write_bytes(b"\x00")
    (photos / ".hidden").mkdir()
    (photos / "cat/readme.txt").write_text("not a picture")
    data = load_sketchy(root)
    assert data["images"]["id"][:] == before
    assert data["images"].features["label"].names == ["car_(sedan)", "cat"]


def test_new_files_are_seen_at_the_next_call(root):
    before = len(load_sketchy(root)["images"])
    picture(root / "256x256/photo/tx_000000000000/cat/n02121620_99.jpg")
    assert len(load_sketchy(root)["images"]) == before + 1


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        load_sketchy(tmp_path / "nowhere")


def test_a_missing_domain_says_what_was_expected_and_what_is_there(root):
    os.rename(root / "256x256/sketch", root / "256x256/sketches")
    with pytest.raises(FileNotFoundError, match=r"expected sketch/tx_000000000000 in .*256x256.*photo, sketches"):
        load_sketchy(root)


def test_folders_without_pictures_are_refused(root):
    for path in root.glob("256x256/photo/tx_000000000000/*/*.jpg"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*photo/tx_000000000000/car_\(sedan\); .*/cat"):
        load_sketchy(root)


def test_classes_on_one_side_only_are_all_listed(root):
    for name in ("zebra", "axe"):
        picture(root / f"256x256/sketch/tx_000000000000/{name}/n1_1-1.png")
    picture(root / "256x256/photo/tx_000000000000/owl/n1_2.jpg")
    with pytest.raises(ValueError, match=r"sketches but no images: axe, zebra .*; .* no sketches: owl"):
        load_sketchy(root)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, dsh_hf.data; sys.exit(bool({'datasets', 'torch', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_says_which_set_and_version_it_is(root):
    for part in load_sketchy(root).values():
        assert (part.info.dataset_name, part.info.config_name) == ("sketchy", "plain")


def test_the_extended_folder_alone_is_the_gallery_so_that_no_photograph_is_there_twice(tmp_path):
    root = sketchy_tree(tmp_path, extended=True)
    data = load_sketchy(root)
    assert data["images"]["id"][5:] == ["cat/ext_1", "cat/ext_2", "cat/ext_3", "cat/n1_10", "cat/n1_11"]
    assert set(data["sketches"]["photo_id"]) <= set(data["images"]["id"])
    assert data["images"].info.config_name == "extended"


def test_the_extended_version_needs_no_folder_of_photographs(tmp_path):
    root = sketchy_tree(tmp_path, extended=True)
    os.rename(root / "256x256/photo", root / "elsewhere")
    assert len(load_sketchy(root)["images"]) == 10


def test_the_version_can_be_insisted_on(tmp_path):
    root = sketchy_tree(tmp_path, extended=True)
    assert len(load_sketchy(root, extended=False)["images"]) == 4
    assert len(load_sketchy(root, extended=True)["images"]) == 10
    os.rename(root / "EXTEND_image_sketchy_ready", root / "else")
    with pytest.raises(FileNotFoundError, match=r"Sketchy: expected EXTEND_image_sketchy in .*256x256"):
        load_sketchy(root, extended=True)


@pytest.mark.parametrize("given", ["EXTEND_image_sketchy", "256x256/EXTEND_image_sketchy_ready"])
def test_the_extended_folder_is_found_under_its_names_and_places(given, tmp_path):
    root = sketchy_tree(tmp_path, extended=True)
    os.rename(root / "EXTEND_image_sketchy_ready", root / given)
    assert len(load_sketchy(root)["images"]) == 10


def test_archives_are_opened(tmp_path):
    root = sketchy_tree(tmp_path / "content", extended=True)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "more").mkdir()
    os.rename(root / "EXTEND_image_sketchy_ready", tmp_path / "more/EXTEND_image_sketchy_ready")
    packed(root, tmp_path / "downloads/sketchy.tar.gz")
    assert len(load_sketchy(tmp_path / "downloads")["images"]) == 4
    packed(tmp_path / "more", tmp_path / "downloads/EXTEND_image_sketchy_ready.zip")
    assert len(load_sketchy(tmp_path / "downloads")["images"]) == 10
    assert len(load_sketchy(tmp_path / "downloads/sketchy.tar.gz")["images"]) == 4


@pytest.mark.parametrize("name", ["Sketchy.zip", "Sketchy.tar.gz"])
def test_one_archive_of_everything_gives_the_extended_version_every_time(name, tmp_path):
    (tmp_path / "downloads").mkdir()
    packed(sketchy_tree(tmp_path / "content", extended=True), tmp_path / "downloads" / name)
    first, second = (load_sketchy(tmp_path / "downloads")["images"] for _ in range(2))
    assert first.info.config_name == second.info.config_name == "extended"
    assert first._fingerprint == second._fingerprint


def test_hyphens_in_a_class_name_are_no_part_of_a_drawing_without_a_number(tmp_path):
    root = sketchy_tree(tmp_path, classes=("hot-air_balloon",))
    (root / "256x256/sketch/tx_000000000000/hot-air_balloon/n1_10-1.png").rename(
        root / "256x256/sketch/tx_000000000000/hot-air_balloon/drawing.png"
    )
    data = load_sketchy(root)["sketches"]
    assert dict(zip(data["id"], data["photo_id"], strict=True)) == {
        "hot-air_balloon/drawing": "hot-air_balloon/drawing",
        "hot-air_balloon/n1_10-2": "hot-air_balloon/n1_10",
        "hot-air_balloon/n1_11-1": "hot-air_balloon/n1_11",
    }


def test_other_numbers_than_the_published_ones_are_logged(tmp_path, caplog, monkeypatch):
    root = sketchy_tree(tmp_path, extended=True)
    small = replace(
        SKETCHY,
        classes=("cat", "car_(sedan)"),
        pictures={"sketches": (5, 6), "photographs": (4,), "extended images": (11,)},
    )
    monkeypatch.setattr("dsh_hf.data.sketchy.SKETCHY", small)
    load_sketchy(root, extended=False)
    assert not caplog.records
    load_sketchy(root)
    assert "Sketchy has 2 classes, 5 or 6 sketches, 11 extended images; loaded with " in caplog.text
    assert "sketch/tx_000000000000: 2 classes, 6 sketches, 10 extended images" in caplog.text


def test_a_broken_photograph_is_told_before_anything_starts(root):
    path = root / "256x256/photo/tx_000000000000/cat/n02121620_10.jpg"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"1 of 4 pictures cannot be used: .*cat/n02121620_10.jpg"):
        load_sketchy(root)
