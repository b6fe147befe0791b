"""Overlays colour the right pixels, sheets say what the colours mean, and nothing global is touched."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from smooth_attention.core.errors import DataError, OptionError, ShapeError
from smooth_attention.viz.colours import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    IGNORED_COLOUR,
    TRUE_POSITIVE,
    lab_as_seen,
    palette,
)
from smooth_attention.viz.overlays import (
    PredictionRow,
    Sample,
    error_overlay,
    mask_overlay,
    prediction_grid,
    sample_grid,
)


def draw(height=40, width=56, labels=2):
    """Return an image without pure colours and a label map with large blocks of every label."""
    rng = np.random.default_rng(0)
    image = rng.integers(60, 190, (height, width, 3), dtype=np.uint8)
    mask = np.broadcast_to(np.arange(width) * labels // width, (height, width)).astype(np.uint8)
    return image, mask


def texts(figure):
    """Return all that is written on a figure."""
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)} - {""}


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def rendered(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=50)
    return file.getvalue()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_mask_overlay_blends_the_foreground_and_leaves_the_background(alpha):
    image, mask = draw()
    before = image.copy()
    overlay = mask_overlay(image, mask, alpha=alpha)
    assert overlay.shape == image.shape
    assert overlay.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(overlay[mask == 0], image[mask == 0])
    inside = np.s_[2:-2, 32:-2]
    want = (1 - alpha) * image[inside] + alpha * np.array(TRUE_POSITIVE)
    np.testing.assert_allclose(overlay[inside], want, atol=0.51)
    np.testing.assert_array_equal(overlay[5, 28], TRUE_POSITIVE)  # the outline is opaque


def test_mask_overlay_takes_boolean_masks():
    image, mask = draw()
    np.testing.assert_array_equal(mask_overlay(image, mask == 1), mask_overlay(image, mask))


def test_mask_overlay_colours_each_of_several_classes():
    image, mask = draw(labels=4)
    overlay = mask_overlay(image, mask, alpha=1.0, num_classes=4)
    np.testing.assert_array_equal(overlay, palette(4)[mask])


@pytest.mark.parametrize("num_classes", [1, 4])
def test_ignored_pixels_are_grey_stripes(num_classes):
    image, mask = draw()
    mask[:20, :30] = 255
    overlay = mask_overlay(image, mask, num_classes=num_classes)
    colours = {tuple(colour) for colour in overlay[mask == 255].tolist()}
    assert len(colours) == 2
    assert IGNORED_COLOUR in colours
    assert all(red == green == blue for red, green, blue in colours)


def test_error_overlay_tells_found_false_and_missed_apart():
    image, _ = draw(40, 40)
    truth, prediction = np.zeros((2, 40, 40), np.uint8)
    truth[:20] = 1
    prediction[:, :20] = 1
    truth[30:, 30:] = 255
    prediction[30:, 30:] = 1  # whatever is predicted where the truth is ignored does not count
    overlay = error_overlay(image, truth, prediction, alpha=1.0)
    assert (overlay[:20, :20] == TRUE_POSITIVE).all()
    assert (overlay[:20, 20:] == FALSE_NEGATIVE).all()
    assert (overlay[20:, :20] == FALSE_POSITIVE).all()
    np.testing.assert_array_equal(overlay[20:30, 20:], image[20:30, 20:])
    assert np.ptp(overlay[30:, 30:], axis=2).max() == 0


def test_error_overlay_of_classes_colours_wrong_pixels_by_what_was_predicted():
    image, truth = draw(labels=4)
    prediction = truth.copy()
    prediction[:8] = 3
    truth[:4, :9] = 255
    overlay = error_overlay(image, truth, prediction, alpha=1.0, num_classes=4)
    ignored, wrong = truth == 255, (truth != prediction) & (truth != 255)
    assert wrong.any()
    assert (overlay[wrong] == palette(4)[3]).all()
    np.testing.assert_array_equal(overlay[~wrong & ~ignored], image[~wrong & ~ignored])
    assert np.ptp(overlay[ignored], axis=1).max() == 0


def test_verdict_colours_differ_to_colour_blind_eyes():
    seen = lab_as_seen(np.array([TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE], np.uint8))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(seen[:, i] - seen[:, j], axis=-1).min() > 40


def test_lab_of_known_colours():
    # CIELAB under daylight D65, from the definition: white, black, red (to normal eyes).
    lab = lab_as_seen(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], np.uint8))[0]
    np.testing.assert_allclose(lab, [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]], atol=0.05)


def test_greys_look_the_same_to_all_eyes():
    seen = lab_as_seen(np.array([[v, v, v] for v in (10, 100, 200)], np.uint8))
    np.testing.assert_allclose(seen, np.broadcast_to(seen[0], seen.shape), atol=0.05)


@pytest.mark.parametrize(("num_classes", "nearest"), [(2, 40), (7, 15), (12, 15), (20, 15), (32, 12)])
def test_palette_colours_are_distinct_to_all_eyes(num_classes, nearest):
    seen = lab_as_seen(palette(num_classes)[:num_classes])
    distances = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1).min(axis=0)
    assert distances[np.triu_indices(num_classes, 1)].min() > nearest


def test_palette_is_a_full_table_with_a_colour_per_class():
    table = palette(255)
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    assert len(np.unique(table, axis=0)) == 256
    np.testing.assert_array_equal(table[255], IGNORED_COLOUR)
    np.testing.assert_array_equal(palette(5)[:5], table[:5])  # a class keeps its colour
    assert not palette(5)[5:255].any()


def test_palette_is_the_callers_own():
    palette(3)[:] = 7
    np.testing.assert_array_equal(palette(3)[0], (0, 114, 178))


@pytest.mark.parametrize("num_classes", [0, 256])
def test_palette_refuses_impossible_numbers(num_classes):
    with pytest.raises(OptionError, match="1 to 255 classes"):
        palette(num_classes)


def test_prediction_grid_names_rows_columns_captions_and_colours():
    image, mask = draw()
    rows = [
        PredictionRow(image, mask, {"none": mask, "smooth-0.4": 1 - mask}, {"none": "IoU 1.00"}, "stem_$1$"),
        PredictionRow(image, None, {"none": mask}),
    ]
    figure = prediction_grid(rows, columns=["none", "smooth-0.4"], title="Flood $ & polyps")
    assert len(figure.axes) == 8
    wanted = {"image", "truth", "none", "smooth-0.4", "IoU 1.00", "stem_$1$", "Flood $ & polyps"}
    assert wanted <= texts(figure)
    legend = legend_texts(figure)
    assert [word.split(" (")[0] for word in legend] == ["found", "false alarm", "missed"]
    assert rendered(figure).startswith(b"\x89PNG")


def test_prediction_grid_shows_the_overlays():
    image, mask = draw()
    figure = prediction_grid([PredictionRow(image, mask, {"a": 1 - mask})], columns=["a", "b"])
    shown = [cell.images[0].get_array() if cell.images else None for cell in figure.axes]
    np.testing.assert_array_equal(shown[0], image)
    np.testing.assert_array_equal(shown[1], mask_overlay(image, mask))
    np.testing.assert_array_equal(shown[2], error_overlay(image, mask, 1 - mask))
    assert shown[3] is None


def test_prediction_grid_without_truth_has_no_column_for_it():
    image, mask = draw()
    figure = prediction_grid([PredictionRow(image, None, {"a": mask})], columns=["a"])
    assert len(figure.axes) == 2
    assert legend_texts(figure) == ["foreground"]


def test_prediction_grid_of_classes_names_those_that_occur_and_the_ignored():
    image, mask = draw(labels=3)
    truth = mask.copy()
    truth[:10] = 255
    classes = ["sky", "road", "car", "never"]
    prediction = np.roll(mask, 9, axis=1)
    figure = prediction_grid([PredictionRow(image, truth, {"a": prediction})], columns=["a"], classes=classes)
    assert legend_texts(figure) == ["sky", "road", "car", "ignored"]
    assert "wrong pixels" in figure.legends[0].get_title().get_text()
    shown = figure.axes[2].images[0].get_array()
    np.testing.assert_array_equal(shown, error_overlay(image, truth, prediction, num_classes=4))
    rendered(figure)


def test_prediction_grid_fits_rows_of_different_shape():
    wide, tall = draw(20, 80), draw(80, 20)
    rows = [PredictionRow(image, mask, {"a": mask}) for image, mask in (wide, tall)]
    figure = prediction_grid(rows, columns=["a"])
    figure.draw_without_rendering()
    heights = [figure.axes[i].get_position().height for i in (0, 3)]
    assert heights[1] > 3 * heights[0]


@pytest.mark.parametrize(("rows", "columns"), [(0, ["a"]), (1, [])])
def test_prediction_grid_of_nothing_is_refused(rows, columns):
    image, mask = draw()
    with pytest.raises(OptionError, match="a sheet needs rows and columns"):
        prediction_grid([PredictionRow(image, mask, {})] * rows, columns=columns)


def test_sample_grid_shows_stems_and_masks():
    image, mask = draw()
    samples = [Sample("a_1", image, mask), Sample("b$^2", image, mask), Sample("unlabelled", image, None)]
    figure = sample_grid(samples, num_columns=2, title="three")
    assert {"a_1", "b$^2", "unlabelled", "three"} <= texts(figure)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), mask_overlay(image, mask))
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), image)
    assert not figure.axes[3].images
    assert legend_texts(figure) == ["foreground"]
    rendered(figure)


def test_sample_grid_of_classes_names_them():
    image, mask = draw(labels=3)
    figure = sample_grid([Sample("x", image, mask)], classes=["sky", "road", "car"])
    assert legend_texts(figure) == ["sky", "road", "car"]


def test_sample_grid_of_nothing_is_refused():
    with pytest.raises(OptionError, match="a sheet needs samples"):
        sample_grid([])


def test_figures_leave_pyplot_and_its_settings_alone():
    image, mask = draw()
    figures, settings = pyplot.get_fignums(), dict(matplotlib.rcParams)
    rendered(sample_grid([Sample("x", image, mask)]))
    assert pyplot.get_fignums() == figures
    assert dict(matplotlib.rcParams) == settings


def test_mask_of_another_size_is_refused():
    image, mask = draw()
    with pytest.raises(ShapeError, match=r"mask has shape \(40, 55\), its image \(40, 56\)"):
        mask_overlay(image, mask[:, 1:])
    with pytest.raises(ShapeError, match="the prediction has shape"):
        error_overlay(image, mask, mask.T)


def test_image_of_another_kind_is_refused():
    image, mask = draw()
    with pytest.raises(ShapeError, match="uint8 image of shape"):
        mask_overlay(image / 255, mask)


def test_label_that_is_no_class_is_refused():
    image, mask = draw()
    with pytest.raises(DataError, match="the truth holds the label 2, expected 0 to 1"):
        error_overlay(image, mask * 2, mask)
    with pytest.raises(DataError, match="the mask holds the label -1, expected 0 to 3"):
        mask_overlay(image, -mask.astype(int), num_classes=4)


def test_alpha_beyond_its_range_is_refused():
    image, mask = draw()
    with pytest.raises(OptionError, match="opacity from 0 to 1"):
        mask_overlay(image, mask, alpha=1.5)
