"""Tables on a terminal; every one says its convention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from smooth_attention.core.files import plain
from smooth_attention.core.names import FIGURE_TITLES
from smooth_attention.core.records import Record

FIGURES = tuple(FIGURE_TITLES)
TITLES = {**FIGURE_TITLES, "ece": "ECE", "hd95_px": "HD95 (px)"}


def show(value: Any, digits: int = 3) -> str:
    """Return a figure for a table; an undefined one is a dash."""
    value = plain(value)
    if value is None:
        return "–"
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


def console() -> Console:
    wide = Console()
    return wide if wide.is_terminal else Console(width=120)


def figure_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a figure table: pooled and per image, then each class where there are classes."""
    rows = [
        [name, *(show(metrics[key].get(figure)) for figure in FIGURES)]
        for name, key in (("pooled", "pooled"), ("per image", "per_image"))
    ]
    rows += [
        [f"  {name}", *(show(figures.get(figure)) for figure in FIGURES)]
        for name, figures in metrics["pooled"].get("classes", {}).items()
    ]
    return rows


def print_metrics(title: str, metrics: Mapping[str, Any]) -> None:
    header = ["", *(TITLES.get(figure, figure) for figure in FIGURES)]
    pooled, per_image = metrics["pooled"], metrics["per_image"]
    caption = (
        f"{per_image['num_images']} images at native size; pooled: counts added over images; "
        "per image: mean over images"
        + ("; top rows: mean over classes; class rows: pooled" if "classes" in pooled else "; foreground")
        + f". HD95 {show(per_image['hd95_px'], 1)} px, misses {metrics['hd95']['misses']}; ECE {show(pooled['ece'])}"
    )
    print_table(title, header, figure_rows(metrics), caption=caption)
    for mode, text in (("gate_off", "gate off"), ("bypass", "block bypassed")):
        if mode in metrics:
            changed = 100 * metrics[mode]["changed_pixels"]
            print_line(
                f"same weights, {text}: IoU {show(metrics[mode]['iou'])} pooled, {changed:.3f} % of pixels change"
            )


def print_paper(title: str, figures: Mapping[str, Any]) -> None:
    """Print the published figures with their ceiling."""
    rows = [
        (f"best epoch on test ({figures['best_test']['epoch'] + 1})", figures["best_test"]),
        (f"last epoch ({figures['last']['epoch'] + 1})", figures["last"]),
        ("ceiling: a perfect predictor", figures["ceiling"]),
    ]
    names = FIGURES[:6]
    header = ["", *(TITLES.get(name, name) for name in names)]
    table = [[label, *(show(row[name]) for name in names)] for label, row in rows]
    caption = (
        f"{figures['convention']}; the best epoch was chosen on the test images; the paper's figures: not available"
    )
    print_table(f"{title}, protocol paper", header, table, caption=caption)


def print_run(record: Record, output: Path) -> None:
    """Print the figures of a finished run."""
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
