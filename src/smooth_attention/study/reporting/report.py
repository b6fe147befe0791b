"""The report of a study: one HTML file that opens anywhere, without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from smooth_attention.core.files import write_bytes, write_text
from smooth_attention.core.provenance import versions
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.reporting.charts import (
    IOU,
    RULES,
    ReportChart,
    corruption_panels,
    diagnostic_panels,
    forest_panel,
    forest_rows,
    rule_curves,
    rule_panels,
    scatter_panels,
    training_panels,
)
from smooth_attention.study.reporting.masks import MaskSheet, mask_sheets
from smooth_attention.study.reporting.page_tables import (
    claim_table,
    corruption_tables,
    failure_table,
    finding_table,
    retention_table,
    score_table,
)
from smooth_attention.study.reporting.table_formats import Table
from smooth_attention.study.verdicts.conclusions import Conclusions
from smooth_attention.study.verdicts.findings import Finding
from smooth_attention.study.verdicts.verdict import headline, points
from smooth_attention.viz.curves import curve_figure, print_figure
from smooth_attention.viz.forest import forest_figure
from smooth_attention.viz.study_charts import chart_library

__all__ = ["write_report"]

REPORT, FIGURES = "report.html", "figures"
TEMPLATE = "report.html.jinja"
SIGNS = {"better": "▲", "worse": "▼", "same": "=", "can't tell": "?", "inactive": "○"}
MASKS_CONVENTION = (
    "the images whose IoU differs most between the arms of the first contrast, mean over trainings, half of them gains "
    "and half losses; masks of the first training that tested the image"
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        anchor: its address in the page.
        title: of the part.
        explanation: what it shows, in plain words.
        missing: what is said where there is nothing to show.
        panels: charts.
        tables: tables.
        masks: sheets of pictures.
    """

    anchor: str
    title: str
    explanation: str
    missing: str
    panels: Sequence[ReportChart] = ()
    tables: Sequence[Table] = ()
    masks: Sequence[MaskSheet] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.panels or self.tables or self.masks)


def write_report(study: Study, conclusions: Conclusions, *, command: str) -> Path:
    """Write ``report.html`` and ``figures/`` of a study from its records, predictions and samples; no data is read.

    Args:
        study: with its records.
        conclusions: from these records.
        command: the command line that made the study.

    Returns:
        The path of the report.
    """
    findings = conclusions.findings
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        study=study,
        title=f"Study of {', '.join(study.datasets) or 'no dataset yet'}",
        headline=headline(findings) or "nothing compared yet",
        facts=list_facts(study),
        by_dataset=group_findings(study, findings),
        contrasts=tuple(dict.fromkeys((f.arm, f.reference) for f in findings if not f.is_control)),
        signs=SIGNS,
        points=points,
        failures=failure_table(study) if study.failures else None,
        sections=list_sections(study, conclusions),
        masks_convention=MASKS_CONVENTION,
        command=command,
        library=chart_library(),
        versions=", ".join(f"{name} {version}" for name, version in versions().items()),
    )
    write_figures(study, findings)
    write_text(study.directory / REPORT, page)
    return study.directory / REPORT


def list_facts(study: Study) -> dict[str, str]:
    """Return what was done, for the top of the page."""
    config, done = study.config, sum(result.chosen is None for result in study.results)
    waiting = study.planned - done - len(study.failures)
    runs = [f"{done} of {study.planned} done"]
    runs += [f"{len(study.failures)} failed"] if study.failures else []
    runs += [f"{waiting} to do"] if waiting else []
    folds = f"{config.replicates.folds} folds × " if config.replicates.folds else ""
    return {
        "Runs": ", ".join(runs),
        "Replicates": f"{folds}{config.replicates.seeds} seeds",
        "Protocol": config.protocol,
        "Matters from": f"± {config.margin:g} IoU",
        "Arms": ", ".join(study.arms),
    }


def group_findings(study: Study, findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Return the findings by dataset, the positive control last."""
    by_dataset: dict[str, list[Finding]] = {dataset: [] for dataset in study.datasets}
    for finding in sorted(findings, key=lambda finding: finding.is_control):
        by_dataset.setdefault(finding.dataset, []).append(finding)
    return by_dataset


def list_sections(study: Study, conclusions: Conclusions) -> list[Section]:
    """Return the parts of the page in order, also those that have nothing to show and say why."""
    findings, retained, mixed = conclusions.findings, conclusions.retained, conclusions.mixed
    by_dataset = [finding for group in group_findings(study, findings).values() for finding in group]
    return [
        Section(
            "differences",
            "Differences",
            "How far each arm is ahead of what it is compared with. Right of the line the arm is better. The thick bar "
            "is where the true difference may lie when all is trained again on other images; the thin bar holds for "
            "these trained networks only. A thick bar inside the grey band: the difference does not matter.",
            "No pair of trainings is finished yet.",
            forest_panel(study, findings),
            [finding_table(by_dataset)] if findings else [],
        ),
        Section(
            "scores",
            "Scores",
            "What each arm reaches on the test images.",
            "No run is finished yet.",
            tables=[score_table(study)] if study.results else [],
        ),
        Section(
            "rules",
            "Thresholds and fractions",
            "How the result depends on how much is smoothed. To choose the best place of a curve on test images would "
            "be to choose by luck; the arm smooth-tuned chooses on validation images.",
            "Fewer than two thresholds, or fractions, have finished runs.",
            rule_panels(study),
        ),
        Section(
            "images",
            "Image by image",
            "Each symbol is a test image; above the line the arm did better on it. Touch one for its name. The legend "
            "shows and hides contrasts.",
            "No pair of trainings is finished yet.",
            scatter_panels(study),
        ),
        Section(
            "masks",
            "Masks",
            "The images on which the arms of the first contrast differ most, so that you see what the difference looks "
            "like; they are not typical.",
            "There are no samples, or no predicted masks: run the study where its data is to draw them.",
            masks=mask_sheets(study),
        ),
        Section(
            "corruptions",
            "Corrupted images",
            "How much of its IoU each arm keeps on noisy, blurred or otherwise damaged images. Higher is more robust.",
            "Corrupted images were not scored; --corruptions does.",
            corruption_panels(study),
            [*([retention_table(retained, mixed)] if retained or mixed else []), *corruption_tables(study)],
        ),
        Section(
            "training",
            "Training",
            "How each arm learned. Curves that still rise at the end ask for more epochs.",
            "No run left its metrics by epoch.",
            training_panels(study),
        ),
        Section(
            "diagnostics",
            "What the block does",
            "Whether the block is at work: with a gamma near 0, a smoothed fraction near 0 or 1, or all attention "
            "on one key, the rule can't matter.",
            "No arm has a block.",
            diagnostic_panels(study),
        ),
        Section(
            "claims",
            "Claims of the paper",
            "What the paper says, beside what was measured here.",
            "None of the paper's claims is about these datasets and arms.",
            tables=[claim_table(conclusions.claims)] if conclusions.claims else [],
        ),
    ]


def write_figures(study: Study, findings: Sequence[Finding]) -> None:
    """Write the forest plot and the curves by threshold and fraction for paper, as PNG and SVG."""
    for name, figure in print_figures(study, findings):
        for kind, data in print_figure(figure).items():
            write_bytes(study.directory / FIGURES / f"{name}.{kind}", data)


def print_figures(study: Study, findings: Sequence[Finding]) -> Iterator[tuple[str, Any]]:
    if rows := forest_rows(study, findings):
        yield "forest", forest_figure(rows, 100 * study.config.margin)
    for dataset in study.datasets:
        for rule, x_title in RULES.items():
            curves, levels = rule_curves(study, dataset, rule)
            if curves:
                y_title = IOU.partition(",")[0]
                yield f"{rule}-{dataset}", curve_figure(curves, levels, title=dataset, x_title=x_title, y_title=y_title)
