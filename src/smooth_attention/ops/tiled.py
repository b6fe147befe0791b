"""The gate without the matrix, in plain PyTorch: bounds first, then tiles of logits, then single entries.

A difference |A_ns - A_is| > t needs an entry above t in one of the two rows. A row has fewer than 1/t of those, and
bounds rule most rows and tiles of keys out unseen. What the tiles bring up is checked entry by entry against the
neighbours, so the tiles themselves may be computed coarsely. See docs/operator.md.

Shapes: `B` maps, `N` query positions, `S` keys, `T` keys of a tile, `P` entries, `K` neighbours, `E` width.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from smooth_attention.core.grids import neighbour_offsets
from smooth_attention.ops.gates import decide_gate
from smooth_attention.ops.log_sum_exp import log_sum_exp
from smooth_attention.ops.neighbours import shift_positions
from smooth_attention.ops.strips import scan_strips

__all__ = ["tiled_gate", "tiled_why_not"]


# Below, a row may have so many entries above the threshold that comparing all of them costs less.
LOWEST_THRESHOLD = 1 / 64
# Keys, and logits, of a tile to look for entries in.
SCREEN_TILE = 512
TILE_ENTRIES = 1 << 20
NEARLY_ALL = 0.85
# A product of bfloat16 numbers is off by less than this share of |q| |k|: each is rounded to 8 bits, the sum again.
COARSE_SHARE = 2.0**-7
# Logits known to within this are good enough to look for entries in.
COARSE_MARGIN = 1.0


def tiled_gate(
    query: Tensor,
    key: Tensor,
    *,
    grid: tuple[int, ...],
    threshold: float | None,
    fraction: float | None,
    scale: float,
    lse: Tensor | None = None,
) -> Tensor:
    """Return the gate (B, N) of query (B, N, E) and key (B, S, E) in O(N + S) memory, on any device, for any rule."""
    wide = torch.promote_types(query.dtype, torch.float32)
    query, key = query.to(wide) * scale, key.to(wide)
    reach_BN = query.norm(dim=-1)
    longest_B1 = key.norm(dim=-1).amax(-1, keepdim=True)
    is_bounded = bool((reach_BN * longest_B1).isfinite().all())
    if is_bounded and threshold is not None and is_diffuse(reach_BN, key, threshold):
        return torch.zeros_like(reach_BN, dtype=torch.bool)
    if lse is None or not is_bounded:  # the fused kernel's is wrong in rows that overflow or hold NaN
        lse = log_sum_exp(query, key)
    lse = lse.to(wide)
    if threshold is None or threshold < LOWEST_THRESHOLD or not is_bounded:
        roughness, _, _ = scan_strips(query, key, lse, grid)
        return decide_gate(roughness, threshold=threshold, fraction=fraction)
    floor_BN = lse + math.log(threshold)  # the logit above which an entry exceeds the threshold
    is_open_BN = reach_BN * longest_B1 > floor_BN
    gate = torch.zeros_like(is_open_BN)
    if is_open_BN.any():
        around_NK = neighbours_of_all(grid, query.device)
        for index in is_open_BN.any(-1).nonzero().squeeze(-1).tolist():
            rows = Rows(query[index], key[index], lse[index], reach_BN[index], longest_B1[index], threshold)
            gate[index] = find_rough(rows, is_open_BN[index], around_NK)
    return gate


def tiled_why_not(query: Tensor, key: Tensor, **rule: object) -> str | None:
    """Return why the tiled gate can't run: it reads sizes back from the device."""
    if query.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return "a CUDA graph can't capture sizes that depend on the data"
    return None


def is_diffuse(reach_BN: Tensor, key: Tensor, threshold: float) -> bool:
    """Return whether no entry can exceed the threshold, told without any logit.

    A softmax is the same for keys shifted by their mean, and the log-sum-exp of S logits of mean 0 is at least log S.
    """
    radius_B1 = (key - key.mean(-2, keepdim=True)).norm(dim=-1).amax(-1, keepdim=True)
    return threshold > 0 and bool((reach_BN * radius_B1 <= math.log(key.shape[-2] * threshold)).all())


class Rows(NamedTuple):
    """One map: what is needed to tell whether an entry of its attention exceeds the threshold."""

    query: Tensor  # (N, E), multiplied by the scale
    key: Tensor  # (S, E)
    lse: Tensor  # (N,)
    reach: Tensor  # (N,): the norm of each query
    longest: Tensor  # (1,): the largest norm of a key
    threshold: float


def find_rough(rows: Rows, is_open: Tensor, around_NK: Tensor) -> Tensor:
    """Return which positions (N,) are rough, given which may hold an entry above the threshold at all."""
    rough = torch.zeros_like(is_open)
    share, dtype = screen_by(rows)
    screened_query, screened_key = rows.query.to(dtype), rows.key.to(dtype)
    floor = rows.lse + math.log(rows.threshold) - share * rows.reach * rows.longest
    everywhere = torch.arange(is_open.shape[0], device=is_open.device)
    num_rough = 0
    for start in range(0, rows.key.shape[0], SCREEN_TILE):
        tile = rows.key[start : start + SCREEN_TILE]
        centre = tile.mean(0)
        radius = (tile - centre).norm(dim=-1).amax()
        chosen = (is_open & (rows.query @ centre + rows.reach * radius > floor)).nonzero().squeeze(-1)
        if chosen.shape[0] > NEARLY_ALL * everywhere.shape[0]:  # then to gather rows costs more than to take all
            chosen = everywhere
        found = []
        for some in chosen.split(TILE_ENTRIES // SCREEN_TILE):
            queries = screened_query[some[0] : some[-1] + 1] if chosen is everywhere else screened_query[some]
            logits_PT = queries @ screened_key[start : start + SCREEN_TILE].mT
            hit = may_exceed(logits_PT, floor[some]).nonzero().squeeze(-1)
            if hit.numel():
                entry, column = (logits_PT[hit] > floor[some[hit], None]).nonzero().unbind(-1)
                found.append((some[hit[entry]], column + start))
        if not found:
            continue
        position, key = (torch.cat(part) for part in zip(*found, strict=True))
        mark_rough(rough, rows, position, key, around_NK)
        now_rough = int(rough.sum())
        if now_rough > num_rough:  # a position is settled once it and all around it are rough
            num_rough = now_rough
            is_open = is_open & ~(rough & rough[around_NK].all(-1))
    return rough


def may_exceed(logits_PT: Tensor, floor_P: Tensor) -> Tensor:
    """Return which rows may hold a logit above their floor; for certain, unless all logits of a row are negative.

    Numbers in bfloat16 that are not negative are ordered as their bits are, and torch compares integers faster.
    """
    if logits_PT.dtype != torch.bfloat16:
        return logits_PT.amax(-1) > floor_P
    top_P = logits_PT.view(torch.int16).amax(-1)
    return torch.where(top_P >= 0, top_P.view(torch.bfloat16) > floor_P, floor_P < 0)


def mark_rough(rough: Tensor, rows: Rows, position: Tensor, key: Tensor, around_NK: Tensor) -> None:
    """Mark the ends of every pair of neighbours that differs by more than the threshold at one of the entries (P,)."""
    step = max(1, TILE_ENTRIES * 4 // (around_NK.shape[-1] * rows.key.shape[-1]))
    for i, k in zip(position.split(step), key.split(step), strict=True):
        neighbours_PK = around_NK[i]
        is_undecided = ~(rough[i, None] & rough[neighbours_PK]) & (neighbours_PK != i[:, None])
        entry, which = is_undecided.nonzero().unbind(-1)
        n = neighbours_PK[entry, which]
        here = attention_at(rows, i, k)[entry]
        is_far = (here - attention_at(rows, n, k[entry])).abs() > rows.threshold
        rough[i[entry[is_far]]] = True
        rough[n[is_far]] = True


def attention_at(rows: Rows, position: Tensor, key: Tensor) -> Tensor:
    """Return single entries of attention; products and sums, which no setting of matrix products makes coarser."""
    return ((rows.query[position] * rows.key[key]).sum(-1) - rows.lse[position]).exp()


def screen_by(rows: Rows) -> tuple[float, torch.dtype]:
    """Return how far screened logits may be off, as a share of |q| |k|, and the dtype to screen in."""
    is_coarse_enough = (COARSE_SHARE * rows.reach.amax() * rows.longest).item() <= COARSE_MARGIN
    if rows.query.device.type == "cpu" and multiplies_bfloat16() and is_coarse_enough:
        return COARSE_SHARE, torch.bfloat16
    if rows.query.device.type == "cuda" and rows.query.dtype == torch.float32:
        return 2.0**-9, torch.float32  # in case TF32 is on
    return 8 * torch.finfo(rows.query.dtype).eps, rows.query.dtype


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 faster than float32."""
    able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch can't tell
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def neighbours_of_all(grid: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the flat neighbours (N, K) of every position; beyond the border, the cell clamped back."""
    positions = torch.arange(math.prod(grid), device=device)
    return torch.stack([shift_positions(positions, offset, grid) for offset in neighbour_offsets(len(grid))], dim=-1)
