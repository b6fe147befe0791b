"""The operator: exact, differentiable Smooth Attention on grids of one, two and three axes."""

from smooth_attention.ops.api import (
    attention_rows,
    explain_backend,
    neighbour_mean,
    roughness,
    smooth_attention,
    smoothing_gate,
)

__all__ = ["attention_rows", "explain_backend", "neighbour_mean", "roughness", "smooth_attention", "smoothing_gate"]
