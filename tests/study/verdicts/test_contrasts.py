"""Paired differences: matched by stem, averaged by group, undefined as 1, the right model for the design."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.statistics import estimate_over_folds, estimate_over_seeds
from smooth_attention.study.verdicts.contrasts import compare_arms, pair_arms
from study_records import make_study_records

ARMS = {"none": 0.60, "smooth-0.4": 0.63}


def edit(study: Study, arm: str, seed: int, change: Any) -> Study:
    """Change a record on disk and read the study again."""
    path = study.of("flood", arm)[seed].directory / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return load_study(study.config, study.directory)


def test_fixed_split_gives_the_crossed_model_over_seeds_and_groups(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=4, images=12, group_size=3)
    paired = pair_arms(study, "flood", "smooth-0.4", "none")
    assert paired is not None
    assert (len(paired.replicates), paired.num_images, paired.num_groups, paired.has_folds) == (4, 12, 4, False)
    table = np.zeros((4, 12))
    for row, (ours, theirs) in enumerate(zip(study.of("flood", "smooth-0.4"), study.of("flood", "none"), strict=True)):
        images = zip(*(r.record.metrics.test.images for r in (ours, theirs)), strict=True)
        table[row] = [a.iou - b.iou for a, b in images]
    want = estimate_over_seeds(table.reshape(4, 4, 3).mean(-1))
    got = paired.estimate()
    assert (got.mean, got.standard_error) == (pytest.approx(want.mean), pytest.approx(want.standard_error))
    assert got.mean == pytest.approx(0.03, abs=1e-3)
    assert compare_arms(study, "flood", "smooth-0.4", "none") == got


def test_folds_give_the_corrected_t(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=2, folds=4, images=24)
    paired = pair_arms(study, "flood", "smooth-0.4", "none")
    assert paired is not None
    assert (paired.num_images, paired.by_fold().shape) == (24, (4, 1))
    split = study.results[0].record.data.split
    ratio = len(split.test) / len(split.train)
    assert paired.estimate() == estimate_over_folds(paired.by_fold(), ratio)
    assert paired.by_fold().mean() == pytest.approx(0.03, abs=1e-3)


def test_images_are_matched_by_stem_whatever_their_order(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS)
    before = compare_arms(study, "flood", "smooth-0.4", "none")
    shuffled = edit(study, "none", 1, lambda record: record["metrics"]["test"]["images"].reverse())
    assert compare_arms(shuffled, "flood", "smooth-0.4", "none") == before


def test_undefined_figure_counts_as_one(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=2, images=10)

    def empty(record: dict[str, Any]) -> None:
        record["metrics"]["test"]["images"][0]["iou"] = None

    changed = edit(edit(study, "none", 0, empty), "none", 1, empty)
    paired = pair_arms(changed, "flood", "smooth-0.4", "none")
    assert paired is not None
    ours = changed.of("flood", "smooth-0.4")[0].record.metrics.test.images[0].iou
    assert paired.differences[0][0] == ours - 1.0


def test_only_replicates_of_both_arms_count(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=3)
    (study.of("flood", "none")[1].directory / "record.json").unlink()
    study = load_study(study.config, study.directory)
    paired = pair_arms(study, "flood", "smooth-0.4", "none")
    assert paired is not None
    assert paired.replicates == ((0, 0), (0, 2))
    assert pair_arms(study, "polyps", "smooth-0.4", "none") is None


def test_trained_interval_is_that_of_the_mean_over_images(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=3, images=60, error_sd=0.05)
    paired = pair_arms(study, "flood", "smooth-0.4", "none")
    assert paired is not None
    trained = paired.estimate_trained()
    means = np.mean(paired.differences, axis=0)
    reach = 1.96 * means.std(ddof=1) / np.sqrt(60)
    assert trained.difference == pytest.approx(means.mean())
    assert trained.low == pytest.approx(means.mean() - reach, abs=0.2 * reach)
    assert trained.high == pytest.approx(means.mean() + reach, abs=0.2 * reach)


def test_more_replicates_are_asked_for_only_where_they_help(tmp_path: Path) -> None:
    noisy_runs = make_study_records(tmp_path / "a", arms=ARMS, seeds=3, run_sd=0.02, error_sd=0.002, images=60)
    paired = pair_arms(noisy_runs, "flood", "smooth-0.4", "none")
    assert paired is not None
    more = paired.more_needed(0.01)
    assert more is not None
    assert 5 < more < 300
    error, freedom = paired.plan(3 + more) or (0.0, 0.0)
    assert paired.smallest() > 0.01  # type: ignore[operator]
    from smooth_attention.study.statistics import smallest_difference

    assert smallest_difference(error, freedom) <= 0.01 < smallest_difference(*paired.plan(2 + more))  # type: ignore[misc]
