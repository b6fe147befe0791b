"""The arms, one row each, and what an arm implies where nothing is said; no torch, so that options parse at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["ARMS", "DEFAULT_THRESHOLD", "GATED", "RIVALS", "ROWS", "SPECS", "Arm"]

Arm = Literal[
    "none",
    "blur",
    "attention",
    "attention-unscaled",
    "smooth",
    "always",
    "random",
    "se",
    "cbam",
    "gc",
    "nl",
    "scse",
    "median",
]
DEFAULT_THRESHOLD = 0.4


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """What one arm puts into a network.

    Attributes:
        name: of the arm.
        help: one line for people.
        block: name of the block at the block's place; ``"none"`` for none.
        filter: name of the filter of the mask, None for none.
        options: what the arm fixes of its block.
        is_gated: whether it takes a threshold or a fraction.
        gamma_init: where gamma starts in training; None: as the network has it.
        any_grid: whether the block works on grids of one and three axes too.
    """

    name: Arm
    help: str
    block: str = "none"
    filter: str | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    is_gated: bool = False
    gamma_init: float | None = None
    any_grid: bool = False


def attentive(name: Arm, summary: str, block: str = "smooth", *, is_gated: bool = False, **options: float) -> ArmSpec:
    return ArmSpec(name, summary, block, options=MappingProxyType(options), is_gated=is_gated, any_grid=True)


def rival(name: Arm, summary: str) -> ArmSpec:
    return ArmSpec(name, summary, name, gamma_init=1.0)  # at first it is what its library ships


ROWS = (
    ArmSpec("none", "no block"),
    ArmSpec("blur", "a 3x3 box mean of the features, no attention", "blur"),
    attentive("attention", "never smooths"),
    attentive("attention-unscaled", "never smooths, logits without scale", scale=1.0),
    attentive("smooth", f"smooths by threshold ({DEFAULT_THRESHOLD} where nothing is said) or fraction", is_gated=True),
    attentive("always", "smooths every position", threshold=-1.0),
    attentive("random", "smooths as many positions as smooth would, at random places", "random", is_gated=True),
    rival("se", "squeeze-and-excitation of timm"),
    rival("cbam", "convolutional block attention of timm"),
    rival("gc", "global context of timm"),
    rival("nl", "non-local block of timm"),
    rival("scse", "concurrent spatial and channel squeeze-and-excitation of SMP"),
    ArmSpec("median", "no block; the mask passes a median filter", filter="median"),
)
SPECS: Mapping[str, ArmSpec] = MappingProxyType({row.name: row for row in ROWS})
ARMS: tuple[str, ...] = tuple(SPECS)
GATED = tuple(row.name for row in ROWS if row.is_gated)
RIVALS = tuple(row.name for row in ROWS if row.gamma_init is not None)
