"""The paper's figures of one trained network, or of two side by side: what they show is prepared here, drawn in viz."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from smooth_attention.core.errors import OptionError
from smooth_attention.core.files import write_bytes
from smooth_attention.data.cache import resize_mask
from smooth_attention.data.sources import Pair
from smooth_attention.look.scene import Scene, Subject, open_scene
from smooth_attention.look.stages import trace_stages
from smooth_attention.metrics.iou import image_iou, show_iou
from smooth_attention.models.rows import Rule
from smooth_attention.runs.picks import image_figures
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
            are none or the same, or an ``output`` that is or lies in a file.
        DataError: where data or model is gone.
    """
    if blocking := [path for path in (output, *output.parents) if path.exists() and not path.is_dir()]:
        raise OptionError(f"figures can't be written to {output}: {blocking[0]} is no directory; name another place")
    scene = open_scene(runs, cache=cache, stem=stem, point=point, thresholds=thresholds)
    for name, make in figure_makers(scene).items():
        for kind, data in (turning_page if name in TURNING else print_figure)(make()).items():
            path = output / f"{name}.{kind}"
            write_bytes(path, data)
            yield path


def figure_makers(scene: Scene) -> dict[str, Callable[[], Figure | go.Figure]]:
    """Return what draws each figure that applies, by its file name."""
    makers: dict[str, Callable[[], Figure | go.Figure]] = {}
    for subject in scene.subjects:
        which = "network" if len(scene.subjects) == 1 else f"network-{subject.name.replace('/', '-')}"
        makers[which] = partial(draw_network, subject)
    makers["masks"] = lambda: draw_masks(scene)
    if scene.watching:
        makers |= {
            "attention": lambda: draw_attention(scene),
            "surface": lambda: surface_figure(*row_maps(scene), **row_place(scene)),
            "surface-turning": lambda: surface_chart(*row_maps(scene), **row_place(scene)),
            "scatter": lambda: scatter_figure(*spaced_maps(scene), **spaced_place(scene)),
            "scatter-turning": lambda: scatter_chart(*spaced_maps(scene), **spaced_place(scene)),
            "distribution": lambda: draw_distribution(scene),
            "thresholds": lambda: draw_thresholds(scene),
            "epochs": lambda: draw_epochs(scene),
            "matrix": lambda: draw_matrix(scene),
        }
    return makers


def draw_network(subject: Subject) -> Figure:
    config = subject.opened.config
    traced = trace_stages(subject.opened.net, config.image_size)
    title = f"{subject.name}: network {config.network}, arm {config.arm}"
    return network_figure(traced.stages, traced.links, title=title, input_shape=traced.input_shape)


def draw_attention(scene: Scene) -> Figure:
    rows = []
    for subject in scene.watching:
        look, head, position = subject.looks[scene.stem], subject.head(scene.stem), scene.position(subject)
        pair = head.rows([position])[0]
        rows.append(
            AttentionRow(
                subject.name,
                look.describe(),
                scene.pairs[scene.stem].image,
                look.box_of(head, position),
                pair.plain,
                pair.used,
                head.roughness,
                head.gate(),
                look.covered,
            )
        )
    return attention_figure(rows, title=scene.title("where one position looks"))


def row_maps(scene: Scene) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Return the row of the position before smoothing and as used, by name, and the image's shape."""
    maps = {}
    for subject in scene.watching:
        look, head = subject.looks[scene.stem], subject.head(scene.stem)
        pair = head.rows([scene.position(subject)])[0]
        maps[f"{subject.name}: before smoothing"] = pair.plain
        maps[f"{subject.name}: {look.describe()}"] = pair.used
    return maps, scene.watching[0].looks[scene.stem].shape


def row_place(scene: Scene) -> dict[str, Any]:
    return {"title": scene.title("attention of one position"), "covered": covered_twice(scene)}


def covered_twice(scene: Scene) -> list[float]:
    """Return what the image covers of each map's grid: every network has two maps."""
    return [subject.looks[scene.stem].covered for subject in scene.watching for _ in range(2)]


def spaced_maps(scene: Scene) -> tuple[dict[str, list[np.ndarray]], tuple[int, int]]:
    """Return rows of evenly spaced positions under the two thresholds, by name, and the image's shape."""
    maps = {}
    for subject in scene.watching:
        head = subject.head(scene.stem)
        for threshold in scene.thresholds:
            rows = head.rows(head.spaced(MAX_ROWS), Rule(threshold))
            maps[f"{subject.name}: threshold {threshold:g}"] = [row.used for row in rows]
    return maps, scene.watching[0].looks[scene.stem].shape


def spaced_place(scene: Scene) -> dict[str, Any]:
    head = scene.watching[0].head(scene.stem)
    what = f"attention of {len(head.spaced(MAX_ROWS))} positions: {scene.image_name}"
    title = f"{what},\nsame weights, not retrained; {scene.head_names}"
    return {"title": title, "covered": covered_twice(scene)}


def draw_masks(scene: Scene) -> Figure:
    rules = {
        (subject.name, what): (subject, rule)
        for subject in scene.subjects
        for what, rule in mask_rules(subject).items()
    }
    columns = {key: key[1] if len(scene.subjects) == 1 else ": ".join(key) for key in rules}
    class_names = scene.subjects[0].opened.source.class_names
    rows = []
    for stem, pair in sorted_pairs(scene):
        shape = shrink(pair.mask.shape, PRINT_PX)
        predictions, captions = {}, {}
        for key, (subject, rule) in rules.items():
            look = subject.looks[stem]
            predictions[columns[key]] = look.labels(rule, shape)
            labels = look.labels(rule)
            caption = show_iou(image_iou(labels, pair.mask, class_names))
            if rule is not None:
                caption += f"; {100 * (labels != look.labels()).mean():.3f} % of pixels differ"
            captions[columns[key]] = caption
        image = np.asarray(Image.fromarray(pair.image).resize(shape[::-1], Image.Resampling.BILINEAR))
        rows.append(PredictionRow(image, resize_mask(pair.mask, shape), predictions, captions, stem))
    names = scene.subjects[0].name if len(scene.subjects) == 1 else " and ".join(s.name for s in scene.subjects)
    title = f"{names}: test images from worst to best IoU (per image, protocol standard)"
    return prediction_grid(rows, columns=list(columns.values()), classes=class_names, title=title)


def sorted_pairs(scene: Scene) -> list[tuple[str, Pair]]:
    """Return the pairs by the IoU of the first run, undefined ones first."""
    figures = image_figures(scene.subjects[0].opened.record)
    return sorted(scene.pairs.items(), key=lambda item: -1.0 if (iou := figures[item[0]]) is None else iou)


def mask_rules(subject: Subject) -> dict[str, Rule | None]:
    """Return the rules whose masks are shown, by what they are called: as used, and before it without smoothing."""
    look = next(iter(subject.looks.values()))
    if not subject.has_attention:
        return {f"arm {subject.opened.config.arm}": None}
    smooths = any(head.module.threshold is not None or head.module.fraction is not None for head in look.heads)
    return {**({"gate off": OFF} if smooths else {}), look.describe(): None}


def draw_distribution(scene: Scene) -> Figure:
    """Draw the distribution of attention values of evenly spaced rows of the chosen images."""
    values: dict[str, list[np.ndarray]] = {}
    for subject in scene.watching:
        for stem, look in subject.looks.items():
            head = subject.head(stem)
            for row in head.rows(head.spaced(MAX_ROWS)):
                values.setdefault(f"{subject.name}: before smoothing", []).append(row.plain.ravel())
                values.setdefault(f"{subject.name}: {look.describe()}", []).append(row.used.ravel())
    places = np.geomspace(1e-6, 1, 121).tolist()
    styles = arm_styles(values)
    curves = []
    for name, rows in values.items():
        curves.append(Curve(name, styles[name], places, share_up_to(np.concatenate(rows), places)))
    return curve_figure(
        curves,
        title=f"attention values, {len(scene.pairs)} test images;\n{scene.head_names}",
        x_title=f"attention (rows of at most {MAX_ROWS} positions per image)",
        y_title="share of values at most that",
        x_scale="log",
    )


def draw_thresholds(scene: Scene) -> Figure:
    """Draw which share of the positions each threshold smooths."""
    places = np.linspace(0, 1, 101).tolist()
    styles = arm_styles(subject.name for subject in scene.watching)
    curves = []
    for subject in scene.watching:
        roughness = np.concatenate([subject.head(stem).roughness.ravel() for stem in subject.looks])
        smoothed_frac = [1 - share for share in share_up_to(roughness, places)]
        curves.append(Curve(subject.name, styles[subject.name], places, smoothed_frac))
    return curve_figure(
        curves,
        title=f"what a threshold smooths, {len(scene.pairs)} test images;\n{scene.head_names}",
        x_title="threshold (same weights, not retrained)",
        y_title="share of positions smoothed",
    )


def share_up_to(values: np.ndarray, places: Sequence[float]) -> list[float]:
    """Return the share of values that are at most each place."""
    shares: list[float] = (np.searchsorted(np.sort(values), places, side="right") / len(values)).tolist()
    return shares


def draw_epochs(scene: Scene) -> Figure:
    """Draw what training made of the block: its weight, its sink, how peaked its rows are."""
    shown = {
        "gamma": "gamma",
        "sink_share": "attention of the\nmost attended key",
        "max_probability": "largest probability\nof a row (median)",
    }
    styles = arm_styles(subject.name for subject in scene.watching)
    panels = []
    for name, y_title in shown.items():
        curves = []
        for subject in scene.watching:
            values = [np.nan if v is None else v for v in getattr(subject.opened.record.diagnostics, name)]
            curves.append(Curve(subject.name, styles[subject.name], range(1, len(values) + 1), values))
        levels = []
        if name != "gamma":
            grids = {subject.head(scene.stem).grid for subject in scene.watching}
            even = arm_styles([*styles, "even"])["even"]
            levels = [Level(f"even: 1 / {h * w}", even, 1 / (h * w)) for h, w in sorted(grids)]
        panels.append(Panel(y_title, curves, levels))
    return panel_figure(panels, title="validation images, mean over blocks and heads", x_title="epoch")


def draw_matrix(scene: Scene) -> Figure:
    """Draw the N x N matrix of the first network with attention; of a large one every k-th row and column."""
    subject = scene.watching[0]
    head = subject.head(scene.stem)
    num_positions = head.grid[0] * head.grid[1]
    step = -(-num_positions // MAX_MATRIX_SIDE)
    rows = head.rows(range(0, num_positions, step))
    matrix = np.stack([row.used.ravel()[::step] for row in rows])
    what = subject.looks[scene.stem].describe()
    return matrix_figure(
        matrix, head.grid, step=step, title=f"{subject.name}, {what}: test image {scene.stem}, {head.name}"
    )
