"""What runs retain of their IoU on corrupted images, and by which set of corruptions: sets are not mixed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from smooth_attention.core.records import Robustness
from smooth_attention.study.execution.collect import Result

__all__ = ["are_mixed", "retention_of", "robustness_of", "split_alike", "tell_others"]


@dataclass(frozen=True, slots=True)
class CorruptionSet:
    """How the test images of a run were corrupted.

    Attributes:
        names: of the corruptions.
        severities: of each.
        images: how many test images were corrupted.
    """

    names: frozenset[str]
    severities: tuple[int, ...]
    images: int


@dataclass(frozen=True, slots=True)
class Retention:
    """Pooled IoU on corrupted over clean test images, mean over a set of corruptions; None where it is undefined."""

    value: float | None
    given: CorruptionSet


def robustness_of(results: Iterable[Result]) -> list[Robustness]:
    """Return what was measured on corrupted images; runs without are left out."""
    return [found for result in results if (found := result.record.metrics.test.corruptions)]


def retention_of(result: Result) -> Retention | None:
    """Return what a run retains; None where no corrupted images were scored."""
    found = result.record.metrics.test.corruptions
    if found is None:
        return None
    return Retention(found.retention, CorruptionSet(frozenset(found.corruptions), found.severities, found.images))


def are_mixed(results: Iterable[Result]) -> bool:
    """Return whether runs were corrupted in different ways, so that what they retain must not be averaged or compared.

    Other folds may test another number of images. Runs without corrupted images are left out.
    """
    sets = [(result.fold, found.given) for result in results if (found := retention_of(result))]
    kinds = {(given.names, given.severities) for _, given in sets}
    return len(kinds) > 1 or len({(fold, given.images) for fold, given in sets}) > len({fold for fold, _ in sets})


def split_alike(by_arm: Mapping[str, Sequence[Result]]) -> tuple[dict[str, Sequence[Result]], list[str]]:
    """Return the arms that were corrupted as the first one, with their runs, and the names of the others."""
    kept: dict[str, Sequence[Result]] = {}
    others = []
    for arm, results in by_arm.items():
        scored = [result for result in results if retention_of(result)]
        if are_mixed([*chain.from_iterable(kept.values()), *scored]):
            others.append(arm)
        elif scored:
            kept[arm] = scored
    return kept, others


def tell_others(arms: Sequence[str]) -> str:
    """Return what a caption adds where arms are left out; empty where none are."""
    return f". Left out, since corrupted in different ways: {', '.join(arms)}" if arms else ""
