"""Corruptions at five severities, with the constants of ImageNet-C."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.core.names import suggest
from smooth_attention.core.seeds import derive_seed

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

Pixels = NDArray[np.floating]  # float32 (H, W, 3) in 0-1, beyond it before they are stored
SEVERITIES = (1, 2, 3, 4, 5)

# What each corruption takes at severities 1 to 5; see its function.
CONSTANTS: dict[str, tuple[Any, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "jpeg": (25, 18, 15, 10, 7),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
}
CORRUPTIONS = tuple(CONSTANTS)


def corrupt(image: NDArray[np.uint8], name: str, severity: int, *, seed: int) -> NDArray[np.uint8]:
    """Return a corrupted copy of an image.

    The constants were chosen for 224 x 224 pixels and are not scaled: a blur of 10 px is stronger on a smaller image.
    What is random depends on seed, name and the image's size alone, and is the same draw at every severity.

    Args:
        image: uint8 RGB (H, W, 3), of any size and aspect ratio.
        name: one of :data:`CORRUPTIONS`.
        severity: 1, the mildest, to 5.
        seed: of the noise, the direction of motion and the fog; give every image its own.

    Raises:
        ShapeError: not a uint8 image of shape (H, W, 3).
        OptionError: on another name or severity.

    Reference:
        Hendrycks and Dietterich, Benchmarking neural network robustness to common corruptions and perturbations, ICLR
        2019; the constants are those of its ``make_imagenet_c.py``. Here values are rounded where they were cut off,
        the result is not stored as JPEG, and motion blur and fog differ as their functions say.

    Example:
        >>> corrupt(np.full((1, 1, 3), 100, np.uint8), "brightness", 2, seed=0)  # 0.2 of 255 more
        array([[[151, 151, 151]]], dtype=uint8)
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ShapeError(
            f"corrupt needs a uint8 image of shape (H, W, 3), got {image.dtype} of shape {image.shape}; "
            "give RGB values from 0 to 255"
        )
    if name not in CORRUPTIONS:
        raise OptionError(
            f"a corruption is one of {', '.join(CORRUPTIONS)}, got {name!r}; {suggest(name, CORRUPTIONS)}"
        )
    if severity not in SEVERITIES:
        raise OptionError(f"the severity of a corruption is 1, 2, 3, 4 or 5, got {severity}; 1 is the mildest")
    rng = np.random.default_rng(derive_seed(seed, "corrupt", name))
    return to_uint8(FUNCTIONS[name](image.astype(np.float32) / 255, CONSTANTS[name][severity - 1], rng))


def add_gaussian_noise(x: Pixels, sd: float, rng: np.random.Generator) -> Pixels:
    return x + np.float32(sd) * rng.standard_normal(x.shape, dtype=np.float32)


def add_shot_noise(x: Pixels, num_photons: float, rng: np.random.Generator) -> Pixels:
    """Count photons, of which white sends so many."""
    return (rng.poisson(x * num_photons) / num_photons).astype(np.float32)


def add_impulse_noise(x: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Make a share of the values, channel by channel, 0 or 1, as often one as the other."""
    draw = rng.random(x.shape, dtype=np.float32)
    return np.where(draw < share / 2, np.float32(0), np.where(draw >= 1 - share / 2, np.float32(1), x))


def defocus(x: Pixels, constants: tuple[int, float], _: np.random.Generator) -> Pixels:
    """Average over a disc of a radius in pixels, whose edge a Gaussian softens; the border reflects the image."""
    radius, sd = constants
    softened_px = 1 if radius <= 8 else 2
    offsets = np.arange(-radius - softened_px, radius + softened_px + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float32)
    kernel = gaussian_filter(disc / disc.sum(), sd, radius=softened_px)
    return filter_image(x, kernel, border="reflect")


def blur_motion(x: Pixels, constants: tuple[int, float], rng: np.random.Generator) -> Pixels:
    """Average along a line of 2 radius + 1 px, at most 45 degrees from the rows; the border repeats.

    Weights are Gaussian around the middle. ImageMagick, which ImageNet-C calls, has them trail off to one side, which
    would move objects away from their masks.
    """
    radius, sd = constants
    angle = np.deg2rad(rng.uniform(-45, 45))
    steps = np.arange(-radius, radius + 1)
    rows, columns = (np.rint(steps * part).astype(int) + radius for part in (np.sin(angle), np.cos(angle)))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    np.add.at(kernel, (rows, columns), np.exp(-0.5 * (steps / sd) ** 2))
    return filter_image(x, kernel / kernel.sum(), border="edge")


def compress(x: Pixels, quality: int, _: np.random.Generator) -> Pixels:
    file = BytesIO()
    Image.fromarray(to_uint8(x)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / 255


def brighten(x: Pixels, more: float, _: np.random.Generator) -> Pixels:
    """Raise the value of HSV, the largest of the channels; hue and saturation stay, so that the channels scale."""
    value = x.max(axis=2, keepdims=True)
    raised = np.minimum(value + np.float32(more), 1)
    return np.where(value > 0, x * (raised / np.maximum(value, np.float32(1e-6))), raised)


def lower_contrast(x: Pixels, share: float, _: np.random.Generator) -> Pixels:
    """Leave a share of the distance to the mean of each channel."""
    means = x.mean(axis=(0, 1), keepdims=True)
    return (x - means) * np.float32(share) + means


def add_fog(x: Pixels, constants: tuple[float, float], rng: np.random.Generator) -> Pixels:
    """Add fog of a thickness in units of white, then scale back to what the brightest value would become.

    The fog is drawn on a square whose side is the next power of two: 256 px for images of 224 px, as in ImageNet-C.
    """
    thickness, decay = constants
    height, width, _ = x.shape
    fog = draw_plasma(max(height, width), decay, rng)[:height, :width, None]
    brightest = x.max()
    return (x + np.float32(thickness) * fog) * (brightest / (brightest + np.float32(thickness)))


def pixelate(x: Pixels, share: float, _: np.random.Generator) -> Pixels:
    """Shrink the sides to a share by box averages, and enlarge again."""
    height, width, _channels = x.shape
    small = (max(1, int(width * share)), max(1, int(height * share)))
    image = Image.fromarray(to_uint8(x)).resize(small, Image.Resampling.BOX)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32) / 255


FUNCTIONS: dict[str, Callable[[Pixels, Any, np.random.Generator], Pixels]] = {
    "gaussian_noise": add_gaussian_noise,
    "shot_noise": add_shot_noise,
    "impulse_noise": add_impulse_noise,
    "defocus_blur": defocus,
    "motion_blur": blur_motion,
    "jpeg": compress,
    "brightness": brighten,
    "contrast": lower_contrast,
    "fog": add_fog,
    "pixelate": pixelate,
}


def draw_plasma(size: int, decay: float, rng: np.random.Generator) -> Pixels:
    """Return heights in 0-1 on a square of at least ``size`` px, by the diamond-square algorithm on a torus.

    Each round halves the spacing and divides the noise by ``decay ** 2``; the square's side is a power of two.
    """
    heights, noise = np.zeros((1, 1), np.float32), np.float32(1)
    while len(heights) < max(size, 2):
        wobbles = noise * rng.uniform(-1, 1, (3, *heights.shape)).astype(np.float32)
        right, below = np.roll(heights, -1, axis=1), np.roll(heights, -1, axis=0)
        centres = (heights + right + below + np.roll(right, -1, axis=0)) / 4 + wobbles[0]
        finer = np.empty((2 * len(heights), 2 * len(heights)), np.float32)
        finer[::2, ::2], finer[1::2, 1::2] = heights, centres
        finer[::2, 1::2] = (heights + right + centres + np.roll(centres, 1, axis=0)) / 4 + wobbles[1]
        finer[1::2, ::2] = (heights + below + centres + np.roll(centres, 1, axis=1)) / 4 + wobbles[2]
        heights, noise = finer, noise / np.float32(decay**2)
    heights -= heights.min()
    return heights / heights.max()


def filter_image(x: Pixels, kernel: Pixels, *, border: Any) -> Pixels:
    reach = len(kernel) // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode=border)
    return fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))


def to_uint8(x: Pixels) -> NDArray[np.uint8]:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
