"""Unpacking of archives that came from elsewhere: nothing leaves the directory they are unpacked into."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from smooth_attention.core.errors import DataError

__all__ = ["is_archive", "unpack"]

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
MAX_DEPTH = 3  # archives inside archives


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive by its name."""
    return path.name.lower().endswith(ARCHIVES)


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive into a directory, and the archives inside it where they lie.

    Raises:
        DataError: where it is no archive, damaged, or a member would be written or link outside ``target``.
    """
    unpack_one(archive, target)
    for _ in range(MAX_DEPTH):
        inner = [path for path in sorted(target.rglob("*")) if path.is_file() and is_archive(path)]
        if not inner:
            return
        for path in inner:
            aside = path.rename(path.with_name(f".{path.name}.packed"))  # it may hold a file of its own name
            unpack_one(aside, path.parent)
            aside.unlink()
    raise DataError(f"{archive} holds archives more than {MAX_DEPTH} deep; unpack it by hand")


def unpack_one(archive: Path, target: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for member in opened.infolist():
                    check_member(archive, member)
                opened.extractall(target)
        else:
            with tarfile.open(archive) as opened_tar:
                opened_tar.extractall(target, filter="data")
    except tarfile.FilterError as error:
        raise DataError(f"{archive} has a member that is not safe to unpack ({error}); refused") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(f"{archive} is no archive or damaged ({why}); remove it and fetch it again") from error


def check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{archive} has a member that is not safe to unpack ({member.filename!r}); refused")
