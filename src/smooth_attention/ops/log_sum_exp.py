"""The normaliser of each row of attention, in memory that grows with N + S.

The only file that calls torch's internal attention operator: it returns the log-sum-exp that the public one computes
and drops. On inputs that are not contiguous it returns garbage, so it is called on what :mod:`.attend` has arranged.

Shapes: `B` maps, `M` heads, `N` query positions, `S` keys, `E` width. Queries come multiplied by the scale except where
a scale is an argument.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from smooth_attention.ops.graphs import is_traced

__all__ = ["TILE_ENTRIES", "attend_with_lse", "fused_why_not", "log_sum_exp"]


# Entries of a tile of logits: large enough for the matrix product, small enough to stay in a CPU's caches.
TILE_ENTRIES = 1 << 19

SCHEMA = (
    "aten::_scaled_dot_product_flash_attention_for_cpu(Tensor query, Tensor key, Tensor value, float dropout_p=0., "
    "bool is_causal=False, *, Tensor? attn_mask=None, float? scale=None) -> (Tensor output, Tensor logsumexp)"
)


def fused_why_not(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """Return why the internal operator can't serve this call: device, dtype, layout, torch's version or settings."""
    if is_traced():
        return "compiled and exported graphs keep to public operators"
    if query.device.type != "cpu":
        return "the operator is the CPU's"
    if query.dtype not in (torch.float32, torch.float64):
        return f"its log-sum-exp in {query.dtype} is too coarse for a gate"
    if query.ndim != 4 or query.shape[-1] != value.shape[-1] or query.shape[:2] != key.shape[:2]:
        return "shapes are not (B, M, N, E) alike"
    if not (query.is_contiguous() and key.is_contiguous() and value.is_contiguous()):
        return "inputs are not contiguous"
    if 0 in query.shape or 0 in key.shape:
        return "there is nothing to attend"
    if not torch.backends.cuda.flash_sdp_enabled():
        return "fused attention is switched off"
    operator = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    if operator is None or str(operator.default._schema) != SCHEMA:
        return f"torch {torch.__version__} has another operator"
    return None


def attend_with_lse(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Return attention (B, M, N, E), differentiable, and the log-sum-exp of its scaled logits (B, M, N)."""
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale)
    return output, lse.detach()


def row_tiles(query: Tensor, key: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield (map, rows) such that the logits of those rows with every key are about one tile."""
    num_rows = max(16, TILE_ENTRIES // key.shape[-2])
    for index in range(query.shape[0]):
        for start in range(0, query.shape[-2], num_rows):
            yield index, slice(start, start + num_rows)


@torch.library.custom_op(
    "smooth_attention::log_sum_exp",
    mutates_args=(),
    schema="(Tensor query, Tensor key) -> Tensor",
)
def log_sum_exp(query: Tensor, key: Tensor) -> Tensor:
    """Return log sum_s exp(q_n . k_s) of query (B, N, E) and key (B, S, E), tile by tile, differentiable."""
    lse = query.new_empty(query.shape[:-1])
    for index, rows in row_tiles(query, key):
        lse[index, rows] = (query[index, rows] @ key[index].mT).logsumexp(-1)
    return lse


@torch.library.custom_op(
    "smooth_attention::log_sum_exp_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor query, Tensor key, Tensor lse) -> (Tensor, Tensor)",
)
def log_sum_exp_backward(grad: Tensor, query: Tensor, key: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of query and key: d lse_n = sum_s A_ns d(q_n . k_s), with A recomputed tile by tile."""
    d_query, d_key = torch.empty_like(query), torch.zeros_like(key)
    for index, rows in row_tiles(query, key):
        attention = (query[index, rows] @ key[index].mT - lse[index, rows, None]).exp()
        weighted = attention * grad[index, rows, None]
        d_query[index, rows] = weighted @ key[index]
        d_key[index] += weighted.mT @ query[index, rows]
    return d_query, d_key


@log_sum_exp.register_fake
def fake_log_sum_exp(query: Tensor, key: Tensor) -> Tensor:
    return query.new_empty(query.shape[:-1])


@log_sum_exp_backward.register_fake
def fake_log_sum_exp_backward(grad: Tensor, query: Tensor, key: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key)


def keep_for_backward(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs, output)


def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    return log_sum_exp_backward(grad.contiguous(), *ctx.saved_tensors)


log_sum_exp.register_autograd(backward, setup_context=keep_for_backward)
