"""Plain attention, arranged so that torch takes its fused kernel, which holds no N x S matrix.

Left alone, scaled_dot_product_attention falls back to the whole matrix, without a word, on other than four axes, on
broadcast leading dimensions, where query and value differ in width and where the last axis is strided.

Shapes: `B` and `M` leading dimensions folded to two, `N` query positions, `S` keys, `E` width of query and key, `Ev` of
value.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from smooth_attention.ops.checks import broadcast_batch, is_readable
from smooth_attention.ops.gates import find_nan_rows
from smooth_attention.ops.log_sum_exp import attend_with_lse, fused_why_not
from smooth_attention.ops.precision import autocast_off

__all__ = ["attend"]


def attend(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    value: Float[Tensor, "... s v"],
    *,
    scale: float,
    with_lse: bool = False,
) -> tuple[Float[Tensor, "... n v"], Float[Tensor, "... n"] | None]:
    """Return plain attention in the dtype of its inputs and, if asked and to be had for nothing, its log-sum-exp."""
    batch = broadcast_batch(query, key, value)
    q_BMNE, k_BMSE, v_BMSE = (fold(x, batch, max(query.shape[-1], value.shape[-1])) for x in (query, key, value))
    lse = None
    with autocast_off(query.device):
        if with_lse and fused_why_not(q_BMNE, k_BMSE, v_BMSE) is None:
            out_BMNE, lse_BMN = attend_with_lse(q_BMNE, k_BMSE, v_BMSE, scale=scale)
            lse = lse_BMN.reshape(*batch, query.shape[-2])
        else:
            out_BMNE = F.scaled_dot_product_attention(q_BMNE, k_BMSE, v_BMSE, scale=scale)
    output = out_BMNE[..., : value.shape[-1]].reshape(*batch, query.shape[-2], value.shape[-1])
    return restore_nan(output, query, key), lse


def fold(x: Tensor, batch: tuple[int, ...], width: int) -> Float[Tensor, "b m n e"]:
    """Return x with two leading axes, zero-padded to the width, contiguous."""
    folded = (math.prod(batch[:-1]), *(batch[-1:] or (1,)))
    x = x.expand(*batch, *x.shape[-2:]).reshape(*folded, *x.shape[-2:])
    return (F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x).contiguous()


def restore_nan(output: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return the output with NaN where the row of attention is: the CPU's kernel has 0 there if the keys are few."""
    if output.device.type == "cuda":
        return output
    if is_readable(output) and is_finite(query) and is_finite(key):
        return output  # most calls: spares a copy, and one more in the backward pass
    return output.masked_fill(find_nan_rows(query, key).unsqueeze(-1), math.nan)


def is_finite(x: Tensor) -> bool:
    """Return whether every entry is finite, told by their sum; False also where that overflows."""
    return math.isfinite(x.detach().sum(dtype=torch.promote_types(x.dtype, torch.float32)))
