"""Calibration over pixels: does a confidence of 0.8 mean right four times in five?

Counts per bin of confidence are added over images, so that a data set of any size is scored in constant memory.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

from smooth_attention.core.errors import DataError, OptionError, ShapeError

__all__ = ["NUM_BINS", "calibration_counts", "calibration_error"]

NUM_BINS = 15
"""Bins of the expected calibration error, as in Guo et al. 2017."""


def calibration_counts(
    confidence: np.ndarray, correct: np.ndarray, *, ignored: np.ndarray | None = None, num_bins: int = NUM_BINS
) -> Float64[np.ndarray, "bins 3"]:
    """Per bin of confidence: number of pixels, how many are right, sum of their confidences; counts of images add.

    Bin ``b`` holds the confidences in ``(b / num_bins, (b + 1) / num_bins]``, the first bin also 0.

    Args:
        confidence: probability of the predicted class, in 0..1, any shape. For a binary task that is ``max(p, 1 - p)``.
        correct: boolean, same shape, True where the predicted class is the true one.
        ignored: boolean, same shape, True at pixels to leave out. None: none.
        num_bins: number of bins of equal width.

    Returns:
        The counts; columns pixels, correct, sum of confidence.

    Raises:
        ShapeError: the shapes differ.
        DataError: a confidence that counts is NaN or outside 0..1, or ``correct`` or ``ignored`` is not boolean.
        OptionError: ``num_bins`` is below 1.
    """
    confidence, correct = counted_pixels(confidence, correct, ignored)
    if num_bins < 1:
        raise OptionError(f"num_bins must be at least 1, got {num_bins}; the usual value is {NUM_BINS}")
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.intp) - 1, 0, num_bins - 1)
    columns = [np.bincount(bins, weights, num_bins) for weights in (None, correct, confidence)]
    return np.stack([column.astype(np.float64) for column in columns], axis=-1)


def calibration_error(counts: np.ndarray) -> float:
    r"""Expected calibration error of added counts, between 0 (calibrated) and 1.

    :math:`\sum_b \frac{n_b}{n} \left| \mathrm{accuracy}_b - \mathrm{confidence}_b \right|` over the bins: the mean gap
    between how sure the network was and how often it was right, weighted by pixels.

    Args:
        counts: sum of ``calibration_counts`` over any number of images, (bins, 3).

    Returns:
        The error; NaN if no pixel was counted.

    Raises:
        ShapeError: ``counts`` is not (bins, 3).

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017; every pixel is one sample.

    Example:
        >>> import numpy as np
        >>> counts = calibration_counts(np.array([0.9, 0.9, 0.6]), np.array([True, False, True]))
        >>> round(calibration_error(counts), 6)
        0.4
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[1] != 3:
        raise ShapeError(f"counts must be (bins, 3) from calibration_counts, got {counts.shape=}")
    num_pixels = counts[:, 0].sum()
    return float(np.abs(counts[:, 1] - counts[:, 2]).sum() / num_pixels) if num_pixels else math.nan


def counted_pixels(
    confidence: np.ndarray, correct: np.ndarray, ignored: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence in float64 and correctness of the pixels that count, flat."""
    confidence, correct = np.asarray(confidence), np.asarray(correct)
    kept = np.ones(correct.shape, dtype=bool) if ignored is None else np.asarray(ignored)
    if not confidence.shape == correct.shape == kept.shape:
        raise ShapeError(
            "confidence, correct and ignored must have one shape, got "
            f"{confidence.shape}, {correct.shape} and {kept.shape}; give one value per pixel to each"
        )
    if correct.dtype != np.bool_ or kept.dtype != np.bool_:
        raise DataError(
            f"correct and ignored must be boolean, got {correct.dtype} and {kept.dtype}; "
            "compare first, e.g. correct = prediction == truth"
        )
    if ignored is not None:
        kept = ~kept
    # Widened before the bins are found: float32 rounds b / num_bins up or down, and with it the bin of a value there.
    confidence, correct = confidence[kept].astype(np.float64), correct[kept]
    if confidence.size and not (confidence.min() >= 0 and confidence.max() <= 1):  # NaN fails both
        raise DataError(
            f"confidence must be in 0..1, got values from {confidence.min()} to {confidence.max()}; "
            "apply a sigmoid or softmax to logits first, and look for NaN in the network's output"
        )
    return confidence, correct
