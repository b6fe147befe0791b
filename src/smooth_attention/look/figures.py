"""The paper's figures of one trained network, or of two side by side: what they show is prepared here, drawn in viz."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from smooth_attention.core.files import write_bytes
from smooth_attention.core.outputs import check_output_directory
from smooth_attention.data.cache import resize_mask
from smooth_attention.data.sources import Pair
from smooth_attention.look.figure_input import FigureInput, RunLooks, open_figure_input
from smooth_attention.look.stages import trace_stages
from smooth_attention.metrics.iou import image_iou, show_iou
from smooth_attention.models.rows import Rule
from smooth_attention.runs.picks import iou_by_stem
from smooth_attention.runs.pictures import shrink
from smooth_attention.viz.curves import Curve, Level, Panel, curve_figure, panel_figure, print_figure
from smooth_attention.viz.heatmaps import AttentionRow, attention_figure, matrix_figure
from smooth_attention.viz.network import network_figure
from smooth_attention.viz.overlays import PredictionRow, prediction_grid
from smooth_attention.viz.study_charts import arm_styles
from smooth_attention.viz.surfaces import scatter_chart, scatter_figure, surface_chart, surface_figure, turning_page

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

__all__ = ["TURNING", "figure_makers", "write_figures"]

TURNING = ("surface-turning", "scatter-turning")
MAX_ROWS = 64  # positions of an image whose rows make a distribution or a scatter
MAX_MATRIX_SIDE = 256
PRINT_PX = 800  # longer side of a picture of some two inches
OFF = Rule()


def write_figures(
    runs: Sequence[Path],
    output: Path,
    *,
    cache: Path,
    stem: str | None = None,
    point: tuple[float, float] | None = None,
    thresholds: tuple[float, float] = (0.1, 0.9),
) -> Iterator[Path]:
    """Write every figure that applies as PNG (300 dpi) and SVG, and those that turn as HTML; give each path in turn.

    Args:
        runs: one finished run, or two trained on the same data.
        output: directory, made where it is missing.
        cache: where decoded images live.
        stem: the image whose attention is shown, a test image of every run; None: of five spread from the worst to the
            best IoU the one in which the first run smooths most, where all tie the roughest.
        point: (x, y) in pixels of that image; None: where the first run's attention is roughest.
        thresholds: two that the scatter compares with the same weights.

    Raises:
        ConfigError: where there is no finished run, or two do not share data and test images.
        OptionError: on other than one or two runs, an image that is no test image, a point outside it, thresholds that
            are none or the same, or an ``output`` that can't be written.
        DataError: where data or model is gone.
    """
    check_output_directory(output)
    given = open_figure_input(runs, cache=cache, stem=stem, point=point, thresholds=thresholds)
    for name, make in figure_makers(given).items():
        for kind, data in (turning_page if name in TURNING else print_figure)(make()).items():
            path = output / f"{name}.{kind}"
            write_bytes(path, data)
            yield path


def figure_makers(given: FigureInput) -> dict[str, Callable[[], Figure | go.Figure]]:
    """Return what draws each figure that applies, by its file name."""
    makers: dict[str, Callable[[], Figure | go.Figure]] = {}
    for run in given.runs:
        which = "network" if len(given.runs) == 1 else f"network-{run.name.replace('/', '-')}"
        makers[which] = partial(draw_network, run)
    makers["masks"] = lambda: draw_masks(given)
    if given.watching:
        makers |= {
            "attention": lambda: draw_attention(given),
            "surface": lambda: surface_figure(*row_maps(given), **row_place(given)),
            "surface-turning": lambda: surface_chart(*row_maps(given), **row_place(given)),
            "scatter": lambda: scatter_figure(*spaced_maps(given), **spaced_place(given)),
            "scatter-turning": lambda: scatter_chart(*spaced_maps(given), **spaced_place(given)),
            "distribution": lambda: draw_distribution(given),
            "thresholds": lambda: draw_thresholds(given),
            "epochs": lambda: draw_epochs(given),
            "matrix": lambda: draw_matrix(given),
        }
    return makers


def draw_network(run: RunLooks) -> Figure:
    config = run.opened.config
    traced = trace_stages(run.opened.net, config.image_size)
    title = f"{run.name}: network {config.network}, arm {config.arm}"
    return network_figure(traced.stages, traced.links, title=title, input_shape=traced.input_shape)


def draw_attention(given: FigureInput) -> Figure:
    rows = []
    for run in given.watching:
        look, head, position = run.looks[given.stem], run.head(given.stem), given.position(run)
        pair = head.rows([position])[0]
        rows.append(
            AttentionRow(
                run.name,
                look.describe(),
                given.pairs[given.stem].image,
                look.box_of(head, position),
                pair.plain,
                pair.used,
                head.roughness,
                head.gate(),
                look.covered,
            )
        )
    return attention_figure(rows, title=given.title("where one position looks"))


def row_maps(given: FigureInput) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Return the row of the position before smoothing and as used, by name, and the image's shape."""
    maps = {}
    for run in given.watching:
        look, head = run.looks[given.stem], run.head(given.stem)
        pair = head.rows([given.position(run)])[0]
        maps[f"{run.name}: before smoothing"] = pair.plain
        maps[f"{run.name}: {look.describe()}"] = pair.used
    return maps, given.watching[0].looks[given.stem].shape


def row_place(given: FigureInput) -> dict[str, Any]:
    return {"title": given.title("attention of one position"), "covered": covered_twice(given)}


def covered_twice(given: FigureInput) -> list[float]:
    """Return what the image covers of each map's grid: every network has two maps."""
    return [run.looks[given.stem].covered for run in given.watching for _ in range(2)]


def spaced_maps(given: FigureInput) -> tuple[dict[str, list[np.ndarray]], tuple[int, int]]:
    """Return rows of evenly spaced positions under the two thresholds, by name, and the image's shape."""
    maps = {}
    for run in given.watching:
        head = run.head(given.stem)
        for threshold in given.thresholds:
            rows = head.rows(head.spaced(MAX_ROWS), Rule(threshold))
            maps[f"{run.name}: threshold {threshold:g}"] = [row.used for row in rows]
    return maps, given.watching[0].looks[given.stem].shape


def spaced_place(given: FigureInput) -> dict[str, Any]:
    head = given.watching[0].head(given.stem)
    what = f"attention of {len(head.spaced(MAX_ROWS))} positions: {given.image_name}"
    title = f"{what},\nsame weights, not retrained; {given.head_names}"
    return {"title": title, "covered": covered_twice(given)}


def draw_masks(given: FigureInput) -> Figure:
    rules = {(run.name, what): (run, rule) for run in given.runs for what, rule in mask_rules(run).items()}
    columns = {key: key[1] if len(given.runs) == 1 else ": ".join(key) for key in rules}
    class_names = given.runs[0].opened.source.class_names
    rows = []
    for stem, pair in sorted_pairs(given):
        shape = shrink(pair.mask.shape, PRINT_PX)
        predictions, captions = {}, {}
        for key, (run, rule) in rules.items():
            look = run.looks[stem]
            predictions[columns[key]] = look.labels(rule, shape)
            labels = look.labels(rule)
            caption = show_iou(image_iou(labels, pair.mask, class_names))
            if rule is not None:
                caption += f"; {100 * (labels != look.labels()).mean():.3f} % of pixels differ"
            captions[columns[key]] = caption
        image = np.asarray(Image.fromarray(pair.image).resize(shape[::-1], Image.Resampling.BILINEAR))
        rows.append(PredictionRow(image, resize_mask(pair.mask, shape), predictions, captions, stem))
    names = given.runs[0].name if len(given.runs) == 1 else " and ".join(s.name for s in given.runs)
    title = f"{names}: test images from worst to best IoU (per image, protocol standard)"
    return prediction_grid(rows, columns=list(columns.values()), classes=class_names, title=title)


def sorted_pairs(given: FigureInput) -> list[tuple[str, Pair]]:
    """Return the pairs by the IoU of the first run, undefined ones first."""
    ious = iou_by_stem(given.runs[0].opened.record)
    return sorted(given.pairs.items(), key=lambda item: -1.0 if (iou := ious[item[0]]) is None else iou)


def mask_rules(run: RunLooks) -> dict[str, Rule | None]:
    """Return the rules whose masks are shown, by what they are called: as used, and before it without smoothing."""
    look = next(iter(run.looks.values()))
    if not run.has_attention:
        return {f"arm {run.opened.config.arm}": None}
    smooths = any(head.module.threshold is not None or head.module.fraction is not None for head in look.heads)
    return {**({"gate off": OFF} if smooths else {}), look.describe(): None}


def draw_distribution(given: FigureInput) -> Figure:
    """Draw the distribution of attention values of evenly spaced rows of the chosen images."""
    values: dict[str, list[np.ndarray]] = {}
    for run in given.watching:
        for stem, look in run.looks.items():
            head = run.head(stem)
            for row in head.rows(head.spaced(MAX_ROWS)):
                values.setdefault(f"{run.name}: before smoothing", []).append(row.plain.ravel())
                values.setdefault(f"{run.name}: {look.describe()}", []).append(row.used.ravel())
    places = np.geomspace(1e-6, 1, 121).tolist()
    styles = arm_styles(values)
    curves = []
    for name, rows in values.items():
        curves.append(Curve(name, styles[name], places, share_up_to(np.concatenate(rows), places)))
    return curve_figure(
        curves,
        title=f"attention values, {len(given.pairs)} test images;\n{given.head_names}",
        x_title=f"attention (rows of at most {MAX_ROWS} positions per image)",
        y_title="share of values at most that",
        x_scale="log",
    )


def draw_thresholds(given: FigureInput) -> Figure:
    """Draw which share of the positions each threshold smooths."""
    places = np.linspace(0, 1, 101).tolist()
    styles = arm_styles(run.name for run in given.watching)
    curves = []
    for run in given.watching:
        roughness = np.concatenate([run.head(stem).roughness.ravel() for stem in run.looks])
        smoothed_frac = [1 - share for share in share_up_to(roughness, places)]
        curves.append(Curve(run.name, styles[run.name], places, smoothed_frac))
    return curve_figure(
        curves,
        title=f"what a threshold smooths, {len(given.pairs)} test images;\n{given.head_names}",
        x_title="threshold (same weights, not retrained)",
        y_title="share of positions smoothed",
    )


def share_up_to(values: np.ndarray, places: Sequence[float]) -> list[float]:
    """Return the share of values that are at most each place."""
    shares: list[float] = (np.searchsorted(np.sort(values), places, side="right") / len(values)).tolist()
    return shares


def draw_epochs(given: FigureInput) -> Figure:
    """Draw what training made of the block: its weight, its sink, how peaked its rows are."""
    shown = {
        "gamma": "gamma",
        "sink_share": "attention of the\nmost attended key",
        "max_probability": "largest probability\nof a row (median)",
    }
    styles = arm_styles(run.name for run in given.watching)
    panels = []
    for name, y_title in shown.items():
        curves = []
        for run in given.watching:
            values = [np.nan if v is None else v for v in getattr(run.opened.record.diagnostics, name)]
            curves.append(Curve(run.name, styles[run.name], range(1, len(values) + 1), values))
        levels = []
        if name != "gamma":
            grids = {run.head(given.stem).grid for run in given.watching}
            even = arm_styles([*styles, "even"])["even"]
            levels = [Level(f"even: 1 / {h * w}", even, 1 / (h * w)) for h, w in sorted(grids)]
        panels.append(Panel(y_title, curves, levels))
    return panel_figure(panels, title="validation images, mean over blocks and heads", x_title="epoch")


def draw_matrix(given: FigureInput) -> Figure:
    """Draw the N x N matrix of the first network with attention; of a large one every k-th row and column."""
    run = given.watching[0]
    head = run.head(given.stem)
    num_positions = head.grid[0] * head.grid[1]
    step = -(-num_positions // MAX_MATRIX_SIDE)
    rows = head.rows(range(0, num_positions, step))
    matrix = np.stack([row.used.ravel()[::step] for row in rows])
    what = run.looks[given.stem].describe()
    return matrix_figure(
        matrix, head.grid, step=step, title=f"{run.name}, {what}: test image {given.stem}, {head.name}"
    )
