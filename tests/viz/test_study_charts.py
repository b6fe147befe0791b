"""Charts say what they were given, whatever the names hold; nothing global is touched."""

from __future__ import annotations

import itertools
import json
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from smooth_attention.viz.colours import lab_as_seen
from smooth_attention.viz.curves import Curve, Level, curve_chart, curve_figure, print_figure
from smooth_attention.viz.forest import ForestRow, forest_chart, forest_figure
from smooth_attention.viz.study_charts import (
    Cloud,
    arm_styles,
    chart_json,
    chart_library,
    dot_chart,
    legend_rows,
    scatter_chart,
)

NASTY = "</script><b>$x_{0}$ %{y} & <a href='http://example.org'>"
STYLES = arm_styles(["none", "attention", "smooth-0.4"])
STYLE = STYLES["smooth-0.4"]


def row(**values: Any) -> ForestRow:
    shown = {"low": 1.0, "high": 3.0, "trained_low": 1.5, "trained_high": 2.5} | values
    return ForestRow(
        **{"group": "flood", "label": "smooth-0.4 against none", "verdict": "better", "style": STYLE, "mean": 2.0}
        | shown
    )


def curve(name: str = "smooth", length: int = 3, **values: Any) -> Curve:
    x = list(range(1, length + 1))
    return Curve(**{"name": name, "style": STYLE, "x": x, "mean": [0.5] * length} | values)


def traces(figure: Any) -> list[dict[str, Any]]:
    """Return the traces of a chart as the page gets them."""
    found: list[dict[str, Any]] = json.loads(chart_json(figure))["data"]
    return found


def test_arms_differ_in_look_even_by_symbol_alone() -> None:
    styles = list(arm_styles(f"arm{place}" for place in range(72)).values())
    assert len({(style.colour, style.symbol) for style in styles}) == 72
    assert len({style.symbol for style in styles[:8]}) == 8
    assert arm_styles(["a", "b"])["a"] == arm_styles(["a", "c"])["a"]


def test_colours_of_few_arms_stay_apart_to_colour_blind_eyes_and_on_white() -> None:
    colours = np.array([style.colour for style in arm_styles("abcdef").values()], np.uint8)
    for seen in lab_as_seen(colours):
        apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
        assert min(apart) > 10
        assert seen[:, 0].max() < 80


def test_names_are_shown_as_they_are_and_cannot_leave_the_script() -> None:
    figures = [
        curve_chart([curve(NASTY)], [Level(NASTY, STYLE, 0.4)], title=NASTY, x_title=NASTY),
        scatter_chart([Cloud(NASTY, STYLE, [NASTY], [0.5], [0.6])]),
        dot_chart({NASTY: {NASTY: [1.0]}}, {NASTY: STYLE}, title=NASTY, x_title=NASTY),
        forest_chart([row(label=NASTY, group=NASTY, verdict=NASTY)], 1.0),
    ]
    for figure in figures:
        text = chart_json(figure)
        assert "<" not in text
        assert "\\u003cb\\u003e$" not in text
        assert "&lt;b&gt;$x_{0}$ %{y} &amp; &lt;a href" in text
        hovers = [trace.get("hovertemplate") or "" for trace in json.loads(text)["data"]]
        assert not any("example.org" in hover for hover in hovers)


def test_library_is_whole_and_can_stand_in_a_script() -> None:
    library = chart_library()
    assert "newPlot" in library
    assert "</script" not in library.lower()


def test_forest_draws_both_intervals_the_margin_and_every_label() -> None:
    figure = forest_chart([row(), row(group="fish", mean=-1.0, low=-4.0, high=2.0, verdict="can't tell")], 0.5)
    thick, thin, means = traces(figure)[:3]
    assert thick["x"] == [1.0, 3.0, None, -4.0, 2.0, None]
    assert thin["x"] == [1.5, 2.5, None] * 2
    assert means["x"] == [2.0, -1.0]
    assert "−4.00 to +2.00" in means["text"][1]
    band = figure.layout.shapes[0]
    assert (band.x0, band.x1) == (-0.5, 0.5)
    words = [annotation.text for annotation in figure.layout.annotations]
    assert words == [
        "smooth-0.4 against none: better",
        "smooth-0.4 against none: can't tell",
        "<b>flood</b>",
        "<b>fish</b>",
    ]


def test_forest_of_one_replicate_has_no_interval_over_trainings() -> None:
    thick, thin, means = traces(forest_chart([row(low=None, high=None)], 1.0))
    assert thick["x"] == []
    assert thin["x"] == [1.5, 2.5, None]
    assert "over trainings and images: unbounded" in means["text"][0]


def test_forest_cuts_an_interval_that_would_hide_the_others_and_marks_where() -> None:
    narrow = [row(group="a") for _ in range(4)]
    figure = forest_chart([*narrow, row(group="a", low=-90.0, high=91.0)], 1.0)
    reach = figure.layout.xaxis.range[1]
    assert reach < 12
    cut = traces(figure)[-1]
    assert cut["x"] == [-reach, reach]
    assert cut["marker"]["symbol"] == ["triangle-left", "triangle-right"]


@pytest.mark.parametrize("length", [3, 20])
def test_curve_has_its_band_and_its_symbols(length: int) -> None:
    low, high = [0.4] * length, [0.6] * length
    found = traces(curve_chart([curve(length=length, low=low, high=high)], title="IoU", x_title="epoch"))
    band, line = found[0], found[1]
    assert band["fill"] == "toself"
    assert line["text"][0] == "smooth, 1: 0.500 (0.400 to 0.600)"
    assert line["mode"] == ("lines+markers" if length == 3 else "lines")
    assert len(found) == (2 if length == 3 else 3)


def test_curve_without_bounds_has_no_band() -> None:
    nan = [float("nan")] * 3
    found = traces(curve_chart([curve(low=nan, high=nan)], title="IoU", x_title="epoch"))
    assert [trace.get("fill") for trace in found] == [None]
    assert found[0]["text"][0] == "smooth, 1: 0.500"


def test_levels_span_the_curves() -> None:
    level = traces(curve_chart([curve()], [Level("none", STYLES["none"], 0.45)], title="IoU", x_title="t"))[-1]
    assert level["x"] == [1, 3]
    assert level["y"] == [0.45, 0.45]


def test_scatter_shows_the_first_contrast_and_offers_the_others() -> None:
    clouds = [Cloud(name, STYLE, ["im1"], [0.5], [0.6]) for name in ("first", "second")]
    line, first, second = traces(scatter_chart(clouds))
    assert line["x"] == line["y"]
    assert (first["visible"], second["visible"]) == (True, "legendonly")
    assert first["text"] == ["im1"]


def test_dots_have_a_row_for_each_arm() -> None:
    values = {"gate off": {"smooth-0.4": [1.0, 2.0]}, "block off": {"smooth-0.4": [3.0], "attention": [4.0]}}
    figure = dot_chart(values, STYLES, title="", x_title="%")
    gate, block = traces(figure)
    assert gate["y"] == [0, 0]
    assert block["y"] == [0, 1]
    assert figure.layout.yaxis.ticktext == ("smooth-0.4", "attention")
    assert block["marker"]["symbol"] == ["diamond-open", "square-open"]


def test_legend_takes_the_rows_that_a_phone_needs() -> None:
    assert legend_rows([]) == 0
    assert legend_rows(["none", "blur"]) == 1
    assert legend_rows(["smooth-0.4"] * 6) == 3
    assert legend_rows(["a name that is far longer than any phone is wide"] * 2) == 2


def test_charts_grow_with_their_legend() -> None:
    few, many = (
        curve_chart([curve(f"smooth-{place}") for place in range(count)], title="", x_title="") for count in (2, 12)
    )
    assert many.layout.height > few.layout.height + 80


def test_print_figures_say_the_same_and_touch_nothing_global() -> None:
    settings = dict(matplotlib.rcParams)
    forest = forest_figure([row(), row(group="fish", low=None, high=None, trained_low=None, trained_high=None)], 1.0)
    curves = curve_figure(
        [curve(low=[0.4] * 3, high=[0.6] * 3)], [Level("$a_b", STYLE, 0.4)], title="$x^2$", x_title="t", y_title="IoU"
    )
    for figure, words in ((forest, "smooth-0.4 against none: better"), (curves, "$x^2$")):
        files = print_figure(figure)
        assert files["png"].startswith(b"\x89PNG")
        assert words in files["svg"].decode()
        assert files == print_figure(figure)
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == []
