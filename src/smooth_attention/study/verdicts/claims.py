"""What a study measured of each claim of the paper: holds, fails, can't tell, not tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from smooth_attention.core.records import METRIC_TITLES
from smooth_attention.study.design.arms import make_arm
from smooth_attention.study.execution.collect import Result, Study
from smooth_attention.study.quantities import QUANTITY, Quantity, subtract
from smooth_attention.study.statistics import LEVEL, Estimate, correct_for_contrasts, estimate_over_folds
from smooth_attention.study.verdicts.contrasts import pair_arms
from smooth_attention.study.verdicts.published import TABLE_CLAIMS, Place, Quantifier, TableClaim, find_place
from smooth_attention.study.verdicts.retention import are_mixed

__all__ = ["CONVENTION", "Claim", "estimate_over_runs", "judge_claims"]

Outcome = Literal["holds", "fails", "can't tell", "not tested"]

FEW = 4  # contrasts that are listed one by one
CONVENTION = (
    "IoU and the like: per image, protocol standard, native size, intervals over trainings and images; other "
    "quantities: intervals over trainings, on these images. A claim of several parts holds where every part does (each "
    "at 5 %), fails where one is against it (at 5 %, Holm within the claim); claims are not corrected for each other"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the paper on a dataset of the study.

    Attributes:
        dataset: its name in the study.
        source: where the paper says so, e.g. ``table 5``.
        claim: what it says, in our words.
        measured: what was measured, with convention and number of trainings.
        outcome: one of four; of fewer than two trainings never ``holds`` or ``fails``.
        on_paper_data: False for a stand-in or other data: nothing is tested on the paper's data then.
    """

    dataset: str
    source: str
    claim: str
    measured: str
    outcome: Outcome
    on_paper_data: bool


@dataclass(frozen=True, slots=True)
class ClaimPart:
    """One difference that a claim is about.

    Attributes:
        label: what is subtracted from what.
        sign: 1 where the claim is that it is above 0, -1 below.
        estimate: of the difference; None where an arm or a quantity is missing.
        replicates: trainings behind it.
        in_points: whether it is shown in hundredths.
        lacks: what is missing.
    """

    label: str
    sign: int
    estimate: Estimate | None
    replicates: int
    in_points: bool
    lacks: tuple[str, ...] = ()


SMOOTHED, PLAIN = (
    tuple(QUANTITY[f"{rows}_{name}"] for name in ("total_variation", "autocorrelation"))
    for rows in ("smoothed", "plain")
)
SMOOTHING = tuple(
    replace(after, title=f"{after.title}, after − before smoothing", read=subtract(after.read, before.read))
    for after, before in zip(SMOOTHED, PLAIN, strict=True)
)
MASKS = (QUANTITY["mask_components"], QUANTITY["mask_perimeter2_area"])
OVERFITTING = (QUANTITY["train_minus_test_iou"],)
NOISE = (QUANTITY["noise_retention"],)
PERTURBATIONS = (QUANTITY["noise_mask_agreement"], QUANTITY["shift_mask_agreement"])


def judge_claims(study: Study) -> list[Claim]:
    """Return every claim that concerns a dataset of the study, with what its records say.

    Claims of the tables concern the dataset of that table or its stand-in, figures 6 and 7 fish, the others all data.
    They compare ``smooth-0.4`` with ``attention``; where it is missing, the first smooth arm stands for the former.
    """
    claims: list[Claim] = []
    for dataset in study.datasets:
        place = find_place(study, dataset)
        for stated in TABLE_CLAIMS:
            if stated.dataset == place.dataset:
                outcome, measured = judge_parts(
                    table_parts(study, dataset, stated), stated.quantifier, study.config.margin
                )
                source = f"table {place.table}"
                claims.append(Claim(dataset, source, stated.sentence, measured, outcome, place.is_published))
        claims += judge_general(study, dataset, place)
    return claims


def judge_general(study: Study, dataset: str, place: Place) -> Iterable[Claim]:
    """Give the claims of the figures and of the introduction."""
    arm = smooth_arm(study, dataset)
    against = (arm, "attention")
    on_flood, on_any = (place.is_published and (wide or place.dataset == "flood") for wide in (False, True))
    pair = f"with {arm} than with plain attention"
    run_parts: list[tuple[str, str, tuple[str, str | None], tuple[Quantity, ...], bool]] = [
        ("figures 2-5", f"attention less fragmented {pair}", against, SMOOTHED, on_flood),
        ("figures 2-5", f"attention of {arm} less fragmented after smoothing", (arm, None), SMOOTHING, on_flood),
        ("figures 8/9", f"masks with fewer fragments, less abrupt edges {pair}", against, MASKS, on_flood),
        ("introduction", f"less overfitting {pair}", against, OVERFITTING, on_any),
        ("introduction", f"less sensitive to noise {pair}", against, NOISE, on_any),
        ("introduction", f"less sensitive to small perturbations {pair}", against, PERTURBATIONS, on_any),
    ]
    if place.dataset == "fish":
        low, high = (make_arm("smooth", {"threshold": t}).name for t in (0.1, 0.9))
        sentence = "attention denser and more even at 0.1 than at 0.9"
        run_parts.insert(2, ("figures 6/7", sentence, (low, high), SMOOTHED, place.is_published))
    for source, sentence, (first, second), quantities, is_paper in run_parts:
        parts = [run_part(study, dataset, first, second, quantity) for quantity in quantities]
        if quantities is MASKS:
            parts.append(image_part(study, dataset, first, "attention", "boundary_iou"))
        outcome, measured = judge_parts(parts, "all", study.config.margin)
        yield Claim(dataset, source, sentence, measured, outcome, is_paper)


def smooth_arm(study: Study, dataset: str) -> str:
    """Return the smooth arm that stands for the paper's 0.4."""
    names = [arm.name for arm in study.config.parsed_arms if arm.is_smooth and not arm.candidates]
    done = [name for name in names if study.of(dataset, name)]
    default = make_arm("smooth", {}).name
    return default if default in done or not done else done[0]


def table_parts(study: Study, dataset: str, stated: TableClaim) -> list[ClaimPart]:
    pairs = [(make_arm("smooth", {"threshold": a}).name, make_arm("smooth", {"threshold": b}).name)
             for a, b in product(stated.better, stated.worse) if a != b]  # fmt: skip
    return [image_part(study, dataset, *pair, metric) for pair, metric in product(pairs, stated.metrics)]


def image_part(study: Study, dataset: str, arm: str, reference: str, metric: str) -> ClaimPart:
    """Return the difference of a metric per image between two arms, over trainings and images."""
    paired = pair_arms(study, dataset, arm, reference, metric)
    label = f"{METRIC_TITLES[metric]} per image, {arm} − {reference}"
    if paired is None:
        return ClaimPart(label, 1, None, 0, True, lacks=missing_arms(study, dataset, arm, reference))
    return ClaimPart(label, 1, paired.estimate(), len(paired.replicates), True)


def run_part(study: Study, dataset: str, arm: str, reference: str | None, quantity: Quantity) -> ClaimPart:
    """Return the difference of a quantity of the run between two arms (or what one arm has of it), over trainings."""
    in_points = quantity.scale == 100
    label = f"{quantity.words}, {arm}" + ("" if reference is None else f" − {reference}")
    if quantity.of_corrupted and are_mixed((*study.of(dataset, arm), *study.of(dataset, reference or arm))):
        missing = f"{quantity.words} of images corrupted in the same way"
        return ClaimPart(label, quantity.better, None, 0, in_points, lacks=(missing,))
    theirs = {(result.fold, result.seed): result for result in study.of(dataset, reference or arm)}
    rows = []
    for result in study.of(dataset, arm):
        value = quantity.read(result.record)
        other = theirs.get((result.fold, result.seed))
        subtracted = 0.0 if reference is None else None if other is None else quantity.read(other.record)
        if value is not None and subtracted is not None:
            rows.append((result, value - subtracted))
    estimate = estimate_over_runs(rows, has_folds=study.config.replicates.folds is not None)
    lacks = () if rows else missing_arms(study, dataset, arm, reference or arm) or (quantity.words,)
    return ClaimPart(label, quantity.better, estimate, len(rows), in_points, lacks)


def missing_arms(study: Study, dataset: str, *arms: str) -> tuple[str, ...]:
    """Return the arms without results; where all have some, but none of a common replicate, that."""
    done = [{(result.fold, result.seed) for result in study.of(dataset, arm)} for arm in arms]
    missing = tuple(arm for arm, replicates in zip(arms, done, strict=True) if not replicates)
    return missing or (() if set.intersection(*done) else (f"a replicate of both {' and '.join(arms)}",))


def estimate_over_runs(rows: Sequence[tuple[Result, float]], *, has_folds: bool) -> Estimate | None:
    """Return the mean of one metric of each training: Student's t over trainings, or over folds."""
    if not rows:
        return None
    values = np.array([value for _, value in rows])
    if has_folds:
        by_fold: dict[int, list[float]] = {}
        for result, value in rows:
            by_fold.setdefault(result.fold, []).append(value)
        splits = [result.record.data.split for result, _ in rows]
        ratio = float(np.mean([len(split.test) / len(split.train) for split in splits]))
        return estimate_over_folds(np.array([[np.mean(each)] for each in by_fold.values()]), ratio)
    if len(values) == 1:
        return Estimate(float(values[0]), np.inf, 0.0)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1.0)


def judge_parts(parts: Sequence[ClaimPart], quantifier: Quantifier, margin: float) -> tuple[Outcome, str]:
    """Return what becomes of a claim, and the sentence that says what was measured."""
    there = [part for part in parts if part.estimate is not None]
    missing = ", ".join(dict.fromkeys(name for part in parts for name in part.lacks))
    if not there:
        return "not tested", f"not in the records: {missing}"
    estimates = [orient(part) for part in there]
    is_for, is_against = QUANTIFIERS[quantifier](estimates, margin)
    outcome: Outcome = "fails" if is_against else "holds" if is_for else "can't tell"
    if missing and outcome != ("holds" if quantifier == "any" else "fails"):  # which one part decides
        outcome = "not tested"
    count = min(part.replicates for part in there)
    note = f"; not in the records: {missing}" if missing else ""
    trainings = "1 training" if count == 1 else f"{count} trainings"
    return (
        outcome,
        f"{describe_parts(there, quantifier, margin)}; 95 % intervals, {trainings} each, protocol standard{note}",
    )


def orient(part: ClaimPart) -> Estimate:
    """Return the estimate with the claimed direction above 0."""
    assert part.estimate is not None
    return replace(part.estimate, mean=part.sign * part.estimate.mean)


def judge_all(estimates: Sequence[Estimate], margin: float) -> tuple[bool, bool]:
    p_values = [estimate.p_value() for estimate in estimates]
    corrected = correct_for_contrasts(p_values)
    is_for = all(p < LEVEL and e.mean > 0 for p, e in zip(p_values, estimates, strict=True))
    return is_for, any(p < LEVEL and e.mean < 0 for p, e in zip(corrected, estimates, strict=True))


def judge_any(estimates: Sequence[Estimate], margin: float) -> tuple[bool, bool]:
    is_against, is_for = judge_all([replace(estimate, mean=-estimate.mean) for estimate in estimates], margin)
    return is_for, is_against


def judge_flat(estimates: Sequence[Estimate], margin: float) -> tuple[bool, bool]:
    intervals = [estimate.interval() for estimate in estimates]
    beyond = [e.p_value(np.copysign(margin, e.mean)) if abs(e.mean) > margin else 1.0 for e in estimates]
    is_for = all(-margin < low and high < margin for low, high in intervals)
    return is_for, min(correct_for_contrasts(beyond)) < LEVEL


QUANTIFIERS: dict[Quantifier, Callable[[Sequence[Estimate], float], tuple[bool, bool]]] = {
    "all": judge_all,
    "any": judge_any,
    "flat": judge_flat,
}


def describe_parts(parts: Sequence[ClaimPart], quantifier: Quantifier, margin: float) -> str:
    """Return each difference with its 95 % interval; of more than a few how many are on which side, and the ends."""
    if len(parts) <= FEW:
        return "; ".join(f"{part.label}: {show_estimate(part)}" for part in parts)
    low, high = (choose(parts, key=lambda part: orient(part).mean) for choose in (min, max))
    intervals = [orient(part).interval() for part in parts]
    if quantifier == "flat":
        within = sum(-margin < lower and upper < margin for lower, upper in intervals)
        counted = f"of {len(parts)} differences {within} lie within ± {100 * margin:g} points"
    else:
        sides = [(lower > 0) - (upper < 0) for lower, upper in intervals]
        as_claimed, against, open_ones = (sides.count(side) for side in (1, -1, 0))
        counted = f"of {len(parts)} differences {as_claimed} as claimed, {against} against, {open_ones} open"
    ends = f"least {low.label}: {show_estimate(low)}, most {high.label}: {show_estimate(high)}"
    return f"{counted}; {ends}"


def show_estimate(part: ClaimPart) -> str:
    assert part.estimate is not None
    scale, digits, unit = (100, 2, " points") if part.in_points else (1, 3, "")
    mean = f"{scale * part.estimate.mean:+.{digits}f}{unit}"
    low, high = part.estimate.interval()
    if not np.isfinite(low):
        return f"{mean} (no interval)".replace("-", "−")
    return f"{mean} ({scale * low:+.{digits}f} to {scale * high:+.{digits}f})".replace("-", "−")
