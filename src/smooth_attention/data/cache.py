"""Decoded, resized pairs, kept once on disk and memory-mapped."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from smooth_attention.core.errors import ConfigError, DataError
from smooth_attention.core.files import current_umask, hidden_prefix
from smooth_attention.data.cache_root import NAME_SHOWN
from smooth_attention.data.sources import Pair, Source

__all__ = ["CachedPairs", "cached_pairs", "cached_soft_pairs", "check_readable", "resize_mask"]

LAYOUT_VERSION = 2  # raised whenever the same files are decoded otherwise
FILES = ("images.npy", "masks.npy")
ADVICE = "name another directory in SMOOTH_ATTENTION_CACHE"


@dataclass(frozen=True, slots=True)
class CachedPairs:
    """Pairs at the network's size.

    Attributes:
        images: uint8 (P, S, S, 3), memory-mapped.
        masks: uint8 (P, S, S) of labels, memory-mapped.
        index: from stem to row.
    """

    images: np.memmap
    masks: np.memmap
    index: dict[str, int]

    def __reduce__(self) -> tuple[Callable[..., CachedPairs], tuple[str, tuple[str, ...]]]:
        """Pickle the place, not the pixels: a worker process maps the same files."""
        return open_pairs, (str(Path(str(self.images.filename)).parent), tuple(self.index))


def cached_pairs(source: Source, *, image_size: int, directory: Path) -> CachedPairs:
    """Return every pair of ``source`` resized to a square, decoding only what was never decoded before.

    Images are resized with antialiased bilinear filtering, masks by nearest neighbour; the aspect ratio is lost. The
    key is the content of the pairs and the settings; two processes may fill the same cache at once, one wins.

    Args:
        source: the data.
        image_size: side S in pixels.
        directory: where caches live; made where it is missing.

    Raises:
        DataError: naming the first broken file.
        ConfigError: where the cache can't be written, or has no room for the pairs.
    """
    return map_cache(source, directory, f"{image_size}", lambda stem: resize_pair(source.load(stem), image_size))


def cached_soft_pairs(source: Source, *, image_size: int, directory: Path) -> CachedPairs:
    """Return every pair of a binary source with its mask as grey values, resized like its image.

    As in protocol ``paper``: the mask as distributed, antialiased bilinear, so that its edges are soft; ``masks`` then
    holds 0 to 255, full foreground. Arguments and errors as in :func:`cached_pairs`.
    """
    from smooth_attention.models.preprocessing import resize_image  # late: it brings torch

    def soften(stem: str) -> tuple[np.ndarray, np.ndarray]:
        image, mask = source.load(stem).image, source.load_grey(stem)
        return resize_image(image, image_size), resize_image(mask, image_size)

    return map_cache(source, directory, f"soft-{image_size}", soften)


def map_cache(
    source: Source, directory: Path, settings: str, make_pair: Callable[[str], tuple[np.ndarray, np.ndarray]]
) -> CachedPairs:
    key = hashlib.sha256(f"{LAYOUT_VERSION}|{source.fingerprint}|{settings}".encode()).hexdigest()[:24]
    target = directory / f"{source.name[:NAME_SHOWN]}-{key}"
    if not target.is_dir():
        fill(source, target, make_pair)
    if missing := [name for name in FILES if not (target / name).is_file()]:
        raise DataError(f"the cache {target} lacks {missing[0]}; delete that directory and run again")
    return open_pairs(str(target), source.stems)


def open_pairs(directory: str, stems: Sequence[str]) -> CachedPairs:
    """Map a filled cache whose rows are ``stems``."""
    images, masks = (np.load(Path(directory, name), mmap_mode="r") for name in FILES)
    return CachedPairs(images, masks, {stem: row for row, stem in enumerate(stems)})


def fill(source: Source, target: Path, make_pair: Callable[[str], tuple[np.ndarray, np.ndarray]]) -> None:
    temporary = make_temporary(target)
    try:
        first = make_pair(source.stems[0])
        refuse_full_disk(target.parent, len(source.stems) * sum(part.nbytes for part in first))
        images, masks = (
            np.lib.format.open_memmap(temporary / name, "w+", np.uint8, (len(source.stems), *part.shape))
            for name, part in zip(FILES, first, strict=True)
        )
        for row, stem in enumerate(source.stems):
            images[row], masks[row] = make_pair(stem)
        images.flush()
        masks.flush()
        del images, masks
        temporary.chmod(0o777 & ~current_umask())
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # anything but another process having been first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_temporary(target: Path) -> Path:
    """Return a new empty directory beside ``target``."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=hidden_prefix(target), dir=target.parent))
    except OSError as error:
        raise ConfigError(f"the cache {target.parent} can't be written ({error.strerror}); {ADVICE}") from error


def refuse_full_disk(directory: Path, num_bytes: int) -> None:
    """Raise before a mapped file is filled beyond the disk, which would kill the process."""
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise ConfigError(
            f"the cache {directory} needs {num_bytes / 1e6:.0f} MB, its disk has {free / 1e6:.0f} MB left; free some, "
            f"or {ADVICE}"
        )


def resize_pair(pair: Pair, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    from smooth_attention.models.preprocessing import resize_image  # late: it brings torch

    return resize_image(pair.image, image_size), resize_mask(pair.mask, (image_size, image_size))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a label map (H, W) at another (height, width) by nearest neighbour."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def check_readable(source: Source) -> dict[str, str]:
    """Return the sentence of every pair that can't be loaded, by stem."""
    broken = {}
    for stem in source.stems:
        try:
            source.load(stem)
        except DataError as error:
            broken[stem] = str(error)
    return broken
