"""Blocks that a comparison needs beside the attention block: what else could have brought the gain.

Shape suffixes: ``B`` batch, ``M`` heads, ``N`` positions, ``Ev`` width of a head's value.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from smooth_attention import ops
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models.blocks import Block, SmoothAttention
from smooth_attention.ops.graphs import is_exported

__all__ = ["BoxBlur", "RandomSmoothAttention"]


class RandomSmoothAttention(SmoothAttention):
    """The control for the rule: smooths as many positions as the gate would, but at random places.

    In training the places come from torch's global generator; in evaluation from a fixed permutation of the grid for
    each head, so that a prediction depends on nothing but its image.

    Raises:
        OptionError: as :class:`SmoothAttention`, and on any temperature; in evaluation where it is exported or traced.
    """

    def add_soft_gate(self, temperature: float) -> None:
        raise OptionError(
            f"RandomSmoothAttention smooths whole positions, a soft gate has none, got {temperature=}; leave it out"
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, ...]) -> Tensor:
        out_BMNEv = ops.smooth_attention(query, key, value, grid=grid, scale=self.scale)
        if self.mode == "gate_off":
            return out_BMNEv
        gate_BMN = ops.smoothing_gate(
            query, key, grid=grid, threshold=self.threshold, fraction=self.fraction, scale=self.scale,
            backend=self.backend,
        )  # fmt: skip
        gate_BMN = gate_BMN.gather(-1, self.places(gate_BMN))
        return torch.where(gate_BMN[..., None], ops.neighbour_mean(out_BMNEv, grid=grid), out_BMNEv)

    def places(self, gate: Tensor) -> Tensor:
        """Return a permutation of the positions for each map and head, in the shape (B, M, N) of ``gate``."""
        if self.training:
            return torch.rand(gate.shape).argsort(dim=-1).to(gate.device)
        if is_exported():  # it would go on drawing, and smooth other places at each call
            raise OptionError(
                "RandomSmoothAttention draws its places from a seed, which no exported graph can hold, got an export "
                "or a trace; export the network of another arm"
            )
        num_heads, num_positions = gate.shape[-2:]
        fixed = torch.Generator().manual_seed(num_positions)
        places_MN = torch.stack([torch.randperm(num_positions, generator=fixed) for _ in range(num_heads)])
        return places_MN.to(gate.device).expand(gate.shape)


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
