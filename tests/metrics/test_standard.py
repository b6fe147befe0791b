"""Counts and figures against scikit-learn; accumulation against the same figures worked out by hand."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from smooth_attention.core.errors import DataError, OptionError, ShapeError
from smooth_attention.metrics import (
    COUNTED,
    StandardMetrics,
    boundary_counts,
    calibration_counts,
    calibration_error,
    count_pixels,
    hd95,
    score_counts,
)

NAMES = ("sky", "road", "tree", "car")


def draw_maps(num_classes, seed, *, size=(17, 23), with_ignored=False, present=None):
    """A truth and a prediction that agrees on most pixels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_classes) if present is None else np.asarray(present)
    truth = rng.choice(labels, size)
    prediction = np.where(rng.random(size) < 0.6, truth, rng.choice(labels, size))
    if with_ignored:
        truth[rng.random(size) < 0.2] = 255
    return prediction.astype(np.uint8), truth.astype(np.uint8)


def one_hot(labels, num_classes, sureness=1.0):
    """Probabilities whose most probable class is the label."""
    rest = (1 - sureness) / (num_classes - 1)
    return np.where(np.arange(num_classes)[:, None, None] == labels, sureness, rest).astype(np.float32)


def oracle_counts(prediction, truth, num_classes):
    kept = truth != 255
    matrix = sklearn_metrics.confusion_matrix(truth[kept], prediction[kept], labels=np.arange(num_classes))
    tp = np.diag(matrix)
    fp, fn = matrix.sum(axis=0) - tp, matrix.sum(axis=1) - tp
    return np.stack([tp, fp, fn, matrix.sum() - tp - fp - fn], axis=-1)


def oracle_metrics(prediction, truth, label):
    """scikit-learn's figures of one class against the rest."""
    kept = truth != 255
    wanted, found = truth[kept] == label, prediction[kept] == label
    figures = {
        "iou": sklearn_metrics.jaccard_score,
        "dice": sklearn_metrics.f1_score,
        "precision": sklearn_metrics.precision_score,
        "recall": sklearn_metrics.recall_score,
        "f1": sklearn_metrics.f1_score,
    }
    out = {name: score(wanted, found, zero_division=0.0) for name, score in figures.items()}
    if not (wanted.any() or found.any()):
        out = dict.fromkeys(out, math.nan)
    return out | {"accuracy": sklearn_metrics.accuracy_score(wanted, found)}


CASES = [
    pytest.param(2, {}, id="binary"),
    pytest.param(2, {"with_ignored": True}, id="binary-ignored"),
    pytest.param(5, {"with_ignored": True}, id="classes-ignored"),
    pytest.param(11, {"present": [0, 3, 10]}, id="absent"),
    pytest.param(11, {"present": [2, 3], "with_ignored": True}, id="absent-ignored"),
]


@pytest.mark.parametrize(("num_classes", "options"), CASES)
def test_counts_and_figures_equal_scikit_learn(num_classes, options):
    prediction, truth = draw_maps(num_classes, seed=num_classes, **options)
    counts = count_pixels(prediction, truth, num_classes=num_classes)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, oracle_counts(prediction, truth, num_classes))
    scores = score_counts(counts)
    for label in range(num_classes):
        for name, value in oracle_metrics(prediction, truth, label).items():
            np.testing.assert_allclose(scores[name][label], value, atol=1e-12, err_msg=f"{name} of {label}")


def test_counts_of_many_classes_without_an_ignored_label():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 300, (2, 40, 50))
    expected = sklearn_metrics.multilabel_confusion_matrix(truth.ravel(), prediction.ravel(), labels=np.arange(300))
    counts = count_pixels(prediction, truth, num_classes=300, ignore_index=None)
    np.testing.assert_array_equal(counts[:, [3, 1, 2, 0]], expected.reshape(300, 4))


def test_counts_by_hand():
    prediction = np.array([[1, 1, 0, 0, 1]])
    truth = np.array([[1, 0, 1, 0, 255]])
    np.testing.assert_array_equal(count_pixels(prediction, truth, num_classes=2), [[1, 1, 1, 1], [1, 1, 1, 1]])
    truth[0, 0] = 0
    np.testing.assert_array_equal(count_pixels(prediction, truth, num_classes=2), [[1, 1, 2, 0], [0, 2, 1, 1]])


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: torch.from_numpy(x.copy()),
        lambda x: torch.from_numpy(x.astype(np.int32)),
        lambda x: x.astype(np.int64).T.copy().T,
        lambda x: x.astype(np.uint16),
    ],
    ids=["uint8 tensor", "int32 tensor", "non-contiguous", "uint16"],
)
def test_counts_do_not_depend_on_the_container(convert):
    prediction, truth = draw_maps(4, seed=5, with_ignored=True)
    expected = count_pixels(prediction, truth, num_classes=4)
    np.testing.assert_array_equal(count_pixels(convert(prediction), convert(truth), num_classes=4), expected)


def test_counts_take_read_only_and_boolean_masks_and_leave_them_alone():
    prediction, truth = draw_maps(2, seed=6)
    expected = count_pixels(prediction, truth, num_classes=2)
    prediction.flags.writeable = truth.flags.writeable = False
    np.testing.assert_array_equal(count_pixels(prediction, truth, num_classes=2), expected)
    np.testing.assert_array_equal(count_pixels(prediction > 0, truth > 0, num_classes=2), expected)


def test_counts_are_the_same_in_deterministic_mode(monkeypatch):
    monkeypatch.setattr("smooth_attention.metrics.standard.MAX_TABLE", 1000)  # several chunks
    prediction, truth = draw_maps(5, seed=7, with_ignored=True)
    expected = count_pixels(prediction, truth, num_classes=5)
    torch.use_deterministic_algorithms(True)
    try:
        np.testing.assert_array_equal(count_pixels(prediction, truth, num_classes=5), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("size", [(0, 0), (2, 3)], ids=str)
def test_without_pixels_that_count_everything_is_zero_and_undefined(size):
    counts = count_pixels(np.full(size, 7), np.full(size, 255), num_classes=3)
    np.testing.assert_array_equal(counts, np.zeros((3, 4)))
    assert all(np.isnan(values).all() for values in score_counts(counts).values())


MAPS = st.integers(2, 5).flatmap(
    lambda n: hnp.array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(
        lambda size: st.tuples(
            st.just(n),
            hnp.arrays(np.int64, size, elements=st.integers(0, n - 1)),
            hnp.arrays(np.int64, size, elements=st.sampled_from([*range(n), 255])),
        )
    )
)


@settings(deadline=None)
@given(MAPS)
def test_counts_add_up_and_ignored_pixels_change_nothing(maps):
    num_classes, prediction, truth = maps
    counts = count_pixels(prediction, truth, num_classes=num_classes)
    assert (counts.sum(axis=1) == (truth != 255).sum()).all()
    assert counts[:, 1].sum() == counts[:, 2].sum()  # one class's false positive is another's false negative
    elsewhere = np.where(truth == 255, 99, prediction)
    np.testing.assert_array_equal(count_pixels(elsewhere, truth, num_classes=num_classes), counts)


@settings(deadline=None)
@given(hnp.arrays(np.int64, (3, 4), elements=st.integers(0, 9)))
def test_figures_are_between_0_and_1_and_dice_follows_from_iou(counts):
    scores = score_counts(counts)
    for values in scores.values():
        assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    np.testing.assert_allclose(scores["dice"], 2 * scores["iou"] / (1 + scores["iou"]))
    np.testing.assert_array_equal(scores["dice"], scores["f1"])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 0, 9), {"accuracy": 1.0}),
        ((0, 3, 0, 6), {"iou": 0, "dice": 0, "accuracy": 6 / 9, "precision": 0, "recall": 0, "f1": 0}),
        ((0, 0, 3, 6), {"iou": 0, "dice": 0, "accuracy": 6 / 9, "precision": 0, "recall": 0, "f1": 0}),
        ((0, 0, 0, 0), {}),
        ((4, 0, 0, 0), dict.fromkeys(COUNTED, 1.0)),
    ],
    ids=["absent", "only predicted", "only in truth", "no pixel", "everywhere"],
)
def test_figures_of_absent_classes(counts, expected):
    scores = {name: float(value) for name, value in score_counts(np.array(counts)).items()}
    np.testing.assert_equal(scores, dict.fromkeys(COUNTED, math.nan) | {k: float(v) for k, v in expected.items()})


def test_figures_keep_leading_axes():
    counts = np.random.default_rng(0).integers(0, 9, (6, 5, 4))
    scores = score_counts(counts)
    assert tuple(scores) == COUNTED
    for name, values in scores.items():
        assert values.shape == (6, 5)
        np.testing.assert_array_equal(values[2], score_counts(counts[2])[name])


def test_label_maps_are_refused():
    good = np.zeros((4, 5), dtype=np.uint8)
    with pytest.raises(ShapeError, match=r"one size, got \(4, 4\) and \(4, 5\); resize the prediction"):
        count_pixels(good[:, 1:], good, num_classes=2)
    with pytest.raises(ShapeError, match=r"\(H, W\)"):
        count_pixels(good[None], good[None], num_classes=2)
    with pytest.raises(DataError, match="prediction must hold integer labels, got float32; threshold or argmax"):
        count_pixels(good.astype(np.float32), good, num_classes=2)
    with pytest.raises(DataError, match=r"truth must hold labels 0\.\.1 \(the truth also 255 .*got 3; map them"):
        count_pixels(good, good + 3, num_classes=2)
    with pytest.raises(DataError, match=r"prediction must hold labels 0\.\.1 .*got 255; .*mask > 127"):
        count_pixels(good + 255, good, num_classes=2)
    with pytest.raises(DataError, match=r"truth must hold labels 0\.\.2, got -1;"):
        count_pixels(good, good.astype(int) - 1, num_classes=3, ignore_index=None)
    with pytest.raises(DataError, match=r"got 10, 11, 12, 13, 14, \.\.\.;"):
        count_pixels(np.arange(10, 30).reshape(4, 5), good, num_classes=2)


def test_count_options_are_refused():
    good = np.zeros((4, 5), dtype=np.uint8)
    with pytest.raises(OptionError, match="num_classes must be at least 2, got 1"):
        count_pixels(good, good, num_classes=1)
    with pytest.raises(OptionError, match=r"ignore_index must not be one of the labels 0\.\.2, got 0"):
        count_pixels(good, good, num_classes=3, ignore_index=0)
    with pytest.raises(ShapeError, match=r"axis of tp, fp, fn, tn, got counts.shape=\(2, 5\)"):
        score_counts(np.zeros((2, 5)))
    with pytest.raises(ShapeError, match=r"counts.shape=\(\)"):
        score_counts(np.array(3))


@pytest.mark.parametrize("names", [("one",), (), ("a", "b", "a")], ids=str)
def test_class_names_are_refused(names):
    with pytest.raises(OptionError, match=r"at least two different names.*None is a binary task"):
        StandardMetrics(names)


def test_an_ignored_label_that_is_a_class_is_refused_at_once():
    with pytest.raises(OptionError, match="ignore_index must not be one of the labels"):
        StandardMetrics(NAMES, ignore_index=3)


def test_images_are_refused_by_name():
    metrics = StandardMetrics(None)
    truth = np.zeros((4, 5), dtype=np.uint8)
    probability = np.full((4, 5), 0.25)
    with pytest.raises(
        ShapeError, match=r"image 'a': probability must be \(4, 5\) .*binary task, got \(4, 4\); resize"
    ):
        metrics.update("a", probability[:, 1:], truth)
    with pytest.raises(ShapeError, match=r"got \(1, 4, 5\); resize it .* leave out batch and channel axes"):
        metrics.update("a", probability[None], truth)
    with pytest.raises(ShapeError, match=r"image 'a': prediction and truth must be \(H, W\)"):
        metrics.update("a", probability[None], truth[None])
    with pytest.raises(DataError, match=r"image 'a': probabilities must be in 0\.\.1, got values from nan to nan.*NaN"):
        metrics.update("a", np.where(truth == 0, np.nan, probability), truth)
    with pytest.raises(DataError, match=r"image 'a': .* from 2.25 to 2.25; apply a sigmoid or softmax"):
        metrics.update("a", probability + 2, truth)
    with pytest.raises(DataError, match=r"image 'a': truth must hold labels 0\.\.1 .*got 9"):
        metrics.update("a", probability, truth + 9)
    with pytest.raises(DataError, match=r"image 'a': prediction must hold labels"):
        metrics.update_labels("a", truth + 9, truth)
    with pytest.raises(ShapeError, match=r"image 'a': prediction and truth must be"):
        metrics.update_labels("a", truth[1:], truth)
    with pytest.raises(DataError, match="no image was scored"):  # nothing refused was counted
        metrics.compute()
    metrics.update("a", probability, truth)
    with pytest.raises(DataError, match="image 'a' was scored before"):
        metrics.update_labels("a", truth, truth)


def test_probabilities_of_another_number_of_classes_are_refused():
    with pytest.raises(ShapeError, match=r"must be \(4, 2, 2\) for a truth of \(2, 2\) and 4 classes, got \(3, 2, 2\)"):
        StandardMetrics(NAMES).update("a", np.zeros((3, 2, 2)), np.zeros((2, 2), dtype=int))


def binary_images(num=5):
    """Images of different sizes, the last two empty in truth and in prediction."""
    rng = np.random.default_rng(11)
    for index in range(num):
        size = (20 + 3 * index, 31 - 2 * index)
        probability = rng.random(size).astype(np.float32)
        truth = (probability + rng.normal(0, 0.3, size) > 0.5).astype(np.uint8)
        truth[rng.random(size) < 0.1] = 255
        if index == num - 2:
            truth[truth == 1] = 0
        if index == num - 1:
            probability *= 0.4
        yield f"image-{index}", probability, truth


def test_binary_figures_equal_scikit_learn_pooled_and_per_image():
    metrics = StandardMetrics(None)
    images = list(binary_images())
    for image in images:
        metrics.update(*image)
    result = metrics.compute()
    pooled = [np.concatenate([part.ravel() for part in parts]) for parts in zip(*[i[1:] for i in images], strict=True)]
    expected = oracle_metrics((pooled[0] >= 0.5).astype(int), pooled[1], 1)
    per_image = [oracle_metrics((p >= 0.5).astype(int), t, 1) for _, p, t in images]
    for name in COUNTED:
        assert result["pooled"][name] == pytest.approx(expected[name], abs=1e-12)
        assert result["per_image"][name] == pytest.approx(np.mean([figures[name] for figures in per_image]), abs=1e-12)
        assert [image[name] for image in result["images"]] == pytest.approx([f[name] for f in per_image], abs=1e-12)
    assert result["per_image"]["num_images"] == 5


def test_binary_contours_and_calibration_equal_their_functions():
    metrics = StandardMetrics(None)
    images = list(binary_images())
    for image in images:
        metrics.update(*image)
    result = metrics.compute()
    contours = [(p >= 0.5, t == 1, t == 255) for _, p, t in images]
    counts = np.array([boundary_counts(p, t, ignored=i) for p, t, i in contours])
    distances = [hd95(p, t, ignored=i) for p, t, i in contours]
    assert result["pooled"]["boundary_iou"] == pytest.approx(counts[:, 0].sum() / counts[:, 1].sum())
    assert result["per_image"]["boundary_iou"] == pytest.approx(np.mean(counts[:, 0] / counts[:, 1]))
    assert result["per_image"]["hd95_px"] == pytest.approx(np.nanmean(distances))
    assert result["hd95"] == {"misses": 2, "missed": ["image-3", "image-4"]}
    assert result["per_image"]["num_undefined"] == dict.fromkeys([*COUNTED, "boundary_iou"], 0) | {"hd95_px": 2}
    errors = sum(
        calibration_counts(np.maximum(p, 1 - p), (p >= 0.5) == (t == 1), ignored=t == 255) for _, p, t in images
    )
    assert result["pooled"]["ece"] == pytest.approx(calibration_error(errors))


def test_binary_result_by_hand():
    metrics = StandardMetrics(None, groups={"b": "pond"})
    # tp 1, fp 1, fn 0, tn 2: confidences .9 .5 .8 .6, of which the second is wrong.
    metrics.update("a", torch.tensor([[0.9, 0.5], [0.2, 0.4]]), np.array([[1, 0], [0, 0]]), group="lake")
    metrics.update("b", np.zeros((3, 3)), np.zeros((3, 3), dtype=bool))  # nothing there, nothing found
    result = metrics.compute()
    assert result["pooled"]["iou"] == 0.5
    assert result["pooled"]["accuracy"] == 12 / 13
    assert result["pooled"]["ece"] == pytest.approx((0.1 + 0.5 + 0.2 + 0.4) / 13, abs=1e-7)
    assert result["per_image"]["iou"] == 0.5
    assert result["per_image"]["accuracy"] == 0.875
    assert result["per_image"]["num_undefined"]["iou"] == 1
    assert result["per_image"]["num_undefined"]["accuracy"] == 0
    assert result["hd95"] == {"misses": 0, "missed": []}
    assert [(image["stem"], image["group"], image["iou"]) for image in result["images"]] == [
        ("a", "lake", 0.5),
        ("b", "pond", None),
    ]


def class_images():
    for index, present in enumerate([[0, 1, 2], [1, 2], [0, 2]]):
        yield f"image-{index}", *draw_maps(4, seed=index, size=(15 + index, 20), with_ignored=True, present=present)


def test_class_figures_equal_scikit_learn_pooled_and_per_image():
    metrics = StandardMetrics(NAMES)
    images = list(class_images())
    for stem, prediction, truth in images:
        metrics.update_labels(stem, prediction, truth)
    result = metrics.compute()
    flat = [np.concatenate([part.ravel() for part in parts]) for parts in zip(*[i[1:] for i in images], strict=True)]
    for name in COUNTED:
        by_class = np.array([oracle_metrics(*flat, label)[name] for label in range(4)])
        by_image = np.array([[oracle_metrics(p, t, label)[name] for label in range(4)] for _, p, t in images])
        for label, class_name in enumerate(NAMES):
            assert_close_or_none(result["pooled"]["classes"][class_name][name], by_class[label])
            assert_close_or_none(result["per_image"]["classes"][class_name][name], nanmean(by_image[:, label]))
        assert_close_or_none(result["pooled"][name], nanmean(by_class))
        image_means = [nanmean(row) for row in by_image]
        assert_close_or_none(result["per_image"][name], nanmean(image_means))
        for image, mean in zip(result["images"], image_means, strict=True):
            assert_close_or_none(image[name], mean)
    kept = flat[1] != 255
    assert result["pooled"]["pixel_accuracy"] == pytest.approx(
        sklearn_metrics.accuracy_score(flat[1][kept], flat[0][kept])
    )


def nanmean(values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN
        return np.nanmean(values)


def assert_close_or_none(value, expected):
    assert value is None if np.isnan(expected) else value == pytest.approx(expected, abs=1e-12)


def test_class_contours_equal_their_functions():
    metrics = StandardMetrics(NAMES)
    images = list(class_images())
    for stem, prediction, truth in images:
        metrics.update_labels(stem, prediction, truth)
    result = metrics.compute()
    for label, name in enumerate(NAMES):
        counts = np.array([boundary_counts(p == label, t == label, ignored=t == 255) for _, p, t in images])
        distances = [hd95(p == label, t == label, ignored=t == 255) for _, p, t in images]
        pooled = counts[:, 0].sum() / counts[:, 1].sum() if counts.any() else math.nan
        assert_close_or_none(result["pooled"]["classes"][name]["boundary_iou"], pooled)
        assert_close_or_none(result["per_image"]["classes"][name]["hd95_px"], nanmean(distances))
        for image, distance in zip(result["images"], distances, strict=True):
            assert_close_or_none(image["classes"][name]["hd95_px"], distance)


def test_class_misses_are_counted_and_named():
    metrics = StandardMetrics(NAMES)
    metrics.update_labels("found", np.array([[0, 1]]), np.array([[0, 1]]))
    metrics.update_labels("missed", np.array([[0, 0]]), np.array([[0, 1]]))
    metrics.update_labels("invented", np.array([[0, 2]]), np.array([[0, 0]]))
    misses = metrics.compute()["hd95"]
    assert misses == {
        "misses": 2,
        "missed": ["missed", "invented"],
        "classes": {
            "sky": {"misses": 0, "missed": []},
            "road": {"misses": 1, "missed": ["missed"]},
            "tree": {"misses": 1, "missed": ["invented"]},
            "car": {"misses": 0, "missed": []},
        },
    }


def test_class_probabilities_give_the_figures_of_their_argmax_and_a_calibration_error():
    soft, hard = StandardMetrics(NAMES), StandardMetrics(NAMES)
    right = total = 0
    for stem, prediction, truth in class_images():
        soft.update(stem, torch.from_numpy(one_hot(prediction, 4, sureness=0.7)), truth)
        hard.update_labels(stem, prediction, truth)
        right, total = right + (prediction == truth).sum(), total + (truth != 255).sum()
    with_ece, without = soft.compute(), hard.compute()
    assert with_ece["pooled"].pop("ece") == pytest.approx(abs(right / total - 0.7), abs=1e-6)
    assert without["pooled"].pop("ece") is None
    assert with_ece == without


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_probabilities_of_any_float_type_on_a_graph_are_taken(dtype):
    metrics = StandardMetrics(None)
    metrics.update("a", torch.tensor([[0.75, 0.25]], dtype=dtype, requires_grad=True), torch.tensor([[1, 0]]))
    assert metrics.compute()["pooled"]["iou"] == 1
    assert metrics.compute()["pooled"]["ece"] == 0.25


def test_roundings_outside_0_and_1_are_taken():
    metrics = StandardMetrics(None)
    metrics.update("a", np.array([[1 + 1e-6, -1e-6]]), np.array([[1, 0]]))
    assert metrics.compute()["pooled"]["ece"] == 0


def test_result_keeps_its_layout_and_goes_through_json():
    figures = [*COUNTED, "boundary_iou"]
    for names in (None, NAMES):
        metrics = StandardMetrics(names)
        metrics.update_labels("a", np.zeros((2, 2), dtype=int), np.full((2, 2), 255))  # nothing is defined
        result = metrics.compute()
        classes = [] if names is None else ["classes"]
        assert list(result) == ["pooled", "per_image", "hd95", "images"]
        assert list(result["pooled"]) == [*figures, "ece", *(["pixel_accuracy", "classes"] if names else [])]
        assert list(result["per_image"]) == [*figures, "hd95_px", "num_images", "num_undefined", *classes]
        assert list(result["images"][0]) == ["stem", "group", *figures, "hd95_px", *classes]
        assert list(result["hd95"]) == ["misses", "missed", *classes]
        if names:
            assert list(result["pooled"]["classes"]) == list(result["per_image"]["classes"]) == list(NAMES)
            assert list(result["pooled"]["classes"]["sky"]) == figures
            assert list(result["per_image"]["classes"]["sky"]) == [*figures, "hd95_px"]
            assert list(result["images"][0]["classes"]["sky"]) == ["iou", "boundary_iou", "hd95_px"]
        assert result["per_image"]["num_undefined"] == dict.fromkeys([*figures, "hd95_px"], 1)
        assert json.loads(json.dumps(result, allow_nan=False)) == result


@settings(deadline=None)
@given(MAPS)
def test_a_perfect_prediction_scores_one_or_is_undefined(maps):
    num_classes, prediction, truth = maps
    metrics = StandardMetrics([f"class {label}" for label in range(num_classes)])
    metrics.update_labels("a", np.where(truth == 255, prediction, truth), truth)
    result = metrics.compute()
    assert {result["pooled"][name] for name in (*COUNTED, "boundary_iou")} <= {1.0, None}
    assert result["images"][0]["hd95_px"] in (0.0, None)
    assert result["hd95"]["misses"] == 0
