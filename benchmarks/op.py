"""Time and memory of Smooth Attention against the literal formula, plain attention alone and flex_attention.

``python benchmarks/op.py --output docs/benchmarks`` writes ``op.json``, ``op.md`` and ``op.png`` there and prints
measured beside target; ``--quick`` measures the targets of time alone. Ratios are of medians of calls that alternate in
one process. On a machine that does other work the numbers mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measure import MIB, peak_extra_bytes, summarise, time_in_turn
from smooth_attention.core.provenance import versions
from smooth_attention.models.paper import PaperUNet
from smooth_attention.ops import smooth_attention, smoothing_gate
from smooth_attention.ops.reference import reference

THRESHOLD = 0.4
LITERAL_LIMIT_BYTES = 10e9
# Standard deviation of the logits of rows that look everywhere; N(0, 1) queries and keys have 1.
KINDS = {"diffuse": 0.5, "normal": 1.0, "mixed": 0.5, "mixed normal": 1.0, "peaked": 1.0}
SHARE_PEAKED = {"diffuse": 0.0, "normal": 0.0, "mixed": 0.05, "mixed normal": 0.05, "peaked": 1.0}


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
        query = query * KINDS[self.kind]
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


def measure_case(case: Case, *, repeats: int, warmups: int = 2) -> dict[str, Any]:
    """Return median and quartiles of every way, forward and forward with backward."""
    inputs = case.draw()
    gate = smoothing_gate(*inputs[:2], grid=case.grid, threshold=THRESHOLD)
    found: dict[str, Any] = {**case._asdict(), "smoothed_fraction": gate.float().mean().item()}
    for name, arrange in (("forward", forward), ("forward_backward", forward_backward)):
        timed = time_in_turn({w: arrange(f, inputs) for w, f in ways(case).items()}, repeats=repeats, warmups=warmups)
        found[name] = {way: summarise(seconds) for way, seconds in timed.items()}
    return found


def ratio(found: dict[str, Any], name: str, above: str, below: str) -> float:
    return found[name][above]["median_ms"] / found[name][below]["median_ms"]


def measure_targets(repeats: int) -> list[dict[str, Any]]:
    """Measure the inputs that have targets, and plain N(0, 1) inputs beside them."""
    cases = {
        Case("diffuse", 64, 64): (1.15, 1.10, 15),
        Case("normal", 64, 64): None,
        Case("mixed", 56, 128): (1.5, 1.25, 8),
        Case("mixed normal", 56, 128): None,
        Case("peaked", 56, 128): (2.2, 1.5, 6),
        Case("diffuse", 7, 512): (None, None, 1),
        Case("peaked", 7, 512): (None, None, 1),
    }
    found = []
    for case, targets in cases.items():
        measured = measure_case(case, repeats=repeats if case.side > 7 else 40 * repeats)
        found.append(measured | {"targets": targets})
        print(target_row(found[-1]), flush=True)
    return found


def target_row(found: dict[str, Any]) -> str:
    targets = found["targets"] or (None, None, None)
    figures = [
        ratio(found, "forward", "ours", "sdpa"),
        ratio(found, "forward_backward", "ours", "sdpa"),
        ratio(found, "forward", "literal", "ours"),
    ]
    signs = ("<=", "<=", ">=")
    cells = [
        f"{figure:.2f}" + ("" if target is None else f" ({sign} {target:g})")
        for figure, target, sign in zip(figures, targets, signs, strict=True)
    ]
    what = f"{found['kind']}, {found['side']} x {found['side']}, {found['width']}"
    milliseconds = [f"{found['forward'][way]['median_ms']:.3g}" for way in ("sdpa", "ours", "literal")]
    return " | ".join(["", what, f"{100 * found['smoothed_fraction']:.0f} %", *cells, *milliseconds, ""]).strip()


TARGET_HEADER = (
    "| input, grid, E | smoothed | forward / SDPA | forward + backward / SDPA's | literal / ours, forward "
    "| SDPA ms | ours ms | literal ms |"
)


def measure_growth() -> list[dict[str, Any]]:
    """Measure time and memory from 7 to 256 cells a side; one map, E = 32; the largest with peaked rows alone."""
    found = []
    for kind in ("diffuse", "mixed", "peaked"):
        for side in (7, 14, 28, 56, 128) + ((256,) if kind == "peaked" else ()):
            case = Case(kind, side, 32, batch=1)
            repeats, warmups = {128: (3, 1), 256: (1, 0)}.get(side, (7, 2))
            measured = measure_case(case, repeats=repeats, warmups=warmups)
            inputs = case.draw()
            measured["peak_extra_bytes"] = {
                way: peak_extra_bytes(forward_backward(attend, inputs)) for way, attend in ways(case).items()
            }
            found.append(measured)
            print(f"{kind} {side}: peak {measured['peak_extra_bytes']['ours'] / MIB:.1f} MiB", flush=True)
    return found


def fit_exponents(growth: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the slope of log time and log memory over log N, for grids from 56 a side on: all tiled."""
    found = {}
    for kind in ("diffuse", "mixed", "peaked"):
        rows = [row for row in growth if row["kind"] == kind and row["side"] >= 56]
        log_n = np.log([row["side"] ** 2 for row in rows])
        found[kind] = {
            "memory": float(np.polyfit(log_n, np.log([row["peak_extra_bytes"]["ours"] for row in rows]), 1)[0]),
            "time": float(np.polyfit(log_n, np.log([row["forward"]["ours"]["median_ms"] for row in rows]), 1)[0]),
        }
    return found


def measure_memory_limits() -> list[dict[str, Any]]:
    """Return the peak of forward with backward on the two large grids that have a limit."""
    found = []
    for case, limit in ((Case("peaked", 128, 64, batch=1), 256), (Case("peaked", 256, 32, batch=1), 2048)):
        call = forward_backward(ways(case)["ours"], case.draw())
        found.append({**case._asdict(), "peak_mib": peak_extra_bytes(call) / MIB, "limit_mib": limit})
        print(f"{case.side} x {case.side}: {found[-1]['peak_mib']:.0f} MiB of {limit}", flush=True)
    return found


def measure_training_step(repeats: int) -> dict[str, Any]:
    """Time a step of PaperUNet at 224 px, batch 8, float32, with the block as plain and as Smooth Attention."""
    images, masks = torch.randn(8, 3, 224, 224), torch.rand(8, 1, 224, 224).round()
    calls = {}
    for name, threshold in (("plain", None), ("smooth", THRESHOLD)):
        torch.manual_seed(0)
        net = PaperUNet(encoder_weights=None, threshold=threshold)
        nn.init.constant_(net.get_submodule("smooth_attention").gamma, 0.1)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

        def step(net: nn.Module = net, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(net(images), masks).backward()
            optimizer.step()

        calls[name] = step
    return {name: summarise(seconds) for name, seconds in time_in_turn(calls, repeats=repeats).items()}


def measure_flex_attention(repeats: int) -> dict[str, Any]:
    """Time flex_attention, compiled, as another plain attention: it can't express the smoothing; or say why not."""
    from torch.nn.attention.flex_attention import flex_attention

    case = Case("normal", 64, 64)
    inputs = [x.detach() for x in case.draw()]  # it has no backward pass on a CPU
    compiled = torch.compile(flex_attention)
    try:
        forward(compiled, inputs)()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
        return {"why_not": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    timed = time_in_turn(
        {"flex": forward(compiled, inputs), "sdpa": forward(F.scaled_dot_product_attention, inputs)}, repeats=repeats
    )
    return {name: summarise(seconds) for name, seconds in timed.items()}


def measure_crossover() -> list[dict[str, Any]]:
    """Time the dense and the tiled gate where auto changes from one to the other."""
    found = []
    for batch, side in ((1, 14), (1, 20), (1, 28), (1, 40), (8, 7), (8, 14), (8, 20), (8, 28)):
        for kind in ("normal", "peaked"):
            case = Case(kind, side, 64, batch=batch)
            query, key, _ = (x.detach() for x in case.draw())
            calls = {
                name: lambda name=name, q=query, k=key, c=case: smoothing_gate(
                    q, k, grid=c.grid, threshold=THRESHOLD, backend=name
                )
                for name in ("dense", "tiled")
            }
            timed = time_in_turn(calls, repeats=15)
            found.append({**case._asdict(), **{name: summarise(seconds) for name, seconds in timed.items()}})
    return found


def write_page(found: dict[str, Any], output: Path) -> None:
    """Write table and exponents as Markdown."""
    exponents = found["exponents"]
    step = found["training_step"]
    flex = found["flex_attention"]
    machine = found["machine"]
    lines = [
        "# What Smooth Attention costs",
        "",
        f"Made by `make bench` on {found['date']}: {machine['threads']} threads, {machine['processor']}, torch "
        f"{found['versions']['torch']}, float32, t = {THRESHOLD}, one head, batch 2, medians. Not measured on a GPU.",
        "Targets stand in brackets. *diffuse*: logits of standard deviation 0.5; *normal*: query and key drawn from",
        "N(0, 1), so 1; *mixed* and *mixed normal*: as these, with 5 % of the rows, at random, on one key each;",
        "*peaked*: all rows.",
        "*literal*: the paper's formula, N x N matrices spelled out. *smoothed*: share of positions, more than",
        "the rows above t, since their neighbours differ from them too.",
        "",
        TARGET_HEADER,
        "|" + "---|" * (TARGET_HEADER.count("|") - 1),
        *(target_row(row) for row in found["targets"]),
        "",
        "| peak extra memory, peaked, forward + backward, batch 1 | measured | limit |",
        "|---|---|---|",
        *(
            f"| {row['side']} x {row['side']}, E {row['width']} | {row['peak_mib']:.0f} MiB | {row['limit_mib']} MiB |"
            for row in found["memory_limits"]
        ),
        "",
        "Growth with N from 56 a side on (fitted exponents): memory "
        + ", ".join(f"{kind} {exponents[kind]['memory']:.2f}" for kind in exponents)
        + " (limit 1.1); time, forward, "
        + ", ".join(f"{kind} {exponents[kind]['time']:.2f}" for kind in exponents)
        + ".",
        "",
        f"A training step of PaperUNet (224 px, batch 8): plain {step['plain']['median_ms']:.0f} ms, smooth "
        f"{step['smooth']['median_ms']:.0f} ms, ratio {step['smooth']['median_ms'] / step['plain']['median_ms']:.3f} "
        "(limit 1.03).",
        "",
        "flex_attention, compiled, as plain attention, 64 x 64, E 64, forward: "
        + (
            f"did not run: {flex['why_not']}"
            if "why_not" in flex
            else f"{flex['flex']['median_ms']:.0f} ms, SDPA {flex['sdpa']['median_ms']:.0f} ms."
        ),
        "",
        "![Time and memory over the number of positions](op.png)",
        "",
        "All numbers with quartiles: [op.json](op.json).",
        "",
    ]
    (output / "op.md").write_text("\n".join(lines))


def draw_growth(growth: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory over N, log-log; one colour per way, one line style per input."""
    from matplotlib.figure import Figure

    colours = {"sdpa": "#555555", "ours": "#0072b2", "literal": "#d55e00"}
    names = {"sdpa": "plain attention (SDPA)", "ours": "Smooth Attention", "literal": "literal formula"}
    styles = {"diffuse": ":", "mixed": "--", "peaked": "-"}
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for kind, style in styles.items():
        rows = [row for row in growth if row["kind"] == kind]
        for way, colour in colours.items():
            with_way = [row for row in rows if way in row["forward"]]
            n = [row["side"] ** 2 for row in with_way]
            look = {"color": colour, "linestyle": style, "marker": "o", "markersize": 3}
            panels[0].plot(n, [r["forward"][way]["median_ms"] for r in with_way], label=f"{names[way]}, {kind}", **look)
            panels[1].plot(n, [r["peak_extra_bytes"][way] / MIB for r in with_way], **look)
    for panel, title, unit in zip(
        panels, ("Time, forward", "Peak extra memory, forward + backward"), ("ms (median)", "MiB"), strict=True
    ):
        panel.set(xscale="log", yscale="log", xlabel="positions N", ylabel=unit, title=title)
        panel.grid(which="major", alpha=0.3)
    panels[0].legend(fontsize=7.5)
    figure.savefig(path, dpi=110)


def describe_machine() -> dict[str, Any]:
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]  # noqa: PTH123, SIM115
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "capabilities": {name: able for name, able in torch.cpu.get_capabilities().items() if able},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="the targets of time alone, printed")
    options = parser.parse_args()
    print(TARGET_HEADER)
    targets = measure_targets(options.repeats)
    if options.quick:
        return
    growth = measure_growth()
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "threshold": THRESHOLD,
        "targets": targets,
        "growth": growth,
        "exponents": fit_exponents(growth),
        "memory_limits": measure_memory_limits(),
        "training_step": measure_training_step(options.repeats),
        "crossover": measure_crossover(),
        "flex_attention": measure_flex_attention(options.repeats),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "op.json").write_text(json.dumps(found, indent=1) + "\n")
    write_page(found, options.output)
    draw_growth(growth, options.output / "op.png")
    print((options.output / "op.md").read_text())


if __name__ == "__main__":
    main()
