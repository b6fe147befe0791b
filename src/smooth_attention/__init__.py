"""Spatially smooth attention for image segmentation: a primitive, a study, a tool.

Importing this package is instant: torch and the rest are imported when a door is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smooth_attention.models import PaperUNet as PaperUNet
    from smooth_attention.models import SmoothAttention as SmoothAttention
    from smooth_attention.models import create_model as create_model
    from smooth_attention.models import insert as insert
    from smooth_attention.models import load_model as load_model
    from smooth_attention.models import remove as remove
    from smooth_attention.ops import attention_rows as attention_rows
    from smooth_attention.ops import neighbour_mean as neighbour_mean
    from smooth_attention.ops import roughness as roughness
    from smooth_attention.ops import smooth_attention as smooth_attention
    from smooth_attention.ops import smoothing_gate as smoothing_gate
    from smooth_attention.runs.predict import predict as predict

DOORS = {
    "PaperUNet": "models.paper",
    "SmoothAttention": "models.blocks",
    "attention_rows": "ops.api",
    "create_model": "models.smp",
    "insert": "models.insertion",
    "load_model": "models.store",
    "neighbour_mean": "ops.api",
    "predict": "runs.predict",
    "remove": "models.insertion",
    "roughness": "ops.api",
    "smooth_attention": "ops.api",
    "smoothing_gate": "ops.api",
}

__all__ = ["__version__", *DOORS]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("smooth-attention")
    if name not in DOORS:
        raise AttributeError(f"module 'smooth_attention' has no attribute {name!r}; its doors: {', '.join(DOORS)}")
    return getattr(import_module(f"smooth_attention.{DOORS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
