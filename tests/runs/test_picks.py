"""Which images and positions are taken."""

from __future__ import annotations

import pytest

from smooth_attention.core.errors import OptionError
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import Record
from smooth_attention.runs.picks import evenly, iou_by_stem, spread_stems

FIGURES = {"a": 0.9, "b": None, "c": 0.1, "d": 0.5, "e": 0.5, "f": 0.3}
RECORD = read_part(
    Record, {"metrics": {"test": {"images": [{"stem": stem, "iou": iou} for stem, iou in FIGURES.items()]}}}
)


def test_images_are_spread_from_the_worst_to_the_best() -> None:
    assert iou_by_stem(RECORD) == FIGURES
    assert spread_stems(RECORD, 3) == ["c", "d", "a"]
    assert spread_stems(RECORD, 2) == ["c", "a"]
    assert spread_stems(RECORD, 99) == ["c", "f", "d", "e", "a"]
    assert spread_stems(RECORD, 1) == ["d"]
    assert spread_stems(RECORD, 5, among={"e", "a"}) == ["e", "a"]


def test_images_without_a_figure_count_where_all_are() -> None:
    assert spread_stems(RECORD, 5, among={"b"}) == ["b"]


def test_no_image_is_too_few() -> None:
    with pytest.raises(OptionError, match="at least 1, got 0"):
        spread_stems(RECORD, 0)


def test_evenly_keeps_the_first_and_the_order() -> None:
    assert evenly(range(10), 4) == [0, 2, 5, 7]
    assert evenly("abc", 9) == ["a", "b", "c"]
