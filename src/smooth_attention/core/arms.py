"""The names of the arms, and what an arm implies where nothing is said; no torch, so that options parse at once."""

from __future__ import annotations

from typing import Literal, get_args

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
ARMS: tuple[str, ...] = get_args(Arm)
GATED = ("smooth", "random")
RIVALS = ("se", "cbam", "gc", "nl", "scse")
DEFAULT_THRESHOLD = 0.4
