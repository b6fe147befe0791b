"""What a network's input looks like: size, normalisation, and what its classes are called; images at that size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing", "resize_image"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the network's input, and what its classes are called.

    Attributes:
        image_size: side of the square that images are resized to, in pixels.
        mean: subtracted per channel after scaling to 0-1; RGB.
        std: divided by per channel after that.
        class_names: names of the classes, or None for a binary task (foreground against background).
    """

    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    class_names: tuple[str, ...] | None = None

    def normalise(self, images: Tensor) -> Tensor:
        """Return float images (..., 3, H, W) from uint8 or 0-1 ones."""
        scaled = images / 255 if images.dtype == torch.uint8 else images
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.mean, self.std))
        return (scaled - mean) / std


def resize_image(image: np.ndarray, image_size: int) -> np.ndarray:
    """Return a uint8 image (H, W, 3) or (H, W) at (S, S, 3) or (S, S), antialiased bilinear."""
    from PIL import Image

    size = (image_size, image_size)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
