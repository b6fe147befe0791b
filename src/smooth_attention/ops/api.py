"""The five public doors of the operator: check once, choose, compute.

Shapes: `B` leading dimensions, `N` query positions (the flattened grid), `S` keys, `P` chosen positions, `E` width of
query and key, `Ev` of value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from smooth_attention.core.grids import check_grid, neighbour_offsets
from smooth_attention.ops.checks import check_floating, check_positions, check_rule, check_scale, check_tensors
from smooth_attention.ops.dense import compute_roughness
from smooth_attention.ops.dispatch import choose_backend
from smooth_attention.ops.gates import always_smooths, closed_gate, find_nan_rows, never_smooths, open_gate
from smooth_attention.ops.neighbours import average_neighbours, shift_positions
from smooth_attention.ops.reference import autocast_off, compute_attention


def smooth_attention(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    value: Float[Tensor, "... s v"],
    *,
    grid: Sequence[int],
    threshold: float | None = None,
    fraction: float | None = None,
    temperature: float | Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Float[Tensor, "... n v"]:
    r"""Attention whose output is averaged over spatial neighbours where the attention is rough.

    With :math:`A = \mathrm{softmax}(\text{scale}\; q k^\top)` and :math:`O = A v`, the result is
    :math:`(1 - m) O + m\, \mathrm{mean}(O)`. The mean runs over the 3^d - 1 spatial neighbours of a position, itself
    left out; beyond the border stands a copy of the border cell. The gate m is 1 where the largest change of A between
    a position and one of its neighbours exceeds ``threshold`` (see :func:`roughness`). That equals smoothing the rows
    of A themselves. The gate is piecewise constant: no gradient passes through it.

    Args:
        query: one row per grid cell, flattened row by row.
        key: any set of keys, not only the grid's.
        value: one row per key. Leading dimensions broadcast as in
            :func:`torch.nn.functional.scaled_dot_product_attention`.
        grid: spatial shape of the query positions: ``(W,)``, ``(H, W)`` or ``(D, H, W)``. ``(1, W)`` is not ``(W,)``:
            its padded rows are copies, so the mean holds the cell itself.
        threshold: roughness above which a position is smoothed, strictly. Lower means more smoothing: 1 or more smooths
            none, below 0 smooths all. ``None``, and no ``fraction``: plain attention.
        fraction: smooth this share of each map instead, the roughest ``round(fraction * N)`` positions (the lower
            position first where they are equally rough); between 0 and 1, both excluded.
        temperature: reserved for a gate that is a sigmoid; only ``None``, the step, is built.
        scale: logit multiplier. ``None`` means ``E ** -0.5``; ``0.0`` is legal; the paper's is ``1.0``.
        backend: how the gate is computed: ``"auto"``, or ``"dense"`` (by the N x S matrix).

    Returns:
        Dtype and device of ``query``, also under autocast: the operator computes in the dtype it is given, the gate in
        float32 at least. Where a row of A holds NaN so does the output, and that position and its neighbours are not
        smoothed. An infinite key counts as a NaN for ``threshold < 0``, which is decided without logits.

    Raises:
        ShapeError: shapes do not fit each other or the grid.
        OptionError: dtypes or devices differ, or an option has a value that is not allowed.
        BackendError: no such backend.
        NotImplementedError: ``temperature`` is given.

    Reference:
        "Smooth Attention: Improving Image Semantic Segmentation", preprint 202409.1283. There: one head, two axes,
        scale 1, smoothing applied to the N x N matrix. ``fraction`` is ours.

    Example:
        >>> import torch
        >>> from smooth_attention.ops import smooth_attention
        >>> query, key, value = torch.randn(3, 2, 49, 16).unbind()
        >>> smooth_attention(query, key, value, grid=(7, 7), threshold=0.1).shape
        torch.Size([2, 49, 16])
    """
    sizes = check_tensors(grid, query, key, value)
    check_rule(threshold, fraction)
    check_scale(scale)
    if temperature is not None:
        raise NotImplementedError(
            "smooth_attention builds no temperature yet, the gate is a step; leave temperature=None"
        )
    gate = _find_gate(query, key, sizes, threshold=threshold, fraction=fraction, scale=scale, backend=backend)
    output = _attend(query, key, value, scale)
    if never_smooths(query.shape[-2], threshold=threshold, fraction=fraction):
        return output
    # A product with the gate would turn 0 * NaN into NaN beside every NaN.
    return torch.where(gate.unsqueeze(-1), average_neighbours(output, sizes), output)


def smoothing_gate(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    *,
    grid: Sequence[int],
    threshold: float | None = None,
    fraction: float | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Bool[Tensor, "... n"]:
    r"""Which positions :func:`smooth_attention` smooths.

    :math:`m_i = [r_i > \text{threshold}]`, or the roughest ``fraction`` of each map.

    Args:
        query: one row per grid cell, flattened row by row.
        key: any set of keys.
        grid: spatial shape of the query positions.
        threshold: as in :func:`smooth_attention`; 1 or more, below 0 and ``None`` need no logits.
        fraction: as in :func:`smooth_attention`.
        scale: logit multiplier. ``None`` means ``E ** -0.5``.
        backend: as in :func:`smooth_attention`.

    Returns:
        Booleans without graph, computed in float32 at least. False where a position's own or a neighbour's row of
        attention holds NaN.

    Raises:
        ShapeError: shapes do not fit each other or the grid.
        OptionError: dtypes or devices differ, or an option has a value that is not allowed.
        BackendError: no such backend.

    Reference:
        Preprint 202409.1283; ``fraction`` is ours.

    Example:
        >>> import torch
        >>> from smooth_attention.ops import smoothing_gate
        >>> query, key = torch.randn(2, 49, 16).unbind()
        >>> int(smoothing_gate(query, key, grid=(7, 7), fraction=0.25).sum())
        12
    """
    sizes = check_tensors(grid, query, key)
    check_rule(threshold, fraction)
    check_scale(scale)
    return _find_gate(query, key, sizes, threshold=threshold, fraction=fraction, scale=scale, backend=backend)


def roughness(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    *,
    grid: Sequence[int],
    scale: float | None = None,
) -> Float[Tensor, "... n"]:
    r"""How much attention changes from each position to its neighbours, between 0 and 1.

    :math:`r_i = \max_n \max_s |A_{ns} - A_{is}|` over the spatial neighbours n of position i, with
    :math:`A = \mathrm{softmax}(\text{scale}\; q k^\top)`.

    Args:
        query: one row per grid cell, flattened row by row.
        key: any set of keys.
        grid: spatial shape of the query positions. A grid of one cell has roughness 0.
        scale: logit multiplier. ``None`` means ``E ** -0.5``.

    Returns:
        Dtype and device of ``query``, computed in float32 at least. Differentiable: the gradient follows the largest
        difference and is shared where several are largest. NaN where the position's own or a neighbour's row is NaN.

    Raises:
        ShapeError: shapes do not fit each other or the grid.
        OptionError: dtypes or devices differ, or the scale is not finite.

    Reference:
        Preprint 202409.1283: the Chebyshev distance of two rows. Grids of other than two axes are ours.

    Example:
        >>> import torch
        >>> from smooth_attention.ops import roughness
        >>> query, key = torch.tensor([[0.0], [0.0], [9.0]]), torch.tensor([[1.0], [-1.0]])
        >>> roughness(query, key, grid=(3,))
        tensor([0.0000, 0.5000, 0.5000])
    """
    sizes = check_tensors(grid, query, key)
    check_scale(scale)
    return compute_roughness(compute_attention(query, key, scale), sizes).to(query.dtype)


def attention_rows(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    positions: Integer[Tensor, " p"],
    *,
    grid: Sequence[int],
    threshold: float | None = None,
    fraction: float | None = None,
    scale: float | None = None,
) -> Float[Tensor, "... p s"]:
    r"""Where the chosen positions look: their rows of the attention matrix, after smoothing.

    :math:`A'_i` is the mean of the neighbours' rows where the gate is True, else :math:`A_i`. Only the rows of the
    positions and of their neighbours are computed, besides what the gate needs.

    Args:
        query: one row per grid cell, flattened row by row.
        key: any set of keys.
        positions: flat indices into the grid, counted row by row from 0; any order, repeats allowed.
        grid: spatial shape of the query positions.
        threshold: as in :func:`smooth_attention`; ``None``, and no ``fraction``: the rows before smoothing.
        fraction: as in :func:`smooth_attention`.
        scale: logit multiplier. ``None`` means ``E ** -0.5``.

    Returns:
        One row per position, each summing to 1, in dtype and on device of ``query``; differentiable in query and key.

    Raises:
        ShapeError: shapes do not fit each other or the grid, or positions has other than one axis.
        OptionError: a position lies outside the grid, dtypes or devices differ, or an option is not allowed.

    Reference:
        Preprint 202409.1283; ``fraction`` is ours.

    Example:
        >>> import torch
        >>> from smooth_attention.ops import attention_rows
        >>> query, key = torch.randn(2, 49, 16).unbind()
        >>> attention_rows(query, key, torch.tensor([24]), grid=(7, 7), threshold=0.1).shape
        torch.Size([1, 49])
    """
    sizes = check_tensors(grid, query, key)
    check_rule(threshold, fraction)
    check_scale(scale)
    check_positions(positions, query.shape[-2])
    positions = positions.to(query.device, torch.long)
    rows_BPS = compute_attention(query[..., positions, :], key, scale)
    if never_smooths(query.shape[-2], threshold=threshold, fraction=fraction):
        return rows_BPS.to(query.dtype)
    gate = _find_gate(query, key, sizes, threshold=threshold, fraction=fraction, scale=scale, backend="auto")
    offsets = neighbour_offsets(len(sizes))
    total_BPS = torch.zeros_like(rows_BPS)
    for offset in offsets:
        neighbours = shift_positions(positions, offset, sizes)
        total_BPS = total_BPS + compute_attention(query[..., neighbours, :], key, scale)
    is_smoothed = gate[..., positions].unsqueeze(-1)
    return torch.where(is_smoothed, total_BPS / len(offsets), rows_BPS).to(query.dtype)


def neighbour_mean(x: Float[Tensor, "... n e"], *, grid: Sequence[int]) -> Float[Tensor, "... n e"]:
    r"""The mean over each position's 3^d - 1 spatial neighbours, the position itself left out.

    Beyond the border stands a copy of the border cell, so a corner counts itself with weight 1/2, 3/8 or 7/26 on a grid
    of one, two or three axes, and a grid of one cell keeps its value.

    Args:
        x: one row per grid cell, flattened row by row.
        grid: spatial shape of the positions.

    Returns:
        Shape, dtype and device of ``x``; summed in float32 at least. A NaN at a position reaches its neighbours, not
        the position itself, unless the border copies it.

    Raises:
        ShapeError: x has fewer than two axes, or the grid does not hold its rows.
        OptionError: x is not floating-point.

    Reference:
        Preprint 202409.1283, with replicate padding as in its public code.

    Example:
        >>> import torch
        >>> from smooth_attention.ops import neighbour_mean
        >>> neighbour_mean(torch.tensor([[0.0], [2.0], [4.0]]), grid=(3,)).flatten()
        tensor([1., 2., 3.])
    """
    check_floating("x", x)
    return average_neighbours(x, check_grid(grid, x.shape[-2]))


@torch.no_grad()
def _find_gate(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    grid: tuple[int, ...],
    *,
    threshold: float | None,
    fraction: float | None,
    scale: float | None,
    backend: str,
) -> Bool[Tensor, "... n"]:
    """Return the gate, without logits where the rule alone decides."""
    options = {"grid": grid, "threshold": threshold, "fraction": fraction, "scale": scale}
    chosen = choose_backend(backend, query, key, **options)  # first: a wrong name is an error at every threshold
    if never_smooths(query.shape[-2], threshold=threshold, fraction=fraction):
        return closed_gate(query, key)
    if always_smooths(threshold=threshold):
        return open_gate(query, key, grid)
    return chosen.run(query, key, **options)


def _attend(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    value: Float[Tensor, "... s v"],
    scale: float | None,
) -> Float[Tensor, "... n v"]:
    """Return plain attention in the dtype of its inputs."""
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    # Fused kernels take four axes only; two leading ones stay as they are, so heads need no copy.
    folded = (math.prod(batch[:-1]), *(batch[-1:] or (1,)))
    q, k, v = (x.expand(*batch, *x.shape[-2:]).reshape(*folded, *x.shape[-2:]) for x in (query, key, value))
    with autocast_off(query.device):
        output = F.scaled_dot_product_attention(q, k, v, scale=scale)
    output = output.reshape(*batch, *output.shape[-2:])
    # The CPU's fused kernel returns 0 for a NaN row of few keys.
    return output.masked_fill(find_nan_rows(query, key).unsqueeze(-1), math.nan)
