"""The paper's formula, literally, N x N: the specification that every fast path is tested against.

Shapes: `B` leading dimensions, `N` query positions, `S` keys, `K` neighbours, `E` width of query and key, `Ev` of
value.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smooth_attention.core.grids import neighbour_offsets
from smooth_attention.ops.gates import decide_gate
from smooth_attention.ops.neighbours import shift_positions
from smooth_attention.ops.precision import autocast_off

__all__ = ["reference"]


class Reference(NamedTuple):
    """Everything that the formula goes through, in float32 at least."""

    output: Float[Tensor, "... n v"]
    attention: Float[Tensor, "... n s"]  # after smoothing
    roughness: Float[Tensor, "... n"]
    gate: Bool[Tensor, "... n"]


def reference(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    value: Float[Tensor, "... s v"],
    *,
    grid: tuple[int, ...],
    threshold: float | None = None,
    fraction: float | None = None,
    scale: float | None = None,
) -> Reference:
    r"""Smooth Attention as the paper writes it, with every matrix spelled out.

    With :math:`A = \mathrm{softmax}(\text{scale}\; q k^\top)` and neighbours :math:`n` of position :math:`i`:
    :math:`r_i = \max_n \max_s |A_{ns} - A_{is}|`, and row i of :math:`A'` is the mean of the rows :math:`A_n` where
    :math:`r_i > t`, else :math:`A_i`; the output is :math:`A' v`.

    Returns:
        Output, smoothed attention, roughness and gate, in float32 or, where the inputs are, float64.

    Reference:
        "Smooth Attention: Improving Image Semantic Segmentation", preprint 202409.1283. ``fraction``, other scales than
        1 and grids of other than two axes are ours.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    wide = torch.promote_types(query.dtype, torch.float32)
    with autocast_off(query.device):
        attention_BNS = (scale * (query.to(wide) @ key.to(wide).mT)).softmax(dim=-1)
    positions = torch.arange(query.shape[-2], device=query.device)
    neighbours_NK = torch.stack([shift_positions(positions, o, grid) for o in neighbour_offsets(len(grid))], dim=-1)
    neighbours_BNKS = attention_BNS[..., neighbours_NK, :]
    roughness = (neighbours_BNKS - attention_BNS.unsqueeze(-2)).abs().amax(dim=(-2, -1))
    gate = decide_gate(roughness.detach(), threshold=threshold, fraction=fraction)
    smoothed_BNS = torch.where(gate.unsqueeze(-1), neighbours_BNKS.mean(dim=-2), attention_BNS)
    with autocast_off(query.device):
        output = smoothed_BNS @ value.to(smoothed_BNS.dtype)
    return Reference(output, smoothed_BNS, roughness, gate)
