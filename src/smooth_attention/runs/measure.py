"""What a study asks of a finished run beyond its test metrics: overfitting, attention, masks, corrupted images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from smooth_attention.core.files import plain
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import (
    AttentionMeasures,
    MaskMeasures,
    Measures,
    Record,
    TrainMetrics,
    read_record,
    write_record,
)
from smooth_attention.data.cache import CachedPairs
from smooth_attention.data.folder import read_mask
from smooth_attention.data.sources import Source
from smooth_attention.metrics import mean_defined
from smooth_attention.metrics.iou import count_scored, summarise_iou
from smooth_attention.metrics.shape import autocorrelation, count_components, perimeter2_area, total_variation
from smooth_attention.models.blocks import SmoothAttention
from smooth_attention.models.diagnostics import captured_inputs
from smooth_attention.models.inference import resized_labels
from smooth_attention.models.network import Network
from smooth_attention.runs.evaluate import MAX_PREDICTIONS, open_run, predict_pairs
from smooth_attention.runs.inputs import Opener, open_checked_source
from smooth_attention.runs.picks import evenly
from smooth_attention.runs.robustness import measure_robustness, spaced_rows

__all__ = ["measure_run"]

MAX_TRAIN_IMAGES = 100
MAX_ATTENTION_IMAGES = 16
MAX_POSITIONS = 64
MAP_MEASURES = {"total_variation": total_variation, "autocorrelation": autocorrelation}


def measure_run(
    directory: Path, *, cache: Path, corruptions: bool = False, open_data: Opener = open_checked_source
) -> Record:
    """Add to the record of a finished run what it lacks of this; a second call changes nothing.

    - ``metrics.train``: ``pooled`` and ``per_image`` IoU of at most 100 training images, evenly spaced, at native size
    - ``measures.attention``: ``total_variation`` and ``autocorrelation`` of the rows as maps, ``plain`` before and
      ``smoothed`` after smoothing: mean over at most 64 evenly spaced positions of at most 16 test images, over heads
      and blocks; rows without autocorrelation (all values equal) left out. None without attention.
    - ``measures.masks``: ``components`` and ``perimeter2_area`` of the written predictions, mean over images; of
      classes the mean over those in the mask first. A mask without foreground has 0 components, and no ratio.
    - ``metrics.test.corruptions``, if asked for: what ``measure_robustness`` says of the test images

    Args:
        directory: the run directory.
        cache: where decoded images live.
        corruptions: whether corrupted test images are scored too; they are the same for all runs of a split.
        open_data: what opens its data.

    Returns:
        The record.

    Raises:
        ConfigError: where there is no finished run, or its data changed.
        DataError: where its data, model or predictions are gone.
    """
    record = read_record(directory)
    metrics = record.metrics
    lacks_measures = record.measures is None or metrics.train is None
    lacks_corruptions = corruptions and metrics.test.corruptions is None
    if record.status == "done" and not (lacks_measures or lacks_corruptions):
        return record
    opened = open_run(directory, cache=cache, open_data=open_data)
    net, source, pairs, split = opened.net, opened.source, opened.pairs, record.data.split
    if lacks_measures:
        train = score_iou(net, source, evenly(split.train, MAX_TRAIN_IMAGES), pairs)
        metrics = replace(metrics, train=train)
        masks = [directory / "predictions" / f"{stem}.png" for stem in split.test[:MAX_PREDICTIONS]]
        measures = Measures(
            attention=measure_attention(net, evenly(split.test, MAX_ATTENTION_IMAGES), pairs),
            masks=measure_masks(masks, source.class_names),
        )
        record = replace(record, measures=measures)
    if lacks_corruptions:
        seed = opened.config.split_seed
        robustness = measure_robustness(net, source, split.test, pairs, seed=seed)
        metrics = replace(metrics, test=replace(metrics.test, corruptions=robustness))
    record = replace(record, metrics=metrics)
    write_record(directory, record)
    return record


def score_iou(net: Network, source: Source, stems: Sequence[str], pairs: CachedPairs) -> TrainMetrics:
    """Return pooled and per-image IoU at native size, by the rules of protocol ``standard``, and nothing dearer."""
    counts = []
    for stem, (logits,) in predict_pairs(net, stems, pairs, ["on"]):
        truth = source.read_labels(stem)
        counts.append(count_scored(resized_labels(logits, truth.shape), truth, source.class_names))
    found = summarise_iou(np.stack(counts))
    by_convention = {"pooled": {"iou": found["iou"]}, "per_image": {"iou": found["iou_per_image"]}}
    return read_part(TrainMetrics, plain({**by_convention, "num_images": len(stems)}))


@torch.inference_mode()
def measure_attention(net: Network, stems: Sequence[str], pairs: CachedPairs) -> AttentionMeasures | None:
    """Return the measures of the rows before and after smoothing; None without attention."""
    if not any(isinstance(module, SmoothAttention) for module in net.modules()):
        return None
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for stem in stems:
        with captured_inputs(net) as inputs:
            next(predict_pairs(net, [stem], pairs, ["on"]))
        for block, x in inputs.items():
            if not isinstance(block, SmoothAttention):
                continue
            for name, maps in attention_maps(block, x).items():
                for measure, compute in MAP_MEASURES.items():
                    found.setdefault(name, {}).setdefault(measure, []).append(compute(maps).ravel())
    means = {
        name: {measure: mean_of(np.concatenate(values)) for measure, values in measures.items()}
        for name, measures in found.items()
    }
    return read_part(AttentionMeasures, plain(means))


def attention_maps(block: SmoothAttention, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Return rows of attention as maps (B, M, P, *grid): before smoothing, and as the block uses them."""
    smoothed_BMPN, plain_BMPN = spaced_rows(block, x, most=MAX_POSITIONS)
    rows = {"plain": plain_BMPN, "smoothed": smoothed_BMPN}
    return {name: rows_BMPN.unflatten(-1, tuple(x.shape[2:])).cpu().numpy() for name, rows_BMPN in rows.items()}


def measure_masks(files: Sequence[Path], class_names: tuple[str, ...] | None) -> MaskMeasures:
    """Return the shape measures of written masks, mean over images."""
    components, ratios = [], []
    for file in files:
        labels = read_mask(file, class_names)
        wanted = [1] if class_names is None else np.unique(labels).tolist()
        masks = [labels == label for label in wanted]
        components.append(mean_of([count_components(mask) for mask in masks]))
        ratios.append(mean_of([perimeter2_area(mask) for mask in masks]))
    means = {"components": mean_of(components), "perimeter2_area": mean_of(ratios), "images": len(files)}
    return read_part(MaskMeasures, plain(means))


def mean_of(values: ArrayLike) -> float:
    """Return the mean of the values that are not NaN; NaN where there is none."""
    return float(mean_defined(np.asarray(values, np.float64), axis=0))
