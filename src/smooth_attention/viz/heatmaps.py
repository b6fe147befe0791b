"""Maps of a grid over their image: where a position looks, how rough its attention is; numpy in, pictures out.

Attention is coloured by the square root of its value, so that small shares stay visible beside a sink; colour bars have
the values themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.viz.overlays import Picture

__all__ = [
    "ATTENTION",
    "MARK",
    "POWER",
    "ROUGHNESS",
    "AttentionRow",
    "Map",
    "attention_figure",
    "colour_table",
    "describe_gate",
    "gate_overlay",
    "heat_overlay",
    "mark_box",
    "matrix_figure",
]

Map = NDArray[np.floating]  # (h, w)
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image

ATTENTION, ROUGHNESS, GATE = "viridis", "cividis", "gray"  # each ascends in lightness
POWER = 0.5
PRINT_PX = 900  # longer side of a picture at most; two inches at 300 dpi take 600
MARK = "#ff2fa4"


@cache
def colour_table(name: str) -> NDArray[np.uint8]:
    """Return a colour map of matplotlib as uint8 RGB (256, 3)."""
    return (colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def cells_of(length: int, cells: int, covered: float) -> NDArray[np.intp]:
    """Return the cell that each of ``length`` pixels lies in, by its centre."""
    return ((np.arange(length) + 0.5) / length * covered * cells).astype(np.intp).clip(0, cells - 1)


def heat_overlay(
    image: Picture,
    values: Map,
    *,
    limit: float,
    covered: float = 1.0,
    alpha: float = 0.7,
    colours: str = ATTENTION,
    power: float = POWER,
) -> Picture:
    """Return a map of a grid laid over the grey image, each cell in one colour.

    Args:
        image: uint8 RGB of shape (H, W, 3); not changed.
        values: (h, w), one for each cell, 0 and above.
        limit: value that gets the last colour; compare pictures only where they share it.
        covered: part of the grid's sides that the image fills, see ``Look.covered``.
        alpha: opacity of the colours, 0 to 1.
        colours: a colour map of matplotlib.
        power: exponent of ``values / limit`` before it is coloured.

    Returns:
        uint8 RGB of shape (H, W, 3).

    Raises:
        ShapeError: where the map has other than two axes.
        OptionError: an opacity outside 0 to 1, or a limit that is not positive.

    Example:
        >>> picture = heat_overlay(np.zeros((4, 6, 3), np.uint8), np.eye(2), limit=1.0, alpha=1.0)
        >>> (picture == colour_table("viridis")[255]).all(-1).astype(int).tolist()
        [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    """
    if values.ndim != 2:
        raise ShapeError(f"a map has two axes (h, w), got {values.shape=}; take one row of attention as a map")
    if not 0 <= alpha <= 1 or not limit > 0:
        raise OptionError(f"alpha is an opacity from 0 to 1 and limit positive, got {alpha=}, {limit=}")
    places = np.clip(np.nan_to_num(values) / limit, 0, 1) ** power
    coloured = colour_table(colours)[(places * 255).round().astype(np.uint8)]
    rows, columns = (
        cells_of(length, cells, covered) for length, cells in zip(image.shape[:2], values.shape, strict=True)
    )
    grey = (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None] * np.float32(1 - alpha)
    blended = grey + (coloured * np.float32(alpha))[rows[:, None], columns]
    return np.rint(blended).astype(np.uint8)


def gate_overlay(image: Picture, gate: Map, *, covered: float = 1.0, alpha: float = 0.55) -> Picture:
    """Return the image with smoothed cells white and the others dark; a share of a soft gate in between."""
    return heat_overlay(image, gate, limit=1.0, covered=covered, alpha=alpha, colours=GATE, power=1.0)


def describe_gate(gate: Map) -> str:
    """Say how many positions a gate smooths, of a soft one by how much."""
    if np.isin(gate, (0, 1)).all():
        return f"{100 * gate.mean():.1f} % of {gate.size} positions smoothed"
    return f"smoothed by {gate.min():.2g} to {gate.max():.2g}, mean {gate.mean():.2g}"


def mark_box(picture: Picture, box: Box) -> Picture:
    """Return a copy of a picture with the outline of a box, bright within a dark one so that it shows on any ground."""
    marked = picture.copy()
    height, width = picture.shape[:2]
    thick = max(1, round(min(height, width) / 150))
    left, right = (int(np.clip(round(x), 0, width)) for x in box[::2])
    top, bottom = (int(np.clip(round(y), 0, height)) for y in box[1::2])
    for grow, colour in ((thick, (0, 0, 0)), (0, tuple(bytes.fromhex(MARK[1:])))):
        outer = (
            slice(max(0, top - thick - grow), bottom + thick + grow),
            slice(max(0, left - thick - grow), right + thick + grow),
        )
        inner = slice(top + grow, max(top + grow, bottom - grow)), slice(left + grow, max(left + grow, right - grow))
        kept = marked[inner].copy()
        marked[outer] = colour
        marked[inner] = kept
    return marked


@dataclass(frozen=True, eq=False)
class AttentionRow:
    """Where one position of one network looks, with all that is drawn of it.

    Attributes:
        name: beside the row, e.g. the run.
        rule: what the used row is smoothed by.
        image: uint8 RGB of shape (H, W, 3).
        box: part of the image that the position stands for.
        plain: (h, w), the row of attention before smoothing.
        used: (h, w), the row as used.
        roughness: (h, w), of all positions.
        gate: (h, w), by how much each position is smoothed, 0 to 1.
        covered: part of the grid's sides that the image fills.
    """

    name: str
    rule: str
    image: Picture
    box: Box
    plain: Map
    used: Map
    roughness: Map
    gate: Map
    covered: float = 1.0


def attention_figure(rows: Sequence[AttentionRow], *, title: str) -> Figure:
    """Draw where a position looks: image, row before smoothing, row as used, roughness, gate; a line for each network.

    All rows of attention share one scale; roughness has its whole range, 0 to 1; axes are in pixels of the image.

    Args:
        rows: at least one.
        title: above.

    Raises:
        OptionError: without rows.
    """
    if not rows:
        raise OptionError("a figure of attention needs at least one row, got none")
    limit = max(float(max(row.plain.max(), row.used.max())) for row in rows)
    heights = [2.1 * row.image.shape[0] / row.image.shape[1] + 0.5 for row in rows]
    figure = Figure(figsize=(11.5, sum(heights) + 1.4))
    figure.suptitle(title, fontsize=10, parse_math=False)
    # the bars have a line of their own, so that the pictures stay in line
    lines = figure.add_gridspec(
        len(rows) + 1, 5, height_ratios=[*heights, 0.12], left=0.06, right=0.985, bottom=0.5 / figure.get_figheight(),
        top=1 - 0.75 / figure.get_figheight(), wspace=0.22, hspace=0.35,
    )  # fmt: skip
    for place, row in enumerate(rows):
        for column, (head, picture) in enumerate(pictures_of(row, limit)):
            cell = figure.add_subplot(lines[place, column])
            show_picture(cell, picture, row.image.shape, row.box)
            cell.set_title(head, fontsize=8, parse_math=False)
            if column == 0:
                cell.set_ylabel(f"{row.name}\ny (px)", fontsize=8, parse_math=False)
            if place == len(rows) - 1:
                cell.set_xlabel("x (px)", fontsize=8)
    add_bar(figure, figure.add_subplot(lines[-1, 1:3]), ATTENTION, limit, "attention, share of 1 (one scale for all)")
    add_bar(figure, figure.add_subplot(lines[-1, 3]), ROUGHNESS, 1.0, "roughness, 0 to 1")
    legend = figure.add_subplot(lines[-1, 4])
    legend.axis("off")
    handles = [Patch(facecolor=c, edgecolor="#6b7280", label=n) for n, c in (("smoothed", "white"), ("kept", "black"))]
    legend.legend(handles=handles, loc="center", ncols=2, fontsize=8, frameon=False)
    return figure


def pictures_of(row: AttentionRow, limit: float) -> list[tuple[str, Picture]]:
    """Return what is drawn of a position, each with what it is called."""
    step = -(-max(row.image.shape) // PRINT_PX)  # enough for print, whatever came from a camera
    image = row.image[*(slice(min(step, side) // 2, None, step) for side in row.image.shape[:2])]
    plain, used = (heat_overlay(image, m, limit=limit, covered=row.covered) for m in (row.plain, row.used))
    roughness = heat_overlay(image, row.roughness, limit=1.0, covered=row.covered, colours=ROUGHNESS)
    gate = gate_overlay(image, row.gate, covered=row.covered)
    return [
        ("position in the image", image),
        ("attention before smoothing", plain),
        (f"as used: {row.rule}", used),
        (f"roughness of all, at most {row.roughness.max():.2g}", roughness),
        (describe_gate(row.gate), gate),
    ]


def show_picture(cell: Axes, picture: Picture, shape: Sequence[int], box: Box) -> None:
    """Show a picture of an image of (H, W) with the image's pixels as axes, and the outline of a box in it."""
    cell.imshow(picture, extent=(0, shape[1], shape[0], 0), interpolation="antialiased")
    left, top, right, bottom = box
    for colour, line_width in (("black", 2.6), (MARK, 1.4)):
        cell.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=line_width)
        )
    cell.tick_params(labelsize=7)
    cell.locator_params(nbins=4)


def add_bar(figure: Figure, cell: Axes, colours: str, limit: float, label: str) -> None:
    """Fill a cell with the colour bar of values from 0 to the limit."""
    mappable = ScalarMappable(PowerNorm(POWER, 0, limit), colours)
    figure.colorbar(mappable, cax=cell, orientation="horizontal").set_label(label, fontsize=8)
    cell.tick_params(labelsize=7)


def matrix_figure(matrix: NDArray[np.floating], grid: tuple[int, int], *, step: int, title: str) -> Figure:
    """Draw rows of attention as the matrix that they are, as the paper prints it: indices, no image.

    Args:
        matrix: (P, K), every ``step``-th row and column of the N x N matrix.
        grid: (h, w) of the N positions.
        step: between rows and between columns; 1: the whole matrix, which is then also drawn as published, its numbers
            laid out h x (w N).
        title: above.
    """
    limit = float(matrix.max()) or 1.0
    norm = PowerNorm(POWER, 0, limit)
    heights = [8, 1, 0.2] if step == 1 else [8, 0.2]
    figure = Figure(figsize=(6.4, 7.6 if step == 1 else 6.6), layout="constrained")
    whole, *others, bar = figure.subplots(len(heights), 1, height_ratios=heights)
    num_rows, num_columns = matrix.shape
    whole.imshow(
        matrix, cmap=ATTENTION, norm=norm, interpolation="nearest",
        extent=(-0.5 * step, (num_columns - 0.5) * step, (num_rows - 0.5) * step, -0.5 * step),
    )  # fmt: skip
    every = "" if step == 1 else f", one in {step} of {grid[0] * grid[1]}"
    whole.set_xlabel(f"index of the key{every} (row by row through the grid)", fontsize=8)
    whole.set_ylabel(f"index of the query position{every}", fontsize=8)
    whole.set_title("N x N matrix of attention: both axes are indices, this is no image", fontsize=9)
    whole.tick_params(labelsize=7)
    for laid_out in others:
        # not "nearest": that would drop whole columns
        laid_out.imshow(matrix.reshape(grid[0], -1), cmap=ATTENTION, norm=norm, aspect="auto")
        laid_out.set_title(
            f"the same numbers as {grid[0]} x {matrix.size // grid[0]}, as published: each line mixes queries and keys",
            fontsize=8,
        )
        laid_out.tick_params(labelsize=7)
    add_bar(figure, bar, ATTENTION, limit, "attention, share of 1 (each row of the whole matrix sums to 1)")
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure
