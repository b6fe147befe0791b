"""Whether a call is computed, or written down as a graph that others run."""

from __future__ import annotations

import torch

__all__ = ["is_exported", "is_traced"]


def is_exported() -> bool:
    """Return whether the call becomes a graph of plain operators: torch.export, torch.onnx.export, torch.jit.trace."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def is_traced() -> bool:
    """Return whether the call becomes a graph, torch.compile's included; its values are those of an example then."""
    return torch.compiler.is_compiling() or is_exported()
