"""What a study found: one finding for each dataset and declared contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CONVENTION", "Finding", "Verdict"]

Verdict = Literal["better", "worse", "same", "can't tell", "inactive"]
CONVENTION = (
    "difference of IoU per image (protocol standard, native size), arm minus reference, mean over test images and "
    "replicates; intervals 95 %, over trainings and images; p by Holm over all contrasts of the study"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A contrast on a dataset: how large, how sure, what follows.

    Attributes:
        dataset: name.
        arm: name of the arm.
        reference: name of what it is compared with; the difference is arm minus reference.
        is_control: the positive control, which stands outside the declared contrasts.
        replicates: pairs of trainings.
        images: test images, over all folds.
        groups: groups of test images.
        mean: difference of IoU per image; None where no pair of trainings is finished.
        low: 95 % interval over trainings and images; None: unbounded, one replicate says nothing.
        high: the other end.
        p: two-sided p-value of no difference.
        p_corrected: the same after Holm's correction; for the positive control ``p``.
        trained_low: 95 % interval that resamples groups of images: these trained networks only.
        trained_high: the other end.
        smallest: the true difference that this many replicates see with a probability of 80 %; None: none.
        verdict: one of five.
        sentence: the verdict for people.
    """

    dataset: str
    arm: str
    reference: str
    is_control: bool
    replicates: int
    images: int
    groups: int
    mean: float | None
    low: float | None
    high: float | None
    p: float
    p_corrected: float
    trained_low: float | None
    trained_high: float | None
    smallest: float | None
    verdict: Verdict
    sentence: str
