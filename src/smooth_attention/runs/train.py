"""One run: data, network, training, metrics of the chosen checkpoint, record."""

from __future__ import annotations

import json
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Timer

from smooth_attention.core.errors import ConfigError, DataError, DataWarning, reason_of
from smooth_attention.core.files import expand, plain
from smooth_attention.core.outputs import check_output_directory
from smooth_attention.core.parts import read_part
from smooth_attention.core.provenance import versions
from smooth_attention.core.records import (
    CardFacts,
    CardMetrics,
    CardPart,
    DataFacts,
    Diagnostics,
    Epochs,
    PartMetrics,
    Record,
    Replicate,
    RunMetrics,
    Seconds,
    SplitStems,
    read_record,
    write_record,
)
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.cache import CachedPairs
from smooth_attention.data.check import ZERO_AND_255
from smooth_attention.data.sources import IGNORED, Source
from smooth_attention.data.splits import Split, keep_share
from smooth_attention.models import PaperUNet, Preprocessing, create_model, load_model, resolve_arm
from smooth_attention.models.diagnostics import THRESHOLDS, refuse_single_cells
from smooth_attention.models.network import Network
from smooth_attention.runs.config import RunConfig, make_config, read_config, write_config
from smooth_attention.runs.evaluate import evaluate_network
from smooth_attention.runs.fit import check_batches, check_devices, fit, read_checkpoint
from smooth_attention.runs.inputs import Opener, open_checked_source
from smooth_attention.runs.protocols import PROTOCOLS, paper_metrics

__all__ = ["build_network", "train", "train_on"]


def train(config: RunConfig, output: Path, *, cache: Path) -> Record:
    """Train one network, score_run the checkpoint that its protocol chooses, and leave a run directory.

    Running the same configuration again continues what is unfinished; a finished run is returned as it is. Protocol
    ``standard`` chooses the best checkpoint on validation images; ``paper`` has none and scores the last.

    Args:
        config: of the run.
        output: the run directory.
        cache: where decoded images live.

    Returns:
        The record.

    Raises:
        RequestError: on data or options that can't be used, or a directory that holds something else.
        RunError: where training failed; the record says why, as it does of every other error, and the last good
            checkpoint is kept.
    """
    return train_on(open_checked_source, config, output, cache=cache)


def train_on(open_data: Opener, config: RunConfig, output: Path, *, cache: Path) -> Record:
    """Do what :func:`train` does, its data opened by ``open_data``."""
    output = expand(output)  # as Lightning does with its part of it
    if is_done(config, output):
        return read_record(output)
    check_output_directory(output)
    check_devices(config)
    protocol = PROTOCOLS[config.protocol]
    source, notes = open_data(config)
    split = keep_share(source, protocol.split(source, config), config.train_frac, config.split_seed)
    pairs = protocol.pairs(source, image_size=config.image_size, directory=cache)
    refuse_other_data(output, source)
    if not config.allow_absent_classes:
        refuse_absent_classes(source, split, pairs)
    net = build_network(config, source)
    check_batches(net, config, len(split.train), drops_last=protocol.task.drops_last)
    output.mkdir(parents=True, exist_ok=True)
    write_config(output / "config.yaml", config)
    record = first_record(config, source, split, notes)
    write_record(output, record)
    for sentence in record.data.warnings:
        warnings.warn(sentence, DataWarning, stacklevel=2)
    train_set, watched_set = protocol.train_set(pairs, split, config), protocol.watched_set(pairs, split)
    try:
        trainer, timer = fit(protocol.task(net, config), config, train_set, watched_set, output)
        if trainer.is_global_zero:
            write_record(output, score_run(record, net, config, source, split, pairs, output, trainer, timer))
    except Exception as error:
        with suppress(OSError):  # of a full disk; the error itself is told
            write_record(output, replace(record, status="failed", reason=reason_of(error)))
        raise
    return read_record(output)


def score_run(
    record: Record,
    net: Network,
    config: RunConfig,
    source: Source,
    split: Split,
    pairs: CachedPairs,
    output: Path,
    trainer: L.Trainer,
    timer: Timer,
) -> Record:
    """Save the chosen checkpoint as the run's model and return the record with what is to say of it."""
    started = time.monotonic()
    chosen = PROTOCOLS[config.protocol].chosen
    checkpoint = read_checkpoint(output / "checkpoints" / f"{chosen}.ckpt")
    weights = {k.removeprefix("net."): v for k, v in checkpoint["state_dict"].items() if k.startswith("net.")}
    net.load_state_dict(weights)
    net.save_pretrained(output / "model")
    net = load_model(output).to(trainer.strategy.root_device)  # what is on disk is what is scored
    masks = output / "predictions"
    metrics = RunMetrics(
        test=evaluate_network(net, source, split.test, pairs, predictions=masks, switch_blocks=True),
        val=evaluate_network(net, source, split.val, pairs) if split.val else None,
        paper=paper_metrics(output / "metrics.jsonl", pairs, split) if config.protocol == "paper" else None,
    )
    net.facts = plain(card_facts(record, config, split, metrics.test))
    net.save_pretrained(output / "model")
    return replace(
        record,
        status="done",
        device=str(trainer.strategy.root_device),
        epoch=Epochs(
            chosen=int(checkpoint["epoch"]),
            chosen_by="val_iou, pooled, at image size" if chosen == "best" else "the last epoch",
            last=trainer.current_epoch - 1,
        ),
        seconds=Seconds(train=round(timer.time_elapsed("train"), 1), evaluate=round(time.monotonic() - started, 1)),
        metrics=metrics,
        diagnostics=read_diagnostics(output / "metrics.jsonl"),
    )


def card_facts(record: Record, config: RunConfig, split: Split, test: PartMetrics) -> CardFacts:
    """Return what the model card says of a training."""
    return CardFacts(
        arm=config.arm,
        data=record.data.name,
        images={part: len(stems) for part, stems in split.parts().items()},
        protocol=config.protocol,
        replicate=record.replicate,
        metrics=CardMetrics(test=CardPart(pooled=test.pooled, per_image=test.per_image)),
    )


def is_done(config: RunConfig, output: Path) -> bool:
    """Return whether ``output`` holds this very run, finished.

    Raises:
        ConfigError: where it holds another configuration, or files that are no run.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output is a run directory, but {output} is a file; name another")
    if not output.is_dir() or all(file.name.startswith(".") for file in output.iterdir()):  # left by a kill
        return False
    if not (output / "config.yaml").is_file():
        raise ConfigError(f"{output} is not empty and holds no run; name another directory")
    before = make_config(read_config(output / "config.yaml"), source=str(output / "config.yaml"))
    if before != config:
        changed = [name for name in RunConfig.model_fields if getattr(before, name) != getattr(config, name)]
        detail = ", ".join(f"{name} {getattr(before, name)!r} there, {getattr(config, name)!r} now" for name in changed)
        raise ConfigError(f"{output} holds a run of another configuration ({detail}); name another directory")
    return (output / "record.json").is_file() and read_record(output).status == "done"


def refuse_other_data(output: Path, source: Source) -> None:
    if not (output / "record.json").is_file():
        return
    before = read_record(output).data.fingerprint  # a run that failed before its data was open has none
    if before is not None and before != source.fingerprint:
        raise ConfigError(f"the data of {source.name} changed since {output} was begun; name another directory")


def refuse_absent_classes(source: Source, split: Split, pairs: CachedPairs) -> None:
    rows = [pairs.index[stem] for stem in split.train]
    present = np.unique(np.concatenate([np.unique(pairs.masks[row]) for row in rows]))
    if source.class_names is None:
        present = np.minimum(present, 1)  # a soft mask is foreground wherever it is above 0
    names = source.class_names or ("background", "foreground")
    if source.class_names is not None and set(present.tolist()) == {0, IGNORED}:
        raise DataError(f"{source.name}: {ZERO_AND_255}")
    if absent := [name for label, name in enumerate(names) if label not in present]:
        raise DataError(
            f"{', '.join(absent)} never occurs in the {len(rows)} training masks of {source.name}, so it can't be "
            "learned; mend the masks, use another --split-seed, or pass --allow-absent-classes"
        )


def build_network(config: RunConfig, source: Source) -> Network:
    """Return the network of a configuration; arms of one seed share the initial weights that they have in common."""
    block, options = resolve_arm(
        config.arm, threshold=config.threshold, fraction=config.fraction, gamma_init=config.gamma_init
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        net: Network
        if config.network == "paper":
            net = PaperUNet(config.encoder_weights, source.num_logits, None, block=block, block_options=options)
        else:
            net = create_model(
                str(config.network),
                encoder_name=config.encoder,
                encoder_weights=config.encoder_weights,
                classes=source.num_logits,
                block=block,
                block_options=options,
                stages=config.stages,
                **({} if config.output_stride is None else {"output_stride": config.output_stride}),
            )
    protocol = PROTOCOLS[config.protocol]
    net.preprocessing = Preprocessing(config.image_size, protocol.mean, protocol.std, source.class_names)
    refuse_single_cells(net, config.image_size)
    return net


def first_record(config: RunConfig, source: Source, split: Split, notes: list[str]) -> Record:
    return Record(
        status="running",
        config=config.model_dump(mode="json"),
        data=DataFacts(
            name=source.name,
            layout=source.layout,
            fingerprint=source.fingerprint,
            class_names=source.class_names,
            split=SplitStems(train=split.train, val=split.val, test=split.test),
            warnings=(*notes, *split.warnings),
        ),
        replicate=Replicate(fold=config.fold, folds=split.folds, seed=config.seed, split_seed=config.split_seed),
        versions=versions(),
    )


def read_diagnostics(path: Path) -> Diagnostics:
    """Return the block's metrics by epoch, as the record holds them; empty where there is no block."""
    epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = ["gamma", "share_of_output", "max_probability", "sink_share"]
    found: dict[str, Any] = {name: [epoch[name] for epoch in epochs] for name in names if name in epochs[0]}
    if "smoothed_fraction.t" in epochs[0]:
        found["smoothed_fraction"] = {
            str(t): [epoch[f"smoothed_fraction.{t}"] for epoch in epochs] for t in ("t", *THRESHOLDS)
        }
    return read_part(Diagnostics, plain(found))
