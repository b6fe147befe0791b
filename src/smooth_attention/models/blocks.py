"""The attention block, and what every block has: modules that keep the shape of a feature map.

Shape suffixes: ``B`` batch, ``M`` heads, ``N`` positions, ``E`` width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from smooth_attention import ops
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.ops.checks import check_rule

Mode = Literal["on", "gate_off", "bypass"]
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Block(nn.Module):
    """A residual block ``y = x + gamma * f(x)`` on a feature map; every arm of a comparison is one.

    Attributes:
        gamma: learned scalar of shape (1,); at 0 the block is the identity.
        mode: ``"on"``; ``"gate_off"`` leaves out the smoothing; ``"bypass"`` leaves out the whole block.
            For evaluation, see :func:`block_mode`.
    """

    gamma: nn.Parameter

    def __init__(self, gamma_init: float = 0.0) -> None:
        super().__init__()
        self.mode: Mode = "on"
        self.gamma = nn.Parameter(torch.full((1,), float(gamma_init)))

    def update(self, x: Tensor) -> Tensor:
        """Return ``f(x)``, in the shape of ``x``."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
        if self.mode == "bypass":
            return x
        return self.gamma.to(x.dtype) * self.update(x) + x


class SmoothAttention(Block):
    r"""Attention over the positions of a feature map whose rough rows take the mean of their neighbours' rows.

    :math:`y = \gamma\,(A' v) + x`, with :math:`A'` the smoothed attention of
    :func:`smooth_attention.smooth_attention`. With neither ``threshold`` nor ``fraction``: plain attention.

    Projections, logits and gate are computed in float32 under autocast.

    Args:
        channels: channels C of the feature map.
        threshold: a position is smoothed where its roughness exceeds this, 0-1 in practice; lower smooths more.
        fraction: smooth the roughest share of the positions of each map instead, in (0, 1).
        ndim: axes of the grid, 1-3.
        heads: number of heads; not built yet beyond 1.
        head_dim: width of a head; ``None`` means ``channels // heads``; not built yet otherwise.
        scale: logit multiplier; ``None`` means ``head_dim ** -0.5``; the published module has 1.0.
        logits: ``"dot"``; ``"cosine"`` is not built yet.
        temperature: ``None`` for the step gate; a soft gate is not built yet.
        gamma_init: where ``gamma`` starts; 0 makes the block the identity until training moves it.
        backend: how the gate is found, see :func:`smooth_attention.smoothing_gate`.

    Raises:
        OptionError: on values outside those ranges.
        NotImplementedError: naming the option that is not built yet.

    Reference:
        Smooth Attention (preprint 202409.1283), method; there ``scale=1.0`` and one head. Parameter names are
        the published ones, so a published state dict loads strictly.

    Example:
        >>> import torch, smooth_attention as sa
        >>> sa.SmoothAttention(8, threshold=0.4)(torch.randn(2, 8, 7, 7)).shape
        torch.Size([2, 8, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        *,
        threshold: float | None = None,
        fraction: float | None = None,
        ndim: int = 2,
        heads: int = 1,
        head_dim: int | None = None,
        scale: float | None = None,
        logits: str = "dot",
        temperature: float | None = None,
        gamma_init: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__(gamma_init)
        if channels < 1:
            raise OptionError(f"SmoothAttention needs at least one channel, got {channels=}; pass the feature map's")
        if ndim not in CONVOLUTIONS:
            raise OptionError(f"SmoothAttention works on grids of 1, 2 or 3 axes, got {ndim=}; pass one of those")
        refuse_unbuilt(heads=(heads, 1), head_dim=(head_dim, None), logits=(logits, "dot"))
        refuse_unbuilt(temperature=(temperature, None))
        check_rule(threshold, fraction)
        self.threshold, self.fraction, self.scale, self.backend = threshold, fraction, scale, backend
        self.query, self.key, self.value = (CONVOLUTIONS[ndim](channels, channels, 1) for _ in range(3))

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, fraction={self.fraction}, scale={self.scale}"

    def project(self, x: Float[Tensor, "b c *grid"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value of shape (B, N, C), at least in float32."""
        if x.ndim != self.query.weight.ndim:
            raise ShapeError(
                f"SmoothAttention needs (B, C, *grid) with {self.query.weight.ndim - 2} grid axes, got {x.shape=}; "
                "add the batch axis or set ndim"
            )
        wide = torch.promote_types(torch.promote_types(x.dtype, self.query.weight.dtype), torch.float32)
        x_BNC = x.flatten(2).mT.to(wide)
        with torch.autocast(x.device.type, enabled=False):  # a 1x1 convolution is a linear map of the channels
            query_BNE, key_BNE, value_BNE = (
                F.linear(x_BNC, conv.weight.flatten(1).to(wide), None if conv.bias is None else conv.bias.to(wide))
                for conv in (self.query, self.key, self.value)
            )
        return query_BNE, key_BNE, value_BNE

    def attend(self, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return ``A' v`` of shape (B, N, C); arms differ here."""
        if self.mode == "gate_off":
            return ops.smooth_attention(query, key, value, grid=grid, scale=self.scale)
        return ops.smooth_attention(
            query,
            key,
            value,
            grid=grid,
            threshold=self.threshold,
            fraction=self.fraction,
            scale=self.scale,
            backend=self.backend,
        )

    def update(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x)
        with torch.autocast(x.device.type, enabled=False):
            out_BNE = self.attend(query, key, value, tuple(x.shape[2:]))
        return out_BNE.mT.reshape(x.shape).to(x.dtype)


@contextmanager
def block_mode(net: nn.Module, mode: Mode) -> Iterator[None]:
    """Run every block of ``net`` in ``mode`` inside the context: the same weights without gate, or without block.

    Raises:
        OptionError: on an unknown mode.
    """
    if mode not in get_args(Mode):
        raise OptionError(f"a block's mode is one of {', '.join(get_args(Mode))}, got {mode!r}")
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    before = [block.mode for block in blocks]
    try:
        for block in blocks:
            block.mode = mode
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            block.mode = old


def refuse_unbuilt(**options: tuple[object, object]) -> None:
    """Raise NotImplementedError for the first option whose value is not the only one built so far."""
    for name, (value, built) in options.items():
        if value != built:
            raise NotImplementedError(f"SmoothAttention's {name}={value!r} is not built yet; leave it at {built!r}")
