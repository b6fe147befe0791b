"""Boundary IoU against explicit erosion, HD95 against all pairs of contour pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from smooth_attention.core.errors import DataError, OptionError, ShapeError
from smooth_attention.metrics import boundary_counts, hd95

SIZES = [(1, 1), (1, 9), (7, 7), (13, 5), (40, 31)]
CROSS = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
BOX = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def erode(mask, offsets):
    """One erosion, pixel by pixel; outside the image is background."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    for i in range(height):
        for j in range(width):
            around = [(i + di, j + dj) for di, dj in offsets]
            out[i, j] = all(0 <= y < height and 0 <= x < width and mask[y, x] for y, x in around)
    return out


def oracle_boundary(prediction, truth, fraction):
    distance = max(1, round(fraction * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
    bands = []
    for mask in (prediction, truth):
        eroded = mask
        for _ in range(distance):
            eroded = erode(eroded, BOX)
        bands.append(mask & ~eroded)
    return (bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()


def oracle_hd95(prediction, truth):
    points = [np.argwhere(mask & ~erode(mask, CROSS)) for mask in (prediction, truth)]
    distances = cdist(*points)
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


def draw(size, seed, share=0.7):
    rng = np.random.default_rng(seed)
    masks = rng.random((2, *size)) < share
    masks[:, size[0] // 2, size[1] // 2] = True  # never empty
    return masks


def square(top, left, side=5, size=(12, 12)):
    mask = np.zeros(size, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("share", [0.3, 0.97])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boundary_counts_equal_repeated_erosion(size, share, fraction):
    prediction, truth = draw(size, seed=1, share=share)
    assert boundary_counts(prediction, truth, fraction=fraction) == oracle_boundary(prediction, truth, fraction)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_hd95_equals_all_pairs(size, share):
    prediction, truth = draw(size, seed=2, share=share)
    assert hd95(prediction, truth) == pytest.approx(oracle_hd95(prediction, truth), abs=1e-12)


def test_boundary_counts_of_a_shifted_square():
    # Two rings of 16 pixels; shifted by one column they share four pixels above and four below.
    assert boundary_counts(square(3, 3), square(3, 4)) == (8, 24)


@pytest.mark.parametrize(
    ("size", "distance"), [((3, 4), 1), ((30, 40), 1), ((75, 100), 2), ((150, 200), 5), ((60, 80), 2)], ids=str
)
def test_boundary_band_is_two_percent_of_the_diagonal(size, distance):
    full = np.ones(size, dtype=bool)
    inner = max(0, size[0] - 2 * distance) * max(0, size[1] - 2 * distance)
    assert boundary_counts(full, full) == (full.size - inner, full.size - inner)


def test_boundary_counts_the_image_border_as_contour():
    full = np.ones((10, 10), dtype=bool)
    assert boundary_counts(full, full) == (36, 36)


def test_boundary_counts_of_empty_masks_are_zero():
    empty = np.zeros((6, 6), dtype=bool)
    assert boundary_counts(empty, empty) == (0, 0)
    assert boundary_counts(empty, square(1, 1, 3, (6, 6))) == (0, 8)


@pytest.mark.parametrize(("shift", "distance"), [(0, 0.0), (1, 1.0), (4, 4.0)])
def test_hd95_of_a_shifted_square_is_the_shift(shift, distance):
    assert hd95(square(3, 1), square(3, 1 + shift)) == distance


def test_hd95_of_two_points_is_their_distance():
    assert hd95(square(1, 1, 1), square(4, 5, 1)) == 5.0


def test_hd95_takes_the_larger_direction():
    both = square(1, 1, 1) | square(9, 1, 1)
    # From the one point to the two: 0. Back: 0 and 8, whose 95th percentile is 7.6.
    assert hd95(square(1, 1, 1), both) == hd95(both, square(1, 1, 1)) == pytest.approx(7.6)


def test_hd95_of_a_hole_sees_the_inner_contour():
    ring = square(1, 1, 9) & ~square(4, 4, 3)
    assert hd95(ring, square(1, 1, 9)) == pytest.approx(oracle_hd95(ring, square(1, 1, 9))) != 0


def test_hd95_of_an_empty_mask_is_nan():
    empty = np.zeros((12, 12), dtype=bool)
    assert math.isnan(hd95(empty, square(1, 1)))
    assert math.isnan(hd95(square(1, 1), empty))
    assert math.isnan(hd95(empty, empty))


MASKS = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=10).flatmap(
    lambda size: st.tuples(*[hnp.arrays(bool, size)] * 3)
)


@settings(deadline=None)
@given(MASKS)
def test_contour_figures_are_symmetric_and_perfect_for_equal_masks(masks):
    one, other, _ = masks
    assert boundary_counts(one, other) == boundary_counts(other, one)
    np.testing.assert_equal(hd95(one, other), hd95(other, one))
    intersection, union = boundary_counts(one, one)
    assert intersection == union
    assert hd95(one, one) == 0 or not one.any()


@settings(deadline=None)
@given(MASKS)
def test_contour_figures_do_not_depend_on_what_is_predicted_at_ignored_pixels(masks):
    prediction, truth, ignored = masks
    for other in (prediction | ignored, prediction & ~ignored):
        expected = boundary_counts(prediction, truth, ignored=ignored)
        assert boundary_counts(other, truth, ignored=ignored) == expected
        np.testing.assert_equal(hd95(other, truth, ignored=ignored), hd95(prediction, truth, ignored=ignored))
    assert boundary_counts(prediction, truth, ignored=ignored)[1] <= (~ignored).sum()


def test_a_prediction_that_runs_on_into_ignored_pixels_is_perfect():
    ignored = np.zeros((12, 12), dtype=bool)
    ignored[:, 6:] = True
    truth, prediction = square(3, 3) & ~ignored, square(3, 3, 7) & (square(3, 3) | ignored)
    assert (truth != prediction).any()
    intersection, union = boundary_counts(prediction, truth, ignored=ignored)
    assert intersection == union > 0
    assert hd95(prediction, truth, ignored=ignored) == 0


@pytest.mark.parametrize("score", [boundary_counts, hd95])
def test_masks_are_refused(score):
    mask = square(1, 1)
    with pytest.raises(ShapeError, match=r"one size, got .*'prediction': \(12, 11\).*resize the prediction"):
        score(mask[:, 1:], mask)
    with pytest.raises(ShapeError, match=r"'ignored': \(12, 11\)"):
        score(mask, mask, ignored=mask[:, 1:])
    with pytest.raises(ShapeError, match=r"\(H, W\)"):
        score(mask[None], mask[None])
    with pytest.raises(DataError, match=r"prediction must be a boolean mask, got uint8; compare with a label"):
        score(mask.astype(np.uint8), mask)
    with pytest.raises(DataError, match="ignored must be a boolean mask, got int64"):
        score(mask, mask, ignored=mask.astype(np.int64))


@pytest.mark.parametrize("fraction", [0.0, -0.1, math.nan, math.inf])
def test_boundary_fraction_is_refused(fraction):
    with pytest.raises(OptionError, match=r"fraction must be a finite number above 0.*0\.02"):
        boundary_counts(square(1, 1), square(1, 1), fraction=fraction)
