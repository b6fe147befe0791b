"""Time and memory of Smooth Attention against the literal formula, plain attention alone and flex_attention.

``python benchmarks/op.py --output docs/benchmarks`` writes ``op.json``, ``op.md`` and ``op.png`` there and prints measured
beside target. ``--quick`` runs the table of targets alone. Ratios are of medians of calls that alternate in one process.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from measure import summarise, time_in_turn
from smooth_attention.ops import smooth_attention, smoothing_gate
from smooth_attention.ops.reference import reference

THRESHOLD = 0.4
LITERAL_LIMIT_BYTES = 10e9
# Standard deviation of the logits of rows that look everywhere; N(0, 1) queries and keys have 1.
KINDS = {"diffuse": 0.5, "normal": 1.0, "mixed": 1.0, "peaked": None}
SHARE_PEAKED = {"diffuse": 0.0, "normal": 0.0, "mixed": 0.05, "peaked": 1.0}


class Case(NamedTuple):
    """Inputs of one measurement."""

    kind: str
    side: int
    width: int
    batch: int = 2

    @property
    def grid(self) -> tuple[int, int]:
        return self.side, self.side

    def draw(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Return query, key and value (B, 1, N, E) that need gradients.

        The peaked rows, at random places, look at one key each, in random order, with nearly all their weight.
        """
        generator = torch.Generator().manual_seed(self.side * 1000 + self.width)
        shape = (self.batch, 1, self.side**2, self.width)
        query, key, value = (torch.randn(shape, generator=generator) for _ in range(3))
        query = query * (KINDS[self.kind] or 1.0)
        order = torch.randperm(shape[2], generator=generator)
        is_peaked = torch.rand(shape[:3], generator=generator) < SHARE_PEAKED[self.kind]
        # A key meets itself with a logit of about 20.
        sharpness = 20.0 / math.sqrt(self.width)
        query = torch.where(is_peaked.unsqueeze(-1), sharpness * key[:, :, order], query)
        return [x.to(dtype).requires_grad_() for x in (query, key, value)]


def forward(attend: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    def call() -> None:
        with torch.no_grad():
            attend(*inputs)

    return call


def forward_backward(attend: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    upstream = torch.randn(inputs[2].shape, dtype=inputs[2].dtype)

    def call() -> None:
        torch.autograd.grad(attend(*inputs), inputs, upstream)

    return call


def ways(case: Case) -> dict[str, Callable[..., Tensor]]:
    """Return the functions compared on a case, the literal formula where its matrices fit."""
    found = {
        "sdpa": F.scaled_dot_product_attention,
        "ours": lambda q, k, v: smooth_attention(q, k, v, grid=case.grid, threshold=THRESHOLD),
    }
    if literal_bytes(case) <= LITERAL_LIMIT_BYTES:
        found["literal"] = lambda q, k, v: reference(q, k, v, grid=case.grid, threshold=THRESHOLD).output
    return found


def literal_bytes(case: Case) -> float:
    """Return what forward and backward of the literal formula hold: its N x N matrices with eight neighbours."""
    return 4.0 * case.batch * case.side**4 * 30


def measure_case(case: Case, *, repeats: int) -> dict[str, object]:
    inputs = case.draw()
    gate = smoothing_gate(*inputs[:2], grid=case.grid, threshold=THRESHOLD)
    found: dict[str, object] = {**case._asdict(), "smoothed_fraction": gate.float().mean().item()}
    for name, arrange in (("forward", forward), ("forward_backward", forward_backward)):
        timed = time_in_turn({w: arrange(f, inputs) for w, f in ways(case).items()}, repeats=repeats)
        found[name] = {way: summarise(seconds) for way, seconds in timed.items()}
    return found


def main() -> None:
    torch.set_num_threads(int(__import__("os").environ.get("T", "2")))
    for case in [
        Case("diffuse", 64, 64),
        Case("normal", 64, 64),
        Case("mixed", 56, 128),
        Case("peaked", 56, 128),
        Case("diffuse", 7, 512),
    ]:
        r = measure_case(case, repeats=5)
        print(case, round(r["smoothed_fraction"], 3))
        for n in ("forward", "forward_backward"):
            m = {w: r[n][w]["median_ms"] for w in r[n]}
            print(
                "  ",
                n,
                {w: round(x, 2) for w, x in m.items()},
                "ours/sdpa",
                round(m["ours"] / m["sdpa"], 3),
                "literal/ours",
                round(m.get("literal", 0) / m["ours"], 2),
            )


if __name__ == "__main__":
    main()
