"""The tables that the report alone shows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from smooth_attention.study.execution.collect import Study
from smooth_attention.study.quantities import QUANTITY, Read, kept_under, quantities_in
from smooth_attention.study.reporting.charts import mean_iou
from smooth_attention.study.reporting.table_formats import Cell, Column, Table, count, spread, word
from smooth_attention.study.reporting.tables import spread_column
from smooth_attention.study.verdicts.claims import Claim
from smooth_attention.study.verdicts.corrupted import RETENTION_CONVENTION
from smooth_attention.study.verdicts.findings import Finding
from smooth_attention.study.verdicts.retention import robustness_of, split_alike, tell_others
from smooth_attention.study.verdicts.verdict import points

__all__ = ["claim_table", "corruption_tables", "failure_table", "finding_table", "retention_table", "score_table"]

NOTHING = "–"
CONTRAST = (
    Column("dataset", ("dataset",), "left"),
    Column("contrast", ("arm", "reference", "is_control"), "left"),
    Column("verdict", ("verdict",), "left"),
    Column("difference", ("difference",)),
    Column("95 % interval", ("low", "high")),
    Column("p (Holm)", ("p_holm",)),
)


def contrast_cells(finding: Finding) -> tuple[Cell, ...]:
    """Return the cells under :data:`CONTRAST`."""
    contrast = f"{finding.arm} against {finding.reference}{' (positive control)' if finding.is_control else ''}"
    return (
        word(finding.dataset),
        Cell(contrast, (finding.arm, finding.reference, "yes" if finding.is_control else "no")),
        word(finding.verdict),
        Cell(NOTHING if finding.mean is None else points(finding.mean, True), (finding.mean,)),
        span(finding.low, finding.high),
        Cell(f"{finding.p_corrected:.2g}", (finding.p_corrected,)),
    )


def finding_table(findings: Iterable[Finding]) -> Table:
    columns = (
        *CONTRAST,
        Column("these networks only", ("trained_low", "trained_high")),
        Column("could see", ("could_see",)),
        Column("trainings", ("trainings",)),
        Column("images (groups)", ("images", "groups")),
    )
    rows = tuple(
        (
            *contrast_cells(finding),
            span(finding.trained_low, finding.trained_high),
            Cell(NOTHING if finding.smallest is None else points(finding.smallest), (finding.smallest,)),
            count(finding.replicates),
            Cell(f"{finding.images} ({finding.groups})", (finding.images, finding.groups)),
        )
        for finding in findings
    )
    caption = (
        "points of IoU, arm minus reference; these networks only: interval that resamples images and says nothing "
        "about other trainings; could see: the true difference that this many trainings find with a probability of "
        "80 %; the positive control's p is not corrected"
    )
    return Table("contrasts", "All contrasts", columns, rows, caption)


def span(low: float | None, high: float | None) -> Cell:
    text = NOTHING if low is None or high is None else f"{points(low, True)} to {points(high, True)}"
    return Cell(text, (low, high))


def score_table(study: Study) -> Table:
    """Return the metrics of every arm, mean and standard deviation over trainings."""
    quantities = quantities_in("scores")
    rows = []
    for dataset in study.datasets:
        for arm in study.arms:
            results = study.of(dataset, arm)
            if not results:
                continue
            cells = [spread(map(mean_iou, results))]
            cells += [spread(quantity.read(result.record) for result in results) for quantity in quantities]
            chosen = ", ".join(sorted({result.chosen for result in results if result.chosen}))
            label = Cell(f"{arm} ({chosen})" if chosen else arm, (arm, chosen))
            rows.append((word(dataset), label, count(len(results)), *cells))
    columns = (
        Column("dataset", ("dataset",), "left"),
        Column("arm", ("arm", "chosen"), "left"),
        Column("trainings", ("trainings",)),
        Column("IoU per image", ("iou", "iou_sd")),
        *map(spread_column, quantities),
    )
    caption = (
        "test images, protocol standard, native size; mean ± standard deviation over trainings. Compare arms by the "
        "paired differences above, not by this table"
    )
    return Table("scores", "Metrics of every arm", columns, tuple(rows), caption)


def corruption_tables(study: Study) -> list[Table]:
    """Return for each dataset what every corruption leaves, and how little masks move."""
    tables = []
    for dataset in study.datasets:
        alike, others = split_alike({arm: study.of(dataset, arm) for arm in study.arms})
        if not alike:
            continue
        names = robustness_of(next(iter(alike.values())))[0].corruptions
        readers: dict[str, Read] = {name.replace("_", " "): partial(kept_under, name) for name in names}
        readers |= {f"same label, {name}": QUANTITY[f"{name}_mask_agreement"].read for name in ("noise", "shift")}
        rows = [
            (word(label), *(spread(read(result.record) for result in results) for results in alike.values()))
            for label, read in readers.items()
        ]
        columns = [Column("corruption", ("corruption",), "left")]
        columns += [Column(arm, (arm, f"{arm}_sd")) for arm in alike]
        caption = (
            "share of the clean pooled IoU that is left, mean over severities; same label: share of pixels that keep "
            "their label under noise of 2 grey levels and a shift by 1 px; mean ± standard deviation over trainings"
            f"{tell_others(others)}"
        )
        title = f"{dataset}: by corruption"
        tables.append(Table(f"corruptions-{dataset}", title, tuple(columns), tuple(rows), caption))
    return tables


def retention_table(findings: Iterable[Finding], mixed: Iterable[str]) -> Table:
    """Return the verdicts on corrupted images; the caption names the contrasts that have none."""
    columns = (*CONTRAST, Column("trainings", ("trainings",)))
    rows = tuple((*contrast_cells(finding), count(finding.replicates)) for finding in findings)
    caption = ". ".join([f"points; {RETENTION_CONVENTION}", *mixed])
    return Table("retention", "Contrasts on corrupted images", columns, rows, caption)


def claim_table(claims: Iterable[Claim]) -> Table:
    names = ("dataset", "claim", "measured", "outcome", "data")
    rows = tuple(
        (
            *map(word, (claim.dataset, claim.claim, claim.measured, claim.outcome)),
            word("the paper's" if claim.on_paper_data else "other data"),
        )
        for claim in claims
    )
    caption = (
        "the paper's claims in our words; on other data than the paper's, nothing follows about the paper's numbers"
    )
    return Table("claims", "What the paper claims", words(names), rows, caption)


def failure_table(study: Study) -> Table:
    rows = tuple(tuple(map(word, (f.dataset, f.arm, str(f.fold), str(f.seed), f.reason))) for f in study.failures)
    columns = words(("dataset", "arm", "fold", "seed", "reason"))
    return Table("failures", "Runs that failed", columns, rows, "the same command tries them again")


def words(names: Iterable[str]) -> tuple[Column, ...]:
    return tuple(Column(name, (name,), "left") for name in names)
