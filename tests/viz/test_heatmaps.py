"""Maps over images: each cell where it belongs, one scale for what is compared, the position where it was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attention_maps import HEIGHT, WIDTH, make_image, make_row
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.viz.heatmaps import (
    ATTENTION,
    MARK,
    attention_figure,
    cells_of,
    colour_table,
    describe_gate,
    gate_overlay,
    heat_overlay,
    mark_box,
    matrix_figure,
)
from viz_baselines import compare_with_baseline


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("covered", [1.0, 0.75])
def test_each_pixel_has_the_colour_of_its_cell(covered: float) -> None:
    row = make_row()
    picture = heat_overlay(row.image, row.plain, limit=0.6, covered=covered, alpha=1.0)
    table = colour_table(ATTENTION)
    for y, x in [(0, 0), (59, 119), (20, 85), (31, 99), (15, 80)]:
        cell = int((y + 0.5) / HEIGHT * covered * 4), int((x + 0.5) / WIDTH * covered * 6)
        assert picture[y, x].tolist() == table[round(255 * (row.plain[cell] / 0.6) ** 0.5)].tolist()


def test_cells_share_out_pixels() -> None:
    assert cells_of(6, 3, 1.0).tolist() == [0, 0, 1, 1, 2, 2]
    assert cells_of(2, 5, 1.0).tolist() == [1, 3]
    assert cells_of(6, 4, 0.75).tolist() == [0, 0, 1, 1, 2, 2]


def test_opacity_blends_the_grey_image_with_the_colours() -> None:
    row = make_row()
    grey = heat_overlay(row.image, row.plain, limit=1.0, alpha=0.0)
    assert np.ptp(grey, axis=-1).max() <= 1
    full, half = (heat_overlay(row.image, row.plain, limit=1.0, alpha=a).astype(int) for a in (1.0, 0.5))
    assert np.abs(half - (full + grey) / 2).max() <= 1


def test_values_above_the_limit_and_undefined_ones_have_a_colour() -> None:
    picture = heat_overlay(np.zeros((1, 3, 3), np.uint8), np.array([[np.nan, 5.0, 1.0]]), limit=1.0, alpha=1.0)
    table = colour_table(ATTENTION)
    assert picture[0].tolist() == [table[0].tolist(), table[255].tolist(), table[255].tolist()]


def test_gate_is_white_where_smoothed() -> None:
    gate = np.array([[0.0, 0.5, 1.0]])
    picture = gate_overlay(np.zeros((1, 3, 3), np.uint8), gate, alpha=1.0)
    assert picture[0, :, 0].tolist() == pytest.approx([0, 128, 255], abs=1)


def test_mark_surrounds_its_box_and_leaves_the_rest() -> None:
    image = make_image()
    marked = mark_box(image, (20, 30, 40, 45))
    is_mark = (marked == [*bytes.fromhex(MARK[1:])]).all(-1)
    rows, columns = np.nonzero(is_mark)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (29, 45, 19, 40)
    np.testing.assert_array_equal(marked[32:43, 22:38], image[32:43, 22:38])
    np.testing.assert_array_equal(marked[:25], image[:25])
    assert (image == make_image()).all()
    assert mark_box(image, (0, 0, 20, 15)).shape == image.shape
    assert mark_box(image, (110, 50, 120, 60)).shape == image.shape


def test_what_can_not_be_drawn_is_refused() -> None:
    image = make_image()
    with pytest.raises(ShapeError, match="a map has two axes"):
        heat_overlay(image, np.zeros(4), limit=1.0)
    with pytest.raises(OptionError, match="alpha is an opacity from 0 to 1"):
        heat_overlay(image, np.zeros((2, 2)), limit=1.0, alpha=2.0)
    with pytest.raises(OptionError, match="limit positive"):
        heat_overlay(image, np.zeros((2, 2)), limit=0.0)
    with pytest.raises(OptionError, match="at least one row"):
        attention_figure([], title="")


def test_compared_rows_share_one_scale_and_the_position_is_marked_in_each_picture() -> None:
    rows = [make_row("first"), make_row("second", peak=0.9)]
    figure = attention_figure(rows, title="where one position looks")
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 10
    assert {tuple(axes.images[0].get_extent()) for axes in pictures} == {(0, WIDTH, HEIGHT, 0)}
    boxes = {
        (patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height())
        for axes in pictures
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    }
    assert boxes == {(20, 30, 20, 15)}
    # the peak of 0.6 has the same colour as 0.6 has on the scale up to 0.9
    first, second = (pictures[place].images[0].get_array() for place in (1, 6))
    norm = PowerNorm(0.5, 0, 0.9)
    expected = heat_overlay(rows[0].image, rows[0].plain, limit=0.9)
    np.testing.assert_array_equal(first, expected)
    assert (second != first).any()
    assert norm(0.9) == 1.0
    shown = texts(figure)
    for part in ("first", "second", "as used: threshold 0.4", "share of 1 (one scale for all)", "y (px)", "smoothed"):
        assert part in shown


def test_photos_of_a_camera_are_shrunk_and_keep_their_axes() -> None:
    row = replace(make_row(), image=np.zeros((2000, 3000, 3), np.uint8), box=(0, 0, 500, 500))
    cell = attention_figure([row], title="t").axes[0]
    assert max(cell.images[0].get_array().shape) <= 900
    assert cell.images[0].get_extent() == [0, 3000, 2000, 0]


def test_panorama_of_few_rows_is_drawn() -> None:
    row = replace(make_row(), image=np.zeros((8, 16_300, 3), np.uint8), box=(0, 0, 500, 2))
    assert attention_figure([row], title="t").axes[0].images[0].get_array().size > 0


def test_a_soft_gate_is_not_said_to_smooth_some_positions() -> None:
    assert describe_gate(np.array([[0.0, 1.0], [1.0, 1.0]])) == "75.0 % of 4 positions smoothed"
    assert describe_gate(np.array([[0.25, 0.3], [0.35, 0.3]])) == "smoothed by 0.25 to 0.35, mean 0.3"


def test_names_are_no_formulas() -> None:
    figure = attention_figure([make_row("a$b_{c}$")], title="x$y_{z}$")
    figure.draw_without_rendering()
    assert "a$b_{c}$" in texts(figure)


@pytest.mark.parametrize("step", [1, 3])
def test_matrix_is_labelled_for_what_it_is(step: int) -> None:
    matrix = np.random.default_rng(0).dirichlet(np.ones(24), 24)
    figure = matrix_figure(matrix[::step, ::step], (4, 6), step=step, title="run")
    shown = texts(figure)
    assert "both axes are indices, this is no image" in shown
    assert ("as 4 x 144, as published: each line mixes queries and keys" in shown) == (step == 1)
    assert (f"one in {step} of 24" in shown) == (step > 1)
    if step == 1:
        published = next(axes for axes in figure.axes if "published" in axes.get_title())
        np.testing.assert_array_equal(published.images[0].get_array(), matrix.reshape(4, 144))


def test_figures_look_as_they_did() -> None:
    compare_with_baseline(attention_figure([make_row("first"), make_row("second", peak=0.9)], title="t"), "attention")
    row = make_row()
    compare_with_baseline(mark_box(heat_overlay(row.image, row.used, limit=0.6), row.box), "overlay")
