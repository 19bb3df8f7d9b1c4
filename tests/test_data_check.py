"""The check of a data set finds all that is wrong with it, and does not stop at the first fault."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsh_hf.data.check import Report, check_data
from dsh_hf.data.published import SKETCHY, TU_BERLIN, PublishedSet
from dsh_hf.data.recognition import find_pair, find_set, load_found

SKETCHES, PHOTOGRAPHS = "256x256/sketch/tx_000000000000", "256x256/photo/tx_000000000000"
EXTENDED = "EXTEND_image_sketchy_ready"


def put(path: Path, shade: int) -> Path:
    """Write a picture of its own for each shade, of some kilobytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(shade).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def put_domain(root: Path, domain: str, names: list[str], each: int, start: int, suffix: str) -> None:
    for place, name in enumerate(names):
        for number in range(each):
            put(root / domain / name / f"{number}{suffix}", start + place * each + number)


@pytest.fixture
def sketchy(tmp_path) -> Path:
    """Two classes: 2 sketches and 2 photographs of each, and the photographs again with one more, Extended."""
    put_domain(tmp_path, SKETCHES, ["cat", "car_(sedan)"], 2, 0, ".png")
    put_domain(tmp_path, PHOTOGRAPHS, ["cat", "car_(sedan)"], 2, 100, ".jpg")
    shutil.copytree(tmp_path / PHOTOGRAPHS, tmp_path / EXTENDED)
    for place, name in enumerate(("cat", "car_(sedan)")):
        put(tmp_path / EXTENDED / name / "ext_1.jpg", 200 + place)
    return tmp_path


@pytest.fixture
def small_sketchy(monkeypatch) -> PublishedSet:
    """Sketchy as if this was all of it."""
    small = PublishedSet(
        SKETCHY.title,
        ("car_(sedan)", "cat"),
        {"sketches": (4, 5), "photographs": (4,), "extended images": (6,)},
        {"photographs": 2},
        SKETCHY.terms,
    )
    monkeypatch.setattr("dsh_hf.data.recognition.SKETCHY", small)
    return small


@pytest.fixture
def own(tmp_path) -> Path:
    put_domain(tmp_path, "sketches", ["cat", "hot dog"], 2, 0, ".png")
    put_domain(tmp_path, "images", ["cat", "hot-dog"], 3, 100, ".jpg")
    return tmp_path


def faults(report: Report) -> list[str]:
    return [str(fault) for fault in report.faults]


def notes(report: Report) -> list[str]:
    return [str(note) for note in report.notes]


# Which set it is


def test_the_published_lists_are_whole():
    assert len(set(SKETCHY.classes)) == 125
    assert len(set(TU_BERLIN.classes)) == 250
    assert "hot-air_balloon" in SKETCHY.classes
    assert "pipe (for smoking)" in TU_BERLIN.classes


def test_sketchy_is_found_plain_and_extended(sketchy):
    assert find_set(sketchy).version == "Sketchy Extended"
    shutil.rmtree(sketchy / EXTENDED)
    assert find_set(sketchy).version == "Sketchy"


def test_tu_berlin_is_found_plain_and_extended(tmp_path):
    put_domain(tmp_path, "png", ["bear (animal)", "suv"], 2, 0, ".png")
    assert find_set(tmp_path).version == "TU-Berlin"
    put_domain(tmp_path, "ImageResized", ["bear_(animal)", "suv"], 2, 50, ".jpg")
    assert find_set(tmp_path).version == "TU-Berlin Extended"


def test_a_folder_that_is_only_called_png_is_not_tu_berlin(tmp_path):
    put_domain(tmp_path, "png", ["resistor", "capacitor"], 2, 0, ".png")
    assert find_set(tmp_path).version == "class folders"


def test_class_folders_are_found_in_two_domains_in_one_and_apart(own):
    assert list(find_set(own).domains) == ["sketches", "images"]
    assert find_set(own / "images").domains == {"pictures": own / "images"}
    assert find_pair(own / "sketches", own / "images").domains["images"] == own / "images"


def test_no_data_set_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set found: expected Sketchy's 256x256"):
        find_set(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_set(tmp_path / "nowhere")


def test_what_was_found_can_be_loaded(sketchy, own):
    shutil.rmtree(sketchy / EXTENDED)
    assert len(load_found(find_set(sketchy))["sketches"]) == 4
    pair = load_found(find_pair(own / "sketches", own / "images"))
    assert pair["images"].features["label"].names == ["cat", "hot dog"]
    with pytest.raises(ValueError, match="say which are --sketches and which --images"):
        load_found(find_set(own / "images"))


# What is sound


def test_a_sound_set_has_no_faults(sketchy, small_sketchy):
    report = check_data(find_set(sketchy))
    assert faults(report) == []
    assert report.sound
    assert {name: domain.counts for name, domain in report.domains.items()} == {
        "sketches": {"car_(sedan)": 2, "cat": 2},
        "photographs": {"car_(sedan)": 2, "cat": 2},
        "extended images": {"car_(sedan)": 3, "cat": 3},
    }


def test_photographs_in_the_extended_folder_are_expected(sketchy, small_sketchy):
    assert (
        "4 of the 4 photographs are among the extended images, too: this is expected"
        in notes(check_data(find_set(sketchy)))[0]
    )


def test_class_names_may_be_spelled_as_the_domains_spell_them(own):
    assert check_data(find_set(own)).sound


# What is not


def test_counts_are_compared_with_the_published_ones(sketchy, small_sketchy):
    (sketchy / PHOTOGRAPHS / "cat" / "1.jpg").unlink()
    put(sketchy / SKETCHES / "cat" / "7.png", 7)
    put(sketchy / SKETCHES / "cat" / "8.png", 8)
    assert faults(check_data(find_set(sketchy))) == [
        "sketches: 6 pictures, published are 4 or 5",
        "photographs: 1 class without the published 2 pictures: cat 1",
        "photographs: 3 pictures, published are 4",
    ]


def test_missing_and_extra_classes_are_named(sketchy, small_sketchy):
    (sketchy / SKETCHES / "cat").rename(sketchy / SKETCHES / "unicorn")
    found = faults(check_data(find_set(sketchy)))
    assert "sketches: 1 class missing: cat" in found
    assert "sketches: 1 class not in the published set: unicorn" in found
    assert "1 class with sketches but no images: unicorn" in found
    assert "1 class with images but no sketches: cat" in found


def test_a_domain_that_is_not_there_is_told(sketchy, small_sketchy):
    shutil.rmtree(sketchy / SKETCHES)
    report = check_data(find_set(sketchy))
    assert f"no folder of the sketches: {SKETCHES.partition('/')[2]}" in faults(report)
    assert "extended images" in report.domains


def test_pictures_are_decoded_to_their_end(own):
    gap = own / "sketches" / "cat" / "0.png"
    content = gap.read_bytes()
    gap.write_bytes(content[:600] + content[900:])  # head and tail are as they should be
    cut = own / "images" / "cat" / "0.jpg"
    cut.write_bytes(cut.read_bytes()[:-100])
    (own / "images" / "cat" / "1.jpg").write_bytes(b"")
    (own / "sketches" / "hot dog" / "1.png").write_bytes(b"not a picture")
    report = check_data(find_set(own))
    (broken,) = report.faults
    assert broken.about == "4 pictures cannot be read"
    for path, item in zip(("cat/0.png", "hot dog/1.png", "cat/0.jpg", "cat/1.jpg"), broken.items, strict=True):
        assert path in item


def test_a_class_twice_in_different_spelling_is_told(own):
    put(own / "images" / "Hot_Dog" / "0.jpg", 300)
    assert "images: the same class twice in different spelling: Hot_Dog and hot-dog" in faults(
        check_data(find_set(own))
    )


def test_an_empty_class_is_told(own):
    (own / "images" / "cow").mkdir()
    (found,) = faults(check_data(find_set(own)))
    assert "no pictures in" in found and "cow" in found


def test_the_same_picture_in_two_classes_is_a_fault_and_twice_in_one_a_note(own):
    shutil.copy(own / "images" / "cat" / "0.jpg", own / "images" / "cat" / "again.jpg")
    report = check_data(find_set(own))
    assert report.sound
    assert "the same picture several times in a class (1 case)" in notes(report)[0]
    shutil.copy(own / "images" / "cat" / "1.jpg", own / "images" / "hot-dog" / "cat.jpg")
    shutil.copy(own / "images" / "cat" / "2.jpg", own / "sketches" / "cat" / "photo.jpg")
    found = faults(check_data(find_set(own)))
    assert found[0].startswith("the same picture as sketch and as image (1 case): ")
    assert found[1].startswith("the same picture in several classes (1 case): ")
    assert "hot-dog/cat.jpg" in found[1]


def test_clutter_is_counted_and_other_files_are_named(own):
    for name in ("._0.jpg", ".DS_Store"):
        (own / "images" / "cat" / name).write_bytes(b"x")
    (own / "images" / "__MACOSX" / "cat").mkdir(parents=True)
    (own / "images" / "__MACOSX" / "cat" / "0.jpg").write_bytes(b"x")
    put(own / "images" / "cat" / "deeper" / "0.jpg", 400)
    put(own / "images" / "outside.jpg", 401)
    (own / "images" / "cat" / "2.jpg.part").write_bytes(b"x")
    report = check_data(find_set(own))
    assert report.sound
    assert notes(report)[0] == "images: ignored: 3 hidden or AppleDouble files"
    assert report.notes[1].about.startswith("images: 3 files left out")
    assert [Path(item).name for item in report.notes[1].items] == ["2.jpg.part", "0.jpg", "outside.jpg"]


def test_a_damaged_archive_does_not_stop_the_check(sketchy, small_sketchy):
    shutil.rmtree(sketchy / SKETCHES)
    (sketchy / "sketches.zip").write_bytes(b"PK broken")
    report = check_data(find_set(sketchy))
    assert any("sketches.zip is damaged or truncated" in fault for fault in faults(report))
    assert sum(report.domains["extended images"].counts.values()) == 6


# The report


def test_the_report_shows_a_few_items_of_each_kind_and_json_all(own):
    for number in range(7):
        (own / "images" / "cat" / f"bad{number}.jpg").write_bytes(b"x")
    report = check_data(find_set(own))
    assert ", and 2 more" in report.text()
    assert "images: 13 pictures in 2 classes, 3 to 10 a class, median 6.5" in report.text()
    as_json = json.loads(json.dumps(report.to_dict()))
    assert len(as_json["faults"][0]["items"]) == 7
    assert as_json["sound"] is False
    assert as_json["domains"]["images"]["counts"] == {"cat": 10, "hot-dog": 3}


def test_one_thread_and_four_find_the_same(sketchy):
    (sketchy / PHOTOGRAPHS / "cat" / "1.jpg").write_bytes(b"x")
    assert check_data(find_set(sketchy), 1) == check_data(find_set(sketchy), 4)


def test_rows_are_checked_like_folders(tmp_path):
    """Parquet with a class of no pictures, one picture in two classes, and a damaged one."""
    from datasets import ClassLabel, Dataset, Features, Image, Value

    from dsh_hf.data import open_source
    from dsh_hf.data.check import check_rows

    pictures = [put(tmp_path / f"{shade}.png", shade).read_bytes() for shade in range(3)]
    contents = [pictures[0], pictures[1], pictures[0], pictures[2][:40]]
    features = Features(image=Image(), label=ClassLabel(names=["ant", "bee", "cow"]), id=Value("string"))
    rows = {
        "image": [{"bytes": content, "path": None} for content in contents],
        "label": [0, 0, 1, 1],
        "id": ["a", "b", "c", "d"],
    }
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    report = check_rows({"pictures": open_source(str(tmp_path / "rows.parquet"), streaming=True)})
    assert report.domains["pictures"].counts == {"ant": 2, "bee": 2, "cow": 0}
    faults = {fault.about: fault.items for fault in report.faults}
    assert faults["the same picture in several classes (1 case)"] == ["a = c"]
    assert faults["pictures: 1 class without pictures"] == ["cow"]
    assert any("1 picture cannot be read" in about for about in faults)
    assert not report.sound
