"""Differences between two arms and how sure they are: the unit of inference is the replicate, never the image alone.

Shape suffixes: ``S`` seeds, ``G`` groups of images, ``K`` folds; leading axes are studies.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from smooth_attention.core.errors import OptionError

__all__ = [
    "LEVEL",
    "Estimate",
    "correct_for_contrasts",
    "estimate_over_folds",
    "estimate_over_seeds",
    "plan_over_folds",
    "plan_over_seeds",
    "replicates_needed",
    "smallest_difference",
    "split_variance",
]

LEVEL = 0.05  # of every test
SEED_QUANTILE = 0.25  # of chi2: the mean square of the seeds lies below its upper bound with probability 0.75
SCALES = 4000  # quantiles of the estimated scale over which power is averaged


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean difference with its uncertainty over trainings.

    Attributes:
        mean: estimated difference.
        standard_error: of the mean; infinite where one replicate says nothing about it.
        degrees_of_freedom: of Student's t.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the two-sided confidence interval."""
        if not np.isfinite(self.standard_error):
            return -np.inf, np.inf
        reach = self.standard_error * float(stats.t.ppf(0.5 + confidence / 2, self.degrees_of_freedom))
        return self.mean - reach, self.mean + reach

    def p_value(self, null: float = 0.0) -> float:
        """Return the two-sided p-value of the hypothesis that the difference is ``null``."""
        if not np.isfinite(self.standard_error):
            return 1.0
        if self.standard_error == 0:
            return float(self.mean == null)
        return float(2 * stats.t.sf(abs(self.mean - null) / self.standard_error, self.degrees_of_freedom))


def estimate_over_seeds(differences: np.ndarray, weights: np.ndarray | None = None) -> Estimate:
    """Return the mean difference of a fixed split, for other seeds and other images: both are drawn at random.

    A crossed random model of seeds and groups, without replication in a cell:
    ``Var(mean) = (MS_seed + MS_group - MS_error) / (S G)``, not below ``max(MS_seed, MS_group) / (S G)``.

    The degrees of freedom lie between those of the seeds and those of the groups, by the share of either in the
    variance. Satterthwaite's own, from the mean squares as they come, are too many whenever a few seeds agree by
    chance: with 3 seeds they raise up to 8 % false alarms at a nominal 5 %. So the mean square of the seeds counts with
    what it could as well have been, its upper 75 % bound.

    Args:
        differences: (S, G) differences of a per-image metric between two arms, averaged within groups of images that
            belong together; an ungrouped image is its own group.
        weights: (G,) number of images of each group, so that the mean is the one over images; None: equal.

    Raises:
        OptionError: on another shape, or numbers that are not finite.
    """
    if differences.ndim != 2 or 0 in differences.shape or not np.isfinite(differences).all():
        raise OptionError(f"differences are finite numbers of shape (seeds, groups), got {differences.shape}")
    if weights is not None:
        differences = differences * (weights / np.mean(weights))
    if 1 in differences.shape:
        return Estimate(float(differences.mean()), np.inf, 0.0)
    mean, variance, freedom = crossed_moments(differences)
    return Estimate(float(mean), float(np.sqrt(variance)), float(freedom))


def crossed_moments(differences_SG: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, variance of the mean and degrees of freedom of (..., S, G) differences, at least 2 of each."""
    num_seeds, num_groups = differences_SG.shape[-2:]
    seeds_S, groups_G = differences_SG.mean(-1), differences_SG.mean(-2)
    mean = seeds_S.mean(-1)
    rest_SG = differences_SG - seeds_S[..., :, None] - groups_G[..., None, :] + mean[..., None, None]
    seed_square = num_groups * seeds_S.var(-1, ddof=1)
    group_square = num_seeds * groups_G.var(-1, ddof=1)
    error_square = (rest_SG**2).sum((-1, -2)) / ((num_seeds - 1) * (num_groups - 1))
    variance, freedom = combine_squares(seed_square, group_square, error_square, num_seeds, num_groups)
    return mean, variance, freedom


def combine_squares(
    seed_square: np.ndarray, group_square: np.ndarray, error_square: np.ndarray, num_seeds: int, num_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return variance of the mean and degrees of freedom from the mean squares of seeds, groups and the rest."""
    largest = np.maximum(seed_square, group_square)
    variance = np.maximum(seed_square + group_square - error_square, largest) / (num_seeds * num_groups)
    likely_seed_square = seed_square * (num_seeds - 1) / stats.chi2.ppf(SEED_QUANTILE, num_seeds - 1)
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(likely_seed_square / (likely_seed_square + group_square), nan=1.0)  # nothing varies
    return variance, 1 / (share / (num_seeds - 1) + (1 - share) / (num_groups - 1))


def estimate_over_folds(differences: np.ndarray, test_over_train: float) -> Estimate:
    """Return the mean difference over folds, whose training images overlap.

    Student's t over folds with the variance of Nadeau and Bengio (2003): ``(1 / K + n_test / n_train) s^2``. Seeds
    of a fold share its images, so they are averaged first.

    Args:
        differences: (K, S) differences by fold and seed.
        test_over_train: number of test images over number of training images of a fold.

    Raises:
        OptionError: on another shape, numbers that are not finite, or a ratio that is not positive.
    """
    if differences.ndim != 2 or 0 in differences.shape or not np.isfinite(differences).all():
        raise OptionError(f"differences are finite numbers of shape (folds, seeds), got {differences.shape}")
    if not test_over_train > 0:
        raise OptionError(f"n_test / n_train needs to be positive, got {test_over_train=}")
    if len(differences) == 1:
        return Estimate(float(differences.mean()), np.inf, 0.0)
    mean, variance, freedom = fold_moments(differences, test_over_train)
    return Estimate(float(mean), float(np.sqrt(variance)), freedom)


def fold_moments(differences_KS: np.ndarray, test_over_train: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return mean, variance of the mean and degrees of freedom of (..., K, S) differences, at least 2 folds."""
    folds_K = differences_KS.mean(-1)
    num_folds = folds_K.shape[-1]
    return folds_K.mean(-1), (1 / num_folds + test_over_train) * folds_K.var(-1, ddof=1), num_folds - 1.0


def correct_for_contrasts(p_values: Sequence[float]) -> list[float]:
    """Return Holm's p-values of all declared contrasts, in their order: none is below the one it came from."""
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate([(len(order) - rank) * p_values[index] for rank, index in enumerate(order)])
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, steps)
    return [float(value) for value in corrected]


def predict_power(difference: float, standard_error: float, degrees_of_freedom: float, *, level: float = 0.05) -> float:
    """Return the probability that a two-sided t-test finds a true difference.

    The noncentral t distribution, as a normal one averaged over the estimate of its scale: scipy's own gives NaN for
    shifts that small studies have.
    """
    critical = stats.t.ppf(1 - level / 2, degrees_of_freedom)
    shift = difference / standard_error
    quantiles = (np.arange(SCALES) + 0.5) / SCALES
    reach = critical * np.sqrt(stats.chi2.ppf(quantiles, degrees_of_freedom) / degrees_of_freedom)
    return float((stats.norm.sf(reach - shift) + stats.norm.cdf(-reach - shift)).mean())


def plan_over_seeds(
    seed_sd: float, group_sd: float, error_sd: float, *, num_seeds: int, num_groups: int
) -> tuple[float, float]:
    """Return standard error and degrees of freedom to expect of :func:`estimate_over_seeds`.

    Args:
        seed_sd: standard deviation of the difference between trainings.
        group_sd: between groups of images.
        error_sd: of what remains in one group of one training.
        num_seeds: trainings S, at least 2.
        num_groups: groups of images G, at least 2.
    """
    error_square = np.square(error_sd)
    seed_square, group_square = num_groups * seed_sd**2 + error_square, num_seeds * group_sd**2 + error_square
    variance, freedom = combine_squares(seed_square, group_square, error_square, num_seeds, num_groups)
    return float(np.sqrt(variance)), float(freedom)


def plan_over_folds(fold_sd: float, *, num_folds: int) -> tuple[float, float]:
    """Return standard error and degrees of freedom to expect of :func:`estimate_over_folds`.

    Args:
        fold_sd: standard deviation of the difference between folds, averaged over their seeds.
        num_folds: folds K, at least 2; each tests 1 / K of the images.
    """
    return float(np.sqrt(1 / num_folds + 1 / (num_folds - 1))) * fold_sd, num_folds - 1.0


def split_variance(differences: np.ndarray) -> tuple[float, float, float]:
    """Return standard deviations between seeds, between groups and of the rest, of (S, G) differences.

    From the mean squares of the crossed model; a component that they put below 0 is 0.
    """
    num_seeds, num_groups = differences.shape
    seeds, groups, mean = differences.mean(1), differences.mean(0), differences.mean()
    rest = differences - seeds[:, None] - groups + mean
    error = (rest**2).sum() / ((num_seeds - 1) * (num_groups - 1))
    seed = seeds.var(ddof=1) - error / num_groups
    group = groups.var(ddof=1) - error / num_seeds
    found = np.sqrt(np.maximum([seed, group, error], 0.0))
    return float(found[0]), float(found[1]), float(found[2])


def replicates_needed(
    plan: Callable[[int], tuple[float, float]], difference: float, *, start: int = 2, limit: int = 1000
) -> int | None:
    """Return the smallest number of replicates from ``start`` that sees a true difference with a probability of 80 %.

    Args:
        plan: standard error and degrees of freedom to expect of a number of replicates; both improve with it.
        difference: true difference.
        start: fewest replicates.
        limit: most; None is returned where even these do not see it.
    """

    def sees(count: int) -> bool:
        error, freedom = plan(count)
        return error == 0 or predict_power(difference, error, freedom) >= 0.8

    if not sees(limit):
        return None
    return bisect.bisect_left(range(start, limit), True, key=sees) + start


def smallest_difference(standard_error: float, degrees_of_freedom: float, *, power: float = 0.8) -> float:
    """Return the true difference that a two-sided test at 5 % finds with probability ``power``."""
    if standard_error == 0:
        return 0.0
    enough = 3 * standard_error * float(stats.t.ppf(0.975, degrees_of_freedom))

    def excess(difference: float) -> float:
        return predict_power(difference, standard_error, degrees_of_freedom) - power

    return float(optimize.brentq(excess, 0.0, enough))
