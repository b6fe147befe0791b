"""Verdicts on corrupted images: how much of its IoU an arm retains, beside what its reference retains."""

from __future__ import annotations

from smooth_attention.study.execution.collect import Study
from smooth_attention.study.statistics import correct_for_contrasts
from smooth_attention.study.verdicts.activity import measure_activity
from smooth_attention.study.verdicts.claims import estimate_over_runs
from smooth_attention.study.verdicts.findings import Finding
from smooth_attention.study.verdicts.retention import are_mixed, retention_of
from smooth_attention.study.verdicts.verdict import Evidence, decide, p_different, p_equal, points

__all__ = ["RETENTION_CONVENTION", "find_mixed", "judge_retention"]

RETENTION_CONVENTION = (
    "difference of retention (pooled IoU on corrupted over clean test images, mean over corruptions and severities), "
    "arm minus reference, mean over trainings; intervals 95 %, over trainings, on these images; p by Holm over all "
    "contrasts of the study"
)
WORDS = {
    "better": "keeps more of its IoU than {reference}",
    "worse": "keeps less of its IoU than {reference}",
    "same": "keeps as much of its IoU as {reference}, within the margin",
    "can't tell": "against {reference}: can't tell which keeps more of its IoU",
    "inactive": "against {reference}: block inactive, this study says nothing about it",
}


def judge_retention(study: Study) -> tuple[Finding, ...]:
    """Return a finding for each dataset and declared contrast whose runs hold images corrupted in the same way.

    Verdicts by the rules of :func:`judge`; the margin is one of retention here.
    """
    gathered = []
    for dataset in study.datasets:
        for arm, reference in study.config.parsed_contrasts:
            if are_mixed((*study.of(dataset, arm), *study.of(dataset, reference))):
                continue
            evidence, replicates = gather_retention(study, dataset, arm, reference)
            if replicates:
                gathered.append((evidence, replicates))
    margin = study.config.margin
    corrected = correct_for_contrasts([p_different(evidence.estimate) for evidence, _ in gathered])
    equal = correct_for_contrasts([p_equal(evidence.estimate, margin) for evidence, _ in gathered])
    return tuple(
        make_finding(study, evidence, replicates, p_corrected, p_same)
        for (evidence, replicates), p_corrected, p_same in zip(gathered, corrected, equal, strict=True)
    )


def find_mixed(study: Study) -> tuple[str, ...]:
    """Return a sentence for each contrast that has no finding because its runs were corrupted in different ways."""
    return tuple(
        f"{dataset}, corrupted images: {arm} and {reference} were corrupted in different ways and are not compared"
        for dataset in study.datasets
        for arm, reference in study.config.parsed_contrasts
        if are_mixed((*study.of(dataset, arm), *study.of(dataset, reference)))
    )


def gather_retention(study: Study, dataset: str, arm: str, reference: str) -> tuple[Evidence, int]:
    """Return the evidence on a contrast, and the number of pairs of trainings behind it."""
    results = study.of(dataset, arm)
    ours, theirs = (
        {
            (result.fold, result.seed): (result, found.value)
            for result in runs
            if (found := retention_of(result)) and found.value is not None
        }
        for runs in (results, study.of(dataset, reference))
    )
    rows = [(result, value - theirs[key][1]) for key, (result, value) in ours.items() if key in theirs]
    estimate = estimate_over_runs(rows, has_folds=study.config.replicates.folds is not None)
    activity = measure_activity(results, study.config.margin) if results else None
    return Evidence(dataset, arm, reference, None, estimate, activity), len(rows)


def make_finding(study: Study, evidence: Evidence, replicates: int, p_corrected: float, p_same: float) -> Finding:
    assert evidence.estimate is not None
    verdict = decide(evidence, p_corrected, p_same, study.config.margin, is_blind=False)
    low, high = evidence.estimate.interval() if replicates > 1 else (None, None)
    measured = f"{points(evidence.estimate.mean, True)} points of retention"
    if low is not None and high is not None:
        measured += f", 95 % interval {points(low, True)} to {points(high, True)}, Holm p = {p_corrected:.2g}"
    images = next(
        found.given.images for result in study.of(evidence.dataset, evidence.arm) if (found := retention_of(result))
    )
    words = WORDS[verdict].format(reference=evidence.reference)
    return Finding(
        dataset=evidence.dataset,
        arm=evidence.arm,
        reference=evidence.reference,
        is_control=False,
        replicates=replicates,
        images=images,
        groups=images,
        mean=evidence.estimate.mean,
        low=low,
        high=high,
        p=p_different(evidence.estimate),
        p_corrected=p_corrected,
        trained_low=None,
        trained_high=None,
        smallest=None,
        verdict=verdict,
        sentence=f"{evidence.dataset}, corrupted images: {evidence.arm} {words} ({measured}, {replicates} trainings)",
    )
