"""Which test images stand for a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smooth_attention.core.errors import OptionError


def image_figures(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the IoU of each test image by its stem, protocol ``standard``; None where it is undefined."""
    return {image["stem"]: image["iou"] for image in record["metrics"]["test"]["images"]}


def spread_stems(record: Mapping[str, Any], count: int) -> list[str]:
    """Return test images evenly spaced from the worst to the best IoU, those without one left out unless all are.

    Args:
        record: of a finished run.
        count: how many at most; one alone is the median, the higher of two.

    Raises:
        OptionError: on a count below 1.
    """
    if count < 1:
        raise OptionError(f"the number of images is at least 1, got {count}")
    figures = image_figures(record)
    scored = {stem: iou for stem, iou in figures.items() if iou is not None}
    ranked = sorted(scored, key=lambda stem: (scored[stem], stem)) or sorted(figures)
    if count == 1:
        return [ranked[len(ranked) // 2]]
    count = min(count, len(ranked))
    return [ranked[round(place * (len(ranked) - 1) / max(1, count - 1))] for place in range(count)]
