import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from dsh_hf.files import replaced_atomically, write_atomically


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]  # no temporary file stays behind


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_new_file_may_be_read_by_whom_the_umask_allows(tmp_path, umask):
    write_atomically(tmp_path / "a.bin", b"content")
    with replaced_atomically(tmp_path / "a.safetensors") as temporary:
        save_file({"a": np.zeros(3)}, temporary)
    assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o666 & ~umask] * 2


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.bin"
    path.touch()
    path.chmod(mode)
    with replaced_atomically(path) as temporary:
        assert temporary.stat().st_mode & 0o777 == mode | 0o600  # a private file is private while it is written
        temporary.write_bytes(b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", mode)


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    with pytest.raises(type(error)), replaced_atomically(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise error
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "a.bin", b"content")
