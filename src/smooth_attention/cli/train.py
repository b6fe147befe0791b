"""``smooth-attention train DATA --output RUN``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from smooth_attention.cli.options import config_file, options_of, read_options
from smooth_attention.runs.config import RunConfig, make_config, read_config

__all__ = []

TrainOptions = options_of(
    "TrainOptions",
    "Train one network and score it. The same command again continues an unfinished run.",
    RunConfig,
    positional="data",
    extra=[
        ("output", Path, "The run directory.", dataclasses.MISSING),
        ("config", Path | None, "YAML with the same fields; options given here win.", None),
    ],
)


def run(arguments: list[str], prog: str) -> None:
    path = config_file(arguments)
    defaults = read_config(path) if path else {}
    if isinstance(defaults.get("stages"), list):
        defaults["stages"] = tuple(defaults["stages"])
    options = dataclasses.asdict(read_options(TrainOptions, arguments, prog, defaults=defaults))
    output, _ = options.pop("output"), options.pop("config")
    config = make_config(options)

    from smooth_attention.cli.tables import print_run
    from smooth_attention.data.cache_root import default_cache
    from smooth_attention.runs.train import train

    record = train(config, output, cache=default_cache())
    if record.status == "done":  # on several devices only the first process has the metrics
        print_run(record, output)
