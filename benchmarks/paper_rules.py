"""How far each rule of protocol ``paper`` moves a figure, on generated masks: the tables and picture of the docs page.

``python benchmarks/paper_rules.py`` prints the tables in Markdown; ``--update`` also writes them and the picture into
``docs/``. Nothing is drawn by chance, so the output is the same every time. It takes some ten seconds.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy import ndimage

from smooth_attention.data.shapes import KINDS, draw_scene
from smooth_attention.metrics import PUBLISHED, PaperMetrics, paper_batch_metrics, paper_ceiling, score_counts

DOCS = Path(__file__).parents[1] / "docs"
NUM_SCENES = 36  # 9 of each kind: four batches of 8 and one of 4, so that the last batch weighs too much
NATIVE_PX, IMAGE_PX = 448, 224
Figures = dict[str, float]


@cache
def draw_truths() -> np.ndarray:
    """The exact masks at native size, bool (N, 448, 448), kinds in turn."""
    return np.stack([draw_scene(index, size=NATIVE_PX).mask > 0 for index in range(NUM_SCENES)])


def soften(grey: np.ndarray) -> np.ndarray:
    """An 8-bit mask as the published scripts see it: antialiased bilinear resize, divided by 255."""
    small = Image.fromarray(grey).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32) / 255


@cache
def soft_targets() -> np.ndarray:
    return np.stack([soften(np.where(truth, 255, 0).astype(np.uint8)) for truth in draw_truths()])


def move(mask: np.ndarray, down_px: int, right_px: int) -> np.ndarray:
    """The mask moved, background coming in from the border."""
    margin = max(abs(down_px), abs(right_px))
    (height, width), padded = mask.shape, np.pad(mask, margin)
    return padded[margin - down_px :, margin - right_px :][:height, :width]


def predict_imperfectly(target: np.ndarray) -> np.ndarray:
    """A truth that lost its details under 9 px and lies 3 px to the right: the kind of error a coarse decoder makes."""
    return move(ndimage.binary_opening(target > 0.5, np.ones((9, 9))), 0, 3)


def grow(target: np.ndarray, by_px: int) -> np.ndarray:
    """The hard truth with ``by_px`` more pixels all around, fewer where negative."""
    side = 2 * abs(by_px) + 1
    return (ndimage.maximum_filter if by_px > 0 else ndimage.minimum_filter)(target > 0.5, size=side)


def score_pooled(prediction: np.ndarray, truth: np.ndarray) -> Figures:
    tp, fp, fn = ((a & b).sum() for a, b in ((prediction, truth), (prediction, ~truth), (~prediction, truth)))
    counts = np.array([tp, fp, fn, truth.size - tp - fp - fn])
    scores = score_counts(counts)
    return {name: float(scores[name]) for name in PUBLISHED}


def score_overlap(prediction: np.ndarray, target: np.ndarray, *, axes: tuple[int, ...]) -> Figures:
    """IoU and Dice by the published truths, summed over the given axes and averaged over the others."""
    touched = target > 0
    overlap = (prediction & touched).sum(axis=axes)
    union = (prediction | touched).sum(axis=axes)
    mass = prediction.sum(axis=axes) + target.sum(axis=axes, dtype=np.float64)
    return {
        "iou": float(((overlap + 1e-6) / (union + 1e-6)).mean()),
        "dice": float(((2 * overlap + 1e-6) / (mass + 1e-6)).mean()),
    }


def score_paper(predictions: np.ndarray, targets: np.ndarray) -> Figures:
    metrics = PaperMetrics()
    metrics.update(predictions, targets)
    return metrics.compute()


def follow_rules() -> dict[str, Figures]:
    """From the pooled figures of ``standard`` to those of ``paper``, one rule at a time, on the same predictions."""
    truths, targets = draw_truths(), soft_targets()
    predictions = np.stack([predict_imperfectly(target) for target in targets])
    scale = NATIVE_PX // IMAGE_PX
    rules = {
        "`standard`: pooled, at native size": score_pooled(
            predictions.repeat(scale, axis=1).repeat(scale, axis=2), truths
        )
    }
    # (i + 0.5) * scale is where nearest neighbour looks.
    figures = score_pooled(predictions, truths[:, scale // 2 :: scale, scale // 2 :: scale])
    rules["at 224 px, mask by nearest neighbour"] = figures
    pooled = score_overlap(predictions, targets, axes=(0, 1, 2))
    rules["IoU: positive where target > 0"] = figures = figures | {"iou": pooled["iou"]}
    rules["Dice: overlap by target > 0, sum by soft target"] = figures = figures | {"dice": pooled["dice"]}
    full = score_pooled(predictions, targets == 1)
    figures = figures | {name: full[name] for name in ("accuracy", "precision", "recall", "f1")}
    rules["the other four: positive where target = 1"] = figures
    rules["IoU, Dice: mean over images"] = figures | score_overlap(predictions, targets, axes=(1, 2))
    rules["IoU, Dice: mean over columns"] = figures | score_overlap(predictions, targets, axes=(1,))
    rules["all: mean over batches of 8; this is `paper`"] = score_paper(predictions, targets)
    by_kind = np.concatenate([np.arange(kind, NUM_SCENES, len(KINDS)) for kind in range(len(KINDS))])
    rules["`paper`, the same images sorted by kind"] = score_paper(predictions[by_kind], targets[by_kind])
    return rules


def compare_predictions() -> dict[str, Figures]:
    """``standard`` beside ``paper`` for predictions whose quality is known."""
    truths, targets = draw_truths(), soft_targets()
    scale = NATIVE_PX // IMAGE_PX
    predictions = {
        "perfect: target > 0.5": targets > 0.5,
        "every touched pixel: target > 0": targets > 0,
        "2 px too large": np.stack([grow(target, 2) for target in targets]),
        "2 px too small": np.stack([grow(target, -2) for target in targets]),
        "details lost, 3 px to the right": np.stack([predict_imperfectly(target) for target in targets]),
        "foreground everywhere": np.ones(targets.shape, dtype=bool),
        "empty": np.zeros(targets.shape, dtype=bool),
    }
    rows = {}
    for name, prediction in predictions.items():
        standard = score_pooled(prediction.repeat(scale, axis=1).repeat(scale, axis=2), truths)
        paper = score_paper(prediction, targets)
        rows[name] = {
            f"{figure} `{protocol}`": figures[figure.lower()]
            for figure in ("IoU", "Dice", "Precision")
            for protocol, figures in (("standard", standard), ("paper", paper))
        }
    return rows


def ceilings_by_kind() -> dict[str, Figures]:
    """Of the scenes, and of a thing that grows thin."""
    targets = soft_targets()
    rows = {kind: paper_ceiling(targets[index :: len(KINDS)]) for index, kind in enumerate(KINDS)}
    bars = {f"a slanted bar, {width} px wide": paper_ceiling([soften(draw_bar(width))]) for width in (16, 8, 4)}
    return rows | {"all": paper_ceiling(targets)} | bars


def draw_bar(width_px: int) -> np.ndarray:
    """A bar at 20 degrees to the upright across the native image, 8 bit."""
    rows, columns = np.mgrid[:NATIVE_PX, :NATIVE_PX] - NATIVE_PX / 2
    across = columns * np.cos(np.pi / 9) + rows * np.sin(np.pi / 9)
    return np.where(abs(across) < width_px / 2, 255, 0).astype(np.uint8)


def encode_jpeg(truth: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.where(truth, 255, 0).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return np.asarray(Image.open(buffer))


def encode_votes(truth: np.ndarray) -> np.ndarray:
    """Five labelers of whom four are 3 px off, each in another direction; 51 grey levels a vote."""
    votes = [move(truth, *offset).astype(np.uint8) for offset in ((0, 0), (3, 0), (-3, 0), (0, 3), (0, -3))]
    return (51 * np.sum(votes, axis=0)).astype(np.uint8)


def ceilings_by_encoding() -> dict[str, Figures]:
    truths = draw_truths()
    return {
        "PNG, 0 and 255": paper_ceiling(soft_targets()),
        "JPEG, quality 90 (as fire)": paper_ceiling(soften(encode_jpeg(truth)) for truth in truths),
        "votes of 5 labelers (as birds)": paper_ceiling(soften(encode_votes(truth)) for truth in truths),
        "PNG, 0 and 1": paper_ceiling(soften(truth.astype(np.uint8)) for truth in truths),
    }


def work_examples() -> dict[str, Figures]:
    """Empty predictions of one thing each, by columns and pooled; and the pixel whose Dice exceeds 1."""
    rows, columns = np.mgrid[:IMAGE_PX, :IMAGE_PX] - IMAGE_PX // 2
    upright = (np.maximum(rows, -rows - 1) < 60) & (np.maximum(columns, -columns - 1) < 10)
    things = {
        "disc of radius 20 px, nothing predicted": np.hypot(rows, columns) <= 20,
        "bar of 20 x 120 px, upright, nothing predicted": upright,
        "the same bar lying, nothing predicted": upright.T,
    }
    table = {name: (np.zeros_like(thing), thing.astype(np.float64)) for name, thing in things.items()}
    table["one pixel, predicted, target 0.2"] = np.ones((1, 1), dtype=bool), np.full((1, 1), 0.2)
    return {
        name: {
            f"{label} {place}": figures[label.lower()]
            for label in ("IoU", "Dice")
            for place, figures in (
                ("by columns", paper_batch_metrics(prediction[None], target[None])),
                ("of the image", score_overlap(prediction, target, axes=(0, 1))),
            )
        }
        for name, (prediction, target) in table.items()
    }


def to_markdown(corner: str, rows: dict[str, Figures], *, with_bold: bool = False) -> str:
    """A table with three decimals; with bold, the figures that differ from the row above."""
    names = [name for name in next(iter(rows.values())) if name != "num_batches"]
    labels = {"iou": "IoU", "f1": "F1"} | {name: name.capitalize() for name in PUBLISHED if name not in ("iou", "f1")}
    lines = [f"| {corner} | {' | '.join(labels.get(name, name) for name in names)} |", f"|---|{'---|' * len(names)}"]
    above: list[str] | None = None
    for title, figures in rows.items():
        cells = [f"{figures[name]:.3f}" for name in names]
        marked = [
            f"**{cell}**" if with_bold and above is not None and cell != above[place] else cell
            for place, cell in enumerate(cells)
        ]
        lines.append(f"| {title} | {' | '.join(marked)} |")
        above = cells
    return "\n".join(lines)


def make_tables() -> dict[str, str]:
    """Every table of the docs page, by the name of its marker there."""
    return {
        "examples": to_markdown("target and prediction", work_examples()),
        "rules": to_markdown("rule added", follow_rules(), with_bold=True),
        "predictions": to_markdown("prediction", compare_predictions()),
        "ceilings": to_markdown("kind of scene", ceilings_by_kind()),
        "encodings": to_markdown("mask on disk", ceilings_by_encoding()),
    }


def update_page(page: str, tables: Iterable[tuple[str, str]]) -> str:
    """The page with each table put between its markers."""
    for name, table in tables:
        begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        page, count = re.subn(f"{begin}.*?{end}", lambda _, t=f"{begin}\n{table}\n{end}": t, page, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"expected one pair of markers {begin} ... {end} in the page, found {count}")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="write tables and picture into docs/")
    options = parser.parse_args()
    tables = make_tables()
    print("\n\n".join(tables.values()))
    if options.update:
        page = DOCS / "paper.md"
        page.write_text(update_page(page.read_text(encoding="utf-8"), tables.items()), encoding="utf-8")
        draw_figure().savefig(DOCS / "images" / "paper-metrics.png", dpi=130, metadata={"Software": None})


# Colours of Okabe and Ito, which colour-blind readers tell apart.
TRUTH_COLOURS = ("#ffffff", "#f0e442", "#e69f00", "#0072b2")
ERROR_COLOURS = ("#ffffff", "#0072b2", "#d55e00", "#cc79a7")


def draw_figure() -> Figure:
    """Left: the truths read from one soft mask. Right: a prediction of a tool and what each of its columns scores."""
    figure = Figure(figsize=(10.4, 4.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.05))
    target = soft_targets()[13]  # a tool
    draw_truth_levels(left.subplots(), target)
    upper, lower = right.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    draw_columns(upper, lower, predict_imperfectly(target), target)
    return figure


def draw_truth_levels(axes: Axes, target: np.ndarray) -> None:
    rows, columns = np.nonzero((target > 0) & (target < 1))
    middle = len(rows) // 2
    top, start = (max(0, min(IMAGE_PX - 32, int(place[middle]) - 16)) for place in (rows, columns))
    levels = (target > 0).astype(int) + (target > 0.5) + (target == 1)
    axes.imshow(
        levels[top : top + 32, start : start + 32],
        cmap=ListedColormap(TRUTH_COLOURS),
        vmin=0,
        vmax=3,
        extent=(start, start + 32, top + 32, top),
    )
    labels = (
        "0: background everywhere",
        "0 to 0.5: positive for IoU and Dice's overlap only",
        "0.5 to 1: predicted by a perfect network, false alarm in precision",
        "1: positive everywhere",
    )
    handles = [
        Patch(facecolor=colour, edgecolor="#888888", label=label)
        for colour, label in zip(TRUTH_COLOURS, labels, strict=True)
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False, fontsize=8)
    axes.set_title("The truths in one soft target (32 x 32 px of a tool)", fontsize=10)


def draw_columns(upper: Axes, lower: Axes, prediction: np.ndarray, target: np.ndarray) -> None:
    touched = target > 0
    errors = np.where(touched, np.where(prediction, 1, 3), np.where(prediction, 2, 0))
    upper.imshow(errors, cmap=ListedColormap(ERROR_COLOURS), vmin=0, vmax=3, aspect="auto")
    handles = [
        Patch(color=colour, label=label)
        for colour, label in zip(ERROR_COLOURS[1:], ("found", "false alarm", "missed"), strict=True)
    ]
    upper.legend(handles=handles, fontsize=8, loc="upper left")
    of_image = score_overlap(prediction, target, axes=(0, 1))["iou"]
    by_columns = score_overlap(prediction, target, axes=(0,))["iou"]
    upper.set_title(f"IoU of the image {of_image:.3f}, mean over its columns {by_columns:.3f}", fontsize=10)
    scores = [score_overlap(prediction[:, [x]], target[:, [x]], axes=(0, 1))["iou"] for x in range(IMAGE_PX)]
    lower.fill_between(np.arange(IMAGE_PX), scores, step="mid", color="#999999")
    upper.set_ylabel("row (px)")
    lower.set(xlabel="column (px)", ylabel="IoU of the column", ylim=(0, 1.05), xlim=(-0.5, IMAGE_PX - 0.5))


if __name__ == "__main__":
    main()
