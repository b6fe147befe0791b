"""Pairs as tensors for training: joint transforms whose draws depend on (seed, epoch, stem) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.cache import CachedPairs
from smooth_attention.data.sources import IGNORED

__all__ = ["EpochSampler", "PairDataset", "SoftPairDataset"]


def joint_transform() -> v2.Transform:
    """Return flips, a small affine map and colour jitter; what an affine map uncovers is ignored in the mask."""
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORED}
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.1),
            v2.RandomAffine(
                degrees=10, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR,
                fill=fill,
            ),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02),
        ]
    )  # fmt: skip


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Image and mask tensors of some stems; an item is asked for by (epoch, row).

    Items are ``(image, mask)``: float32 (3, S, S) in 0-1 and int64 (S, S) of labels, 255 = ignored.

    Args:
        pairs: the cached pairs.
        stems: which of them, in this order.
        seed: of the augmentation; None for none.
    """

    def __init__(self, pairs: CachedPairs, stems: Sequence[str], *, seed: int | None = None) -> None:
        self.pairs, self.stems, self.seed = pairs, tuple(stems), seed
        self.transform = joint_transform()

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Float[Tensor, "3 s s"], Int[Tensor, "s s"]]:
        epoch, position = key
        stem = self.stems[position]
        row = self.pairs.index[stem]
        image = tv_tensors.Image(torch.from_numpy(np.array(self.pairs.images[row])).permute(2, 0, 1).contiguous())
        mask = tv_tensors.Mask(torch.from_numpy(np.array(self.pairs.masks[row])))
        if self.seed is not None:
            with torch.random.fork_rng(devices=[]):
                # torch.manual_seed would reseed the accelerator's generator too, which nothing here restores.
                torch.default_generator.manual_seed(derive_seed(self.seed, "augment", epoch, stem))
                image, mask = self.transform(image, mask)
        return image.as_subclass(Tensor).float() / 255, self.convert_mask(mask.as_subclass(Tensor))

    def convert_mask(self, mask: Tensor) -> Tensor:
        """Return what the loss takes: int64 labels."""
        return mask.long()


class SoftPairDataset(PairDataset):
    """The same with soft masks: float32 (S, S) in 0-1, from :func:`cached_soft_pairs`; never augmented."""

    def __init__(self, pairs: CachedPairs, stems: Sequence[str]) -> None:
        super().__init__(pairs, stems)

    def convert_mask(self, mask: Tensor) -> Tensor:
        return mask.float() / 255


class EpochSampler(Sampler[tuple[int, int]]):
    """Rows of each epoch in an order that depends on (seed, epoch) alone; without a seed in order."""

    def __init__(self, num_items: int, *, seed: int | None = None) -> None:
        self.num_items, self.seed, self.epoch = num_items, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_items

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order: Sequence[int] = range(self.num_items)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
            order = torch.randperm(self.num_items, generator=generator).tolist()
        return ((self.epoch, position) for position in order)
