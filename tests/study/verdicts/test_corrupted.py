"""Verdicts on corrupted images, from records whose retention is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.verdicts.corrupted import judge_retention
from study_records import make_study_records

ARMS = {"none": 0.60, "smooth-0.4": 0.61}


def make(directory: Path, retention: dict[str, list[float]], changed: float = 0.1) -> Study:
    """Return a study in which each training of an arm retains what is said."""
    study = make_study_records(directory, arms=ARMS, seeds=len(retention["none"]), corruptions=True)
    for result in study.results:
        record: dict[str, Any] = json.loads((result.directory / "record.json").read_text())
        test = record["metrics"]["test"]
        test["corruptions"]["retention"] = retention[result.arm][result.seed]
        if "gate_off" in test:
            test["gate_off"]["changed_pixels"] = changed
        (result.directory / "record.json").write_text(json.dumps(record))
    return load_study(study.config, study.directory)


@pytest.mark.parametrize(
    ("smooth", "verdict", "words"),
    [
        ([0.90, 0.91, 0.905], "better", "smooth-0.4 keeps more of its IoU than none (+10.50 points of retention"),
        ([0.70, 0.71, 0.705], "worse", "smooth-0.4 keeps less of its IoU than none (−9.50 points"),
        ([0.8001, 0.8102, 0.7901], "same", "smooth-0.4 keeps as much of its IoU as none, within the margin (+0.01"),
        ([0.90, 0.60, 0.85], "can't tell", "smooth-0.4 against none: can't tell which keeps more of its IoU (−1.67"),
    ],
    ids=["better", "worse", "same", "can't tell"],
)
def test_retention_is_judged_over_trainings(tmp_path: Path, smooth: list[float], verdict: str, words: str) -> None:
    (finding,) = judge_retention(make(tmp_path, {"none": [0.80, 0.81, 0.79], "smooth-0.4": smooth}))
    assert (finding.verdict, finding.replicates, finding.images) == (verdict, 3, 10)
    assert finding.sentence.startswith(f"flood, corrupted images: {words}")
    assert finding.sentence.endswith("3 trainings)")


def test_inactive_gate_says_nothing_about_robustness(tmp_path: Path) -> None:
    study = make(tmp_path, {"none": [0.80, 0.81], "smooth-0.4": [0.90, 0.91]}, changed=0.0)
    (finding,) = judge_retention(study)
    assert finding.verdict == "inactive"


def test_one_training_can_not_tell(tmp_path: Path) -> None:
    (finding,) = judge_retention(make(tmp_path, {"none": [0.80], "smooth-0.4": [0.95]}))
    assert (finding.verdict, finding.low) == ("can't tell", None)


def test_records_without_corrupted_images_have_no_verdict(tmp_path: Path) -> None:
    assert judge_retention(make_study_records(tmp_path, arms=ARMS)) == ()
