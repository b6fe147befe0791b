"""Where caches live, by the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from smooth_attention.core.errors import ConfigError
from smooth_attention.data.cache_root import default_cache


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"SMOOTH_ATTENTION_CACHE": "/named", "XDG_CACHE_HOME": "/xdg"}, "/named"),
        ({"SMOOTH_ATTENTION_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/smooth-attention"),
        ({"SMOOTH_ATTENTION_CACHE": "~/named", "HOME": "/home/somebody"}, "/home/somebody/named"),
        ({"HOME": "/home/somebody"}, "/home/somebody/.cache/smooth-attention"),
    ],
    ids=["named", "XDG", "below home", "home"],
)
def test_default_cache_is(monkeypatch, environment, want):
    for name in ("SMOOTH_ATTENTION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_cache() == Path(want)


def test_a_user_without_a_home_is_told(monkeypatch):
    """As in a container whose user has no entry: neither HOME nor the system knows one."""
    for name in ("SMOOTH_ATTENTION_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**30)
    with pytest.raises(ConfigError, match="no home directory for the cache; name one in SMOOTH_ATTENTION_CACHE"):
        default_cache()
