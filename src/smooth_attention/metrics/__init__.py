"""Figures of merit: counts, overlap, contours, calibration. Protocol ``standard``: every image at its native size."""

from smooth_attention.metrics.boundary import boundary_counts, hd95
from smooth_attention.metrics.calibration import calibration_counts, calibration_error
from smooth_attention.metrics.standard import FIGURES, StandardMetrics, count_pixels, score_counts

__all__ = [
    "FIGURES",
    "StandardMetrics",
    "boundary_counts",
    "calibration_counts",
    "calibration_error",
    "count_pixels",
    "hd95",
    "score_counts",
]
