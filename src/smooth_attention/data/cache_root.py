"""Where caches live: of decoded pairs, and of groups of copies."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_cache"]


def default_cache() -> Path:
    """Return where caches live unless told otherwise: ``SMOOTH_ATTENTION_CACHE`` or the user's cache directory."""
    if named := os.environ.get("SMOOTH_ATTENTION_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smooth-attention"
