"""Triton's gate: O(N) memory, and exact; only the entries above the threshold are compared.

Where two rows of attention differ by more than t at a key, one of them exceeds t there. So a row whose largest entry is
at most t starts no comparison, and a row of larger ones only at those, of which there are fewer than 1/t. Most rows are
ruled out by a bound that needs no logits, most others are told by their largest entry, and the rest by a second pass.
Nothing waits for the device, and what is launched depends on shapes and options only: a CUDA graph can hold it.

Shapes: `L` maps (leading dimensions folded), `N` query positions (the flattened grid), `S` keys, `E` width.
"""

from __future__ import annotations

import importlib.util
import math
import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from smooth_attention.ops.gates import find_nan_rows

__all__ = ["triton_gate", "triton_why_not"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LOWEST = 1 / 64
WIDEST = 256


class Tiles(NamedTuple):
    """How many positions, keys and columns a program multiplies at a time, and on how many warps."""

    positions: int
    keys: int
    columns: int
    warps: int
    stages: int


@torch.no_grad()
def triton_gate(
    query: Tensor,
    key: Tensor,
    *,
    grid: tuple[int, ...],
    threshold: float | None,
    fraction: float | None,
    scale: float | None,
    lse: Tensor | None = None,
) -> Tensor:
    r"""Return which positions differ from a neighbour by more than the threshold at some key.

    :math:`m_i = [\max_n \max_s |A_{ns} - A_{is}| > t]` with :math:`A = \mathrm{softmax}(\text{scale}\; q k^\top)` in
    float32, over the neighbours n of i inside the grid; those beyond it are copies of these or of i.

    Args:
        query: (L, N, E), contiguous.
        key: (L, S, E), contiguous.
        grid: spatial shape of the query positions, one to three sizes.
        threshold: between 1/64 and 1.
        fraction: not taken here, see :func:`triton_why_not`.
        scale: logit multiplier. ``None`` means ``E ** -0.5``.
        lse: log-sum-exp of the rows, as other gates use it. Its values are not read: the pass that finds the largest
            entries sums the row anyway.

    Returns:
        Booleans (L, N) without graph. False where a position's own or a neighbour's row holds NaN.
    """
    assert threshold is not None
    assert fraction is None
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)  # Triton compiles whole numbers apart
    sizes = (1,) * (3 - len(grid)) + tuple(grid)
    is_needed = dilate(~rule_out(query, key, threshold, scale), sizes)
    with torch.cuda.device_of(query):  # Triton launches on the current device
        is_rough, log_total = compare_tiles(query, key, is_needed, sizes, threshold, scale)
    is_bad = find_nan_rows(query, key) | ~log_total.isfinite()
    return is_rough & ~dilate(is_bad, sizes)


def triton_why_not(
    query: Tensor,
    key: Tensor,
    *,
    grid: tuple[int, ...],
    threshold: float | None,
    fraction: float | None,
    scale: float | None,
    lse: Tensor | None = None,
) -> str | None:
    """Return why Triton's gate can't take this call, in one clause; None: it can."""
    if (reason := why_not_device(query.device)) is not None:  # first: to look for Triton takes long
        return reason
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if query.dtype not in DTYPES:
        return f"Triton's gate computes in float32, from float32, bfloat16 or float16 and not from {query.dtype}"
    if fraction is not None:
        return "a fraction needs every roughness"
    if threshold is None or not threshold < 1:
        return f"a gate of {threshold=} is closed, which takes no kernel"
    if threshold < LOWEST:
        return "below 1/64 a row may have more than 64 keys above the threshold"
    if query.shape[-1] > WIDEST:
        return f"Triton's gate takes a width of at most {WIDEST}, got {query.shape[-1]}: wider rows overflow registers"
    if query.numel() == 0 or key.numel() == 0:
        return "there is nothing to launch for empty tensors"
    return None


def why_not_device(device: torch.device) -> str | None:
    if is_interpreted():
        return None
    if device.type != "cuda":
        return f"Triton's gate needs CUDA tensors, these are on {device.type}"
    if (capability := torch.cuda.get_device_capability(device)) < (8, 0):
        return "Triton needs a GPU of compute capability 8.0, this one has {}.{}".format(*capability)
    return None


def is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def rule_out(query: Tensor, key: Tensor, threshold: float, scale: float) -> Tensor:
    r"""Return the rows (L, N) that certainly have no entry above the threshold, told from norms.

    Softmax ignores a constant per row, so the mean key c may be subtracted. The logits then have mean 0, their
    exponentials sum to S at least, and no entry exceeds :math:`\exp(|\text{scale}|\, |q| \max_k |k - c|) / S`.
    """
    norm = torch.linalg.vector_norm
    wide = key.float()
    # Squares of less than 1e-38 vanish; adding this keeps the norms upper bounds.
    query_norm = norm(query, dim=-1, dtype=torch.float32) + 1e-17
    radius = norm(wide - wide.mean(dim=-2, keepdim=True), dim=-1).amax(dim=-1, keepdim=True) + 1e-17
    longest = norm(wide, dim=-1).amax(dim=-1, keepdim=True)
    # The mean is rounded in proportion to the keys themselves, which may be long beside the radius.
    largest = abs(scale) * (query_norm * radius + 4e-6 * (query_norm * longest))
    # NaN and inf are never ruled out: they compare False.
    return largest * (1 + 1e-4) <= math.log(key.shape[-2]) + math.log(threshold)


def compare_tiles(
    query: Tensor, key: Tensor, is_needed: Tensor, sizes: tuple[int, ...], threshold: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Launch the kernels; return the rough positions (L, N), and the needed rows' ``log_total``, NaN where they are."""
    from smooth_attention.ops import triton_kernels as kernels  # here: Triton may be missing

    query, key = query.contiguous(), key.contiguous()
    if is_interpreted() and query.dtype == torch.bfloat16:  # the interpreter would multiply the bits
        query, key = query.float(), key.float()
    num_maps, num_positions, width = query.shape
    peak = torch.empty_like(is_needed, dtype=torch.float32)
    log_total = torch.empty_like(peak)
    peak_key = torch.empty_like(peak, dtype=torch.int32)
    is_rough = torch.zeros_like(is_needed)
    marks = is_rough.view(torch.uint8)
    tiles = choose_tiles(query.dtype, width)
    counts = (num_positions, key.shape[-2])
    # Said aloud, since Triton warns where it is left to a default that changes: fused is the more accurate.
    launch = {"WIDTH": width, "num_warps": tiles.warps, "enable_fp_fusion": True}
    blocks = {"BLOCK_N": tiles.positions, "BLOCK_S": tiles.keys, "BLOCK_E": tiles.columns}
    programs = (num_maps * -(-num_positions // tiles.positions),)
    rows = (peak, log_total, peak_key)
    kernels.find_peaks[programs](
        query, key, is_needed.view(torch.uint8), *rows, *counts, scale, **launch, **blocks, num_stages=tiles.stages
    )
    launch["NUM_NEIGHBOURS"] = 3 ** count_axes(sizes) - 1
    options = (*rows, marks, *counts, *sizes, scale, threshold)
    padded = round_up(width)
    few = min(64, 4096 // padded)  # whole rows of key and query lie in registers
    kernels.check_peaks[(num_maps * -(-num_positions // few),)](
        query, key, *options, **launch, BLOCK_N=few, PADDED_WIDTH=padded
    )
    if threshold < 0.5:  # no two entries of a row exceed one half
        # One stage: two would keep two tiles of every neighbour's query in shared memory, up to 200 KB.
        kernels.check_others[programs](query, key, *options, **launch, **blocks, num_stages=1)
    return is_rough, log_total


def choose_tiles(dtype: torch.dtype, width: int) -> Tiles:
    """Return tiles that fit the shared memory of any GPU since 2020 (100 KB) and, by their count, its registers."""
    padded = round_up(width)
    if dtype == torch.float32:
        # Without tensor cores: columns in portions, since registers hold a portion of query and key each.
        return Tiles(64, 64, min(padded, 32), 4, 3)
    if padded <= 128:
        return Tiles(64, 64, padded, 4, 2)
    return Tiles(64, 32, padded, 4, 2)


def round_up(width: int) -> int:
    """Return the power of two that holds the width, at least 16: tensor cores take no fewer columns."""
    return max(16, 1 << (width - 1).bit_length())


def count_axes(sizes: tuple[int, ...]) -> int:
    """Return how many axes are left without leading ones of size 1, which have no neighbours inside; at least one."""
    return max((3 - axis for axis, size in enumerate(sizes) if size > 1), default=1)


def dilate(mask: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the positions (L, N) that are in the mask or have a neighbour in the grid that is."""
    cells = mask.to(torch.float32).view(-1, 1, *sizes)
    return F.max_pool3d(cells, kernel_size=3, stride=1, padding=1).view(mask.shape) > 0
