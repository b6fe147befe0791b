"""The attention block, and what every block has: modules that keep the shape of a feature map.

Shape suffixes: ``B`` batch, ``C`` channels, ``M`` heads, ``N`` positions, ``E`` width of a head's query and key, ``Ev``
of its value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from smooth_attention import ops
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models.projections import PROJECTIONS
from smooth_attention.ops.checks import check_rule, check_scale
from smooth_attention.ops.precision import autocast_off

__all__ = ["Block", "Mode", "SmoothAttention", "Switchable", "block_mode", "evaluation_mode"]

Mode = Literal["on", "gate_off", "bypass"]
Logits = Literal["dot", "cosine"]
COSINE_SCALE, MAX_COSINE_SCALE = 10.0, 100.0
# a shorter vector is not stretched to length 1; F.normalize's own 1e-12 would let gradients grow a millionfold more
MIN_NORM = 1e-6


class Switchable(nn.Module):
    """A part of a network that can be left out of it, to see what it does.

    Attributes:
        mode: ``"on"``; ``"gate_off"`` leaves out the smoothing; ``"bypass"`` leaves out the whole part.
            For evaluation, see :func:`block_mode`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mode: Mode = "on"


class Block(Switchable):
    """A residual block ``y = x + gamma * f(x)`` on a feature map; every arm with a block has one.

    Attributes:
        gamma: learned scalar of shape (1,); at 0 the block is the identity.
    """

    gamma: nn.Parameter

    def __init__(self, gamma_init: float = 0.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1,), float(gamma_init)))

    def update(self, x: Tensor) -> Tensor:
        """Return ``f(x)``, in the shape of ``x``."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
        if self.mode == "bypass":
            return x
        return x + self.gamma.to(x.dtype) * self.update(x)  # x first: its memory layout is the output's


class SmoothAttention(Block):
    r"""Attention over the positions of a feature map whose rough rows take the mean of their neighbours' rows.

    :math:`y = \gamma\,(A' v) + x`, with :math:`A'` the smoothed attention of
    :func:`smooth_attention.smooth_attention`. With neither ``threshold`` nor ``fraction``: plain attention.

    Each head attends for itself, through its own gate, and fills ``channels // heads`` channels of the update.
    Projections, logits and gate are computed in float32 under autocast. In a ``half()`` network the projections are
    half, logits and gate float32. The projections are called as modules, so what wraps, hooks or replaces them acts.

    Args:
        channels: channels C of the feature map.
        threshold: a position is smoothed where its roughness exceeds this, 0-1 in practice; lower smooths more.
        fraction: smooth the roughest share of the positions of each map instead, in (0, 1).
        ndim: axes of the grid, 1-3.
        heads: number of heads M, a divisor of ``channels``.
        head_dim: width E of a head's query and key; ``None`` means ``channels // heads``, the width of its value.
        scale: logit multiplier; ``None`` means ``head_dim ** -0.5``; the published module has 1.0. With cosine logits
            where the learned multiplier starts, in (0, 100]; ``None`` means 10.
        logits: ``"dot"``, or ``"cosine"``: query and key have length 1 and ``logit_scale`` is learned.
        temperature: ``None`` for the step gate; a positive number for the gate
            ``sigmoid((roughness - threshold) / temperature)``, where both start as given and are learned.
        gamma_init: where ``gamma`` starts; 0 makes the block the identity until training moves it.
        backend: how the gate is found, see :func:`smooth_attention.smoothing_gate`.

    Attributes:
        query, key, value: 1x1 convolutions to ``heads * head_dim``, as many, and C channels, head by head.
        scale: what the operator multiplies the products of :meth:`project` with; 1.0 for cosine logits, whose
            multiplier is in the query.
        logit_scale: (M,), with cosine logits alone: logarithm of the multiplier, which is held at 100 above that.
        soft_threshold: (M,), with a temperature alone; ``threshold`` stays where it started.
        log_temperature: (M,), with a temperature alone: its logarithm.

    Raises:
        OptionError: on values outside those ranges, and on a temperature without threshold.

    Reference:
        Smooth Attention (preprint 202409.1283), method; there ``scale=1.0`` and one head. Parameter names are
        the published ones, so a published state dict loads strictly.

    Example:
        >>> import torch, smooth_attention as sa
        >>> sa.SmoothAttention(8, threshold=0.4)(torch.randn(2, 8, 7, 7)).shape
        torch.Size([2, 8, 7, 7])
    """

    logit_scale: nn.Parameter | None
    soft_threshold: nn.Parameter | None
    log_temperature: nn.Parameter | None

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
        if ndim not in PROJECTIONS:
            raise OptionError(f"SmoothAttention works on grids of 1, 2 or 3 axes, got {ndim=}; pass one of those")
        check_heads(channels, heads, head_dim)
        check_rule(threshold, fraction)
        check_logits(logits, scale)
        self.threshold, self.fraction, self.temperature, self.backend = threshold, fraction, temperature, backend
        self.ndim, self.channels = ndim, channels
        self.heads, self.head_dim = heads, channels // heads if head_dim is None else head_dim
        self.logits, self.scale = logits, 1.0 if logits == "cosine" else scale
        width = self.heads * self.head_dim
        self.query, self.key, self.value = (PROJECTIONS[ndim](channels, out, 1) for out in (width, width, channels))
        self.logit_scale = self.soft_threshold = self.log_temperature = None
        if logits == "cosine":
            self.logit_scale = per_head(heads, math.log(COSINE_SCALE if scale is None else scale))
        if temperature is not None:
            self.add_soft_gate(temperature)

    def add_soft_gate(self, temperature: float) -> None:
        """Let the gate be a sigmoid, with what it learns."""
        check_soft_gate(self.threshold, self.fraction, temperature)
        assert self.threshold is not None
        self.soft_threshold = per_head(self.heads, self.threshold)
        self.log_temperature = per_head(self.heads, math.log(temperature))

    def extra_repr(self) -> str:
        shown = {"threshold": self.threshold, "fraction": self.fraction, "scale": self.scale}
        usual = {"heads": 1, "head_dim": self.channels // self.heads, "logits": "dot", "temperature": None}
        shown |= {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def project(self, x: Float[Tensor, "b c *grid"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return query and key of shape (B, M, N, E) and value of shape (B, M, N, Ev), at least in float32.

        Their logits are ``scale * query @ key.mT``, whatever the kind of logits.
        """
        if x.ndim != self.ndim + 2:
            raise ShapeError(
                f"SmoothAttention needs (B, C, *grid) with {self.ndim} grid axes, got {x.shape=}; "
                "add the batch axis or set ndim"
            )
        x = x.to(torch.promote_types(x.dtype, self.gamma.dtype))  # a projection's own weight may be wrapped or sharded
        x = x.view_as(x)  # its gradients are summed before that of the residual joins them: training keeps its bits
        wide = torch.promote_types(x.dtype, torch.float32)
        with autocast_off(x.device):
            query_BMNE, key_BMNE, value_BMNE = (
                module(x).flatten(2).transpose(1, 2).to(wide).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for module in (self.query, self.key, self.value)
            )
            if self.logit_scale is not None:
                query_BMNE, key_BMNE = (F.normalize(t, dim=-1, eps=MIN_NORM) for t in (query_BMNE, key_BMNE))
                # clamped before exp: an infinite multiplier would have the gradient NaN
                multiplier_M = self.logit_scale.to(wide).clamp(max=math.log(MAX_COSINE_SCALE)).exp()
                query_BMNE = query_BMNE * multiplier_M[:, None, None]
        return query_BMNE, key_BMNE, value_BMNE

    def soft_rule(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return threshold and temperature of the soft gate, (M, 1) each, as training has left them."""
        assert self.soft_threshold is not None
        assert self.log_temperature is not None
        return self.soft_threshold.to(dtype)[:, None], self.log_temperature.to(dtype).exp()[:, None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return ``A' v`` of shape (B, M, N, Ev); arms differ here."""
        if self.mode == "gate_off":
            return ops.smooth_attention(query, key, value, grid=grid, scale=self.scale)
        threshold: float | Tensor | None = self.threshold
        temperature: Tensor | None = None
        if self.soft_threshold is not None:
            threshold, temperature = self.soft_rule(query.dtype)
        return ops.smooth_attention(
            query,
            key,
            value,
            grid=grid,
            threshold=threshold,
            fraction=self.fraction,
            temperature=temperature,
            scale=self.scale,
            backend=self.backend,
        )

    def update(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x)
        with autocast_off(x.device):
            out_BMNEv = self.attend(query, key, value, tuple(x.shape[2:]))
        return out_BMNEv.transpose(2, 3).reshape(x.shape).to(x.dtype)


@contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Run ``net`` in evaluation mode inside the context; after it every module is in its own mode again."""
    modes = {module: module.training for module in net.modules()}
    try:
        net.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def block_mode(net: nn.Module, mode: Mode) -> Iterator[None]:
    """Run what ``net`` can switch in ``mode`` inside the context: the same weights without gate, or without block.

    Raises:
        OptionError: on an unknown mode.
    """
    if mode not in get_args(Mode):
        raise OptionError(f"a block's mode is one of {', '.join(get_args(Mode))}, got {mode!r}")
    blocks = [module for module in net.modules() if isinstance(module, Switchable)]
    before = [block.mode for block in blocks]
    try:
        for block in blocks:
            block.mode = mode
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            block.mode = old


def per_head(heads: int, start: float) -> nn.Parameter:
    """Return a learned number of each head, all of which start the same."""
    return nn.Parameter(torch.full((heads,), float(start)))


def check_heads(channels: int, heads: int, head_dim: int | None) -> None:
    """Raise unless the heads share out the channels and have a width."""
    if heads < 1:
        raise OptionError(f"SmoothAttention needs at least one head, got {heads=}; leave it at 1")
    if channels % heads:
        divisor = max(number for number in range(1, heads) if channels % number == 0)
        raise OptionError(
            f"SmoothAttention shares the channels out to the heads, got {channels=} and {heads=}; "
            f"take a divisor of {channels}, such as {divisor}"
        )
    if head_dim is not None and head_dim < 1:
        raise OptionError(
            f"a head needs a width of at least 1, got {head_dim=}; use None for channels // heads = {channels // heads}"
        )


def check_logits(logits: str, scale: float | None) -> None:
    """Raise unless the logits are of a known kind and the scale fits them."""
    check_scale(scale)
    if logits not in get_args(Logits):
        raise OptionError(f"logits are one of {', '.join(get_args(Logits))}, got {logits!r}")
    if logits == "cosine" and scale is not None and not 0 < scale <= MAX_COSINE_SCALE:
        raise OptionError(
            f"the multiplier of cosine logits starts above 0 and at most at {MAX_COSINE_SCALE:g}, got {scale=}; "
            f"use None for {COSINE_SCALE:g}"
        )


def check_soft_gate(threshold: float | None, fraction: float | None, temperature: float) -> None:
    """Raise unless a sigmoid of that temperature can stand at the threshold."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise OptionError(f"temperature needs to be positive and finite, got {temperature=}; use None for a step")
    if fraction is not None:
        raise OptionError(
            f"temperature and fraction exclude each other, got {temperature=} and {fraction=}; give a threshold instead"
        )
    if threshold is None or not math.isfinite(threshold):
        raise OptionError(f"temperature needs a finite threshold, got {temperature=} and {threshold=}; give one")
