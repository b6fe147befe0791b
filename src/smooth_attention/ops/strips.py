"""Exact roughness in memory that grows with N + S: strips of the grid against tiles of the keys.

A strip is a few neighbouring slices of the grid along its first axis; it takes up the last slice of the strip before,
so that every pair of neighbours stands in one strip. Which entry is the largest is found without a graph; that entry
alone is recomputed with one.

Shapes: `B` maps, `N` query positions, `S` keys, `T` keys of a tile, `E` width. Queries come multiplied by the scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from smooth_attention.core.grids import half_directions
from smooth_attention.ops.dense import cells_with
from smooth_attention.ops.log_sum_exp import TILE_ENTRIES, log_sum_exp
from smooth_attention.ops.neighbours import shift_positions

__all__ = ["measure_roughness", "scan_strips"]

KEY_TILE = 256


def measure_roughness(query: Tensor, key: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Return the roughness (B, N) of query (B, N, E) and key (B, S, E) with its gradient in both.

    The gradient is that of one largest difference, |A_nk - A_ik|, through both entries and their rows' normalisers.
    """
    lse_BN = void_where_infinite(log_sum_exp(query, key))
    _, neighbour_BN, key_BN = find_steepest(query.detach(), key.detach(), lse_BN.detach(), list(grid))
    k_BNE = take_keys(key, key_BN)
    here = ((query * k_BNE).sum(-1) - lse_BN).exp()
    there = ((take_keys(query, neighbour_BN) * k_BNE).sum(-1) - lse_BN.gather(-1, neighbour_BN)).exp()
    return (here - there).abs()


@torch.library.custom_op(
    "smooth_attention::find_steepest",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor lse, SymInt[] grid) -> (Tensor, Tensor, Tensor)",
)
def find_steepest(query: Tensor, key: Tensor, lse: Tensor, grid: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return roughness (B, N), and the neighbour and the key of that largest difference, as flat indices.

    A position without neighbours is its own.
    """
    roughness, step, tile = scan_strips(query, key, lse, tuple(grid))
    positions = torch.arange(query.shape[-2], device=query.device)
    offsets = [offset for half in half_directions(len(grid)) for offset in (half, tuple(-s for s in half))]
    around_NO = torch.stack([positions, *(shift_positions(positions, offset, tuple(grid)) for offset in offsets)], -1)
    neighbour = around_NO.expand(query.shape[0], -1, -1).gather(-1, step.unsqueeze(-1)).squeeze(-1)
    return roughness, neighbour, locate_keys(query, key, lse, neighbour, tile)


@find_steepest.register_fake
def fake_find_steepest(query: Tensor, key: Tensor, lse: Tensor, grid: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    index = torch.empty_like(lse, dtype=torch.long)
    return torch.empty_like(lse), index, index.clone()


def scan_strips(query: Tensor, key: Tensor, lse: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return per position its roughness, which neighbour is that far, and in which tile of keys; each (B, N).

    Neighbours count from 1 in the order of the half directions, forward then backward; 0 stands for none. A position
    beside a NaN row has roughness NaN.
    """
    lse = void_where_infinite(lse)
    roughness = torch.zeros_like(lse)
    step, tile = (torch.zeros_like(lse, dtype=torch.long) for _ in range(2))
    views = [x.unflatten(-1, grid) for x in (roughness, step, tile)]
    for maps, slices, keys in cut_strips(query.shape[0], grid, key.shape[-2]):
        cells = query[maps].unflatten(1, grid)[:, slices]
        logits = cells.flatten(1, -2) @ key[maps, keys].mT
        attention = logits.sub_(lse[maps].unflatten(1, grid)[:, slices].flatten(1).unsqueeze(-1)).exp_()
        attention = attention.unflatten(1, cells.shape[1:-1])
        here = [x[maps, slices] for x in views]
        for number, direction in enumerate(half_directions(len(grid))):
            opposite = tuple(-s for s in direction)
            ends = [cells_with(offset, cells.shape[1:-1]) for offset in (direction, opposite)]
            distance = (attention[ends[0]] - attention[ends[1]]).abs_().amax(-1)
            # The cells ahead have their neighbour behind them: at the opposite offset.
            for end, code in ((ends[0], 2 * number + 2), (ends[1], 2 * number + 1)):
                best, best_step, best_tile = (x[end[:-1]] for x in here)
                is_larger = (distance > best) | distance.isnan()
                best.copy_(torch.where(is_larger, distance, best))
                best_step.masked_fill_(is_larger, code)
                best_tile.masked_fill_(is_larger, keys.start // KEY_TILE)
    return roughness + 0 * lse, step, tile  # a NaN row of a grid of one cell has no neighbour to tell


def cut_strips(num_maps: int, grid: tuple[int, ...], num_keys: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield (maps, slices of the first grid axis, keys), each about one tile of entries."""
    num_rows = max(1, TILE_ENTRIES // min(KEY_TILE, num_keys))
    slice_rows = prod(grid[1:])
    height = min(grid[0], max(2, num_rows // slice_rows))
    depth = max(1, num_rows // (height * slice_rows))
    for first_map in range(0, num_maps, depth):
        for first_key in range(0, num_keys, KEY_TILE):
            for first in range(0, max(1, grid[0] - 1), max(1, height - 1)):
                yield (
                    slice(first_map, first_map + depth),
                    slice(first, first + height),
                    slice(first_key, first_key + KEY_TILE),
                )


def locate_keys(query: Tensor, key: Tensor, lse: Tensor, neighbour: Tensor, tile: Tensor) -> Tensor:
    """Return the key of the largest difference between each row and its neighbour's, knowing in which tile it is."""
    found = torch.zeros_like(tile)
    for index in range(query.shape[0]):
        for number in range(-(-key.shape[-2] // KEY_TILE)):
            keys = key[index, number * KEY_TILE : (number + 1) * KEY_TILE]
            for rows in (tile[index] == number).nonzero().squeeze(-1).split(TILE_ENTRIES // KEY_TILE):
                here, there = (
                    (query[index, i] @ keys.mT - lse[index, i, None]).exp() for i in (rows, neighbour[index, rows])
                )
                found[index, rows] = (here - there).abs().argmax(-1) + number * KEY_TILE
    return found


def void_where_infinite(lse: Tensor) -> Tensor:
    """Return the log-sum-exp with NaN where it overflows: the softmax of such a row is NaN."""
    return lse.masked_fill(lse.isinf(), torch.nan)


def take_keys(rows: Tensor, index: Tensor) -> Tensor:
    """Return rows (B, R, E) at index (B, N): (B, N, E)."""
    return rows.gather(-2, index.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))
