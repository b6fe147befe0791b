"""Small data sets in the ``folder`` layout, written for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest

from miniatures import save_image


@pytest.fixture
def save() -> Callable[..., Path]:
    """A function that writes an array as an image, its format by the suffix; returns the path."""
    return save_image


@pytest.fixture
def write_folder(tmp_path: Path, save: Callable[..., Path]) -> Callable[..., Path]:
    """A function that writes pairs of noise, each drawn from its stem alone, and text files beside them."""

    def write(
        stems: Iterable[str] = "abcdef",
        *,
        root: str = "pets",
        width: int = 40,
        height: int = 36,
        num_labels: int = 2,
        texts: Mapping[str, str] | None = None,
    ) -> Path:
        folder = tmp_path / root
        for stem in stems:
            rng = np.random.default_rng([*stem.encode()])
            save(folder / "images" / f"{stem}.png", rng.integers(0, 256, (height, width, 3), np.uint8))
            save(folder / "masks" / f"{stem}.png", rng.integers(0, num_labels, (height, width), np.uint8))
        for name, text in (texts or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    return write
