"""Listing class folders, finding damaged pictures, and remembering which are whole."""

import os
import threading
from pathlib import Path

import datasets
import pytest
from folder_trees import encoded, noise, put

from dsh_hf.data import damage
from dsh_hf.data.damage import check_pictures, looks_whole
from dsh_hf.data.scan import by_spelling, class_folders, list_pictures
from dsh_hf.processing import PictureError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "dsh_hf"


@pytest.fixture
def root(tmp_path):
    for name in ("cat", "owl"):
        for file in ("a.jpg", "b.png"):
            put(tmp_path / "pictures" / name / file)
    return tmp_path / "pictures"


@pytest.fixture
def looked_at(monkeypatch):
    """The files whose head and tail were read."""
    paths, lock, look = [], threading.Lock(), damage._fault

    def fault(path, size):
        with lock:
            paths.append("/".join(Path(path).parts[-2:]))
        return look(path, size)

    monkeypatch.setattr(damage, "_fault", fault)
    return paths


def scan(root):
    listed = list_pictures(class_folders(root).values())
    check_pictures(listed)
    return listed


def test_pictures_are_listed_by_name_with_size_and_time(root):
    put(root / "cat" / "B.JPEG")
    put(root / "cat" / "10.webp")
    cat, _ = list_pictures(class_folders(root).values())
    assert cat.path == root / "cat"
    assert cat.names == ("10.webp", "B.JPEG", "a.jpg", "b.png")
    assert cat.sizes.tolist() == [(root / "cat" / name).stat().st_size for name in cat.names]
    assert cat.times.tolist() == [(root / "cat" / name).stat().st_mtime_ns for name in cat.names]


def test_clutter_is_left_out(root):
    before = [folder.names for folder in scan(root)]
    for name in ("._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "list.txt"):
        put(root / "cat" / name, b"\0\5\x16\7")
    for name in ("__MACOSX", ".Trashes"):
        put(root / name / "a.jpg", b"")
    put(root / "filelist.txt", b"cat/a.jpg")
    assert [folder.names for folder in scan(root)] == before


def test_what_is_known_of_other_classes_stays_known(root, looked_at):
    scan(root)
    check_pictures(list_pictures([root / "cat"]))
    put(root / "owl" / "c.png")
    scan(root)
    assert sorted(looked_at) == ["cat/a.jpg", "cat/b.png", "owl/a.jpg", "owl/b.png", "owl/c.png"]


def test_a_class_that_was_damaged_costs_the_others_no_second_look(root, looked_at):
    scan(root)
    broken = put(root / "cat" / "c.jpg", noise()[:-99])
    with pytest.raises(PictureError, match="1 of 3 pictures"):
        check_pictures(list_pictures([root / "cat"]))
    broken.unlink()
    looked_at.clear()
    scan(root)
    assert looked_at == []


def test_a_folder_without_class_folders_is_named(tmp_path):
    put(tmp_path / "flat" / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"no class folders in .*flat: expected <class>/<picture>"):
        class_folders(tmp_path / "flat")


def test_empty_classes_are_named(root):
    for number in range(7):
        (root / f"empty {number}").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*/empty 0; .*/empty 4; and 2 more"):
        scan(root)


def test_a_class_twice_in_different_spelling_is_told_with_both_folders(root):
    for name in ("hot air balloon", "hot_air_balloon"):
        put(root / name / "a.jpg")
    with pytest.raises(ValueError, match=r"two spellings: .*/hot air balloon and .*/hot_air_balloon; merge"):
        by_spelling(class_folders(root))


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="the system allows only Unicode names")
def test_a_name_that_is_not_utf8_is_told(root):
    with open(os.fsencode(root) + b"/cat/\xe9.jpg", "wb") as file:
        file.write(encoded())
    with pytest.raises(ValueError, match=r"cat.*not UTF-8"):
        scan(root)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".bmp"])
def test_a_cut_picture_does_not_look_whole(suffix):
    content = noise(suffix)
    assert looks_whole(content[:16], content[-1024:], len(content))
    for cut in (content[: len(content) // 2], content[:-12]):
        assert not looks_whole(cut[:16], cut[-1024:], len(cut))


def test_tiff_is_known_by_its_head_alone():
    content = noise(".tif")
    assert looks_whole(content[:16], content[-1024:], len(content))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif"])
def test_a_few_bytes_behind_the_end_do_no_harm(suffix, root, looked_at):
    put(root / "cat" / f"trailing{suffix}", noise(suffix) + bytes(300))
    scan(root)
    content = noise(suffix) + bytes(300)
    assert looks_whole(content[:16], content[-1024:], len(content))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(noise(".jpg") + b"\1" * 5000, id="more behind the end than the tail"),
        pytest.param(noise(".jpg") + bytes(5000), id="padded with zeros"),
        pytest.param(noise(".gif") + b"\1", id="one byte behind a GIF"),
        pytest.param(noise(".ppm"), id="a kind without a mark"),
        pytest.param(noise(".bmp")[:2] + bytes(4) + noise(".bmp")[6:], id="a BMP that does not say its size"),
    ],
)
def test_what_looks_wrong_and_can_be_decoded_is_not_refused(content, root):
    assert not looks_whole(content[:16], content[-1024:], len(content))
    put(root / "cat" / "odd.jpg", content)
    scan(root)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(noise(".jpg")[:2000], "is damaged or truncated", id="cut JPEG"),
        pytest.param(noise(".png")[:2000], "is damaged or truncated", id="cut PNG"),
        pytest.param(noise(".jpg")[:2000] + bytes(2000), "is damaged or truncated", id="never filled"),
        pytest.param(b"<html>404 Not Found</html>", "is not a picture", id="a web page"),
        pytest.param(b"\0\5\x16\7" * 9, "is not a picture", id="resource fork"),
    ],
)
def test_a_damaged_picture_is_named_with_the_reason_and_the_way_out(content, reason, root):
    put(root / "owl" / "broken.jpg", content)
    with pytest.raises(PictureError, match=rf"1 of 5 pictures cannot be used: .*/owl/broken.jpg {reason}.*data check"):
        scan(root)


def test_a_link_to_nothing_is_named(root):
    (root / "owl" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    with pytest.raises(PictureError, match=r"owl/gone.jpg cannot be read \(No such file"):
        scan(root)


def test_many_damaged_pictures_are_one_error_with_their_number(root):
    for number in range(8):
        put(root / "cat" / f"empty {number}.jpg", b"")
    with pytest.raises(PictureError, match=r"8 of 12 pictures .*empty 4.jpg is empty; and 3 more\. Remove"):
        scan(root)


def test_whole_files_are_looked_at_once(root, looked_at):
    scan(root)
    assert sorted(looked_at) == ["cat/a.jpg", "cat/b.png", "owl/a.jpg", "owl/b.png"]
    scan(root)
    assert len(looked_at) == 4


def test_new_and_changed_files_are_looked_at_again_and_no_others(root, looked_at):
    scan(root)
    looked_at.clear()
    put(root / "cat" / "new.jpg")
    (root / "owl" / "a.jpg").unlink()
    put(root / "owl" / "b.png", noise(".png"))
    scan(root)
    assert sorted(looked_at) == ["cat/new.jpg", "owl/b.png"]


def test_a_file_cut_in_place_is_found_though_its_folder_did_not_change(root):
    put(root / "owl" / "long.jpg", noise(".jpg"))
    scan(root)
    folder = (root / "owl").stat().st_mtime_ns
    os.truncate(root / "owl" / "long.jpg", 2000)
    assert (root / "owl").stat().st_mtime_ns == folder
    with pytest.raises(PictureError, match=r"owl/long.jpg is damaged"):
        scan(root)


def test_damaged_files_are_not_remembered_as_whole_but_the_others_are(root, looked_at):
    put(root / "cat" / "broken.jpg", b"")
    for _ in range(2):
        looked_at.clear()
        with pytest.raises(PictureError, match=r"broken.jpg is empty"):
            scan(root)
    assert looked_at == ["cat/broken.jpg"]


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_damaged_table_is_made_anew(content, root, cache, looked_at):
    scan(root)
    (table,) = cache.iterdir()
    table.write_bytes(content)
    scan(root)
    assert len(looked_at) == 8
    scan(root)
    assert len(looked_at) == 8


def test_nothing_is_lost_where_no_table_can_be_kept(root, cache, looked_at):
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")
    scan(root)
    scan(root)
    assert len(looked_at) == 8
