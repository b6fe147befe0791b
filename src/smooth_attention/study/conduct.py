"""A study from its question to its answer: plan, runs, findings, tables, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from smooth_attention.core.errors import ConfigError, RunError
from smooth_attention.core.files import write_json
from smooth_attention.core.locks import exclusive
from smooth_attention.core.outputs import check_output_directory
from smooth_attention.runs.inputs import Opener, open_checked_source, open_once
from smooth_attention.study.design.arms import make_arm
from smooth_attention.study.design.config import StudyConfig, make_study, write_study
from smooth_attention.study.design.plan import (
    Forecast,
    Speed,
    keep_to_budget,
    make_plan,
    total_seconds,
    visible_difference,
)
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import PLAN_FILE, STUDY_FILE, load_study, open_study, read_plan, record_of
from smooth_attention.study.execution.runner import (
    LOG,
    Executor,
    LocalExecutor,
    Report,
    do_runs,
    is_finished,
    local_executor,
)
from smooth_attention.study.execution.worker import NO_SPACE, tell_full
from smooth_attention.study.reporting.report import write_report
from smooth_attention.study.reporting.results import write_results
from smooth_attention.study.reporting.samples import write_samples
from smooth_attention.study.reporting.tables import write_tables
from smooth_attention.study.verdicts.conclusions import Conclusions, judge_study

__all__ = ["conclude", "run_study"]

LOCK = ".lock"


def forecast(config: StudyConfig, output: Path, executor: LocalExecutor, open_data: Opener) -> Forecast:
    """Return plan and hours, from finished runs where there are some, else from timed steps.

    Args:
        config: what is asked; of its replicates as many are kept as the budget leaves.
        output: the study's directory, which need not be there.
        executor: what times the steps.
        open_data: what opens the data.

    Raises:
        RequestError: on data or options that can't be used.
    """
    plan = make_plan(config, open_data)
    arm = make_arm("smooth", {}) if any(arm.is_smooth for arm in config.trained_arms) else config.trained_arms[0]
    speeds: dict[str, Speed] = {}
    source = "by finished runs"
    for dataset in plan.groups:
        runs = [run for run in plan.runs if run.dataset == dataset]
        records = ((run, record_of(output / run.directory)) for run in runs)
        done = next(((run, record) for run, record in records if record and record.status == "done"), None)
        if done:
            run, record = done
            speeds[dataset] = run.speed_of(record)
        else:
            speeds[dataset], source = executor.time(config.run_config(runs[0].config.data, arm)), "by timed steps"
    kept = keep_to_budget(config, lambda smaller: total_seconds(make_plan(smaller, open_data), speeds))
    plan = plan if kept == config else make_plan(kept, open_data)
    visible = {dataset: visible_difference(kept, count) for dataset, count in plan.groups.items()}
    return Forecast(kept, plan, speeds, total_seconds(plan, speeds), source, visible)


def run_study(
    config: StudyConfig,
    output: Path,
    *,
    cache: Path,
    command: str,
    report: Report,
    announce: Callable[[Forecast], None],
    dry_run: bool = False,
    ray: str | None = None,
) -> tuple[Study, Conclusions] | None:
    """Do a study, or what is left of it, and write its tables and report.

    Args:
        config: what is asked.
        output: the study's directory.
        cache: where decoded images live.
        command: the command line, for the report.
        report: told of every change while runs are done.
        announce: told of the forecast before anything is trained.
        dry_run: stop there; nothing is written.
        ray: address of a Ray cluster, ``local`` for one on this machine, None for no Ray.

    Returns:
        The study and its conclusions; None after a dry run.

    Raises:
        RequestError: on data, options or a directory that can't be used.
        RunError: where no further run can succeed.
    """
    if ray is not None:
        from smooth_attention.study.execution.ray_runner import check_address

        check_address(ray)
    open_data = open_once()
    before = check_output(config, output)
    if before is not None and not dry_run and is_complete(before, output, open_data):
        return conclude(output, open_data=open_data)
    if not dry_run:
        check_output_directory(output)
    log = Path(os.devnull) if dry_run else output / LOG
    with local_executor(log, cache, corruptions=config.corruptions) as local:
        local.open_worker()
        if dry_run:
            announce(forecast(before or config, output, local, open_data))
            return None
        with exclusive(output / LOCK, refusal=f"{output} is at work in another process; wait for it, or end it"):
            expected = forecast(before or config, output, local, open_data)
            with full_disk_told(output):
                write_plan(config, expected, output, command)
            announce(expected)
            with choose_executor(ray, local) as executor:
                do_runs(expected, output, executor, report=report)
            return conclude(output, open_data=open_data)


@contextmanager
def choose_executor(ray: str | None, local: LocalExecutor) -> Iterator[Executor]:
    """Give what does the runs: the worker of this machine, or a Ray cluster."""
    if ray is None:
        yield local
        return
    from smooth_attention.study.execution.ray_runner import ray_executor

    local.close()
    with ray_executor(ray, local.cache, corruptions=local.corruptions) as cluster:
        yield cluster


def is_complete(config: StudyConfig, output: Path, open_data: Opener) -> bool:
    """Return whether every run of a study is finished."""
    return all(is_finished(output / run.directory, config.corruptions) for run in make_plan(config, open_data).runs)


@contextmanager
def full_disk_told(output: Path) -> Iterator[None]:
    """Make one sentence of a full disk.

    Raises:
        RunError: where the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise RunError(f"{tell_full(output)}, then run the same command again; finished runs are kept") from error


def conclude(
    output: Path, *, with_samples: bool = True, open_data: Opener = open_checked_source
) -> tuple[Study, Conclusions]:
    """Write results, tables, figures and report from the records alone.

    Args:
        output: the study's directory.
        with_samples: whether thumbnails that are missing are drawn, from the data.
        open_data: what opens it.

    Raises:
        ConfigError: where there is no study.
        RunError: where the disk is full.
    """
    study = load_study(open_study(output), output)
    conclusions = judge_study(study)
    with full_disk_told(output):
        write_results(study, output / "results.csv")
        if with_samples:
            write_samples(study, open_data)
        if study.results:
            write_tables(study, conclusions, output / "tables")
            write_report(study, conclusions, command=read_plan(output)["command"])
    return study, conclusions


def check_output(config: StudyConfig, output: Path) -> StudyConfig | None:
    """Return the configuration of the study that is there, with the replicates that its budget left; None: nothing is.

    Raises:
        ConfigError: where there is something else, or another study.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output is a study directory, but {output} is a file; name another")
    if not (output / STUDY_FILE).is_file():
        files = output.iterdir() if output.is_dir() else ()
        if any(file.name not in (LOG, PLAN_FILE) and not file.name.startswith(".") for file in files):
            raise ConfigError(f"{output} is not empty and holds no study; name another directory")
        return None
    before = make_study(read_plan(output)["requested"], source=str(output / PLAN_FILE))
    if before != config:
        changed = [name for name in StudyConfig.model_fields if getattr(before, name) != getattr(config, name)]
        detail = "; ".join(
            f"{name}: {getattr(before, name)!r} there, {getattr(config, name)!r} now" for name in changed
        )
        raise ConfigError(f"{output} holds another study ({detail}); name another directory")
    return open_study(output).model_copy(update={"budget": None})


def write_plan(config: StudyConfig, expected: Forecast, output: Path, command: str) -> None:
    """Write what was asked, how, and what is done, unless an earlier start did."""
    if not (output / STUDY_FILE).is_file():
        datasets = list(dict.fromkeys(run.dataset for run in expected.plan.runs))
        requested = config.model_dump(mode="json")
        write_json(output / PLAN_FILE, {"datasets": datasets, "command": command, "requested": requested})
        write_study(output / STUDY_FILE, expected.config)
