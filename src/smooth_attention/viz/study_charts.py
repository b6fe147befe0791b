"""Charts of a study for a page: one look for each arm, plotly figures that fit a phone; plain data in."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from smooth_attention.viz.colours import palette

__all__ = [
    "FAINT",
    "FONT",
    "GRID",
    "INK",
    "SHADE",
    "ArmStyle",
    "Cloud",
    "arm_styles",
    "blank_chart",
    "chart_json",
    "chart_library",
    "dot_chart",
    "plain",
    "scatter_chart",
]

INK, FAINT, GRID, SHADE = "#24292f", "#6b7280", "#e6e6e2", "rgba(110, 118, 129, 0.14)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LETTER_PX = 7.5  # width of a letter in a legend, on average
PHONE_PX = 300  # what a chart of a phone leaves to its legend

# plotly's symbol and matplotlib's marker
SYMBOLS = (
    ("circle", "o"),
    ("square", "s"),
    ("diamond", "D"),
    ("triangle-up", "^"),
    ("x", "X"),
    ("triangle-down", "v"),
    ("cross", "P"),
    ("star", "*"),
)
DASHES = (("solid", "-"), ("dash", "--"), ("dot", ":"), ("dashdot", "-."))
GREY = (70, 70, 70)
DARK_ENOUGH = (0, 1, 2, 3, 4, 5, 9, 10)  # of the classes' colours: yellow is lost on white
COLOURS = tuple((int(r), int(g), int(b)) for r, g, b in (*palette(11)[list(DARK_ENOUGH)], GREY))


@dataclass(frozen=True, slots=True)
class ArmStyle:
    """How an arm looks in every chart; colour and symbol differ alike, so that neither is needed.

    Attributes:
        colour: red, green, blue, each 0 to 255.
        symbol: plotly's.
        marker: matplotlib's.
        dash: plotly's, of its lines.
        line: matplotlib's.
    """

    colour: tuple[int, int, int]
    symbol: str
    marker: str
    dash: str
    line: str

    @property
    def hex(self) -> str:
        return "#{:02x}{:02x}{:02x}".format(*self.colour)

    def fill(self, alpha: float) -> str:
        """Return the colour as CSS with an opacity."""
        return "rgba({}, {}, {}, {})".format(*self.colour, alpha)


def arm_styles(names: Iterable[str]) -> dict[str, ArmStyle]:
    """Return a style for each arm, by its place among ``names``: up to 72 look different."""
    styles = {}
    for place, name in enumerate(dict.fromkeys(names)):
        symbol, marker = SYMBOLS[place % len(SYMBOLS)]
        dash, line = DASHES[place // len(COLOURS) % len(DASHES)]
        styles[name] = ArmStyle(COLOURS[place % len(COLOURS)], symbol, marker, dash, line)
    return styles


@dataclass(frozen=True, eq=False)
class Cloud:
    """One figure of each image under two arms.

    Attributes:
        name: of the contrast.
        style: of the arm.
        stems: of the images.
        reference: figure under the reference, NaN where undefined.
        arm: figure under the arm.
    """

    name: str
    style: ArmStyle
    stems: Sequence[str]
    reference: Sequence[float]
    arm: Sequence[float]


def scatter_chart(clouds: Sequence[Cloud]) -> go.Figure:
    """Draw images by their IoU under reference and arm; the first contrast is shown, the legend adds the others."""
    values = np.concatenate([np.concatenate([cloud.reference, cloud.arm]) for cloud in clouds])
    low = max(0.0, float(np.nanmin(values)) - 0.03)
    figure = blank_chart("IoU of the arm", "IoU of the reference", [c.name for c in clouds], plot_px=340)
    figure.add_scatter(
        x=[low, 1], y=[low, 1], mode="lines", line={"color": FAINT, "width": 1, "dash": "dot"}, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip
    for place, cloud in enumerate(clouds):
        figure.add_scatter(
            x=np.asarray(cloud.reference, np.float32),
            y=np.asarray(cloud.arm, np.float32),
            text=[plain(stem) for stem in cloud.stems],
            mode="markers",
            name=plain(cloud.name),
            visible=True if place == 0 else "legendonly",
            marker={
                "color": cloud.style.fill(0.65),
                "symbol": cloud.style.symbol,
                "size": 8,
                "line": {"color": "white", "width": 0.7},
            },
            hovertemplate="%{text}<br>arm %{y:.3f}, reference %{x:.3f}<extra></extra>",
        )
    for text, x, y, xanchor, yanchor in (
        ("arm better", 0.02, 0.98, "left", "top"),
        ("reference better", 0.98, 0.02, "right", "bottom"),
    ):
        figure.add_annotation(
            text=text, x=x, y=y, xref="paper", yref="paper", xanchor=xanchor, yanchor=yanchor, showarrow=False,
            font={"size": 12, "color": FAINT},
        )  # fmt: skip
    figure.update_xaxes(range=[low, 1.01])
    figure.update_yaxes(range=[low, 1.01])
    return figure


def dot_chart(
    values: Mapping[str, Mapping[str, Sequence[float]]], styles: Mapping[str, ArmStyle], *, title: str, x_title: str
) -> go.Figure:
    """Draw a dot for each training, a line for each arm, a filled or hollow symbol for each series.

    Args:
        values: figures of the trainings by the name of the arm, by the name of the series (at most two).
        styles: by the name of the arm.
        title: above the chart.
        x_title: of the figures, with their unit.
    """
    arms = list(dict.fromkeys(arm for by_arm in values.values() for arm in by_arm))
    figure = blank_chart(title, x_title, list(values), plot_px=60 + 28 * len(arms))
    for hollow, (series, by_arm) in zip(("", "-open"), values.items(), strict=False):
        points = [(arm, value) for arm, found in by_arm.items() for value in found]
        figure.add_scatter(
            x=[value for _, value in points],
            y=[arms.index(arm) for arm, _ in points],
            text=[plain(arm) for arm, _ in points],
            mode="markers",
            name=plain(series),
            marker={
                "color": [styles[arm].hex for arm, _ in points],
                "symbol": [styles[arm].symbol + hollow for arm, _ in points],
                "size": 9,
            },
            hovertemplate="%{text}: %{x:.3g}<extra></extra>",
        )
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(
        tickvals=list(range(len(arms))), ticktext=[plain(arm) for arm in arms], range=[len(arms) - 0.4, -0.6]
    )
    return figure


def blank_chart(title: str, x_title: str, names: Sequence[str], *, plot_px: int) -> go.Figure:
    """Return a figure without data, as high as its plot and its legend need on a phone.

    Args:
        title: what the vertical axis shows; it stands above, where a phone has room.
        x_title: what the horizontal axis shows.
        names: in the legend, below.
        plot_px: height of the plot itself.
    """
    legend_px = 22 * legend_rows(names)
    top, bottom = (38 if title else 12), 62
    figure = go.Figure(layout={"template": go.layout.Template()})
    figure.update_layout(
        height=top + plot_px + bottom + legend_px,
        margin={"l": 8, "r": 14, "t": top, "b": bottom + legend_px},
        title={"text": plain(title), "x": 0, "xref": "container", "xanchor": "left", "y": 1, "yanchor": "top"}
        | {"pad": {"t": 10, "l": 8}, "font": {"size": 14, "color": INK}},
        font={"family": FONT, "size": 13, "color": INK},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -54 / plot_px, "yanchor": "top", "yref": "paper"},
        showlegend=bool(names),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"bgcolor": "white", "font": {"family": FONT, "size": 13, "color": INK}},
        dragmode=False,  # a finger scrolls the page
        hovermode="closest",
    )
    axis: dict[str, Any] = {"gridcolor": GRID, "linecolor": FAINT, "zeroline": False, "automargin": True}
    figure.update_xaxes(
        **axis, title={"text": plain(x_title), "standoff": 8, "font": {"size": 13}}, showline=True, ticks="outside"
    )
    figure.update_yaxes(**axis)
    return figure


def legend_rows(names: Sequence[str]) -> int:
    """Return how many rows a legend takes at most, on a phone."""
    widest = max((len(name) for name in names), default=0) * LETTER_PX + 60
    return -(-len(names) // max(1, int(PHONE_PX // widest)))


def plain(text: str) -> str:
    """Return text that plotly shows as it is: it reads tags and entities."""
    return html.escape(text, quote=False)


def chart_json(figure: go.Figure) -> str:
    """Return a figure as JSON that can stand inside a script element: ``<``, ``>`` and ``/`` are escaped."""
    text: str = figure.to_json()
    return text


def chart_library() -> str:
    """Return the JavaScript that draws charts, about 5 MB; it can stand inside a script element."""
    library: str = get_plotlyjs()
    return library
