"""What generated scenes are painted with: a canvas in relative coordinates, smooth noise, outlines, a camera."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["EVERYWHERE", "Canvas", "Colour", "Field", "Window", "ellipse", "photograph", "ramp", "rod", "smoothstep"]

Field = NDArray[np.float32]  # one value per pixel: (size, size), or a window of it
Colour = NDArray[np.float32]  # RGB from 0 to 1: (3,), or (..., 3) for one per pixel
Window = tuple[slice, slice]

EVERYWHERE: Window = (slice(None), slice(None))


class Canvas:
    """A picture in the making: its colours, its coordinates (0 to 1, x right, y down) and its random numbers."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        self.axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
        self.x: Field = np.broadcast_to(self.axis, (size, size))
        self.y: Field = np.broadcast_to(self.axis[:, None], (size, size))
        self.image = np.zeros((size, size, 3), np.float32)

    def uniform(self, low: float, high: float) -> float:
        """Draw a number between the two."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Draw True this often."""
        return bool(self.rng.random() < probability)

    def noise(self, cells_y: int, cells_x: int | None = None) -> Field:
        """Smooth noise of unit variance with so many bumps a side; cubic splines leave no trace of the grid."""
        cells_x = cells_y if cells_x is None else cells_x
        knots = self.rng.standard_normal((cells_y + 3, cells_x + 3)).astype(np.float32)
        if max(cells_y, cells_x) > self.size:  # finer than the pixels; the draw above keeps the stream in step
            return np.zeros((self.size, self.size), np.float32)
        columns = bspline(self.axis, knots.T, cells_x).T
        return 2.086 * bspline(self.axis, columns, cells_y)  # 2.086: inverse standard deviation of the spline

    def fractal(self, cells: int, octaves: int, persistence: float = 0.6) -> Field:
        """Noise on several scales, of about unit variance."""
        weights = persistence ** np.arange(octaves)
        weights /= np.sqrt((weights**2).sum())
        layers = (np.float32(w) * self.noise(cells * 2**i) for i, w in enumerate(weights))
        return sum(layers, start=np.zeros((self.size, self.size), np.float32))

    def window(self, x: float, y: float, radius: float) -> Window:
        """Return the slices of the square around a point; small things are painted only there."""
        (top, bottom), (left, right) = (
            (int((c - radius) * self.size), int((c + radius) * self.size) + 2) for c in (y, x)
        )
        return slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))

    def local(self, at: Window, x: float, y: float, angle: float) -> tuple[Field, Field]:
        """Return coordinates along and across a direction, from a point."""
        dx, dy = self.x[at] - np.float32(x), self.y[at] - np.float32(y)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return dx * cos + dy * sin, dy * cos - dx * sin

    def cover(self, distance: Field, softness: float = 0.0) -> Field:
        """Return the opacity of a thing from the signed distance to its outline (negative inside)."""
        return np.clip(0.5 - distance / np.float32(1 / self.size + softness), 0, 1)

    def paint(self, colour: Colour, opacity: Field, at: Window = EVERYWHERE) -> None:
        """Lay a colour, (3,) or one per pixel, over the picture."""
        below = self.image[at]
        below += opacity[..., None] * (colour - below)

    def colour(self, hue: float, saturation: float, value: float, jitter: float = 0.04) -> Colour:
        """Return an RGB colour near the given HSV one."""
        h, s, v = self.rng.normal((hue, saturation, value), jitter)
        return np.array(colorsys.hsv_to_rgb(h % 1, min(max(s, 0), 1), min(max(v, 0.03), 1)), np.float32)

    def ground(self, colours: list[Colour], cells: int, octaves: int = 5) -> None:
        """Cover the whole picture with patches of the colours, roughened at all scales."""
        self.image[:] = colours[0]
        for colour in colours[1:]:
            self.paint(colour, smoothstep(-0.5, 0.9, self.fractal(cells, octaves)))
        self.image *= (1 + 0.16 * self.fractal(16, 4, 0.9))[..., None]


def bspline(at: Field, knots: Field, cells: int) -> Field:
    """Evaluate a uniform cubic B-spline along the first axis of the knots at positions in 0 to 1."""
    place = at * np.float32(cells)
    cell = np.minimum(place.astype(np.int64), cells - 1)
    t = (place - cell.astype(np.float32))[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (t + t**2 - t**3) + 1, t**3)
    # Sums in a fixed order, not a matrix product: the same to the last bit whatever BLAS and its threads do.
    knots = np.ascontiguousarray(knots)
    total: Field = np.zeros((len(at), knots.shape[1]), np.float32)
    for i, weight in enumerate(weights):
        total += np.take(knots, cell + i, axis=0) * (weight / np.float32(6))
    return total


def smoothstep(low: float, high: float, x: Field) -> Field:
    """Rise from 0 at `low` to 1 at `high`, level at both ends."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def ramp(x: Field, colours: list[Colour]) -> Colour:
    """Look up a colour between evenly spaced ones, x from 0 to 1."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(x, stops, [c[i] for c in colours]) for i in range(3)], axis=-1).astype(np.float32)


def ellipse(along: Field, across: Field, length: float, width: float) -> Field:
    """Signed distance, near enough, to an ellipse of the given half axes."""
    return (np.hypot(along / np.float32(length), across / np.float32(width)) - 1) * np.float32(min(length, width))


def rod(along: Field, across: Field, length: float, width: float) -> Field:
    """Signed distance to a rod that starts at the origin, of the given length and half width."""
    return np.hypot(along - np.clip(along, 0, np.float32(length)), across) - np.float32(width)


def photograph(canvas: Canvas, sensor: np.random.Generator) -> NDArray[np.uint8]:
    """Light the picture unevenly, blur it, and record it with the noise of a sensor."""
    slope = canvas.uniform(0, 0.6) * canvas.local(EVERYWHERE, 0.5, 0.5, canvas.uniform(0, 2 * np.pi))[0]
    vignette = canvas.uniform(0, 0.9) * ((canvas.x - 0.5) ** 2 + (canvas.y - 0.5) ** 2)
    light = canvas.uniform(0.85, 1.15) * (1 + slope - vignette + 0.07 * canvas.noise(3))
    blur_px = canvas.uniform(0.0012, 0.006) * canvas.size
    gamma, strength = canvas.uniform(0.8, 1.25), canvas.uniform(0.01, 0.05)
    image = np.clip(canvas.image * light[..., None], 0, 1) ** np.float32(gamma)
    image = ndimage.gaussian_filter(image, (blur_px, blur_px, 0), mode="nearest", truncate=3)
    grain = sensor.standard_normal(image.shape, dtype=np.float32)
    image += np.float32(strength) * (0.4 + np.sqrt(image)) * grain  # shot noise over read-out noise
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
