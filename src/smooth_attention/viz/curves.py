"""Curves with bands and levels to compare them with: as plotly figures for a page, as matplotlib figures for paper."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smooth_attention.viz.study_charts import FAINT, GRID, ArmStyle, blank_chart, plain

__all__ = ["Curve", "Level", "Panel", "curve_chart", "curve_figure", "panel_figure", "print_figure", "tidy"]

PRINT_DPI = 300
EMBEDDED_DPI = 150  # of images inside an SVG


@dataclass(frozen=True, eq=False)
class Curve:
    """A figure along an axis, NaN where there is none.

    Attributes:
        name: in the legend.
        style: of its arm.
        x: places, ascending.
        mean: figure at each place.
        low: lower end of the band; None: no band; NaN where it is unbounded.
        high: upper end.
    """

    name: str
    style: ArmStyle
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """A figure that does not depend on the axis: a horizontal line."""

    name: str
    style: ArmStyle
    mean: float


def curve_chart(
    curves: Sequence[Curve], levels: Sequence[Level] = (), *, title: str, x_title: str, digits: int = 3
) -> go.Figure:
    """Draw curves over their bands, and levels.

    Args:
        curves: at least one.
        levels: to compare them with.
        title: what the vertical axis shows.
        x_title: what the horizontal axis shows.
        digits: of the figures that hovering shows.
    """
    names = [curve.name for curve in curves] + [level.name for level in levels]
    figure = blank_chart(title, x_title, names, plot_px=260)
    for curve in curves:
        add_band(figure, curve)
        has_many = len(curve.x) > 12
        figure.add_scatter(
            x=list(curve.x),
            y=np.asarray(curve.mean, np.float32),
            name=plain(curve.name),
            legendgroup=plain(curve.name),
            mode="lines" if has_many else "lines+markers",
            line={"color": curve.style.hex, "width": 2, "dash": curve.style.dash},
            marker={"symbol": curve.style.symbol, "size": 8},
            text=hover_texts(curve, digits),
            hovertemplate="%{text}<extra></extra>",
        )
        if has_many:  # a symbol now and then tells the arms apart
            add_symbols(figure, curve)
    ends = min(min(curve.x) for curve in curves), max(max(curve.x) for curve in curves)
    for level in levels:
        figure.add_scatter(
            x=list(ends),
            y=[level.mean] * 2,
            name=plain(level.name),
            mode="lines+markers",
            line={"color": level.style.hex, "width": 1.5, "dash": "dash"},
            marker={"symbol": level.style.symbol, "size": 7},
            text=[plain(f"{level.name}: {level.mean:.{digits}f}")] * 2,
            hovertemplate="%{text}<extra></extra>",
        )
    return figure


def hover_texts(curve: Curve, digits: int) -> list[str]:
    texts = []
    for place, (x, mean) in enumerate(zip(curve.x, curve.mean, strict=True)):
        text = f"{curve.name}, {x:g}: {mean:.{digits}f}"
        if curve.low is not None and curve.high is not None and np.isfinite(curve.low[place]):
            text += f" ({curve.low[place]:.{digits}f} to {curve.high[place]:.{digits}f})"
        texts.append(plain(text))
    return texts


def add_band(figure: go.Figure, curve: Curve) -> None:
    """Shade between the ends of the band, where it is bounded."""
    if curve.low is None or curve.high is None:
        return
    bounded = np.isfinite(curve.low) & np.isfinite(curve.high)
    x, low, high = (np.asarray(values, float)[bounded] for values in (curve.x, curve.low, curve.high))
    if len(x) < 2:
        return
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=np.array([*high, *low[::-1]], np.float32),
        mode="lines",
        fill="toself",
        fillcolor=curve.style.fill(0.14),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=plain(curve.name),
    )


def add_symbols(figure: go.Figure, curve: Curve) -> None:
    step = -(-len(curve.x) // 8)
    figure.add_scatter(
        x=list(curve.x)[::step],
        y=np.asarray(curve.mean, np.float32)[::step],
        mode="markers",
        marker={"symbol": curve.style.symbol, "size": 8, "color": curve.style.hex},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=plain(curve.name),
    )


def curve_figure(
    curves: Sequence[Curve],
    levels: Sequence[Level] = (),
    *,
    title: str,
    x_title: str,
    y_title: str,
    x_scale: Literal["linear", "log"] = "linear",
) -> Figure:
    """Draw the same for paper, one column wide; a figure of its own, nothing global is touched."""
    return panel_figure([Panel(y_title, curves, levels)], title=title, x_title=x_title, x_scale=x_scale)


@dataclass(frozen=True, eq=False)
class Panel:
    """One of several plots over the same axis.

    Attributes:
        y_title: what its vertical axis shows.
        curves: at least one.
        levels: to compare them with.
    """

    y_title: str
    curves: Sequence[Curve]
    levels: Sequence[Level] = ()


def panel_figure(
    panels: Sequence[Panel], *, title: str, x_title: str, x_scale: Literal["linear", "log"] = "linear"
) -> Figure:
    """Draw plots over one axis for paper, one below the other, with one legend."""
    figure = Figure(figsize=(4.2, 1.4 + 2.0 * len(panels)), layout="constrained")
    cells = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, panel in zip(cells, panels, strict=True):
        draw_panel(axes, panel)
        axes.set_ylabel(panel.y_title, fontsize=9)
        axes.set_xscale(x_scale)
    cells[0].set_title(title, fontsize=10, parse_math=False, wrap=True)
    cells[-1].set_xlabel(x_title, fontsize=9)
    tidy(figure)
    entries = {label: handle for axes in cells for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    legend = figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def draw_panel(axes: Axes, panel: Panel) -> None:
    for curve in panel.curves:
        style = curve.style
        axes.plot(
            curve.x, curve.mean, style.line, marker=style.marker, color=style.hex, markersize=5, label=curve.name,
            markevery=-(-len(curve.x) // 12),
        )  # fmt: skip
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=style.hex, alpha=0.15, linewidth=0)
    ends = min(min(curve.x) for curve in panel.curves), max(max(curve.x) for curve in panel.curves)
    for level in panel.levels:
        axes.plot(
            ends, [level.mean] * 2, "--", marker=level.style.marker, color=level.style.hex, linewidth=1, markersize=4,
            label=level.name,
        )  # fmt: skip


def tidy(figure: Figure) -> None:
    """Leave to a printed figure what is read: no frame, a faint grid."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(labelsize=8, color=FAINT)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)


def print_figure(figure: Figure) -> dict[str, bytes]:
    """Return a figure for paper by its file ending: ``png`` at 300 dpi, ``svg``."""
    files = {}
    # a PNG packed tighter takes twice as long to write
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": PRINT_DPI, "pil_kwargs": {"compress_level": 3}},
        "svg": {"dpi": EMBEDDED_DPI, "metadata": {"Date": None}},
    }
    for kind, own in options.items():
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "study"}):  # text stays text, names stay
            figure.savefig(buffer, format=kind, **own)
        files[kind] = buffer.getvalue()
    return files
