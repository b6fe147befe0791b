"""Where caches live: of decoded pairs, and of groups of copies."""

from __future__ import annotations

import os
from pathlib import Path

from smooth_attention.core.errors import ConfigError
from smooth_attention.core.files import expand

__all__ = ["NAME_SHOWN", "default_cache"]

NAME_SHOWN = 40  # characters of a source's name in that of its cache; the name alone may be as long as names can be


def default_cache() -> Path:
    """Return where caches live unless told otherwise: ``SMOOTH_ATTENTION_CACHE`` or the user's cache directory.

    Raises:
        ConfigError: where nothing is said and the user has no home directory.
    """
    if named := os.environ.get("SMOOTH_ATTENTION_CACHE"):
        return expand(Path(named))
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smooth-attention"
    except RuntimeError as error:
        raise ConfigError("there is no home directory for the cache; name one in SMOOTH_ATTENTION_CACHE") from error
