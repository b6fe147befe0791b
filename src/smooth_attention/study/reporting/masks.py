"""Masks of the report: image, truth, and what arm and reference made of it; from samples and predictions alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from smooth_attention.runs.pictures import encode_jpeg
from smooth_attention.study.execution.collect import Result, Study
from smooth_attention.study.reporting.samples import (
    Sample,
    choose_samples,
    image_path,
    prediction_path,
    shrink_labels,
    truth_path,
)
from smooth_attention.study.verdicts.contrasts import images_of
from smooth_attention.viz.colours import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE, palette
from smooth_attention.viz.overlays import error_overlay, mask_overlay

__all__ = ["MaskSheet", "mask_sheets"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data address, with what it shows."""

    caption: str
    address: str


@dataclass(frozen=True, slots=True)
class MaskRow:
    """An image with its pictures: itself, its truth, the arm's mask, the reference's."""

    stem: str
    note: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class MaskSheet:
    """The rows of a dataset, with the colours of its masks: CSS colour and meaning."""

    dataset: str
    key: tuple[tuple[str, str], ...]
    rows: tuple[MaskRow, ...]


def mask_sheets(study: Study) -> list[MaskSheet]:
    """Return the sheets of the datasets that have samples."""
    sheets = []
    for dataset in study.datasets:
        choices = [
            choice
            for choice in choose_samples(study, dataset)
            if image_path(study, dataset, choice.stem).is_file() and truth_path(study, dataset, choice.stem).is_file()
        ]
        if choices:
            rows = tuple(draw_row(study, dataset, choice) for choice in choices)
            sheets.append(MaskSheet(dataset, colour_key(choices[0].arm.record.data.class_names), rows))
    return sheets


def colour_key(classes: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """Return the colours of masks: of classes, or of what a binary mask gets right and wrong."""
    if classes is None:
        named = [(TRUE_POSITIVE, "found"), (FALSE_POSITIVE, "false alarm"), (FALSE_NEGATIVE, "missed")]
    else:
        named = [(tuple(colour), name) for colour, name in zip(palette(len(classes)).tolist(), classes, strict=False)]
    return tuple(("#{:02x}{:02x}{:02x}".format(*colour), name) for colour, name in named)


def draw_row(study: Study, dataset: str, choice: Sample) -> MaskRow:
    with Image.open(image_path(study, dataset, choice.stem)) as file:
        image = np.asarray(file.convert("RGB"))
    truth = read_labels(truth_path(study, dataset, choice.stem))
    classes = choice.arm.record.data.class_names
    num_classes = 1 if classes is None else len(classes)
    pictures = [picture("image", image), picture("truth", mask_overlay(image, truth, num_classes=num_classes))]
    for result in (choice.arm, choice.reference):
        labels = shrink_labels(read_prediction(result, choice.stem), truth.shape)
        if classes is None:
            overlay = error_overlay(image, truth, labels)
        else:
            overlay = mask_overlay(image, labels, num_classes=num_classes)
        pictures.append(picture(f"{result.arm}: {iou_text(result, choice.stem)}", overlay))
    note = f"{100 * choice.difference:+.1f} points, mean of trainings".replace("-", "−")
    return MaskRow(choice.stem, note, tuple(pictures))


def read_labels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def read_prediction(result: Result, stem: str) -> np.ndarray:
    """Return the predicted labels (H, W); a binary mask is 0 and 255 on disk."""
    labels = read_labels(prediction_path(result, stem))
    return labels if result.record.data.class_names else (labels > 127).astype(np.uint8)


def iou_text(result: Result, stem: str) -> str:
    iou = next(image.iou for image in images_of(result) if image.stem == stem)
    return "IoU undefined" if iou is None else f"IoU {iou:.2f}"


def picture(caption: str, pixels: np.ndarray) -> Picture:
    return Picture(caption, f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(pixels)).decode('ascii')}")
