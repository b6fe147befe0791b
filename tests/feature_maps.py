"""Feature maps, and blocks that tell their positions apart; what a block's gate does to them."""

import torch

from smooth_attention import ops
from smooth_attention.models.blocks import SmoothAttention, block_mode


def make_block(kind=SmoothAttention, *, channels=8, spread=2.5, gamma=1.0, **options):
    """A block whose attention is peaked enough that thresholds separate positions."""
    torch.manual_seed(0)
    block = kind(channels, gamma_init=gamma, **options).eval()
    if isinstance(block, SmoothAttention):
        for conv in (block.query, block.key):
            conv.weight.data *= spread
    return block


def draw_map(grid=(7, 5), *, batch=3, channels=8, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *grid, generator=generator, dtype=torch.float64).to(dtype)


def find_gate(block, x):
    query, key, _ = block.project(x)
    grid = tuple(x.shape[2:])
    return ops.smoothing_gate(query, key, grid=grid, threshold=block.threshold, fraction=block.fraction)


def changed_positions(block, x):
    """Where the gate changes the output: (B, N)."""
    with torch.no_grad():
        smoothed = block(x)
        with block_mode(block, "gate_off"):
            return (smoothed != block(x)).any(1).flatten(1)
