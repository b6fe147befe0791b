"""``results.csv``: every run of a study with its figures, without rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from smooth_attention.core.files import write_text
from smooth_attention.core.records import Record
from smooth_attention.metrics import FIGURES
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.reporting.table_formats import Value, write_csv
from smooth_attention.study.reporting.tables import COMPARED, CORRUPTED, DIAGNOSTICS, MODES, TEST
from smooth_attention.study.verdicts.activity import last_diagnostics
from smooth_attention.study.verdicts.claims import dig


def write_results(study: Study, path: Path) -> None:
    """Write ``results.csv``: one row for each finished run, with every digit, in the order of the plan.

    No times and no paths are in it, so that it is equal byte for byte wherever the runs are.
    """
    readers = result_readers()
    rows = [
        (r.dataset, r.arm, r.chosen, r.fold, r.seed, *(read(r.record) for read in readers.values()))
        for r in study.results
    ]
    write_text(path, write_csv(["dataset", "arm", "chosen", "fold", "seed", *readers], rows))


def result_readers() -> dict[str, Callable[[Record], Value]]:
    """Return how each further column of ``results.csv`` is read from a record; what is missing is empty."""
    readers: dict[str, Callable[[Record], Value]] = {"epoch": dig("epoch", "chosen")}
    readers |= {f"pooled_{name}": dig(*TEST, "pooled", name) for name in (*COMPARED, "ece")}
    readers |= {f"per_image_{name}": dig(*TEST, "per_image", name) for name in (*COMPARED, "hd95_px", "num_images")}
    readers["hd95_misses"] = dig(*TEST, "hd95", "misses")
    readers["val_pooled_iou"] = dig("metrics", "val", "pooled", "iou")
    readers |= {f"train_{kind}_iou": dig("metrics", "train", kind, "iou") for kind in ("pooled", "per_image")}
    readers |= {f"{mode}_{name}": dig(*TEST, mode, name) for mode in MODES for name in ("iou", "changed_pixels")}
    readers |= {name: diagnostic(name) for name in DIAGNOSTICS}
    readers |= {
        f"{rows}_{name}": dig("measures", "attention", rows, name)
        for rows in ("plain", "smoothed")
        for name in ("total_variation", "autocorrelation")
    }
    readers |= {f"mask_{name}": dig("measures", "masks", name) for name in ("components", "perimeter2_area")}
    readers["retention"] = dig(*CORRUPTED, "retention")
    for epoch in ("last", "best_test"):
        readers |= {f"paper_{epoch}_{name}": dig("metrics", "paper", epoch, name) for name in FIGURES}
    return readers


def diagnostic(name: str) -> Callable[[Record], Value]:
    return lambda record: last_diagnostics(record).get(name)
