"""Feature maps, and blocks that tell their positions apart; what a block's gate does to them."""

import torch

from smooth_attention import ops
from smooth_attention.models.blocks import SmoothAttention, block_mode


def make_block(kind=SmoothAttention, *, channels=8, spread=2.5, gamma=1.0, **options):
    """A block whose attention is peaked enough that thresholds separate positions; each head has learned its own."""
    torch.manual_seed(0)
    block = kind(channels, gamma_init=gamma, **options).eval()
    if isinstance(block, SmoothAttention):
        for conv in (block.query, block.key):
            conv.weight.data *= spread
        for learned in (block.logit_scale, block.soft_threshold, block.log_temperature):
            if learned is not None:
                learned.data += 0.1 * torch.arange(block.heads)
    return block


def draw_map(grid=(7, 5), *, batch=3, channels=8, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *grid, generator=generator, dtype=torch.float64).to(dtype)


def find_gate(block, x):
    """The step gate of the block's rule: (B, M, N)."""
    query, key, _ = block.project(x)
    rule = {"threshold": block.threshold, "fraction": block.fraction, "scale": block.scale}
    return ops.smoothing_gate(query, key, grid=tuple(x.shape[2:]), **rule)


def changed_positions(block, x):
    """Where the gate changes the output: (B, M, N)."""
    with torch.no_grad():
        smoothed = block(x)
        with block_mode(block, "gate_off"):
            return (smoothed != block(x)).flatten(2).unflatten(1, (block.heads, -1)).any(2)
