"""Checks of what callers hand to the public doors: one sentence each, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.core.grids import check_grid


def check_tensors(grid: Sequence[int], query: Tensor, key: Tensor, value: Tensor | None = None) -> tuple[int, ...]:
    """Return the grid as a tuple, once query, key and, where there is one, value fit it and each other."""
    tensors = {"query": query, "key": key} | ({} if value is None else {"value": value})
    for name, tensor in tensors.items():
        check_floating(name, tensor)
        for what in ("device", "dtype"):
            if getattr(tensor, what) != getattr(query, what):
                raise OptionError(
                    f"query and {name} need the same {what}, got {getattr(query, what)} and {getattr(tensor, what)}; "
                    f"convert one with .to()"
                )
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(
            f"query and key need the same width, got {query.shape=} and {key.shape=}; project both to the same width"
        )
    if value is not None and key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"key and value need the same number of rows, got {key.shape=} and {value.shape=}; pass one value per key"
        )
    if 0 in key.shape[-2:]:
        raise ShapeError(f"key needs at least one row and one column, got {key.shape=}; pass at least one key")
    try:
        torch.broadcast_shapes(*(tensor.shape[:-2] for tensor in tensors.values()))
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ShapeError(f"leading dimensions need to broadcast, got {shapes}; make them equal or 1") from error
    return check_grid(grid, query.shape[-2])


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise unless the tensor holds real floating-point rows."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"{name} needs axes (..., rows, width), got {tuple(tensor.shape)}; add the missing axes with unsqueeze()"
        )
    if not tensor.is_floating_point():
        raise OptionError(f"{name} needs a floating-point dtype, got {tensor.dtype}; convert it with .float()")


def check_rule(threshold: float | None, fraction: float | None) -> None:
    """Raise unless at most one of the two says which positions are smoothed, and says it clearly."""
    if threshold is not None and fraction is not None:
        raise OptionError(
            f"threshold and fraction exclude each other, got {threshold=} and {fraction=}; leave one of them None"
        )
    if threshold is not None and math.isnan(threshold):
        raise OptionError(f"threshold needs to be a number, got {threshold=}; use None for plain attention")
    if fraction is not None and not 0 < fraction < 1:
        raise OptionError(
            f"fraction needs to lie between 0 and 1, both excluded, got {fraction=}; "
            "use None to smooth no position and threshold=-1.0 to smooth all"
        )


def check_scale(scale: float | None) -> None:
    """Raise unless the scale is finite or left to the width."""
    if scale is not None and not math.isfinite(scale):
        raise OptionError(f"scale needs to be finite, got {scale=}; use None for 1/sqrt(width)")


def check_positions(positions: Tensor, num_positions: int) -> None:
    """Raise unless positions is a flat list of whole numbers inside the grid."""
    if positions.ndim != 1:
        raise ShapeError(f"positions needs one axis, got {tuple(positions.shape)}; flatten it")
    if positions.dtype == torch.bool or positions.is_floating_point() or positions.is_complex():
        raise OptionError(f"positions needs an integer dtype, got {positions.dtype}; convert it with .long()")
    outside = positions[(positions < 0) | (positions >= num_positions)]
    if outside.numel():
        raise OptionError(
            f"positions need to lie in 0 ... {num_positions - 1}, got {outside[0].item()}; "
            "count cells row by row from 0, without negative ones"
        )
