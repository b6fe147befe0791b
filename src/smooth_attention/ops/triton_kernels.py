"""The kernels of Triton's gate; importing this needs Triton, so only :mod:`.triton_gate` does, and late.

A row of attention is kept as its peak, the key of the peak, and ``log_total``, the logarithm of the sum of
exp(logit - peak), which is at least 0: A = exp(logit - peak - log_total). Against one log-sum-exp that spares the
rounding of a large sum, and the largest entry, exp(-log_total), does not depend on the size of the logits at all.

Shapes: `L` maps, `N` query positions of a map, `S` keys of a map, `E` width (WIDTH here). A program works on BLOCK_N
positions of one map; names that end in _block point at its first position or key. All tensors are contiguous.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

__all__ = ["check_others", "check_peaks", "find_peaks"]


# no_type_check: annotations mean other things to Triton, and shape checks would wrap what it has to parse.

# Compiled once for all sizes: which divide by 16 makes no faster code here, the width alone does.
SIZES = ["num_positions", "num_keys", "depth", "height", "width"]
# Rounding of 1 - exp(-log_total): far above it, far below any threshold.
MARGIN = tl.constexpr(1e-4)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def find_peaks(
    query, key, is_needed, peak, log_total, peak_key,  # read (L, N, E), (L, S, E), (L, N); written (L, N)
    num_positions, num_keys, scale,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Write peak, log_total and the key of the peak of each needed row, in one pass over the keys.

    A row that is not needed gets peak -inf, so nothing starts from it; one that holds NaN or +inf, or nothing but
    -inf, gets log_total NaN as well. Blocks without a needed row get log_total 0 and no pass.
    """
    index, first, positions, cells = find_block(num_positions, BLOCK_N)
    has_row = cells < num_positions
    needed = tl.load(is_needed + positions, mask=has_row, other=0) != 0
    nothing = tl.full([BLOCK_N], float("-inf"), tl.float32)
    zeros = tl.zeros([BLOCK_N], tl.float32)
    if tl.max(needed.to(tl.int32), 0) == 0:
        tl.store(peak + positions, nothing, mask=has_row)
        tl.store(log_total + positions, zeros, mask=has_row)
        return
    query_block = query + first * WIDTH
    highest, total, found = nothing, zeros, tl.zeros([BLOCK_N], tl.int32)
    for start in range(0, num_keys, BLOCK_S):
        has_key = start + tl.arange(0, BLOCK_S) < num_keys
        key_block = key + (index * num_keys + start) * WIDTH
        logits = multiply(query_block, key_block, has_row, has_key, scale, WIDTH, BLOCK_N, BLOCK_S, BLOCK_E)
        tile_highest, tile_found = tl.max(logits, 1, return_indices=True)
        is_higher = tile_highest > highest
        found = tl.where(is_higher, start + tile_found, found)
        higher = tl.where(is_higher, tile_highest, highest)
        base = tl.where(higher > float("-inf"), higher, 0.0)  # -inf minus -inf would be NaN
        total = total * tl.exp(highest - base) + tl.sum(tl.exp(logits - base[:, None]), 1)
        highest = higher
    logarithm = tl.log(total)
    is_whole = (tl.abs(highest) < float("inf")) & (tl.abs(logarithm) < float("inf"))
    tl.store(peak + positions, tl.where(is_whole & needed, highest, nothing), mask=has_row)
    tl.store(log_total + positions, tl.where(is_whole, logarithm, float("nan")), mask=has_row)
    tl.store(peak_key + positions, found, mask=has_row)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def check_peaks(
    query, key, peak, log_total, peak_key, is_rough,  # is_rough (L, N) is written, where 1
    num_positions, num_keys, depth, height, width, scale, threshold,
    NUM_NEIGHBOURS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, PADDED_WIDTH: tl.constexpr,
):  # fmt: skip
    """Mark the pairs of neighbours that differ by more than the threshold at the key of either's largest entry."""
    index, first, positions, cells = find_block(num_positions, BLOCK_N)
    has_row = cells < num_positions
    top, _, share = load_row(peak, log_total, positions, has_row)
    is_high = (top > float("-inf")) & (share > threshold)
    if tl.max(is_high.to(tl.int32), 0) == 0:
        return
    columns = tl.arange(0, PADDED_WIDTH)[None, :]
    has_column = columns < WIDTH
    found = tl.load(peak_key + positions, mask=is_high, other=0)
    at_peak = key + index * num_keys * WIDTH + found.to(tl.int64)[:, None] * WIDTH + columns
    keys = tl.load(at_peak, mask=is_high[:, None] & has_column, other=0.0).to(tl.float32)
    at_row = query + first * WIDTH + tl.arange(0, BLOCK_N)[:, None] * WIDTH + columns
    is_hit = tl.zeros([BLOCK_N], tl.int1)
    for neighbour in range(NUM_NEIGHBOURS):
        shift, is_inside = step(neighbour, cells, depth, height, width, NUM_NEIGHBOURS)
        is_pair = is_high & is_inside
        queries = tl.load(at_row + shift * WIDTH, mask=is_pair[:, None] & has_column, other=0.0).to(tl.float32)
        logit = scale * tl.sum(queries * keys, 1)
        other_top, other_rest, _ = load_row(peak, log_total, positions + shift, is_pair)
        differs = is_pair & (tl.abs(tl.exp(logit - other_top - other_rest) - share) > threshold)
        # Programs may mark a position at once: all of them store 1.
        tl.store(is_rough + positions + shift, 1, mask=differs)
        is_hit = is_hit | differs
    tl.store(is_rough + positions, 1, mask=is_hit)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def check_others(
    query, key, peak, log_total, peak_key, is_rough,  # is_rough (L, N) is read and written
    num_positions, num_keys, depth, height, width, scale, threshold,
    NUM_NEIGHBOURS: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Mark the pairs of neighbours that differ by more than the threshold at another entry above it than the largest.

    Nearly all rows are told by their largest entry, so only blocks with an undecided row look at the keys again, and
    only tiles with an entry above the threshold look at the neighbours.
    """
    index, first, positions, cells = find_block(num_positions, BLOCK_N)
    has_row = cells < num_positions
    top, rest, share = load_row(peak, log_total, positions, has_row)
    is_open = (top > float("-inf")) & (share > threshold) & (1.0 - share + MARGIN > threshold)
    is_open = is_open & has_doubt(is_rough, positions, cells, is_open, depth, height, width, NUM_NEIGHBOURS)
    if tl.max(is_open.to(tl.int32), 0) == 0:
        return
    found = tl.load(peak_key + positions, mask=is_open, other=0)
    query_block = query + first * WIDTH
    for start in range(0, num_keys, BLOCK_S):
        keys = start + tl.arange(0, BLOCK_S)
        key_block = key + (index * num_keys + start) * WIDTH
        logits = multiply(query_block, key_block, is_open, keys < num_keys, scale, WIDTH, BLOCK_N, BLOCK_S, BLOCK_E)
        log_shares = logits - top[:, None] - rest[:, None]
        is_high = is_open[:, None] & (log_shares > tl.log(threshold)) & (keys[None, :] != found[:, None])
        if tl.max(tl.max(is_high.to(tl.int32), 1), 0) > 0:
            shares = tl.exp(log_shares)
            for neighbour in range(NUM_NEIGHBOURS):
                shift, is_inside = step(neighbour, cells, depth, height, width, NUM_NEIGHBOURS)
                is_pair = is_open & is_inside
                other_logits = multiply(
                    query_block + shift * WIDTH, key_block, is_pair, keys < num_keys, scale,
                    WIDTH, BLOCK_N, BLOCK_S, BLOCK_E,
                )  # fmt: skip
                other_top, other_rest, _ = load_row(peak, log_total, positions + shift, is_pair)
                other_shares = tl.exp(other_logits - other_top[:, None] - other_rest[:, None])
                differs = is_high & (tl.abs(other_shares - shares) > threshold)
                is_hit = is_pair & (tl.max(differs.to(tl.int32), 1) > 0)
                tl.store(is_rough + positions + shift, 1, mask=is_hit)
                tl.store(is_rough + positions, 1, mask=is_hit)


@triton.jit
@no_type_check
def find_block(num_positions, BLOCK_N: tl.constexpr):
    """Return the map of this program, its first position and all of them, counted over the maps, and in the map."""
    # Maps and blocks share the first axis of the launch, since the others end at 65535.
    blocks = tl.cdiv(num_positions, BLOCK_N)
    index = (tl.program_id(0) // blocks).to(tl.int64)  # 64 bits: all maps together may pass 2^31 numbers
    start = (tl.program_id(0) % blocks) * BLOCK_N
    cells = start + tl.arange(0, BLOCK_N)
    return index, index * num_positions + start, index * num_positions + cells, cells


@triton.jit
@no_type_check
def load_row(peak, log_total, positions, mask):
    """Return peak, log_total and the largest entry of each row."""
    top = tl.load(peak + positions, mask=mask, other=float("-inf"))
    rest = tl.load(log_total + positions, mask=mask, other=0.0)
    return top, rest, tl.exp(-rest)


@triton.jit
@no_type_check
def multiply(
    query_block, key_block, has_row, has_key, scale,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Return the logits (BLOCK_N, BLOCK_S) of one tile in float32, -inf where there is no key."""
    steps = tl.arange(0, BLOCK_E)
    at_query = query_block + tl.arange(0, BLOCK_N)[:, None] * WIDTH + steps[None, :]
    at_key = key_block + tl.arange(0, BLOCK_S)[None, :] * WIDTH + steps[:, None]
    products = tl.zeros([BLOCK_N, BLOCK_S], tl.float32)
    for start in range(0, WIDTH, BLOCK_E):
        has_column = start + steps < WIDTH
        queries = tl.load(at_query + start, mask=has_row[:, None] & has_column[None, :], other=0.0)
        keys = tl.load(at_key + start, mask=has_key[None, :] & has_column[:, None], other=0.0)
        # ieee: TF32 keeps 11 bits, which moves attention by as much as bfloat16 inputs would.
        products = tl.dot(queries, keys, products, input_precision="ieee")
    return tl.where(has_key[None, :], scale * products, float("-inf"))


@triton.jit
@no_type_check
def step(neighbour, cells, depth, height, width, NUM_NEIGHBOURS: tl.constexpr):
    """Return how many positions on the neighbour of that number lies, and for which cells of a map it is in the grid.

    The 26 neighbours of a cell and the cell itself are the numbers 0 to 26 in base 3, a digit per axis; a grid of fewer
    axes has those around 13, the cell.
    """
    code = 13 - NUM_NEIGHBOURS // 2 + neighbour + neighbour // (NUM_NEIGHBOURS // 2)  # leaps over the cell
    up, down, right = code // 9 - 1, code // 3 % 3 - 1, code % 3 - 1
    z, y, x = cells // (height * width) + up, cells // width % height + down, cells % width + right
    is_inside = (z >= 0) & (z < depth) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return ((up * height + down) * width + right).to(tl.int64), is_inside


@triton.jit
@no_type_check
def has_doubt(is_rough, positions, cells, mask, depth, height, width, NUM_NEIGHBOURS: tl.constexpr):
    """Return which of the masked cells, or one of whose neighbours, is not yet marked."""
    # Other programs may be marking: a mark that comes too late to be seen costs time, nothing else.
    marks = tl.load(is_rough + positions, mask=mask, other=1)
    for neighbour in range(NUM_NEIGHBOURS):
        shift, is_inside = step(neighbour, cells, depth, height, width, NUM_NEIGHBOURS)
        marks = marks & tl.load(is_rough + positions + shift, mask=mask & is_inside, other=1)
    return marks == 0
