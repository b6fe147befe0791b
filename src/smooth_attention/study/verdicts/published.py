"""What the paper's tables are about and what its text claims of them, as data.

Claims that name no metric or no direction ("recall is high at every threshold") are not listed. "Low" thresholds are
0.1 to 0.3 wherever the text gives no number; 2.0 is plain attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smooth_attention.metrics import PUBLISHED
from smooth_attention.study.execution.collect import Study

__all__ = ["TABLE_CLAIMS", "Place", "Quantifier", "TableClaim", "find_place"]

Quantifier = Literal["all", "any", "flat"]

PAPER_TABLES = {"birds": 1, "fish": 2, "fire": 3, "instruments": 4, "flood": 5}
STAND_INS = {"animals": "birds", "polyps": "instruments"}  # and folders named like a published data set

PLAIN = (2.0,)
LOW = (0.1, 0.2, 0.3)
MIDDLE = (0.4, 0.5, 0.6)
HIGH = (0.7, 0.8, 0.9)
EVERY = (*LOW, *MIDDLE, *HIGH)


@dataclass(frozen=True, slots=True)
class Place:
    """What a dataset of a study is in the paper.

    Attributes:
        dataset: the paper's dataset, None for other data.
        is_published: whether it is that dataset, in its published layout; else a stand-in.
    """

    dataset: str | None
    is_published: bool

    @property
    def table(self) -> int | None:
        return None if self.dataset is None else PAPER_TABLES[self.dataset]


@dataclass(frozen=True, slots=True)
class TableClaim:
    """A claim on a table: metrics at some thresholds beat those at others.

    Attributes:
        dataset: the paper's.
        sentence: the claim.
        better: thresholds that win.
        worse: thresholds that lose; the same one on both sides is left out.
        metrics: of an image.
        quantifier: ``all`` pairs differ so; ``any`` does; ``flat``: none differs by more than the margin.
    """

    dataset: str
    sentence: str
    better: tuple[float, ...]
    worse: tuple[float, ...]
    metrics: tuple[str, ...]
    quantifier: Quantifier = "all"


TABLE_CLAIMS = (
    TableClaim(
        "birds", "IoU, Dice, accuracy better at 0.1 to 0.3 than at 2.0", LOW, PLAIN, ("iou", "dice", "accuracy")
    ),
    TableClaim("birds", "recall highest at the lowest threshold", (0.1,), (*EVERY, 2.0), ("recall",)),
    TableClaim("birds", "accuracy peaks higher than at 0.1", (*MIDDLE, *HIGH), (0.1,), ("accuracy",), "any"),
    TableClaim("birds", "precision peaks higher than at 0.1", (*MIDDLE, *HIGH), (0.1,), ("precision",), "any"),
    TableClaim("fish", "IoU, Dice best at low thresholds", LOW, (*HIGH, 2.0), ("iou", "dice")),
    TableClaim("fish", "accuracy the same at every threshold", EVERY, PLAIN, ("accuracy",), "flat"),
    TableClaim("fish", "precision best at 0.7", (0.7,), (*EVERY, 2.0), ("precision",)),
    TableClaim("fish", "recall, F1 better at low thresholds than at 2.0", LOW, PLAIN, ("recall", "f1")),
    TableClaim("fire", "IoU, Dice peak at 0.4", (0.4,), (*EVERY, 2.0), ("iou", "dice")),
    TableClaim("fire", "IoU, Dice better at 0.4 to 0.6 than lower and higher", MIDDLE, (*LOW, *HIGH), ("iou", "dice")),
    TableClaim("fire", "accuracy, recall better with smoothing than at 2.0", EVERY, PLAIN, ("accuracy", "recall")),
    TableClaim("instruments", "all six metrics best at 0.1 to 0.3", LOW, (*MIDDLE, *HIGH, 2.0), PUBLISHED),
    TableClaim("instruments", "all six metrics peak at 0.2", (0.2,), (*EVERY, 2.0), PUBLISHED),
    TableClaim("instruments", "low thresholds cut false positives: precision above 2.0", LOW, PLAIN, ("precision",)),
    TableClaim(
        "flood", "IoU, Dice, precision best at 0.4 to 0.6", MIDDLE, (*LOW, *HIGH, 2.0), ("iou", "dice", "precision")
    ),
    TableClaim("flood", "low thresholds raise recall: above 0.4 to 0.6", LOW, MIDDLE, ("recall",)),
    TableClaim("flood", "low thresholds cost precision: below 0.4 to 0.6", MIDDLE, LOW, ("precision",)),
    TableClaim("flood", "high thresholds under-segment: recall below 0.4 to 0.6", MIDDLE, HIGH, ("recall",)),
)


def find_place(study: Study, dataset: str) -> Place:
    """Return what a dataset is in the paper: itself in its published layout, a stand-in, or nothing."""
    data = next(result.record.data for result in study.results if result.dataset == dataset)
    if data.layout in PAPER_TABLES:
        return Place(data.layout, is_published=True)
    stands_for = STAND_INS.get(dataset, dataset)
    return Place(stands_for if stands_for in PAPER_TABLES else None, is_published=False)
