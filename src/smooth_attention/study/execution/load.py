"""The state of a study on disk: which runs are done, which failed and why, which are still to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smooth_attention.core.errors import ConfigError, DamagedError
from smooth_attention.core.records import RECORD, Record, read_record
from smooth_attention.study.design.arms import TUNED
from smooth_attention.study.design.config import StudyConfig, make_study, read_study
from smooth_attention.study.design.plan import RUNS, PlannedRun
from smooth_attention.study.execution.collect import Failure, Result, Study

__all__ = ["PLAN_FILE", "STUDY_FILE", "load_study", "open_study", "read_plan", "record_of", "set_aside_damaged"]

STUDY_FILE = "study.yaml"
PLAN_FILE = "plan.json"


def open_study(directory: Path) -> StudyConfig:
    """Return the configuration that a study directory holds.

    Raises:
        ConfigError: where there is none.
    """
    path = directory / STUDY_FILE
    if not path.is_file():
        raise ConfigError(f"{directory} is no study: it holds no {STUDY_FILE}; give what study wrote")
    return make_study(read_study(path), source=str(path))


def read_plan(directory: Path) -> dict[str, Any]:
    """Return what was planned: ``datasets`` by name, in order, the ``command`` and the ``requested`` configuration.

    Raises:
        ConfigError: where there is no plan.
    """
    try:
        plan: dict[str, Any] = json.loads((directory / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{directory} is no study: can't read {PLAN_FILE} ({error}); give what study wrote"
        ) from error
    return plan


def load_study(config: StudyConfig, directory: Path) -> Study:
    """Return a study with the records that it has, in the order of the plan; reads no data.

    Raises:
        ConfigError: where a record is of another schema, naming it.
    """
    results: list[Result] = []
    failures: list[Failure] = []
    arms = config.trained_arms
    replicates = [
        (fold, seed) for fold in range(config.replicates.folds or 1) for seed in range(config.replicates.seeds)
    ]
    datasets = read_plan(directory)["datasets"]
    for dataset in datasets:
        for fold, seed in replicates:
            found: dict[str, Result] = {}
            for arm in arms:
                place = directory / RUNS / dataset / arm.name / f"fold-{fold}-seed-{seed}"
                record = record_of(place)
                if record is None or record.status == "running":
                    continue
                if record.status == "failed":
                    failures.append(Failure(dataset, arm.name, fold, seed, str(record.reason)))
                else:
                    found[arm.name] = Result(dataset, arm.name, fold, seed, place, record)
            results += found.values()
            for arm in config.parsed_arms:
                if arm.candidates and all(name in found for name in arm.candidates):
                    results.append(choose([found[name] for name in arm.candidates]))
    planned = len(config.data) * len(arms) * len(replicates)
    return Study(config, directory, tuple(results), tuple(failures), planned)


def choose(candidates: list[Result]) -> Result:
    """Return what ``smooth-tuned`` is in a replicate: the candidate with the best pooled IoU on validation images.

    Of equal ones the first.
    """
    best = max(candidates, key=lambda result: val_iou(result.record))
    return Result(best.dataset, TUNED, best.fold, best.seed, best.directory, best.record, chosen=best.arm)


def val_iou(record: Record) -> float:
    """Return pooled IoU on validation images; undefined counts as 0."""
    assert record.metrics.val is not None
    return record.metrics.val.pooled.iou or 0.0


def record_of(directory: Path) -> Record | None:
    """Return the record of a run, None where there is none or it is damaged."""
    if not (directory / RECORD).is_file():
        return None
    try:
        return read_record(directory)
    except DamagedError:
        return None


def set_aside_damaged(study: Path, run: PlannedRun) -> str | None:
    """Rename a damaged record so that the run is done again, and return a sentence that names it; None: it is sound.

    Raises:
        ConfigError: where the record is of another schema.
    """
    path = study / run.directory / RECORD
    if not path.is_file():
        return None
    try:
        read_record(path.parent)
    except DamagedError as error:
        aside = path.with_name(f"{RECORD}.damaged")
        path.replace(aside)
        return f"{error}; it is kept as {aside.name}, the run is done again"
    return None
