"""Arithmetic in the dtype of what comes in, under autocast too."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["autocast_off"]


def autocast_off(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which operations keep the dtype of what they are given."""
    # Without need no context: it would stand in exported graphs.
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
