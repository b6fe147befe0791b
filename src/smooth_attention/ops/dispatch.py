"""Backends of the gate, which one a call gets and why, and the gate as one operator of torch.

As an operator with a fake kernel the gate is opaque to torch.compile: whatever a backend does with sizes that depend on
the data stays inside.

Shapes: `B` maps, `N` query positions, `S` keys, `E` width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smooth_attention.core.errors import BackendError
from smooth_attention.ops.dense import dense_gate, dense_why_not
from smooth_attention.ops.tiled import tiled_gate, tiled_why_not
from smooth_attention.ops.triton_gate import triton_gate, triton_why_not

__all__ = ["check_backend_name", "choose_backend", "find_gate", "traced_gate"]


# Entries of all maps up to which the whole matrix is the faster way: "crossover" in docs/benchmarks/op.json.
DENSE_ENTRIES = 1 << 21


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to compute the gate.

    The callables take ``(query (B, N, E), key (B, S, E), *, grid, threshold, fraction, scale, lse=None)``.
    """

    name: str
    run: Callable[..., Tensor]  # the gate, bool (B, N); called without graph
    why_not: Callable[..., str | None]  # None: can run; otherwise the reason, one clause
    why_later: Callable[..., str | None]  # None: auto takes it; otherwise why auto looks further first


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that a call gets, and why those before it were passed over."""

    backend: Backend
    passed_over: dict[str, str]

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.passed_over.items())
        return f"{self.backend.name} ({reasons})" if reasons else self.backend.name


def dense_why_later(query: Tensor, key: Tensor, **rule: object) -> str | None:
    """Return why auto prefers another way to the whole matrix: its size."""
    entries = query.shape[0] * query.shape[-2] * key.shape[-2]
    if entries > DENSE_ENTRIES:
        return f"{entries:,} entries of attention are more than {DENSE_ENTRIES:,}, where the tiled gate is faster"
    return None


def never_later(query: Tensor, key: Tensor, **rule: object) -> None:
    """Return None: auto takes the backend where it can run."""


def triton_why_later(query: Tensor, key: Tensor, **rule: object) -> str | None:
    """Return why auto prefers another way: the interpreter is there for tests."""
    return None if query.device.type == "cuda" else "Triton only interprets its kernels on this device"


BACKENDS = (
    Backend("triton", triton_gate, triton_why_not, triton_why_later),
    Backend("dense", dense_gate, dense_why_not, dense_why_later),
    Backend("tiled", tiled_gate, tiled_why_not, never_later),
)


def choose_backend(name: str, query: Tensor, key: Tensor, **rule: object) -> Choice:
    """Return the named backend, which never falls back, or for ``"auto"`` the first that can run and is worth it.

    Where none is worth it, the first that can run.

    Raises:
        BackendError: none can run, or there is none of that name; the message lists every reason.
    """
    check_backend_name(name)
    reasons: dict[str, str] = {}
    later: list[Backend] = []
    for backend in (b for b in BACKENDS if name in ("auto", b.name)):
        reason = backend.why_not(query, key, **rule)
        if reason is None and name == "auto":
            reason = backend.why_later(query, key, **rule)
            later += [] if reason is None else [backend]
        if reason is None:
            return Choice(backend, reasons)
        reasons[backend.name] = reason
    if later:
        return Choice(later[0], {b: reason for b, reason in reasons.items() if b != later[0].name})
    detail = "; ".join(f"{n}: {r}" for n, r in reasons.items())
    raise BackendError(f"backend {name!r} can't run this call ({detail}); choose another or leave it to 'auto'")


def check_backend_name(name: str) -> None:
    """Raise unless there is a backend of that name."""
    known = ["auto", *(b.name for b in BACKENDS)]
    if name not in known:
        raise BackendError(f"there is no backend {name!r} (known: {', '.join(known)}); leave it at 'auto'")


def find_gate(
    query: Tensor,
    key: Tensor,
    lse: Tensor | None,
    grid: list[int],
    threshold: float | None,
    fraction: float | None,
    scale: float,
    backend: str,
) -> Tensor:
    """Return the gate (B, N) of query (B, N, E) and key (B, S, E), by the chosen backend."""
    rule = {"grid": tuple(grid), "threshold": threshold, "fraction": fraction, "scale": scale}
    return choose_backend(backend, query, key, **rule).backend.run(query, key, **rule, lse=lse)


traced_gate = torch.library.custom_op(
    "smooth_attention::gate",
    find_gate,
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor? lse, SymInt[] grid, float? threshold, float? fraction, float scale, "
    "str backend) -> Tensor",
)


@traced_gate.register_fake
def fake_gate(query: Tensor, key: Tensor, lse: Tensor | None, *rule: object) -> Tensor:
    return query.new_empty(query.shape[:-1], dtype=torch.bool)
