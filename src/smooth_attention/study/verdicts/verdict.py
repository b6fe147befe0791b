"""From records to findings: the verdict on each declared contrast, one of five, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from smooth_attention.study.execution.collect import Study
from smooth_attention.study.statistics import LEVEL, Estimate, correct_for_contrasts
from smooth_attention.study.verdicts.activity import Activity, measure_activity
from smooth_attention.study.verdicts.contrasts import Paired, pair_arms
from smooth_attention.study.verdicts.findings import Finding, Verdict

__all__ = ["Evidence", "decide", "headline", "judge", "p_different", "p_equal", "points"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a contrast before the verdict: paired differences, estimate, what the block does."""

    dataset: str
    arm: str
    reference: str
    paired: Paired | None
    estimate: Estimate | None
    activity: Activity | None


def judge(study: Study) -> tuple[Finding, ...]:
    """Return a finding for each dataset and declared contrast, in order, then those of the positive control.

    Verdicts, the first that applies:

    - ``inactive``: switching the gate (without one, the block) off in the trained networks changes too few pixels to
      move IoU by the margin
    - ``can't tell``: fewer than two replicates, or the positive control was not seen and nothing else was
    - ``same``: the difference lies within the margin (two one-sided tests)
    - ``better``, ``worse``: it is not 0 (two-sided test)
    - ``can't tell``: neither

    All tests at 5 %, corrected by Holm over all contrasts of the study.
    """
    margin = study.config.margin
    pairs = [(dataset, *contrast) for dataset in study.datasets for contrast in study.config.parsed_contrasts]
    gathered = [gather(study, *names) for names in pairs]
    corrected = correct_for_contrasts([p_different(evidence.estimate) for evidence in gathered])
    equal = correct_for_contrasts([p_equal(evidence.estimate, margin) for evidence in gathered])
    controls = judge_controls(study)
    unseen = {finding.dataset for finding in controls if finding.verdict != "worse" and finding.mean is not None}
    findings = []
    for evidence, p_corrected, p_same in zip(gathered, corrected, equal, strict=True):
        verdict = decide(evidence, p_corrected, p_same, margin, is_blind=evidence.dataset in unseen)
        findings.append(make_finding(study, evidence, verdict, p_corrected, is_blind=evidence.dataset in unseen))
    return (*findings, *controls)


def gather(study: Study, dataset: str, arm: str, reference: str) -> Evidence:
    paired = pair_arms(study, dataset, arm, reference)
    results = study.of(dataset, arm)
    activity = measure_activity(results, study.config.margin) if results else None
    return Evidence(dataset, arm, reference, paired, paired.estimate() if paired else None, activity)


def judge_controls(study: Study) -> tuple[Finding, ...]:
    """Return the findings on the same arm trained on half of the images, which should be worse."""
    if study.config.control is None:
        return ()
    half, whole = study.config.control
    findings = []
    for dataset in study.datasets:
        evidence = replace(gather(study, dataset, half.name, whole.name), activity=None)
        p = p_different(evidence.estimate)
        is_worse = p < LEVEL and evidence.estimate is not None and evidence.estimate.mean < 0
        verdict: Verdict = "worse" if is_worse else "can't tell"
        findings.append(make_finding(study, evidence, verdict, p, is_control=True))
    return tuple(findings)


def p_different(estimate: Estimate | None) -> float:
    return 1.0 if estimate is None else estimate.p_value()


def p_equal(estimate: Estimate | None, margin: float) -> float:
    """Return the p-value of a difference beyond the margin: the larger of two one-sided tests."""
    if estimate is None or not np.isfinite(estimate.standard_error):
        return 1.0
    room = margin - abs(estimate.mean)
    if estimate.standard_error == 0:
        return float(room <= 0)
    return float(stats.t.sf(room / estimate.standard_error, estimate.degrees_of_freedom))


def decide(evidence: Evidence, p_corrected: float, p_same: float, margin: float, *, is_blind: bool) -> Verdict:
    estimate = evidence.estimate
    if evidence.activity is not None and not evidence.activity.is_active:
        return "inactive"
    if estimate is None or not np.isfinite(estimate.standard_error):
        return "can't tell"
    if p_same < LEVEL and not is_blind:
        return "same"
    if p_corrected < LEVEL:
        return "better" if estimate.mean > 0 else "worse"
    return "can't tell"


def make_finding(
    study: Study,
    evidence: Evidence,
    verdict: Verdict,
    p_corrected: float,
    *,
    is_control: bool = False,
    is_blind: bool = False,
) -> Finding:
    estimate, paired = evidence.estimate, evidence.paired
    is_bounded = estimate is not None and np.isfinite(estimate.standard_error)
    low, high = estimate.interval() if estimate is not None and is_bounded else (None, None)
    trained = paired.estimate_trained() if paired else None
    finding = Finding(
        dataset=evidence.dataset,
        arm=evidence.arm,
        reference=evidence.reference,
        is_control=is_control,
        replicates=len(paired.replicates) if paired else 0,
        images=paired.num_images if paired else 0,
        groups=paired.num_groups if paired else 0,
        mean=estimate.mean if estimate else None,
        low=low,
        high=high,
        p=p_different(estimate),
        p_corrected=p_corrected,
        trained_low=trained.low if trained else None,
        trained_high=trained.high if trained else None,
        smallest=paired.smallest() if paired else None,
        verdict=verdict,
        sentence="",
    )
    return replace(finding, sentence=say(finding, evidence, study.config.margin, is_blind=is_blind))


def say(finding: Finding, evidence: Evidence, margin: float, *, is_blind: bool) -> str:
    """Return the verdict in one sentence (two where the study is underpowered)."""
    names = f"{finding.dataset}: {finding.arm}"
    measured = describe_finding(finding)
    if finding.is_control:
        return say_control(finding, measured)
    blind = " This study is underpowered: half of the training images made no visible difference." if is_blind else ""
    if finding.verdict == "inactive":
        assert evidence.activity is not None
        what = "smoothing" if evidence.activity.has_gate else finding.arm
        return (
            f"{names} against {finding.reference}: block inactive: this study says nothing about {what}; "
            f"{evidence.activity.explain()} ({measured})"
        )
    if finding.verdict == "same":
        return f"{names} is the same as {finding.reference} within ± {in_points(margin)} of IoU ({measured}).{blind}"
    if finding.verdict in ("better", "worse"):
        return f"{names} is {finding.verdict} than {finding.reference} ({measured}).{blind}"
    return f"{names} against {finding.reference}: can't tell; {advise(finding, evidence, margin)} ({measured}).{blind}"


def say_control(finding: Finding, measured: str) -> str:
    if finding.verdict == "worse":
        return f"{finding.dataset}: positive control seen: half of the training images is worse ({measured})."
    if finding.mean is None:
        return f"{finding.dataset}: whether this study can see is not known yet: {measured} for the positive control."
    return (
        f"{finding.dataset}: this study is underpowered: half of the training images made no visible difference, so a "
        f"missing difference means nothing ({measured})."
    )


def describe_finding(finding: Finding) -> str:
    """Return difference, interval and what they rest on."""
    if finding.mean is None:
        return "no pair of trainings is finished"
    spread = (
        "no interval from one replicate"
        if finding.low is None
        else f"95 % interval {points(finding.low, True)} to {points(finding.high or 0.0, True)}, "
        f"{'' if finding.is_control else 'Holm '}p = {finding.p_corrected:.2g}"
    )
    trainings = f"{finding.replicates} training{'s' * (finding.replicates != 1)} each"
    return (
        f"{points(finding.mean, True)} points of IoU per image, {spread}, {trainings}, {finding.images} test images in "
        f"{finding.groups} groups"
    )


def advise(finding: Finding, evidence: Evidence, margin: float) -> str:
    """Return what it would take to tell."""
    if evidence.paired is None:
        return "finish the runs of both arms"
    if finding.low is None:
        if finding.replicates < 2:
            return "one replicate says nothing about other trainings: take at least 3 (about 2 more replicates needed)"
        return "all test images are of one group: add test images of other groups"
    more = evidence.paired.more_needed(margin)
    if more is not None:
        unit = "folds" if evidence.paired.has_folds else "replicates"
        return f"about {more} more {unit} needed to see {in_points(margin)}"
    return (
        f"more replicates alone will not show {in_points(margin)} on {finding.images} test images (they "
        f"see {points(finding.smallest or 0.0)} now): add test images, or test all of them by --folds"
    )


def points(value: float, with_sign: bool = False) -> str:
    """Return a difference of IoU in points, hundredths of 1."""
    text = f"{100 * value:+.2f}" if with_sign else f"{100 * value:.2f}".rstrip("0").rstrip(".")
    return text.replace("-0.00", "+0.00").replace("-", "−")


def in_points(value: float) -> str:
    """Return a size with its unit, e.g. ``1 point``."""
    return f"{points(value)} point{'s' * (points(value) != '1')}"


def headline(findings: Sequence[Finding]) -> str:
    """Return how many contrasts ended in which verdict."""
    counted = [finding.verdict for finding in findings if not finding.is_control]
    return ", ".join(f"{counted.count(verdict)} {verdict}" for verdict in dict.fromkeys(counted))
