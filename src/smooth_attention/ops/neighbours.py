"""Sums and positions of spatial neighbours on a grid of one to three axes, with a replicate border.

A neighbour beyond the border is the cell itself clamped back onto the grid, axis by axis, so a corner counts itself
``2**d - 1`` times among its ``3**d - 1`` neighbours.

Shapes: `N` positions (the flattened grid), `P` chosen positions, `E` width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smooth_attention.core.grids import Offset
from smooth_attention.ops.graphs import is_exported

__all__ = ["average_neighbours", "shift_positions"]


def average_neighbours(x: Float[Tensor, "... n e"], grid: tuple[int, ...]) -> Float[Tensor, "... n e"]:
    """Return the mean over each position's neighbours, itself left out; sums run in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    cells = x.to(wide).unflatten(-2, grid)
    needs_graph = cells.requires_grad and torch.is_grad_enabled() and not is_exported()
    mean = NeighbourMean.apply(cells, len(grid)) if needs_graph else average(cells, len(grid))
    return mean.flatten(-1 - len(grid), -2).to(x.dtype)


class NeighbourMean(torch.autograd.Function):
    """The mean over neighbours of (..., *grid, E): a symmetric map of the cells, so it is its own backward pass."""

    @staticmethod
    def forward(cells, num_axes):  # type: ignore[no-untyped-def]
        return average(cells, num_axes)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.num_axes = inputs[1]

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return NeighbourMean.apply(grad, ctx.num_axes), None


def average(cells: Tensor, num_axes: int) -> Tensor:
    # One axis at a time: two shifts per axis instead of 3**d - 1, and the centre is never added, so it needs no
    # subtracting (which would round, and let a NaN of the centre through).
    window = cells  # so far: sum over the cell and its neighbours
    around = None  # so far: sum over the neighbours alone
    for axis in range(-1 - num_axes, -1):
        both_sides = add_both_sides(window, axis)
        if axis < -2:
            window = window + both_sides
        around = both_sides if around is None else around.add_(both_sides)
    assert around is not None
    return around.div_(3**num_axes - 1)


def add_both_sides(cells: Tensor, axis: int) -> Tensor:
    """At each cell, the sum of the one before it and the one after it along the axis; beyond the border, itself."""
    last = cells.shape[axis] - 1
    total = torch.cat([cells.narrow(axis, 0, 1), cells.narrow(axis, 0, last)], dim=axis)
    if is_exported():  # an exporter may lose what is written into a view
        return total + torch.cat([cells.narrow(axis, 1, last), cells.narrow(axis, last, 1)], dim=axis)
    total.narrow(axis, 0, last).add_(cells.narrow(axis, 1, last))
    total.narrow(axis, last, 1).add_(cells.narrow(axis, last, 1))
    return total


def shift_positions(positions: Int[Tensor, " p"], offset: Offset, grid: tuple[int, ...]) -> Int[Tensor, " p"]:
    """Return the flat positions one step away, clamped to the grid."""
    shifted = torch.zeros_like(positions)
    coordinates = torch.unravel_index(positions, grid)
    for size, step, coordinate in zip(grid, offset, coordinates, strict=True):
        shifted = shifted * size + (coordinate + step).clamp(0, size - 1)
    return shifted
