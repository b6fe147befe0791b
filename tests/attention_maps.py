"""Attention of which everything is known: one peak, its smoothed form, an image that is not square."""

from __future__ import annotations

import numpy as np

from smooth_attention.viz.heatmaps import AttentionRow

HEIGHT, WIDTH = 60, 120


def make_image() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 2, y * 4, 120 + 60 * ((x // 15 + y // 15) % 2)], axis=-1).astype(np.uint8)


def make_row(name: str = "run", *, peak: float = 0.6, covered: float = 1.0) -> AttentionRow:
    """Return a row of 4 x 6 positions whose peak lies in row 1, column 4; the position is row 2, column 1."""
    plain = np.full((4, 6), (1 - peak) / 23)
    plain[1, 4] = peak
    used = (np.roll(plain, 1, 1) + plain) / 2
    roughness = np.linspace(0, 0.9, 24).reshape(4, 6)
    return AttentionRow(
        name, "threshold 0.4", make_image(), (20, 30, 40, 45), plain, used, roughness, roughness > 0.4, covered
    )
