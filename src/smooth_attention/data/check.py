"""What a dataset holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from smooth_attention.core.errors import DataError
from smooth_attention.data.near_duplicates import group_near_duplicates
from smooth_attention.data.sources import IGNORED, Source
from smooth_attention.data.splits import find_copies, make_split

__all__ = ["ZERO_AND_255", "check_source", "propose_groups"]

ZERO_AND_255 = "the masks hold 0 and 255 alone: 255 means ignored with classes.txt; masks of 0 and 255 want none"


@dataclass(slots=True)
class Report:
    """Findings of :func:`check_source`.

    Attributes:
        name: of the dataset.
        num_pairs: pairs that can be read.
        num_groups: groups among all pairs.
        sizes: (width, height) in pixels with how often it occurs, most frequent first.
        classes: from class name to (share of the counted pixels, number of images that hold it).
        ignored_frac: share of all pixels labelled 255.
        parts: number of pairs in train, val and test, as ``train`` would split them.
        problems: one sentence each: broken and unmatched files, absent classes, why no split can be made.
        notes: one sentence each: known peculiarities of a published dataset, which keep nothing from being used.
        leaks: one sentence each: groups and identical images shared between given parts, identical images anywhere.
        near_duplicates: sets of two or more stems that look alike, where they were asked for.
    """

    name: str
    num_pairs: int = 0
    num_groups: int = 0
    sizes: list[tuple[tuple[int, int], int]] = field(default_factory=list)
    classes: dict[str, tuple[float, int]] = field(default_factory=dict)
    ignored_frac: float = 0.0
    parts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    near_duplicates: list[list[str]] | None = None


def check_source(source: Source, *, with_near_duplicates: bool = False) -> Report:
    """Read every pair of ``source`` once and report what was found.

    Args:
        source: the data.
        with_near_duplicates: also look for images that show the same, flips and rotations included.
    """
    num_groups = len(set(source.groups.values()))
    report = Report(source.name, num_groups=num_groups, problems=[*source.problems], notes=[*source.notes])
    broken = set()
    pixels, images, sizes = np.zeros(IGNORED + 1, np.int64), np.zeros(IGNORED + 1, np.int64), Counter[tuple[int, int]]()

    def readable() -> Iterator[tuple[str, np.ndarray]]:
        for stem in source.stems:
            try:
                pair = source.load(stem)
            except DataError as error:
                report.problems.append(str(error))
                broken.add(stem)
                continue
            counts = np.bincount(pair.mask.ravel(), minlength=IGNORED + 1)
            pixels[:] += counts
            images[:] += counts > 0
            sizes[pair.mask.shape[::-1]] += 1
            yield stem, pair.image

    if with_near_duplicates:
        report.near_duplicates = group_near_duplicates(readable())
    else:
        deque(readable(), maxlen=0)
    report.num_pairs, report.sizes = sizes.total(), sizes.most_common()
    report.ignored_frac = float(pixels[IGNORED] / max(1, pixels.sum()))
    names = source.class_names or ("background", "foreground")
    counted = max(1, int(pixels[: len(names)].sum()))
    report.classes = {n: (float(pixels[i] / counted), int(images[i])) for i, n in enumerate(names)}
    report.problems += [f"class {name!r} occurs in no mask" for name, (_, count) in report.classes.items() if not count]
    if source.class_names is not None and set(np.flatnonzero(pixels)) == {0, IGNORED}:
        report.problems.append(ZERO_AND_255)
    add_splits(report, source, broken)
    return report


def add_splits(report: Report, source: Source, broken: set[str]) -> None:
    report.leaks = find_copies(source)
    try:
        split = make_split(source.without(broken))
    except DataError as error:
        report.problems.append(str(error))
        return
    report.parts = {part: len(stems) for part, stems in split.parts().items()}
    report.leaks += split.warnings


def propose_groups(source: Source, near_duplicates: Iterable[Sequence[str]]) -> dict[str, str]:
    """Return each stem's group after joining the groups of images that look the same."""
    groups = dict(source.groups)
    for stems in near_duplicates:
        joined = {groups[stem] for stem in stems}
        name = min(joined)
        groups = {stem: name if group in joined else group for stem, group in groups.items()}
    return groups
