"""Archives of pictures, unpacked once beside themselves, whole or not at all."""

import errno
import json
import logging
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm.auto import tqdm

from dsh_hf.data.scan import is_clutter

logger = logging.getLogger(__name__)

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_SUFFIXES = (*TAR_SUFFIXES, ".zip")
FOREIGN_SUFFIXES = (".7z", ".rar", ".tar.zst")
_STAMP = ".unpacked-from.json"
_BLOCK = 4096  # what a small file takes on most disks
_CHUNK = 1 << 20

Archive = zipfile.ZipFile | tarfile.TarFile
Member = zipfile.ZipInfo | tarfile.TarInfo


class ArchiveError(ValueError):
    """An archive cannot be unpacked; the message names it and says why."""


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is an archive that :func:`unpacked` opens."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def is_foreign_archive(path: Path) -> bool:
    """Tell by its name whether a file is an archive that the person has to unpack."""
    return path.name.lower().endswith(FOREIGN_SUFFIXES) and path.is_file()


def refuse_foreign(path: Path) -> None:
    """Say how to go on with an archive that is not opened here.

    Raises:
        ArchiveError: it is one.
    """
    if is_foreign_archive(path):
        raise ArchiveError(f"{path}: only zip and tar are opened here; unpack it (as with: 7z x) and give the folder")


def unpacked_folder(archive: Path) -> Path:
    """Say where an archive is unpacked: ``<archive>.unpacked`` beside it."""
    return archive.with_name(f"{archive.name}.unpacked")


def was_unpacked(archive: Path) -> bool:
    """Tell whether an archive was unpacked before, in this or an earlier state."""
    return (unpacked_folder(archive) / _STAMP).is_file()


def member_names(archive: Path) -> list[str]:
    """List the names in an archive.

    Raises:
        ArchiveError: it is damaged or truncated.
    """
    with _opened(archive) as opened:
        return [_name(member) for member in _members(opened)]


def unpacked(archive: Path) -> Path:
    """Unpack an archive into ``<archive>.unpacked``, or find that done; a changed archive is unpacked anew.

    It is unpacked into a temporary folder first, so that the folder is complete whenever it is there.

    Returns:
        The folder.

    Raises:
        ArchiveError: damaged, truncated or encrypted, or a member would lie outside the folder; the member is named.
        FileExistsError: the folder is there and was not made by this function.
        OSError: too little space, or a place that cannot be written to.
    """
    target = unpacked_folder(archive)
    if _is_fresh(archive, target):
        return target
    from filelock import FileLock

    try:
        with FileLock(archive.with_name(f".{archive.name}.lock")):
            if not _is_fresh(archive, target):  # another process may have been first
                _replace(target, lambda folder: _unpack(archive, folder))
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno is None:
            raise
        raise OSError(
            f"{archive} cannot be unpacked beside itself ({error.strerror}): "
            "make room or the folder writable, or unpack it elsewhere and give that folder"
        ) from error
    return target


def _stamp(archive: Path) -> dict[str, int]:
    status = archive.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_fresh(archive: Path, target: Path) -> bool:
    try:
        return bool(json.loads((target / _STAMP).read_text(encoding="utf-8")) == _stamp(archive))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:  # a stamp that was damaged
        return False


def _replace(target: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder, then put it in the place of an older one."""
    if target.exists() and not (target / _STAMP).is_file():
        raise FileExistsError(f"{target} is in the way: move it, or give it as the folder of the data")
    temporary, old = (target.with_name(f".{target.name}.{kind}") for kind in ("new", "old"))
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        fill(temporary)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    stamp = _stamp(archive)
    with _opened(archive) as opened:
        members = _members(opened)
        _check_names(archive, members)
        members = [member for member in members if not _in_clutter(_name(member))]
        _check_space(archive, members)
        logger.info("unpacking %s into %s", archive, unpacked_folder(archive))
        shown = tqdm(members, desc=f"unpack {archive.name}", unit="file", disable=None)
        if isinstance(opened, zipfile.ZipFile):
            for member in shown:
                opened.extract(member, folder)
        else:
            opened.extractall(folder, members=shown, filter="data")
    (folder / _STAMP).write_text(json.dumps(stamp), encoding="utf-8")


@contextmanager
def _opened(archive: Path) -> Iterator[Archive]:
    """Open an archive; whatever goes wrong with its contents is told with its name."""
    try:
        with zipfile.ZipFile(archive) if archive.suffix.lower() == ".zip" else tarfile.open(archive) as opened:
            yield opened
    except tarfile.FilterError as error:
        raise ArchiveError(f"{archive} is refused: {error}") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        reason = str(error).partition(":\n")[0]
        raise ArchiveError(f"{archive} is damaged or truncated ({reason}): download or copy it again") from error
    except OSError as error:
        if error.errno is not None:  # the system's word; of damaged bz2 and gzip there is none
            raise
        raise ArchiveError(f"{archive} is damaged or truncated ({error}): download or copy it again") from error
    except RuntimeError as error:  # what zipfile says of passwords and of methods that it does not know
        raise ArchiveError(f"{archive}: {error}; unpack it and give the folder") from error


def _members(opened: Archive) -> list[Member]:
    if isinstance(opened, zipfile.ZipFile):
        for member in opened.infolist():
            member.filename = member.filename.replace("\\", "/")  # as older Windows tools part folders
        return list(opened.infolist())
    members: list[Member] = list(opened.getmembers())
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a cut for the end
        raise tarfile.ReadError("its end is missing")
    while opened.fileobj.read(_CHUNK):  # to the end of the file, where gzip and the like keep their sums
        pass
    return members


def _name(member: Member) -> str:
    return member.filename if isinstance(member, zipfile.ZipInfo) else member.name


def _size(member: Member) -> int:
    return member.file_size if isinstance(member, zipfile.ZipInfo) else member.size


def _in_clutter(name: str) -> bool:
    return any(is_clutter(part) for part in PurePosixPath(name).parts if part not in (".", ".."))


def _check_names(archive: Path, members: list[Member]) -> None:
    """Refuse what would be written elsewhere; of links and devices ``tarfile`` itself takes care."""
    for name in map(_name, members):
        windows = PureWindowsPath(name)
        if ".." in windows.parts or windows.drive or windows.root:
            raise ArchiveError(f"{archive} is refused: its member {name!r} would be written outside the folder")


def _check_space(archive: Path, members: list[Member]) -> None:
    needed = sum(_size(member) + _BLOCK for member in members)
    free = shutil.disk_usage(archive.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"it needs {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free")
