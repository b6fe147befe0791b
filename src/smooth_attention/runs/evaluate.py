"""Metrics of a trained network at each image's native size, with the gate or the whole block switched off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from smooth_attention.core.errors import ConfigError
from smooth_attention.core.files import plain, write_bytes
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import Evaluation, PartMetrics, Record, read_record
from smooth_attention.data.cache import CachedPairs, cached_pairs
from smooth_attention.data.sources import Source
from smooth_attention.metrics import StandardMetrics
from smooth_attention.metrics.iou import count_scored, mean_iou
from smooth_attention.models.blocks import Mode, SmoothAttention, Switchable, block_mode
from smooth_attention.models.inference import batches, infer, label_map, prepare, probabilities, resize_logits
from smooth_attention.models.network import Network
from smooth_attention.models.store import load_model
from smooth_attention.runs.config import RunConfig, make_config
from smooth_attention.runs.inputs import Opener, open_checked_source
from smooth_attention.runs.pictures import encode_mask

__all__ = ["MAX_PREDICTIONS", "OpenedRun", "evaluate_network", "evaluate_run", "open_run", "predict_pairs"]

MAX_PREDICTIONS = 200


def evaluate_network(
    net: Network,
    source: Source,
    stems: Sequence[str],
    pairs: CachedPairs,
    *,
    mode: Mode = "on",
    predictions: Path | None = None,
    switch_blocks: bool = False,
) -> PartMetrics:
    """Return the metrics of protocol ``standard`` for some pairs of a source.

    Logits are resized bilinearly to each image's native size and compared with the mask as it is on disk.

    Args:
        net: the network; moved nowhere, put into evaluation mode.
        source: where the native masks come from.
        stems: which pairs.
        pairs: the same pairs at the network's size.
        mode: ``"gate_off"`` or ``"bypass"`` switch the blocks for all metrics.
        predictions: where to write the predicted masks of the first 200 images at native size; None: nowhere.
        switch_blocks: also say what changes with the gate off, and with the block bypassed.

    Returns:
        What :meth:`StandardMetrics.compute` says, and with ``switch_blocks`` ``gate_off`` and ``bypass``: pooled IoU
        and the share of counted pixels whose label changes; None where there is nothing to switch.
    """
    metrics = StandardMetrics(source.class_names, groups=dict(source.groups))
    others = other_modes(net) if switch_blocks else []
    switched = {other: SwitchedCounts(source.class_names) for other in others}
    for number, (stem, logits) in enumerate(predict_pairs(net, stems, pairs, [mode, *others])):
        truth = source.read_labels(stem)
        native = [resize_logits(each, truth.shape) for each in logits]
        metrics.update(stem, probabilities(native[0]), truth)
        labels = [label_map(each) for each in native]
        for other, changed in zip(switched.values(), labels[1:], strict=True):
            other.add(labels[0], changed, truth)
        if predictions is not None and number < MAX_PREDICTIONS:
            write_bytes(predictions / f"{stem}.png", encode_mask(labels[0], source.class_names))
    found = metrics.compute() | {other: counts.compute() for other, counts in switched.items()}
    return read_part(PartMetrics, plain(found))


def other_modes(net: Network) -> list[Mode]:
    """Return what can be switched off in ``net``: a gate that smooths, a block, a filter of the mask."""
    blocks = [module for module in net.modules() if isinstance(module, Switchable)]
    gates = [b for b in blocks if isinstance(b, SmoothAttention) and (b.threshold, b.fraction) != (None, None)]
    modes: list[Mode] = []
    if gates:
        modes.append("gate_off")
    if blocks:
        modes.append("bypass")
    return modes


class SwitchedCounts:
    """What the masks of the same network look like with something switched off, beside its masks as trained."""

    def __init__(self, class_names: Sequence[str] | None) -> None:
        self.class_names = class_names
        self.counts = np.zeros((1 if class_names is None else len(class_names), 4), dtype=np.int64)
        self.changed = self.total = 0

    def add(self, before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> None:
        counted = truth != 255
        self.counts += count_scored(after, truth, self.class_names)
        self.changed += int((before != after)[counted].sum())
        self.total += int(counted.sum())

    def compute(self) -> dict[str, float]:
        return {"iou": float(mean_iou(self.counts)), "changed_pixels": self.changed / max(1, self.total)}


def predict_pairs(
    net: Network, stems: Sequence[str], pairs: CachedPairs, modes: Sequence[Mode]
) -> Iterator[tuple[str, list[Tensor]]]:
    """Give each stem with its float32 logits (L, S, S) in every mode."""
    for batch in batches(stems):
        inputs = prepare(net, np.stack([pairs.images[pairs.index[stem]] for stem in batch]))
        outputs = []
        for mode in modes:
            with block_mode(net, mode):
                outputs.append(infer(net, inputs))
        for row, stem in enumerate(batch):
            yield stem, [output[row] for output in outputs]


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A finished run with all that scoring it again takes.

    Attributes:
        record: of the run.
        config: of the run.
        net: its network.
        source: its data.
        pairs: the same at the network's size.
    """

    record: Record
    config: RunConfig
    net: Network
    source: Source
    pairs: CachedPairs


def open_run(run: Path, *, cache: Path, open_data: Opener = open_checked_source) -> OpenedRun:
    """Return a finished run, ready to be scored again.

    Args:
        run: the run directory.
        cache: where decoded images live.
        open_data: what opens its data.

    Raises:
        ConfigError: where there is no finished run, or its data changed.
        DataError: where its data or model is gone.
    """
    record = read_record(run)
    if record.status != "done":
        raise ConfigError(f"{run} is {record.status}, not done; run the same train command again to finish it")
    config = make_config(record.config, source=str(run / "record.json"))
    source, _ = open_data(config)
    if source.fingerprint != record.data.fingerprint:
        raise ConfigError(f"the data of {source.name} changed since {run} was trained; its split no longer holds")
    pairs = cached_pairs(source, image_size=config.image_size, directory=cache)
    return OpenedRun(record, config, load_model(run), source, pairs)


def evaluate_run(run: Path, *, split: str, mode: Mode, cache: Path) -> Evaluation:
    """Return the metrics of a finished run's network on one part of its own split.

    Args:
        run: the run directory.
        split: ``train``, ``val`` or ``test``.
        mode: ``"on"``, ``"gate_off"`` or ``"bypass"``.
        cache: where decoded images live.

    Raises:
        ConfigError: where there is no finished run, its data changed, or it has nothing to switch off.
        DataError: where its data or model is gone.
    """
    opened = open_run(run, cache=cache)
    net, source, pairs = opened.net, opened.source, opened.pairs
    if mode != "on" and mode not in other_modes(net):
        what = "gate that smooths" if mode == "gate_off" else "block"
        raise ConfigError(f"{run} has arm {opened.config.arm!r}, which has no {what} to switch off")
    stems = getattr(opened.record.data.split, split)
    metrics = evaluate_network(net, source, stems, pairs, mode=mode, switch_blocks=mode == "on")
    return Evaluation(run=str(run), split=split, mode=mode, protocol=opened.config.protocol, metrics=metrics)
