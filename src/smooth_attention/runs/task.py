"""The Lightning tasks: loss, optimiser, per-epoch metrics; every draw a function of (seed, epoch, step)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import lightning as L
import numpy as np
import torch
from segmentation_models_pytorch import losses
from torch import Tensor, nn
from torch.nn import functional as F

from smooth_attention.core.errors import RunError
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.sources import IGNORED
from smooth_attention.metrics import PUBLISHED, PaperMetrics, count_pixels, score_counts
from smooth_attention.models.blocks import Block
from smooth_attention.models.diagnostics import captured_inputs, diagnose_network
from smooth_attention.models.inference import label_map
from smooth_attention.models.network import Network
from smooth_attention.runs.config import RunConfig

__all__ = ["PaperTask", "SegmentationTask", "StandardTask"]

WARMUP_FRAC = 0.05
ADVICE = "the last good checkpoint is kept: lower --learning-rate or use --precision 32"


class SegmentationLoss(nn.Module):
    """BCE + Dice for one logit, cross-entropy + Dice for several; pixels labelled 255 count nowhere."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.is_binary = classes == 1
        mode = "binary" if self.is_binary else "multiclass"
        self.dice = losses.DiceLoss(mode, from_logits=True, ignore_index=IGNORED)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the loss of logits (B, L, H, W) and labels (B, H, W)."""
        counted = mask != IGNORED
        if self.is_binary:
            pixels = F.binary_cross_entropy_with_logits(logits[:, 0], mask.clamp(max=1).float(), reduction="none")
        else:
            pixels = F.cross_entropy(logits, mask, ignore_index=IGNORED, reduction="none")
        entropy = (pixels * counted).sum() / counted.sum().clamp_min(1)
        loss: Tensor = entropy + self.dice(logits, mask[:, None] if self.is_binary else mask)
        return loss


class SegmentationTask(L.LightningModule, ABC):
    """Trains a network by a configuration; each protocol has its loss, optimiser and watched metrics.

    Attributes:
        monitor: the watched metric that names ``best.ckpt``, higher is better.
        convention: how that metric is computed, for people.
        drops_last: whether training leaves out the last incomplete batch.

    Args:
        net: the network, in place.
        config: of the run.
    """

    monitor: str
    convention: str
    drops_last: bool

    def __init__(self, net: Network, config: RunConfig) -> None:
        super().__init__()
        self.net, self.config = net, config
        self.train_losses: list[Tensor] = []
        self.diagnostics: dict[str, float] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, L, S, S) of uint8 images (B, 3, S, S)."""
        logits: Tensor = self.net(self.net.preprocessing.normalise(images))
        return logits

    @abstractmethod
    def compute_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of logits (B, L, H, W) and the masks of the protocol (B, H, W)."""

    @abstractmethod
    def reset_metrics(self) -> None:
        """Forget the watched images so far."""

    @abstractmethod
    def count_batch(self, logits: Tensor, masks: Tensor) -> None:
        """Take a batch of the watched images into account."""

    @abstractmethod
    def compute_metrics(self) -> dict[str, float]:
        """Return the metrics of the watched images by the names of ``metrics.jsonl``."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups: the rest first, then every block's gamma with its own rate and decay."""
        assert self.config.learning_rate is not None
        rate, decay = self.config.learning_rate, self.config.weight_decay or 0.0
        gammas = {id(module.gamma): module.gamma for module in self.net.modules() if isinstance(module, Block)}
        rest = [parameter for parameter in self.net.parameters() if id(parameter) not in gammas]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": rate, "weight_decay": decay}]
        if gammas:
            own_decay = decay if self.config.decay_gamma else 0.0
            groups.append(
                {"params": [*gammas.values()], "lr": rate * self.config.gamma_rate, "weight_decay": own_decay}
            )
        return groups

    def on_train_epoch_start(self) -> None:
        self.train_losses = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(derive_seed(self.config.seed, "step", self.current_epoch, batch_idx))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, masks = batch
        loss = self.compute_loss(self(images).float(), masks)
        if not torch.isfinite(loss):
            raise RunError(f"the loss became {loss.item()} in epoch {self.current_epoch}, step {batch_idx}; {ADVICE}")
        self.train_losses.append(loss.detach())
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.reset_metrics()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, masks = batch
        if batch_idx == 0:
            with captured_inputs(self.net) as inputs:
                logits = self(images)
            self.diagnostics = diagnose_network(inputs)
        else:
            logits = self(images)
        if not torch.isfinite(logits).all():
            raise RunError(f"the logits of epoch {self.current_epoch} are not finite; {ADVICE}")
        self.count_batch(logits, masks)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.diagnostics, sync_dist=True)
        self.log_dict(self.compute_metrics(), prog_bar=True, sync_dist=True)

    def epoch_metrics(self) -> dict[str, float]:
        """Return the line of this epoch for ``metrics.jsonl``."""
        return {
            "epoch": self.current_epoch,
            "train_loss": torch.stack(self.train_losses).mean().item(),
            **{name: float(self.trainer.callback_metrics[name]) for name in self.compute_metrics()},
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            **self.diagnostics,
        }


class StandardTask(SegmentationTask):
    """Protocol ``standard``: AdamW with warm-up and cosine; watches the pooled IoU of validation images."""

    monitor, convention, drops_last = "val_iou", "pooled, at image size", True

    def __init__(self, net: Network, config: RunConfig) -> None:
        super().__init__(net, config)
        self.loss = SegmentationLoss(net.classes)
        self.num_labels = max(2, net.classes)
        self.reset_metrics()

    def compute_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        loss: Tensor = self.loss(logits, masks)
        return loss

    def reset_metrics(self) -> None:
        self.counts = np.zeros((self.num_labels, 4), dtype=np.int64)

    def count_batch(self, logits: Tensor, masks: Tensor) -> None:
        for predicted, truth in zip(label_map(logits), masks.cpu().numpy(), strict=True):
            self.counts += count_pixels(predicted, truth, num_classes=self.num_labels)

    def compute_metrics(self) -> dict[str, float]:
        counts = torch.from_numpy(self.counts).to(self.device)
        if self.trainer.world_size > 1:
            counts = torch.as_tensor(self.all_gather(counts)).sum(0)
        metrics = score_counts(counts.cpu().numpy() if self.net.classes > 1 else counts.cpu().numpy()[1:])
        iou = metrics["iou"][np.isfinite(metrics["iou"])]
        return {"val_iou": float(iou.mean()) if iou.size else 0.0}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameter_groups())
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warmup = max(1, round(WARMUP_FRAC * total))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class PaperTask(SegmentationTask):
    """Protocol ``paper``: BCE against soft masks, Adam at a constant rate; watches test images, as published."""

    monitor, convention, drops_last = "test_iou", "protocol paper: by columns, mean over batches", False

    def __init__(self, net: Network, config: RunConfig) -> None:
        super().__init__(net, config)
        self.reset_metrics()

    def compute_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits[:, 0], masks)

    def reset_metrics(self) -> None:
        self.metrics = PaperMetrics()

    def count_batch(self, logits: Tensor, masks: Tensor) -> None:
        self.metrics.update((logits[:, 0].sigmoid() > 0.5).cpu().numpy(), masks.cpu().numpy())

    def compute_metrics(self) -> dict[str, float]:
        return {f"test_{name}": value for name, value in self.metrics.compute().items() if name in PUBLISHED}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameter_groups())
