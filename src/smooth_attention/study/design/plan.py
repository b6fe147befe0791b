"""The plan of a study: which runs, how long, what it could see."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smooth_attention.core.errors import ConfigError
from smooth_attention.core.records import Record
from smooth_attention.data.sources import Source
from smooth_attention.data.splits import Split, keep_share
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.inputs import Opener, open_checked_source
from smooth_attention.runs.protocols import PROTOCOLS
from smooth_attention.study.design.config import Replicates, StudyConfig, budget_hours
from smooth_attention.study.statistics import plan_over_folds, plan_over_seeds, smallest_difference

__all__ = [
    "RUNS",
    "Forecast",
    "PlannedRun",
    "Speed",
    "keep_to_budget",
    "make_plan",
    "total_seconds",
    "visible_difference",
]

RUNS = "runs"
MAX_NAME_BYTES = 230  # of a dataset or an arm, as a part of file names, which have 255

# Standard deviations of a difference of IoU per image, between trainings, groups of images, and the rest: the mean over
# pairs of arms of what the study in results/quick measured (flood .019, .024, .087; polyps .017, .040, .135), rounded
# up. Only for the forecast.
SEED_SD, GROUP_SD, ERROR_SD = 0.02, 0.04, 0.12


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds per training step and per scored image, as timed."""

    step_seconds: float
    image_seconds: float

    def of(self, run: PlannedRun) -> float:
        return run.steps * self.step_seconds + run.images * self.image_seconds


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One training of the plan.

    Attributes:
        dataset: name.
        arm: name.
        fold: tested fold.
        seed: of the training.
        config: of the run.
        directory: where it goes, relative to the study.
        steps: optimiser steps.
        images: images that are scored: validation in each epoch, test and validation at the end.
    """

    dataset: str
    arm: str
    fold: int
    seed: int
    config: RunConfig
    directory: Path
    steps: int
    images: int

    @property
    def name(self) -> str:
        return f"{self.dataset} {self.arm} fold {self.fold} seed {self.seed}"

    def speed_of(self, record: Record) -> Speed:
        """Return the speed at which this run was done."""
        return Speed(record.seconds.train / self.steps, record.seconds.evaluate / self.images)


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of a study in the order in which they are done: replicate by replicate, every arm of each.

    Attributes:
        runs: all of them.
        groups: groups of test images by dataset, of the first fold.
    """

    runs: tuple[PlannedRun, ...]
    groups: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a study is going to be.

    Attributes:
        config: with the replicates that the budget leaves.
        plan: its runs.
        speeds: by dataset.
        seconds: of all runs on one machine.
        source: where the speeds come from.
        visible: by dataset, the difference of IoU per image that it could see with a probability of 80 %.
    """

    config: StudyConfig
    plan: Plan
    speeds: Mapping[str, Speed]
    seconds: float
    source: str
    visible: Mapping[str, float | None]


def make_plan(config: StudyConfig, open_data: Opener = open_checked_source) -> Plan:
    """Return the plan of a study; its data is opened by ``open_data``.

    Raises:
        RequestError: on data or options that can't be used.
    """
    arms = config.trained_arms
    names: dict[str, str] = {}
    groups: dict[str, int] = {}
    runs = []
    sources = {data: open_data(config.run_config(data, arms[0]))[0] for data in config.data}
    for data, source in sources.items():
        if source.name in names:
            raise ConfigError(f"{names[source.name]} and {data} are both called {source.name!r}; rename one directory")
        names[source.name] = data
    for name in (*names, *(arm.name for arm in arms)):
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            raise ConfigError(f"a study names files by datasets and arms, and {name} is too long for that; shorten it")
    for fold in range(config.replicates.folds or 1):
        for seed in range(config.replicates.seeds):
            for data, source in sources.items():
                for arm in arms:
                    run_config = config.run_config(data, arm, fold=fold, seed=seed)
                    split = split_of(run_config, source)
                    if not fold and not seed:
                        groups[source.name] = len({source.groups[stem] for stem in split.test})
                    directory = Path(RUNS, source.name, arm.name, f"fold-{fold}-seed-{seed}")
                    steps, images = count_work(run_config, split)
                    runs.append(PlannedRun(source.name, arm.name, fold, seed, run_config, directory, steps, images))
    return Plan(tuple(runs), groups)


def split_of(config: RunConfig, source: Source) -> Split:
    """Return the split that a run of this configuration uses."""
    return keep_share(source, PROTOCOLS[config.protocol].split(source, config), config.train_frac, config.split_seed)


def count_work(config: RunConfig, split: Split) -> tuple[int, int]:
    """Return optimiser steps and scored images of a run."""
    watched = split.val or split.test
    steps = config.epochs * max(1, len(split.train) // config.batch_size)
    return steps, (config.epochs * len(watched)) // 4 + len(split.test) + len(split.val)  # at network size: about 1/4


def keep_to_budget(config: StudyConfig, seconds: Callable[[StudyConfig], float]) -> StudyConfig:
    """Return the configuration with as many replicates as its budget allows; arms and controls all stay.

    Seeds are dropped first, down to one for each fold, then the study is refused: fewer folds would test fewer images.

    Args:
        config: what was asked.
        seconds: of a configuration, by the plan.

    Raises:
        ConfigError: where two replicates take longer than the budget.
    """
    if config.budget is None:
        return config
    hours = budget_hours(config.budget)
    fewest = 2 if config.replicates.folds is None else 1
    for seeds in range(config.replicates.seeds, min(fewest, config.replicates.seeds) - 1, -1):
        smaller = config.model_copy(update={"replicates": Replicates(folds=config.replicates.folds, seeds=seeds)})
        needed = seconds(smaller) / 3600
        if needed <= hours:
            return smaller
    raise ConfigError(
        f"{len(config.trained_arms)} arms on {len(config.data)} datasets take {needed:.1f} h with "
        f"{smaller.replicates.count} replicates, the budget is {config.budget}; raise it, or take fewer arms, "
        "fewer epochs or smaller images"
    )


def visible_difference(config: StudyConfig, num_groups: int) -> float | None:
    """Return the difference of IoU that the study could see with a probability of 80 %, by the forecast's spreads.

    Args:
        config: with its replicates.
        num_groups: groups of test images of a fold.

    Returns:
        None where one replicate or one group says nothing.
    """
    folds, seeds = config.replicates.folds, config.replicates.seeds
    if num_groups < 2 or config.replicates.count < 2:
        return None
    if folds is None:
        return smallest_difference(
            *plan_over_seeds(SEED_SD, GROUP_SD, ERROR_SD, num_seeds=seeds, num_groups=num_groups)
        )
    spread = math.sqrt(SEED_SD**2 / seeds + (GROUP_SD**2 + ERROR_SD**2 / seeds) / num_groups)
    return smallest_difference(*plan_over_folds(spread, num_folds=folds))


def total_seconds(plan: Plan, speeds: Mapping[str, Speed]) -> float:
    """Return the seconds of all runs, by the speed of each dataset."""
    return float(np.sum([speeds[run.dataset].of(run) for run in plan.runs]))
