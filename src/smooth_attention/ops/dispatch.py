"""Backends of the gate, and which one a call gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from smooth_attention.core.errors import BackendError
from smooth_attention.ops.dense import dense_gate, dense_why_not


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to compute the gate.

    Both callables take ``(query, key, *, grid, threshold, fraction, scale)``.
    """

    name: str
    run: Callable[..., Tensor]  # the gate, bool (..., N); called without graph
    why_not: Callable[..., str | None]  # None: can run; otherwise the reason, one clause


BACKENDS = (Backend("dense", dense_gate, dense_why_not),)


def choose_backend(name: str, query: Tensor, key: Tensor, **rule: object) -> Backend:
    """Return the first backend that can run this call, or the named one; a named one never falls back.

    Raises:
        BackendError: none can run, or there is none of that name; the message lists every reason.
    """
    reasons = {}
    for backend in (b for b in BACKENDS if name in ("auto", b.name)):
        reason = backend.why_not(query, key, **rule)
        if reason is None:
            return backend
        reasons[backend.name] = reason
    known = ", ".join(["auto", *(b.name for b in BACKENDS)])
    detail = "; ".join(f"{n}: {r}" for n, r in reasons.items()) or f"known: {known}"
    raise BackendError(f"no backend {name!r} for this call ({detail})")
