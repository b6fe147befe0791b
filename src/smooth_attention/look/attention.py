"""A network that has looked at one image: its attention from any position, its gate and its mask, under any rule.

No N x N matrix: rows are computed for the positions that are asked for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from smooth_attention import ops
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models.blocks import SmoothAttention, evaluation_mode
from smooth_attention.models.diagnostics import captured_inputs
from smooth_attention.models.inference import check_image, infer, prepare, resized_labels
from smooth_attention.models.network import Network
from smooth_attention.models.preprocessing import resize_image
from smooth_attention.models.rows import Rule, block_rule, describe_rule, used_gate, used_rows
from smooth_attention.runs.picks import evenly

__all__ = ["Head", "Look", "RowPair"]

MAX_KEPT_RULES = 3  # masks
MAX_KEPT_GATES = 32
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, eq=False)
class Met:
    """What an attention block met in the image.

    Attributes:
        name: of the block's module in the network.
        module: the block.
        grid: (h, w), shape of the positions.
        query: (1, M, N, E).
        key: (1, M, N, E).
    """

    name: str
    module: SmoothAttention
    grid: tuple[int, int]
    query: Tensor
    key: Tensor
    _gates: dict[Rule | None, np.ndarray] = field(default_factory=dict)

    @cached_property
    def roughness(self) -> np.ndarray:
        """Float32 (M, h, w)."""
        with torch.inference_mode():
            return self.as_maps(ops.roughness(self.query, self.key, grid=self.grid, scale=self.module.scale))

    def gate(self, rule: Rule | None) -> np.ndarray:
        """Return float32 (M, h, w)."""
        if rule not in self._gates:
            if len(self._gates) >= MAX_KEPT_GATES:
                self._gates.pop(next(iter(self._gates)))
            with torch.inference_mode(), evaluation_mode(self.module):
                self._gates[rule] = self.as_maps(used_gate(self.module, self.query, self.key, self.grid, rule).float())
        return self._gates[rule]

    def as_maps(self, values_BMN: Tensor) -> np.ndarray:
        values: np.ndarray = values_BMN[0].unflatten(-1, self.grid).cpu().numpy()
        return values


@dataclass(frozen=True, eq=False)
class Head:
    """One head of an attention block, with what it makes of the image.

    Attributes:
        met: what the block met.
        number: of the head, from 0.
    """

    met: Met
    number: int

    @property
    def name(self) -> str:
        """Module name of the block, and the head where there are several."""
        return self.met.name if self.module.heads == 1 else f"{self.met.name}, head {self.number}"

    @property
    def module(self) -> SmoothAttention:
        """The block."""
        return self.met.module

    @property
    def grid(self) -> tuple[int, int]:
        """Shape (h, w) of the positions."""
        return self.met.grid

    @property
    def roughness(self) -> np.ndarray:
        """Float32 (h, w): how much the rows change from each position to its neighbours, 0 to 1."""
        roughness: np.ndarray = self.met.roughness[self.number]
        return roughness

    def gate(self, rule: Rule | None = None) -> np.ndarray:
        """Return float32 (h, w): by how much each position is smoothed: 0 or 1, of a soft gate a share."""
        gate: np.ndarray = self.met.gate(rule)[self.number]
        return gate

    def spaced(self, most: int) -> list[int]:
        """Return at most so many flat positions, evenly spaced."""
        return evenly(range(self.grid[0] * self.grid[1]), most)

    def rows(self, positions: Sequence[int], rule: Rule | None = None) -> list[RowPair]:
        """Return where positions look, before smoothing and as used under ``rule``; None is the block's own."""
        one = slice(self.number, self.number + 1)
        gate, roughness = self.gate(rule).ravel(), self.roughness.ravel()
        with torch.inference_mode():
            used_BMPN, plain_BMPN = used_rows(
                self.module,
                self.met.query[:, one],
                self.met.key[:, one],
                torch.tensor(positions, device=self.met.query.device),
                self.grid,
                torch.from_numpy(gate).to(self.met.query.device)[None, None],
            )
        maps = (rows[0, 0].unflatten(-1, self.grid).cpu().numpy() for rows in (plain_BMPN, used_BMPN))
        return [
            RowPair(plain, used, float(roughness[i]), float(gate[i]))
            for i, plain, used in zip(positions, *maps, strict=True)
        ]


def heads_of(name: str, block: SmoothAttention, x: Tensor) -> list[Head]:
    """Return the heads of a block with what they make of its input (1, C, h, w).

    Raises:
        ShapeError: where the grid has other than two axes.
    """
    if x.ndim != 4:
        raise ShapeError(
            f"a picture needs a grid of two axes, {name} has {x.ndim - 2}; look at a block of a feature map"
        )
    query, key, _ = block.project(x)
    met = Met(name, block, (x.shape[2], x.shape[3]), query, key)
    return [Head(met, number) for number in range(block.heads)]


@dataclass(frozen=True, eq=False)
class RowPair:
    """Where one position looks.

    Attributes:
        plain: (h, w), its row of attention before smoothing, as a map over the keys; sums to 1.
        used: (h, w), the row that the block uses.
        roughness: of the position.
        gate: by how much it is smoothed: 0 or 1, of a soft gate a share.
    """

    plain: np.ndarray
    used: np.ndarray
    roughness: float
    gate: float


class Look:
    """What a network does with one image; nothing is changed in the network.

    The image is resized to a square, as in training, and cells of the grid are mapped back to the image.

    Args:
        net: a network of this package.
        image: uint8 (H, W, 3), RGB.
        image_size: side of the square in pixels; None: what the network was trained at.

    Attributes:
        shape: (H, W) of the image.
        heads: every head of every attention block that the image passed, in their order; empty without attention.
        image_size: as used.

    Raises:
        ShapeError: where the image is not uint8 (H, W, 3), or a block's grid has other than two axes.
        OptionError: on a side below 1.

    Example:
        >>> import numpy as np, smooth_attention as sa
        >>> look = Look(sa.PaperUNet(encoder_weights=None), np.zeros((60, 90, 3), np.uint8))
        >>> head = look.heads[0]
        >>> pair = head.rows([look.position_at(head, 45.0, 30.0)])[0]
        >>> head.grid, round(float(pair.plain.sum()), 4)
        ((7, 7), 1.0)
    """

    def __init__(self, net: Network, image: np.ndarray, image_size: int | None = None) -> None:
        check_image(image)
        self.net, self.shape = net, (image.shape[0], image.shape[1])
        self.image_size = net.preprocessing.image_size if image_size is None else image_size
        if self.image_size < 1:
            raise OptionError(f"image_size is a side in pixels, got {image_size}; leave it out for the trained one")
        self._inputs = prepare(net, resize_image(image, self.image_size))
        self._logits: OrderedDict[Rule | None, Tensor] = OrderedDict()
        with captured_inputs(net) as captured:
            self._keep(None, self._run())
        names = {module: name for name, module in net.named_modules()}
        with torch.inference_mode():
            self.heads = tuple(
                head
                for block, x in captured.items()
                if isinstance(block, SmoothAttention)
                for head in heads_of(names[block], block, x)
            )

    @property
    def covered(self) -> float:
        """How much of the padded side that the network sees is image; the rest lies at the right and the bottom."""
        return self.image_size / self._padded_side

    @property
    def _padded_side(self) -> int:
        stride = self.net.stride
        return max(math.ceil(self.image_size / stride) * stride, self.net.min_side)

    def inside(self, head: Head) -> tuple[int, int]:
        """Return how many rows and columns of the grid have a part of the image; the rest is padding."""
        rows, columns = (math.ceil(Fraction(side * self.image_size, self._padded_side)) for side in head.grid)
        return rows, columns

    def position_at(self, head: Head, x_px: float, y_px: float) -> int:
        """Return the flat position of a point of the image; points outside count as the nearest inside."""
        row, column = (
            min(int(max(point, 0.0) / side * self.covered * cells), last - 1)
            for point, side, cells, last in zip((y_px, x_px), self.shape, head.grid, self.inside(head), strict=True)
        )
        return row * head.grid[1] + column

    def roughest(self, head: Head, rule: Rule | None = None) -> int:
        """Return the flat position of the largest roughness within the image, of the smoothed ones if there are any."""
        inside = np.zeros(head.grid, bool)
        inside[tuple(map(slice, self.inside(head)))] = True
        smoothed = inside & (head.gate(rule) > 0)
        return int(np.where(smoothed if smoothed.any() else inside, head.roughness, -1.0).argmax())

    def box_of(self, head: Head, position: int) -> Box:
        """Return the part of the image, in its pixels, that a position stands for."""
        (height, width), (rows, columns) = self.shape, head.grid
        row, column = divmod(position, columns)
        wide, high = width / self.covered / columns, height / self.covered / rows
        return column * wide, row * high, min((column + 1) * wide, width), min((row + 1) * high, height)

    def labels(self, rule: Rule | None = None, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Return the uint8 mask of the network under ``rule`` at the image's size, or at another one.

        With the rule of its training that is the mask of :func:`smooth_attention.predict` where the size is the trained
        one. Any other rule is computed with the same weights, not trained.
        """
        if rule not in self._logits:
            with block_rule(self.net, rule):
                self._keep(rule, self._run())
        self._logits.move_to_end(rule)
        return resized_labels(self._logits[rule], self.shape if shape is None else shape)

    def describe(self, rule: Rule | None = None) -> str:
        """Say in a few words what ``rule`` smooths; of a network with several attention blocks, the last one."""
        return describe_rule(self.heads[-1].module, rule) if self.heads else "no attention"

    def _run(self) -> Tensor:
        with evaluation_mode(self.net):
            return infer(self.net, self._inputs)[0]

    def _keep(self, rule: Rule | None, logits: Tensor) -> None:
        self._logits[rule] = logits
        if len(self._logits) > MAX_KEPT_RULES:
            self._logits.popitem(last=False)
