"""Locks between processes that end with their process: never stale, not inherited by children."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smooth_attention.core.errors import ConfigError

PAUSE_SECONDS = 0.2


@contextmanager
def exclusive(path: Path, *, refusal: str, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of ``path`` inside the context.

    A POSIX record lock: the system drops it when the process ends, however it ends, and a forked or spawned child does
    not have it. The file stays; it means nothing without the lock.

    Args:
        path: the lock file, made where it is missing.
        refusal: what the error says where another process holds the lock.
        patience_seconds: how long to wait for it.

    Raises:
        ConfigError: where it is still held after that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_seconds
    with path.open("a", encoding="utf-8") as file:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError) as error:  # POSIX allows either
                if time.monotonic() >= deadline:
                    raise ConfigError(refusal) from error
                time.sleep(PAUSE_SECONDS)
        yield
