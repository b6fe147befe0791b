"""Pictures for studies whose records are written by hand: predicted masks in the runs, samples beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from smooth_attention.data.shapes import Scene, draw_scene
from smooth_attention.runs.pictures import encode_jpeg, encode_mask
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.reporting.samples import PER_DATASET, choose_samples, image_path, truth_path


def add_pictures(study: Study, classes: Sequence[str] | None = None) -> None:
    """Write what runs and ``write_samples`` would have left; the masks of an arm and seed are all the same."""
    names = ("background", "foreground") if classes is None else tuple(classes)
    for result in study.results:
        moved = np.roll(scene(0).mask, 1 + len(result.arm) + result.seed, 0).astype(np.uint8)
        mask = encode_mask(moved, None if classes is None else names)
        for image in result.record.metrics.test.images:
            write(result.directory / "predictions" / f"{image.stem}.png", mask)
    for dataset in study.datasets:
        for place, choice in enumerate(choose_samples(study, dataset)):
            shown = scene(place % PER_DATASET)
            write(image_path(study, dataset, choice.stem), encode_jpeg(shown.image))
            write(truth_path(study, dataset, choice.stem), encode_mask(shown.mask.astype(np.uint8), names))


@cache
def scene(index: int) -> Scene:
    return draw_scene(index, size=64)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
