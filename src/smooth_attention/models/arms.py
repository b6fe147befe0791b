"""Arms: the alternatives that a comparison puts at the same place of the same network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from smooth_attention.core.arms import ARMS, DEFAULT_THRESHOLD, GATED
from smooth_attention.core.errors import OptionError
from smooth_attention.models.blocks import SmoothAttention
from smooth_attention.models.controls import BoxBlur, RandomSmoothAttention

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "smooth": SmoothAttention,
    "random": RandomSmoothAttention,
    "blur": BoxBlur,
}


def resolve_arm(
    arm: str, *, threshold: float | None = None, fraction: float | None = None, **block_options: Any
) -> tuple[str, dict[str, Any]]:
    """Return the block's name and options of an arm; two arms with equal results are one.

    - ``none``: no block; ``blur``: a 3x3 box mean of the features, no attention
    - ``attention``: never smooths; ``attention-unscaled``: the same with ``scale=1.0``
    - ``smooth``: smooths by ``threshold`` (0.4 where neither is given) or ``fraction``
    - ``always``: smooths every position
    - ``random``: smooths as many positions as ``smooth`` would, at random places

    Args:
        arm: one of :data:`ARMS`.
        threshold: for ``smooth`` and ``random``.
        fraction: for ``smooth`` and ``random``, instead of the threshold.
        block_options: further options of the block, e.g. ``gamma_init``, ``heads``; ``none`` has no block to take them.

    Raises:
        OptionError: on an unknown arm, or a threshold or fraction for an arm that has none.
    """
    if arm not in ARMS:
        raise OptionError(f"an arm is one of {', '.join(ARMS)}, got {arm!r}")
    if arm not in GATED and (threshold is not None or fraction is not None):
        raise OptionError(
            f"arm {arm!r} takes neither threshold nor fraction, got {threshold=}, {fraction=}; leave them out"
        )
    if fraction is not None and threshold is not None:
        raise OptionError(f"threshold and fraction exclude each other, got {threshold=}, {fraction=}; give one")
    if arm == "none":
        return "none", {}
    if arm == "blur":
        return "blur", block_options
    if arm == "attention":
        return "smooth", block_options
    if arm == "attention-unscaled":
        return "smooth", {**block_options, "scale": 1.0}
    if arm == "always":
        return "smooth", {**block_options, "threshold": -1.0}
    if fraction is not None:
        return arm, {**block_options, "fraction": fraction}
    return arm, {**block_options, "threshold": DEFAULT_THRESHOLD if threshold is None else threshold}


def build_block(block: str, channels: int, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a block for a feature map of ``channels`` channels; ``"none"`` is the identity.

    Raises:
        OptionError: on an unknown block or option.
    """
    options = dict(options or {})
    if block == "none":
        if options:
            raise OptionError(f"block 'none' has no options, got {', '.join(options)}; leave them out")
        return nn.Identity()
    if block not in BLOCKS:
        raise OptionError(f"a block is one of none, {', '.join(BLOCKS)}, got {block!r}")
    try:
        return BLOCKS[block](channels, **options)
    except TypeError as error:
        raise OptionError(f"block {block!r} does not take these options: {error}") from error
