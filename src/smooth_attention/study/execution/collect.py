"""What a study has so far: the records of its runs, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smooth_attention.core.records import Record
from smooth_attention.study.design.config import StudyConfig

__all__ = ["Failure", "Result", "Study"]


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run.

    Attributes:
        dataset: its name.
        arm: name in the study, e.g. ``smooth-0.4``.
        fold: which fold was tested, 0 where the split is fixed.
        seed: of the training.
        directory: of the run; for ``smooth-tuned`` that of the arm that it chose.
        record: what the run left, see ``core.records``.
        chosen: for ``smooth-tuned`` the arm chosen on validation in this replicate, else None.
    """

    dataset: str
    arm: str
    fold: int
    seed: int
    directory: Path
    record: Record
    chosen: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that failed, and why."""

    dataset: str
    arm: str
    fold: int
    seed: int
    reason: str


@dataclass(frozen=True, slots=True)
class Study:
    """A study with its finished runs in the order of the plan.

    Attributes:
        config: what was asked.
        directory: where it lives.
        results: finished runs; those of ``smooth-tuned`` too.
        failures: runs that failed.
        planned: number of runs of the plan, without ``smooth-tuned``, which trains nothing of its own.
    """

    config: StudyConfig
    directory: Path
    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    planned: int

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets, in order."""
        return tuple(dict.fromkeys(result.dataset for result in self.results))

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms that have results, in order."""
        return tuple(dict.fromkeys(result.arm for result in self.results))

    def of(self, dataset: str, arm: str) -> tuple[Result, ...]:
        """Return the finished runs of an arm on a dataset, by fold and seed."""
        return tuple(result for result in self.results if (result.dataset, result.arm) == (dataset, arm))
