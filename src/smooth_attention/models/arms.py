"""Arms: the alternatives that a comparison puts at the same place of the same network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn

from smooth_attention.core.arms import ARMS, DEFAULT_THRESHOLD, SPECS
from smooth_attention.core.errors import OptionError
from smooth_attention.core.names import suggest
from smooth_attention.models.blocks import SmoothAttention
from smooth_attention.models.controls import BoxBlur, RandomSmoothAttention
from smooth_attention.models.rivals import RIVAL_BLOCKS, MedianFilter

__all__ = ["BLOCKS", "build_block", "build_filter", "check_block", "check_known", "resolve_arm", "separate_filter"]

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "smooth": SmoothAttention,
    "random": RandomSmoothAttention,
    "blur": BoxBlur,
    **RIVAL_BLOCKS,
}
FILTERS: dict[str, Callable[..., nn.Module]] = {"median": MedianFilter}


def resolve_arm(
    arm: str, *, threshold: float | None = None, fraction: float | None = None, **block_options: Any
) -> tuple[str, dict[str, Any]]:
    """Return the block's name and options of an arm; two arms with equal results are one.

    What each arm puts into the network stands in its row of :mod:`smooth_attention.core.arms`; of an arm with a filter
    of the mask, the filter's name is returned.

    Args:
        arm: one of :data:`ARMS`.
        threshold: for ``smooth`` and ``random``.
        fraction: for ``smooth`` and ``random``, instead of the threshold.
        block_options: further options of the block, e.g. ``gamma_init``, ``heads``; an arm without block takes none.

    Raises:
        OptionError: on an unknown arm, or a threshold or fraction for an arm that has none.
    """
    if arm not in ARMS:
        raise OptionError(f"an arm is one of {', '.join(ARMS)}, got {arm!r}; {suggest(arm, ARMS)}")
    spec = SPECS[arm]
    if not spec.is_gated and (threshold is not None or fraction is not None):
        raise OptionError(
            f"arm {arm!r} takes neither threshold nor fraction, got {threshold=}, {fraction=}; leave them out"
        )
    if fraction is not None and threshold is not None:
        raise OptionError(f"threshold and fraction exclude each other, got {threshold=}, {fraction=}; give one")
    if spec.block == "none":
        return spec.filter or "none", {}
    options = {**block_options, **spec.options}
    if fraction is not None:
        options["fraction"] = fraction
    elif spec.is_gated:
        options["threshold"] = DEFAULT_THRESHOLD if threshold is None else threshold
    return spec.block, options


def build_block(block: str, channels: int, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a block for a feature map of ``channels`` channels; ``"none"`` is the identity.

    Raises:
        OptionError: on an unknown block or option.
    """
    options = dict(options or {})
    check_known("block", block, ("none", *BLOCKS))
    if block != "none":
        return build("block", BLOCKS, block, channels, **options)
    if options:
        raise OptionError(f"block 'none' has no options, got {', '.join(options)}; leave them out")
    return nn.Identity()


def build_filter(name: str | None, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Return the post-processing of the logits by that name, the identity for None.

    Raises:
        OptionError: on an unknown filter or option.
    """
    if name is None:
        return nn.Identity()
    check_known("filter", name, FILTERS)
    return build("filter", FILTERS, name, **dict(options or {}))


def separate_filter(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's recipe with its filter, if it has one, in ``filter`` and ``filter_options``.

    ``create_model`` takes a filter by name as its ``block``, and the recipes of models saved earlier have it there.
    """
    if recipe.get("block") not in FILTERS:
        return dict(recipe)
    moved = {"filter": recipe["block"], "filter_options": recipe.get("block_options", {})}
    return {**recipe, "block": "none", "block_options": {}, **moved}


def build(kind: str, known: Mapping[str, Callable[..., nn.Module]], name: str, *args: Any, **options: Any) -> nn.Module:
    try:
        return known[name](*args, **options)
    except TypeError as error:
        raise OptionError(f"{kind} {name!r} does not take these options: {error}") from error


def check_block(block: str) -> None:
    """Raise unless a network takes ``block``: a block, a filter of its mask, or ``"none"``.

    Raises:
        OptionError: naming those that it takes.
    """
    check_known("block", block, ("none", *BLOCKS, *FILTERS))


def check_known(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise OptionError(f"a {kind} is one of {', '.join(known)}, got {name!r}; {suggest(name, known)}")
