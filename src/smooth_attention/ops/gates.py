"""The rule that turns roughness into a gate, and the calls whose gate needs no attention at all.

Shapes: `B` leading dimensions, `N` query positions, `S` keys, `E` width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smooth_attention.ops.checks import broadcast_batch
from smooth_attention.ops.graphs import is_exported
from smooth_attention.ops.neighbours import average_neighbours

__all__ = ["always_smooths", "closed_gate", "decide_gate", "find_nan_rows", "never_smooths", "open_gate"]


def decide_gate(
    roughness: Float[Tensor, "... n"], *, threshold: float | None, fraction: float | None
) -> Bool[Tensor, "... n"]:
    """Return which positions are smoothed: rough ones, or the roughest share of each map; never one of roughness NaN.

    Equally rough positions compete for the last places of a share by position, the lower one first.
    """
    if fraction is not None:
        has_row = ~roughness.isnan()
        rough = torch.where(has_row, roughness, -1.0)
        return is_among_first(rough, fraction) & has_row
    if threshold is not None:
        return roughness > threshold
    return torch.zeros_like(roughness, dtype=torch.bool)


def never_smooths(num_positions: int, *, threshold: float | None, fraction: float | None) -> bool:
    """Return whether no position can be smoothed: roughness of distributions is at most 1, and a share may be none."""
    if fraction is not None:
        return fraction * num_positions <= 0.5  # what rounds to 0; a number that is traced can't be rounded
    return threshold is None or threshold >= 1


def always_smooths(*, threshold: float | None) -> bool:
    """Return whether every position is smoothed that has no NaN around it: roughness is at least 0."""
    return threshold is not None and threshold < 0


def closed_gate(query: Float[Tensor, "... n e"], key: Float[Tensor, "... s e"]) -> Bool[Tensor, "... n"]:
    """Return a gate that is False everywhere, in the shape that query and key broadcast to."""
    batch = broadcast_batch(query, key)
    return query.new_zeros((*batch, query.shape[-2]), dtype=torch.bool)


def open_gate(
    query: Float[Tensor, "... n e"], key: Float[Tensor, "... s e"], grid: tuple[int, ...]
) -> Bool[Tensor, "... n"]:
    """Return a gate that is True except where a position's own or a neighbour's row is NaN.

    Told from query and key alone. With an infinite key only the logits could tell which rows are NaN: none is smoothed
    then. Finite values whose product overflows are not noticed.
    """
    return ~spread_to_neighbours(find_nan_rows(query, key) | key.isinf().any(-1).any(-1, keepdim=True), grid)


def spread_to_neighbours(is_bad: Bool[Tensor, "... n"], grid: tuple[int, ...]) -> Bool[Tensor, "... n"]:
    """Return which positions are, or have a neighbour that is, so marked."""
    bad = is_bad.to(torch.float32)
    return (bad + average_neighbours(bad.unsqueeze(-1), grid).squeeze(-1)) > 0


def find_nan_rows(query: Float[Tensor, "... n e"], key: Float[Tensor, "... s e"]) -> Bool[Tensor, "... n"]:
    """Return which rows of attention are NaN for certain: any with an infinite or NaN query, all with a NaN key."""
    return ~query.isfinite().all(-1) | key.isnan().any(-1).any(-1, keepdim=True)


def is_among_first(x: Float[Tensor, "... n"], share: float) -> Bool[Tensor, "... n"]:
    """Return which entries belong to the share of largest ones; of equal ones the lower position counts first."""
    if is_exported():  # ONNX knows no stable sort and rounds no sizes: count who comes before
        position = torch.arange(x.shape[-1], device=x.device)
        is_tied_before = (x.unsqueeze(-2) == x.unsqueeze(-1)) & (position < position.unsqueeze(-1))
        num_before = ((x.unsqueeze(-2) > x.unsqueeze(-1)) | is_tied_before).sum(-1)
        return num_before < (share * torch.ones_like(position, dtype=torch.float64).sum()).round()
    chosen = x.sort(dim=-1, descending=True, stable=True).indices[..., : count_share(share, x.shape[-1])]
    return torch.zeros_like(x, dtype=torch.bool).scatter(-1, chosen, True)


def count_share(fraction: float, num_positions: int) -> int:
    return round(fraction * num_positions)
