"""The rows of the numbers that a study shows: columns as files have had them, read without a fault from any record."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from smooth_attention.core.records import METRIC_TITLES, Record
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.quantities import QUANTITIES, QUANTITY, Place, Quantity, quantities_in
from smooth_attention.study.reporting import tables
from smooth_attention.study.reporting.results import write_results
from study_records import make_study_records

ARMS = {"none": 0.70, "attention": 0.70, "smooth-0.4": 0.73}
COLUMNS = f"""
dataset arm chosen fold seed epoch
{" ".join(f"pooled_{name}" for name in METRIC_TITLES)} pooled_ece
{" ".join(f"per_image_{name}" for name in METRIC_TITLES)} per_image_hd95_px per_image_num_images hd95_misses
val_pooled_iou train_pooled_iou train_per_image_iou
gate_off_iou gate_off_changed_pixels bypass_iou bypass_changed_pixels
gamma share_of_output smoothed_fraction max_probability sink_share
plain_total_variation plain_autocorrelation smoothed_total_variation smoothed_autocorrelation
mask_components mask_perimeter2_area retention
paper_last_iou paper_last_dice paper_last_accuracy paper_last_precision paper_last_recall paper_last_f1
paper_best_test_iou paper_best_test_dice paper_best_test_accuracy paper_best_test_precision paper_best_test_recall
paper_best_test_f1
"""


def test_results_have_their_columns_in_order(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=1)
    write_results(study, tmp_path / "results.csv")
    (header, *_) = csv.reader(io.StringIO((tmp_path / "results.csv").read_text()))
    assert header == COLUMNS.split()


def test_names_and_headings_are_told_apart() -> None:
    assert len(QUANTITY) == len(QUANTITIES)
    for place in get_args(Place):
        headings = [quantity.heading for quantity in quantities_in(place)]
        assert headings
        assert place == "results" or len(set(headings)) == len(headings)


def test_metrics_of_images_are_those_that_card_and_command_line_show() -> None:
    assert {quantity.metric: quantity.title for quantity in quantities_in("metrics")} == METRIC_TITLES


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.name)
def test_record_without_a_number_has_none(quantity: Quantity) -> None:
    assert quantity.read(Record(status="done", config={})) is None


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_full_record_has_every_number_of_its_protocol(tmp_path: Path, protocol: str) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=1, protocol=protocol, corruptions=True)
    (result,) = study.of("flood", "smooth-0.4")
    missing = {quantity.name for quantity in QUANTITIES if quantity.read(result.record) is None}
    assert missing == {
        quantity.name
        for quantity in QUANTITIES
        if (quantity.name.startswith("val_") if protocol == "paper" else quantity.name.startswith("paper_"))
    }


@pytest.mark.parametrize(
    ("name", "scale", "heading"),
    [
        ("gamma", 1, "gamma"),
        ("retention", 100, "retention, %"),
        ("train_minus_test_iou", 100, "train − test IoU, points"),
    ],
)
def test_units_are_named_and_scale(name: str, scale: int, heading: str) -> None:
    assert (QUANTITY[name].scale, QUANTITY[name].heading) == (scale, heading)


def without(study: Study, metric: str, *arms: str) -> Study:
    """Return a study in which the records of some arms are of a time before a metric."""
    for result in study.results:
        path = result.directory / "record.json"
        record = json.loads(path.read_text())
        test = record["metrics"]["test"]
        for part in (test["pooled"], test["per_image"], *test["images"]) if result.arm in arms else ():
            del part[metric]
        path.write_text(json.dumps(record))
    return load_study(study.config, study.directory)


def test_metric_that_older_records_lack_is_a_dash_and_not_compared(tmp_path: Path) -> None:
    study = make_study_records(tmp_path / "new", arms=ARMS)
    old = without(make_study_records(tmp_path / "old", arms=ARMS), "boundary_iou", *ARMS)
    place = list(METRIC_TITLES).index("boundary_iou") + 1
    cells = {row[0].text: row[place] for row in tables.metrics_table(old, "flood").rows}
    assert {cell.text for cell in cells.values()} == {"–"}
    assert cells["smooth-0.4"].values == (None, None, None)
    half = without(make_study_records(tmp_path / "half", arms=ARMS), "boundary_iou", "attention")
    for each in (old, half):
        compared = tables.better_p_values(each, "flood", list(ARMS), "attention")
        assert {metric for _, metric in compared} == METRIC_TITLES.keys() - {"boundary_iou"}
    assert len(tables.better_p_values(study, "flood", list(ARMS), "attention")) == 2 * len(METRIC_TITLES)


def test_less_is_better_where_the_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=4, images=40)
    cells = [row[1] for row in tables.metrics_table(study, "flood").rows]
    monkeypatch.setattr(
        tables, "quantities_in", lambda place: [replace(quantity, better=-1) for quantity in quantities_in(place)]
    )
    others = [row[1] for row in tables.metrics_table(study, "flood").rows]
    assert [cell.is_bold for cell in cells] == [False, False, True]
    assert not any(cell.is_bold for cell in others)
    assert [cell.values for cell in cells] == [cell.values for cell in others]
