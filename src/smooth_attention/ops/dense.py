"""The dense gate: rows of attention, roughness from the N x N matrix, each pair of neighbouring rows compared once.

Shapes: `B` leading dimensions, `N` query positions, `S` keys, `E` width; rows stand as (B, *grid, S).
"""

from __future__ import annotations

from types import EllipsisType

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from smooth_attention.core.grids import Offset, half_directions
from smooth_attention.ops.gates import decide_gate
from smooth_attention.ops.precision import autocast_off

__all__ = ["cells_with", "compute_attention", "compute_roughness", "dense_gate", "dense_why_not"]


def compute_attention(
    query: Float[Tensor, "... n e"], key: Float[Tensor, "... s e"], scale: float
) -> Float[Tensor, "... n s"]:
    """Return the rows of attention before smoothing, in float32 at least, under autocast too.

    Half precision moves attention by up to a tenth at the logits of trained networks: enough to flip a gate.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    with autocast_off(query.device):
        # not .mT: the ONNX exporter that traces does not know it
        logits_BNS = scale * (query.to(wide) @ key.to(wide).transpose(-2, -1))
        return logits_BNS.softmax(dim=-1)


def compute_roughness(attention: Float[Tensor, "... n s"], grid: tuple[int, ...]) -> Float[Tensor, "... n"]:
    """Return the largest difference between each row of attention and those of its neighbours.

    A cell clamped back at the border is the cell itself or another of its neighbours, so pairs inside the grid decide.
    """
    rows = attention.unflatten(-2, grid)
    # Zero, or NaN where the row is; that matters where the grid is one cell.
    roughness = rows[..., 0] - rows[..., 0]
    for direction in half_directions(len(grid)):
        opposite = tuple(-step for step in direction)
        ahead, behind = rows[cells_with(direction, grid)], rows[cells_with(opposite, grid)]
        distance = (ahead - behind).abs().amax(dim=-1)
        for offset in (direction, opposite):
            roughness = torch.maximum(roughness, F.pad(distance, margins(offset)))
    return roughness.flatten(-len(grid))


def dense_gate(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    *,
    grid: tuple[int, ...],
    threshold: float | None,
    fraction: float | None,
    scale: float,
    lse: Float[Tensor, "... n"] | None = None,
) -> Bool[Tensor, "... n"]:
    """Return the gate by way of the whole matrix: O(N S) memory, any device, any rule."""
    roughness = compute_roughness(compute_attention(query, key, scale), grid)
    return decide_gate(roughness, threshold=threshold, fraction=fraction)


def dense_why_not(query: Tensor, key: Tensor, **rule: object) -> str | None:
    """Return None: the dense gate runs everywhere."""
    return None


def cells_with(offset: Offset, grid: tuple[int, ...]) -> tuple[slice | EllipsisType, ...]:
    """The cells whose neighbour at the opposite offset lies inside the grid, as an index into (..., *grid, S)."""
    inside = (slice(max(0, step), size - max(0, -step)) for step, size in zip(offset, grid, strict=True))
    return (..., *inside, slice(None))


def margins(offset: Offset) -> list[int]:
    """What those cells lack to the whole grid, as F.pad wants it: last axis first."""
    return [margin for step in reversed(offset) for margin in (max(0, step), max(0, -step))]
