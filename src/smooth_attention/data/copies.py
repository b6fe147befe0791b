"""Groups of look-alike images, found once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np

from smooth_attention.core.errors import DataError
from smooth_attention.core.files import write_json
from smooth_attention.data.cache_root import NAME_SHOWN, default_cache
from smooth_attention.data.files import FileSource, read_image
from smooth_attention.data.near_duplicates import MAX_DISTANCE, group_near_duplicates

__all__ = ["group_copies"]

COPIES_VERSION = 1  # raised whenever the same images would be grouped in another way


def group_copies(source: FileSource, families: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return each stem's group, named by its first stem; only stems of one family are compared.

    Thousands of images take minutes, so the answer is kept in the cache directory under a hash of the images.

    Args:
        source: the data.
        families: sets of stems. A stem whose image can't be read is a group of its own.
    """
    key = hashlib.sha256(f"{COPIES_VERSION}|{MAX_DISTANCE}".encode())
    for family in families:
        key.update("\n".join(f"{stem} {source.image_digest(stem)}" for stem in family).encode() + b"\0")
    path = default_cache() / f"{source.name[:NAME_SHOWN]}-copies-{key.hexdigest()[:24]}.json"
    if path.is_file():
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return found
    groups = {stem: stem for family in families for stem in family}
    for family in families:
        for stems in group_near_duplicates(readable(source, family)):
            groups |= dict.fromkeys(stems, stems[0])
    write_json(path, groups)
    return groups


def readable(source: FileSource, stems: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    for stem in stems:
        try:
            yield stem, read_image(source.image_files[stem])
        except DataError:  # named where the pair is loaded
            continue
