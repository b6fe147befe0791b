"""Two sets of masks against a truth, image by image: these two networks only, nothing about networks like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from smooth_attention.core.errors import DataError
from smooth_attention.data.folder import files_by_mask_stem, files_by_stem, read_classes, read_groups, read_mask
from smooth_attention.metrics import COUNTED, StandardMetrics, count_pixels, mean_defined, score_counts

CONVENTION = (
    "these two networks only: the intervals resample groups of test images and say nothing about other trainings"
)
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


def compare(a: Path, b: Path, truth: Path, *, groups: Path | None = None, seed: int = 0) -> dict[str, Any]:
    """Compare two runs, or two folders of masks from any framework, against the same truth.

    Args:
        a: a RUN (its ``predictions/``) or a folder of masks; stems as in the truth.
        b: the other one.
        truth: a folder of masks, or a data directory with ``masks/``; ``classes.txt`` and ``groups.csv`` count.
        groups: a ``stem,group`` CSV instead of the one beside the truth.
        seed: of the resampling.

    Returns:
        JSON-ready: ``convention``, ``num_images``, ``num_groups``, ``left_out`` (stems that one side lacks), ``a`` and
        ``b`` (``pooled`` and ``per_image`` figures), ``differences`` of b minus a with 95 % intervals, ``images``.

    Raises:
        DataError: where folders are missing, nothing is in common, or a mask does not fit its truth.
    """
    reference = open_truth(truth, groups)
    files = {name: prediction_files(path, reference.files) for name, path in (("a", a), ("b", b))}
    common = sorted(files["a"].keys() & files["b"].keys() & reference.files.keys())
    if not common:
        raise DataError(f"{a}, {b} and {truth} have no stem in common; masks are matched by file name")
    left_out = sorted((files["a"].keys() | files["b"].keys()) - set(common))
    scored = {name: score(by_stem, reference, common) for name, by_stem in files.items()}
    counts = {name: metrics.counts for name, metrics in scored.items()}
    figures = {name: metrics.figures for name, metrics in scored.items()}
    return {
        "convention": CONVENTION,
        "num_images": len(common),
        "num_groups": len({reference.groups[stem] for stem in common}),
        "left_out": left_out,
        "a": {"source": str(a), "pooled": figures["a"]["pooled"], "per_image": figures["a"]["per_image"]},
        "b": {"source": str(b), "pooled": figures["b"]["pooled"], "per_image": figures["b"]["per_image"]},
        "differences": differences(counts["a"], counts["b"], [reference.groups[stem] for stem in common], seed),
        "images": paired_images(figures["a"]["images"], figures["b"]["images"]),
    }


@dataclass(frozen=True, slots=True)
class Scored:
    """Figures of one side, and its counts (P, L, 4) of the figured classes."""

    figures: dict[str, Any]
    counts: np.ndarray


def score(files: Mapping[str, Path], truth: Truth, stems: list[str]) -> Scored:
    metrics = StandardMetrics(truth.class_names, groups=dict(truth.groups))
    num_labels = 2 if truth.class_names is None else len(truth.class_names)
    counts = []
    for stem in stems:
        predicted = read_mask(files[stem], truth.class_names)
        expected = read_mask(truth.files[stem], truth.class_names)
        if predicted.shape != expected.shape:
            raise DataError(
                f"{files[stem]} is {predicted.shape[1]}x{predicted.shape[0]}, its truth {truth.files[stem]} is "
                f"{expected.shape[1]}x{expected.shape[0]}; resize the prediction by nearest neighbour"
            )
        metrics.update_labels(stem, predicted, expected)
        rows = count_pixels(predicted, expected, num_classes=num_labels)
        counts.append(rows if truth.class_names else rows[1:])
    return Scored(metrics.compute(), np.stack(counts))


def differences(a: np.ndarray, b: np.ndarray, groups: list[str], seed: int) -> dict[str, Any]:
    """Return b minus a for every figure, pooled and per image, with bootstrap intervals over groups of images."""
    _, members = np.unique(groups, return_inverse=True)
    membership_GP = (members == np.arange(members.max() + 1)[:, None]).astype(float)
    found: dict[str, Any] = {"pooled": {}, "per_image": {}}
    for figure in COUNTED:
        found["pooled"][figure] = interval(pooled_difference(a, b, membership_GP, figure), len(membership_GP), seed)
        per_image = image_difference(a, b, membership_GP, figure)
        found["per_image"][figure] = interval(per_image, len(membership_GP), seed)
    return found


def pooled_difference(
    a: np.ndarray, b: np.ndarray, membership: np.ndarray, figure: str
) -> Callable[[np.ndarray], np.ndarray]:
    a_GL4, b_GL4 = (np.einsum("gp,plk->glk", membership, counts) for counts in (a, b))

    def statistic(drawn_RG: np.ndarray) -> np.ndarray:
        sides = (score_counts(np.take(counts, drawn_RG, axis=0).sum(axis=-3))[figure] for counts in (a_GL4, b_GL4))
        from_a, from_b = (mean_defined(side, axis=-1) for side in sides)
        return from_b - from_a

    return statistic


def image_difference(
    a: np.ndarray, b: np.ndarray, membership: np.ndarray, figure: str
) -> Callable[[np.ndarray], np.ndarray]:
    sides = [mean_defined(score_counts(counts)[figure], axis=-1) for counts in (a, b)]
    sums = [membership @ np.nan_to_num(side) for side in sides]
    sizes = [membership @ np.isfinite(side) for side in sides]

    def statistic(drawn_RG: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            from_a, from_b = (t[drawn_RG].sum(-1) / n[drawn_RG].sum(-1) for t, n in zip(sums, sizes, strict=True))
        return np.asarray(from_b - from_a)

    return statistic


def interval(statistic: Callable[[np.ndarray], np.ndarray], num_groups: int, seed: int) -> dict[str, float | None]:
    """Return the difference with a percentile interval over resampled groups; None where there is only one group."""
    groups = np.arange(num_groups)
    observed = float(statistic(groups[None])[0])
    if num_groups < 2 or not np.isfinite(observed):
        return {"difference": observed if np.isfinite(observed) else None, "low": None, "high": None}
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
    return {"difference": observed, "low": float(low), "high": float(high)}


def paired_images(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "stem": left["stem"],
            "group": left["group"],
            "a_iou": left["iou"],
            "b_iou": right["iou"],
            "difference": None if None in (left["iou"], right["iou"]) else right["iou"] - left["iou"],
        }
        for left, right in zip(a, b, strict=True)
    ]


def open_truth(path: Path, groups: Path | None) -> Truth:
    if not path.is_dir():
        raise DataError(f"no such folder of masks: {path}; give a folder of masks, or a data directory with masks/")
    folder = path / "masks" if (path / "masks").is_dir() else path
    root = path if (path / "masks").is_dir() else path.parent
    images = files_by_stem(root / "images") if (root / "images").is_dir() else {}
    files = files_by_mask_stem(folder, images)
    if groups is not None and not groups.is_file():
        raise DataError(f"no such file: {groups}; --groups is a CSV with the columns stem,group")
    return Truth(files, read_classes(root / "classes.txt"), read_groups(groups or root / "groups.csv", tuple(files)))


def prediction_files(path: Path, truth: Mapping[str, Path]) -> dict[str, Path]:
    if not path.is_dir():
        raise DataError(f"no such run or folder of masks: {path}")
    is_run = (path / "record.json").is_file()
    if is_run and not (path / "predictions").is_dir():
        raise DataError(f"{path} is a run without predictions/; let it finish, or evaluate it first")
    return files_by_mask_stem(path / "predictions" if is_run else path, truth)
