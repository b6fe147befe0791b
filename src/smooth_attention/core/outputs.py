"""Places where output is asked for, tried before any work is done in vain; what is tried leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

from smooth_attention.core.errors import OptionError

__all__ = ["check_output_directory", "check_output_file"]


def check_output_directory(path: Path) -> None:
    """Raise where no directory can be made or filled.

    Raises:
        OptionError: where a file stands in the way, the system does not let us write, or a name is too long.
    """
    check_place(path, directory=path)


def check_output_file(path: Path) -> None:
    """Raise where no file can be written or replaced.

    Raises:
        OptionError: as :func:`check_output_directory` for the directory that holds it, or where it is one itself.
    """
    check_place(path, directory=path.parent)
    if path.is_dir():
        raise OptionError(f"{path} is a directory; name a file in it")


def check_place(path: Path, *, directory: Path) -> None:
    """Raise unless ``path`` can be written; ``directory`` is what must be a directory, there or made."""
    try:
        place = next(place for place in (directory, *directory.parents) if is_there(place))
        if not place.is_dir():
            raise OptionError(f"{path} can't be written: {place} is no directory; name another place")
        for name in path.relative_to(place).parts:
            is_there(place / name)  # a name that is too long is an error where its directory is there
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OptionError(f"{path} can't be written ({error.strerror}); name another place") from error


def is_there(path: Path) -> bool:
    """Return whether there is something; unlike for ``Path.exists``, a name that is too long is an error."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
