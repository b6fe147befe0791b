"""``smooth-attention study DATA... --output STUDY``."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from smooth_attention.cli.options import annotate, read_options
from smooth_attention.core.errors import RunError
from smooth_attention.study.design.config import (
    PRESETS,
    NetworkConfig,
    Replicates,
    StudyConfig,
    TrainingConfig,
    lay_over,
    make_study,
    read_study,
)

if TYPE_CHECKING:
    from smooth_attention.study.design.plan import Forecast
    from smooth_attention.study.execution.collect import Study
    from smooth_attention.study.execution.runner import Progress, Report
    from smooth_attention.study.verdicts.conclusions import Conclusions

__all__ = []

DEFAULT_PRESET = "quick"
OWN = ("layout", "protocol", "margin", "half_data", "corruptions", "budget")  # fields of StudyConfig that are options
SECTIONS: dict[str, Any] = {"replicates": Replicates, "network": NetworkConfig, "training": TrainingConfig}


def option_fields() -> list[tuple[str, Any, Any]]:
    """Return name, annotated type and default of every option; what is not said is None, or False of a flag."""
    fields: list[tuple[str, Any, Any]] = [
        ("output", annotate(Path, "The study's directory.", "output"), dataclasses.MISSING),
        ("data", annotate(tuple[str, ...], "'shapes' or directories.", "data", is_positional=True), ()),
    ]
    said: list[tuple[str, Any, str]] = [
        ("preset", Literal["quick", "paper", "controls", "demo"] | None,
         f"Values for what is not said; '{DEFAULT_PRESET}' where neither arms nor a file are given."),
        ("arms", str | None, "Arms, e.g. none,blur,attention,smooth-0.4,smooth-f0.25,smooth-tuned."),
        ("thresholds", str | None, "More smooth arms by threshold, e.g. 0.1,0.4."),
        ("fractions", str | None, "More smooth arms by fraction, e.g. 0.25."),
        *(item for section in SECTIONS for item in options_of_model(section, SECTIONS[section])),
        *options_of_model(None, StudyConfig, OWN),
        ("dry_run", bool, "Print runs, hours and the difference that could be seen, and stop."),
        ("report_only", bool, "Write tables and report again from the records that are there."),
        ("ray", str | None, "Address of a Ray cluster whose nodes share this directory, or 'local'."),
        ("config", Path | None, "YAML of a study; options given here win."),
    ]  # fmt: skip
    return fields + [(name, annotate(kind, text, name), False if kind is bool else None) for name, kind, text in said]


def options_of_model(
    section: str | None, model: type[BaseModel], names: tuple[str, ...] | None = None
) -> Iterator[tuple[str, Any, str]]:
    """Give option, type and help of a model's fields; a preset's or the model's own default stands in."""
    for name in names or model.model_fields:
        info = model.model_fields[name]
        is_flag = info.annotation is bool and info.default is False
        text = info.description or ""
        if info.default is not None and not is_flag:
            text += f" Left out: {info.default}, or the preset's."
        yield option_name(section, name), bool if is_flag else info.annotation | None, text  # type: ignore[operator]


def option_name(section: str | None, name: str) -> str:
    return "network" if (section, name) == ("network", "name") else name


StudyOptions: Any = dataclasses.make_dataclass(
    "StudyOptions",
    [(name, kind, dataclasses.field(default=default)) for name, kind, default in option_fields()],
    frozen=True,
)
StudyOptions.__doc__ = (
    "Train every arm several times on the same splits, and say whether it helps, by how much, how sure. The same "
    "command again continues an unfinished study."
)


def study_config(options: dict[str, Any]) -> StudyConfig:
    """Return the study that options, YAML and preset ask for, in this order.

    Raises:
        ConfigError: on anything that does not fit.
    """
    unsaid = {name: default for name, _, default in option_fields()}
    said = {name: value for name, value in options.items() if value != unsaid[name]}
    layer: dict[str, Any] = {name: said[name] for name in ("data", *OWN) if name in said}
    for section, model in SECTIONS.items():
        values = {
            name: said[option_name(section, name)] for name in model.model_fields if option_name(section, name) in said
        }
        if values:
            layer[section] = values
    file = read_study(said["config"]) if "config" in said else {}
    preset = said.get("preset", None if "config" in said or "arms" in said else DEFAULT_PRESET)
    below = lay_over(PRESETS[preset]() if preset else {}, file)
    if arms := asked_arms(said, below):
        layer["arms"] = arms
    return make_study(lay_over(below, layer), source=str(said["config"]) if "config" in said else "")


def asked_arms(said: dict[str, Any], below: dict[str, Any]) -> list[Any]:
    """Return the arms of the options; thresholds and fractions join those that are there. Empty: nothing was said."""
    rules = [f"smooth-{rule}" for rule in split_list(said.get("thresholds", ""))]
    rules += [f"smooth-f{rule}" for rule in split_list(said.get("fractions", ""))]
    arms = split_list(said.get("arms", ""))
    return [*(arms or below.get("arms", ())), *rules] if arms or rules else []


def split_list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def run(arguments: list[str], prog: str) -> None:
    options = dataclasses.asdict(read_options(StudyOptions, arguments, prog))
    output: Path = options["output"]
    command = shlex.join([*prog.split(), *arguments])

    from smooth_attention.data.cache_root import default_cache
    from smooth_attention.study.conduct import conclude, run_study

    if options["report_only"]:
        show_findings(*conclude(output, with_samples=False))
        return
    config = study_config(options)
    with live_report() as report:
        found = run_study(
            config,
            output,
            cache=default_cache(),
            command=command,
            report=report,
            announce=show_forecast,
            dry_run=options["dry_run"],
            ray=options["ray"],
        )
    if found is not None:
        show_findings(*found)


def show_forecast(expected: Forecast) -> None:
    """Print what is going to be done, before it is."""
    from smooth_attention.cli.tables import print_line

    config, runs = expected.config, expected.plan.runs
    folds = f"{config.replicates.folds} folds x " if config.replicates.folds else ""
    print_line(
        f"{len(runs)} runs: {len(config.data)} datasets x {len(config.trained_arms)} arms x {folds}"
        f"{config.replicates.seeds} seeds, about {hours(expected.seconds)} on this machine, {expected.source}"
    )
    names = dict.fromkeys(arm.name for arm in (*config.parsed_arms, *config.trained_arms))
    print_line(f"arms: {', '.join(names)}")
    for dataset, difference in expected.visible.items():
        seen = "nothing: one replicate says nothing about other trainings"
        if difference is not None:
            seen = f"a true difference of {100 * difference:.1f} points of IoU per image with a probability of 80 %"
            seen += ", if these trainings vary as those of earlier studies did"
        print_line(f"{dataset}: the study could see {seen}")


def show_findings(study: Study, conclusions: Conclusions) -> None:
    """Print the verdicts and where the rest is.

    Raises:
        RunError: where runs failed, after everything was printed.
    """
    from smooth_attention.cli.tables import print_line
    from smooth_attention.study.verdicts.findings import CONVENTION

    done = sum(result.chosen is None for result in study.results)
    print_line(f"{done} of {study.planned} runs are finished")
    sentences = [finding.sentence for finding in (*conclusions.findings, *conclusions.retained)]
    for sentence in (*sentences, *conclusions.mixed):
        print_line(f"- {sentence}")
    print_line(CONVENTION)
    if study.results:
        print_line(f"report: {study.directory / 'report.html'} (results.csv, tables/, figures/ beside it)")
    if study.failures:
        first = study.failures[0]
        raise RunError(
            f"{len(study.failures)} of {study.planned} runs failed, first {first.dataset} {first.arm} "
            f"fold {first.fold} seed {first.seed}: {first.reason}; the same command tries them again"
        )


@contextmanager
def live_report() -> Iterator[Report]:
    """Give what shows progress: one live line on a terminal, else a line for each run that ended."""
    from rich import progress as bars

    from smooth_attention.cli.tables import console, print_line

    out = console()
    if not out.is_terminal:
        yield lambda progress: print_line(news_line(progress)) if progress.news else None
        return
    columns = (bars.BarColumn(), bars.MofNCompleteColumn(), bars.TextColumn("{task.description}"))
    with bars.Progress(*columns, console=out, transient=True) as live:
        task = live.add_task("")

        def report(progress: Progress) -> None:
            if progress.news:
                live.console.print(news_line(progress), markup=False, highlight=False, soft_wrap=True)
            text = f"{', '.join(progress.running)}; {hours(progress.seconds_left)} left"
            live.update(
                task, total=progress.total, completed=progress.done, description=text, visible=bool(progress.running)
            )

        yield report


def news_line(progress: Progress) -> str:
    return f"[{progress.done + progress.failed}/{progress.total}] {progress.news} ({hours(progress.seconds_left)} left)"


def hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"
