"""The tables of the report, as text cells; whoever lays them out escapes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smooth_attention.study.execution.collect import Study
from smooth_attention.study.reporting.charts import corruptions_of, mean_iou
from smooth_attention.study.verdicts.corrupted import RETENTION_CONVENTION
from smooth_attention.study.verdicts.findings import Finding
from smooth_attention.study.verdicts.verdict import points

NOTHING = "–"
SCORES = {
    "iou": "IoU, pooled",
    "dice": "Dice, pooled",
    "boundary_iou": "boundary IoU, pooled",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report.

    Attributes:
        title: above it.
        head: names of the columns.
        rows: cells as text.
        note: convention, below.
        num_words: how many of the first columns are words; the others are figures.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    num_words: int = 2


CONTRAST = ("dataset", "contrast", "verdict", "difference", "95 % interval", "p (Holm)")


def contrast_cells(finding: Finding) -> tuple[str, ...]:
    """Return the cells under :data:`CONTRAST`."""
    return (
        finding.dataset,
        f"{finding.arm} against {finding.reference}{' (positive control)' if finding.is_control else ''}",
        finding.verdict,
        NOTHING if finding.mean is None else points(finding.mean, True),
        span(finding.low, finding.high),
        f"{finding.p_corrected:.2g}",
    )


def finding_table(findings: Iterable[Finding]) -> Table:
    head = (*CONTRAST, "these networks only", "could see", "trainings", "images (groups)")
    rows = tuple(
        (
            *contrast_cells(finding),
            span(finding.trained_low, finding.trained_high),
            NOTHING if finding.smallest is None else points(finding.smallest),
            str(finding.replicates),
            f"{finding.images} ({finding.groups})",
        )
        for finding in findings
    )
    note = (
        "points of IoU, arm minus reference; these networks only: interval that resamples images and says nothing "
        "about other trainings; could see: the true difference that this many trainings find with a probability of "
        "80 %; the positive control's p is not corrected"
    )
    return Table("All contrasts", head, rows, note, num_words=3)


def span(low: float | None, high: float | None) -> str:
    return NOTHING if low is None or high is None else f"{points(low, True)} to {points(high, True)}"


def score_table(study: Study) -> Table:
    """Return the figures of every arm, mean and standard deviation over trainings."""
    rows = []
    for dataset in study.datasets:
        for arm in study.arms:
            results = study.of(dataset, arm)
            if not results:
                continue
            pooled = [result.record["metrics"]["test"]["pooled"] for result in results]
            cells = [spread([mean_iou(result) for result in results])]
            cells += [spread([figures.get(name) for figures in pooled]) for name in SCORES]
            chosen = sorted({result.chosen for result in results if result.chosen})
            rows.append((dataset, f"{arm} ({', '.join(chosen)})" if chosen else arm, str(len(results)), *cells))
    note = (
        "test images, protocol standard, native size; mean ± standard deviation over trainings. Compare arms by the "
        "paired differences above, not by this table"
    )
    return Table(
        "Figures of every arm", ("dataset", "arm", "trainings", "IoU per image", *SCORES.values()), tuple(rows), note
    )


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Return mean ± standard deviation of the known values."""
    known = np.array([value for value in values if value is not None and np.isfinite(value)])
    if not len(known):
        return NOTHING
    deviation = f" ± {known.std(ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{deviation}"


def corruption_tables(study: Study) -> list[Table]:
    """Return for each dataset what every corruption leaves, and how still masks hold."""
    tables = []
    for dataset in study.datasets:
        by_arm = {arm: found for arm in study.arms if (found := corruptions_of(study.of(dataset, arm)))}
        if not by_arm:
            continue
        names = list(next(iter(by_arm.values()))[0]["corruptions"])
        rows = [
            (name.replace("_", " "), *(spread([kept(each, name) for each in found]) for found in by_arm.values()))
            for name in names
        ]
        rows += [
            (f"same label, {name}", *(spread([agreement(each, name) for each in found]) for found in by_arm.values()))
            for name in ("noise", "shift")
        ]
        note = (
            "share of the clean pooled IoU that is left, mean over severities; same label: share of pixels that keep "
            "their label under noise of 2 grey levels and a shift by 1 px; mean ± standard deviation over trainings"
        )
        tables.append(Table(f"{dataset}: by corruption", ("corruption", *by_arm), tuple(rows), note, num_words=1))
    return tables


def retention_table(findings: Iterable[Finding]) -> Table:
    """Return the verdicts on corrupted images."""
    head = (*CONTRAST, "trainings")
    rows = tuple((*contrast_cells(finding), str(finding.replicates)) for finding in findings)
    note = f"points; {RETENTION_CONVENTION}"
    return Table("Contrasts on corrupted images", head, rows, note, num_words=3)


def kept(corruptions: dict[str, Any], name: str) -> float | None:
    values = corruptions["corruptions"].get(name, {}).get("retention", [])
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def agreement(corruptions: dict[str, Any], name: str) -> float | None:
    value: float | None = corruptions.get("stability", {}).get(name, {}).get("mask_agreement")
    return value


def claim_table(claims: Iterable[Any]) -> Table:
    head = ("dataset", "claim", "measured", "outcome", "data")
    rows = tuple(
        (
            claim.dataset,
            claim.claim,
            claim.measured,
            claim.outcome,
            "the paper's" if claim.on_paper_data else "other data",
        )
        for claim in claims
    )
    note = "the paper's claims in our words; on other data than the paper's, nothing follows about the paper's figures"
    return Table("What the paper claims", head, rows, note, num_words=5)


def failure_table(study: Study) -> Table:
    rows = tuple((f.dataset, f.arm, str(f.fold), str(f.seed), f.reason) for f in study.failures)
    return Table(
        "Runs that failed", ("dataset", "arm", "fold", "seed", "reason"), rows, "the same command tries them again", 5
    )
