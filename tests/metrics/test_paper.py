"""The published rules against loops that transcribe them, against scikit-learn, and on the worked figures."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as sklearn_metrics

from smooth_attention.core.errors import DataError, OptionError, ShapeError
from smooth_attention.data.shapes import KINDS, draw_scene
from smooth_attention.metrics import PUBLISHED, PaperMetrics, paper_batch_metrics, paper_ceiling

ROOT = Path(__file__).parents[2]


def draw_batch(num_images, seed, *, size=(13, 9)):
    """Soft targets with many pixels of exactly 0 and 1, empty columns, and predictions that mostly agree."""
    rng = np.random.default_rng(seed)
    target = np.clip(rng.normal(0.4, 0.8, (num_images, *size)), 0, 1)
    target[rng.random((num_images, 1, size[1])).repeat(size[0], axis=1) < 0.3] = 0
    target = np.round(255 * target).astype(np.uint8).astype(np.float32) / 255
    prediction = (target > 0.5) ^ (rng.random(target.shape) < 0.1)
    prediction[:, :, 0] = target[:, :, 0] = 0
    return prediction, target


def oracle_batch(prediction, target):
    """The rules as sentences, one column at a time; scikit-learn for the figures over pixels."""
    ious, dices = [], []
    for image in range(len(target)):
        for column in range(target.shape[2]):
            overlap = union = above = below = 0.0
            for row in range(target.shape[1]):
                found, value = bool(prediction[image, row, column]), float(target[image, row, column])
                overlap += 1 if found and value > 0 else 0
                union += 1 if found or value > 0 else 0
                above += 2 if found and value > 0 else 0
                below += found + value
            ious.append((overlap + 1e-6) / (union + 1e-6))
            dices.append((above + 1e-6) / (below + 1e-6))
    found, wanted = prediction.ravel(), target.ravel().astype(int)  # truncates: 1 only where the target is 1
    return {
        "iou": sum(ious) / len(ious),
        "dice": sum(dices) / len(dices),
        "accuracy": sklearn_metrics.accuracy_score(wanted, found),
        "precision": sklearn_metrics.precision_score(wanted, found, zero_division=0),
        "recall": sklearn_metrics.recall_score(wanted, found, zero_division=0),
        "f1": sklearn_metrics.f1_score(wanted, found, zero_division=0),
    }


def oracle_mean(predictions, targets, batch_size=8):
    starts = range(0, len(targets), batch_size)
    batches = [oracle_batch(predictions[i : i + batch_size], targets[i : i + batch_size]) for i in starts]
    return {name: sum(batch[name] for batch in batches) / len(batches) for name in PUBLISHED} | {
        "num_batches": len(batches)
    }


def soften(mask):
    """A 0/1 mask at 224 px, as the published scripts resize it."""
    grey = Image.fromarray((255 * mask).astype(np.uint8))
    return np.asarray(grey.resize((224, 224), Image.Resampling.BILINEAR), dtype=np.float32) / 255


@pytest.mark.parametrize("num_images", [1, 3, 8])
@pytest.mark.parametrize("size", [(13, 9), (1, 7), (6, 1), (1, 1)], ids=str)
def test_batch_follows_the_rules(num_images, size):
    prediction, target = draw_batch(num_images, seed=num_images, size=size)
    figures = paper_batch_metrics(prediction, target)
    assert tuple(figures) == PUBLISHED
    assert all(type(value) is float for value in figures.values())
    assert figures == pytest.approx(oracle_batch(prediction, target), abs=1e-12)


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_batch_of_one_value_follows_the_rules_without_warnings(found, value):
    prediction, target = np.full((2, 4, 3), found), np.full((2, 4, 3), value)
    assert paper_batch_metrics(prediction, target) == pytest.approx(oracle_batch(prediction, target), abs=1e-12)


def test_empty_prediction_of_a_disc_scores_by_the_columns_it_misses():
    rows, columns = np.mgrid[:224, :224] - 112
    target = (np.hypot(rows, columns) <= 20).astype(np.float32)[None]
    figures = paper_batch_metrics(np.zeros(target.shape, dtype=bool), target)
    assert figures["iou"] == pytest.approx(183 / 224, abs=1e-6)
    assert round(figures["iou"], 3) == round(figures["dice"], 3) == 0.817
    assert figures["precision"] == figures["recall"] == figures["f1"] == 0


def test_dice_of_a_partly_covered_pixel_exceeds_one():
    figures = paper_batch_metrics(np.array([[[True], [False]]]), np.array([[[0.2], [0.0]]]))
    assert figures["dice"] == pytest.approx((2 + 1e-6) / (1.2 + 1e-6), abs=1e-12)
    assert figures["iou"] == 1
    assert figures["accuracy"] == 0.5


def test_only_a_target_of_exactly_one_is_positive_for_precision():
    target = np.array([[[1.0, 254 / 255]]], dtype=np.float32)
    figures = paper_batch_metrics(np.ones((1, 1, 2), dtype=bool), target)
    assert (figures["iou"], figures["precision"], figures["recall"]) == (1, 0.5, 1)


def test_batch_takes_tensors_and_hard_masks_alike():
    prediction, target = draw_batch(3, seed=5)
    of_tensors = paper_batch_metrics(torch.from_numpy(prediction), torch.from_numpy(target))
    assert of_tensors == paper_batch_metrics(prediction, target)
    hard = target == 1
    assert paper_batch_metrics(prediction, hard) == paper_batch_metrics(prediction, hard.astype(np.float32))


@pytest.mark.parametrize(("num_images", "num_batches"), [(1, 1), (8, 1), (9, 2), (19, 3)])
def test_metrics_are_the_plain_mean_over_batches(num_images, num_batches):
    predictions, targets = draw_batch(num_images, seed=num_images)
    metrics = PaperMetrics()
    metrics.update(predictions, targets)
    figures = metrics.compute()
    assert figures["num_batches"] == num_batches
    assert figures == pytest.approx(oracle_mean(predictions, targets), abs=1e-12)


def test_last_smaller_batch_counts_like_a_full_one():
    targets = np.ones((9, 4, 4), dtype=np.float32)
    predictions = np.ones((9, 4, 4), dtype=bool)
    predictions[8] = False
    metrics = PaperMetrics()
    metrics.update(predictions, targets)
    assert metrics.compute()["accuracy"] == 0.5
    metrics = PaperMetrics(batch_size=3)
    metrics.update(predictions, targets)
    assert metrics.compute()["accuracy"] == pytest.approx(1 - 1 / 9)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 9))
def test_metrics_do_not_depend_on_how_images_arrive(sizes, batch_size):
    predictions, targets = draw_batch(sum(sizes), seed=1, size=(4, 5))
    metrics, at_once = PaperMetrics(batch_size=batch_size), PaperMetrics(batch_size=batch_size)
    at_once.update(predictions, targets)
    start = 0
    for size in sizes:
        prediction, target = predictions[start : start + size].copy(), targets[start : start + size].copy()
        metrics.update(prediction, target)
        metrics.compute()  # looks, changes nothing
        prediction[:], target[:] = True, 0  # a loader that reuses its buffers
        start += size
    assert metrics.compute() == at_once.compute()


def test_metrics_depend_on_the_order_of_images():
    predictions, targets = draw_batch(9, seed=2)
    forward, backward = PaperMetrics(), PaperMetrics()
    forward.update(predictions, targets)
    backward.update(predictions[::-1], targets[::-1])
    assert forward.compute()["iou"] != backward.compute()["iou"]


def test_ceiling_is_the_figures_of_the_thresholded_target():
    _, targets = draw_batch(11, seed=3)
    want = oracle_mean(targets > 0.5, targets)
    assert paper_ceiling(targets) == pytest.approx(want, abs=1e-12)
    assert paper_ceiling(iter(targets)) == paper_ceiling(targets)
    assert paper_ceiling(targets, batch_size=4)["num_batches"] == 3


def test_ceiling_of_hard_masks_is_one():
    _, targets = draw_batch(4, seed=4)
    targets = (targets == 1).astype(np.float32)
    assert paper_ceiling(targets) == pytest.approx(dict.fromkeys(PUBLISHED, 1.0) | {"num_batches": 1})


def test_perfect_predictor_of_tools_does_not_reach_one():
    tools = range(KINDS.index("tools"), 32, len(KINDS))
    ceiling = paper_ceiling(soften(draw_scene(index, size=448).mask) for index in tools)
    measured = {"iou": 0.945, "dice": 0.998, "accuracy": 0.990, "precision": 0.912, "recall": 1.0, "f1": 0.954}
    assert ceiling == pytest.approx(measured | {"num_batches": 1}, abs=5e-4)


def test_ceiling_falls_as_a_thing_grows_thin():
    rows, columns = np.mgrid[:448, :448] - 224
    across = abs(columns * np.cos(np.pi / 9) + rows * np.sin(np.pi / 9))
    precisions = [paper_ceiling([soften(across < width / 2)])["precision"] for width in (32, 16, 8, 4)]
    assert precisions == sorted(precisions, reverse=True)
    assert precisions[-1] < 0.62


@pytest.mark.parametrize(
    ("prediction", "target"),
    [((2, 4, 4), (2, 4, 5)), ((2, 4, 4), (1, 4, 4)), ((4, 4), (4, 4)), ((1, 1, 4, 4), (1, 1, 4, 4))],
    ids=str,
)
def test_batch_of_wrong_shape_is_refused(prediction, target):
    message = re.escape(f"of one shape and with at least one pixel, got {prediction} and {target}; leave out")
    with pytest.raises(ShapeError, match=message):
        paper_batch_metrics(np.zeros(prediction, dtype=bool), np.zeros(target))


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 4), (2, 4, 0)], ids=str)
def test_empty_batch_is_refused(shape):
    with pytest.raises(ShapeError, match="with at least one pixel"):
        PaperMetrics().update(np.zeros(shape, dtype=bool), np.zeros(shape))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, 255, np.nan, np.inf])
def test_target_outside_its_range_is_refused(wrong):
    target = np.array([[[0.5, wrong]]])
    with pytest.raises(
        DataError, match=r"target must be in 0\.\.1 without NaN, got values from .*divide an 8-bit mask"
    ):
        PaperMetrics().update(np.ones(target.shape, dtype=bool), target)
    with pytest.raises(DataError, match=r"target must be in 0\.\.1"):
        paper_ceiling(target)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_prediction_that_is_not_boolean_is_refused(dtype):
    with pytest.raises(DataError, match=r"must be boolean, got \w+; threshold it first: sigmoid\(logits\) > 0.5"):
        paper_batch_metrics(np.zeros((1, 2, 2), dtype), np.zeros((1, 2, 2)))


def test_metrics_refuse_other_sizes_and_leave_their_state():
    metrics = PaperMetrics()
    metrics.update(np.ones((1, 2, 2), dtype=bool), np.ones((1, 2, 2)))
    with pytest.raises(ShapeError, match=r"of one size, got \(2, 3\) after \(2, 2\); resize image and mask"):
        metrics.update(np.ones((1, 2, 3), dtype=bool), np.ones((1, 2, 3)))
    assert metrics.compute()["num_batches"] == 1


def test_nothing_to_compute_and_wrong_batch_sizes_are_refused():
    with pytest.raises(DataError, match="no image was scored, so there is nothing to compute"):
        PaperMetrics().compute()
    with pytest.raises(DataError, match="no image was scored"):
        paper_ceiling([])
    for make in (lambda: PaperMetrics(batch_size=0), lambda: paper_ceiling([np.ones((2, 2))], batch_size=-1)):
        with pytest.raises(OptionError, match=r"batch_size must be at least 1, got .*; the published one is 8"):
            make()


@pytest.fixture(scope="module")
def paper_rules():
    spec = importlib.util.spec_from_file_location("paper_rules", ROOT / "benchmarks" / "paper_rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_tables_of_the_docs_are_what_the_script_prints(paper_rules):
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    assert page == paper_rules.update_page(page, paper_rules.make_tables().items())
    assert (ROOT / "docs" / "images" / "paper-metrics.png").is_file()


def test_docs_example_runs(capsys):
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(example, "docs/paper.md", "exec"), {})
    assert capsys.readouterr().out.count("'num_batches': 2") == 2
