"""``results.csv``: every digit, in the order of the plan, equal bytes for equal runs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from record_files import read_values, write_values
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.reporting.results import write_results
from smooth_attention.study.reporting.tables import write_tables
from smooth_attention.study.verdicts.conclusions import judge_study
from study_records import make_study_records

ARMS = {"none": 0.70, "attention": 0.70, "smooth-0.4": 0.73}


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_results_hold_every_digit_in_plan_order(tmp_path: Path) -> None:
    arms = {"none": 0.70, "smooth-0.1": 0.71, "smooth-0.4": 0.72}
    study = make_study_records(tmp_path / "study", arms=arms, tuned=True, seeds=2, dataset=("flood", "shapes"))
    write_results(study, tmp_path / "results.csv")
    rows = read_csv((tmp_path / "results.csv").read_text())
    assert [(r["dataset"], r["arm"], r["fold"], r["seed"]) for r in rows] == [
        (r.dataset, r.arm, str(r.fold), str(r.seed)) for r in study.results
    ]
    for row, result in zip(rows, study.results, strict=True):
        record, test = result.record, result.record.metrics.test
        assert row["chosen"] == (result.chosen or "")
        assert row["pooled_iou"] == repr(test.pooled.iou)
        assert row["per_image_hd95_px"] == repr(test.per_image.hd95_px)
        assert row["val_pooled_iou"] == repr(record.metrics.val.pooled.iou)
        assert row["mask_components"] == repr(record.measures.masks.components)
        gamma = record.diagnostics.gamma
        assert row["gamma"] == ("" if gamma is None else repr(gamma[record.epoch.chosen]))
        assert row["gate_off_changed_pixels"] == ("" if gamma is None else "0.002")
        assert row["paper_last_iou"] == ""


def test_results_are_equal_bytes_wherever_and_whenever_the_runs_are(tmp_path: Path) -> None:
    for place, seconds in (("a", 1.5), ("b", 300.0)):
        study = make_study_records(tmp_path / place, arms=ARMS, seeds=2)
        for result in study.results:
            write_values(result.directory, {**read_values(result.directory), "seconds": {"train": seconds}})
        study = load_study(study.config, study.directory)
        write_results(study, tmp_path / place / "results.csv")
        write_tables(study, judge_study(study), tmp_path / place / "tables")
    for path in sorted((tmp_path / "a" / "tables").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / "tables" / path.name).read_bytes()
    text = (tmp_path / "a" / "results.csv").read_text()
    assert text == (tmp_path / "b" / "results.csv").read_text()
    assert str(tmp_path) not in text


def test_results_without_runs_are_a_header(tmp_path: Path) -> None:
    study = make_study_records(tmp_path / "study", arms=ARMS, seeds=1)
    write_results(Study(study.config, study.directory, (), (), study.planned), tmp_path / "results.csv")
    (header,) = (tmp_path / "results.csv").read_text().splitlines()
    assert header.startswith("dataset,arm,chosen,fold,seed,epoch,pooled_iou")
