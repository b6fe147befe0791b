"""``results.csv``: every run of a study with its metrics, without rounding."""

from __future__ import annotations

from pathlib import Path

from smooth_attention.core.files import write_text
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.quantities import quantities_in
from smooth_attention.study.reporting.table_formats import write_csv

__all__ = ["write_results"]


def write_results(study: Study, path: Path) -> None:
    """Write ``results.csv``: one row for each finished run, with every digit, in the order of the plan.

    No times and no paths are in it, so that it is equal byte for byte wherever the runs are.
    """
    quantities = quantities_in("results")
    rows = [
        (r.dataset, r.arm, r.chosen, r.fold, r.seed, *(quantity.read(r.record) for quantity in quantities))
        for r in study.results
    ]
    header = ["dataset", "arm", "chosen", "fold", "seed", *(quantity.name for quantity in quantities)]
    write_text(path, write_csv(header, rows))
