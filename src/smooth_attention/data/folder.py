"""The ``folder`` layout: ``images/``, masks of the same file names in ``masks/``, and optional lists beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from smooth_attention.core.errors import DataError
from smooth_attention.data.files import (
    FileSource,
    files_by_name,
    list_images,
    name_strays,
    read_stems,
    read_text,
    single_channel,
)
from smooth_attention.data.sources import IGNORED

__all__ = ["FolderSource", "files_by_mask_stem", "files_by_stem", "read_classes", "read_groups", "read_mask"]

MASK_ENDINGS = ("_mask", "_segmentation", "_seg", "_label")
PARTS = ("train", "val", "test")


class FolderSource(FileSource):
    """Pairs in ``images/`` and ``masks/``.

    A mask has its image's stem, which may add ``_mask``, ``_seg``, ``_segmentation`` or ``_label``. Optional beside
    them: ``classes.txt`` (one name a line: masks are class indices, 255 = ignored), ``groups.csv`` (``stem,group``),
    and ``train.txt``, ``val.txt``, ``test.txt`` (a stem a line). Without ``classes.txt`` a mask holds {0, 1} or
    {0, 255}. Images without a mask, and the reverse, are ``problems``.

    Args:
        root: the directory.

    Raises:
        DataError: where folders are missing, stems are ambiguous or a list names what is not there.
    """

    layout = "folder"

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, root.resolve().name
        if not root.is_dir():
            raise DataError(f"no such data directory: {root}; give a directory with images/ and masks/, or 'shapes'")
        self.image_files = files_by_stem(root / "images")
        self.mask_files = files_by_mask_stem(root / "masks", self.image_files)
        self.stems = tuple(sorted(self.image_files.keys() & self.mask_files.keys()))
        if not self.stems:
            raise DataError(f"no image in {root}/images has a mask of the same stem in {root}/masks")
        self.class_names = read_classes(root / "classes.txt")
        self.groups = read_groups(root / "groups.csv", self.stems)
        self.given_splits = self.read_lists()
        self.problems = (*self.find_lonely(), *name_strays(root / name for name in ("images", "masks")))

    def read_labels(self, stem: str) -> np.ndarray:
        return read_mask(self.mask_files[stem], self.class_names)

    def read_lists(self) -> dict[str, tuple[str, ...]]:
        lists = {}
        for part in PARTS:
            path = self.root / f"{part}.txt"
            if path.is_file():
                lists[part] = self.only_pairs(read_stems(path, self.image_files.keys() | self.mask_files.keys()))
        if lists and not {"train", "test"} <= lists.keys():
            raise DataError(
                f"{self.root} has {', '.join(f'{part}.txt' for part in lists)}; "
                "given splits need at least train.txt and test.txt: add what is missing or remove the lists"
            )
        return lists


def files_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}; the folder layout needs images/ and masks/ side by side")
    return files_by_name(list_images(folder))


def files_by_mask_stem(folder: Path, images: Mapping[str, Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for stem, path in files_by_stem(folder).items():
        names = [stem, *(stem.removesuffix(ending) for ending in MASK_ENDINGS if stem.endswith(ending))]
        name = next((name for name in names if name in images), stem)
        if name in found:
            raise DataError(f"two masks belong to the image {name!r}: {found[name]} and {path}; remove one")
        found[name] = path
    return found


def read_classes(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    names = tuple(line.strip() for line in read_text(path).rstrip().splitlines())
    if "" in names:
        raise DataError(f"{path} has an empty line {names.index('') + 1}, which would shift the indices; remove it")
    if len(names) < 2 or len(set(names)) != len(names) or len(names) > IGNORED:
        raise DataError(f"{path} needs 2 to 255 different class names, one a line, got {len(names)}; mend the file")
    return names


def read_groups(path: Path, stems: tuple[str, ...]) -> dict[str, str]:
    """Return each stem's group; a stem that is not listed is a group of its own."""
    groups = {stem: stem for stem in stems}
    if not path.is_file():
        return groups
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if not {"stem", "group"} <= set(rows.fieldnames or ()):
        raise DataError(f"{path} needs the columns stem,group, got {rows.fieldnames}; mend its first line")
    given: dict[str, str] = {}
    for row in rows:
        stem, group = row["stem"], row["group"]
        if not group:
            raise DataError(f"{path} gives {stem!r} no group; name one, or remove the line: it is then on its own")
        if given.setdefault(stem, group) != group:
            raise DataError(f"{path} puts {stem!r} into two groups, {given[stem]!r} and {group!r}; keep one line")
    if given and not given.keys() & groups.keys():
        raise DataError(f"{path} names none of the {len(stems)} stems here; write stems, file names without suffix")
    return groups | {stem: group for stem, group in given.items() if stem in groups}


def read_mask(path: Path, class_names: tuple[str, ...] | None) -> np.ndarray:
    """Return a mask as uint8 labels (H, W): {0, 1} for a binary task, class indices otherwise, 255 ignored.

    Its EXIF orientation is applied, as for images; transparency is left aside.

    Raises:
        DataError: where the file is broken or holds other values, naming it and them.
    """
    values = single_channel(path)
    found = np.unique(values)
    if class_names is None:
        return binary_labels(path, values, found)
    allowed = {*range(len(class_names)), IGNORED}
    if wrong := [value for value in found.tolist() if value not in allowed]:
        raise DataError(
            f"{path} holds {listed(wrong)}, expected class indices 0 to {len(class_names) - 1} or 255 for ignored; "
            "mend the mask or classes.txt"
        )
    return values.astype(np.uint8)


def binary_labels(path: Path, values: np.ndarray, found: np.ndarray) -> np.ndarray:
    if set(found.tolist()) <= {0, 1}:
        return values.astype(np.uint8)
    if set(found.tolist()) <= {0, 255}:
        return (values == 255).astype(np.uint8)
    raise DataError(
        f"{path} holds {listed(found.tolist())}, expected {{0, 1}} or {{0, 255}} for a binary mask; "
        "threshold it (a JPEG mask rings around 0 and 255), or add classes.txt if its values are class indices"
    )


def listed(values: list[int | float]) -> str:
    shown = ", ".join(str(value) for value in values[:5])
    return f"the value{'s' if len(values) > 1 else ''} {shown}{', ...' if len(values) > 5 else ''}"
