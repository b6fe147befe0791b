"""Opening data: generated scenes, or a directory whose layout is named or recognised."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from smooth_attention.core.errors import DataError
from smooth_attention.data.files import FileSource
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.layouts import PUBLISHED, LayoutName, archives_in, missing
from smooth_attention.data.parts import PartsSource
from smooth_attention.data.shapes import ShapesSource
from smooth_attention.data.sources import Source

__all__ = ["open_source"]


OWN: dict[str, type[FolderSource]] = {"folder": FolderSource, "parts": PartsSource}


def open_source(
    data: str | Path, layout: LayoutName | None = None, *, size: int = 224, mask_threshold: int | None = None
) -> Source:
    """Return the source behind ``shapes`` or a path.

    Args:
        data: ``"shapes"`` or a directory.
        layout: its name, or None to recognise it.
        size: side of generated scenes in pixels.
        mask_threshold: grey value from which a binary mask is foreground; None: masks hold two values.

    Raises:
        DataError: where there is no such directory or its layout is not recognised.
    """
    if str(data) == "shapes" and layout is None:
        refuse_threshold(mask_threshold, "generated scenes have exact masks")
        return ShapesSource(size=size)
    if layout not in (None, *get_args(LayoutName)):
        known = ", ".join(get_args(LayoutName))
        raise DataError(f"no layout {layout!r}; known: {known}; leave it out to have it recognised")
    return open_layout(Path(data), layout, mask_threshold)


def open_layout(root: Path, layout: LayoutName | None = None, mask_threshold: int | None = None) -> FileSource:
    """Return the data in a directory, its layout recognised unless it is named.

    Raises:
        DataError: where the directory has no known layout, or more than one, or a threshold means nothing to it.
    """
    name = recognise(root) if layout is None else layout
    if name in OWN:
        return OWN[name](root, mask_threshold)
    refuse_threshold(mask_threshold, f"layout {name!r} reads its masks as published")
    return PUBLISHED[name](root)


def refuse_threshold(mask_threshold: int | None, reason: str) -> None:
    if mask_threshold is not None:
        raise DataError(f"--mask-threshold {mask_threshold} means nothing here: {reason}; leave it out")


def recognise(root: Path) -> str:
    """Return the name of the layout of a directory: a published one, ``parts``, otherwise ``folder``."""
    found = [name for name, layout in PUBLISHED.items() if layout.recognises(root)]
    if len(found) > 1:
        raise DataError(f"{root} holds the layouts {' and '.join(found)}; give the directory of one, or name --layout")
    if not found and root.is_dir() and not (root / "images").is_dir() and archives_in(root):
        raise missing(root, f"no layout is recognised in {root}")
    return found[0] if found else "parts" if PartsSource.recognises(root) else "folder"
