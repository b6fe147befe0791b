"""The plan: which runs in which order, how long, what could be seen, what a budget leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from smooth_attention.core.errors import ConfigError
from smooth_attention.study.design.config import StudyConfig, make_study
from smooth_attention.study.design.plan import Speed, keep_to_budget, make_plan, total_seconds, visible_difference

SMALL = {"network": {"encoder_weights": "none"}, "training": {"image_size": 64, "epochs": 2, "batch_size": 4}}


def study(data: list[str], **values: Any) -> StudyConfig:
    return make_study({"data": data, "arms": ["none", "smooth"], **SMALL, **values})


def test_plan_does_every_arm_of_a_replicate_before_the_next(scenes: Path) -> None:
    plan = make_plan(study([str(scenes)], replicates={"folds": 2, "seeds": 2}))
    order = [(run.fold, run.seed, run.arm) for run in plan.runs]
    arms = ("none", "smooth-0.4", "none-half")
    assert order == [(fold, seed, arm) for fold in (0, 1) for seed in (0, 1) for arm in arms]
    assert len({run.directory for run in plan.runs}) == len(plan.runs) == 12
    assert plan.runs[0].directory == Path("runs/scenes/none/fold-0-seed-0")
    assert plan.groups == {"scenes": 6}


def test_half_of_the_images_takes_fewer_steps_and_the_same_scoring(scenes: Path) -> None:
    whole, _, half = make_plan(study([str(scenes)])).runs[:3]
    assert whole.steps == 2 * (8 // 4)
    assert half.steps == 2 * (4 // 4)
    assert half.images == whole.images


def test_seconds_follow_steps_and_images(scenes: Path) -> None:
    plan = make_plan(study([str(scenes)], replicates={"seeds": 1}))
    want = sum(0.5 * run.steps + 0.1 * run.images for run in plan.runs)
    assert total_seconds(plan, {"scenes": Speed(0.5, 0.1)}) == pytest.approx(want)


def test_datasets_of_one_name_are_refused(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "scenes").symlink_to(scenes)
    other = tmp_path / "other" / "scenes"
    other.parent.mkdir()
    other.symlink_to(scenes)
    with pytest.raises(ConfigError, match=r"are both called 'scenes'; rename one directory"):
        make_plan(study([str(tmp_path / "scenes"), str(other)]))


def test_a_name_too_long_for_the_files_of_a_study_is_refused(scenes: Path, tmp_path: Path) -> None:
    for num_letters in (230, 231):
        data = tmp_path / ("n" * num_letters)
        shutil.copytree(scenes, data)
        if num_letters == 230:
            assert make_plan(study([str(data)])).groups.keys() == {data.name}
        else:
            with pytest.raises(ConfigError, match=r"n{231} is too long for that; shorten it"):
                make_plan(study([str(data)]))


@pytest.mark.parametrize(
    ("folds", "seeds", "budget", "kept"),
    [(None, 5, "100h", 5), (None, 5, "35min", 3), (None, 5, "20min", 2), (3, 4, "30min", 1), (None, 1, "10min", 1)],
)
def test_budget_drops_seeds_and_keeps_arms(folds: int | None, seeds: int, budget: str, kept: int) -> None:
    config = study(["shapes"], replicates={"folds": folds, "seeds": seeds}, budget=budget)
    smaller = keep_to_budget(config, lambda each: 600 * each.replicates.count)
    assert (smaller.replicates.folds, smaller.replicates.seeds) == (folds, kept)
    assert smaller.trained_arms == config.trained_arms
    assert smaller.half_data


def test_budget_below_two_replicates_is_refused() -> None:
    config = study(["shapes"], budget="19min")
    with pytest.raises(
        ConfigError, match=r"3 arms on 1 datasets take 0.3 h with 2 replicates, the budget is 19min; rai"
    ):
        keep_to_budget(config, lambda each: 600 * each.replicates.count)


def test_more_replicates_and_images_see_smaller_differences() -> None:
    def seen(groups: int, **replicates: int) -> float | None:
        return visible_difference(study(["shapes"], replicates=replicates), groups)

    few, many = seen(50, seeds=3), seen(50, seeds=10)
    assert few is not None
    assert many is not None
    assert seen(500, seeds=10) < many < few  # type: ignore[operator]
    assert seen(50, seeds=10, folds=5) < many  # type: ignore[operator]
    assert seen(50, seeds=1) is None
    assert seen(1, seeds=5) is None
