"""Every number of a run that a study shows: what it is called, how it is read from a record, where it is shown.

A row here is a column of ``results.csv``, of tables, or both; the tables ask for their rows by place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from smooth_attention.core.records import METRIC_TITLES, CorruptedMetrics, Record
from smooth_attention.metrics import PUBLISHED

__all__ = [
    "PAPER_EPOCHS",
    "QUANTITY",
    "Quantity",
    "Read",
    "by_epoch",
    "diagnostic",
    "kept_under",
    "quantities_in",
    "subtract",
]

T = TypeVar("T")
Read = Callable[[Record], float | None]
PaperEpoch = Literal["last", "best_test"]
Mode = Literal["gate_off", "bypass"]
Perturbation = Literal["noise", "shift"]
PAPER_EPOCHS: tuple[PaperEpoch, ...] = ("last", "best_test")
Place = Literal[
    "results",  # a column of results.csv
    "metrics",  # of the paper's layout: means over images, compared between arms
    "pooled",  # of the paper's layout, behind them
    "scores",  # of the report's table of arms
    "block",  # of the diagnostics: what the block does
    "effect",  # of the diagnostics, behind the block: what follows from it
    "corruptions",  # of the robustness, before the single corruptions
    "stability",  # of the robustness, behind them
]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of a run.

    Attributes:
        name: of its column in ``results.csv`` and other CSV files.
        title: for people, at the head of a column.
        better: 1 where more is better, -1 where less is, 0 where neither.
        read: from the record; None where it is undefined or missing.
        shown: places, in none of which it need be: claims ask for theirs by name.
        unit: of what is shown; files have fractions as they are.
        digits: that are shown.
        phrase: what sentences call it, where the title is too short for them.
        metric: the field of an image's metrics of which it is the mean over images.
        of_corrupted: whether it depends on how images were corrupted.
    """

    name: str
    title: str
    better: int
    read: Read
    shown: tuple[Place, ...] = ("results",)
    unit: Literal["", "%", "points", "px"] = ""
    digits: int = 3
    phrase: str = ""
    metric: str | None = None
    of_corrupted: bool = False

    @property
    def scale(self) -> int:
        """What values are multiplied with to be shown."""
        return 100 if self.unit in ("%", "points") else 1

    @property
    def words(self) -> str:
        """What sentences call it."""
        return self.phrase or self.title

    @property
    def heading(self) -> str:
        return f"{self.title}, {self.unit}" if self.unit else self.title


def quantities_in(place: Place) -> list[Quantity]:
    """Return the quantities that are shown in a place, in order."""
    return [quantity for quantity in QUANTITIES if place in quantity.shown]


def of(part: T | None, read: Callable[[T], float | None]) -> float | None:
    """Return what is read from a part of the record; None where the part is missing."""
    return None if part is None else read(part)


def pooled(name: str, *shown: Place, title: str = "", better: int = 1) -> Quantity:
    """Return a metric of counts added over the test images."""

    def read(record: Record) -> float | None:
        return getattr(record.metrics.test.pooled, name)

    return Quantity(f"pooled_{name}", f"{title or METRIC_TITLES[name]}, pooled", better, read, ("results", *shown))


def per_image(name: str, *shown: Place, title: str = "", better: int = 1) -> Quantity:
    """Return the mean of a metric over the test images where it is defined."""

    def read(record: Record) -> float | None:
        return getattr(record.metrics.test.per_image, name)

    return Quantity(f"per_image_{name}", title or METRIC_TITLES[name], better, read, ("results", *shown), metric=name)


def switched(mode: Mode, title: str) -> tuple[Quantity, Quantity]:
    """Return IoU and changed pixels of the same trained network with something switched off."""
    return (
        Quantity(f"{mode}_iou", f"IoU, {title}", 0, lambda r: of(getattr(r.metrics.test, mode), lambda s: s.iou)),
        Quantity(
            f"{mode}_changed_pixels",
            f"{title} changes",
            0,
            lambda r: of(getattr(r.metrics.test, mode), lambda s: s.changed_pixels),
            ("results", "effect"),
            unit="%",
        ),
    )


def by_epoch(record: Record, name: str) -> Sequence[float | None] | None:
    """Return what the block did in each epoch, under the rule that was trained with; None where there is none."""
    values = None if record.diagnostics is None else getattr(record.diagnostics, name)
    return values["t"] if isinstance(values, Mapping) else values


def diagnostic(name: str, record: Record) -> float | None:
    """Return what the block does in the epoch whose weights were scored."""
    return of(by_epoch(record, name), lambda values: values[record.epoch.chosen])


def block(name: str, title: str) -> Quantity:
    return Quantity(name, title, 0, partial(diagnostic, name), ("results", "block"))


def roughness(rows: Literal["plain", "smoothed"], when: str) -> tuple[Quantity, Quantity]:
    """Return how fragmented rows of attention are as maps."""

    def read(record: Record, name: str) -> float | None:
        attention = None if record.measures is None else record.measures.attention
        return of(attention, lambda found: getattr(getattr(found, rows), name))

    return (
        Quantity(f"{rows}_total_variation", f"total variation{when}", -1, partial(read, name="total_variation")),
        Quantity(f"{rows}_autocorrelation", f"autocorrelation{when}", 1, partial(read, name="autocorrelation")),
    )


def published(epoch: PaperEpoch, name: str) -> Quantity:
    """Return a metric of protocol ``paper``."""

    def read(record: Record) -> float | None:
        return of(record.metrics.paper, lambda paper: getattr(getattr(paper, epoch), name))

    return Quantity(f"paper_{epoch}_{name}", METRIC_TITLES[name], 1, read)


def stability(perturbation: Perturbation, what: str) -> tuple[Quantity, Quantity]:
    """Return what a small perturbation of the images leaves and moves."""

    def read(record: Record, name: str) -> float | None:
        found = record.metrics.test.corruptions
        return of(found, lambda robustness: getattr(robustness.stability[perturbation], name))

    return (
        Quantity(
            f"{perturbation}_mask_agreement",
            f"same pixels under {perturbation}",
            1,
            partial(read, name="mask_agreement"),
            ("stability",),
            unit="%",
            digits=2,
            phrase=f"unchanged pixels under {what}",
            of_corrupted=True,
        ),
        Quantity(
            f"{perturbation}_row_distance",
            f"row distance under {perturbation}",
            -1,
            partial(read, name="row_distance"),
            ("stability",),
            digits=4,
            of_corrupted=True,
        ),
    )


def kept_under(name: str, record: Record) -> float | None:
    """Return the share of pooled IoU that one corruption leaves, mean over severities."""
    found = record.metrics.test.corruptions
    return None if found is None or name not in found.corruptions else mean_kept([found.corruptions[name]])


def mean_kept(found: list[CorruptedMetrics]) -> float | None:
    values = [value for each in found for value in each.retention if value is not None]
    return float(np.mean(values)) if values else None


def kept_under_noise(record: Record) -> float | None:
    """Return the share of pooled IoU that noisy images leave, mean over the kinds of noise and severities."""
    found = record.metrics.test.corruptions
    noisy = [] if found is None else [each for name, each in found.corruptions.items() if name.endswith("noise")]
    return None if any(None in each.retention for each in noisy) else mean_kept(noisy)


def subtract(first: Read, second: Read) -> Read:
    def read(record: Record) -> float | None:
        ours, theirs = first(record), second(record)
        return None if ours is None or theirs is None else ours - theirs

    return read


def train_iou(record: Record) -> float | None:
    return of(record.metrics.train, lambda train: train.per_image.iou)


# of pooled metrics, beside results.csv
POOLED_PLACES: dict[str, tuple[Place, ...]] = {
    "iou": ("pooled", "scores"),
    "dice": ("scores",),
    "boundary_iou": ("scores",),
}
QUANTITIES = (
    Quantity("epoch", "chosen epoch", 0, lambda r: r.epoch.chosen),
    *(pooled(name, *POOLED_PLACES.get(name, ())) for name in METRIC_TITLES),
    pooled("ece", title="ECE", better=-1),
    *(per_image(name, "metrics") for name in METRIC_TITLES),
    per_image("hd95_px", title="HD95", better=-1),
    Quantity("per_image_num_images", "test images", 0, lambda r: r.metrics.test.per_image.num_images),
    Quantity("hd95_misses", "images without HD95", -1, lambda r: r.metrics.test.hd95.misses),
    Quantity("val_pooled_iou", "IoU of validation, pooled", 1, lambda r: of(r.metrics.val, lambda v: v.pooled.iou)),
    Quantity("train_pooled_iou", "IoU of training, pooled", 0, lambda r: of(r.metrics.train, lambda t: t.pooled.iou)),
    Quantity("train_per_image_iou", "IoU of training", 0, train_iou),
    *switched("gate_off", "gate off"),
    *switched("bypass", "bypass"),
    block("gamma", "gamma"),
    block("share_of_output", "share of output"),
    block("smoothed_fraction", "smoothed fraction"),
    block("max_probability", "max probability"),
    block("sink_share", "sink share"),
    *roughness("plain", " before smoothing"),
    *roughness("smoothed", ""),
    Quantity("mask_components", "components of a mask", -1, lambda r: of(r.measures, lambda m: m.masks.components)),
    Quantity(
        "mask_perimeter2_area", "perimeter² / area", -1, lambda r: of(r.measures, lambda m: m.masks.perimeter2_area)
    ),
    Quantity(
        "retention",
        "retention",
        1,
        lambda r: of(r.metrics.test.corruptions, lambda found: found.retention),
        ("results", "corruptions"),
        unit="%",
        digits=1,
        of_corrupted=True,
    ),
    *(published(epoch, name) for epoch in PAPER_EPOCHS for name in PUBLISHED),
    Quantity(
        "train_minus_test_iou",
        "train − test IoU",
        -1,
        subtract(train_iou, lambda r: r.metrics.test.per_image.iou),
        ("effect",),
        unit="points",
        digits=2,
    ),
    Quantity(
        "noise_retention",
        "retention of IoU under noise",
        1,
        kept_under_noise,
        (),
        unit="%",
        digits=1,
        of_corrupted=True,
    ),
    *stability("noise", "noise of 2 grey levels"),
    *stability("shift", "a shift of 1 px"),
)
QUANTITY = {quantity.name: quantity for quantity in QUANTITIES}
