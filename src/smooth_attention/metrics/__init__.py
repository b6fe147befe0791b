"""Metrics: counts, overlap, contours, calibration.

Protocol ``standard`` scores every image at its native size; ``paper`` computes six metrics by the published rules.
"""

from smooth_attention.metrics.boundary import boundary_counts, hd95
from smooth_attention.metrics.calibration import calibration_counts, calibration_error
from smooth_attention.metrics.paper import PUBLISHED, PaperMetrics, paper_batch_metrics, paper_ceiling
from smooth_attention.metrics.standard import COUNTED, StandardMetrics, count_pixels, mean_defined, score_counts

__all__ = [
    "COUNTED",
    "PUBLISHED",
    "PaperMetrics",
    "StandardMetrics",
    "boundary_counts",
    "calibration_counts",
    "calibration_error",
    "count_pixels",
    "hd95",
    "mean_defined",
    "paper_batch_metrics",
    "paper_ceiling",
    "score_counts",
]
