"""Errors: what was expected, what came, how to mend it."""

from __future__ import annotations

__all__ = [
    "BackendError",
    "ConfigError",
    "DamagedError",
    "DataError",
    "DataWarning",
    "OptionError",
    "RequestError",
    "RunError",
    "ShapeError",
    "SmoothAttentionError",
    "reason_of",
]


class SmoothAttentionError(Exception):
    """Base of every error that this package raises on purpose."""


class RequestError(SmoothAttentionError, ValueError):
    """The request was wrong; the message says how to mend it. The command line exits with status 2."""


class ShapeError(RequestError):
    """A tensor or grid has a shape that does not fit."""


class OptionError(RequestError):
    """An option has a value that is not allowed, or two options exclude each other."""


class BackendError(RequestError):
    """No backend can run this call; the message lists every reason."""


class DataError(RequestError):
    """A dataset, image or mask is not as expected; the message names the file."""


class ConfigError(RequestError):
    """A configuration does not fit its fields, or a directory holds another one."""


class DamagedError(ConfigError):
    """A file that this package wrote is damaged; the message says how to make it again."""


class DataWarning(UserWarning):
    """Something about the data that a user should know before believing a number."""


class RunError(SmoothAttentionError, RuntimeError):
    """A run failed while it was running, e.g. on a NaN loss. The command line exits with status 1."""


def reason_of(error: Exception) -> str:
    """Return in one line why something failed, for a record; an error that is not ours is named by its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SmoothAttentionError) else f"{type(error).__name__}: {text}"
