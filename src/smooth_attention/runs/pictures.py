"""Pictures and arrays as bytes; masks are 0/255 for a binary task, palette PNG with pixel = index for classes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from smooth_attention.viz.colours import palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["encode_array", "encode_figure", "encode_image", "encode_jpeg", "encode_mask", "shrink"]


def encode_mask(labels: np.ndarray, class_names: tuple[str, ...] | None) -> bytes:
    """Return PNG bytes of a uint8 label map (H, W)."""
    if class_names is None:
        return encode_image(Image.fromarray(labels * np.uint8(255)))
    image = Image.fromarray(labels)
    image.putpalette(palette(len(class_names)).tobytes())
    return encode_image(image)


def encode_image(image: Image.Image) -> bytes:
    """Return the PNG bytes of an image."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_jpeg(pixels: np.ndarray, *, quality: int = 85) -> bytes:
    """Return the JPEG bytes of uint8 RGB (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def encode_figure(figure: Figure, *, dpi: int = 120) -> bytes:
    """Return the PNG bytes of a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def encode_array(values: np.ndarray) -> bytes:
    """Return the ``.npy`` bytes of an array."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def shrink(shape: tuple[int, ...], longest_px: int) -> tuple[int, int]:
    """Return height and width of a picture whose longer side is at most ``longest_px``; small ones keep theirs."""
    factor = min(1.0, longest_px / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))
