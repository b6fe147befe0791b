"""IoU of a mask against scikit-learn, of the foreground or the classes that occur; what is undefined is NaN."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from smooth_attention.metrics import count_pixels
from smooth_attention.metrics.iou import count_scored, image_iou, mean_iou, show_iou, summarise_iou

NAMES = ("a", "b", "c", "absent")


def draw_labels(num_labels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_labels, (9, 11), dtype=np.uint8)


def test_binary_iou_is_that_of_the_foreground() -> None:
    labels, truth = draw_labels(2, 0), draw_labels(2, 1)
    assert image_iou(labels, truth, None) == pytest.approx(oracle.jaccard_score(truth.ravel(), labels.ravel()))
    truth[:4] = 255
    assert image_iou(labels, truth, None) == pytest.approx(oracle.jaccard_score(truth[4:].ravel(), labels[4:].ravel()))


def test_iou_of_classes_is_the_mean_over_those_that_occur() -> None:
    labels, truth = draw_labels(3, 0), draw_labels(3, 1)
    want = oracle.jaccard_score(truth.ravel(), labels.ravel(), average="macro")
    assert image_iou(labels, truth, NAMES) == pytest.approx(want)


def test_counts_are_those_of_the_scored_classes() -> None:
    labels, truth = draw_labels(2, 0), draw_labels(2, 1)
    every = count_pixels(labels, truth, num_classes=2)
    np.testing.assert_array_equal(count_scored(labels, truth, None), every[1:])
    np.testing.assert_array_equal(count_scored(labels, truth, ("a", "b")), every)


def test_pooled_iou_weighs_pixels_and_the_mean_weighs_images() -> None:
    counts = np.array([[[8, 0, 0, 0]], [[0, 4, 4, 0]], [[0, 0, 0, 9]]])  # the last one has no foreground
    assert summarise_iou(counts) == {"iou": 0.5, "iou_per_image": 0.5}
    assert summarise_iou(counts[:2] * [[[1]], [[2]]]) == {"iou": pytest.approx(1 / 3), "iou_per_image": 0.5}
    np.testing.assert_array_equal(mean_iou(counts), [1.0, 0.0, np.nan])


def test_iou_without_foreground_is_undefined() -> None:
    nothing = np.zeros((3, 4), np.uint8)
    assert np.isnan(image_iou(nothing, nothing, None))
    assert np.isnan(image_iou(nothing, nothing + 255, ("a", "b")))
    assert all(np.isnan(value) for value in summarise_iou(np.array([[[0, 0, 0, 9]]])).values())


@pytest.mark.parametrize(
    ("iou", "words"), [(float("nan"), "IoU undefined"), (0.0, "IoU 0.000"), (0.12345, "IoU 0.123")]
)
def test_iou_in_words(iou: float, words: str) -> None:
    assert show_iou(iou) == words
