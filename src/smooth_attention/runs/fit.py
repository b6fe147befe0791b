"""Training on Lightning: trainer, loaders, checkpoints, epoch lines; a killed run continues bit for bit."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from smooth_attention.core.errors import ConfigError, DamagedError, DataWarning
from smooth_attention.core.files import plain, write_bytes, write_text
from smooth_attention.data.dataset import EpochSampler, PairDataset
from smooth_attention.models.diagnostics import find_single_value
from smooth_attention.models.network import Network
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.task import SegmentationTask

__all__ = ["autocast", "check_batches", "check_devices", "fit", "read_checkpoint"]


def fit(
    task: SegmentationTask, config: RunConfig, train_set: PairDataset, watched_set: PairDataset, output: Path
) -> tuple[L.Trainer, Timer]:
    """Train a task, continuing from its latest sound checkpoint where there is one; the timer counts earlier parts.

    Args:
        task: network, loss, optimiser and metrics.
        config: of the run.
        train_set: what trains.
        watched_set: what the metrics of each epoch are about.
        output: the run directory.

    Raises:
        DamagedError: where there are checkpoints and none is sound.
    """
    timer = Timer()
    begun = latest_checkpoint(output / "checkpoints")
    with quiet_lightning():
        trainer = L.Trainer(
            devices=config.devices,
            max_epochs=config.epochs,
            precision=choose_precision(config.precision),
            gradient_clip_val=config.clip_norm,
            deterministic=config.deterministic,
            callbacks=[timer, *make_callbacks(task, config, output)],
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
                task.to(memory_format=torch.channels_last),
                make_loader(train_set, config, seed=config.seed, drop_last=task.drops_last),
                make_loader(watched_set, config),
                ckpt_path=begun,
                weights_only=True,
            )
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
    return trainer, timer


def check_devices(config: RunConfig) -> None:
    """Raise where there are fewer GPUs than a run asks for.

    Raises:
        ConfigError: saying how many there are.
    """
    if torch.cuda.is_available() and config.devices > torch.cuda.device_count():
        raise ConfigError(f"this machine has {torch.cuda.device_count()} GPUs, got --devices {config.devices}")


def check_batches(net: Network, config: RunConfig, num_images: int, *, drops_last: bool) -> None:
    """Raise where batch normalisation would get a single value to normalise, found by one dry run.

    Args:
        net: what is going to be trained.
        config: of the run.
        num_images: how many images train.
        drops_last: whether training leaves out the last incomplete batch.

    Raises:
        ConfigError: saying which batch, and what to change.
    """
    share = device_share(num_images, config)
    if smallest_batch(share, config.batch_size, drops_last) > 1:
        return
    shape = find_single_value(net, config.image_size)
    if shape is None:
        return
    sizes = [size for size in range(2, config.batch_size + share) if smallest_batch(share, size, drops_last) > 1]
    advice = "use more images" if config.devices == 1 else "use more images or fewer --devices"
    if sizes:
        advice = f"use --batch-size {min(sizes, key=lambda size: abs(size - config.batch_size))}"
    devices = f" on {config.devices} devices" if config.devices > 1 else ""
    raise ConfigError(
        f"{num_images} training images in batches of {config.batch_size}{devices} leave a batch of one image, in which "
        f"batch normalisation gets a map of one value ({shape}), so nothing can be learned there; {advice}"
    )


def device_share(num_images: int, config: RunConfig) -> int:
    """Return how many images of an epoch each device gets; Lightning makes them equal by repeating some."""
    return math.ceil(num_images / config.devices)


def smallest_batch(num_images: int, batch_size: int, drops_last: bool) -> int:
    """Return the number of images in the smallest training batch of a device; an epoch is at least one batch."""
    if num_images <= batch_size:
        return num_images
    return batch_size if drops_last else num_images % batch_size or batch_size


def make_loader(
    dataset: PairDataset, config: RunConfig, *, seed: int | None = None, drop_last: bool = False
) -> DataLoader[Any]:
    """Return batches, with a seed in an order that depends on (seed, epoch) alone."""
    workers = min(8, os.cpu_count() or 1) if torch.cuda.is_available() else 0
    return DataLoader(
        dataset,
        batch_size=config.batch_size,
        sampler=EpochSampler(len(dataset), seed=seed),
        drop_last=drop_last and device_share(len(dataset), config) > config.batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def make_callbacks(task: SegmentationTask, config: RunConfig, output: Path) -> list[Callback]:
    kept: dict[str, Any] = {"dirpath": output / "checkpoints", "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor=task.monitor, mode="max", save_on_train_epoch_end=True, **kept)
    last = ModelCheckpoint(filename="last", every_n_epochs=1, save_on_train_epoch_end=True, **kept)
    callbacks: list[Callback] = [EpochLines(output / "metrics.jsonl"), best, last]
    if config.patience is not None:
        callbacks.append(Patience(task.monitor, mode="max", patience=config.patience, check_on_train_epoch_end=True))
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
        metrics = pl_module.epoch_metrics()
        if not trainer.is_global_zero:
            return
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        kept = lines[: trainer.current_epoch]  # a continued run repeats its unfinished epoch
        write_text(self.path, "\n".join([*kept, json.dumps(plain(metrics), allow_nan=False)]) + "\n")
        if not sys.stdout.isatty():
            gamma = f", gamma {metrics['gamma']:.4f}" if "gamma" in metrics else ""
            sys.stdout.write(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: train loss {metrics['train_loss']:.4f}, "
                f"{pl_module.monitor.replace('_iou', ' IoU')} {metrics[pl_module.monitor]:.4f} "
                f"({pl_module.convention}){gamma}\n"
            )
            sys.stdout.flush()


def latest_checkpoint(directory: Path) -> Path | None:
    """Return what training goes on from: ``last.ckpt``, or ``best.ckpt`` where it is damaged; None: from nothing.

    Both hold all that training depends on, so that either leads to the same end.

    Raises:
        DamagedError: where there are checkpoints and none is sound.
    """
    last, best = directory / "last.ckpt", directory / "best.ckpt"
    if not last.is_file():
        return None
    try:
        read_checkpoint(last)
    except DamagedError:
        if not best.is_file():
            raise
        read_checkpoint(best)
        warnings.warn(f"{last} is damaged; training goes on from {best}", DataWarning, stacklevel=2)
        return best
    return last


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU.

    Raises:
        DamagedError: where it is no whole checkpoint.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the first damaged byte leads to
        raise DamagedError(f"{path} is damaged; delete {path.parent} to begin the training again") from error
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent; they hold tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(Path(path), buffer.getvalue())


def choose_precision(name: str | None) -> Any:
    """Return Lightning's name of a precision; ``auto`` is bf16 autocast where the hardware has it natively."""
    if name in (None, "auto"):
        is_native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else has_native_bf16()
        name = "bf16" if is_native else "32"
    assert name is not None
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[name]


def autocast(name: str | None, device: torch.device) -> torch.autocast:
    """Return the context in which the trainer of this precision runs a network."""
    kind = choose_precision(name)
    dtype = torch.float16 if kind == "16-mixed" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=kind != "32-true")


def has_native_bf16() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


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
