import json
import os
import subprocess
import sys

import datasets
import pytest
from folder_trees import encoded, packed, put

from dsh_hf.data import load_folders
from dsh_hf.data.folders import load_class_folders


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def place(tmp_path):
    for name in ("Hot Air Balloon", "cat"):
        for file in ("1.png", "2.PNG"):
            put(tmp_path / "sketches" / name / file)
    for name in ("hot_air_balloon", "cat"):
        for file in ("x.jpg", "y.jpeg", "z.webp"):
            put(tmp_path / "images" / name / file)
    return tmp_path


def load(place, **options):
    return load_folders(sketches=place / "sketches", images=place / "images", **options)


def drawing(path, count=2):
    lines = [json.dumps({"key_id": f"{row}", "drawing": [[[0, 255], [0, 255 - row]]]}) for row in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def test_gives_both_domains_with_the_same_classes(place):
    data = load(place)
    for part in data.values():
        assert part.column_names == ["image", "label", "id"]
        assert part.features["label"].names == ["Hot Air Balloon", "cat"]
    assert data["sketches"]["label"][:] == [0, 0, 1, 1]
    assert data["images"]["id"][:] == [f"{name}/{stem}" for name in ("Hot Air Balloon", "cat") for stem in "xyz"]


def test_pictures_are_rgb_and_stay_where_they_are(place):
    data = load(place)
    assert data["sketches"][0]["image"].mode == "RGB"
    stored = data["images"].data.column("image")[-1].as_py()
    assert stored == {"bytes": None, "path": str(place / "images" / "cat" / "z.webp")}


def test_files_of_one_name_keep_their_suffix_in_the_id(place):
    put(place / "images" / "cat" / "x.png")
    assert load(place)["images"]["id"][3:] == ["cat/x.jpg", "cat/x.png", "cat/y", "cat/z"]


def test_new_removed_and_changed_files_are_seen(place):
    before = load(place)["images"]
    put(place / "images" / "cat" / "new.jpg")
    (place / "images" / "cat" / "x.jpg").unlink()
    after = load(place)["images"]
    assert after["id"][3:] == ["cat/new", "cat/y", "cat/z"]
    put(place / "images" / "cat" / "new.jpg", encoded(".jpg", colour=(0, 0, 0), size=(90, 90)))
    prints = {before._fingerprint, after._fingerprint, load(place)["images"]._fingerprint}
    assert len(prints) == 3


def test_fingerprints_are_the_same_in_another_process_with_and_without_what_was_kept(place):
    code = (
        "import sys; from dsh_hf.data import load_folders\n"
        "for _ in range(2):\n"
        "    data = load_folders(sketches=sys.argv[1], images=sys.argv[2])\n"
        "    print(*[data[key]._fingerprint for key in ('sketches', 'images')])"
    )
    command = [sys.executable, "-c", code, str(place / "sketches"), str(place / "images")]
    environment = os.environ | {"HF_DATASETS_CACHE": str(place / "other cache")}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    data = load(place)
    ours = f"{data['sketches']._fingerprint} {data['images']._fingerprint}"
    assert printed.splitlines() == [ours, ours]
    assert data["sketches"]._fingerprint != data["images"]._fingerprint


def test_classes_on_one_side_only_are_an_error_that_tells_the_way_out(place):
    for name in ("zebra", "axe"):
        put(place / "sketches" / name / "1.png")
    put(place / "images" / "owl" / "1.jpg")
    message = (
        r"sketches but no images: axe, zebra \(in .*/sketches\); .*images but no sketches: owl \(in .*/images\): "
        r'.*classes=\["cat", \.\.\.\], or classes="shared"'
    )
    with pytest.raises(ValueError, match=message):
        load(place)


def test_shared_classes_can_be_asked_for(place):
    put(place / "sketches" / "zebra" / "1.png")
    put(place / "images" / "owl" / "1.jpg")
    assert load(place, classes="shared")["images"].features["label"].names == ["Hot Air Balloon", "cat"]


def test_classes_can_be_listed_in_any_spelling(place):
    data = load(place, classes=["hot-air balloon"])
    assert data["sketches"].features["label"].names == ["Hot Air Balloon"]
    assert (len(data["sketches"]), len(data["images"])) == (2, 3)


def test_what_is_left_out_is_not_looked_at(place):
    put(place / "images" / "cat" / "broken.jpg", b"")
    assert len(load(place, classes=["Hot Air Balloon"])["images"]) == 3


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "dog", "cow"], r"no such class: cow, dog; there are Hot Air Balloon, cat"),
        ([], r"no such class: \(no name given\)"),
        ("cat", r'classes is a list of names or "shared", got \'cat\''),
        (["cat", "zebra"], r"sketches but no images: zebra"),
    ],
)
def test_classes_that_cannot_be_had_are_told(classes, message, place):
    if "zebra" in classes:
        put(place / "sketches" / "zebra" / "1.png")
    with pytest.raises(ValueError, match=message):
        load(place, classes=classes)


def test_nothing_shared_is_told(place):
    put(place / "other" / "owl" / "1.jpg")
    with pytest.raises(ValueError, match=r"no class is both in .*sketches and in .*other"):
        load_folders(sketches=place / "sketches", images=place / "other", classes="shared")


def test_a_class_twice_in_different_spelling_is_told(place):
    put(place / "images" / "Cat" / "1.jpg")
    with pytest.raises(ValueError, match=r"two spellings: .*images/Cat and .*images/cat"):
        load(place)


def test_archives_are_opened_with_the_layer_that_they_have(place):
    (place / "packed").mkdir()
    (place / "sketches").rename(place / "packed" / "my sketches")
    packed(place / "packed", place / "sketches.zip")
    packed(place / "images", place / "images.tar.gz")
    data = load_folders(sketches=place / "sketches.zip", images=place / "images.tar.gz")
    assert (len(data["sketches"]), len(data["images"])) == (4, 6)


def test_one_class_with_folders_in_it_is_no_layer(place):
    put(place / "single" / "cat" / "1.jpg")
    put(place / "single" / "cat" / "thumbnails" / "1.jpg")
    assert load_class_folders(place / "single")["id"][:] == ["cat/1"]


def test_drawings_of_quick_draw_are_rendered(place):
    for word in ("cat", "hot air balloon"):
        drawing(place / "quickdraw" / f"{word}.ndjson")
    data = load_folders(sketches=place / "quickdraw", images=place / "images")
    assert data["sketches"].features["label"].names == ["cat", "hot air balloon"]
    assert data["images"].features["label"].names == ["cat", "hot air balloon"]
    assert data["sketches"]["id"][:] == ["cat/0", "cat/1", "hot air balloon/0", "hot air balloon/1"]
    assert data["sketches"][0]["image"].size == (256, 256)


def test_only_drawings_of_wanted_classes_are_rendered(place):
    drawing(place / "quickdraw" / "cat.ndjson")
    (place / "quickdraw" / "owl.ndjson").write_text("no drawing")
    with pytest.raises(ValueError, match=r"sketches but no images: owl"):
        load_folders(sketches=place / "quickdraw", images=place / "images")
    data = load_folders(sketches=place / "quickdraw", images=place / "images", classes="shared")
    assert data["sketches"].features["label"].names == ["cat"]


def test_one_domain_alone(place):
    data = load_class_folders(place / "images")
    assert data.features["label"].names == ["cat", "hot_air_balloon"]
    assert data["label"][:] == [0, 0, 0, 1, 1, 1]
    put(place / "images" / "CAT" / "1.jpg")
    with pytest.raises(ValueError, match="two spellings"):
        load_class_folders(place / "images")


def test_data_can_be_streamed(place):
    stream = load(place)["images"].to_iterable_dataset()
    assert next(iter(stream))["image"].size == (8, 6)
