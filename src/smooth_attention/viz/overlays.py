"""Masks and predictions laid over their images, and sheets of them: numpy in, matplotlib figure out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy import ndimage

from smooth_attention.core.errors import DataError, OptionError, ShapeError
from smooth_attention.viz.colours import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    IGNORED,
    IGNORED_COLOUR,
    TRUE_POSITIVE,
    palette,
)

__all__ = [
    "Picture",
    "PredictionRow",
    "Sample",
    "error_overlay",
    "mask_overlay",
    "overlay_key",
    "prediction_grid",
    "sample_grid",
]

Picture = NDArray[np.uint8]  # (H, W, 3)
Labels = NDArray[np.integer] | NDArray[np.bool_]  # (H, W)

STRIPE_COLOUR = (120, 120, 120)
CELL_INCHES = 2.1
ERRORS = {
    "found (true positive)": TRUE_POSITIVE,
    "false alarm (false positive)": FALSE_POSITIVE,
    "missed (false negative)": FALSE_NEGATIVE,
}


@dataclass(frozen=True, eq=False)
class PredictionRow:
    """One image with what several networks made of it.

    Attributes:
        image: uint8 RGB of shape (H, W, 3).
        truth: label map of shape (H, W), 255 for ignored pixels; None where nothing is known.
        predictions: label maps of shape (H, W) by the name of the column.
        captions: a line under each prediction by the name of the column, e.g. ``"IoU 0.71"``.
        name: shown beside the row, e.g. the stem.
    """

    image: Picture
    truth: Labels | None
    predictions: Mapping[str, Labels]
    captions: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with its label map (None: it has none) and its stem, for :func:`sample_grid`."""

    stem: str
    image: Picture
    mask: Labels | None


def mask_overlay(image: Picture, mask: Labels, *, alpha: float = 0.5, num_classes: int = 1) -> Picture:
    """Return the image with its mask laid over it.

    Args:
        image: uint8 RGB of shape (H, W, 3); not changed.
        mask: label map of shape (H, W). 255 is ignored and drawn in grey stripes.
        alpha: opacity of the mask, 0 to 1; the outlines are opaque.
        num_classes: 1 for a binary mask: pixels above 0 are coloured, the background is left as it is. Otherwise every
            class has its colour of :func:`palette`.

    Returns:
        uint8 RGB of shape (H, W, 3).

    Raises:
        ShapeError: an image and a mask that do not fit.
        DataError: a label that is no class.
        OptionError: `alpha` outside 0 to 1, or a number of classes outside 1 to 255.

    Example:
        >>> image, mask = np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=np.uint8)
        >>> mask_overlay(image, mask).any(axis=-1).astype(int).tolist()
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    """
    labels = check_labels(image, mask, "mask", num_classes)
    table = palette(num_classes)
    if num_classes == 1:
        table[1] = TRUE_POSITIVE
    covered = labels != IGNORED if num_classes > 1 else labels == 1
    return striped(laid_over(image, table[labels], labels, covered, alpha), labels == IGNORED)


def error_overlay(
    image: Picture, truth: Labels, prediction: Labels, *, alpha: float = 0.5, num_classes: int = 1
) -> Picture:
    """Return the image with a prediction judged.

    A binary one: found blue, false alarms magenta, missed yellow. Of several classes wrong pixels alone are coloured,
    by the class that was predicted.

    Args:
        image: uint8 RGB of shape (H, W, 3); not changed.
        truth: label map of shape (H, W); pixels of 255 are ignored and drawn in grey stripes.
        prediction: label map of shape (H, W).
        alpha: opacity of the colours, 0 to 1; the outlines are opaque.
        num_classes: 1 for binary label maps.

    Returns:
        uint8 RGB of shape (H, W, 3).

    Raises:
        ShapeError, DataError, OptionError: as :func:`mask_overlay`.
    """
    true, predicted = (
        check_labels(image, labels, name, num_classes)
        for labels, name in ((truth, "truth"), (prediction, "prediction"))
    )
    ignored = (true == IGNORED) | (predicted == IGNORED)
    if num_classes == 1:
        # 0: rightly left alone, 1: missed, 2: false alarm, 3: found
        verdict = np.where(ignored, 0, (true == 1) + 2 * (predicted == 1))
        table, covered = np.array([(0, 0, 0), FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE], np.uint8), verdict > 0
    else:
        table, covered = palette(num_classes), ~ignored & (true != predicted)
        verdict = np.where(covered, predicted, IGNORED)
    return striped(laid_over(image, table[verdict], verdict, covered, alpha), ignored)


def prediction_grid(
    rows: Sequence[PredictionRow],
    *,
    columns: Sequence[str],
    classes: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a sheet: a row per image, with the image, the truth and the prediction of each column.

    Args:
        rows: what to draw. A prediction that a row lacks leaves its cell empty.
        columns: names of the predictions, in order.
        classes: class names; None for a binary task. Predictions are drawn by :func:`error_overlay` where the truth is
            known, by :func:`mask_overlay` elsewhere.
        title: above the sheet, or None.

    Returns:
        A figure of its own; nothing global is touched. ``figure.savefig(path)`` writes it.

    Raises:
        OptionError: no rows or no columns.
        ShapeError, DataError: as :func:`mask_overlay`.
    """
    if not rows or not columns:
        raise OptionError(f"a sheet needs rows and columns, got {len(rows)} rows and {len(columns)} columns")
    with_truth = any(row.truth is not None for row in rows)
    num_columns = len(columns) + 1 + with_truth
    figure, cells = make_sheet(num_columns, [row.image for row in rows for _ in range(num_columns)], title)
    for row, line in zip(rows, cells, strict=True):
        pictures = row_pictures(row, columns, 1 if classes is None else len(classes))
        if not with_truth:
            del pictures[1]
        for picture, cell in zip(pictures, line, strict=True):
            if picture is not None:
                cell.imshow(picture, interpolation="antialiased")
        for column, cell in zip(columns, line[-len(columns) :], strict=True):
            cell.set_xlabel(row.captions.get(column, ""), fontsize=8, parse_math=False)
        line[0].set_ylabel(row.name, fontsize=8, parse_math=False)
    for head, cell in zip(["image", *["truth"] * with_truth, *columns], cells[0], strict=True):
        cell.set_title(head, fontsize=9, parse_math=False)
    maps = [labels for row in rows for labels in (row.truth, *row.predictions.values()) if labels is not None]
    add_legend(figure, maps, classes, judged=with_truth)
    return figure


def sample_grid(
    samples: Iterable[Sample],
    *,
    classes: Sequence[str] | None = None,
    num_columns: int = 4,
    title: str | None = None,
) -> Figure:
    """Draw a sheet of images with their masks laid over them and their stems above.

    Args:
        samples: what to draw.
        classes: class names; None for a binary task.
        num_columns: images side by side, at least 1.
        title: above the sheet, or None.

    Returns:
        A figure of its own; ``figure.savefig(path)`` writes it.

    Raises:
        OptionError: no samples or no columns.
        ShapeError, DataError: as :func:`mask_overlay`.
    """
    shown = list(samples)
    if not shown or num_columns < 1:
        raise OptionError(f"a sheet needs samples and columns, got {len(shown)} samples and {num_columns=}")
    num_columns = min(num_columns, len(shown))
    figure, cells = make_sheet(num_columns, [sample.image for sample in shown], title)
    num_classes = 1 if classes is None else len(classes)
    for sample, cell in zip(shown, (cell for line in cells for cell in line), strict=False):
        picture = sample.image
        if sample.mask is not None:
            picture = mask_overlay(sample.image, sample.mask, num_classes=num_classes)
        cell.imshow(picture, interpolation="antialiased")
        cell.set_title(sample.stem, fontsize=8, parse_math=False)
    add_legend(figure, [s.mask for s in shown if s.mask is not None], classes, judged=False)
    return figure


def row_pictures(row: PredictionRow, columns: Sequence[str], num_classes: int) -> list[Picture | None]:
    """Return image, truth and predictions of a row, None for what it lacks."""
    truth = None if row.truth is None else mask_overlay(row.image, row.truth, num_classes=num_classes)
    pictures: list[Picture | None] = [row.image, truth]
    for column in columns:
        prediction = row.predictions.get(column)
        if prediction is None:
            pictures.append(None)
        elif row.truth is None:
            pictures.append(mask_overlay(row.image, prediction, num_classes=num_classes))
        else:
            pictures.append(error_overlay(row.image, row.truth, prediction, num_classes=num_classes))
    return pictures


def check_labels(image: Picture, labels: Labels, name: str, num_classes: int) -> NDArray[np.uint8]:
    """Return a label map as uint8 once it is known to fit the image and to hold classes only."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"an overlay needs a uint8 image of shape (H, W, 3), got {image.dtype} of shape {image.shape}")
    if labels.shape != image.shape[:2]:
        raise ShapeError(f"the {name} has shape {labels.shape}, its image {image.shape[:2]}; resize one to the other")
    highest = 1 if num_classes == 1 else num_classes - 1
    strange = np.setdiff1d(labels, [*range(highest + 1), IGNORED])
    if len(strange):
        raise DataError(
            f"the {name} holds the label {strange[0]}, expected 0 to {highest}, or {IGNORED} for ignored pixels"
        )
    return labels.astype(np.uint8)


def laid_over(
    image: Picture, colours: NDArray[np.uint8], labels: NDArray[np.integer], covered: NDArray[np.bool_], alpha: float
) -> Picture:
    """Blend the colours in where covered; where a label meets another, the outline is opaque."""
    if not 0 <= alpha <= 1:
        raise OptionError(f"alpha is an opacity from 0 to 1, got {alpha}")
    inner = ndimage.minimum_filter(labels, 3, mode="nearest") == ndimage.maximum_filter(labels, 3, mode="nearest")
    opacity = np.where(inner, np.float32(alpha), np.float32(1)) * covered
    blended = image + opacity[..., None] * (colours.astype(np.float32) - image)
    return np.round(blended).astype(np.uint8)


def striped(image: Picture, ignored: NDArray[np.bool_]) -> Picture:
    """Return the image with diagonal grey stripes where pixels are ignored."""
    height, width = ignored.shape
    period = max(4, min(height, width) // 32)  # seen as stripes whatever the resolution
    is_dark = (np.arange(height)[:, None] + np.arange(width)) % period < period // 2
    stripes = np.where(is_dark[..., None], np.array(STRIPE_COLOUR, np.uint8), np.array(IGNORED_COLOUR, np.uint8))
    return np.where(ignored[..., None], stripes, image)


def make_sheet(num_columns: int, images: Sequence[Picture], title: str | None) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with a cell per image, row by row, each row as high as its highest image needs."""
    aspects = [image.shape[0] / image.shape[1] for image in images]
    heights = [max(aspects[i : i + num_columns]) * CELL_INCHES for i in range(0, len(aspects), num_columns)]
    size = (num_columns * CELL_INCHES + 0.3, sum(heights) + 0.3 * len(heights) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    cells = figure.subplots(len(heights), num_columns, squeeze=False, height_ratios=heights)
    for cell in cells.flat:
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
    if title is not None:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure, cells.tolist()


def overlay_key(
    maps: Sequence[Labels], classes: Sequence[str] | None, *, judged: bool
) -> list[tuple[str, tuple[int, ...]]]:
    """Return what the colours of overlays mean: those of the verdicts, or of the classes that occur in the maps.

    Args:
        maps: label maps that are drawn; those of :func:`error_overlay` where ``judged``.
        classes: class names; None for a binary task.
        judged: whether a binary task is drawn by :func:`error_overlay`.

    Returns:
        Names with their RGB colours; ``"ignored"`` last, where pixels are.
    """
    present = {int(label) for labels in maps for label in np.unique(labels)}
    entries: list[tuple[str, tuple[int, ...]]] = []
    if classes is not None:
        table = palette(len(classes)).tolist()
        entries = [(name, tuple(table[i])) for i, name in enumerate(classes) if i in present]
    elif maps:
        entries = list(ERRORS.items()) if judged else [("foreground", TRUE_POSITIVE)]
    return entries + [("ignored", IGNORED_COLOUR)] * (IGNORED in present)


def add_legend(figure: Figure, maps: Sequence[Labels], classes: Sequence[str] | None, *, judged: bool) -> None:
    """Name the colours below the sheet."""
    title = None
    if classes is not None and judged:
        title = "predictions: wrong pixels, in the colour of the class they were given"
    entries = overlay_key(maps, classes, judged=judged)
    handles = [Patch(facecolor=to_hex(colour), label=name) for name, colour in entries]
    if any((labels == IGNORED).any() for labels in maps):
        handles[-1].set(edgecolor=to_hex(STRIPE_COLOUR), hatch="////")
    if handles:
        num_columns = max(1, min(len(handles), int(figure.get_figwidth() // 2)))
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=num_columns, fontsize=8, frameon=False,
            title=title, title_fontsize=8,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)


def to_hex(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
