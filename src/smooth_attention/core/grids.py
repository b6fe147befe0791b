"""Grids: the spatial shape of the positions, and which of them are neighbours. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

from smooth_attention.core.errors import ShapeError

__all__ = ["Offset", "check_grid", "half_directions", "neighbour_offsets"]

MAX_AXES = 3

Offset = tuple[int, ...]


def check_grid(grid: Sequence[int], num_positions: int) -> tuple[int, ...]:
    """Return the grid as a tuple, once it is known to hold the positions.

    Args:
        grid: one to three sizes, each a positive whole number: ``(W,)``, ``(H, W)`` or ``(D, H, W)``.
        num_positions: how many positions there are; the product of the sizes has to be this.

    Returns:
        The sizes.

    Raises:
        ShapeError: the grid has no or too many axes, a size is not a positive whole number, or the product differs.

    Example:
        >>> check_grid([7, 7], 49)
        (7, 7)
    """
    sizes = tuple(grid) if isinstance(grid, Sequence) and not isinstance(grid, str) else ()
    if not 1 <= len(sizes) <= MAX_AXES:
        raise ShapeError(
            f"a grid needs 1 to {MAX_AXES} axes such as (W,), (H, W) or (D, H, W), got {grid=}; "
            "move further axes into the leading dimensions"
        )
    if not all(hasattr(size, "__index__") and size >= 1 for size in sizes):
        raise ShapeError(f"a grid needs positive whole sizes, got {grid=}; pass the spatial shape as it is")
    if prod(sizes) != num_positions:
        raise ShapeError(
            f"a grid has to hold every position, got {grid=} with {prod(sizes)} cells for {num_positions} positions; "
            "pass the spatial shape that the positions were flattened from"
        )
    return sizes


def neighbour_offsets(num_axes: int) -> tuple[Offset, ...]:
    """Return the ``3**num_axes - 1`` steps from a cell to its neighbours, in lexicographic order.

    Example:
        >>> neighbour_offsets(1)
        ((-1,), (1,))
    """
    return tuple(offset for offset in product((-1, 0, 1), repeat=num_axes) if any(offset))


def half_directions(num_axes: int) -> tuple[Offset, ...]:
    """Return one offset of each opposite pair, ``(3**num_axes - 1) / 2`` in all.

    Being neighbours is symmetric, so these reach every pair of neighbouring cells exactly once.

    Example:
        >>> half_directions(2)
        ((0, 1), (1, -1), (1, 0), (1, 1))
    """
    return tuple(offset for offset in neighbour_offsets(num_axes) if offset > (0,) * num_axes)
