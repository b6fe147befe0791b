"""Sums and positions of spatial neighbours on a grid of one to three axes, with a replicate border.

A neighbour beyond the border is the cell itself clamped back onto the grid, axis by axis, so a corner counts itself
``2**d - 1`` times among its ``3**d - 1`` neighbours.

Shapes: `N` positions (the flattened grid), `P` chosen positions, `E` width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smooth_attention.core.grids import Offset, neighbour_offsets


def average_neighbours(x: Float[Tensor, "... n e"], grid: tuple[int, ...]) -> Float[Tensor, "... n e"]:
    """Return the mean over each position's neighbours, itself left out; sums run in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    window = x.to(wide).unflatten(-2, grid)  # so far: sum over the cell and its neighbours
    around = torch.zeros_like(window)  # so far: sum over the neighbours alone
    # One axis at a time: two shifts per axis instead of 3**d - 1, and the centre is never added, so it needs no
    # subtracting (which would round, and let a NaN of the centre through).
    for axis in range(-1 - len(grid), -1):
        both_sides = _shift_back(window, axis) + _shift_on(window, axis)
        around = around + both_sides
        window = window + both_sides
    mean = around / len(neighbour_offsets(len(grid)))
    return mean.flatten(-1 - len(grid), -2).to(x.dtype)


def shift_positions(positions: Int[Tensor, " p"], offset: Offset, grid: tuple[int, ...]) -> Int[Tensor, " p"]:
    """Return the flat positions one step away, clamped to the grid."""
    shifted = torch.zeros_like(positions)
    coordinates = torch.unravel_index(positions, grid)
    for size, step, coordinate in zip(grid, offset, coordinates, strict=True):
        shifted = shifted * size + (coordinate + step).clamp(0, size - 1)
    return shifted


def _shift_back(cells: Tensor, axis: int) -> Tensor:
    """At each cell, the one before it along the axis; the first stays."""
    return torch.cat([cells.narrow(axis, 0, 1), cells.narrow(axis, 0, cells.shape[axis] - 1)], dim=axis)


def _shift_on(cells: Tensor, axis: int) -> Tensor:
    """At each cell, the one after it along the axis; the last stays."""
    last = cells.shape[axis] - 1
    return torch.cat([cells.narrow(axis, 1, last), cells.narrow(axis, last, 1)], dim=axis)
