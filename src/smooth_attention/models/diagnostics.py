"""What a trained block does to the feature maps it meets: is it active, how rough are its rows, is there a sink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from smooth_attention import ops
from smooth_attention.core.errors import ShapeError
from smooth_attention.models.blocks import Block, SmoothAttention, evaluation_mode

__all__ = ["MAX_ROWS", "THRESHOLDS", "captured_inputs", "diagnose_network", "find_single_value", "refuse_single_cells"]

THRESHOLDS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
MAX_ROWS = 1024


@contextmanager
def captured_inputs(net: nn.Module) -> Iterator[dict[Block, Tensor]]:
    """Collect the last input of every block of ``net`` while the context is open."""
    inputs: dict[Block, Tensor] = {}
    handles = [
        block.register_forward_pre_hook(lambda block, args: inputs.__setitem__(block, args[0].detach()))
        for block in net.modules()
        if isinstance(block, Block)
    ]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def diagnose(block: Block, x: Tensor) -> dict[str, float]:
    """Return what ``block`` does to the feature maps ``x`` (B, C, *grid), averaged over the batch and the heads.

    - ``gamma``: the learned weight of the update
    - ``share_of_output``: norm of ``gamma * update`` over the norm of the output
    - ``smoothed_fraction.t``: share of positions that the block's own rule smooths, of a soft gate its mean under the
      learned threshold and temperature; ``.0.1`` to ``.0.9``: the share whose roughness exceeds that threshold
    - ``max_probability``: median over positions of a row's largest probability, positions of all heads alike
    - ``sink_share``: mean over maps and heads of the attention that the most attended key gets, 1/N if all get the same

    The last three come with attention only.
    """
    update = block.gamma * block.update(x)
    metrics = {
        "gamma": block.gamma.item(),
        "share_of_output": (update.norm() / (update + x).norm().clamp_min(torch.finfo(x.dtype).tiny)).item(),
    }
    return metrics | (diagnose_attention(block, x) if isinstance(block, SmoothAttention) else {})


def diagnose_attention(block: SmoothAttention, x: Tensor) -> dict[str, float]:
    grid = tuple(x.shape[2:])
    query, key, _ = block.project(x)
    roughness_BMN = ops.roughness(query, key, grid=grid, scale=block.scale)
    if block.soft_threshold is not None:
        threshold_M1, temperature_M1 = block.soft_rule(query.dtype)
        gate_BMN = ((roughness_BMN - threshold_M1) / temperature_M1).sigmoid()
    else:
        gate_BMN = ops.smoothing_gate(
            query, key, grid=grid, threshold=block.threshold, fraction=block.fraction, scale=block.scale,
            backend=block.backend,
        )  # fmt: skip
    num_positions = query.shape[-2]
    step = -(-num_positions // MAX_ROWS)
    positions = torch.arange(0, num_positions, step, device=x.device)
    rows_BMPS = ops.attention_rows(query, key, positions, grid=grid, scale=block.scale)
    metrics = {"smoothed_fraction.t": gate_BMN.float().mean().item()}
    for threshold in THRESHOLDS:
        metrics[f"smoothed_fraction.{threshold}"] = (roughness_BMN > threshold).float().mean().item()
    metrics["max_probability"] = rows_BMPS.amax(-1).median().item()
    metrics["sink_share"] = rows_BMPS.mean(-2).amax(-1).mean().item()
    return metrics


def diagnose_network(inputs: dict[Block, Tensor]) -> dict[str, float]:
    """Return the numbers of every captured block, averaged over blocks; empty where there is none."""
    found = [diagnose(block, x.float()) for block, x in inputs.items()]
    return {name: sum(metrics[name] for metrics in found) / len(found) for name in (found[0] if found else {})}


@torch.no_grad()
def refuse_single_cells(net: nn.Module, image_size: int) -> None:
    """Raise where attention would meet a grid of one cell, by one dry run on a square image.

    Raises:
        ShapeError: naming the grid and what to change.
    """
    with evaluation_mode(net), captured_inputs(net) as inputs:
        net(next(net.parameters()).new_zeros(1, 3, image_size, image_size))
    for block, x in inputs.items():
        if isinstance(block, SmoothAttention) and x[0, 0].numel() == 1:
            raise ShapeError(
                f"images of {image_size} px leave the block a grid of one cell ({tuple(x.shape[1:])}), which has "
                "nothing to attend to; use larger images or an earlier stage"
            )


@torch.no_grad()
def find_single_value(net: nn.Module, image_size: int) -> str | None:
    """Return the shape of a map of which a batch of one gives batch normalisation one value a channel; None: none is.

    Torch refuses such a map in training. One dry run on a square image.
    """
    single: list[Tensor] = []

    def note(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0][:, 0].numel() == 1:
            single.append(args[0])

    norms = (module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    handles = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        with evaluation_mode(net):
            net(next(net.parameters()).new_zeros(1, 3, image_size, image_size))
    finally:
        for handle in handles:
            handle.remove()
    return str(tuple(single[0].shape)) if single else None
