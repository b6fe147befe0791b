"""Masks and predictions laid over their images, and sheets of them: numpy in, matplotlib figure out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
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

Image = NDArray[np.uint8]  # (H, W, 3)
Labels = NDArray[np.integer] | NDArray[np.bool_]  # (H, W)

_STRIPE_COLOUR = (120, 120, 120)
_CELL_INCHES = 2.1
_ERRORS = {
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

    image: Image
    truth: Labels | None
    predictions: Mapping[str, Labels]
    captions: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with its label map (None: it has none) and its stem, for :func:`sample_grid`."""

    stem: str
    image: Image
    mask: Labels | None


def mask_overlay(image: Image, mask: Labels, *, alpha: float = 0.5, num_classes: int = 1) -> Image:
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
    labels = _checked(image, mask, "mask", num_classes)
    table = palette(num_classes)
    if num_classes == 1:
        table[1] = TRUE_POSITIVE
    covered = labels != IGNORED if num_classes > 1 else labels == 1
    return _striped(_laid_over(image, table[labels], labels, covered, alpha), labels == IGNORED)


def error_overlay(image: Image, truth: Labels, prediction: Labels, *, alpha: float = 0.5) -> Image:
    """Return the image with a binary prediction judged: found blue, false alarms magenta, missed yellow.

    Args:
        image: uint8 RGB of shape (H, W, 3); not changed.
        truth: binary label map of shape (H, W); pixels of 255 are ignored and drawn in grey stripes.
        prediction: binary label map of shape (H, W).
        alpha: opacity of the colours, 0 to 1; the outlines are opaque.

    Returns:
        uint8 RGB of shape (H, W, 3).

    Raises:
        ShapeError, DataError, OptionError: as :func:`mask_overlay`.
    """
    true, predicted = _checked(image, truth, "truth", 1), _checked(image, prediction, "prediction", 1)
    ignored = (true == IGNORED) | (predicted == IGNORED)
    verdict = np.where(ignored, 0, (true == 1) + 2 * (predicted == 1))  # 0 right to leave, 1 missed, 2 false alarm, 3 found
    table = np.array([(0, 0, 0), FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE], np.uint8)
    return _striped(_laid_over(image, table[verdict], verdict, verdict > 0, alpha), ignored)


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
        classes: class names; predictions are then coloured by class. None: a binary task, drawn by
            :func:`error_overlay` where the truth is known.
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
    heads = ["image", *(["truth"] if with_truth else []), *columns]
    figure, cells = _sheet(len(rows), len(heads), [row.image for row in rows], title)
    for row, line in zip(rows, cells, strict=True):
        pictures = _pictures(row, heads, 1 if classes is None else len(classes))
        for head, cell in zip(heads, line, strict=True):
            if pictures[head] is not None:
                cell.imshow(pictures[head], interpolation="antialiased")
            cell.set_xlabel(row.captions.get(head, ""), fontsize=8, parse_math=False)
        line[0].set_ylabel(row.name, fontsize=8, parse_math=False)
    for head, cell in zip(heads, cells[0], strict=True):
        cell.set_title(head, fontsize=9, parse_math=False)
    maps = [labels for row in rows for labels in (row.truth, *row.predictions.values()) if labels is not None]
    _add_legend(figure, maps, classes, judged=with_truth)
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
    figure, cells = _sheet(-(-len(shown) // num_columns), num_columns, [sample.image for sample in shown], title)
    num_classes = 1 if classes is None else len(classes)
    for sample, cell in zip(shown, (cell for line in cells for cell in line), strict=False):
        picture = sample.image
        if sample.mask is not None:
            picture = mask_overlay(sample.image, sample.mask, num_classes=num_classes)
        cell.imshow(picture, interpolation="antialiased")
        cell.set_title(sample.stem, fontsize=8, parse_math=False)
    _add_legend(figure, [s.mask for s in shown if s.mask is not None], classes, judged=False)
    return figure


def _pictures(row: PredictionRow, heads: Sequence[str], num_classes: int) -> dict[str, Image | None]:
    pictures: dict[str, Image | None] = {"image": row.image, "truth": None}
    if row.truth is not None:
        pictures["truth"] = mask_overlay(row.image, row.truth, num_classes=num_classes)
    for head in heads:
        if head in pictures:
            continue
        prediction = row.predictions.get(head)
        if prediction is None:
            pictures[head] = None
        elif num_classes == 1 and row.truth is not None:
            pictures[head] = error_overlay(row.image, row.truth, prediction)
        else:
            pictures[head] = mask_overlay(row.image, prediction, num_classes=num_classes)
            if row.truth is not None:
                pictures[head] = _striped(pictures[head], row.truth == IGNORED)
    return pictures
