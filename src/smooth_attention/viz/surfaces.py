"""Attention in three dimensions over positions of the image: static for paper, turning (plotly) for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from smooth_attention.core.errors import OptionError
from smooth_attention.viz.heatmaps import ATTENTION, POWER, Map
from smooth_attention.viz.study_charts import FONT, INK, plain

__all__ = ["scatter_chart", "scatter_figure", "surface_chart", "surface_figure", "turning_page"]

AXES = ("x (px)", "y (px)", "attention")
ELEVATION, AZIMUTH = 35, -60


def centres(shape: tuple[int, int], grid: tuple[int, int], covered: float = 1.0) -> tuple[NDArray, NDArray]:
    """Return x and y of the cells' centres, in pixels of an image of shape (H, W)."""
    (height, width), (rows, columns) = shape, grid
    return (np.arange(columns) + 0.5) * width / (columns * covered), (np.arange(rows) + 0.5) * height / (rows * covered)


def surface_figure(
    maps: Mapping[str, Map], shape: tuple[int, int], *, title: str, covered: Sequence[float] = ()
) -> Figure:
    """Draw rows of attention as surfaces over the image's positions, side by side, on one scale.

    Args:
        maps: (h, w) by name.
        shape: (H, W) of the image.
        title: above.
        covered: of each map, the part of the grid's sides that the image fills; empty: all of it.

    Raises:
        OptionError: without maps.
    """
    figure, cells, limit = three_axes(list(maps), max_of(maps.values()), title)
    norm, table = PowerNorm(POWER, 0, limit), colormaps[ATTENTION]
    for cell, values, part in zip(cells, maps.values(), covered or [1.0] * len(maps), strict=True):
        x, y = np.meshgrid(*centres(shape, values.shape, part))
        # by the highest corner of each face; plot_surface would take the mean, and a peak would have no peak's colour
        highest = ndimage.maximum_filter(values, 2, origin=-1)
        cell.plot_surface(
            x, y, values, facecolors=table(norm(highest)), rstride=1, cstride=1, linewidth=0.2,
            edgecolor=(0, 0, 0, 0.25), shade=False,
        )  # fmt: skip
        cell.set(xlim=(0, shape[1]), ylim=(shape[0], 0))
    return figure


def scatter_figure(
    maps: Mapping[str, Sequence[Map]], shape: tuple[int, int], *, title: str, covered: Sequence[float] = ()
) -> Figure:
    """Draw attention values as points over the positions that are looked at, side by side, on one scale.

    Args:
        maps: by name, rows of attention (h, w) of several positions of one network.
        shape: (H, W) of the image.
        title: above.
        covered: of each map, the part of the grid's sides that the image fills; empty: all of it.

    Raises:
        OptionError: without maps.
    """
    figure, cells, limit = three_axes(list(maps), max_of(np.stack(list(rows)) for rows in maps.values()), title)
    for cell, rows, part in zip(cells, maps.values(), covered or [1.0] * len(maps), strict=True):
        x, y, values = points(rows, shape, part)
        cell.scatter(
            x, y, values, c=values, cmap=ATTENTION, norm=PowerNorm(POWER, 0, limit), s=4, linewidths=0, alpha=0.8,
            depthshade=False,
        )  # fmt: skip
        cell.set(xlim=(0, shape[1]), ylim=(shape[0], 0))
    return figure


def three_axes(names: Sequence[str], limit: float, title: str) -> tuple[Figure, list, float]:
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    high = 3.7 * lines + 1.4
    figure = Figure(figsize=(4.3 * columns + 0.4, high))
    cells = []
    for place, name in enumerate(names):
        cell = figure.add_subplot(lines, columns, place + 1, projection="3d", elev=ELEVATION, azim=AZIMUTH)
        cell.set_zlim(0, limit)
        cell.set_title(name, fontsize=9, parse_math=False, y=0.98)
        cell.set_xlabel(AXES[0], fontsize=8)
        cell.set_ylabel(AXES[1], fontsize=8)
        cell.set_zlabel(AXES[2], fontsize=8)
        cell.tick_params(labelsize=7)
        cell.locator_params(nbins=5)
        cell.set_box_aspect((1, 1, 0.75), zoom=0.88)
        cells.append(cell)
    figure.subplots_adjust(left=0.01, right=0.97, top=1 - 0.65 / high, bottom=0.85 / high, wspace=0.05, hspace=0.08)
    bar = figure.add_axes((0.3, 0.55 / high, 0.4, 0.11 / high))
    figure.colorbar(ScalarMappable(PowerNorm(POWER, 0, limit), ATTENTION), cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=7)
    bar.set_xlabel("attention, share of 1 (one scale for all)", fontsize=8)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure, cells, limit


def surface_chart(
    maps: Mapping[str, Map], shape: tuple[int, int], *, title: str, covered: Sequence[float] = ()
) -> go.Figure:
    """Draw the surfaces of :func:`surface_figure` to be turned by hand."""
    limit = max_of(maps.values())
    traces = []
    for values, part in zip(maps.values(), covered or [1.0] * len(maps), strict=True):
        x, y = centres(shape, values.shape, part)
        traces.append(
            go.Surface(
                x=x, y=y, z=np.asarray(values, np.float32), surfacecolor=values**POWER, cmin=0, cmax=limit**POWER,
                colorscale=ATTENTION, showscale=False,
                hovertemplate="x %{x:.0f} px, y %{y:.0f} px<br>attention %{z:.3g}<extra></extra>",
            )
        )  # fmt: skip
    return scenes(traces, list(maps), shape, limit, title)


def scatter_chart(
    maps: Mapping[str, Sequence[Map]], shape: tuple[int, int], *, title: str, covered: Sequence[float] = ()
) -> go.Figure:
    """Draw the points of :func:`scatter_figure` to be turned by hand."""
    limit = max_of(np.stack(list(rows)) for rows in maps.values())
    traces = []
    for rows, part in zip(maps.values(), covered or [1.0] * len(maps), strict=True):
        x, y, values = (np.asarray(each, np.float32) for each in points(rows, shape, part))
        traces.append(
            go.Scatter3d(
                x=x, y=y, z=values, mode="markers",
                marker={"size": 2.5, "color": values**POWER, "cmin": 0, "cmax": limit**POWER, "colorscale": ATTENTION},
                hovertemplate="x %{x:.0f} px, y %{y:.0f} px<br>attention %{z:.3g}<extra></extra>",
            )
        )  # fmt: skip
    return scenes(traces, list(maps), shape, limit, title)


def scenes(
    traces: Sequence[go.Surface | go.Scatter3d], names: Sequence[str], shape: tuple[int, int], limit: float, title: str
) -> go.Figure:
    """Return one scene beside the other, all with the same axes."""
    figure = go.Figure(layout={"template": go.layout.Template()})
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    for place, (trace, name) in enumerate(zip(traces, names, strict=True)):
        line, column = divmod(place, columns)
        left, top = column / columns, 1 - line / lines
        domain = {"x": [left, left + 1 / columns], "y": [top - 0.92 / lines, top - 0.06 / lines]}
        scene = "scene" if place == 0 else f"scene{place + 1}"
        figure.add_trace(trace.update(scene=scene, showlegend=False))
        figure.update_layout({scene: scene_layout(shape, limit) | {"domain": domain}})
        figure.add_annotation(
            text=plain(name), x=left + 0.5 / columns, y=top, xref="paper", yref="paper", xanchor="center",
            yanchor="top", showarrow=False, font={"size": 13},
        )  # fmt: skip
    figure.update_layout(
        title={"text": plain(title).replace("\n", " "), "font": {"size": 14}, "x": 0, "pad": {"l": 8}},
        font={"family": FONT, "size": 11, "color": INK},
        margin={"l": 0, "r": 0, "t": 50, "b": 0},
        height=430 * lines + 50,
    )
    return figure


def scene_layout(shape: tuple[int, int], limit: float) -> dict[str, object]:
    height, width = shape
    longest = max(shape)
    return {
        "xaxis": {"title": {"text": AXES[0]}, "range": [0, width]},
        "yaxis": {"title": {"text": AXES[1]}, "range": [height, 0]},
        "zaxis": {"title": {"text": AXES[2]}, "range": [0, limit]},
        "aspectmode": "manual",
        "aspectratio": {"x": width / longest, "y": height / longest, "z": 0.6},
        "camera": {"eye": {"x": 1.1, "y": -1.4, "z": 1.1}},
    }


def points(
    rows: Sequence[Map], shape: tuple[int, int], covered: float
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return x, y and value of every attention value of every row, flat."""
    x, y = np.meshgrid(*centres(shape, rows[0].shape, covered))
    return np.tile(x.ravel(), len(rows)), np.tile(y.ravel(), len(rows)), np.concatenate([r.ravel() for r in rows])


def max_of(maps: object) -> float:
    """Return the largest value of all maps: the scale they share."""
    found = [float(values.max()) for values in maps]  # type: ignore[attr-defined]
    if not found:
        raise OptionError("a figure in three dimensions needs at least one map, got none")
    return max(found) or 1.0


def turning_page(figure: go.Figure) -> dict[str, bytes]:
    """Return a figure that turns by its file ending: ``html``, one page that opens offline, about 5 MB."""
    return {"html": figure.to_html(include_plotlyjs=True, full_html=True).encode()}
