"""Locks between processes that end with their process: never stale, not inherited by children."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from smooth_attention.core.errors import ConfigError

__all__ = ["exclusive"]

PAUSE_SECONDS = 0.2


@contextmanager
def exclusive(path: Path, *, refusal: str, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of ``path`` inside the context.

    The system drops the lock when the process ends, however it ends, and a forked or spawned child does not have it.
    The file stays; it means nothing without the lock.

    Args:
        path: the lock file, made where it is missing.
        refusal: what the error says where another process holds the lock.
        patience_seconds: how long to wait for it.

    Raises:
        ConfigError: where it is still held after that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a soft lock, the library's way out on odd file systems, would outlive a killed process
    lock = FileLock(path, timeout=patience_seconds, poll_interval=PAUSE_SECONDS, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except Timeout as error:
        raise ConfigError(refusal) from error
    with held:
        yield
