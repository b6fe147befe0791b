"""The mask of one image, at its own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smooth_attention.data.files import read_image
from smooth_attention.models.inference import label_map, predict_logits
from smooth_attention.models.network import Network

__all__ = ["predict"]


def predict(net: Network, image: str | Path | np.ndarray) -> np.ndarray:
    """Return the mask of an image at the image's own size.

    The image is resized to the size the network was trained at, and the logits back, both bilinearly.

    Args:
        net: a network of this package, e.g. from :func:`smooth_attention.load_model`; it is put into evaluation mode.
        image: a path, or uint8 (H, W, 3) in RGB.

    Returns:
        uint8 labels (H, W): 1 is the foreground of a binary task, class indices otherwise.

    Raises:
        DataError: where the file is missing or no image.
        ShapeError: where an array is not uint8 (H, W, 3).

    Example:
        >>> import numpy as np, smooth_attention as sa
        >>> net = sa.PaperUNet(encoder_weights=None)
        >>> sa.predict(net, np.zeros((50, 70, 3), np.uint8)).shape
        (50, 70)
    """
    pixels = image if isinstance(image, np.ndarray) else read_image(Path(image))
    return label_map(predict_logits(net, pixels))
