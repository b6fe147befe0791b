"""Blocks that a comparison needs beside the attention block: what else could have brought the gain.

Shape suffixes: ``B`` batch, ``N`` positions, ``E`` width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from smooth_attention import ops
from smooth_attention.core.errors import ShapeError
from smooth_attention.models.blocks import Block, SmoothAttention


class RandomSmoothAttention(SmoothAttention):
    """The control for the rule: smooths as many positions as the gate would, but at random places.

    In training the places come from torch's global generator; in evaluation from a fixed permutation of the grid,
    so that a prediction depends on nothing but its image.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, ...]) -> Tensor:
        out_BNE = ops.smooth_attention(query, key, value, grid=grid, scale=self.scale)
        if self.mode == "gate_off":
            return out_BNE
        gate_BN = ops.smoothing_gate(
            query, key, grid=grid, threshold=self.threshold, fraction=self.fraction, scale=self.scale,
            backend=self.backend,
        )  # fmt: skip
        gate_BN = gate_BN.gather(-1, self.places(gate_BN))
        return torch.where(gate_BN[..., None], ops.neighbour_mean(out_BNE, grid=grid), out_BNE)

    def places(self, gate: Tensor) -> Tensor:
        if self.training:
            return torch.rand(gate.shape).argsort(dim=-1).to(gate.device)
        fixed = torch.Generator().manual_seed(gate.shape[-1])
        return torch.randperm(gate.shape[-1], generator=fixed).to(gate.device).expand(gate.shape)


class BoxBlur(Block):
    """The control for attention: the features move towards their 3x3 box mean (replicate border).

    ``y = x + gamma * (box(x) - x)``.
    """

    def __init__(self, channels: int, *, gamma_init: float = 0.0) -> None:
        super().__init__(gamma_init)
        self.channels = channels

    def update(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ShapeError(f"BoxBlur needs (B, {self.channels}, H, W), got {tuple(x.shape)}; set its channels")
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1) - x
