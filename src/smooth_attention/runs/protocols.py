"""The two protocols: how each splits, feeds, trains and reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smooth_attention.core.errors import DataError
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import PaperMetrics, PaperProtocol
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.cache import CachedPairs, cached_pairs, cached_soft_pairs
from smooth_attention.data.dataset import PairDataset, SoftPairDataset
from smooth_attention.data.sources import Source
from smooth_attention.data.splits import Split, find_leaks, make_split
from smooth_attention.metrics import PUBLISHED, paper_ceiling
from smooth_attention.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.task import PaperTask, SegmentationTask, StandardTask

__all__ = ["PROTOCOLS", "paper_metrics"]

PAPER_TEST_FRAC = 0.2
PAPER_CONVENTION = (
    "protocol paper: IoU and Dice by columns, pixel figures against target == 1, mean over batches of 8; one seed"
)


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a protocol does differently.

    Attributes:
        split: the parts of a source.
        pairs: decoded pairs at the network's size.
        mean: subtracted from 0-1 images.
        std: divided by after that.
        task: loss, optimiser and watched metrics.
        train_set: the training items.
        watched_set: the items whose metrics are computed each epoch.
        chosen: the checkpoint that becomes the run's model, ``best`` or ``last``.
    """

    split: Callable[[Source, RunConfig], Split]
    pairs: Callable[..., CachedPairs]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    task: type[SegmentationTask]
    train_set: Callable[[CachedPairs, Split, RunConfig], PairDataset]
    watched_set: Callable[[CachedPairs, Split], PairDataset]
    chosen: str


def standard_split(source: Source, config: RunConfig) -> Split:
    return make_split(source, split_seed=config.split_seed, fold=config.fold, folds=config.folds)


def paper_split(source: Source, config: RunConfig) -> Split:
    """Return a random 80/20 split by image without a validation part; for layout flood its two folders.

    Groups are not respected, as published; what leaks is said in the warnings.

    Raises:
        DataError: for a task with classes, or fewer than five pairs.
    """
    if source.class_names is not None:
        raise DataError(f"protocol 'paper' is for binary tasks, {source.name} has {len(source.class_names)} classes")
    parts = source.given_splits
    if not source.keeps_lists or not parts:
        stems = list(source.stems)
        if len(stems) < 5:
            raise DataError(f"{source.name} has {len(stems)} pairs; a split of 80/20 needs at least 5")
        np.random.default_rng(derive_seed(config.split_seed, "paper")).shuffle(stems)
        cut = round(len(stems) * PAPER_TEST_FRAC)
        parts = {"train": tuple(stems[cut:]), "test": tuple(stems[:cut])}
    train, test = (tuple(sorted(parts[part])) for part in ("train", "test"))
    leaks = find_leaks(source, {"train": train, "test": test})
    warnings = [f"{len(leaks)} groups or images stand in both parts, as in the published split: the figures flatter"]
    return Split(train, (), test, tuple(warnings if leaks else ()))


def paper_metrics(metrics_file: Path, pairs: CachedPairs, split: Split) -> PaperProtocol:
    """Return the published metrics of the best epoch on test, of the last epoch, and of a perfect predictor."""
    epochs = [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
    best = max(epochs, key=lambda epoch: epoch["test_iou"])
    ceiling = paper_ceiling(np.asarray(pairs.masks[pairs.index[stem]], np.float32) / 255 for stem in split.test)

    def metrics_of(epoch: dict[str, Any]) -> PaperMetrics:
        return read_part(PaperMetrics, {"epoch": epoch["epoch"], **{name: epoch[f"test_{name}"] for name in PUBLISHED}})

    return PaperProtocol(
        convention=PAPER_CONVENTION,
        best_test=metrics_of(best),
        last=metrics_of(epochs[-1]),
        ceiling=read_part(PaperMetrics, {name: ceiling[name] for name in PUBLISHED}),
    )


PROTOCOLS = {
    "standard": Protocol(
        split=standard_split,
        pairs=cached_pairs,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        task=StandardTask,
        train_set=lambda pairs, split, config: PairDataset(
            pairs, split.train, seed=config.seed if config.augment else None
        ),
        watched_set=lambda pairs, split: PairDataset(pairs, split.val),
        chosen="best",
    ),
    "paper": Protocol(
        split=paper_split,
        pairs=cached_soft_pairs,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        task=PaperTask,
        train_set=lambda pairs, split, config: SoftPairDataset(pairs, split.train),
        watched_set=lambda pairs, split: SoftPairDataset(pairs, split.test),
        chosen="last",
    ),
}
