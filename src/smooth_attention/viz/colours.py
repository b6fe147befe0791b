"""Colours that stay apart under the common kinds of colour blindness."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from smooth_attention.core.errors import OptionError

__all__ = ["FALSE_NEGATIVE", "FALSE_POSITIVE", "IGNORED", "IGNORED_COLOUR", "TRUE_POSITIVE", "palette"]

IGNORED = 255  # label of pixels that count for nothing
IGNORED_COLOUR = (230, 230, 230)

# What a binary prediction gets right and wrong: light blue, magenta and yellow differ in lightness too.
TRUE_POSITIVE = (80, 180, 250)
FALSE_POSITIVE = (190, 0, 90)
FALSE_NEGATIVE = (255, 225, 30)

# Okabe and Ito's colours for figures; further ones are chosen to be far from these.
FIRST = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
# Machado, Oliveira, Fernandes 2009, severity 1: linear RGB as seen without long- or middle-wave cones.
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Return the colour table of a palette PNG whose pixels are class indices.

    The first seven colours are Okabe and Ito's; each further one is the candidate farthest from all before it, to
    normal and to red- or green-blind eyes. A class keeps its colour whatever the number of classes. Beyond some 12
    classes no table is told apart safely by colour alone.

    Args:
        num_classes: number of classes, 1 to 255.

    Returns:
        uint8 RGB of shape (256, 3): a colour per class, black for labels that are no class, light grey for 255
        (ignored).

    Raises:
        OptionError: `num_classes` outside 1 to 255.

    Example:
        >>> palette(11)[[0, 11, 255]].tolist()
        [[0, 114, 178], [0, 0, 0], [230, 230, 230]]
    """
    if not 1 <= num_classes <= IGNORED:
        raise OptionError(f"a palette holds 1 to {IGNORED} classes, got {num_classes}")
    table = np.zeros((256, 3), np.uint8)
    table[:num_classes] = class_colours()[:num_classes]
    table[IGNORED] = IGNORED_COLOUR
    return table


def lab_as_seen(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return CIELAB coordinates of RGB colours (n, 3) as (3, n, 3): to normal, red-blind and green-blind eyes."""
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.stack([linear, *(np.clip(linear @ eye.T, 0, 1) for eye in (PROTANOPIA, DEUTERANOPIA))])
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = seen @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])  # relative to the white of daylight, D65
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


@cache
def class_colours() -> NDArray[np.uint8]:
    """Return 255 class colours (255, 3), chosen greedily."""
    steps = np.linspace(20, 255, 9).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = lab_as_seen(candidates)

    def nearest(colour: tuple[int, ...]) -> NDArray[np.float64]:
        return np.linalg.norm(seen - lab_as_seen(np.array([colour], np.uint8)), axis=-1).min(axis=0)

    chosen: list[tuple[int, ...]] = list(FIRST)
    # Black and light grey are taken: labels that are no class, and ignored pixels.
    distance = np.min([nearest(c) for c in (*chosen, (0, 0, 0), IGNORED_COLOUR)], axis=0)
    while len(chosen) < IGNORED:
        chosen.append(tuple(int(v) for v in candidates[distance.argmax()]))
        distance = np.minimum(distance, nearest(chosen[-1]))
    return np.array(chosen, np.uint8)
