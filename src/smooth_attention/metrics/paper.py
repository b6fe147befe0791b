"""Protocol ``paper``: the six metrics by the rules of the published scripts, so that they can be laid beside theirs.

The target is soft: the 8-bit mask, resized by antialiased bilinear interpolation and divided by 255. Three truths are
read from it. *Touched* pixels, ``target > 0``, are the positives of IoU and of Dice's intersection; the *soft* values
stand in Dice's denominator; *full* pixels, ``target == 1.0`` exactly, are the positives of accuracy, precision, recall
and F1. IoU and Dice are scored per image column, and every metric is the plain mean over batches of 8. So these are not
the metrics that ``standard`` gives under the same names, and a perfect predictor does not reach 1: print
:func:`paper_ceiling` of the same masks beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from smooth_attention.core.errors import DataError, OptionError, ShapeError

__all__ = ["PUBLISHED", "PaperMetrics", "paper_batch_metrics", "paper_ceiling"]

PUBLISHED = ("iou", "dice", "accuracy", "precision", "recall", "f1")
"""The published metrics, in the order of the paper's tables."""

PAPER_BATCH_SIZE = 8
"""Images per batch in the published scripts, for training and for scoring."""

EPSILON = 1e-6  # added above and below: a column with nothing to find and nothing found scores 1


def paper_batch_metrics(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    r"""The six metrics of one batch by the published rules.

    With P the prediction, s the soft target, T = (s > 0), and sums over the rows of one column of one image,

    .. math::
        \mathrm{IoU} = \frac{\sum P T + 10^{-6}}{\sum \max(P, T) + 10^{-6}}, \qquad
        \mathrm{Dice} = \frac{2 \sum P T + 10^{-6}}{\sum P + \sum s + 10^{-6}},

    both averaged over all columns of all images. A column with nothing to find and nothing found scores 1; one with
    only one of the two scores about 0. Dice exceeds 1 where the prediction covers pixels that are partly foreground,
    because they count whole above and in part below. Accuracy, precision, recall and F1 pool all pixels of the batch;
    positives are the pixels with s = 1 exactly, and a quotient 0 / 0 is 0.

    Args:
        prediction: boolean, (B, H, W): ``sigmoid(logits) > 0.5``. Arrays of NumPy or what ``np.asarray`` takes, such
            as a tensor on the CPU.
        target: soft mask of the same shape, in 0..1: an 8-bit mask divided by 255. A mask that was resized as floats
            has few values of exactly 1 and gives other results.

    Returns:
        Under each name of ``PUBLISHED`` a float, in 0..1; only Dice can exceed 1.

    Raises:
        ShapeError: the shapes differ, or are not (B, H, W) with at least one pixel.
        DataError: the prediction is not boolean, or the target holds NaN or values outside 0..1.

    Reference:
        The scripts published with preprint 202409.1283. They sum in float32, this in float64: results agree to about
        1e-6.

    Example:
        >>> import numpy as np
        >>> found = paper_batch_metrics(np.array([[[True]]]), np.array([[[0.2]]]))
        >>> round(found["iou"], 3), round(found["dice"], 3), found["precision"]
        (1.0, 1.667, 0.0)
    """
    return score_batch(*checked_batch(prediction, target))


class PaperMetrics:
    """Accumulates images into batches, in the order they come, and gives the plain mean over batches.

    However many images each ``update`` brings, they are cut into batches of ``batch_size``; what is left over at the
    end is a batch that counts like a full one. So the metrics depend on the order of the images, as the published ones
    do: keep the order of the test list. Never more than ``batch_size`` images are held.

    Args:
        batch_size: images per batch, at least 1; 8 in the published scripts.

    Raises:
        OptionError: ``batch_size`` is below 1.

    Example:
        >>> import numpy as np
        >>> metrics = PaperMetrics()
        >>> metrics.update(np.ones((9, 4, 4), dtype=bool), np.ones((9, 4, 4)))
        >>> found = metrics.compute()
        >>> found["iou"], found["num_batches"]
        (1.0, 2)
    """

    def __init__(self, *, batch_size: int = PAPER_BATCH_SIZE) -> None:
        if batch_size < 1:
            raise OptionError(f"batch_size must be at least 1, got {batch_size}; the published one is 8")
        self.batch_size = batch_size
        self._batches: list[dict[str, float]] = []
        self._predictions: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._size: tuple[int, ...] | None = None

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Add one or more images, all of one size over all calls.

        Args:
            prediction: boolean, (B, H, W), any B from 1: ``sigmoid(logits) > 0.5``.
            target: soft mask of the same shape, in 0..1.

        Raises:
            ShapeError: the shapes differ, are not (B, H, W) with at least one pixel, or H and W differ from earlier
                images.
            DataError: the prediction is not boolean, or the target holds NaN or values outside 0..1.
        """
        predictions, targets = checked_batch(prediction, target)
        if self._size is not None and targets.shape[1:] != self._size:
            raise ShapeError(
                f"all images must be of one size, got {targets.shape[1:]} after {self._size}; "
                "resize image and mask to the side the network was trained at, 224 in the published scripts"
            )
        self._size = targets.shape[1:]
        for one_prediction, one_target in zip(predictions, targets, strict=True):
            # Copies: a caller may reuse its buffers before the batch is full.
            self._predictions.append(one_prediction.copy())
            self._targets.append(one_target.copy())
            if len(self._targets) == self.batch_size:
                self._batches.append(score_batch(np.stack(self._predictions), np.stack(self._targets)))
                self._predictions, self._targets = [], []

    def compute(self) -> dict[str, float]:
        """The mean over batches of each metric; more images may be added afterwards.

        Returns:
            Plain floats under the names of ``PUBLISHED``, and ``num_batches``, an int.

        Raises:
            DataError: no image was added.
        """
        batches = list(self._batches)
        if self._targets:
            batches.append(score_batch(np.stack(self._predictions), np.stack(self._targets)))
        if not batches:
            raise DataError("no image was scored, so there is nothing to compute; call update for at least one image")
        metrics = {name: math.fsum(batch[name] for batch in batches) / len(batches) for name in PUBLISHED}
        return metrics | {"num_batches": len(batches)}


def paper_ceiling(targets: Iterable[np.ndarray], *, batch_size: int = PAPER_BATCH_SIZE) -> dict[str, float]:
    """The metrics of a perfect predictor on these masks: its probability is the soft target, its threshold 0.5.

    Below 1 wherever a mask has an edge: pixels up to one half are not predicted and count against IoU and Dice, those
    above one half and below 1 are predicted and count against precision. Recall is 1 if any pixel is full in each
    batch. It is what learning the masks perfectly earns, not a bound for each metric: a network that predicts every
    touched pixel has IoU 1 and Dice above 1, at the price of precision.

    Args:
        targets: soft masks, (H, W) each or one (B, H, W) array, in 0..1 and in the order in which predictions are
            scored. An iterator is read one mask at a time.
        batch_size: images per batch, as for the metrics it stands beside.

    Returns:
        As :meth:`PaperMetrics.compute`.

    Raises:
        ShapeError: a mask is not (H, W) with at least one pixel, or not of the first one's size.
        DataError: a mask holds NaN or values outside 0..1, or there is no mask.
        OptionError: ``batch_size`` is below 1.

    Example:
        >>> import numpy as np
        >>> edge = np.array([[0.0, 0.4, 0.8, 1.0]])
        >>> {name: round(value, 2) for name, value in paper_ceiling([edge]).items()}
        {'iou': 0.75, 'dice': 0.78, 'accuracy': 0.75, 'precision': 0.5, 'recall': 1.0, 'f1': 0.67, 'num_batches': 1}
    """
    metrics = PaperMetrics(batch_size=batch_size)
    for target in targets:
        one_target = np.asarray(target)[None]
        metrics.update(one_target > 0.5, one_target)
    return metrics.compute()


def score_batch(prediction: Bool[np.ndarray, "b h w"], target: Shaped[np.ndarray, "b h w"]) -> dict[str, float]:
    touched, full = target > 0, target == 1
    overlap = (prediction & touched).sum(axis=1)
    union = (prediction | touched).sum(axis=1)
    mass = prediction.sum(axis=1) + target.sum(axis=1, dtype=np.float64)
    tp = int((prediction & full).sum())
    num_predicted, num_full = int(prediction.sum()), int(full.sum())
    return {
        "iou": float(smoothed_quotient(overlap, union).mean()),
        "dice": float(smoothed_quotient(2 * overlap, mass).mean()),
        "accuracy": float((prediction == full).mean()),
        "precision": tp / num_predicted if num_predicted else 0.0,
        "recall": tp / num_full if num_full else 0.0,
        "f1": 2 * tp / (num_predicted + num_full) if num_predicted + num_full else 0.0,
    }


def smoothed_quotient(above: np.ndarray, below: np.ndarray) -> Float64[np.ndarray, "b w"]:
    return (above + EPSILON) / (below + EPSILON)


def checked_batch(
    prediction: np.ndarray, target: np.ndarray
) -> tuple[Bool[np.ndarray, "b h w"], Shaped[np.ndarray, "b h w"]]:
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape or target.ndim != 3 or target.size == 0:
        raise ShapeError(
            "prediction and target must be (B, H, W), of one shape and with at least one pixel, got "
            f"{prediction.shape} and {target.shape}; leave out the channel axis, give one image as image[None]"
        )
    if prediction.dtype != np.bool_:
        raise DataError(
            f"prediction must be boolean, got {prediction.dtype}; threshold it first: sigmoid(logits) > 0.5"
        )
    low, high = target.min(), target.max()
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise DataError(
            f"target must be in 0..1 without NaN, got values from {low} to {high}; divide an 8-bit mask by 255"
        )
    return prediction, target
