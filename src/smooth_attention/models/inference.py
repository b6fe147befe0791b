"""From an image to logits, probabilities and labels at the image's own size; all in arrays, no file is read.

Every mask of the package comes from here. The image is resized to the square the network was trained at, and the
logits back, both bilinearly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smooth_attention.core.errors import ShapeError
from smooth_attention.models.network import Network
from smooth_attention.models.preprocessing import resize_image

__all__ = [
    "batches",
    "check_image",
    "infer",
    "label_map",
    "predict_logits",
    "prepare",
    "probabilities",
    "resize_logits",
    "resized_labels",
]

BATCH = 8
Item = TypeVar("Item")


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Give the items in their order, at most ``BATCH`` at once."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def predict_logits(net: Network, image: np.ndarray) -> Tensor:
    """Return the float32 logits (L, H, W) of a uint8 image (H, W, 3) at its own size, on the CPU.

    The network is put into evaluation mode.

    Raises:
        ShapeError: where the image is not uint8 (H, W, 3).
    """
    check_image(image)
    inputs = prepare(net, resize_image(image, net.preprocessing.image_size))
    return resize_logits(infer(net, inputs)[0], image.shape[:2])


def check_image(image: np.ndarray) -> None:
    """Raise unless an array is an RGB image."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"an image is uint8 of shape (H, W, 3), got {image.dtype} of {image.shape}; convert it to RGB")


def prepare(net: Network, images: np.ndarray) -> Tensor:
    """Return the network's input, on its device, of uint8 images (B, S, S, 3), or of a single one (S, S, 3)."""
    pixels = torch.from_numpy(images).movedim(-1, -3)
    if pixels.ndim == 3:
        pixels = pixels[None]  # now, not before: the place of an axis of one decides how convolutions round
    return net.preprocessing.normalise(pixels.to(next(net.parameters()).device))


@torch.inference_mode()
def infer(net: Network, inputs: Tensor) -> Tensor:
    """Return the float32 logits (B, L, S, S) of prepared images, on the CPU; ``net`` is put into evaluation mode."""
    logits: Tensor = net.eval()(inputs)
    return logits.float().cpu()


def resize_logits(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Return logits (L, S, S) at (L, H, W), bilinear with pixel centres aligned."""
    return F.interpolate(logits[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def probabilities(logits: Tensor) -> np.ndarray:
    """Return (H, W) foreground probabilities for one logit, (L, H, W) for several."""
    values: np.ndarray = (logits[0].sigmoid() if len(logits) == 1 else logits.softmax(0)).numpy()
    return values


def label_map(logits: Tensor) -> np.ndarray:
    """Return the uint8 labels (..., H, W) of logits (..., L, H, W); a single logit is foreground at 0 and above."""
    labels = logits.select(-3, 0) >= 0 if logits.shape[-3] == 1 else logits.argmax(-3)
    values: np.ndarray = labels.cpu().numpy().astype(np.uint8)
    return values


def resized_labels(logits: Tensor, size: Sequence[int]) -> np.ndarray:
    """Return ``label_map(resize_logits(logits, size))``, one class after the other: memory does not grow with them."""
    if len(logits) == 1:
        return label_map(resize_logits(logits, size))
    labels = np.zeros(tuple(size), np.uint8)
    highest = resize_logits(logits[:1], size)[0]
    for label in range(1, len(logits)):
        values = resize_logits(logits[label : label + 1], size)[0]
        labels[(values > highest).numpy()] = label
        highest = torch.maximum(highest, values)
    return labels
