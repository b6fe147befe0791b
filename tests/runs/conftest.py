"""Small runs, made once for all tests that look into them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from look_runs import train_small, write_hostile_scenes


@pytest.fixture(scope="session")
def look_run(write_scenes: Callable[..., Path], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binary run."""
    return train_small(write_scenes(16), tmp_path_factory.mktemp("look") / "small", cache)


@pytest.fixture(scope="session")
def class_run(write_scenes: Callable[..., Path], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five classes with ignored pixels, where every name would be markup if it were not escaped."""
    data = write_hostile_scenes(write_scenes(16, with_classes=True))
    return train_small(data, tmp_path_factory.mktemp("look") / "<i>classes", cache, allow_absent_classes=True)
