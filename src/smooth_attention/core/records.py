"""What a run leaves and what is said of it, as JSON: the record, what ``evaluate`` and ``compare`` write, card facts.

Every field of these files is named here. A metric that is undefined is None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smooth_attention.core.errors import ConfigError, DamagedError
from smooth_attention.core.files import write_json
from smooth_attention.core.parts import Part, blank_of, read_part

__all__ = [
    "METRIC_TITLES",
    "RECORD",
    "AttentionMeasures",
    "CardFacts",
    "CardMetrics",
    "CardPart",
    "ComparedSide",
    "Comparison",
    "CorruptedMetrics",
    "DataFacts",
    "Diagnostics",
    "Differences",
    "Epochs",
    "Evaluation",
    "ImageMetrics",
    "Interval",
    "MaskMeasures",
    "Measures",
    "PairedImage",
    "PaperMetrics",
    "PaperProtocol",
    "PartMetrics",
    "PooledMetrics",
    "Record",
    "Replicate",
    "Robustness",
    "RunMetrics",
    "Seconds",
    "SplitStems",
    "TrainMetrics",
    "read_record",
    "write_record",
]

SCHEMA = 1
RECORD = "record.json"
METRIC_TITLES = {  # of the metrics that every table of masks shows, in its order
    "iou": "IoU",
    "dice": "Dice",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "boundary_iou": "boundary IoU",
}
STATUSES = ("running", "failed", "done")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitStems(Part):
    """The stems of each part of the split; protocol ``paper`` has no validation part."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts(Part):
    """What a run was trained on. ``class_names`` is None for a binary task."""

    name: str
    layout: str | None
    fingerprint: str
    class_names: tuple[str, ...] | None
    split: SplitStems
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate(Part):
    """Which replicate a run is. ``folds`` is None where the split is fixed."""

    fold: int
    folds: int | None
    seed: int
    split_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs(Part):
    """The epoch that is scored, counted from 0, how it was chosen, and the last one."""

    chosen: int
    chosen_by: str
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds(Part):
    """How long training and scoring took."""

    train: float
    evaluate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics(Part):
    """Metrics of one class, or the mean over classes."""

    iou: float | None
    dice: float | None
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    boundary_iou: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledMetrics(ClassMetrics):
    """Metrics of counts added over all images; the last two of tasks with classes only."""

    ece: float | None
    pixel_accuracy: float | None = None
    classes: Mapping[str, ClassMetrics] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanClassMetrics(ClassMetrics):
    """Metrics of one class, mean over images."""

    hd95_px: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanMetrics(MeanClassMetrics):
    """Metrics of images, mean over those where they are defined; ``num_undefined`` counts the others."""

    num_images: int
    num_undefined: Mapping[str, int]
    classes: Mapping[str, MeanClassMetrics] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Misses(Part):
    """Images without a Hausdorff distance since exactly one of prediction and truth is empty."""

    misses: int
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MissesByClass(Misses):
    """The same where a class is missed, any or each."""

    classes: Mapping[str, Misses] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageClassMetrics(Part):
    """Metrics of one class in one image."""

    iou: float | None
    boundary_iou: float | None
    hd95_px: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetrics(Part):
    """Metrics of one image."""

    stem: str
    group: str
    iou: float | None
    dice: float | None
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    boundary_iou: float | None
    hd95_px: float | None
    classes: Mapping[str, ImageClassMetrics] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchedMetrics(Part):
    """Pooled IoU with something switched off, and the share of pixels whose label changes."""

    iou: float | None
    changed_pixels: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanMetrics(Part):
    """IoU of the images before they are corrupted."""

    iou: float | None
    iou_per_image: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptedMetrics(Part):
    """IoU of images under one corruption and the share of the clean IoU that is left, by severity."""

    iou: tuple[float | None, ...]
    iou_per_image: tuple[float | None, ...]
    retention: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability(Part):
    """What a small perturbation leaves and moves; distances of rows with attention only."""

    mask_agreement: float | None
    row_distance: float | None = None
    row_distance_plain: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness(Part):
    """What corruptions and small perturbations of the images do, see ``measure_robustness``."""

    images: int
    severities: tuple[int, ...]
    clean: CleanMetrics
    corruptions: Mapping[str, CorruptedMetrics]
    retention: float | None
    stability: Mapping[str, Stability]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartMetrics(Part):
    """Metrics of one part of the split; the last three of test images only, where there is such a thing."""

    pooled: PooledMetrics
    per_image: MeanMetrics
    hd95: MissesByClass
    images: tuple[ImageMetrics, ...]
    gate_off: SwitchedMetrics | None = None
    bypass: SwitchedMetrics | None = None
    corruptions: Robustness | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Part):
    """What ``evaluate`` says of one part of a run's split; ``robustness`` where it was asked for."""

    run: str
    split: str
    mode: str
    protocol: str
    metrics: PartMetrics
    robustness: Robustness | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSide(Part):
    """One of two runs or folders of masks that ``compare`` compares."""

    source: str
    pooled: PooledMetrics
    per_image: MeanMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval(Part):
    """A difference with its 95 % interval; without bounds where only one group is there, or it is undefined."""

    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences(Part):
    """b minus a by metric."""

    pooled: Mapping[str, Interval]
    per_image: Mapping[str, Interval]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedImage(Part):
    """IoU of one image in both, and b minus a."""

    stem: str
    group: str
    a_iou: float | None
    b_iou: float | None
    difference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Part):
    """What ``compare`` says of two runs or folders of masks; ``left_out`` are the stems that one side lacks."""

    convention: str
    num_images: int
    num_groups: int
    left_out: tuple[str, ...]
    a: ComparedSide
    b: ComparedSide
    differences: Differences
    images: tuple[PairedImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperMetrics(Part):
    """The published metrics of a perfect predictor, which has no epoch, or of an epoch."""

    epoch: int | None = None
    iou: float
    dice: float
    accuracy: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperProtocol(Part):
    """What protocol ``paper`` reports, with its convention."""

    convention: str
    best_test: PaperMetrics
    last: PaperMetrics
    ceiling: PaperMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainIoU(Part):
    """IoU of training images, pooled or mean over images."""

    iou: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainMetrics(Part):
    """What overfitting is judged by."""

    pooled: TrainIoU
    per_image: TrainIoU
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMetrics(Part):
    """Metrics of a run. Protocol ``paper`` has no ``val``; ``train`` comes with the measures."""

    test: PartMetrics
    val: PartMetrics | None = None
    paper: PaperProtocol | None = None
    train: TrainMetrics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPart(Part):
    """What a model card says of the test images."""

    pooled: PooledMetrics
    per_image: MeanMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class CardMetrics(Part):
    """What a model card reports."""

    test: CardPart = field(default=blank_of(CardPart))


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts(Part):
    """What a model card says of a training: nothing, where the package did not do it.

    Attributes:
        images: their number by part of the split.
    """

    arm: str | None = None
    data: str | None = None
    images: Mapping[str, int] | None = None
    protocol: str | None = None
    replicate: Replicate = field(default=blank_of(Replicate))
    metrics: CardMetrics = field(default=blank_of(CardMetrics))
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics(Part):
    """What the block does, a value an epoch; what its kind of block has not is missing.

    Attributes:
        smoothed_fraction: by threshold, ``"t"`` for the rule of the training.
    """

    gamma: tuple[float | None, ...] | None = None
    share_of_output: tuple[float | None, ...] | None = None
    max_probability: tuple[float | None, ...] | None = None
    sink_share: tuple[float | None, ...] | None = None
    smoothed_fraction: Mapping[str, tuple[float | None, ...]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMeasures(Part):
    """How smooth rows of attention are as maps."""

    total_variation: float | None
    autocorrelation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMeasures(Part):
    """Rows before and after smoothing."""

    plain: RowMeasures
    smoothed: RowMeasures


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskMeasures(Part):
    """Shapes of the predicted masks, mean over ``images``."""

    components: float | None
    perimeter2_area: float | None
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures(Part):
    """What a study asks beyond test metrics; ``attention`` is None without attention."""

    attention: AttentionMeasures | None
    masks: MaskMeasures


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Part):
    """What a run leaves. From ``device`` on a finished run only, ``measures`` where a study asked for them.

    Attributes:
        status: one of :data:`STATUSES`.
        reason: why it failed.
        config: the run's, as it was resolved.
    """

    status: str
    config: dict[str, Any]
    data: DataFacts = field(default=blank_of(DataFacts))
    replicate: Replicate = field(default=blank_of(Replicate))
    versions: Mapping[str, str] | None = None
    device: str | None = None
    epoch: Epochs = field(default=blank_of(Epochs))
    seconds: Seconds = field(default=blank_of(Seconds))
    metrics: RunMetrics = field(default=blank_of(RunMetrics))
    diagnostics: Diagnostics | None = None
    measures: Measures | None = None
    reason: str | None = None


def write_record(directory: Path, record: Record) -> None:
    """Write ``record.json``; its status is one of :data:`STATUSES`, undefined metrics are null."""
    assert record.status in STATUSES
    write_json(directory / RECORD, {**record.written(), "schema": SCHEMA})


def read_record(directory: Path) -> Record:
    """Return the record of a run directory; what an older or unfinished one lacks is None or empty.

    Raises:
        ConfigError: where there is none, or one of another schema.
        DamagedError: where it is no JSON, or of another shape.
    """
    path = directory / RECORD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{directory} is no run: it holds no record.json; give what train wrote") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is damaged ({error}); run the training again") from error
    found = values.pop("schema", None) if isinstance(values, dict) else None
    if found != SCHEMA:
        raise ConfigError(f"{path} has schema {found!r}, expected {SCHEMA}; run the training again")
    try:
        return read_part(Record, values)
    except TypeError as error:
        raise DamagedError(f"{path} is damaged ({error}); run the training again") from error
