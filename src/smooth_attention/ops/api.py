"""The five public doors of the operator: check once, choose, compute.

Shapes: `B` leading dimensions, `N` query positions (the flattened grid), `S` keys, `P` chosen positions, `E` width of
query and key, `Ev` of value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from smooth_attention.core.grids import check_grid, neighbour_offsets
from smooth_attention.ops.attend import attend
from smooth_attention.ops.checks import (
    broadcast_batch,
    check_floating,
    check_gate_shape,
    check_positions,
    check_rule,
    check_scale,
    check_tensors,
    is_readable,
)
from smooth_attention.ops.dense import compute_attention, compute_roughness, dense_gate
from smooth_attention.ops.dispatch import check_backend_name, choose_backend, find_gate, traced_gate
from smooth_attention.ops.gates import always_smooths, closed_gate, never_smooths, open_gate
from smooth_attention.ops.graphs import is_exported
from smooth_attention.ops.neighbours import average_neighbours, shift_positions
from smooth_attention.ops.precision import autocast_off
from smooth_attention.ops.strips import measure_roughness

__all__ = ["attention_rows", "explain_backend", "neighbour_mean", "roughness", "smooth_attention", "smoothing_gate"]


class CheckedRule(NamedTuple):
    """Which positions are smoothed, checked: the keyword arguments of a backend."""

    grid: tuple[int, ...]
    threshold: float | None
    fraction: float | None
    scale: float

    def decides_alone(self) -> bool:
        """Return whether the gate needs no logits."""
        return self.never_smooths() or always_smooths(threshold=self.threshold)

    def never_smooths(self) -> bool:
        return never_smooths(math.prod(self.grid), threshold=self.threshold, fraction=self.fraction)


def smooth_attention(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    value: Float[Tensor, "... s v"],
    *,
    grid: Sequence[int],
    threshold: float | Tensor | None = None,
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
    of A themselves. The gate is piecewise constant: no gradient passes through it, unless ``temperature`` makes it
    :math:`m = \sigma((r - \text{threshold}) / \text{temperature})`.

    Memory grows with N + S. Exported graphs (torch.export, torch.onnx.export, torch.jit.trace) hold plain operators
    only, and with them the N x S matrix.

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
        temperature: width of a soft gate, above 0; ``None`` is the step. A soft gate needs a ``threshold`` and is
            differentiable in query, key, threshold and temperature; both may then be Tensors that broadcast against
            (..., N), say (heads, 1).
        scale: logit multiplier. ``None`` means ``E ** -0.5``; ``0.0`` is legal; the paper's is ``1.0``.
        backend: how a step gate is found, by name such as ``"tiled"``; ``"auto"`` takes the fastest that can run, see
            :func:`~smooth_attention.ops.explain_backend`.

    Returns:
        Dtype and device of ``query``, also under autocast: the operator computes in the dtype it is given, the gate in
        float32 at least. Where a row of A holds NaN so does the output, and that position and its neighbours are not
        smoothed. An infinite key counts as a NaN for ``threshold < 0``, which is decided without logits.

    Raises:
        ShapeError: shapes do not fit each other or the grid.
        OptionError: dtypes or devices differ, or an option has a value that is not allowed.
        BackendError: no such backend, or it can't run this call; the message says why.

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
    check_scale(scale)
    check_backend_name(backend)
    check_rule(threshold, fraction, temperature)
    scale = scale_of(query, scale)
    if threshold is not None and temperature is not None:
        return smooth_softly(query, key, value, sizes, scale, threshold, temperature)
    assert not isinstance(threshold, Tensor)
    rule = CheckedRule(sizes, threshold, fraction, scale)
    output, lse = attend(query, key, value, scale=scale, with_lse=not rule.decides_alone())
    if rule.never_smooths():
        return output
    gate = gate_of(query, key, rule, backend, lse)
    if is_readable(gate) and not gate.any():
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
        BackendError: no such backend, or it can't run this call; the message says why.

    Reference:
        Preprint 202409.1283; ``fraction`` is ours.

    Example:
        >>> import torch
        >>> from smooth_attention.ops import smoothing_gate
        >>> query, key = torch.randn(2, 49, 16).unbind()
        >>> int(smoothing_gate(query, key, grid=(7, 7), fraction=0.25).sum())
        12
    """
    rule = checked_rule(query, key, grid, threshold, fraction, scale)
    check_backend_name(backend)
    return gate_of(query, key, rule, backend)


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
        difference, one of them where several are largest. NaN where the position's own or a neighbour's row is NaN.

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
    rule = checked_rule(query, key, grid, None, None, scale)
    return roughness_of(query, key, rule.grid, rule.scale).to(query.dtype)


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
    rule = checked_rule(query, key, grid, threshold, fraction, scale)
    check_positions(positions, query.shape[-2])
    positions = positions.to(query.device, torch.long)
    rows_BPS = compute_attention(query[..., positions, :], key, rule.scale)
    if rule.never_smooths():
        return rows_BPS.to(query.dtype)
    offsets = neighbour_offsets(len(rule.grid))
    total_BPS = torch.zeros_like(rows_BPS)
    roughness_BP = torch.zeros_like(rows_BPS[..., 0])
    for offset in offsets:
        neighbours_BPS = compute_attention(
            query[..., shift_positions(positions, offset, rule.grid), :], key, rule.scale
        )
        total_BPS = total_BPS + neighbours_BPS
        roughness_BP = roughness_BP.maximum((neighbours_BPS - rows_BPS).detach().abs().amax(-1))
    is_smoothed = gate_of(query, key, rule)[..., positions] if threshold is None else roughness_BP > threshold
    return torch.where(is_smoothed.unsqueeze(-1), total_BPS / len(offsets), rows_BPS).to(query.dtype)


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


def explain_backend(
    query: Float[Tensor, "... n e"],
    key: Float[Tensor, "... s e"],
    *,
    grid: Sequence[int],
    threshold: float | None = None,
    fraction: float | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> str:
    """Say which backend finds the gate of such a call, and why those before it were passed over.

    Args:
        query: as in :func:`smoothing_gate`, like all that follow.
        key: any set of keys.
        grid: spatial shape of the query positions.
        threshold: as in :func:`smooth_attention`.
        fraction: as in :func:`smooth_attention`.
        scale: logit multiplier.
        backend: ``"auto"`` or a name.

    Returns:
        The name of the backend with the reasons in brackets, or that no logits are needed.

    Raises:
        ShapeError: shapes do not fit each other or the grid.
        OptionError: dtypes or devices differ, or an option has a value that is not allowed.
        BackendError: no such backend, or it can't run this call.

    Reference:
        Ours.

    Example:
        >>> import torch
        >>> from smooth_attention.ops import explain_backend
        >>> explain_backend(torch.randn(49, 16), torch.randn(49, 16), grid=(7, 7), threshold=0.4)
        "dense (triton: Triton's gate needs CUDA tensors, these are on cpu)"
    """
    rule = checked_rule(query, key, grid, threshold, fraction, scale)
    check_backend_name(backend)
    if rule.decides_alone():
        return "none: this rule needs no logits"
    query, key = fold_maps(query, key)
    return str(choose_backend(backend, query, key, **rule._asdict()))


def checked_rule(
    query: Tensor,
    key: Tensor,
    grid: Sequence[int],
    threshold: float | None,
    fraction: float | None,
    scale: float | None,
) -> CheckedRule:
    """Return the rule of a call without value, once everything in it is known to fit."""
    sizes = check_tensors(grid, query, key)
    check_rule(threshold, fraction)
    check_scale(scale)
    return CheckedRule(sizes, threshold, fraction, scale_of(query, scale))


def scale_of(query: Tensor, scale: float | None) -> float:
    return query.shape[-1] ** -0.5 if scale is None else scale


def gate_of(
    query: Tensor, key: Tensor, rule: CheckedRule, backend: str = "auto", lse: Tensor | None = None
) -> Bool[Tensor, "... n"]:
    """Return the gate, without logits where the rule alone decides; lse spares a backend that can use it a pass."""
    query, key = query.detach(), key.detach()
    if rule.never_smooths():
        return closed_gate(query, key)
    if rule.decides_alone():
        return open_gate(query, key, rule.grid)
    if is_exported():
        return dense_gate(query, key, **rule._asdict())
    batch = broadcast_batch(query, key)
    query, key = fold_maps(query, key)
    if lse is not None:  # a value with more leading dimensions than query and key repeats it
        lse = lse.reshape(query.shape[:-1]) if lse.shape[:-1] == batch else None
    with autocast_off(query.device):
        # An operator of torch can be traced; the function behind it starts sooner.
        find = find_gate if is_readable(query) else traced_gate
        gate = find(query, key, lse, list(rule.grid), rule.threshold, rule.fraction, rule.scale, backend)
    return gate.reshape(*batch, query.shape[-2])


def roughness_of(query: Tensor, key: Tensor, grid: tuple[int, ...], scale: float) -> Float[Tensor, "... n"]:
    """Return the roughness, differentiable, in float32 at least."""
    if is_exported():
        return compute_roughness(compute_attention(query, key, scale), grid)
    batch = broadcast_batch(query, key)
    wide = torch.promote_types(query.dtype, torch.float32)
    query, key = (x.to(wide) for x in fold_maps(query, key))
    with autocast_off(query.device):
        return measure_roughness(query * scale, key, grid).reshape(*batch, query.shape[-2])


def fold_maps(query: Tensor, key: Tensor) -> tuple[Float[Tensor, "b n e"], Float[Tensor, "b s e"]]:
    """Return query and key with their leading dimensions broadcast and folded to one, contiguous."""
    batch = broadcast_batch(query, key)
    query, key = (
        x.expand(*batch, *x.shape[-2:]).reshape(math.prod(batch), *x.shape[-2:]).contiguous() for x in (query, key)
    )
    return query, key


def smooth_softly(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: tuple[int, ...],
    scale: float,
    threshold: float | Tensor,
    temperature: float | Tensor,
) -> Float[Tensor, "... n v"]:
    """Return the output of a gate that is a sigmoid of the roughness; rows of NaN leave their neighbours alone."""
    roughness = roughness_of(query, key, grid, scale)
    check_gate_shape(roughness.shape, threshold=threshold, temperature=temperature)
    output, _ = attend(query, key, value, scale=scale)
    has_rows = ~roughness.isnan()
    gate = torch.sigmoid((torch.where(has_rows, roughness, 0.0) - threshold) / temperature)
    weight = torch.where(has_rows, gate, 0.0).unsqueeze(-1)
    wide = output.to(weight.dtype)
    mean = torch.where(has_rows.unsqueeze(-1), average_neighbours(wide, grid), wide)
    return torch.lerp(wide, mean, weight).to(output.dtype)
