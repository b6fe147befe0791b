"""One run: data, network, training on Lightning, figures of the best checkpoint, record."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from smooth_attention.core.errors import ConfigError, DataError, DataWarning, RunError
from smooth_attention.core.files import plain, write_bytes, write_text
from smooth_attention.core.provenance import versions
from smooth_attention.core.records import read_record, write_record
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.cache import CachedPairs, cached_pairs
from smooth_attention.data.dataset import EpochSampler, PairDataset
from smooth_attention.data.sources import Source
from smooth_attention.data.splits import DEFAULT_FOLDS, Split, make_split
from smooth_attention.models import PaperUNet, create_model, load_model, resolve_arm
from smooth_attention.models.diagnostics import THRESHOLDS
from smooth_attention.models.network import Network
from smooth_attention.runs.config import RunConfig, make_config, read_config, write_config
from smooth_attention.runs.evaluate import evaluate_network
from smooth_attention.runs.inputs import open_checked_source
from smooth_attention.runs.task import SegmentationTask


def train(config: RunConfig, output: Path, *, cache: Path) -> dict[str, Any]:
    """Train one network, score its best checkpoint, and leave a run directory.

    Running the same configuration again continues what is unfinished; a finished run is returned as it is.

    Args:
        config: of the run.
        output: the run directory.
        cache: where decoded images live.

    Returns:
        The record.

    Raises:
        RequestError: on data or options that can't be used, or a directory that holds something else.
        RunError: where training failed; the record says why, the last good checkpoint is kept.
    """
    if is_done(config, output):
        return read_record(output)
    source, notes = open_checked_source(config)
    split = make_split(source, split_seed=config.split_seed, fold=config.fold, folds=config.folds)
    pairs = cached_pairs(source, image_size=config.image_size, directory=cache)
    refuse_other_data(output, source)
    if not config.allow_absent_classes:
        refuse_absent_classes(source, split, pairs)
    net = build_network(config, source)
    output.mkdir(parents=True, exist_ok=True)
    write_config(output / "config.yaml", config)
    record = first_record(config, source, split, notes)
    write_record(output, record)
    for sentence in record["data"]["warnings"]:
        warnings.warn(sentence, DataWarning, stacklevel=2)
    try:
        trainer, timer = fit(net, config, split, pairs, output)
    except RunError as error:
        write_record(output, {**record, "status": "failed", "reason": str(error)})
        raise
    if not trainer.is_global_zero:
        return record
    started = time.monotonic()
    best = torch.load(output / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
    net.load_state_dict({k.removeprefix("net."): v for k, v in best["state_dict"].items() if k.startswith("net.")})
    net.save_pretrained(output / "model")
    net = load_model(output).to(trainer.strategy.root_device)  # what is on disk is what is scored
    metrics = {
        "test": evaluate_network(
            net, source, split.test, pairs, predictions=output / "predictions", switch_blocks=True
        ),
        "val": evaluate_network(net, source, split.val, pairs),
    }
    record |= {
        "status": "done",
        "device": str(trainer.strategy.root_device),
        "epoch": {
            "best": int(best["epoch"]),
            "last": trainer.current_epoch - 1,
            "chosen_by": "val_iou, pooled, at image size",
        },
        "seconds": {"train": round(timer.time_elapsed("train"), 1), "evaluate": round(time.monotonic() - started, 1)},
        "metrics": metrics,
        "diagnostics": read_diagnostics(output / "metrics.jsonl"),
    }
    write_record(output, record)
    return read_record(output)


def is_done(config: RunConfig, output: Path) -> bool:
    """Return whether ``output`` holds this very run, finished.

    Raises:
        ConfigError: where it holds another configuration, or files that are no run.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output is a run directory, but {output} is a file; name another")
    if not output.is_dir() or not any(output.iterdir()):
        return False
    if not (output / "config.yaml").is_file():
        raise ConfigError(f"{output} is not empty and holds no run; name another directory")
    before = make_config(read_config(output / "config.yaml"), source=str(output / "config.yaml"))
    if before != config:
        changed = [name for name in RunConfig.model_fields if getattr(before, name) != getattr(config, name)]
        detail = ", ".join(f"{name} {getattr(before, name)!r} there, {getattr(config, name)!r} now" for name in changed)
        raise ConfigError(f"{output} holds a run of another configuration ({detail}); name another directory")
    return (output / "record.json").is_file() and read_record(output)["status"] == "done"


def refuse_other_data(output: Path, source: Source) -> None:
    if not (output / "record.json").is_file():
        return
    before = read_record(output)["data"]["fingerprint"]
    if before != source.fingerprint:
        raise ConfigError(f"the data of {source.name} changed since {output} was begun; name another directory")


def refuse_absent_classes(source: Source, split: Split, pairs: CachedPairs) -> None:
    rows = [pairs.index[stem] for stem in split.train]
    present = np.unique(np.concatenate([np.unique(pairs.masks[row]) for row in rows]))
    names = source.class_names or ("background", "foreground")
    if absent := [name for label, name in enumerate(names) if label not in present]:
        raise DataError(
            f"{', '.join(absent)} never occurs in the {len(rows)} training masks of {source.name}, so it can't be "
            "learned; mend the masks, use another --split-seed, or pass --allow-absent-classes"
        )


def build_network(config: RunConfig, source: Source) -> Network:
    """Return the network of a configuration; arms of one seed share the initial weights that they have in common."""
    gamma_init = config.gamma_init
    if gamma_init is None:
        gamma_init = 0.0 if config.network == "paper" else 0.1
    block, options = resolve_arm(
        config.arm, threshold=config.threshold, fraction=config.fraction, gamma_init=gamma_init
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        net: Network
        if config.network == "paper":
            net = PaperUNet(config.encoder_weights, source.num_logits, None, block=block, block_options=options)
        else:
            net = create_model(
                config.network,
                encoder_name=config.encoder,
                encoder_weights=config.encoder_weights,
                classes=source.num_logits,
                block=block,
                block_options=options,
                stages=config.stages,
            )
    net.preprocessing = replace(net.preprocessing, image_size=config.image_size, class_names=source.class_names)
    return net


def first_record(config: RunConfig, source: Source, split: Split, notes: list[str]) -> dict[str, Any]:
    return {
        "status": "running",
        "config": config.model_dump(mode="json"),
        "data": {
            "name": source.name,
            "fingerprint": source.fingerprint,
            "class_names": source.class_names,
            "split": split.parts(),
            "warnings": [*notes, *split.warnings],
        },
        "replicate": {
            "fold": config.fold,
            "folds": config.folds or (None if source.given_splits else DEFAULT_FOLDS),
            "seed": config.seed,
            "split_seed": config.split_seed,
        },
        "versions": versions(),
    }


def fit(net: Network, config: RunConfig, split: Split, pairs: CachedPairs, output: Path) -> tuple[L.Trainer, Timer]:
    """Train ``net``, continuing from ``checkpoints/last.ckpt`` where there is one; the timer counts earlier parts."""
    timer = Timer()
    last = output / "checkpoints" / "last.ckpt"
    train_set = PairDataset(pairs, split.train, seed=config.seed if config.augment else None)
    with quiet_lightning():
        trainer = L.Trainer(
            devices=config.devices,
            max_epochs=config.epochs,
            precision=choose_precision(config.precision),
            gradient_clip_val=config.clip_norm,
            deterministic=config.deterministic,
            callbacks=[timer, *make_callbacks(config, output)],
            logger=TensorBoardLogger(output, name="tensorboard", version="") if config.tensorboard else False,
            plugins=[AtomicCheckpointIO()],
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
            default_root_dir=output,
        )
        try:
            trainer.fit(
                SegmentationTask(net.to(memory_format=torch.channels_last), config),
                make_loader(train_set, config, seed=config.seed),
                make_loader(PairDataset(pairs, split.val), config, seed=None),
                ckpt_path=last if last.is_file() else None,
                weights_only=True,
            )
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
    return trainer, timer


def make_loader(dataset: PairDataset, config: RunConfig, *, seed: int | None) -> DataLoader[Any]:
    """Return batches in an order that depends on (seed, epoch); with a seed the last incomplete batch is dropped."""
    workers = min(8, os.cpu_count() or 1) if torch.cuda.is_available() else 0
    return DataLoader(
        dataset,
        batch_size=config.batch_size,
        sampler=EpochSampler(len(dataset), seed=seed),
        drop_last=seed is not None and len(dataset) > config.batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def make_callbacks(config: RunConfig, output: Path) -> list[Callback]:
    kept: dict[str, Any] = {"dirpath": output / "checkpoints", "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor="val_iou", mode="max", save_on_train_epoch_end=True, **kept)
    last = ModelCheckpoint(filename="last", every_n_epochs=1, save_on_train_epoch_end=True, **kept)
    callbacks: list[Callback] = [EpochLines(output / "metrics.jsonl"), best, last]
    if config.patience is not None:
        callbacks.append(Patience("val_iou", mode="max", patience=config.patience, check_on_train_epoch_end=True))
    if sys.stdout.isatty():
        callbacks.append(RichProgressBar())
    return callbacks


class Patience(EarlyStopping):
    """Early stopping that stays stopped when a run is continued after its last epoch."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class EpochLines(Callback):
    """Appends a line per epoch to ``metrics.jsonl``, and prints one where there is no progress bar."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        figures = pl_module.epoch_figures()
        if not trainer.is_global_zero:
            return
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        kept = lines[: trainer.current_epoch]  # a continued run repeats its unfinished epoch
        write_text(self.path, "\n".join([*kept, json.dumps(plain(figures), allow_nan=False)]) + "\n")
        if not sys.stdout.isatty():
            gamma = f", gamma {figures['gamma']:.4f}" if "gamma" in figures else ""
            sys.stdout.write(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: train loss {figures['train_loss']:.4f}, "
                f"val IoU {figures['val_iou']:.4f} (pooled, at image size){gamma}\n"
            )
            sys.stdout.flush()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent; they hold tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(Path(path), buffer.getvalue())


def choose_precision(name: str) -> Any:
    """Return Lightning's name of a precision; ``auto`` is bf16 autocast where the hardware has it natively."""
    if name == "auto":
        is_native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else has_native_bf16()
        name = "bf16" if is_native else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[name]


def has_native_bf16() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def read_diagnostics(path: Path) -> dict[str, Any]:
    """Return the block's figures by epoch, as the record holds them; empty where there is no block."""
    epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = ["gamma", "share_of_output", "max_probability", "sink_share"]
    found: dict[str, Any] = {name: [epoch[name] for epoch in epochs] for name in names if name in epochs[0]}
    if "smoothed_fraction.t" in epochs[0]:
        found["smoothed_fraction"] = {
            str(t): [epoch[f"smoothed_fraction.{t}"] for epoch in epochs] for t in ("t", *THRESHOLDS)
        }
    return found


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from repeating what the run directory already says; real warnings still pass."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
