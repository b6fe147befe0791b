"""``smooth-attention evaluate RUN``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from smooth_attention.cli.options import read_options

if TYPE_CHECKING:
    from smooth_attention.core.records import Robustness

__all__ = []


@dataclass(frozen=True)
class EvaluateOptions:
    """Score the network of a run again, at each image's native size."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="The run directory.", metavar="RUN")]
    split: Annotated[Literal["train", "val", "test"], tyro.conf.arg(help="Which part of the run's split.")] = "test"
    gate: Annotated[Literal["on", "off"], tyro.conf.arg(help="'off': the same weights without smoothing.")] = "on"
    block: Annotated[Literal["on", "off"], tyro.conf.arg(help="'off': the same weights without the block.")] = "on"
    corruptions: Annotated[
        bool, tyro.conf.arg(help="Also score at most 64 of the images under ImageNet-C corruptions at five severities.")
    ] = False
    output: Annotated[Path | None, tyro.conf.arg(help="Also write the metrics as JSON.")] = None


def run(arguments: list[str], prog: str) -> None:
    options = read_options(EvaluateOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line, print_metrics
    from smooth_attention.core.files import write_json
    from smooth_attention.core.outputs import check_output_file
    from smooth_attention.data.cache_root import default_cache
    from smooth_attention.models.blocks import Mode
    from smooth_attention.runs.evaluate import evaluate_run

    if options.output:
        check_output_file(options.output)
    mode: Mode = "bypass" if options.block == "off" else "gate_off" if options.gate == "off" else "on"
    result = evaluate_run(options.run, split=options.split, mode=mode, cache=default_cache())
    switched = {"on": "", "gate_off": ", gate off", "bypass": ", block bypassed"}[mode]
    what = f"{options.run}, {options.split} part{switched}"
    print_metrics(f"{what}, protocol standard", result.metrics)
    if options.corruptions:
        from smooth_attention.runs.robustness import measure_run_robustness

        robustness = measure_run_robustness(options.run, split=options.split, mode=mode, cache=default_cache())
        print_robustness(f"{what}, share of IoU retained by severity", robustness)
        result = replace(result, robustness=robustness)
    if options.output:
        write_json(options.output, result)
        print_line(f"written: {options.output}")


def print_robustness(title: str, found: Robustness) -> None:
    from smooth_attention.cli.tables import print_line, print_table, show

    rows = [
        [name.replace("_", " "), *(show(value) for value in under.retention)]
        for name, under in found.corruptions.items()
    ]
    caption = (
        f"{found.images} images, corrupted at the network's size with the constants of ImageNet-C, scored at "
        "native size; retained: pooled IoU over that of the same images uncorrupted, "
        f"{show(found.clean.iou)}; mean of the table {show(found.retention)}"
    )
    print_table(title, ["", *map(str, found.severities)], rows, caption=caption)
    for name, what in (("noise", "noise of 2 grey levels"), ("shift", "a shift of 1 px")):
        stability = found.stability[name]
        agreement = None if stability.mask_agreement is None else 100 * stability.mask_agreement
        line = f"{what}: {show(agreement, 2)} % of pixels keep their label"
        if stability.row_distance is not None:
            line += (
                f"; rows of attention move by {show(stability.row_distance)}, "
                f"without smoothing by {show(stability.row_distance_plain)}"
            )
        print_line(line)
