"""Which images stand for a run, which positions for an image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from smooth_attention.core.errors import OptionError
from smooth_attention.core.records import Record

__all__ = ["evenly", "iou_by_stem", "spread_stems"]

Item = TypeVar("Item")


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items, evenly spaced, the first among them."""
    count = min(most, len(items))
    return [items[rank * len(items) // count] for rank in range(count)]


def iou_by_stem(record: Record) -> dict[str, float | None]:
    """Return the IoU of each test image by its stem, protocol ``standard``; None where it is undefined."""
    return {image.stem: image.iou for image in record.metrics.test.images}


def spread_stems(record: Record, count: int, *, among: Collection[str] | None = None) -> list[str]:
    """Return test images evenly spaced from the worst to the best IoU, those without one left out unless all are.

    Args:
        record: of a finished run.
        count: how many at most; one alone is the median, the higher of two.
        among: only of these.

    Raises:
        OptionError: on a count below 1.
    """
    if count < 1:
        raise OptionError(f"the number of images is at least 1, got {count}")
    known = {stem: iou for stem, iou in iou_by_stem(record).items() if among is None or stem in among}
    scored = {stem: iou for stem, iou in known.items() if iou is not None}
    ranked = sorted(scored, key=lambda stem: (scored[stem], stem)) or sorted(known)
    if count == 1:
        return [ranked[len(ranked) // 2]]
    count = min(count, len(ranked))
    return [ranked[round(place * (len(ranked) - 1) / max(1, count - 1))] for place in range(count)]
