"""Archives are unpacked once, beside themselves, whole or not at all; what would escape is refused."""

import io
import os
import shutil
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from folder_trees import encoded, left_in, noise, packed, put

from dsh_hf.data import archives
from dsh_hf.data.archives import ArchiveError, is_archive, member_names, unpacked

KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz"]


def zip_of(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path, *members):
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def tar_member(name, kind=tarfile.REGTYPE, linkname=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, linkname
    return member


@pytest.fixture
def content(tmp_path):
    for name in ("cat/a.jpg", "cat/b.jpg", "hot air balloon/a.jpg"):
        put(tmp_path / "content" / name, noise(".jpg"))
    return tmp_path / "content"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.parametrize("kind", KINDS)
def test_unpacks_beside_itself(kind, content, place):
    archive = packed(content, place / f"pictures.{kind}")
    assert is_archive(archive)
    folder = unpacked(archive)
    assert folder == place / f"pictures.{kind}.unpacked"
    for file in ("cat/a.jpg", "cat/b.jpg", "hot air balloon/a.jpg"):
        assert (folder / file).read_bytes() == (content / file).read_bytes()
    assert left_in(place) == [archive.name, folder.name]


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_listed_without_unpacking(kind, content, place):
    archive = packed(content, place / f"pictures.{kind}")
    assert {"cat/a.jpg", "hot air balloon/a.jpg"} <= set(member_names(archive))
    assert left_in(place) == [archive.name]


def test_is_unpacked_once(content, place):
    archive = packed(content, place / "pictures.zip")
    (unpacked(archive) / "cat" / "a.jpg").unlink()
    assert not (unpacked(archive) / "cat" / "a.jpg").exists()


def test_a_changed_archive_is_unpacked_anew(content, place):
    folder = unpacked(packed(content, place / "pictures.zip"))
    (content / "cat" / "a.jpg").unlink()
    put(content / "owl" / "a.jpg")
    assert unpacked(packed(content, place / "pictures.zip")) == folder
    assert left_in(folder / "cat") == ["b.jpg"]
    assert (folder / "owl" / "a.jpg").exists()
    assert left_in(place) == ["pictures.zip", "pictures.zip.unpacked"]


def test_a_folder_of_somebody_else_is_left_alone(content, place):
    archive = packed(content, place / "pictures.zip")
    mine = put(place / "pictures.zip.unpacked" / "mine.jpg")
    with pytest.raises(FileExistsError, match=r"pictures.zip.unpacked is in the way: move it"):
        unpacked(archive)
    assert mine.exists()


def test_what_a_killed_run_left_is_replaced(content, place):
    archive = packed(content, place / "pictures.zip")
    put(place / ".pictures.zip.unpacked.new" / "cat" / "half.jpg", b"")
    folder = unpacked(archive)
    assert left_in(folder / "cat") == ["a.jpg", "b.jpg"]
    assert left_in(place) == ["pictures.zip", "pictures.zip.unpacked"]


def test_two_at_once_both_find_it_whole(content, place):
    archive = packed(content, place / "pictures.tar.gz")
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(unpacked, [archive] * 4))
    assert {len(list(folder.rglob("*.jpg"))) for folder in folders} == {3}


def test_clutter_is_not_unpacked(place):
    members = {"cat/a.jpg": encoded(), "cat/._a.jpg": b"", "__MACOSX/cat/._a.jpg": b"", ".DS_Store": b"", "./b/c": b""}
    folder = unpacked(zip_of(place / "mac.zip", members))
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("[!.]*") if p.is_file()) == ["b/c", "cat/a.jpg"]
    assert not list(folder.rglob("._*"))


@pytest.mark.parametrize(
    "name", ["../outside.jpg", "cat/../../outside.jpg", "/outside.jpg", "..\\outside.jpg", "C:\\outside.jpg"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_would_lie_outside_are_refused_by_name(kind, name, place):
    if kind == "zip":
        info = zipfile.ZipInfo("x")
        info.filename = name  # as it stands: the constructor would make / of \\
        archive = zip_of(place / "evil.zip", {"cat/a.jpg": encoded(), info: b""})
    else:
        archive = tar_of(place / "evil.tar", tar_member("cat/a.jpg"), tar_member(name))
    with pytest.raises(ArchiveError, match=r"evil\.(zip|tar) is refused: .*outside.jpg"):
        unpacked(archive)
    assert left_in(place) == [archive.name]
    assert not (place.parent / "outside.jpg").exists()


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(tar_member("link.jpg", tarfile.SYMTYPE, "../../secret"), id="link out"),
        pytest.param(tar_member("link.jpg", tarfile.SYMTYPE, "/etc/passwd"), id="absolute link"),
        pytest.param(tar_member("link.jpg", tarfile.LNKTYPE, "../secret"), id="hard link out"),
        pytest.param(tar_member("link.jpg", tarfile.CHRTYPE), id="device"),
        pytest.param(tar_member("link.jpg", tarfile.FIFOTYPE), id="pipe"),
    ],
)
def test_links_out_and_devices_are_refused_by_name(member, place):
    archive = tar_of(place / "evil.tar", tar_member("cat/a.jpg"), member)
    with pytest.raises(ArchiveError, match=r"evil\.tar is refused: .*link\.jpg"):
        unpacked(archive)
    assert left_in(place) == ["evil.tar"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_truncated_archive_is_told_and_leaves_nothing(kind, share, content, place):
    archive = packed(content, place / f"pictures.{kind}")
    os.truncate(archive, int(archive.stat().st_size * share))
    with pytest.raises(ArchiveError, match=rf"pictures\.{kind} is damaged or truncated .*: download or copy it again"):
        unpacked(archive)
    assert left_in(place) == [archive.name]


def test_a_tar_cut_between_two_members_is_told(place):
    archive = tar_of(place / "pictures.tar", tar_member("a.jpg"), tar_member("b.jpg"))
    os.truncate(archive, tarfile.BLOCKSIZE)
    with pytest.raises(ArchiveError, match="its end is missing"):
        unpacked(archive)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_archive_is_told(kind, place):
    archive = put(place / f"pictures.{kind}", b"<html>quota exceeded</html>" * 99)
    with pytest.raises(ArchiveError, match=rf"pictures\.{kind} is damaged or truncated"):
        unpacked(archive)


def test_a_damaged_member_is_told(content, place):
    archive = packed(content, place / "pictures.zip")
    data = bytearray(archive.read_bytes())
    data[300] ^= 255
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"damaged or truncated \(Bad CRC-32 for file 'cat/a.jpg'\)"):
        unpacked(archive)
    assert left_in(place) == [archive.name]


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_compressed_archive_with_damage_inside_is_told(kind, content, place):
    put(content / "owl" / "a.png", noise(".png", side=1000))  # so that bz2 has more than one block
    archive = packed(content, place / f"pictures.{kind}")
    data = bytearray(archive.read_bytes())
    data[-6 if kind == "tar.gz" else len(data) * 9 // 10] ^= 255  # gzip's own sum is at its end
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match=rf"pictures\.{kind} is damaged or truncated"):
        unpacked(archive)
    assert left_in(place) == [archive.name]


def test_folders_that_an_older_windows_tool_wrote_are_folders(place):
    members = {}
    for name in ("cat\\", "cat\\1.jpg", "__MACOSX\\cat\\2.jpg"):
        info = zipfile.ZipInfo("x")
        info.filename = name  # as it stands: the constructor would make / of \\
        members[info] = encoded() if name.endswith("jpg") else b""
    archive = zip_of(place / "windows.zip", members)
    assert member_names(archive) == ["cat/", "cat/1.jpg", "__MACOSX/cat/2.jpg"]
    folder = unpacked(archive)
    assert (folder / "cat" / "1.jpg").read_bytes() == encoded()
    assert [path.name for path in folder.rglob("*.jpg")] == ["1.jpg"]


def test_an_encrypted_archive_is_told(content, place):
    archive = packed(content, place / "pictures.zip")
    data = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        while (start := data.find(signature, start + 1)) >= 0:
            data[start + flags] |= 1
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"pictures.zip: .*encrypted.*; unpack it and give the folder"):
        unpacked(archive)


def test_too_little_space_is_told_before_anything_is_written(content, place, monkeypatch):
    archive = packed(content, place / "pictures.tar")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 9000))
    with pytest.raises(OSError, match=r"pictures.tar cannot be .* \(it needs 0.0 GB, and 0.0 GB are free\): make room"):
        unpacked(archive)
    assert left_in(place) == [archive.name]


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(content, place, monkeypatch):
    archive = packed(content, place / "pictures.zip")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(OSError, match=r"pictures.zip cannot be unpacked beside itself \(No space left on device\)"):
        unpacked(archive)
    assert left_in(place) == [archive.name]


def test_a_place_that_cannot_be_written_to_is_told(content, place, monkeypatch):
    archive = packed(content, place / "pictures.zip")

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(OSError, match=r"beside itself \(Read-only file system\): .*unpack it elsewhere"):
        archives.unpacked(archive)
