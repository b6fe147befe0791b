"""What the block costs a network, and how long a saved one takes to load.

Run by ``make bench``; writes ``docs/benchmarks/networks.md``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from measure import time_in_turn
from smooth_attention.core.networks import ARCHITECTURES
from smooth_attention.core.provenance import versions
from smooth_attention.models import Network, create_model, load_model

BATCH, SIDE, TARGET_COST, TARGET_LOAD_S = 8, 224, 1.05, 1.0


def make_step(net: Network) -> tuple[Network, torch.optim.Optimizer]:
    net.train()
    return net, torch.optim.AdamW(net.parameters(), lr=1e-4)


def train_step(net: Network, optimizer: torch.optim.Optimizer, images: torch.Tensor, masks: torch.Tensor) -> None:
    optimizer.zero_grad()
    F.binary_cross_entropy_with_logits(net(images), masks).backward()
    optimizer.step()


def measure_steps(repeats: int) -> dict[str, list[float]]:
    """Return the seconds of training steps of U-Net with ResNet-18, by what stands after stage -2."""
    images, masks = torch.randn(BATCH, 3, SIDE, SIDE), torch.rand(BATCH, 1, SIDE, SIDE).round()
    calls = {}
    for block, options in (
        ("none", {}),
        ("smooth", {"threshold": 0.4, "gamma_init": 0.1}),
        ("smooth, t = 0.05", {"threshold": 0.05, "gamma_init": 0.1}),
        ("nl", {}),
        ("cbam", {}),
    ):
        torch.manual_seed(0)
        net, optimizer = make_step(
            create_model("unet", encoder_weights=None, block=block.partition(",")[0], block_options=options)
        )
        calls[block] = lambda net=net, optimizer=optimizer: train_step(net, optimizer, images, masks)
    return time_in_turn(calls, repeats=repeats)


def measure_loading(repeats: int) -> dict[str, list[float]]:
    """Return the seconds that ``load_model`` takes, by network; libraries are imported before."""
    seconds = {}
    for arch in ARCHITECTURES:
        encoder = "tu-vit_tiny_patch16_224" if arch == "dpt" else "resnet18"
        net = create_model(arch, encoder_name=encoder, encoder_weights=None, block_options={"threshold": 0.4})
        millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
        with tempfile.TemporaryDirectory() as directory:
            net.save_pretrained(directory)
            taken = []
            for _ in range(repeats):
                started = time.perf_counter()
                load_model(directory)
                taken.append(time.perf_counter() - started)
        seconds[f"{arch}, {encoder}, {millions:.0f} M parameters"] = taken
    return seconds


def show(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    steps, loading = measure_steps(options.repeats), measure_loading(3)
    base = statistics.median(steps["none"])
    lines = [
        "# What the block costs a network",
        "",
        f"Made by `make bench` ({options.repeats} steps in turn, 3 loads; {torch.get_num_threads()} CPU threads, "
        f"float32, torch {versions()['torch']}); not measured on a GPU. Seconds: median (least-most).",
        "",
        f"## A training step of U-Net with ResNet-18, {SIDE} px, batch {BATCH}, the block after stage -2",
        "",
        "| block | seconds | ratio of medians to no block |",
        "|---|---|---|",
    ]
    for block, seconds in steps.items():
        target = f" (<= {TARGET_COST})" if block.startswith("smooth") else ""
        lines.append(f"| {block} | {show(seconds)} | {statistics.median(seconds) / base:.3f}{target} |")
    lines += [
        "",
        f"## `load_model` from disk, imports done before (target: under {TARGET_LOAD_S:g} s)",
        "",
        "| network | seconds |",
        "|---|---|",
        *(f"| {name} | {show(seconds)} |" for name, seconds in loading.items()),
    ]
    text = "\n".join(lines) + "\n"
    (options.output / "networks.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
