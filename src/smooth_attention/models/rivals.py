"""What others put at the block's place, or behind the network: modules of timm and SMP, a filter of the mask.

Shape suffixes: ``B`` batch, ``C`` channels, ``L`` classes, ``H W`` grid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models.blocks import Block, Switchable

__all__ = ["RIVAL_BLOCKS", "MedianFilter", "Rival"]


class Rival(Block):
    """A ready-made attention module behind the block's door: ``y = x + gamma * (module(x) - x)``.

    With ``gamma`` 1, where it starts, the module is what its library ships; with 0 it is the identity.

    Args:
        channels: channels C of the feature map (B, C, H, W).
        module: the module, of the same channels in and out.
        gamma_init: where ``gamma`` starts.
    """

    def __init__(self, channels: int, module: nn.Module, *, gamma_init: float = 1.0) -> None:
        super().__init__(gamma_init)
        self.channels, self.module = channels, module

    def update(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ShapeError(
                f"{type(self.module).__name__} needs (B, {self.channels}, H, W), got {tuple(x.shape)}; set its channels"
            )
        change: Tensor = self.module(x) - x
        return change


def squeeze_excitation(channels: int, *, reduction: int = 16, gamma_init: float = 1.0) -> Rival:
    """Return timm's squeeze-and-excitation: one weight per channel from the mean over positions."""
    from timm.layers import SEModule

    return Rival(channels, SEModule(channels, rd_ratio=1 / check_reduction(reduction)), gamma_init=gamma_init)


def cbam(channels: int, *, reduction: int = 16, gamma_init: float = 1.0) -> Rival:
    """Return timm's convolutional block attention: a weight per channel, then one per position."""
    from timm.layers.cbam import CbamModule

    return Rival(channels, CbamModule(channels, rd_ratio=1 / check_reduction(reduction)), gamma_init=gamma_init)


def global_context(channels: int, *, reduction: int = 8, gamma_init: float = 1.0) -> Rival:
    """Return timm's global-context block: one attention map for all positions."""
    from timm.layers import GlobalContext

    return Rival(channels, GlobalContext(channels, rd_ratio=1 / check_reduction(reduction)), gamma_init=gamma_init)


def non_local(channels: int, *, reduction: int = 8, gamma_init: float = 1.0) -> Rival:
    """Return timm's non-local block; its last normalisation starts at 0, so it starts as the identity.

    Raises:
        OptionError: on ``gamma_init`` 0: with that, neither gamma nor the normalisation would get a gradient.
    """
    from timm.layers import NonLocalAttn

    if gamma_init == 0:
        raise OptionError("block 'nl' starts as the identity and would not train from gamma_init=0; leave it at 1")
    return Rival(channels, NonLocalAttn(channels, rd_ratio=1 / check_reduction(reduction)), gamma_init=gamma_init)


def scse(channels: int, *, reduction: int = 16, gamma_init: float = 1.0) -> Rival:
    """Return SMP's concurrent spatial and channel squeeze-and-excitation.

    Raises:
        OptionError: where ``reduction`` leaves no channel.
    """
    from segmentation_models_pytorch.base.modules import SCSEModule

    if check_reduction(reduction) > channels:
        raise OptionError(f"block 'scse' divides {channels} channels by {reduction=}; take at most {channels}")
    return Rival(channels, SCSEModule(channels, reduction=reduction), gamma_init=gamma_init)


RIVAL_BLOCKS: dict[str, Callable[..., Rival]] = {
    "se": squeeze_excitation,
    "cbam": cbam,
    "gc": global_context,
    "nl": non_local,
    "scse": scse,
}


class MedianFilter(Switchable):
    """Post-processing: in evaluation each pixel takes the label that most pixels of its window have.

    Of one logit (foreground from 0 on) that is the median filter of the mask. A pixel outvoted by its window
    exchanges its logits, so its confidence stays; its own label wins a tie. The border is replicated; in training
    nothing is filtered.

    Args:
        size: side of the window in pixels of the logits, odd.

    Raises:
        OptionError: on a size that is even or below 3.
    """

    def __init__(self, *, size: int = 5) -> None:
        super().__init__()
        if size < 3 or size % 2 == 0:
            raise OptionError(f"a median filter needs an odd window of 3 pixels or more, got {size=}; such as 5")
        self.size = size

    def extra_repr(self) -> str:
        return f"size={self.size}"

    def forward(self, logits: Float[Tensor, "b l h w"]) -> Float[Tensor, "b l h w"]:
        if self.training or self.mode == "bypass":
            return logits
        if logits.shape[1] == 1:
            is_foreground_B1HW = self.shares(logits >= 0) > 0.5
            margin_B1HW = logits.abs().clamp_min(torch.finfo(logits.dtype).tiny)  # 0 would be foreground either way
            return torch.where(is_foreground_B1HW, margin_B1HW, -margin_B1HW)
        own_B1HW = logits.argmax(1, keepdim=True)
        votes_BLHW = torch.zeros_like(logits, dtype=torch.float32).scatter(1, own_B1HW, 1.0)
        winner_B1HW = (self.shares(votes_BLHW) + 0.5 / self.size**2 * votes_BLHW).argmax(1, keepdim=True)
        best_B1HW, other_B1HW = logits.gather(1, own_B1HW), logits.gather(1, winner_B1HW)
        # where classes share the largest logit, an exchange alone would leave the first of them on top
        is_shared_B1HW = ((logits == best_B1HW).sum(1, keepdim=True) > 1) & (winner_B1HW != own_B1HW)
        step_B1HW = torch.finfo(logits.dtype).eps * (1 + best_B1HW.abs())
        best_B1HW = torch.where(is_shared_B1HW, best_B1HW + step_B1HW, best_B1HW)
        return logits.scatter(1, own_B1HW, other_B1HW).scatter(1, winner_B1HW, best_B1HW)

    def shares(self, votes: Tensor) -> Tensor:
        """Return which share of each window votes for each class."""
        rim = self.size // 2
        return F.avg_pool2d(F.pad(votes.float(), (rim,) * 4, mode="replicate"), self.size, stride=1)


def check_reduction(reduction: int) -> int:
    """Return ``reduction`` if channels can be divided by it.

    Raises:
        OptionError: below one.
    """
    if reduction < 1:
        raise OptionError(f"reduction divides the channels of a squeeze, got {reduction=}; give 1 or more")
    return reduction
