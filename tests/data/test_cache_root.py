"""Where caches live, by the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from smooth_attention.data.cache_root import default_cache


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"SMOOTH_ATTENTION_CACHE": "/named", "XDG_CACHE_HOME": "/xdg"}, "/named"),
        ({"SMOOTH_ATTENTION_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/smooth-attention"),
        ({"HOME": "/home/somebody"}, "/home/somebody/.cache/smooth-attention"),
    ],
    ids=["named", "XDG", "home"],
)
def test_default_cache_is(monkeypatch, environment, want):
    for name in ("SMOOTH_ATTENTION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_cache() == Path(want)
