"""Differences between two arms, image by image and training by training, and what the statistics make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smooth_attention.core.records import ImageMetrics, Interval
from smooth_attention.runs.compare import interval
from smooth_attention.study.execution.collect import Result, Study
from smooth_attention.study.statistics import (
    Estimate,
    estimate_over_folds,
    estimate_over_seeds,
    plan_over_folds,
    plan_over_seeds,
    replicates_needed,
    smallest_difference,
    split_variance,
)

__all__ = ["Paired", "compare_arms", "images_of", "pair_arms"]


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of one metric, arm minus reference, over the replicates that both arms have.

    Attributes:
        replicates: (fold, seed) of each row.
        images: stems of each row's test images; the same in all rows of one fold.
        groups: group of each stem.
        differences: one array (P,) for each replicate.
        test_over_train: number of test images over number of training images, mean over replicates.
        has_folds: whether the rows test different folds.
    """

    replicates: tuple[tuple[int, int], ...]
    images: tuple[tuple[str, ...], ...]
    groups: Mapping[str, str]
    differences: tuple[np.ndarray, ...]
    test_over_train: float
    has_folds: bool

    @property
    def count(self) -> int:
        """Units of inference: folds where there are some, else trainings."""
        return len({fold for fold, _ in self.replicates}) if self.has_folds else len(self.replicates)

    @property
    def num_images(self) -> int:
        return len({stem for stems in self.images for stem in stems})

    @property
    def num_groups(self) -> int:
        return len({self.groups[stem] for stems in self.images for stem in stems})

    def by_group(self) -> tuple[np.ndarray, np.ndarray]:
        """Return differences (S, G) averaged within groups, and the groups' sizes (G,), for a fixed split."""
        names = np.array([self.groups[stem] for stem in self.images[0]])
        _, members = np.unique(names, return_inverse=True)
        sizes = np.bincount(members)
        sums = [np.bincount(members, weights=row) for row in self.differences]
        return np.stack(sums) / sizes, sizes.astype(float)

    def by_fold(self) -> np.ndarray:
        """Return the mean difference (K, 1) of each fold, over its seeds and images."""
        folds = sorted({fold for fold, _ in self.replicates})
        rows = [
            [d.mean() for (f, _), d in zip(self.replicates, self.differences, strict=True) if f == k] for k in folds
        ]
        return np.array([[np.mean(row)] for row in rows])

    def estimate(self) -> Estimate:
        """Return the mean difference and its uncertainty over trainings and images."""
        if self.has_folds:
            return estimate_over_folds(self.by_fold(), self.test_over_train)
        return estimate_over_seeds(*self.by_group())

    def estimate_trained(self) -> Interval:
        """Return the difference with an interval that resamples groups of images: these trained networks only."""
        sums: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for stems, row in zip(self.images, self.differences, strict=True):
            for stem, difference in zip(stems, row, strict=True):
                group = self.groups[stem]
                sums[group] = sums.get(group, 0.0) + float(difference)
                sizes[group] = sizes.get(group, 0) + 1
        total, size = np.array(list(sums.values())), np.array(list(sizes.values()))
        return interval(lambda drawn_RG: total[drawn_RG].sum(-1) / size[drawn_RG].sum(-1), len(total), seed=0)

    def smallest(self) -> float | None:
        """Return the true difference that as many replicates see with a probability of 80 %; None: none."""
        plan = self.plan(self.count)
        return None if plan is None else smallest_difference(*plan)

    def more_needed(self, difference: float) -> int | None:
        """Return how many more replicates (folds, where there are some) see a difference; None: no number does."""
        if self.plan(self.count) is None:
            return None
        needed = replicates_needed(lambda count: self.plan(count) or (np.inf, 1.0), difference, start=self.count + 1)
        return None if needed is None else needed - self.count

    def plan(self, count: int) -> tuple[float, float] | None:
        """Return standard error and degrees of freedom to expect of ``count`` replicates like these; None of one."""
        if self.has_folds:
            folds = self.by_fold()
            return None if min(len(folds), count) < 2 else plan_over_folds(float(folds.std(ddof=1)), num_folds=count)
        differences, sizes = self.by_group()
        if 1 in differences.shape or count < 2:
            return None
        weighted = differences * (sizes / sizes.mean())
        seed_sd, group_sd, error_sd = split_variance(weighted)
        return plan_over_seeds(seed_sd, group_sd, error_sd, num_seeds=count, num_groups=len(sizes))


def pair_arms(study: Study, dataset: str, arm: str, reference: str, metric: str = "iou") -> Paired | None:
    """Return the paired differences of two arms; None where no replicate is finished in both.

    A metric that is undefined in an image (nothing there and nothing predicted) counts as 1: a network that predicts
    something there, and scores 0, is worse.

    Args:
        study: with its records.
        dataset: name.
        arm: name of the arm.
        reference: name of the arm that is subtracted.
        metric: of an image in the records.
    """
    ours, theirs = (
        {(result.fold, result.seed): result for result in study.of(dataset, name)} for name in (arm, reference)
    )
    common = tuple(key for key in ours if key in theirs)
    if not common:
        return None
    rows = [subtract(ours[key], theirs[key], metric) for key in common]
    splits = [ours[key].record.data.split for key in common]
    images = [ours[key].record.metrics.test.images for key in common]
    return Paired(
        replicates=common,
        images=tuple(tuple(image.stem for image in listed) for listed in images),
        groups={image.stem: image.group for listed in images for image in listed},
        differences=tuple(rows),
        test_over_train=float(np.mean([len(split.test) / len(split.train) for split in splits])),
        has_folds=study.config.replicates.folds is not None,
    )


def subtract(ours: Result, theirs: Result, metric: str) -> np.ndarray:
    """Return the differences of one metric over the test images of a replicate, matched by stem."""
    values = [
        {image.stem: 1.0 if (value := getattr(image, metric)) is None else value for image in images_of(result)}
        for result in (ours, theirs)
    ]
    return np.array([values[0][stem] - values[1][stem] for stem in values[0]])


def images_of(result: Result) -> Sequence[ImageMetrics]:
    return result.record.metrics.test.images


def compare_arms(study: Study, dataset: str, arm: str, reference: str, metric: str = "iou") -> Estimate | None:
    """Return the estimated difference of two arms in one metric; None where no replicate is finished in both."""
    paired = pair_arms(study, dataset, arm, reference, metric)
    return None if paired is None else paired.estimate()
