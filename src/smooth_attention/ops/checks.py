"""Checks of what callers hand to the public doors: one sentence each, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.core.grids import check_grid
from smooth_attention.ops.graphs import is_traced

__all__ = [
    "broadcast_batch",
    "check_floating",
    "check_gate_shape",
    "check_positions",
    "check_rule",
    "check_scale",
    "check_tensors",
    "is_readable",
]


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
        broadcast_batch(*tensors.values())
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ShapeError(f"leading dimensions need to broadcast, got {shapes}; make them equal or 1") from error
    return check_grid(grid, query.shape[-2])


def is_readable(tensor: Tensor) -> bool:
    """Return whether looking at the values costs nothing: on the CPU, and neither traced nor fake."""
    return type(tensor) is Tensor and tensor.device.type == "cpu" and not is_traced()


def broadcast_batch(*tensors: Tensor) -> torch.Size:
    """Return the leading dimensions that the tensors broadcast to; at once where they agree, as they mostly do."""
    batches = [tensor.shape[:-2] for tensor in tensors]
    if all(batch == batches[0] for batch in batches):
        return batches[0]
    return torch.broadcast_shapes(*batches)


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise unless the tensor holds real floating-point rows."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"{name} needs axes (..., rows, width), got {tuple(tensor.shape)}; add the missing axes with unsqueeze()"
        )
    if not tensor.is_floating_point():
        raise OptionError(f"{name} needs a floating-point dtype, got {tensor.dtype}; convert it with .float()")


def check_rule(
    threshold: float | Tensor | None, fraction: float | None, temperature: float | Tensor | None = None
) -> None:
    """Raise unless at most one of the two says which positions are smoothed, and says it clearly.

    Tensors belong to a soft gate; their values are not looked at.
    """
    if threshold is not None and fraction is not None:
        raise OptionError(
            f"threshold and fraction exclude each other, got {threshold=} and {fraction=}; leave one of them None"
        )
    if temperature is not None and threshold is None:
        raise OptionError(
            f"a soft gate needs a threshold, got {temperature=} without one; pass threshold, or leave temperature None"
        )
    if isinstance(threshold, Tensor) and temperature is None:
        raise OptionError("a threshold that is a Tensor needs a temperature; pass a float, or the temperature too")
    if isinstance(temperature, float | int) and not 0 < temperature < math.inf:
        raise OptionError(
            f"temperature needs to be a number above 0, got {temperature=}; use None for a gate that is a step"
        )
    # Compared, since torch.compile traces no math.isnan of an argument.
    if isinstance(threshold, float | int) and not -math.inf <= threshold <= math.inf:
        raise OptionError(f"threshold needs to be a number, got {threshold=}; use None for plain attention")
    if fraction is not None and not 0 < fraction < 1:
        raise OptionError(
            f"fraction needs to lie between 0 and 1, both excluded, got {fraction=}; "
            "use None to smooth no position and threshold=-1.0 to smooth all"
        )


def check_scale(scale: float | None) -> None:
    """Raise unless the scale is finite or left to the width."""
    if scale is not None and not -math.inf < scale < math.inf:
        raise OptionError(f"scale needs to be finite, got {scale=}; use None for 1/sqrt(width)")


def check_gate_shape(shape: torch.Size, **parameters: float | Tensor | None) -> None:
    """Raise unless each parameter that is a Tensor broadcasts to the shape of the gate."""
    for name, parameter in parameters.items():
        if not isinstance(parameter, Tensor):
            continue
        trailing = zip(reversed(parameter.shape), reversed(shape), strict=False)
        if parameter.ndim > len(shape) or any(size not in (1, room) for size, room in trailing):
            raise ShapeError(
                f"{name} needs to broadcast against the gate {tuple(shape)}, got {tuple(parameter.shape)}; "
                "pass one number, or one per map with a last axis of 1"
            )


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
