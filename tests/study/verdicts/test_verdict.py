"""Verdicts: each of the five from records that deserve it, and the study that is underpowered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smooth_attention.core.parts import read_part
from smooth_attention.core.records import PooledMetrics
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.verdicts.activity import reach_of
from smooth_attention.study.verdicts.findings import Finding
from smooth_attention.study.verdicts.verdict import headline, judge
from study_records import make_study_records


def edit_all(study: Study, arm: str, change: Callable[[dict[str, Any]], None]) -> Study:
    for result in study.results:
        if result.arm == arm:
            path = result.directory / "record.json"
            record = json.loads(path.read_text())
            change(record)
            path.write_text(json.dumps(record))
    return load_study(study.config, study.directory)


def switch_to(changed: float) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for mode in ("gate_off", "bypass"):
            if mode in record["metrics"]["test"]:
                record["metrics"]["test"][mode]["changed_pixels"] = changed

    return change


def only(study: Study) -> Finding:
    (finding,) = [finding for finding in judge(study) if not finding.is_control]
    return finding


def active(directory: Path, smooth: float, **options: Any) -> Study:
    """Return a study of none and smooth-0.4 in which the gate changes a tenth of the pixels."""
    study = make_study_records(directory, arms={"none": 0.60, "smooth-0.4": smooth}, **options)
    return edit_all(study, "smooth-0.4", switch_to(0.1))


@pytest.mark.parametrize(
    ("smooth", "verdict", "words"),
    [
        (0.65, "better", "flood: smooth-0.4 is better than none (+5.00 points of IoU per image, 95 % interval +"),
        (0.55, "worse", "flood: smooth-0.4 is worse than none (−5.00 points"),
        (0.601, "same", "flood: smooth-0.4 is the same as none within ± 1 point of IoU (+0.10 points"),
    ],
)
def test_clear_differences_get_clear_verdicts(tmp_path: Path, smooth: float, verdict: str, words: str) -> None:
    finding = only(active(tmp_path, smooth, seeds=4, images=40))
    assert finding.verdict == verdict
    assert finding.sentence.startswith(words)
    assert "4 trainings each, 40 test images in 40 groups" in finding.sentence
    assert finding.mean == pytest.approx(smooth - 0.6, abs=1e-3)
    assert finding.low < finding.mean < finding.high  # type: ignore[operator]


def test_noisy_trainings_can_not_tell_and_say_what_it_takes(tmp_path: Path) -> None:
    finding = only(active(tmp_path, 0.61, seeds=3, images=40, run_sd=0.03))
    assert finding.verdict == "can't tell"
    assert "more replicates needed to see 1 point (" in finding.sentence


def test_few_images_can_not_tell_whatever_the_number_of_trainings(tmp_path: Path) -> None:
    study = active(tmp_path, 0.60, seeds=3, images=6, run_sd=0.0)

    def scatter(record: dict[str, Any]) -> None:
        for number, image in enumerate(record["metrics"]["test"]["images"]):
            image["iou"] += 0.2 * (-1) ** number

    finding = only(edit_all(study, "smooth-0.4", scatter))
    assert finding.verdict == "can't tell"
    assert "more replicates alone will not show 1 point on 6 test images" in finding.sentence


def test_one_replicate_can_not_tell(tmp_path: Path) -> None:
    finding = only(active(tmp_path, 0.70, seeds=1))
    assert (finding.verdict, finding.low, finding.p) == ("can't tell", None, 1.0)
    assert "one replicate says nothing about other trainings" in finding.sentence
    assert "about 2 more replicates needed" in finding.sentence


def test_gate_that_changes_nothing_is_inactive_however_large_the_difference(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.60, "smooth-0.4": 0.70}, seeds=4)

    def idle(record: dict[str, Any]) -> None:
        switch_to(0.0001)(record)
        record["diagnostics"]["gamma"] = [0.001] * 4
        record["diagnostics"]["smoothed_fraction"]["t"] = [0.0] * 4
        record["diagnostics"]["sink_share"] = [0.9] * 4

    finding = only(edit_all(study, "smooth-0.4", idle))
    assert finding.verdict == "inactive"
    assert "block inactive: this study says nothing about smoothing" in finding.sentence
    assert "switching the gate off changes 0.01 % of the test pixels" in finding.sentence
    for advice in ("gamma_init", "lower the threshold", "earlier stage"):
        assert advice in finding.sentence


def test_block_without_gate_is_judged_by_bypass(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.60, "blur": 0.65}, seeds=4)
    assert only(edit_all(study, "blur", switch_to(0.1))).verdict == "better"
    idle = only(edit_all(study, "blur", switch_to(0.0)))
    assert idle.verdict == "inactive"
    assert "this study says nothing about blur; switching the block off" in idle.sentence


def pooled(**values: Any) -> PooledMetrics:
    return read_part(PooledMetrics, values)


def test_reach_is_the_most_that_the_pixels_could_move_iou() -> None:
    figures = pooled(iou=0.5, accuracy=0.9)  # errors 0.1 = half of the union, which is 0.2 of the pixels
    assert reach_of(0.01, figures) == pytest.approx(0.05)
    assert reach_of(0.0, figures) == 0.0
    assert reach_of(0.9, figures) == 1.0
    assert reach_of(0.01, pooled(iou=1.0, accuracy=1.0)) == 1.0
    classes = {
        "a": {"iou": 0.5, "accuracy": 0.9},
        "b": {"iou": 0.5, "accuracy": 0.95},
        "absent": {"iou": None, "accuracy": 1.0},
    }
    assert reach_of(0.01, pooled(iou=0.5, classes=classes)) == pytest.approx((0.05 + 0.1) / 2)


def test_control_that_is_seen_leaves_the_verdicts_alone(tmp_path: Path) -> None:
    findings = judge(active(tmp_path, 0.601, seeds=4, images=40, half_data=True))
    assert [(f.arm, f.reference, f.verdict) for f in findings] == [
        ("smooth-0.4", "none", "same"),
        ("none-half", "none", "worse"),
    ]
    assert "positive control seen" in findings[1].sentence


def test_study_that_can_not_see_half_of_the_images_claims_no_sameness(tmp_path: Path) -> None:
    study = active(tmp_path, 0.601, seeds=4, images=40, half_data=True)

    def heal(record: dict[str, Any]) -> None:
        for image in record["metrics"]["test"]["images"]:
            image["iou"] += 0.05

    findings = judge(edit_all(study, "none-half", heal))
    assert [finding.verdict for finding in findings] == ["can't tell", "can't tell"]
    assert "this study is underpowered: half of the training images made no visible difference" in findings[1].sentence
    assert "This study is underpowered" in findings[0].sentence


def test_p_values_are_corrected_over_all_contrasts_of_all_datasets(tmp_path: Path) -> None:
    arms = {"none": 0.60, "smooth-0.1": 0.605, "smooth-0.4": 0.606}
    study = make_study_records(tmp_path, arms=arms, dataset=["flood", "polyps"], seeds=3, images=30)
    findings = judge(study)
    assert len(findings) == 4
    smallest = min(findings, key=lambda finding: finding.p)
    assert smallest.p_corrected == pytest.approx(min(1.0, 4 * smallest.p))
    assert all(finding.p_corrected >= finding.p for finding in findings)


def test_unfinished_arm_is_said_to_be(tmp_path: Path) -> None:
    study = active(tmp_path, 0.65)
    for result in study.of("flood", "none"):
        (result.directory / "record.json").unlink()
    finding = only(load_study(study.config, study.directory))
    assert (finding.verdict, finding.mean) == ("can't tell", None)
    assert "finish the runs of both arms (no pair of trainings is finished)" in finding.sentence


def test_tuned_arm_is_the_candidate_that_validation_chose(tmp_path: Path) -> None:
    arms = {"none": 0.60, "smooth-0.1": 0.65, "smooth-0.4": 0.62}
    study = make_study_records(tmp_path, arms=arms, tuned=True, contrasts=[["smooth-tuned", "none"]], seeds=3)
    assert [result.chosen for result in study.of("flood", "smooth-tuned")] == ["smooth-0.1"] * 3
    study = edit_all(study, "smooth-0.1", switch_to(0.1))
    finding = only(study)
    assert (finding.arm, finding.verdict) == ("smooth-tuned", "better")


def test_headline_counts_verdicts(tmp_path: Path) -> None:
    assert headline(judge(active(tmp_path, 0.65, seeds=4, images=40, half_data=True))) == "1 better"


def test_control_that_is_not_finished_says_nothing_yet(tmp_path: Path) -> None:
    study = active(tmp_path, 0.601, seeds=4, images=40, half_data=True)
    for result in study.of("flood", "none-half"):
        (result.directory / "record.json").unlink()
    findings = judge(load_study(study.config, study.directory))
    assert [finding.verdict for finding in findings] == ["same", "can't tell"]
    assert "whether this study can see is not known yet" in findings[1].sentence
    assert "underpowered" not in findings[0].sentence
