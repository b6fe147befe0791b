"""Statistics of a study, accepted by simulation with known truth: false alarms, power, coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from smooth_attention.core.errors import OptionError
from smooth_attention.study.statistics import (
    Estimate,
    correct_for_contrasts,
    crossed_moments,
    estimate_over_folds,
    estimate_over_seeds,
    fold_moments,
    plan_over_folds,
    plan_over_seeds,
    predict_power,
    replicates_needed,
    smallest_difference,
    split_variance,
)

STUDIES, LEVEL, MOST = 4000, 0.05, 0.065


def draw_seeds(
    num_seeds: int, num_groups: int, run_sd: float, group_sd: float, error_sd: float, seed: int
) -> np.ndarray:
    """Return differences (studies, seeds, groups) in points whose true mean is 0."""
    rng = np.random.default_rng(seed)
    shape = (STUDIES, num_seeds, num_groups)
    return (
        rng.normal(0, run_sd, (STUDIES, num_seeds, 1))
        + rng.normal(0, group_sd, (STUDIES, 1, num_groups))
        + rng.normal(0, error_sd, shape)
    )


def share_rejected(mean: np.ndarray, variance: np.ndarray, freedom: Any) -> float:
    return float((2 * stats.t.sf(np.abs(mean) / np.sqrt(variance), freedom) < LEVEL).mean())


@pytest.mark.parametrize("num_seeds", [3, 4, 5, 7, 10])
@pytest.mark.parametrize("run_sd", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    ("num_groups", "group_sd", "error_sd"), [(8, 2, 3), (20, 8, 0.5), (54, 0, 6), (54, 2, 0.5), (120, 8, 6)]
)
def test_fixed_split_raises_few_false_alarms(
    num_seeds: int, run_sd: float, num_groups: int, group_sd: float, error_sd: float
) -> None:
    differences = draw_seeds(num_seeds, num_groups, run_sd, group_sd, error_sd, seed=num_seeds)
    assert share_rejected(*crossed_moments(differences)) <= MOST


@pytest.mark.parametrize("num_folds", [3, 5, 10])
@pytest.mark.parametrize("num_seeds", [1, 2])
@pytest.mark.parametrize("run_sd", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("data_sd", [0.5, 2.0])
def test_folds_raise_few_false_alarms(num_folds: int, num_seeds: int, run_sd: float, data_sd: float) -> None:
    """What the training images do to a difference is shared by folds as far as Nadeau and Bengio assume: n_test / n."""
    rng = np.random.default_rng(num_folds)
    shared = 1 / num_folds
    differences = (
        data_sd * np.sqrt(shared) * rng.normal(size=(STUDIES, 1, 1))
        + data_sd * np.sqrt(1 - shared) * rng.normal(size=(STUDIES, num_folds, 1))
        + rng.normal(0, 1.5, (STUDIES, num_folds, 1))  # the fold's own test images
        + rng.normal(0, run_sd, (STUDIES, num_folds, num_seeds))
    )
    assert share_rejected(*fold_moments(differences, 1 / (num_folds - 1))) <= MOST


def test_images_as_the_unit_would_raise_false_alarms() -> None:
    """Why the replicate is the unit: a t-test over images forgets that another training differs."""
    differences = draw_seeds(3, 54, 1.0, 2.0, 3.0, seed=0).mean(1)
    p_values = stats.ttest_1samp(differences, 0, axis=1).pvalue
    assert (p_values < LEVEL).mean() > 0.12


def test_degrees_of_freedom_by_satterthwaite_would_raise_false_alarms() -> None:
    """Why they are not used: three seeds agree by chance, and their mean square takes the freedom of the images."""
    differences = draw_seeds(3, 60, 1.0, 2.0, 0.5, seed=0)
    mean, variance, _ = crossed_moments(differences)
    seed_square = 60 * differences.mean(2).var(1, ddof=1)
    group_square = 3 * differences.mean(1).var(1, ddof=1)
    freedom = (seed_square + group_square) ** 2 / (seed_square**2 / 2 + group_square**2 / 59)
    assert share_rejected(mean, variance, freedom) > MOST
    assert share_rejected(*crossed_moments(differences)) <= MOST


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
@pytest.mark.parametrize("run_sd", [0.5, 2.0])
def test_power_is_as_predicted(num_seeds: int, run_sd: float) -> None:
    sds = {"seed_sd": run_sd, "group_sd": 3.0, "error_sd": 4.0}
    error, freedom = plan_over_seeds(**sds, num_seeds=num_seeds, num_groups=60)
    difference = smallest_difference(error, freedom)
    assert predict_power(difference, error, freedom) == pytest.approx(0.8, abs=1e-6)
    drawn = difference + draw_seeds(num_seeds, 60, run_sd, 3.0, 4.0, seed=1)
    assert share_rejected(*crossed_moments(drawn)) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("freedom", [2.0, 7.3, 60.0])
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_power_is_that_of_the_noncentral_t(freedom: float, shift: float) -> None:
    critical = stats.t.ppf(0.975, freedom)
    want = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
    assert predict_power(2 * shift, 2.0, freedom) == pytest.approx(want, abs=2e-4)


def test_interval_covers_the_truth() -> None:
    drawn = 1.5 + draw_seeds(5, 30, 1.0, 3.0, 4.0, seed=2)[:500]
    intervals = [estimate_over_seeds(study).interval() for study in drawn]
    assert np.mean([low <= 1.5 <= high for low, high in intervals]) >= 0.935


def test_seeds_alone_give_the_t_test_over_seeds() -> None:
    """Where all images agree, nothing but the seeds varies."""
    seeds = np.array([0.5, 1.5, 2.5, 0.7])
    estimate = estimate_over_seeds(np.repeat(seeds[:, None], 50, axis=1))
    want = stats.ttest_1samp(seeds, 0)
    assert estimate.degrees_of_freedom == pytest.approx(3)
    assert estimate.p_value() == pytest.approx(want.pvalue)
    assert estimate.interval() == pytest.approx(tuple(want.confidence_interval()))


def test_mean_squares_are_those_of_a_two_way_table() -> None:
    table = np.random.default_rng(3).normal(size=(4, 7))
    mean, variance, _ = crossed_moments(table)
    seeds = 7 * ((table.mean(1) - table.mean()) ** 2).sum() / 3
    groups = 4 * ((table.mean(0) - table.mean()) ** 2).sum() / 6
    total = ((table - table.mean()) ** 2).sum()
    rest = (total - 3 * seeds - 6 * groups) / 18
    assert mean == pytest.approx(table.mean())
    assert variance == pytest.approx(max(seeds + groups - rest, seeds, groups) / 28)


def test_components_of_the_variance_come_back() -> None:
    drawn = draw_seeds(40, 400, 1.0, 3.0, 4.0, seed=5)[0]
    assert split_variance(drawn) == pytest.approx((1.0, 3.0, 4.0), rel=0.2)
    assert split_variance(np.ones((3, 5))) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed_sd", [0.5, 2.0])
def test_replicates_needed_are_the_fewest_that_see_it(seed_sd: float) -> None:
    def plan(count: int) -> tuple[float, float]:
        return plan_over_seeds(seed_sd, 1.0, 2.0, num_seeds=count, num_groups=200)

    needed = replicates_needed(plan, 1.0)
    assert needed is not None
    assert predict_power(1.0, *plan(needed)) >= 0.8
    assert needed == 2 or predict_power(1.0, *plan(needed - 1)) < 0.8


def test_no_number_of_replicates_makes_up_for_few_images() -> None:
    assert replicates_needed(lambda n: plan_over_seeds(1.0, 3.0, 4.0, num_seeds=n, num_groups=10), 1.0) is None


def test_folds_are_planned_with_the_corrected_variance() -> None:
    folds = np.array([[1.0], [2.0], [4.0], [0.5], [2.5]])
    planned = plan_over_folds(float(folds.std(ddof=1)), num_folds=5)
    estimate = estimate_over_folds(folds, 1 / 4)
    assert planned == (pytest.approx(estimate.standard_error), estimate.degrees_of_freedom)


def test_no_spread_shows_any_difference() -> None:
    assert smallest_difference(0.0, 3.0) == 0.0
    assert replicates_needed(lambda n: (0.0, n - 1.0), 0.1) == 2


def test_weights_make_the_mean_one_over_images() -> None:
    differences = np.array([[1.0, 3.0, 5.0], [2.0, 2.0, 8.0]])
    estimate = estimate_over_seeds(differences, np.array([1, 2, 7]))
    assert estimate.mean == pytest.approx(np.average(differences, axis=1, weights=[1, 2, 7]).mean())


@pytest.mark.parametrize(
    "estimate",
    [
        estimate_over_seeds(np.ones((1, 9))),
        estimate_over_folds(np.ones((1, 3)), 0.25),
        estimate_over_seeds(np.ones((3, 1))),
    ],
    ids=["one seed", "one fold", "one image"],
)
def test_one_replicate_says_nothing(estimate: Estimate) -> None:
    assert estimate.mean == 1
    assert estimate.interval() == (-np.inf, np.inf)
    assert estimate.p_value() == 1.0


@pytest.mark.parametrize(("value", "p_value"), [(0.0, 1.0), (0.5, 0.0)])
def test_differences_that_do_not_vary_are_certain(value: float, p_value: float) -> None:
    estimate = estimate_over_seeds(np.full((3, 4), value))
    assert estimate.p_value() == p_value
    assert estimate.interval() == (value, value)


def test_folds_average_their_seeds_first() -> None:
    differences = np.array([[1.0, 3.0], [0.0, 0.0], [4.0, 6.0]])
    estimate = estimate_over_folds(differences, 0.5)
    assert (estimate.mean, estimate.degrees_of_freedom) == (pytest.approx(7 / 3), 2)
    assert estimate.standard_error**2 == pytest.approx((1 / 3 + 0.5) * np.var([2, 0, 5], ddof=1))


def test_holm_corrects_as_by_hand() -> None:
    assert correct_for_contrasts([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert correct_for_contrasts([0.9, 0.5]) == [1.0, 1.0]
    assert correct_for_contrasts([]) == []


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: estimate_over_seeds(np.ones(3)), r"shape \(seeds, groups\), got \(3,\)"),
        (lambda: estimate_over_seeds(np.full((2, 2), np.nan)), "finite numbers"),
        (lambda: estimate_over_folds(np.ones((0, 2)), 0.2), r"shape \(folds, seeds\), got \(0, 2\)"),
        (lambda: estimate_over_folds(np.ones((3, 2)), 0.0), "needs to be positive, got test_over_train=0.0"),
    ],
    ids=["vector", "nan", "empty", "ratio"],
)
def test_differences_that_are_none_are_refused(call: Any, sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        call()
