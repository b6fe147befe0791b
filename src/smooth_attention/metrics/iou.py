"""IoU of a mask, protocol ``standard``: of the foreground, or the mean over the classes that occur."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smooth_attention.metrics.standard import count_pixels, mean_defined, score_counts

__all__ = ["count_scored", "image_iou", "mean_iou", "show_iou", "summarise_iou"]


def image_iou(labels: np.ndarray, truth: np.ndarray, class_names: Sequence[str] | None) -> float:
    """Return the IoU of one image; NaN where no class occurs.

    Args:
        labels: predicted labels (H, W).
        truth: labels of the same size; 255 counts nowhere.
        class_names: one name per label; None for a binary task.

    Raises:
        ShapeError: the sizes differ.
        DataError: an unexpected label.
    """
    return float(mean_iou(count_scored(labels, truth, class_names)))


def count_scored(labels: np.ndarray, truth: np.ndarray, class_names: Sequence[str] | None) -> np.ndarray:
    """Return :func:`count_pixels` of the classes that are scored, (L, 4): all, or of a binary task the foreground."""
    counts = count_pixels(labels, truth, num_classes=2 if class_names is None else len(class_names))
    return counts[1:] if class_names is None else counts


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Return the mean IoU (...) over the classes that occur in counts (..., L, 4) of the scored ones."""
    return mean_defined(score_counts(counts)["iou"], axis=-1)


def summarise_iou(counts: np.ndarray) -> dict[str, float]:
    """Return ``iou``, of counts (P, L, 4) added over images, and ``iou_per_image``, the mean over images."""
    return {
        "iou": float(mean_iou(counts.sum(axis=0))),
        "iou_per_image": float(mean_defined(mean_iou(counts), axis=0)),
    }


def show_iou(iou: float) -> str:
    """Return an IoU in words: it is undefined where nothing is there and nothing predicted."""
    return "IoU undefined" if np.isnan(iou) else f"IoU {iou:.3f}"
