"""Quality of contours: Boundary IoU and the 95th percentile Hausdorff distance of one mask against its truth.

Both treat ignored pixels as outside either mask: two predictions that differ only there score the same, and a perfect
prediction scores perfectly even where the truth touches an ignored region.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool
from scipy import ndimage
from scipy.spatial import KDTree

from smooth_attention.core.errors import DataError, OptionError, ShapeError

__all__ = ["boundary_counts", "hd95"]


def boundary_counts(
    prediction: np.ndarray, truth: np.ndarray, *, ignored: np.ndarray | None = None, fraction: float = 0.02
) -> tuple[int, int]:
    r"""Pixels in the intersection and in the union of the two boundary bands; their ratio is Boundary IoU.

    The band of a mask is the part of it within :math:`d = \max(1, \mathrm{round}(\text{fraction} \cdot
    \sqrt{H^2 + W^2}))` pixels (chessboard distance) of its contour: the mask minus its ``d``-fold erosion by a 3x3 box,
    padded with zeros. So the image border counts as contour, as in the published code; the rounding is Python's (half
    to even). Add the counts over images and divide for a pooled metric, divide per image for a per-image one; a union
    of 0 (both masks empty) leaves the metric undefined.

    Args:
        prediction: boolean mask, (H, W).
        truth: boolean mask of the same size.
        ignored: boolean, (H, W), True where the truth is unknown; these pixels are outside both masks. None: nowhere.
        fraction: width of the band as a fraction of the image diagonal, above 0.

    Returns:
        ``(intersection, union)``, numbers of pixels.

    Raises:
        ShapeError: the sizes differ or an array has not two axes.
        DataError: an array is not boolean.
        OptionError: ``fraction`` is not above 0.

    Reference:
        Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021. Ignored pixels
        are our addition.

    Example:
        >>> import numpy as np
        >>> square = np.zeros((9, 9), bool)
        >>> square[2:7, 2:7] = True
        >>> boundary_counts(square, np.roll(square, 1, axis=1))
        (8, 24)
    """
    if not (math.isfinite(fraction) and fraction > 0):
        raise OptionError(f"fraction must be a finite number above 0, got {fraction}; the usual value is 0.02")
    prediction, truth = checked_masks(prediction, truth, ignored)
    distance_px = max(1, round(fraction * math.hypot(*truth.shape)))
    predicted, wanted = band_of(prediction, distance_px), band_of(truth, distance_px)
    return int(np.count_nonzero(predicted & wanted)), int(np.count_nonzero(predicted | wanted))


def hd95(prediction: np.ndarray, truth: np.ndarray, *, ignored: np.ndarray | None = None) -> float:
    """Symmetric 95th percentile Hausdorff distance between the two contours, in pixels.

    The larger of the two directed distances; a directed one is the 95th percentile (linear interpolation) of the
    Euclidean distances from each contour pixel of one mask to the nearest contour pixel of the other. The contour is
    the mask minus its erosion by the 4-connected cross, padded with zeros: pixels of the mask with a neighbour above,
    below, left or right outside it, or at the image border.

    Args:
        prediction: boolean mask, (H, W).
        truth: boolean mask of the same size.
        ignored: boolean, (H, W), True where the truth is unknown; these pixels are outside both masks. None: nowhere.

    Returns:
        Distance between pixel centres, 0 for equal masks. NaN when a mask is empty: if exactly one is, that is a miss,
        which has no distance and is to be counted apart; if both are, there was nothing to find.

    Raises:
        ShapeError: the sizes differ or an array has not two axes.
        DataError: an array is not boolean.

    Reference:
        Huttenlocher et al., Comparing Images Using the Hausdorff Distance, PAMI 1993; the percentile is that of the
        medical segmentation challenges.

    Example:
        >>> import numpy as np
        >>> square = np.zeros((9, 9), bool)
        >>> square[2:7, 2:7] = True
        >>> hd95(square, np.roll(square, 1, axis=1))
        1.0
    """
    prediction, truth = checked_masks(prediction, truth, ignored)
    if not (prediction.any() and truth.any()):
        return math.nan
    # Contours have few pixels, so trees beat distance transforms of the whole image, by more the larger it is.
    predicted, wanted = KDTree(np.argwhere(contour_of(prediction))), KDTree(np.argwhere(contour_of(truth)))
    to_truth_px, _ = wanted.query(predicted.data)
    to_prediction_px, _ = predicted.query(wanted.data)
    return float(max(np.percentile(to_truth_px, 95), np.percentile(to_prediction_px, 95)))


def checked_masks(
    prediction: np.ndarray, truth: np.ndarray, ignored: np.ndarray | None
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Both masks without the ignored pixels."""
    masks = {"prediction": np.asarray(prediction), "truth": np.asarray(truth)}
    if ignored is not None:
        masks["ignored"] = np.asarray(ignored)
    shapes = {name: mask.shape for name, mask in masks.items()}
    if len(set(shapes.values())) > 1 or masks["truth"].ndim != 2:
        raise ShapeError(
            f"masks must be (H, W) and of one size, got {shapes}; resize the prediction to the truth's size"
        )
    for name, mask in masks.items():
        if mask.dtype != np.bool_:
            raise DataError(
                f"{name} must be a boolean mask, got {mask.dtype}; compare with a label first, e.g. labels == 1"
            )
    if ignored is None:
        return masks["prediction"], masks["truth"]
    return masks["prediction"] & ~masks["ignored"], masks["truth"] & ~masks["ignored"]


def band_of(mask: Bool[np.ndarray, "h w"], distance_px: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of the mask within ``distance_px`` of its contour."""
    # d erosions by a 3x3 box are one by a box of side 2d + 1, which the separable filter does in time independent of d.
    eroded = ndimage.minimum_filter(mask.astype(np.uint8), size=2 * distance_px + 1, mode="constant", cval=0)
    return mask & (eroded == 0)


def contour_of(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels of the mask with one of their four neighbours outside it."""
    padded = np.pad(mask, 1)
    return mask & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
