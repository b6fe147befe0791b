"""Which file a name means: of an image, of its mask, of a line in a list, as people write them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

__all__ = ["SUFFIXES", "Names", "is_image_name", "mask_names"]

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"))
MASK_ENDINGS = ("_mask", "_segmentation", "_seg", "_label", "_labels", "_gt", "_L", "-mask")
MASK_PREFIXES = ("mask_", "gt_")
IMAGE_ENDING = "_0000"  # nnU-Net numbers the channels of an image


def is_image_name(name: str) -> bool:
    """Return whether a file is an image by its name."""
    return suffix_of(name) in SUFFIXES


def suffix_of(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return (dot + suffix).lower() if stem else ""


def without_suffix(name: str) -> str:
    """Return a file name without the suffix of an image; other dots stay."""
    return name.rpartition(".")[0] if is_image_name(name) else name


class Names:
    """Names that are looked up as they are, else without regard to case, to blanks around and to how accents are coded.

    Args:
        known: the names, unique.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self.known = set(known)
        self.alike: dict[str, str | None] = {}
        for name in sorted(self.known):
            key = normal(name)
            self.alike[key] = None if key in self.alike else name  # None: two names differ in this alone

    def find(self, *candidates: str) -> str | None:
        """Return the first of the candidates that is known; None: none is."""
        exact = next((name for name in candidates if name in self.known), None)
        return exact or next((name for each in candidates if (name := self.alike.get(normal(each)))), None)

    def find_line(self, line: str) -> str | None:
        """Return the name that a line of a list means: a stem or a file name, with or without its folder."""
        name = line.strip().replace("\\", "/").rpartition("/")[2]
        return self.find(line, name, without_suffix(name))


def normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def mask_names(stem: str) -> Iterator[str]:
    """Give the image names that the stem of a mask may mean, the likeliest first."""
    for name in dict.fromkeys((stem, without_suffix(stem))):
        yield name
        bare = [name[: -len(ending)] for ending in MASK_ENDINGS if name.lower().endswith(ending.lower())]
        bare += [name[len(prefix) :] for prefix in MASK_PREFIXES if name.lower().startswith(prefix.lower())]
        for each in bare:
            yield from (each, without_suffix(each))
        yield from (f"{each}{IMAGE_ENDING}" for each in (name, *bare))
