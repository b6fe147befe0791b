"""Forest plot: how large each difference is and how sure; for a page and for paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from smooth_attention.viz.curves import tidy
from smooth_attention.viz.study_charts import FAINT, INK, SHADE, ArmStyle, blank_chart, plain

__all__ = ["ForestRow", "forest_chart", "forest_figure"]

OVER_TRAININGS, TRAINED_ONLY = "95 %, over trainings and images", "95 %, these trained networks only"
X_TITLE = "difference in points of IoU"
ROW_PX = 46
BELOW = 0.24  # where the second interval of a row lies


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One difference, in points.

    Attributes:
        group: rows of one group stand together, e.g. a dataset.
        label: what is compared.
        verdict: one or two words.
        style: of the arm.
        mean: difference.
        low: 95 % interval over trainings and images; None: unbounded.
        high: the other end.
        trained_low: 95 % interval of these trained networks only; None: unknown.
        trained_high: the other end.
    """

    group: str
    label: str
    verdict: str
    style: ArmStyle
    mean: float
    low: float | None
    high: float | None
    trained_low: float | None
    trained_high: float | None

    def describe(self) -> str:
        """Return the row in words, one line for the difference and one for each interval."""
        lines = [f"{self.label}, {self.group}: {signed(self.mean)} points"]
        for name, low, high in (
            (OVER_TRAININGS, self.low, self.high),
            (TRAINED_ONLY, self.trained_low, self.trained_high),
        ):
            ends = "unbounded" if low is None or high is None else f"{signed(low)} to {signed(high)}"
            lines.append(f"{name}: {ends}")
        return "\n".join(lines)


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def lay_out(rows: Sequence[ForestRow]) -> tuple[list[float], dict[str, float]]:
    """Return the height of each row, and that of each group's name above its rows, downwards from 0."""
    heights: list[float] = []
    heads: dict[str, float] = {}
    height = -0.4
    for row in rows:
        if row.group not in heads:
            heads[row.group] = height + 0.4
            height += 1.0
        heights.append(height)
        height += 1.0
    return heights, heads


def reach_of(rows: Sequence[ForestRow], margin: float) -> float:
    """Return how far the axis goes: two trainings can give intervals that would hide everything else."""
    near = [margin * 2, *(abs(row.mean) for row in rows)]
    near += [abs(end) for row in rows for end in (row.trained_low, row.trained_high) if end is not None]
    far = [max(abs(row.low), abs(row.high)) for row in rows if row.low is not None and row.high is not None]
    return 1.15 * min(max([*near, *far]), max([*near, 2.5 * float(np.median(far)) if far else 0.0]))


def forest_chart(rows: Sequence[ForestRow], margin: float) -> go.Figure:
    """Draw rows by group with the line of no difference and the band of differences that do not matter.

    Args:
        rows: at least one, those of a group together.
        margin: half width of the band, in points.
    """
    heights, heads = lay_out(rows)
    lowest = heights[-1] + 0.7
    reach = reach_of(rows, margin)
    shown = [OVER_TRAININGS, TRAINED_ONLY]
    figure = blank_chart("", X_TITLE, shown, plot_px=max(120, round(ROW_PX * (lowest + 0.5))))
    figure.add_vrect(x0=-margin, x1=margin, fillcolor=SHADE, line_width=0, layer="below")
    figure.add_vline(x=0, line={"color": INK, "width": 1.2})
    for is_trained, name in enumerate(shown):
        ends = [
            (row.trained_low, row.trained_high, height + BELOW) if is_trained else (row.low, row.high, height)
            for row, height in zip(rows, heights, strict=True)
        ]
        bounded = [end for end in ends if end[0] is not None]
        figure.add_scatter(
            x=[x for low, high, _ in bounded for x in (low, high, None)],
            y=[y for *_, height in bounded for y in (height, height, None)],
            mode="lines",
            name=name,
            line={"color": FAINT if is_trained else INK, "width": 1.5 if is_trained else 5},
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[row.mean for row in rows],
        y=heights,
        mode="markers",
        marker={
            "color": [row.style.hex for row in rows],
            "symbol": [row.style.symbol for row in rows],
            "size": 13,
            "line": {"color": "white", "width": 1},
        },
        text=[plain(row.describe()).replace("\n", "<br>") for row in rows],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    add_cut_ends(figure, rows, heights, reach)
    for row, height in zip(rows, heights, strict=True):
        write(figure, f"{plain(row.label)}: {plain(row.verdict)}", height - 0.38, size=13)
    for group, height in heads.items():
        write(figure, f"<b>{plain(group)}</b>", height - 0.38, size=14)
    figure.update_xaxes(range=[-reach, reach])
    figure.update_yaxes(range=[lowest, -0.5], visible=False)
    figure.update_layout(margin={"l": 14})
    return figure


def add_cut_ends(figure: go.Figure, rows: Sequence[ForestRow], heights: Sequence[float], reach: float) -> None:
    """Mark with an arrow each interval that goes on beyond the axis."""
    cut = [
        (side * reach, height, "triangle-right" if side > 0 else "triangle-left")
        for row, height in zip(rows, heights, strict=True)
        for side, end in ((-1, row.low), (1, row.high))
        if end is not None and side * end > reach
    ]
    if cut:
        x, y, symbols = zip(*cut, strict=True)
        figure.add_scatter(
            x=x, y=y, mode="markers", marker={"symbol": symbols, "size": 13, "color": INK}, cliponaxis=False,
            hovertemplate="the interval goes on<extra></extra>", showlegend=False,
        )  # fmt: skip


def write(figure: go.Figure, text: str, height: float, *, size: int) -> None:
    figure.add_annotation(
        text=text, x=0, xref="paper", xanchor="left", y=height, yanchor="middle", showarrow=False,
        bgcolor="rgba(255,255,255,0.75)", borderpad=1, font={"size": size, "color": INK},
    )  # fmt: skip


def forest_figure(rows: Sequence[ForestRow], margin: float) -> Figure:
    """Draw the same for paper; a figure of its own, nothing global is touched."""
    heights, heads = lay_out(rows)
    figure = Figure(figsize=(6.3, 1.2 + 0.3 * (heights[-1] + 1)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-margin, margin, color="0.9", zorder=0)
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
    for row, height in zip(rows, heights, strict=True):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [height, height], color=INK, linewidth=2.6, solid_capstyle="butt", zorder=2)
        if row.trained_low is not None and row.trained_high is not None:
            ends = [row.trained_low, row.trained_high]
            axes.plot(ends, [height + BELOW] * 2, color=FAINT, linewidth=0.9, zorder=2)
        axes.plot(row.mean, height, row.style.marker, color=row.style.hex, markersize=6.5, zorder=3)
    axes.plot([], [], color=INK, linewidth=2.6, label=OVER_TRAININGS)
    axes.plot([], [], color=FAINT, linewidth=0.9, label=TRAINED_ONLY)
    reach = reach_of(rows, margin)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(heights[-1] + 0.7, -0.5)
    tidy(figure)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    labels = {height: f"{row.label}: {row.verdict}" for row, height in zip(rows, heights, strict=True)}
    labels |= {height: group for group, height in heads.items()}
    axes.set_yticks(list(labels), list(labels.values()), parse_math=False)
    for tick, height in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if height in heads.values() else "normal")
    axes.set_xlabel(f"{X_TITLE}; grey: less than ± {margin:g} does not matter", fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
