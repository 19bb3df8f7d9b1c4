"""A set's folders are found wherever they were unpacked, in folders or archives."""

import logging
import os

import pytest
from folder_trees import left_in, packed, put

from dsh_hf.data.archives import ArchiveError
from dsh_hf.data.layout import find_parts, has_part, open_root

PARTS = ["a/pictures", "b"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def fill(*folders):
    for folder in folders:
        put(folder / "cat" / "1.jpg")


@pytest.mark.parametrize("above", [".", "set", "downloads/set", "downloads/set.zip.unpacked/set"])
def test_parts_are_found_up_to_three_levels_down(above, root):
    fill(root / above / "a/pictures", root / above / "b")
    assert find_parts("Set", root, PARTS) == [root / above / "a/pictures", root / above / "b"]


def test_parts_need_not_lie_beside_each_other(root):
    fill(root / "one/a/pictures", root / "deep/two/b")
    assert find_parts("Set", root, PARTS) == [root / "one/a/pictures", root / "deep/two/b"]


def test_the_nearest_counts(root):
    fill(root / "a/pictures", root / "copy/a/pictures", root / "b", root / "copy/b")
    assert find_parts("Set", root, PARTS) == [root / "a/pictures", root / "b"]


def test_a_folder_without_folders_is_not_the_one(root):
    put(root / "b" / "icon.png")
    fill(root / "a/pictures", root / "set/b")
    assert find_parts("Set", root, PARTS)[1] == root / "set/b"


def test_two_equally_near_are_told(root):
    fill(root / "one/b", root / "two/b", root / "a/pictures")
    with pytest.raises(ValueError, match=r"b is there twice: .*one/b and .*two/b; give the folder above the right one"):
        find_parts("Set", root, PARTS)


def test_ready_pictures_are_preferred_and_that_is_logged(root, caplog):
    fill(root / "a/pictures", root / "a/pictures_ready", root / "b")
    with caplog.at_level(logging.INFO):
        assert find_parts("Set", root, PARTS) == [root / "a/pictures_ready", root / "b"]
    assert "a/pictures_ready is used" in caplog.text
    assert "a/pictures is left out" in caplog.text


def test_what_is_missing_is_told_with_what_is_there(root):
    fill(root / "set/a/pictures", root / "set/c")
    with pytest.raises(FileNotFoundError, match=r"Set: expected b in .*root/set, where there is: a, c$"):
        find_parts("Set", root, PARTS)


def test_of_many_folders_the_first_are_told(root):
    for number in range(12):
        fill(root / f"class {number:02}")
    with pytest.raises(FileNotFoundError, match=r"where there is: class 00, .*, class 09, \.\.\.$"):
        find_parts("Set", root, PARTS)


def test_a_folder_that_may_not_be_read_does_no_harm(root, monkeypatch):
    look = os.scandir

    def refused(folder):
        if os.path.basename(folder) == "lost+found":
            raise PermissionError(folder)
        return look(folder)

    fill(root / "set/a/pictures", root / "set/b")
    (root / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", refused)  # file modes do not stop an administrator
    assert find_parts("Set", root, PARTS)[1] == root / "set/b"


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("place", [".", "downloads"])
def test_archives_that_hold_what_is_missing_are_unpacked(kind, place, root, tmp_path):
    fill(root / "a/pictures", tmp_path / "content/set/b_ready", tmp_path / "other/c")
    (root / place).mkdir(exist_ok=True)
    archive = packed(tmp_path / "content", root / place / f"any name.{kind}")
    packed(tmp_path / "other", root / place / "other.zip")
    for _ in range(2):
        folders = find_parts("Set", root, PARTS)
        assert folders == [root / "a/pictures", root / place / f"{archive.name}.unpacked/set/b_ready"]
    assert "other.zip.unpacked" not in left_in(root / place)


def test_archives_beside_their_folders_are_left_alone(root, tmp_path):
    fill(root / "a/pictures", root / "b")
    packed(root / "b", root / "b.zip")
    find_parts("Set", root, PARTS)
    assert has_part(root, "b")
    assert left_in(root) == ["a", "b", "b.zip"]


def test_a_changed_archive_is_unpacked_anew(root, tmp_path):
    fill(tmp_path / "content/a/pictures", tmp_path / "content/b")
    packed(tmp_path / "content", root / "set.zip")
    _, before = find_parts("Set", root, PARTS)
    put(tmp_path / "content/b/owl/2.jpg")
    packed(tmp_path / "content", root / "set.zip")
    _, after = find_parts("Set", root, PARTS)
    assert after == before
    assert left_in(after) == ["cat", "owl"]


def test_a_damaged_archive_is_told_where_something_is_missing(root):
    fill(root / "a/pictures")
    put(root / "b.zip", b"half")
    with pytest.raises(ArchiveError, match=r"b\.zip is damaged"):
        find_parts("Set", root, PARTS)


@pytest.mark.parametrize("name", ["set.7z", "set.rar", "SET.7Z"])
def test_archives_of_other_kinds_are_to_be_unpacked_by_the_person(name, root):
    put(root / name, b"7z")
    with pytest.raises(FileNotFoundError, match=rf"expected a/pictures and b .*; unpack .*{name} first"):
        find_parts("Set", root, PARTS)
    with pytest.raises(ArchiveError, match=rf"{name}: only zip and tar are opened here; unpack it"):
        open_root(root / name)


def test_a_part_is_there_as_folder_or_as_archive_of_its_name(root, tmp_path):
    assert not has_part(root, "b")
    fill(tmp_path / "content/b_ready")
    packed(tmp_path / "content", root / "B_ready.zip")
    assert has_part(root, "b")
    assert "B_ready.zip.unpacked" in left_in(root)


def test_a_part_is_there_in_an_archive_of_another_name_at_the_first_look_as_at_the_second(root, tmp_path):
    fill(root / "a/pictures", tmp_path / "content/set/b_ready", tmp_path / "other/c")
    packed(tmp_path / "content", root / "everything.zip")
    packed(tmp_path / "other", root / "other.zip")
    assert [has_part(root, "b"), has_part(root, "b")] == [True, True]
    assert left_in(root) == ["a", "everything.zip", "everything.zip.unpacked", "other.zip"]


def test_a_changed_archive_is_looked_into_anew(root, tmp_path):
    fill(tmp_path / "content/a/pictures", tmp_path / "content/c")
    packed(tmp_path / "content", root / "set.zip")
    with pytest.raises(FileNotFoundError):
        find_parts("Set", root, PARTS)
    fill(tmp_path / "content/b")
    packed(tmp_path / "content", root / "set.zip")
    assert has_part(root, "b")


def test_a_damaged_archive_of_another_name_does_no_harm_where_a_part_is_asked_for(root, caplog):
    put(root / "notes.zip", b"half")
    assert not has_part(root, "b")
    assert "not looked into: " in caplog.text
    assert "notes.zip is damaged" in caplog.text


def test_a_part_in_an_archive_of_another_kind_is_told(root):
    put(root / "b_ready.rar", b"Rar!")
    with pytest.raises(ArchiveError, match=r"b_ready\.rar: only zip and tar"):
        has_part(root, "b")


def test_an_archive_can_be_the_root(root, tmp_path):
    fill(tmp_path / "content/a/pictures", tmp_path / "content/b")
    archive = packed(tmp_path / "content", root / "set.tar")
    assert find_parts("Set", open_root(archive), PARTS)[1] == root / "set.tar.unpacked/b"


def test_a_missing_root_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        open_root(root / "nowhere")
