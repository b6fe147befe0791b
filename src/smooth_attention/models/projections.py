"""The projections of an attention block: 1x1 convolutions that compute the matrix product they are.

On CUDA a matrix product follows torch's setting for matrix products, where a convolution is rounded to TF32 unless it
is told not to, which flips gates.

Shape suffixes: ``B`` batch, ``N`` positions, ``E`` channels that come out.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PROJECTIONS"]


class Projection1d(nn.Conv1d):
    def forward(self, x: Float[Tensor, "b c w"]) -> Float[Tensor, "b e w"]:
        return map_channels(self, x)


class Projection2d(nn.Conv2d):
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e h w"]:
        return map_channels(self, x)


class Projection3d(nn.Conv3d):
    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b e d h w"]:
        return map_channels(self, x)


PROJECTIONS = {1: Projection1d, 2: Projection2d, 3: Projection3d}  # by axes of the grid


def map_channels(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """Return what a 1x1 convolution makes of ``x``, in the wider of their dtypes, the channels last in memory."""
    wide = torch.promote_types(x.dtype, conv.weight.dtype)
    bias = None if conv.bias is None else conv.bias.to(wide)
    out_BNE = F.linear(x.flatten(2).transpose(1, 2).to(wide), conv.weight.flatten(1).to(wide), bias)
    return out_BNE.transpose(1, 2).unflatten(2, x.shape[2:])
