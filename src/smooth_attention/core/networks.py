"""The names of the networks, and where their block stands; no torch, so that options parse at once."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["ARCHITECTURES", "Architecture", "default_stages"]

Architecture = Literal[
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
    "dpt",
]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
DEEPEST_ONLY = ("pspnet", "deeplabv3", "deeplabv3plus")  # their decoders do not read the map before the deepest


def default_stages(arch: str) -> tuple[int, ...]:
    """Return the feature map that passes the block where nothing is said: the second deepest, if it is read."""
    return (-1,) if arch in DEEPEST_ONLY else (-2,)
