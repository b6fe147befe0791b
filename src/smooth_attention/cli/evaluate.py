"""``smooth-attention evaluate RUN``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from smooth_attention.cli.options import read_options


@dataclass(frozen=True)
class EvaluateOptions:
    """Score the network of a run again, at each image's native size."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="The run directory.", metavar="RUN")]
    split: Annotated[Literal["train", "val", "test"], tyro.conf.arg(help="Which part of the run's split.")] = "test"
    gate: Annotated[Literal["on", "off"], tyro.conf.arg(help="'off': the same weights without smoothing.")] = "on"
    block: Annotated[Literal["on", "off"], tyro.conf.arg(help="'off': the same weights without the block.")] = "on"
    output: Annotated[Path | None, tyro.conf.arg(help="Also write the figures as JSON.")] = None


def run(arguments: list[str], prog: str) -> None:
    options = read_options(EvaluateOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line, print_metrics
    from smooth_attention.core.files import write_json
    from smooth_attention.data.cache import default_cache
    from smooth_attention.models.blocks import Mode
    from smooth_attention.runs.evaluate import evaluate_run

    mode: Mode = "bypass" if options.block == "off" else "gate_off" if options.gate == "off" else "on"
    result = evaluate_run(options.run, split=options.split, mode=mode, cache=default_cache())
    switched = {"on": "", "gate_off": ", gate off", "bypass": ", block bypassed"}[mode]
    print_metrics(f"{options.run}, {options.split} part{switched}, protocol standard", result["metrics"])
    if options.output:
        write_json(options.output, result)
        print_line(f"written: {options.output}")
