"""Figures in three dimensions: values, places and one scale."""

from __future__ import annotations

import numpy as np
import pytest

from attention_maps import HEIGHT, WIDTH, make_row
from smooth_attention.core.errors import OptionError
from smooth_attention.viz.surfaces import centres, scatter_chart, scatter_figure, surface_chart, surface_figure
from viz_baselines import compare_with_baseline

ROW = make_row()
MAPS = {"before": ROW.plain, "as <used>": ROW.used}
CLOUDS = {"0.1": [ROW.plain, ROW.used], "0.9": [ROW.plain]}
SHAPE = (HEIGHT, WIDTH)


def decoded(values: object) -> np.ndarray:
    return np.asarray(values, float)


def test_centres_are_in_pixels_of_the_image() -> None:
    x, y = centres(SHAPE, (4, 6))
    assert x.tolist() == [10, 30, 50, 70, 90, 110]
    assert y.tolist() == [7.5, 22.5, 37.5, 52.5]
    assert centres(SHAPE, (4, 6), 0.5)[0].tolist() == [20, 60, 100, 140, 180, 220]


def test_static_figures_share_the_scale_of_attention() -> None:
    for figure in (surface_figure(MAPS, SHAPE, title="t"), scatter_figure(CLOUDS, SHAPE, title="t")):
        cells = [axes for axes in figure.axes if axes.name == "3d"]
        assert {cell.get_zlim() for cell in cells} == {(0.0, ROW.plain.max())}
        assert {(cell.get_xlim(), cell.get_ylim()) for cell in cells} == {((0, WIDTH), (HEIGHT, 0))}


def test_turning_figures_hold_the_values_at_their_places() -> None:
    chart = surface_chart(MAPS, SHAPE, title="t")
    for trace, values in zip(chart.data, MAPS.values(), strict=True):
        np.testing.assert_allclose(decoded(trace.z), values, rtol=1e-6)
        assert decoded(trace.x).tolist() == centres(SHAPE, (4, 6))[0].tolist()
        assert (trace.cmin, trace.cmax) == (0, pytest.approx(0.6**0.5))
    cloud = scatter_chart(CLOUDS, SHAPE, title="t")
    assert [len(trace.z) for trace in cloud.data] == [48, 24]
    peak = decoded(cloud.data[0].z).argmax()
    assert (cloud.data[0].x[peak], cloud.data[0].y[peak]) == (90, 22.5)
    scenes = [chart.layout.scene, chart.layout.scene2]
    assert {tuple(scene.zaxis.range) for scene in scenes} == {(0, ROW.plain.max())}
    assert [tuple(scene.yaxis.range) for scene in scenes] == [(HEIGHT, 0)] * 2  # rows run downwards, as in the image


def test_each_map_lies_where_its_network_saw_the_image() -> None:
    chart = surface_chart(MAPS, SHAPE, title="t", covered=[1.0, 0.5])
    assert [decoded(trace.x)[0] for trace in chart.data] == [10, 20]
    cloud = scatter_chart(CLOUDS, SHAPE, title="t", covered=[0.5, 1.0])
    assert [decoded(trace.y)[0] for trace in cloud.data] == [15, 7.5]


def test_names_are_shown_as_they_are() -> None:
    assert "as &lt;used&gt;" in [note.text for note in surface_chart(MAPS, SHAPE, title="t").layout.annotations]


def test_attention_of_zero_can_be_drawn() -> None:
    surface_figure({"nothing": np.zeros((2, 2))}, SHAPE, title="t").draw_without_rendering()


@pytest.mark.parametrize("draw", [surface_figure, scatter_figure, surface_chart, scatter_chart])
def test_nothing_to_draw_is_refused(draw) -> None:
    with pytest.raises(OptionError, match="at least one map"):
        draw({}, SHAPE, title="t")


def test_surface_looks_as_it_did() -> None:
    compare_with_baseline(surface_figure(MAPS, SHAPE, title="t"), "surface")
