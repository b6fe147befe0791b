"""Generated scenes with exact masks: a data set that needs no download, in four kinds after the paper's domains.

Each kind holds something that looks like its foreground in colour or in local texture but is not: stones beside
animals, folds and gauze beside tools, lamps and reflections beside flames, bare soil and sky beside water. The shape of
a thing and its surroundings decide, so a network needs context, and a pixel classifier stays far from a perfect score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smooth_attention.core.errors import OptionError
from smooth_attention.data.canvas import Canvas, photograph
from smooth_attention.data.scenery import PAINTERS
from smooth_attention.data.sources import Pair, Source

__all__ = ["KINDS", "ShapesSource", "draw_scene"]

KINDS = ("objects", "tools", "flames", "regions")
GENERATION = 1  # raised whenever draw_scene draws another picture for the same seed
SMALLEST_SIZE = 32  # the deepest stride of the encoders; below it nothing is left to recognise either


@dataclass(frozen=True, eq=False)
class Scene:
    """A generated image with its exact mask.

    Attributes:
        image: uint8 RGB of shape (size, size, 3).
        mask: uint8 of shape (size, size), 1 for the foreground and 0 elsewhere.
        kind: one of :data:`KINDS`.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    kind: str


def draw_scene(index: int, *, seed: int = 0, size: int = 224) -> Scene:
    """Draw one scene; the same arguments give the same scene, whatever was drawn before.

    Everything is placed in coordinates relative to the side, so another size shows the same things; only the sensor
    noise and the finest texture are per pixel.

    Args:
        index: number of the scene, from 0; its kind is ``KINDS[index % 4]``.
        seed: number of the data set, from 0.
        size: side in pixels, at least 32.

    Returns:
        The scene. Foreground covers 2 to 65 % of it, mostly 5 to 50 %.

    Raises:
        OptionError: a negative index or seed, or a size below 32.

    Example:
        >>> scene = draw_scene(2, size=64)
        >>> scene.kind, scene.image.shape, scene.mask.max()
        ('flames', (64, 64, 3), np.uint8(1))
    """
    if index < 0 or seed < 0:
        raise OptionError(f"a scene's index and seed count from 0, got {index=}, {seed=}")
    if size < SMALLEST_SIZE:
        raise OptionError(f"a scene needs a side of at least {SMALLEST_SIZE} px, got {size=}")
    kind = KINDS[index % len(KINDS)]
    # The sensor draws per pixel; its own stream keeps the scene's draws equal at every size.
    for_scene, for_sensor = np.random.SeedSequence([seed, index]).spawn(2)
    canvas = Canvas(np.random.Generator(np.random.PCG64(for_scene)), size)
    mask = PAINTERS[kind](canvas)
    image = photograph(canvas, np.random.Generator(np.random.PCG64(for_sensor)))
    return Scene(image, mask.astype(np.uint8), kind)


class ShapesSource(Source):
    """Generated scenes: deterministic by seed, no files, nothing to download.

    Args:
        count: number of scenes.
        seed: of the whole set.
        size: side of a scene in pixels.
    """

    def __init__(self, count: int = 320, seed: int = 0, size: int = 224) -> None:
        self.name, self.seed, self.size = "shapes", seed, size
        self.stems = tuple(f"{index:05d}" for index in range(count))
        self.groups = {stem: stem for stem in self.stems}

    def load(self, stem: str) -> Pair:
        scene = draw_scene(int(stem), seed=self.seed, size=self.size)
        return Pair(scene.image, scene.mask)

    def digest(self, stem: str) -> str:
        return f"shapes-{GENERATION}-{self.seed}-{self.size}-{stem}"

    def image_digest(self, stem: str) -> str:
        return self.digest(stem)
