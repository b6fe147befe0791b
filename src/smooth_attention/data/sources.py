"""Sources of image and mask pairs: what every layout gives to splits, cache and evaluation."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smooth_attention.core.errors import DataError

__all__ = ["IGNORED", "Pair", "Source"]

IGNORED = 255


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with its mask, at native size.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        mask: uint8 (H, W) of labels: 0 and 1 for a binary task, class indices otherwise, 255 = ignored.
    """

    image: np.ndarray
    mask: np.ndarray


class Source(ABC):
    """Image and mask pairs by stem, in sorted order.

    Attributes:
        name: of the dataset, for tables.
        layout: name of the layout of its directory; None of generated data.
        class_names: one name per label, or None for a binary task.
        stems: names of the pairs, unique, sorted.
        groups: from stem to its group; a group lies wholly in one part of a split.
        given_splits: lists of stems that came with the data, by part, or empty.
        keeps_lists: whether protocol ``paper`` keeps the given lists instead of a random split, as published.
        problems: one sentence for each file that can take no part: no partner, no image by its name.
        notes: one sentence for each known peculiarity of a published dataset; none of them keeps it from being used.
    """

    name: str
    layout: str | None = None
    class_names: tuple[str, ...] | None = None
    stems: tuple[str, ...]
    groups: Mapping[str, str]
    given_splits: Mapping[str, tuple[str, ...]] = {}
    keeps_lists: bool = False
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @abstractmethod
    def load(self, stem: str) -> Pair:
        """Return the pair of a stem at native size.

        Raises:
            DataError: naming the file that is broken or does not fit.
        """

    @abstractmethod
    def digest(self, stem: str) -> str:
        """Return a hash that changes when the pair's content changes."""

    @abstractmethod
    def image_digest(self, stem: str) -> str:
        """Return a hash of the image alone; equal for identical images."""

    def load_grey(self, stem: str) -> np.ndarray:
        """Return the mask of a stem as distributed: uint8 (H, W), 0 to 255, where 255 is surely foreground.

        Raises:
            DataError: where the file is broken, or masks hold class indices.
        """
        if self.class_names is not None:
            raise DataError(
                f"{self.name} has masks of {len(self.class_names)} classes, which have no grey form; "
                "give data with one foreground"
            )
        return self.read_labels(stem) * np.uint8(255)

    def read_labels(self, stem: str) -> np.ndarray:
        """Return the mask of a stem as uint8 labels (H, W), without its image where that is cheaper."""
        return self.load(stem).mask

    @property
    def num_labels(self) -> int:
        """Labels of a mask: 2 for a binary task."""
        return 2 if self.class_names is None else len(self.class_names)

    @property
    def num_logits(self) -> int:
        """Logits of a network for this data: 1 for a binary task."""
        return 1 if self.class_names is None else len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every pair's content, of the names and of the classes."""
        parts = [f"{stem}\0{self.groups[stem]}\0{self.digest(stem)}" for stem in self.stems]
        parts.append(repr((self.class_names, sorted(self.given_splits.items()))))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def without(self, stems: set[str]) -> Source:
        """Return the same source without some of its pairs."""
        return Subset(self, tuple(stem for stem in self.stems if stem not in stems))


class Subset(Source):
    """A source with only some of its stems."""

    def __init__(self, whole: Source, stems: tuple[str, ...]) -> None:
        if not stems:
            raise DataError(f"nothing is left of {whole.name}: none of its {len(whole.stems)} pairs can be used")
        self.whole = whole
        self.name, self.class_names, self.stems, self.notes = whole.name, whole.class_names, stems, whole.notes
        self.keeps_lists, self.layout = whole.keeps_lists, whole.layout
        self.groups = {stem: whole.groups[stem] for stem in stems}
        kept = set(stems)
        self.given_splits = {
            part: tuple(stem for stem in listed if stem in kept) for part, listed in whole.given_splits.items()
        }

    def load(self, stem: str) -> Pair:
        return self.whole.load(stem)

    def load_grey(self, stem: str) -> np.ndarray:
        return self.whole.load_grey(stem)

    def read_labels(self, stem: str) -> np.ndarray:
        return self.whole.read_labels(stem)

    def digest(self, stem: str) -> str:
        return self.whole.digest(stem)

    def image_digest(self, stem: str) -> str:
        return self.whole.image_digest(stem)
