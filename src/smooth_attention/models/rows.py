"""What a block's attention looks like: the gate and the rows that it uses, under its own rule or another one.

Shape suffixes: ``B`` batch, ``M`` heads, ``N`` positions, ``P`` chosen positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smooth_attention import ops
from smooth_attention.models.blocks import SmoothAttention
from smooth_attention.models.controls import RandomSmoothAttention
from smooth_attention.ops.checks import check_rule

__all__ = ["Rule", "block_rule", "describe_rule", "used_gate", "used_rows"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which positions are smoothed, instead of those of the rule that a network was trained with.

    Attributes:
        threshold: smooth where the roughness exceeds this.
        fraction: smooth the roughest share instead. Neither: smooth none.

    Raises:
        OptionError: where both are given, or a value is not allowed.
    """

    threshold: float | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        check_rule(self.threshold, self.fraction)

    def describe(self) -> str:
        if self.fraction is not None:
            return f"fraction {self.fraction:g}"
        if self.threshold is None:
            return "no smoothing"
        return "every position" if self.threshold < 0 else f"threshold {self.threshold:g}"


def describe_rule(block: SmoothAttention, rule: Rule | None) -> str:
    """Say in a few words which positions ``block`` smooths under ``rule``, None being its own."""
    if rule is not None:
        text = rule.describe()
    elif block.soft_threshold is not None:
        text = f"soft gate from threshold {block.threshold:g}, temperature {block.temperature:g}"
    else:
        text = Rule(block.threshold, block.fraction).describe()
    return f"{text}, at random places" if isinstance(block, RandomSmoothAttention) else text


@contextmanager
def block_rule(net: nn.Module, rule: Rule | None) -> Iterator[None]:
    """Let every attention of ``net`` smooth by ``rule`` inside the context; None leaves each its own.

    The weights stay as they are; a soft gate becomes a step.
    """
    blocks = [module for module in net.modules() if isinstance(module, SmoothAttention)] if rule is not None else []
    before = [(block.threshold, block.fraction, block.soft_threshold) for block in blocks]
    try:
        for block in blocks:
            assert rule is not None
            block.threshold, block.fraction, block.soft_threshold = rule.threshold, rule.fraction, None
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            block.threshold, block.fraction, block.soft_threshold = old


def used_gate(
    block: SmoothAttention, query: Tensor, key: Tensor, grid: tuple[int, ...], rule: Rule | None = None
) -> Tensor:
    """Return by how much the block smooths each position, (B, M, N): False or True, of a soft gate a share.

    Args:
        block: in the mode in which it is used.
        query: (B, M, N, E), as :meth:`SmoothAttention.project` returns it.
        key: (B, M, N, E).
        grid: of the positions.
        rule: instead of the block's own.
    """
    if block.mode == "gate_off":
        return torch.zeros_like(query[..., 0], dtype=torch.bool)
    if rule is None and block.soft_threshold is not None:
        threshold_M1, temperature_M1 = block.soft_rule(query.dtype)
        return ((ops.roughness(query, key, grid=grid, scale=block.scale) - threshold_M1) / temperature_M1).sigmoid()
    own = Rule(block.threshold, block.fraction) if rule is None else rule
    gate_BMN = ops.smoothing_gate(
        query, key, grid=grid, threshold=own.threshold, fraction=own.fraction, scale=block.scale, backend=block.backend
    )
    return gate_BMN.gather(-1, block.places(gate_BMN)) if isinstance(block, RandomSmoothAttention) else gate_BMN


def used_rows(
    block: SmoothAttention, query: Tensor, key: Tensor, positions: Tensor, grid: tuple[int, ...], gate: Tensor
) -> tuple[Tensor, Tensor]:
    """Return rows of attention (B, M, P, N) as the block uses them under ``gate``, and before smoothing.

    Args:
        block: whose rows.
        query: (B, M, N, E), as :meth:`SmoothAttention.project` returns it.
        key: (B, M, N, E).
        positions: (P,), flat indices into the grid.
        grid: of the positions.
        gate: (B, M, N), what :func:`used_gate` returns.
    """
    plain_BMPN = ops.attention_rows(query, key, positions, grid=grid, scale=block.scale)
    mean_BMPN = ops.attention_rows(query, key, positions, grid=grid, threshold=-1.0, scale=block.scale)
    return plain_BMPN.lerp(mean_BMPN, gate[..., positions, None].to(plain_BMPN.dtype)), plain_BMPN
