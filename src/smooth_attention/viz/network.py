"""A network drawn from what is known of its stages: plain data in, a matplotlib figure for paper out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from smooth_attention.core.errors import OptionError
from smooth_attention.viz.colours import palette
from smooth_attention.viz.network_layout import (
    CAPTION,
    CAPTIONED,
    CARD_SIZE,
    FAMILY,
    FOOT,
    MARGIN,
    PAD,
    TITLE,
    WIDTH,
    Box,
    Lettering,
    Line,
    Pairs,
    Side,
    assign_columns,
    assign_rows,
    card_label,
    choose_lettering,
    count_text,
    place_boxes,
    scale_boxes,
    shape_text,
    text_width,
)
from smooth_attention.viz.study_charts import FAINT, INK

if TYPE_CHECKING:
    from smooth_attention.look.stages import Stage

__all__ = ["network_figure"]

Point = tuple[float, float]

LANE = 0.05  # inches from line to line beside a block
TABLE = palette(7).tolist()
COLOURS = {"encoder": TABLE[0], "decoder": TABLE[1], "head": TABLE[2], "filter": TABLE[4], "block": TABLE[5]}
OTHER = (150, 150, 150)
CURVE = [Path.MOVETO, *[Path.CURVE4] * 3]


def network_figure(
    stages: Sequence[Stage], links: Iterable[tuple[int, int]], *, title: str, input_shape: Sequence[int]
) -> Figure:
    """Draw a network as a U on its side, 7 inches wide: the encoder from left to right, below it the decoder back.

    A box is as high as the side of its map and as wide as its channels, both in log scales. A block has its own colour
    and is named with its rule; one that only the decoder reads stands between the rows. Grey lines are skip links.

    Args:
        stages: in the order in which they run, see :class:`smooth_attention.look.stages.Stages`.
        links: pairs (i, j): stage j reads stage i, which is not the one just before it.
        title: above the figure; the number of parameters and the shape of the input follow it.
        input_shape: of an image, (C, H, W).

    Returns:
        A figure of its own; nothing global is touched. ``figure.savefig(path, dpi=300)`` writes it.

    Raises:
        OptionError: without stages that run, or on links between others than those.
    """
    shown, skips = [stage for stage in stages if stage.role != "unused"], set(links)
    check_drawable(len(shown), skips)
    chain = {(number - 1, number) for number, stage in enumerate(shown) if number and stage.follows}
    rows = assign_rows(shown, skips | chain)
    columns = assign_columns(rows, skips | chain)
    slot = (WIDTH - 2 * MARGIN - CAPTION) / (max(columns) + 1)
    lettering, sides = choose_lettering(shown, rows, slot), scale_boxes(shown, slot)
    boxes, height = place_boxes(shown, rows, columns, sides, lettering, slot)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    axes.set_axis_off()
    draw_links(axes, boxes, skips, chain)
    for number, (stage, box) in enumerate(zip(shown, boxes, strict=True)):
        if box.row == "middle":
            draw_card(axes, stage, box, sides[number])
        else:
            draw_box(axes, stage, box)
            draw_label(axes, stage, box, lettering, lettering.labels[number])
    draw_captions(axes, shown, boxes, slot)
    total = count_text(sum(stage.parameters for stage in stages))
    heading = f"{title}: {total} parameters, input {shape_text(input_shape)}"
    write_line(axes, height - TITLE / 2, heading, size=9.0, is_bold=True, color=INK)
    write_line(axes, FOOT / 2, foot_text(stages, has_skips=bool(skips)), size=6.0, is_bold=False, color=FAINT)
    return figure


def check_drawable(num_stages: int, skips: Pairs) -> None:
    if not num_stages:
        raise OptionError("a figure of a network needs stages that run, got none; find them with trace_stages")
    if strange := sorted(pair for pair in skips if not 0 <= pair[0] < pair[1] < num_stages):
        raise OptionError(f"a link goes from one of {num_stages} stages that run to a later one, got {strange[0]}")


def draw_links(axes: Axes, boxes: Sequence[Box], skips: Pairs, chain: Pairs) -> None:
    """Draw an arrow from each stage to those that read it; around blocks that are none of theirs."""
    cards = [box for box in boxes if box.row == "middle"]
    lanes: Counter[Point] = Counter()
    for i, j in sorted(skips | chain):
        a, b = boxes[i], boxes[j]
        is_main = all(box.row == "middle" for box in boxes[i + 1 : j])
        if a.row == b.row:
            path = straight_path(a, b) if (i, j) in chain else arc_path(a, b)
        else:
            path = down_path(a, b, [card for card in cards if card not in (a, b)], lanes)
        is_block = "middle" in (a.row, b.row)
        axes.add_patch(
            FancyArrowPatch(
                path=path, arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0, joinstyle="miter",
                color=hex_of("block") if is_block else INK if is_main else FAINT, zorder=1,
                linewidth=1.2 if is_main or is_block else 0.8,
            )
        )  # fmt: skip


def straight_path(a: Box, b: Box) -> Path:
    side = math.copysign(0.5, b.x - a.x)
    return Path([(a.x + side * a.width, a.y), (b.x - side * b.width, b.y)])


def arc_path(a: Box, b: Box) -> Path:
    """Return an arc between two stages of one row, on the side of the other row."""
    start, end, sign = (a.bottom, b.bottom, -1) if a.row == "top" else (a.top, b.top, 1)
    peak = sign * max(sign * start, sign * end) + sign * min(0.12 + 0.06 * abs(a.x - b.x), 0.36)
    aside = math.copysign(0.25, b.x - a.x)  # the middle belongs to lines between the rows
    x0, x1 = a.x + aside * a.width, b.x - aside * b.width
    return Path([(x0, start), (x0, peak), (x1, peak), (x1, end)], CURVE)


def down_path(a: Box, b: Box, cards: Sequence[Box], lanes: Counter[Point]) -> Path:
    """Return a curve from a stage down to another; ``lanes`` counts the lines at each side of a block."""
    corners: list[Point] = [(a.x, a.bottom), (b.x, b.top)]
    for card in sorted(cards, key=lambda card: -card.y):
        if not does_cross(curve(corners[-2:]), card):
            continue
        side = 1 if (a.x + b.x) / 2 > card.x else -1
        if not MARGIN < card.x + side * (card.width / 2 + 2 * LANE) < WIDTH - MARGIN:
            side = -side
        edge = card.x + side * card.width / 2
        lanes[edge, card.y] += 1
        x = edge + side * (PAD + LANE * (lanes[edge, card.y] - 1))
        corners[-1:] = [(x, card.top), (x, card.bottom), corners[-1]]
    return curve(corners)


def curve(corners: Sequence[Point]) -> Path:
    """Return a line through all corners, upright at each."""
    vertices, codes = [corners[0]], [CURVE[0]]
    for (x0, y0), (x1, y1) in pairwise(corners):
        vertices += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
        codes += CURVE[1:]
    return Path(vertices, codes)


def does_cross(path: Path, card: Box) -> bool:
    """Whether a path comes near a block."""
    near = PAD / 2  # by samples: matplotlib's own test flattens curves by pixels, and these are inches
    controls = np.asarray(path.vertices, float)
    for start in range(0, len(controls) - 1, 3):
        x, y = sample_cubic(controls[start : start + 4])
        is_inside = (abs(x - card.x) < card.width / 2 + near) & (abs(y - card.y) < card.height / 2 + near)
        if is_inside.any():
            return True
    return False


def sample_cubic(controls: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x and y of points along a cubic curve given by its four control points."""
    t = np.linspace(0, 1, 65)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    points: NDArray[np.float64] = (weights @ controls).T
    return points


def draw_box(axes: Axes, stage: Stage, box: Box) -> None:
    is_block = stage.role == "block"
    corner = (box.x - box.width / 2, box.bottom)
    axes.add_patch(
        Rectangle(
            corner, box.width, box.height, facecolor=hex_of(stage.role), edgecolor=INK, zorder=3,
            linewidth=1.4 if is_block else 0.6,
        )
    )  # fmt: skip


def draw_label(axes: Axes, stage: Stage, box: Box, lettering: Lettering, label: Sequence[Line]) -> None:
    """Write a label on the outer side of its box."""
    is_above, line = box.row == "top", lettering.line
    for place, (text, is_bold) in enumerate(label):
        look = {"size": lettering.size, "weight": "bold" if is_bold else "normal", "color": name_colour(stage, is_bold)}
        if lettering.is_upright:
            x, y = box.x + (place - (len(label) - 1) / 2) * line, box.top + PAD if is_above else box.bottom - PAD
            write(axes, x, y, text, rotation=90, ha="left" if is_above else "right", va="center", **look)
        else:
            lines_below = len(label) - 1 - place if is_above else -1 - place
            y = (box.top + PAD if is_above else box.bottom - PAD) + (lines_below + 0.25) * line
            write(axes, box.x, y, text, ha="center", va="baseline", **look)


def draw_card(axes: Axes, stage: Stage, card: Box, side: Side) -> None:
    """Draw a block that stands between the rows, with its label in a frame."""
    corner = (card.x - card.width / 2, card.bottom)
    axes.add_patch(
        FancyBboxPatch(
            corner, card.width, card.height, boxstyle="round,pad=0,rounding_size=0.05", facecolor="white",
            edgecolor=hex_of("block"), linewidth=1.4, zorder=2,
        )
    )  # fmt: skip
    width, height = side
    box = Box("middle", card.x, card.top - PAD - height / 2, width, height)
    draw_box(axes, stage, box)
    draw_label(axes, stage, box, Lettering([], CARD_SIZE, is_upright=False), card_label(stage))


def draw_captions(axes: Axes, stages: Sequence[Stage], boxes: Sequence[Box], slot: float) -> None:
    """Name the rows at their left end by the word that their labels leave out."""
    for row in ("top", "bottom"):
        here = [(stage.role, box) for stage, box in zip(stages, boxes, strict=True) if box.row == row]
        roles = list(dict.fromkeys(role for role, _ in here if role in CAPTIONED))
        if roles:
            left = min(here, key=lambda found: found[1].x)[1]
            x, colour = left.x - slot / 2 - CAPTION / 2, hex_of(roles[0])
            write(axes, x, left.y, ", ".join(roles), size=8, weight="bold", color=colour, rotation=90, ha="center",
                  va="center")  # fmt: skip


def foot_text(stages: Sequence[Stage], *, has_skips: bool) -> str:
    """Return what sizes and lines mean, and what the figure leaves out."""
    said = ["numbers: shape of the output, parameters"]
    said.append("height of a box: side of its map, width: channels (log scales)")
    if has_skips:
        said.append("grey lines: skip links")
    said += [f"not run: {count_text(stage.parameters)} parameters" for stage in stages if stage.role == "unused"]
    return "; ".join(said)


def write_line(axes: Axes, y: float, text: str, *, size: float, is_bold: bool, color: str) -> None:
    """Write a line across the figure, smaller where it is long."""
    size *= min(1.0, (WIDTH - 2 * MARGIN) / text_width(text, is_bold, size))
    weight = "bold" if is_bold else "normal"
    write(axes, WIDTH / 2, y, text, size=size, weight=weight, color=color, ha="center", va="center")


def write(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    axes.text(x, y, text, family=FAMILY, parse_math=False, rotation_mode="anchor", zorder=4, **look)


def name_colour(stage: Stage, is_bold: bool) -> str:
    return hex_of("block") if is_bold and stage.role == "block" else INK


def hex_of(role: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*COLOURS.get(role, OTHER))
