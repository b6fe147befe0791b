"""Two sets of masks against a truth, image by image: these two networks only, nothing about networks like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from smooth_attention.core.errors import DataError
from smooth_attention.core.files import plain
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import (
    ComparedSide,
    Comparison,
    Differences,
    ImageMetrics,
    Interval,
    PairedImage,
    PartMetrics,
)
from smooth_attention.data.folder import files_by_mask_stem, files_by_stem, read_classes, read_groups, read_mask
from smooth_attention.metrics import COUNTED, StandardMetrics, mean_defined, score_counts
from smooth_attention.metrics.iou import count_scored

__all__ = ["compare", "interval"]

CONVENTION = (
    "these two networks only: the intervals resample groups of test images and say nothing about other trainings"
)
Difference = Callable[[np.ndarray, np.ndarray, np.ndarray, str], Callable[[np.ndarray], np.ndarray]]
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Truth:
    """Masks to compare with.

    Attributes:
        files: from stem to mask file.
        class_names: one per label, None for a binary task.
        groups: from stem to group.
    """

    files: Mapping[str, Path]
    class_names: tuple[str, ...] | None
    groups: Mapping[str, str]


def compare(
    a: Path, b: Path, truth: Path, *, groups: Path | None = None, seed: int = 0, mask_threshold: int | None = None
) -> Comparison:
    """Compare two runs, or two folders of masks from any framework, against the same truth.

    Args:
        a: a RUN (its ``predictions/``) or a folder of masks; stems as in the truth.
        b: the other one.
        truth: a folder of masks, or a data directory with ``masks/``; ``classes.txt`` and ``groups.csv`` count.
        groups: a ``stem,group`` CSV instead of the one beside the truth.
        seed: of the resampling.
        mask_threshold: grey value from which a binary mask is foreground, on all sides; None: masks hold two values.

    Returns:
        The metrics of both, b minus a with 95 % intervals, and the images one by one.

    Raises:
        DataError: where folders are missing, nothing is in common, or a mask does not fit its truth.
    """
    reference = open_truth(truth, groups)
    files = {name: prediction_files(path, reference.files) for name, path in (("a", a), ("b", b))}
    common = sorted(files["a"].keys() & files["b"].keys() & reference.files.keys())
    if not common:
        raise DataError(f"{a}, {b} and {truth} have no stem in common; masks are matched by file name")
    left_out = sorted((files["a"].keys() | files["b"].keys()) - set(common))
    from_a, from_b = (score_masks(files[name], reference, common, mask_threshold) for name in ("a", "b"))
    return Comparison(
        convention=CONVENTION,
        num_images=len(common),
        num_groups=len({reference.groups[stem] for stem in common}),
        left_out=tuple(left_out),
        a=ComparedSide(source=str(a), pooled=from_a.metrics.pooled, per_image=from_a.metrics.per_image),
        b=ComparedSide(source=str(b), pooled=from_b.metrics.pooled, per_image=from_b.metrics.per_image),
        differences=differences(from_a.counts, from_b.counts, [reference.groups[stem] for stem in common], seed),
        images=tuple(map(pair_image, from_a.metrics.images, from_b.metrics.images)),
    )


@dataclass(frozen=True, slots=True)
class Scored:
    """Metrics of one side, and its counts (P, L, 4) of the classes that count."""

    metrics: PartMetrics
    counts: np.ndarray


def score_masks(files: Mapping[str, Path], truth: Truth, stems: list[str], threshold: int | None) -> Scored:
    metrics = StandardMetrics(truth.class_names, groups=dict(truth.groups))
    counts = []
    for stem in stems:
        predicted = read_mask(files[stem], truth.class_names, threshold)
        expected = read_mask(truth.files[stem], truth.class_names, threshold)
        if predicted.shape != expected.shape:
            raise DataError(
                f"{files[stem]} is {predicted.shape[1]}x{predicted.shape[0]}, its truth {truth.files[stem]} is "
                f"{expected.shape[1]}x{expected.shape[0]}; resize the prediction by nearest neighbour"
            )
        metrics.update_labels(stem, predicted, expected)
        counts.append(count_scored(predicted, expected, truth.class_names))
    return Scored(read_part(PartMetrics, plain(metrics.compute())), np.stack(counts))


def differences(a: np.ndarray, b: np.ndarray, groups: list[str], seed: int) -> Differences:
    """Return b minus a in every metric, pooled and per image, with bootstrap intervals over groups of images."""
    _, members = np.unique(groups, return_inverse=True)
    membership_GP = (members == np.arange(members.max() + 1)[:, None]).astype(float)

    def of_all(difference: Difference) -> dict[str, Interval]:
        return {name: interval(difference(a, b, membership_GP, name), len(membership_GP), seed) for name in COUNTED}

    return Differences(pooled=of_all(pooled_difference), per_image=of_all(image_difference))


def pooled_difference(
    a: np.ndarray, b: np.ndarray, membership: np.ndarray, metric: str
) -> Callable[[np.ndarray], np.ndarray]:
    a_GL4, b_GL4 = (np.einsum("gp,plk->glk", membership, counts) for counts in (a, b))

    def statistic(drawn_RG: np.ndarray) -> np.ndarray:
        sides = (score_counts(np.take(counts, drawn_RG, axis=0).sum(axis=-3))[metric] for counts in (a_GL4, b_GL4))
        from_a, from_b = (mean_defined(side, axis=-1) for side in sides)
        return from_b - from_a

    return statistic


def image_difference(
    a: np.ndarray, b: np.ndarray, membership: np.ndarray, metric: str
) -> Callable[[np.ndarray], np.ndarray]:
    sides = [mean_defined(score_counts(counts)[metric], axis=-1) for counts in (a, b)]
    sums = [membership @ np.nan_to_num(side) for side in sides]
    sizes = [membership @ np.isfinite(side) for side in sides]

    def statistic(drawn_RG: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            from_a, from_b = (t[drawn_RG].sum(-1) / n[drawn_RG].sum(-1) for t, n in zip(sums, sizes, strict=True))
        return np.asarray(from_b - from_a)

    return statistic


def interval(statistic: Callable[[np.ndarray], np.ndarray], num_groups: int, seed: int) -> Interval:
    """Return the difference with a percentile interval over resampled groups; None where there is only one group."""
    groups = np.arange(num_groups)
    observed = float(statistic(groups[None])[0])
    if num_groups < 2 or not np.isfinite(observed):
        return Interval(difference=observed if np.isfinite(observed) else None, low=None, high=None)
    result = stats.bootstrap(
        (groups,),
        lambda drawn, axis: statistic(drawn.astype(int)),
        vectorized=True,
        batch=200,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(difference=observed, low=float(low), high=float(high))


def pair_image(a: ImageMetrics, b: ImageMetrics) -> PairedImage:
    difference = None if a.iou is None or b.iou is None else b.iou - a.iou
    return PairedImage(stem=a.stem, group=a.group, a_iou=a.iou, b_iou=b.iou, difference=difference)


def open_truth(path: Path, groups: Path | None) -> Truth:
    if not path.is_dir():
        raise DataError(f"no such folder of masks: {path}; give a folder of masks, or a data directory with masks/")
    folder = path / "masks" if (path / "masks").is_dir() else path
    root = path if (path / "masks").is_dir() else path.parent
    images = files_by_stem(root / "images") if (root / "images").is_dir() else {}
    files = files_by_mask_stem(folder, images)
    if groups is not None and not groups.is_file():
        raise DataError(f"no such file: {groups}; --groups is a CSV with the columns stem,group")
    return Truth(files, read_classes(root / "classes.txt"), read_groups(groups or root / "groups.csv", tuple(files)).of)


def prediction_files(path: Path, truth: Mapping[str, Path]) -> dict[str, Path]:
    if not path.is_dir():
        raise DataError(f"no such run or folder of masks: {path}")
    is_run = (path / "record.json").is_file()
    if is_run and not (path / "predictions").is_dir():
        raise DataError(f"{path} is a run without predictions/; let it finish, or evaluate it first")
    return files_by_mask_stem(path / "predictions" if is_run else path, truth)
