"""Files that are either whole or absent: everything is written under a temporary name and renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smooth_attention.core.parts import Part

__all__ = [
    "current_umask",
    "expand",
    "hidden_prefix",
    "plain",
    "replace_directory",
    "write_bytes",
    "write_json",
    "write_text",
]

SHOWN = 40  # characters of a name that its temporary name shows: a name of 255 bytes, all there may be, has one too


def expand(path: Path) -> Path:
    """Return a path with ``~`` read as the home directory, which a shell does at the start of a word only."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser fails where there is no such user


def hidden_prefix(path: Path) -> str:
    """Return how the temporary name of a path begins."""
    return f".{path.name[:SHOWN]}."


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader sees the old one or the new one, also after a kill.

    ``durable=False`` does not wait for the disk: for files that need not outlive the machine's next failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=hidden_prefix(path), dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o666 & ~current_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON without NaN: an undefined number is null."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


@contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """Give an empty temporary directory beside ``path`` that takes its place when the context ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=hidden_prefix(path), dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~current_umask())
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f"{hidden_prefix(path)}old.", dir=path.parent))
            path.replace(old / path.name)
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def plain(value: Any) -> Any:
    """Return ``value`` in plain Python types; NaN and infinities become None, arrays and tuples lists, parts dicts."""
    if isinstance(value, Part):
        value = value.written()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
