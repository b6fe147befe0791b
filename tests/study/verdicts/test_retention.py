"""Runs whose images were corrupted in different ways: what they retain is neither averaged nor compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.reporting.report import write_report
from smooth_attention.study.reporting.tables import write_tables
from smooth_attention.study.verdicts.conclusions import judge_study
from smooth_attention.study.verdicts.retention import are_mixed, retention_of, split_alike
from study_records import make_study_records

ARMS = {"none": 0.60, "attention": 0.60, "smooth-0.4": 0.61}
CONTRASTS = [["smooth-0.4", "none"], ["smooth-0.4", "attention"], ["attention", "none"]]


def fewer_severities(corruptions: dict[str, Any]) -> None:
    corruptions["severities"] = [5]
    for each in corruptions["corruptions"].values():
        each.update({name: values[-1:] for name, values in each.items()})


def fewer_names(corruptions: dict[str, Any]) -> None:
    del corruptions["corruptions"]["fog"]


def fewer_images(corruptions: dict[str, Any]) -> None:
    corruptions["images"] -= 1


def make(directory: Path, change: Callable[[dict[str, Any]], None], arm: str) -> Study:
    """Return a study in which the last training of an arm was corrupted in another way."""
    study = make_study_records(directory, arms=ARMS, contrasts=CONTRASTS, corruptions=True)
    return rewrite(study, {study.of("flood", arm)[-1].directory: change})


def rewrite(study: Study, changes: Mapping[Path, Callable[[dict[str, Any]], None]]) -> Study:
    """Change what some runs say of corrupted images, and return the study as it is read again."""
    for directory, change in changes.items():
        record = json.loads((directory / "record.json").read_text())
        change(record["metrics"]["test"]["corruptions"])
        (directory / "record.json").write_text(json.dumps(record))
    return load_study(study.config, study.directory)


CHANGES = pytest.mark.parametrize("change", [fewer_severities, fewer_names, fewer_images])


@CHANGES
def test_contrast_of_different_sets_has_a_sentence_and_no_verdict(tmp_path: Path, change: Any) -> None:
    found = judge_study(make(tmp_path, change, "none"))
    assert [(finding.arm, finding.reference) for finding in found.retained] == [("smooth-0.4", "attention")]
    assert found.mixed == tuple(
        f"flood, corrupted images: {arm} and none were corrupted in different ways and are not compared"
        for arm in ("smooth-0.4", "attention")
    )


@CHANGES
def test_claims_on_corrupted_images_are_not_tested_over_different_sets(tmp_path: Path, change: Any) -> None:
    claims = {claim.claim: claim for claim in judge_study(make(tmp_path, change, "attention")).claims}
    for what in ("noise", "small perturbations"):
        claim = claims[f"less sensitive to {what} with smooth-0.4 than with plain attention"]
        assert claim.outcome == "not tested"
        assert "of images corrupted in the same way" in claim.measured
    assert claims["less overfitting with smooth-0.4 than with plain attention"].outcome != "not tested"


@CHANGES
def test_tables_and_report_leave_the_arm_out_and_name_it(tmp_path: Path, change: Any) -> None:
    study = make(tmp_path, change, "attention")
    conclusions = judge_study(study)
    write_tables(study, conclusions, tmp_path / "tables")
    robustness = (tmp_path / "tables" / "robustness-flood.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in robustness[1:]] == ["none", "smooth-0.4"]
    left_out = "Left out, since corrupted in different ways: attention"
    assert f"nothing is bold. {left_out}." in (tmp_path / "tables" / "robustness-flood.md").read_text()
    retention = (tmp_path / "tables" / "retention.md").read_text()
    page = write_report(study, conclusions, command="").read_text(encoding="utf-8")
    for sentence in conclusions.mixed:
        assert f"{sentence}." in retention
        assert sentence in page
    assert page.count(left_out) == 2  # under the curves and under the table


def test_all_arms_corrupted_in_different_ways_leave_no_table_of_them(tmp_path: Path) -> None:
    study = make(tmp_path, fewer_names, "none")
    first = [study.of("flood", arm)[0].directory for arm in ("attention", "smooth-0.4")]
    study = rewrite(study, dict.fromkeys(first, fewer_names))
    names = {path.stem for path in write_tables(study, judge_study(study), tmp_path / "tables")}
    assert "retention" in names
    assert "robustness-flood" not in names


def test_another_fold_may_have_other_images(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, corruptions=True, folds=2, seeds=2)
    study = rewrite(study, {result.directory: fewer_images for result in study.results if result.fold == 1})
    assert not are_mixed(study.results)
    assert are_mixed(rewrite(study, {study.results[0].directory: fewer_images}).results)


def test_runs_without_corrupted_images_are_no_other_set(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, corruptions=True)
    path = study.results[0].directory / "record.json"
    record = json.loads(path.read_text())
    del record["metrics"]["test"]["corruptions"]
    path.write_text(json.dumps(record))
    study = load_study(study.config, tmp_path)
    assert retention_of(study.results[0]) is None
    assert not are_mixed(study.results)
    kept, others = split_alike({arm: study.of("flood", arm) for arm in study.arms})
    assert {arm: len(results) for arm, results in kept.items()} == {"none": 2, "attention": 3, "smooth-0.4": 3}
    assert others == []


def test_retention_carries_its_set(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, corruptions=True)
    found = retention_of(study.results[0])
    assert found is not None
    measured = study.results[0].record.metrics.test.corruptions
    assert found.value == measured.retention
    assert (found.given.severities, found.given.images) == ((1, 3), 10)
    assert found.given.names == measured.corruptions.keys()
