"""The tables of a study: the paper's layout, diagnostics, robustness, verdicts, claims; from records alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from smooth_attention.core.records import METRIC_TITLES
from smooth_attention.metrics import PUBLISHED
from smooth_attention.study.execution.collect import Result, Study
from smooth_attention.study.quantities import PAPER_EPOCHS, QUANTITY, Quantity, kept_under, quantities_in
from smooth_attention.study.reporting.table_formats import Cell, Column, Table, count, number, show, spread, word
from smooth_attention.study.statistics import LEVEL, correct_for_contrasts
from smooth_attention.study.verdicts.claims import CONVENTION as CLAIMS_CONVENTION
from smooth_attention.study.verdicts.claims import Claim
from smooth_attention.study.verdicts.conclusions import Conclusions
from smooth_attention.study.verdicts.contrasts import compare_arms, images_of
from smooth_attention.study.verdicts.corrupted import RETENTION_CONVENTION
from smooth_attention.study.verdicts.findings import CONVENTION, Finding
from smooth_attention.study.verdicts.published import find_place
from smooth_attention.study.verdicts.retention import robustness_of, split_alike, tell_others

__all__ = ["spread_column", "write_tables"]


def write_tables(study: Study, conclusions: Conclusions, directory: Path) -> list[Path]:
    """Write every table of a study as Markdown, LaTeX and CSV, and return the files.

    ``figures-DATASET`` the paper's layout, ``paper-DATASET`` the published figures (protocol ``paper`` alone),
    ``diagnostics-DATASET``, ``verdict``, ``claims``; ``robustness-DATASET`` and ``retention``, its verdicts, where
    corrupted images were scored.

    Args:
        study: with its records.
        conclusions: from these records.
        directory: where the files go.
    """
    tables: list[Table] = []
    for dataset in study.datasets:
        if not arms_of(study, dataset):
            continue
        tables.append(metrics_table(study, dataset))
        if study.config.protocol == "paper":
            tables.append(paper_table(study, dataset))
        tables.append(diagnostics_table(study, dataset))
        if corrupted_arms(study, dataset)[0]:
            tables.append(robustness_table(study, dataset))
    tables += [verdict_table(conclusions.findings), claims_table(conclusions.claims)]
    if conclusions.retained or conclusions.mixed:
        tables.append(retention_table(conclusions.retained, conclusions.mixed))
    return [path for table in tables for path in table.write(directory)]


def metrics_table(study: Study, dataset: str) -> Table:
    """Return the paper's layout: rows are thresholds (or arms), columns metrics of protocol ``standard``."""
    arms = arms_of(study, dataset)
    reference = next((name for name in ("attention", "none") if name in arms), None)
    p_values = better_p_values(study, dataset, arms, reference)
    quantities = [*quantities_in("metrics"), *quantities_in("pooled")]
    rows = []
    for arm in arms:
        values = [[quantity.read(result.record) for result in study.of(dataset, arm)] for quantity in quantities]
        cells = [
            spread(found) if quantity.metric is None else tested_cell(found, p_values.get((arm, quantity.metric)))
            for quantity, found in zip(quantities, values, strict=True)
        ]
        rows.append((word(row_label(study, arm)), *cells))
    return Table(
        name=f"figures-{file_name(dataset)}",
        title=f"{title_of(study, dataset)}; protocol standard",
        columns=(row_column(study), *map(spread_column, quantities)),
        rows=tuple(rows),
        caption=metrics_caption(study, dataset, arms, reference, any(cell.is_bold for row in rows for cell in row)),
    )


def spread_column(quantity: Quantity) -> Column:
    """Return the column of mean and deviation; that of a metric of images has a p-value too."""
    name = quantity.metric or quantity.name
    return Column(quantity.heading, (name, f"{name}_sd", *((f"{name}_p",) if quantity.metric else ())))


def better_p_values(
    study: Study, dataset: str, arms: Sequence[str], reference: str | None
) -> dict[tuple[str, str], tuple[float, bool]]:
    """Return for each arm and metric the p-value of no difference from the reference, and whether it is better.

    By Holm over all cells of the table; cells without pairs of trainings are left out, and metrics that older records
    lack.
    """
    if reference is None:
        return {}
    compared = {quantity.metric: quantity.better for quantity in quantities_in("metrics") if quantity.metric}
    estimates = {
        (arm, metric): compare_arms(study, dataset, arm, reference, metric)
        for arm in arms
        if arm != reference
        for metric in compared
        if all(
            metric in images_of(result)[0].written() for name in (arm, reference) for result in study.of(dataset, name)
        )
    }
    known = {cell: estimate for cell, estimate in estimates.items() if estimate is not None}
    corrected = correct_for_contrasts([estimate.p_value() for estimate in known.values()])
    return {cell: (p, compared[cell[1]] * known[cell].mean > 0) for cell, p in zip(known, corrected, strict=True)}


def tested_cell(values: Iterable[float | None], contrast: tuple[float, bool] | None) -> Cell:
    """Return mean ± standard deviation over trainings; bold where the arm is better and the statistics carry it."""
    cell = spread(values)
    p, is_better = contrast or (None, False)
    return Cell(cell.text, (*cell.values, p), is_bold=p is not None and p < LEVEL and is_better)


def metrics_caption(study: Study, dataset: str, arms: Sequence[str], reference: str | None, has_bold: bool) -> str:
    results = [result for arm in arms for result in study.of(dataset, arm)]
    has_classes = results[0].record.data.class_names is not None
    many = max(len(study.of(dataset, arm)) for arm in arms) > 1
    bold = "Nothing is bold: neither attention nor none is among the arms, to compare with."
    if reference is not None:
        rule = (
            f"better than {row_label(study, reference)}, p < .05 over trainings and images, by Holm over all cells of "
            "the table (a metric undefined in an image counts as 1 there)"
        )
        bold = f"Bold: {rule}." if has_bold else f"Nothing is bold: no cell is {rule}."
    return (
        "Metrics per image of protocol standard at native size, "
        f"{'mean over classes' if has_classes else 'foreground'}: mean over images in which they are defined"
        f"{', ± standard deviation over trainings' if many else ''}; pooled: counts added over images, never bold. "
        f"{counts_of(study, dataset, arms)}. {bold}"
    )


def paper_table(study: Study, dataset: str) -> Table:
    """Return the published metrics of the last epoch, the best epoch on test, and a perfect predictor."""
    arms = arms_of(study, dataset)
    titles = {"last": "last", "best_test": "best on test"}
    rows: list[tuple[Cell, ...]] = []
    for arm in arms:
        records = [result.record for result in study.of(dataset, arm)]
        for epoch in PAPER_EPOCHS:
            cells = [spread(map(QUANTITY[f"paper_{epoch}_{name}"].read, records)) for name in PUBLISHED]
            rows.append((word(row_label(study, arm)), word(titles[epoch]), *cells))
    paper = study.of(dataset, arms[0])[0].record.metrics.paper
    assert paper is not None
    ceiling = [Cell(show(value), (value, None)) for value in (getattr(paper.ceiling, name) for name in PUBLISHED)]
    rows.append((word("ceiling"), word("a perfect predictor"), *ceiling))
    missing = Cell("not available", (None, None))
    rows.append((word("the paper's own"), word("not available"), *(missing for _ in PUBLISHED)))
    columns = (Column("Epoch", ("epoch",), "left"), *(Column(METRIC_TITLES[n], (n, f"{n}_sd")) for n in PUBLISHED))
    return Table(
        name=f"paper-{file_name(dataset)}",
        title=f"{title_of(study, dataset)}; protocol paper",
        columns=(row_column(study), *columns),
        rows=tuple(rows),
        caption=(
            "Protocol paper: IoU and Dice by image columns, pixel metrics against target = 1, mean over batches of 8; "
            f"mean over trainings, ± standard deviation. {counts_of(study, dataset, arms)}. Best on test: the epoch "
            "was chosen on the test images. Nothing is bold: there is one number a training, no metrics of images to "
            "test. The paper's own: not available."
        ),
    )


def diagnostics_table(study: Study, dataset: str) -> Table:
    """Return what the blocks do, what switching them off changes, and the gap between training and test."""
    arms = arms_of(study, dataset)
    has_tuned = any(result.chosen for arm in arms for result in study.of(dataset, arm))
    quantities = [*quantities_in("block"), *quantities_in("effect")]
    rows = []
    for arm in arms:
        results = study.of(dataset, arm)
        cells = [mean_cell(results, quantity) for quantity in quantities]
        rows.append((word(row_label(study, arm)), *cells, *([word(count_choices(results))] if has_tuned else [])))
    columns = [*map(mean_column, quantities), *([Column("chosen", ("chosen",), "left")] if has_tuned else [])]
    return Table(
        name=f"diagnostics-{file_name(dataset)}",
        title=f"What the block does; data: {dataset}",
        columns=(row_column(study), *columns),
        rows=tuple(rows),
        caption=(
            f"Mean over trainings. {counts_of(study, dataset, arms)}. Block: in the epoch whose weights were scored, "
            "on the first batch of watched images. Gate off and bypass: share of the test pixels whose label changes "
            "in the same trained network. Train − test: IoU per image on at most 100 training images, minus that on "
            "test images."
            + (" Chosen: how often smooth-tuned took which arm, by pooled IoU on validation." if has_tuned else "")
        ),
    )


def count_choices(results: Iterable[Result]) -> str:
    counted = Counter(result.chosen for result in results if result.chosen)
    return ", ".join(f"{name}: {count}" for name, count in counted.most_common())


def robustness_table(study: Study, dataset: str) -> Table:
    """Return how much IoU each corruption leaves, and how little masks and attention move."""
    by_arm, others = corrupted_arms(study, dataset)
    first = robustness_of(next(iter(by_arm.values())))[0]
    single = [
        Quantity(name, name.replace("_", " "), 1, partial(kept_under, name), unit="%", digits=1)
        for name in first.corruptions
    ]
    retained, stability = [*quantities_in("corruptions"), *single], quantities_in("stability")
    columns = [Column(quantity.title, (quantity.name,)) for quantity in retained]  # the caption says the unit
    rows = [
        (word(row_label(study, arm)), *(mean_cell(results, quantity) for quantity in (*retained, *stability)))
        for arm, results in by_arm.items()
    ]
    return Table(
        name=f"robustness-{file_name(dataset)}",
        title=f"Corrupted images; data: {dataset}",
        columns=(row_column(study), *columns, *map(mean_column, stability)),
        rows=tuple(rows),
        caption=(
            "Retention: pooled IoU on corrupted images over that on clean ones, %, mean over severities "
            f"{', '.join(map(str, first.severities))} and trainings. {counts_of(study, dataset, list(by_arm))}, of "
            f"which {first.images} in each training were corrupted. Same pixels: label unchanged by noise of 2 grey "
            "levels, by a shift of 1 px. "
            "Row distance: largest change of a row of attention, mean over rows. No intervals here, nothing is bold"
            f"{tell_others(others)}."
        ),
    )


def corrupted_arms(study: Study, dataset: str) -> tuple[dict[str, Sequence[Result]], list[str]]:
    return split_alike({arm: study.of(dataset, arm) for arm in arms_of(study, dataset)})


def verdict_table(findings: Sequence[Finding]) -> Table:
    """Return every finding, those of the positive control last."""
    convention = f"{CONVENTION[0].upper()}{CONVENTION[1:]} (the positive control's p is its own)"
    return findings_table("verdict", "Verdicts", findings, f"{convention}; points: hundredths of IoU.")


def retention_table(findings: Sequence[Finding], mixed: Sequence[str]) -> Table:
    """Return every finding on corrupted images; the caption names the contrasts that have none."""
    convention = f"{RETENTION_CONVENTION[0].upper()}{RETENTION_CONVENTION[1:]}; points: hundredths of retention."
    caption = " ".join([convention, *(f"{sentence}." for sentence in mixed)])
    return findings_table("retention", "Verdicts on corrupted images", findings, caption)


def findings_table(name: str, title: str, findings: Sequence[Finding], caption: str) -> Table:
    rows = []
    for finding in findings:
        interval = "–" if finding.low is None else f"{points(finding.low)} to {points(finding.high)}"
        verdict = finding.verdict + (" (positive control)" if finding.is_control else "")
        rows.append(
            (
                *(word(text) for text in (finding.dataset, finding.arm, finding.reference)),
                number(finding.mean, 2, scale=100, with_sign=True),
                Cell(interval, (finding.low, finding.high)),
                Cell(f"{finding.p_corrected:.2g}", (finding.p_corrected,)),
                *map(count, (finding.replicates, finding.images)),
                Cell(verdict, (finding.verdict, "yes" if finding.is_control else "no")),
            )
        )
    columns = (
        *(Column(title, (title.lower(),), "left") for title in ("Dataset", "Arm", "Reference")),
        Column("difference, points", ("difference",)),
        Column("95 % interval", ("low", "high")),
        Column("p", ("p_holm",)),
        Column("trainings", ("trainings",)),
        Column("images", ("images",)),
        Column("verdict", ("verdict", "is_control"), "left"),
    )
    return Table(name, title, columns, tuple(rows), caption)


def claims_table(claims: Iterable[Claim]) -> Table:
    """Return what became of the paper's claims."""
    rows = []
    for claim in claims:
        is_elsewhere = claim.outcome != "not tested" and not claim.on_paper_data
        outcome = claim.outcome + (" (not tested on the paper's data)" if is_elsewhere else "")
        texts = [word(text) for text in (claim.dataset, claim.source, claim.claim, claim.measured)]
        rows.append((*texts, Cell(outcome, (claim.outcome, "yes" if claim.on_paper_data else "no"))))
    columns = (
        Column("Data", ("dataset",), "left"),
        Column("Said in", ("source",), "left"),
        Column("Claim", ("claim",), "wide"),
        Column("Measured", ("measured",), "wide"),
        Column("Outcome", ("outcome", "on_paper_data"), "left"),
    )
    return Table("claims", "The paper's claims", columns, tuple(rows), f"{CLAIMS_CONVENTION}.")


def arms_of(study: Study, dataset: str) -> list[str]:
    """Return the arms with results, but for the positive control, which stands in the verdicts alone."""
    return [arm.name for arm in study.config.parsed_arms if study.of(dataset, arm.name)]


def is_sweep(study: Study) -> bool:
    """Return whether the arms are thresholds, and attention, the threshold of 2.0."""
    arms = [arm for arm in study.config.parsed_arms if arm.name != "attention"]
    return len(arms) > 1 and all(set(arm.settings) == {"arm", "threshold"} and arm.is_smooth for arm in arms)


def row_column(study: Study) -> Column:
    return Column(*(("Threshold", ("threshold",)) if is_sweep(study) else ("Arm", ("arm",))), "left")


def row_label(study: Study, arm: str) -> str:
    if not is_sweep(study):
        return arm
    return "2.0 (plain attention)" if arm == "attention" else arm.removeprefix("smooth-")


def title_of(study: Study, dataset: str) -> str:
    """Return whose layout it is, and of which data."""
    place = find_place(study, dataset)
    if place.table is None:
        return f"The paper's layout; data: {dataset} (in no table of the paper)"
    return f"Table {place.table} layout; data: {dataset}{'' if place.is_published else ' (stand-in)'}"


def counts_of(study: Study, dataset: str, arms: Sequence[str]) -> str:
    """Return how many trainings and test images are behind a table."""
    trained = sorted({len(study.of(dataset, arm)) for arm in arms})
    results = [result for arm in arms for result in study.of(dataset, arm)]
    images = {stem for result in results for stem in result.record.data.split.test}
    trainings = f"{trained[0]}" if len(trained) == 1 else f"{trained[0]} to {trained[-1]}"
    folds = study.config.replicates.folds
    return (
        f"{trainings} training{'' if trained == [1] else 's'} of each arm{f' over {folds} folds' if folds else ''}, "
        f"{len(images)} test images"
    )


def mean_column(quantity: Quantity) -> Column:
    return Column(quantity.heading, (quantity.name,))


def mean_cell(results: Iterable[Result], quantity: Quantity) -> Cell:
    """Return the mean over trainings."""
    values = [value for result in results if (value := quantity.read(result.record)) is not None]
    mean = float(np.mean(values)) if values else None
    return number(mean, quantity.digits, scale=quantity.scale, with_sign=quantity.unit == "points")


def points(value: float | None) -> str:
    return show(value, 2, scale=100, with_sign=True)


def file_name(dataset: str) -> str:
    return re.sub(r"[^\w.-]", "_", dataset)
