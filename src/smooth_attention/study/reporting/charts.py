"""The charts of the report: what each is drawn from, and by which convention."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from smooth_attention.core.arms import GATED
from smooth_attention.core.records import Robustness
from smooth_attention.study.design.config import REFERENCES
from smooth_attention.study.execution.collect import Result, Study
from smooth_attention.study.quantities import QUANTITY, by_epoch
from smooth_attention.study.verdicts.contrasts import images_of
from smooth_attention.study.verdicts.findings import CONVENTION, Finding
from smooth_attention.study.verdicts.retention import robustness_of, split_alike, tell_others
from smooth_attention.viz.curves import Curve, Level, curve_chart
from smooth_attention.viz.forest import ForestRow, forest_chart
from smooth_attention.viz.study_charts import ArmStyle, Cloud, arm_styles, chart_json, dot_chart, scatter_chart

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "IOU",
    "RULES",
    "ReportChart",
    "corruption_panels",
    "diagnostic_panels",
    "forest_panel",
    "forest_rows",
    "mean_iou",
    "rule_curves",
    "rule_panels",
    "scatter_panels",
    "training_panels",
]

MAX_POINTS = 1000
FEW_EPOCHS = 12
IOU = "IoU per image, mean over test images (1 where nothing is and nothing was found)"
BAND = "the band is the 95 % interval of the mean over trainings of one arm (Student's t)"
RULES = {"threshold": "threshold (lower smooths more)", "fraction": "share of positions smoothed"}
DIAGNOSTICS = {
    "gamma": ("gamma", "learned weight", "the learned weight of the block's update, mean over blocks"),
    "smoothed_fraction": (
        "smoothed fraction",
        "share of positions",
        "the share of positions that the arm's own rule smooths",
    ),
    "sink_share": (
        "attention on one key",
        "share of the attention",
        "the attention that the most attended key gets: near 1, all rows look at the same place",
    ),
}


@dataclass(frozen=True, slots=True)
class ReportChart:
    """A chart of the report.

    Attributes:
        title: above it.
        chart: the figure as JSON.
        height_px: of the figure.
        convention: how its numbers are defined.
    """

    title: str
    chart: str
    height_px: int
    convention: str


def make_chart(title: str, figure: Figure, convention: str) -> ReportChart:
    return ReportChart(title, chart_json(figure), int(figure.layout.height), convention)


def styles_of(study: Study) -> dict[str, ArmStyle]:
    """Return the look of every arm, by its place in the configuration: unfinished arms keep theirs."""
    names = [arm.name for arm in study.config.parsed_arms]
    return arm_styles([*names, *(arm.name for arm in study.config.trained_arms)])


def forest_rows(study: Study, findings: Iterable[Finding]) -> list[ForestRow]:
    """Return a row for each finding with a difference, by dataset, in points of IoU."""
    styles = styles_of(study)
    rows = [
        ForestRow(
            finding.dataset,
            "half of the images (control)" if finding.is_control else f"{finding.arm} against {finding.reference}",
            finding.verdict,
            styles[finding.arm],
            100 * finding.mean,
            *(
                None if end is None else 100 * end
                for end in (finding.low, finding.high, finding.trained_low, finding.trained_high)
            ),
        )
        for finding in findings
        if finding.mean is not None
    ]
    places = list(dict.fromkeys(row.group for row in rows))
    return sorted(rows, key=lambda row: places.index(row.group))


def forest_panel(study: Study, findings: Sequence[Finding]) -> list[ReportChart]:
    rows = forest_rows(study, findings)
    if not rows:
        return []
    margin = 100 * study.config.margin
    convention = f"{CONVENTION}; grey: differences within ± {margin:g} points, which do not matter"
    return [make_chart("Differences of arms", forest_chart(rows, margin), convention)]


def mean_iou(result: Result) -> float:
    return float(np.mean([1.0 if image.iou is None else image.iou for image in images_of(result)]))


def over_replicates(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, low and high of the 95 % interval over trainings; NaN ends where one says nothing."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return np.nan, np.nan, np.nan
    mean = float(known.mean())
    if len(known) < 2:
        return mean, np.nan, np.nan
    reach = float(stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return mean, mean - reach, mean + reach


def make_curve(name: str, style: ArmStyle, x: Sequence[float], values: Sequence[Sequence[float]]) -> Curve:
    """Return the curve of mean and interval over replicates at each place."""
    mean, low, high = zip(*(over_replicates(found) for found in values), strict=True)
    return Curve(name, style, x, mean, low, high)


def rule_curves(study: Study, dataset: str, rule: str) -> tuple[list[Curve], list[Level]]:
    """Return IoU by threshold or fraction for each kind of gate that has at least two, and what they compare with."""
    styles = styles_of(study)
    curves = []
    for kind in GATED:
        points = [
            (float(arm.settings[rule]), study.of(dataset, arm.name))
            for arm in study.config.parsed_arms
            if arm.settings.keys() == {"arm", rule} and arm.settings["arm"] == kind
        ]
        found = sorted((x, [mean_iou(result) for result in results]) for x, results in points if results)
        if len(found) > 1:
            first = next(arm.name for arm in study.config.parsed_arms if arm.settings.get("arm") == kind)
            curves.append(make_curve(kind, styles[first], [x for x, _ in found], [values for _, values in found]))
    if not curves:
        return [], []
    compared = {*REFERENCES, *(reference for _, reference in study.config.parsed_contrasts)}
    gated = {arm.name for arm in study.config.parsed_arms if arm.is_smooth or arm.settings["arm"] in GATED}
    levels = [
        Level(name, styles[name], float(np.mean([mean_iou(result) for result in study.of(dataset, name)])))
        for name in study.arms
        if name in compared and name not in gated and study.of(dataset, name)
    ]
    return curves, levels


def rule_panels(study: Study) -> list[ReportChart]:
    panels = []
    for dataset in study.datasets:
        for rule, x_title in RULES.items():
            curves, levels = rule_curves(study, dataset, rule)
            if curves:
                figure = curve_chart(curves, levels, title="IoU per image", x_title=x_title)
                convention = f"{IOU}, mean over trainings; {BAND}; dashed: other arms, mean over trainings"
                panels.append(make_chart(f"{dataset}: IoU by {rule}", figure, convention))
    return panels


def scatter_panels(study: Study) -> list[ReportChart]:
    styles = styles_of(study)
    panels = []
    for dataset in study.datasets:
        clouds, is_thinned = [], False
        for arm, reference in study.config.parsed_contrasts:
            ours, theirs = (mean_by_stem(study.of(dataset, name)) for name in (arm, reference))
            common = sorted(ours.keys() & theirs.keys())
            step = -(-len(common) // MAX_POINTS) if common else 1
            is_thinned |= step > 1
            stems = common[::step]
            if stems:
                name = f"{arm} against {reference}"
                values = [[side[stem] for stem in stems] for side in (theirs, ours)]
                clouds.append(Cloud(name, styles[arm], stems, *values))
        if clouds:
            thinned = f"; evenly thinned to at most {MAX_POINTS} images" if is_thinned else ""
            convention = f"IoU at native size, mean over the trainings of an arm that tested the image{thinned}"
            panels.append(make_chart(f"{dataset}: image by image", scatter_chart(clouds), convention))
    return panels


def mean_by_stem(results: Iterable[Result]) -> dict[str, float]:
    """Return the IoU of each image, mean over trainings; undefined counts as 1."""
    found: dict[str, list[float]] = {}
    for result in results:
        for image in images_of(result):
            found.setdefault(image.stem, []).append(1.0 if image.iou is None else image.iou)
    return {stem: float(np.mean(values)) for stem, values in found.items()}


def corruption_panels(study: Study) -> list[ReportChart]:
    styles = styles_of(study)
    panels = []
    for dataset in study.datasets:
        alike, others = split_alike({arm: study.of(dataset, arm) for arm in study.arms})
        curves = []
        for arm, results in alike.items():
            found = robustness_of(results)
            severities = found[0].severities
            kept = [[mean_retention(each, place) for each in found] for place in range(len(severities))]
            curves.append(make_curve(arm, styles[arm], severities, kept))
        if curves:
            figure = curve_chart(curves, title="share of the clean IoU that is left", x_title="severity, 1 to 5")
            figure.update_xaxes(dtick=1)
            convention = f"pooled IoU on corrupted over that on clean test images, mean over all corruptions; {BAND}"
            convention += tell_others(others)
            panels.append(make_chart(f"{dataset}: corrupted images", figure, convention))
    return panels


def mean_retention(robustness: Robustness, place: int) -> float:
    values = [each.retention[place] for each in robustness.corruptions.values()]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else np.nan


def read_epochs(result: Result) -> list[dict[str, float]]:
    """Return the lines of a run's ``metrics.jsonl``; empty where it is gone."""
    path = result.directory / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def epoch_curves(study: Study, dataset: str, read: Callable[[Result], Sequence[float | None]]) -> list[Curve]:
    """Return mean and range over replicates by epoch, from 1, for each trained arm that has such numbers."""
    styles = styles_of(study)
    curves = []
    for arm in study.arms:
        rows = [read(result) for result in study.of(dataset, arm) if result.chosen is None]
        length = max((len(row) for row in rows), default=0)
        if not length:
            continue
        table = np.full((len(rows), length), np.nan)
        for place, row in enumerate(rows):
            table[place, : len(row)] = np.array(row, float)
        columns = [column[np.isfinite(column)] for column in table.T]
        kept = [epoch for epoch, column in enumerate(columns, 1) if len(column)]
        columns = [column for column in columns if len(column)]
        if kept:
            mean, low, high = ([float(f(column)) for column in columns] for f in (np.mean, np.min, np.max))
            curves.append(Curve(arm, styles[arm], kept, mean, low, high))
    return curves


def epoch_chart(curves: Sequence[Curve], title: str) -> Figure:
    figure = curve_chart(curves, title=title, x_title="epoch")
    if max(max(curve.x) for curve in curves) <= FEW_EPOCHS:
        figure.update_xaxes(dtick=1)  # there is no epoch 1.5
    return figure


def training_panels(study: Study) -> list[ReportChart]:
    watched = "val_iou" if study.config.protocol == "standard" else "test_iou"
    title, convention = {
        "val_iou": ("IoU of validation images", "IoU of validation images, pooled, at image size"),
        "test_iou": ("IoU of test images", "protocol paper: IoU of test images by columns, mean over batches"),
    }[watched]
    panels = []
    for dataset in study.datasets:
        curves = epoch_curves(study, dataset, lambda result: [line.get(watched) for line in read_epochs(result)])
        if curves:
            figure = epoch_chart(curves, title)
            text = f"{convention}; mean over trainings, the band from the lowest to the highest"
            panels.append(make_chart(f"{dataset}: training", figure, text))
    return panels


def diagnostic_panels(study: Study) -> list[ReportChart]:
    panels = []
    for dataset in study.datasets:
        for name, (title, y_title, convention) in DIAGNOSTICS.items():
            curves = epoch_curves(study, dataset, partial(diagnostic_of, name=name))
            if curves:
                figure = epoch_chart(curves, y_title)
                if name != "gamma":
                    figure.update_yaxes(range=[-0.02, 1.02])
                text = (
                    f"{convention}; on validation images (protocol paper: test images), mean and range over trainings"
                )
                panels.append(make_chart(f"{dataset}: {title}", figure, text))
        if changed := changed_pixels(study, dataset):
            figure = dot_chart(changed, styles_of(study), title="", x_title="test pixels that change, %")
            convention = "share of the test pixels whose label changes in the same trained network; a dot is a training"
            panels.append(make_chart(f"{dataset}: gate or block switched off", figure, convention))
    return panels


def diagnostic_of(result: Result, name: str) -> Sequence[float | None]:
    return by_epoch(result.record, name) or ()


def changed_pixels(study: Study, dataset: str) -> dict[str, dict[str, list[float]]]:
    """Return percent of pixels that change with the gate off and with the block off, by arm, for each training."""
    found: dict[str, dict[str, list[float]]] = {}
    for series, mode in (("gate off", "gate_off"), ("block off", "bypass")):
        quantity = QUANTITY[f"{mode}_changed_pixels"]
        for arm in study.arms:
            values = [quantity.read(result.record) for result in study.of(dataset, arm) if result.chosen is None]
            if shares := [quantity.scale * value for value in values if value is not None]:
                found.setdefault(series, {})[arm] = shares
    return found
