"""Tables on a terminal; every one says its convention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.progress import track as follow
from rich.table import Table

from smooth_attention.core.files import plain
from smooth_attention.core.records import METRIC_TITLES, PaperProtocol, PartMetrics, Record
from smooth_attention.metrics import PUBLISHED

__all__ = ["console", "print_line", "print_metrics", "print_run", "print_table", "show", "track"]


Item = TypeVar("Item")


def show(value: Any, digits: int = 3) -> str:
    """Return a number for a table; an undefined one is a dash."""
    value = plain(value)
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> None:
    table = Table(title=title, caption=caption, box=box.SIMPLE, title_justify="left", caption_justify="left")
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def print_line(text: str) -> None:
    console().print(text, markup=False, highlight=False, soft_wrap=True)


def track(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """Give the items with a bar of progress on a terminal."""
    shown = console()
    yield from follow(items, what, total=total, console=shown, transient=True, disable=not shown.is_terminal)


def console() -> Console:
    wide = Console()
    return wide if wide.is_terminal else Console(width=120)


def metric_rows(metrics: PartMetrics) -> list[list[str]]:
    """Return the rows of a table of metrics: pooled and per image, then each class where there are classes."""
    named = {"pooled": metrics.pooled, "per image": metrics.per_image}
    named |= {f"  {name}": found for name, found in (metrics.pooled.classes or {}).items()}
    return [[name, *(show(getattr(found, metric)) for metric in METRIC_TITLES)] for name, found in named.items()]


def print_metrics(title: str, metrics: PartMetrics) -> None:
    pooled, per_image = metrics.pooled, metrics.per_image
    caption = (
        f"{per_image.num_images} images at native size; pooled: counts added over images; per image: mean over images"
        + ("; foreground" if pooled.classes is None else "; top rows: mean over classes; class rows: pooled")
        + f". HD95 {show(per_image.hd95_px, 1)} px, misses {metrics.hd95.misses}; ECE {show(pooled.ece)}"
    )
    print_table(title, ["", *METRIC_TITLES.values()], metric_rows(metrics), caption=caption)
    for switched, text in ((metrics.gate_off, "gate off"), (metrics.bypass, "block bypassed")):
        if switched is not None:
            changed = 100 * switched.changed_pixels
            print_line(f"same weights, {text}: IoU {show(switched.iou)} pooled, {changed:.3f} % of pixels change")


def print_paper(title: str, paper: PaperProtocol) -> None:
    """Print the published metrics with their ceiling."""
    rows = {
        f"best epoch on test ({(paper.best_test.epoch or 0) + 1})": paper.best_test,
        f"last epoch ({(paper.last.epoch or 0) + 1})": paper.last,
        "ceiling: a perfect predictor": paper.ceiling,
    }
    header = ["", *(METRIC_TITLES[name] for name in PUBLISHED)]
    table = [[label, *(show(getattr(found, name)) for name in PUBLISHED)] for label, found in rows.items()]
    caption = f"{paper.convention}; the best epoch was chosen on the test images; the paper's own: not available"
    print_table(f"{title}, protocol paper", header, table, caption=caption)


def print_run(record: Record, output: Path) -> None:
    """Print the metrics of a finished run."""
    config, test = record.config, record.metrics.test
    rule = next((f" {name} {config[name]:g}" for name in ("threshold", "fraction") if config[name] is not None), "")
    what = f"{record.data.name}, {config['network']}, arm {config['arm']}{rule}"
    if record.metrics.paper is not None:
        print_paper(what, record.metrics.paper)
    print_metrics(f"{what}, protocol standard, {record.epoch.chosen_by}, one seed", test)
    if record.diagnostics is not None and (gamma := record.diagnostics.gamma):
        chosen = record.epoch.chosen
        print_line(f"gamma {gamma[chosen]:.4f} in the chosen epoch ({chosen + 1})")
    for warning in record.data.warnings:
        print_line(f"warning: {warning}")
    print_line(f"run: {output} (record.json, model/, predictions/)")
