"""Expected calibration error against a loop over pixels and bins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from smooth_attention.core.errors import DataError, OptionError, ShapeError
from smooth_attention.metrics import calibration_counts, calibration_error


def oracle_error(confidence, correct, num_bins=15):
    total, error = 0, 0.0
    edges = np.linspace(0, 1, num_bins + 1)
    for low, high in itertools.pairwise(edges):
        chosen = [
            (c, ok)
            for c, ok in zip(confidence.ravel().tolist(), correct.ravel().tolist(), strict=True)
            if low < c <= high or (c == low == 0)
        ]
        total += len(chosen)
        if chosen:
            gap = np.mean([ok for _, ok in chosen]) - np.mean([c for c, _ in chosen])
            error += len(chosen) * abs(gap)
    return error / total


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_calibration_error_equals_a_loop(num_bins, dtype):
    rng = np.random.default_rng(3)
    confidence = rng.random((30, 20)).astype(dtype)
    correct = rng.random((30, 20)) < confidence**2
    error = calibration_error(calibration_counts(confidence, correct, num_bins=num_bins))
    assert error == pytest.approx(oracle_error(confidence, correct, num_bins), abs=1e-9)


def test_calibration_counts_by_hand():
    counts = calibration_counts(np.array([0.0, 0.5, 0.75, 1.0]), np.array([False, True, False, True]), num_bins=2)
    np.testing.assert_array_equal(counts, [[2, 1, 0.5], [2, 1, 1.75]])  # 0 in the first bin, an edge in the lower one
    assert calibration_error(counts) == pytest.approx((0.5 + 0.75) / 4)


@pytest.mark.parametrize(("num_correct", "error"), [(8, 0.0), (10, 0.2), (0, 0.8)])
def test_calibration_error_of_one_confidence_is_its_gap(num_correct, error):
    counts = calibration_counts(np.full(10, 0.8), np.arange(10) < num_correct)
    assert calibration_error(counts) == pytest.approx(error, abs=1e-12)


def test_calibration_error_without_pixels_is_nan():
    nothing = calibration_counts(np.ones((2, 2)), np.ones((2, 2), bool), ignored=np.ones((2, 2), bool))
    assert nothing.shape == (15, 3)
    assert math.isnan(calibration_error(nothing))


def test_calibration_leaves_ignored_pixels_out_even_if_they_are_nan():
    confidence, correct = np.array([0.9, np.nan, 0.6]), np.array([True, False, False])
    counts = calibration_counts(confidence, correct, ignored=np.array([False, True, False]))
    np.testing.assert_array_equal(counts, calibration_counts(confidence[[0, 2]], correct[[0, 2]]))


PIXELS = st.integers(1, 40).flatmap(
    lambda size: st.tuples(hnp.arrays(np.float32, size, elements=st.floats(0, 1, width=32)), hnp.arrays(bool, size))
)


@settings(deadline=None)
@given(PIXELS, st.integers(0, 40))
def test_calibration_counts_of_parts_add_up(pixels, cut):
    confidence, correct = pixels
    parts = calibration_counts(confidence[:cut], correct[:cut]) + calibration_counts(confidence[cut:], correct[cut:])
    np.testing.assert_allclose(parts, calibration_counts(confidence, correct), atol=1e-9)
    assert 0 <= calibration_error(parts) <= 1
    assert parts[:, 0].sum() == confidence.size


def test_calibration_input_is_refused():
    confidence, correct = np.full((2, 3), 0.5), np.ones((2, 3), bool)
    with pytest.raises(ShapeError, match=r"one shape, got \(2, 2\), \(2, 3\) and \(2, 3\)"):
        calibration_counts(confidence[:, 1:], correct)
    with pytest.raises(ShapeError, match=r"and \(2, 2\); give one value per pixel"):
        calibration_counts(confidence, correct, ignored=correct[:, 1:])
    with pytest.raises(DataError, match="must be boolean, got int64 and bool; compare first"):
        calibration_counts(confidence, correct.astype(np.int64))
    with pytest.raises(DataError, match="got bool and uint8"):
        calibration_counts(confidence, correct, ignored=correct.astype(np.uint8))
    with pytest.raises(OptionError, match="num_bins must be at least 1, got 0"):
        calibration_counts(confidence, correct, num_bins=0)
    with pytest.raises(ShapeError, match=r"\(bins, 3\) from calibration_counts, got counts.shape=\(15, 2\)"):
        calibration_error(np.zeros((15, 2)))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.nan, np.inf])
def test_calibration_confidence_is_refused(wrong):
    with pytest.raises(DataError, match=r"confidence must be in 0\.\.1, got values from .*sigmoid or softmax.*NaN"):
        calibration_counts(np.array([0.5, wrong]), np.array([True, True]))
