"""Claims of the paper on studies whose differences are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from record_files import read_values, write_values
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.statistics import Estimate
from smooth_attention.study.verdicts.claims import Claim, ClaimPart, estimate_over_runs, judge_claims, judge_parts
from smooth_attention.study.verdicts.published import TABLE_CLAIMS, find_place
from study_records import make_study_records

SWEEP = {f"smooth-{tenth / 10:g}": 0.70 for tenth in range(1, 10)} | {"attention": 0.70}


def by_sentence(study: Study) -> dict[str, Claim]:
    claims = judge_claims(study)
    assert len({claim.claim for claim in claims}) == len(claims)
    return {claim.claim: claim for claim in claims}


def rewrite(study: Study, change: Callable[[dict[str, Any]], None]) -> Study:
    """Change every record on disk and return the study as it is read again."""
    for result in study.results:
        record = read_values(result.directory)
        change(record)
        write_values(result.directory, record)
    return load_study(study.config, study.directory)


def test_claims_that_hold_and_fail_are_told_apart(tmp_path: Path) -> None:
    means = {**SWEEP, "smooth-0.4": 0.76, "smooth-0.5": 0.76, "smooth-0.6": 0.76}
    claims = by_sentence(make_study_records(tmp_path, arms=means, protocol="paper", run_sd=0.001, images=40))
    assert claims["IoU, Dice, precision best at 0.4 to 0.6"].outcome == "holds"
    assert claims["high thresholds under-segment: recall below 0.4 to 0.6"].outcome == "holds"
    assert claims["low thresholds cost precision: below 0.4 to 0.6"].outcome == "holds"
    failed = claims["low thresholds raise recall: above 0.4 to 0.6"]
    assert failed.outcome == "fails"
    assert "of 9 differences 0 as claimed, 9 against, 0 open" in failed.measured
    assert "3 trainings each, protocol standard" in failed.measured


def test_equal_arms_leave_the_claims_open(tmp_path: Path) -> None:
    claims = judge_claims(make_study_records(tmp_path, arms=SWEEP, protocol="paper"))
    outcomes = [claim.outcome for claim in claims if claim.source == "table 5"]
    assert outcomes == ["can't tell"] * 4


def test_one_training_never_tells(tmp_path: Path) -> None:
    means = {**SWEEP, "smooth-0.4": 0.80, "smooth-0.5": 0.80, "smooth-0.6": 0.80}
    study = make_study_records(tmp_path, arms=means, seeds=1, protocol="paper", corruptions=True)
    claims = judge_claims(study)
    assert {claim.outcome for claim in claims} == {"can't tell"}
    assert all("1 training each" in claim.measured for claim in claims)
    assert "(no interval)" in claims[-1].measured


def test_missing_thresholds_are_named_and_nothing_holds(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"attention": 0.70, "smooth-0.4": 0.75}, images=40)
    claim = by_sentence(study)["IoU, Dice, precision best at 0.4 to 0.6"]
    assert claim.outcome == "not tested"
    assert "IoU per image, smooth-0.4 − attention: +5.00 points" in claim.measured
    assert "not in the records: smooth-0.1" in claim.measured


def test_one_difference_against_it_fails_an_incomplete_claim(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"attention": 0.75, "smooth-0.4": 0.70}, images=40)
    assert by_sentence(study)["IoU, Dice, precision best at 0.4 to 0.6"].outcome == "fails"


@pytest.mark.parametrize(
    ("name", "layout", "table", "is_published"),
    [
        ("flood", None, 5, False),
        ("flood", "folder", 5, False),
        ("flood", "flood", 5, True),
        ("polyps", None, 4, False),
        ("animals", "folder", 1, False),
        ("shapes", None, None, False),
    ],
)
def test_only_the_published_layout_is_the_papers_data(
    tmp_path: Path, name: str, layout: str | None, table: int | None, is_published: bool
) -> None:
    arms = {"attention": 0.70, "smooth-0.4": 0.71}
    study = make_study_records(tmp_path, arms=arms, dataset=name, layout=layout)
    place = find_place(study, name)
    assert (place.table, place.is_published) == (table, is_published)
    claims = judge_claims(study)
    assert {claim.on_paper_data for claim in claims} == {is_published}
    stated = [claim for claim in TABLE_CLAIMS if claim.dataset == place.dataset]
    assert len([claim for claim in claims if claim.source.startswith("table")]) == len(stated)


def test_recognised_layout_counts_as_the_named_one(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"attention": 0.70, "smooth-0.4": 0.71})
    study = rewrite(study, lambda record: record["data"].update(layout="flood"))
    assert find_place(study, "flood").is_published


def test_claims_about_flood_are_elsewhere_on_other_published_data(tmp_path: Path) -> None:
    arms = {"attention": 0.70, "smooth-0.4": 0.71}
    claims = judge_claims(make_study_records(tmp_path, arms=arms, dataset="fire", layout="fire"))
    assert {claim.source: claim.on_paper_data for claim in claims} == {
        "table 3": True,
        "figures 2-5": False,
        "figures 8/9": False,
        "introduction": True,
    }


def test_fish_has_the_claim_of_its_figures(tmp_path: Path) -> None:
    arms = {"attention": 0.70, "smooth-0.1": 0.71, "smooth-0.9": 0.71}
    study = make_study_records(tmp_path, arms=arms, dataset="fish")

    def denser(record: dict[str, Any]) -> None:
        if record["config"]["threshold"] == 0.1:
            record["measures"]["attention"]["smoothed"]["total_variation"] -= 0.2
            record["measures"]["attention"]["smoothed"]["autocorrelation"] += 0.2

    sentence = "attention denser and more even at 0.1 than at 0.9"
    assert by_sentence(study)[sentence].outcome == "can't tell"
    assert by_sentence(rewrite(study, denser))[sentence].outcome == "holds"


def test_measured_quantities_decide_the_claims_of_the_figures(tmp_path: Path) -> None:
    arms = {"attention": 0.70, "smooth-0.4": 0.75}
    study = make_study_records(tmp_path, arms=arms, images=40, corruptions=True)
    claims = by_sentence(study)
    than = "with smooth-0.4 than with plain attention"
    held = [
        f"attention less fragmented {than}",
        "attention of smooth-0.4 less fragmented after smoothing",
        f"masks with fewer fragments, less abrupt edges {than}",
        f"less sensitive to noise {than}",
        f"less sensitive to small perturbations {than}",
    ]
    assert [claims[sentence].outcome for sentence in held] == ["holds"] * 5
    assert claims[f"less overfitting {than}"].outcome == "can't tell"
    masks = claims[held[2]].measured
    assert "components of a mask, smooth-0.4 − attention: −0.250" in masks
    assert "perimeter² / area" in masks
    assert "boundary IoU per image, smooth-0.4 − attention: +3.00 points" in masks


def test_opposite_quantities_fail(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"attention": 0.75, "smooth-0.4": 0.70}, images=40)

    def overfit(record: dict[str, Any]) -> None:
        if record["config"]["arm"] == "smooth":
            record["metrics"]["train"]["per_image"]["iou"] += 0.04
            record["measures"]["attention"]["smoothed"]["total_variation"] += 0.5

    claims = by_sentence(rewrite(study, overfit))
    than = "with smooth-0.4 than with plain attention"
    assert claims[f"less overfitting {than}"].outcome == "fails"
    assert "train − test IoU, smooth-0.4 − attention: +4.00 points" in claims[f"less overfitting {than}"].measured
    assert claims[f"masks with fewer fragments, less abrupt edges {than}"].outcome == "fails"
    assert claims[f"attention less fragmented {than}"].outcome == "fails"


def test_unmeasured_quantities_are_not_tested(tmp_path: Path) -> None:
    arms = {"attention": 0.70, "smooth-0.4": 0.75}
    claims = judge_claims(make_study_records(tmp_path, arms=arms, measured=False))
    general = [claim for claim in claims if not claim.source.startswith("table")]
    assert {claim.outcome for claim in general} == {"not tested"}
    assert any("not in the records: total variation" in claim.measured for claim in general)


def test_another_smooth_arm_stands_for_the_missing_one(tmp_path: Path) -> None:
    arms = {"none": 0.7, "attention": 0.70, "smooth-f0.25": 0.71}
    assert any(
        "with smooth-f0.25 than" in claim.claim for claim in judge_claims(make_study_records(tmp_path, arms=arms))
    )


def test_without_attention_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    claims = judge_claims(make_study_records(tmp_path, arms={"none": 0.7, "smooth-0.4": 0.71}, dataset="shapes"))
    missing = [claim for claim in claims if "than with plain attention" in claim.claim]
    assert {claim.outcome for claim in missing} == {"not tested"}
    assert all("not in the records: attention" in claim.measured for claim in missing)


def test_runs_of_different_replicates_make_no_pair(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"attention": 0.7, "smooth-0.4": 0.71}, seeds=2, dataset="shapes")
    kept = tuple(r for r in study.results if (r.seed == 0) == (r.arm == "attention"))
    claims = judge_claims(Study(study.config, study.directory, kept, (), study.planned))
    overfitting = next(claim for claim in claims if "overfitting" in claim.claim)
    assert overfitting.outcome == "not tested"
    assert "a replicate of both smooth-0.4 and attention" in overfitting.measured


def test_interval_over_trainings_is_students(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"attention": 0.7, "smooth-0.4": 0.71}, seeds=4)
    results, values = study.of("flood", "smooth-0.4"), [0.1, 0.3, 0.2, 0.5]
    estimate = estimate_over_runs(list(zip(results, values, strict=True)), has_folds=False)
    assert estimate is not None
    expected = stats.ttest_1samp(values, 0)
    assert estimate.p_value() == pytest.approx(expected.pvalue)
    assert estimate.interval() == pytest.approx(tuple(expected.confidence_interval()))


def test_interval_over_folds_widens_for_shared_training_images(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"attention": 0.7, "smooth-0.4": 0.71}, folds=4, seeds=2, images=40)
    results = study.of("flood", "smooth-0.4")
    values = [0.1, 0.2, 0.3, 0.4, 0.2, 0.1, 0.5, 0.3]
    estimate = estimate_over_runs(list(zip(results, values, strict=True)), has_folds=True)
    assert estimate is not None
    by_fold = np.reshape(values, (4, 2)).mean(1)
    split = results[0].record.data.split
    ratio = len(split.test) / len(split.train)
    assert estimate.standard_error == pytest.approx(np.sqrt((1 / 4 + ratio) * by_fold.var(ddof=1)))
    assert estimate.degrees_of_freedom == 3


def parts(*means: float, error: float = 0.001) -> list[ClaimPart]:
    return [ClaimPart(str(mean), 1, Estimate(mean, error, 10), 5, True) for mean in means]


@pytest.mark.parametrize(
    ("quantifier", "means", "outcome"),
    [
        ("all", (0.02, 0.03), "holds"),
        ("all", (0.02, 0.0), "can't tell"),
        ("all", (0.02, -0.02), "fails"),
        ("any", (0.02, -0.02), "holds"),
        ("any", (0.0, -0.02), "can't tell"),
        ("any", (-0.03, -0.02), "fails"),
        ("flat", (0.002, -0.003), "holds"),
        ("flat", (0.009, 0.0), "can't tell"),
        ("flat", (0.02, 0.0), "fails"),
    ],
)
def test_rules(quantifier: Any, means: tuple[float, ...], outcome: str) -> None:
    assert judge_parts(parts(*means), quantifier, 0.01)[0] == outcome


@pytest.mark.parametrize(
    ("quantifier", "mean", "outcome"),
    [("all", 0.02, "not tested"), ("all", -0.02, "fails"), ("any", 0.02, "holds"), ("any", -0.02, "not tested")],
)
def test_missing_parts_leave_only_what_one_part_decides(quantifier: Any, mean: float, outcome: str) -> None:
    missing = ClaimPart("gone", 1, None, 0, True, lacks=("smooth-0.9",))
    found, measured = judge_parts([*parts(mean), missing], quantifier, 0.01)
    assert found == outcome
    assert measured.endswith("not in the records: smooth-0.9")


def test_failing_is_corrected_for_the_number_of_parts() -> None:
    p_uncorrected = 0.03
    error = 0.01 / stats.t.isf(p_uncorrected / 2, 10)
    assert judge_parts(parts(-0.01, error=error), "all", 0.01)[0] == "fails"
    assert judge_parts(parts(-0.01, 0.0, error=error), "all", 0.01)[0] == "can't tell"


def test_claimed_decrease_counts_downwards() -> None:
    down = [ClaimPart("less", -1, Estimate(mean, 0.001, 10), 5, True) for mean in (-0.02, -0.03, -0.02, -0.04, -0.01)]
    outcome, measured = judge_parts(down, "all", 0.01)
    assert outcome == "holds"
    assert "of 5 differences 5 as claimed, 0 against, 0 open" in measured


def test_many_flat_differences_are_counted_within_the_margin() -> None:
    _, measured = judge_parts(parts(0.0, 0.001, 0.02, 0.0, 0.001), "flat", 0.01)
    assert "of 5 differences 4 lie within ± 1 points" in measured
