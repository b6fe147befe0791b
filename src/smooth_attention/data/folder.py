"""The ``folder`` layout: ``images/``, masks of the same file names in ``masks/``, and optional lists beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smooth_attention.core.errors import DataError
from smooth_attention.data.files import (
    FileSource,
    files_by_name,
    list_images,
    name_strays,
    read_greys,
    read_stems,
    read_text,
    read_values,
)
from smooth_attention.data.naming import Names, mask_names
from smooth_attention.data.sources import IGNORED

__all__ = ["FolderSource", "files_by_mask_stem", "files_by_stem", "read_classes", "read_groups", "read_mask"]

PARTS = ("train", "val", "test")


class FolderSource(FileSource):
    """Pairs in ``images/`` and ``masks/``.

    A mask has its image's stem or file name, and what people add to it: ``_mask``, ``_gt``, ``_seg``, ``_label`` and
    the like, ``mask_`` or ``gt_`` before it; images of nnU-Net add ``_0000``. Case and the coding of accents don't
    count. Optional beside them: ``classes.txt`` (one name a line: masks are class indices, 255 = ignored),
    ``groups.csv`` (``stem,group``), and ``train.txt``, ``val.txt``, ``test.txt`` (a stem a line). Without
    ``classes.txt`` a mask holds {0, 1} or {0, 255}, or has a palette: of black and white, white is foreground, of
    others the index above 0. What can take no part is in ``problems``, what may be so on purpose in ``notes``.

    Args:
        root: the directory.
        mask_threshold: grey value from which a binary mask is foreground; None: masks hold two values.

    Raises:
        DataError: where folders are missing, stems are ambiguous or a list names what is not there.
    """

    layout = "folder"

    def __init__(self, root: Path, mask_threshold: int | None = None) -> None:
        self.root, self.name, self.mask_threshold = root, root.resolve().name, mask_threshold
        if not root.is_dir():
            raise DataError(f"no such data directory: {root}; give a directory with images/ and masks/, or 'shapes'")
        folders = self.find_files()
        self.stems = tuple(sorted(self.image_files.keys() & self.mask_files.keys()))
        if not self.stems:
            first, other = (min(files.values(), default=None) for files in (self.image_files, self.mask_files))
            raise DataError(
                f"no image in {folders[0]} has a mask of the same stem in {folders[1]}: "
                f"the first image is {first and first.name}, the first mask {other and other.name}"
            )
        self.class_names = read_classes(root / "classes.txt")
        if mask_threshold is not None and self.class_names is not None:
            raise DataError(f"{root}/classes.txt says that masks hold class indices; leave out --mask-threshold, or it")
        groups = read_groups(root / "groups.csv", self.stems)
        self.groups = groups.of
        self.given_splits = self.read_lists()
        self.notes = (*groups.notes, *self.find_unlisted())
        self.problems = (*self.find_lonely(), *name_strays(folders), *groups.problems)

    def find_files(self) -> Sequence[Path]:
        """Set image_files and mask_files, and return the folders that were read."""
        folders = self.root / "images", self.root / "masks"
        self.image_files = files_by_stem(folders[0])
        self.mask_files = files_by_mask_stem(folders[1], self.image_files)
        return folders

    def read_labels(self, stem: str) -> np.ndarray:
        return read_mask(self.mask_files[stem], self.class_names, self.mask_threshold)

    def digest(self, stem: str) -> str:
        digest = super().digest(stem)
        return digest if self.mask_threshold is None else f"from {self.mask_threshold} {digest}"

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

    def find_unlisted(self) -> tuple[str, ...]:
        """Return a sentence where the given lists leave out pairs."""
        listed = {stem for stems in self.given_splits.values() for stem in stems}
        left = [stem for stem in self.stems if stem not in listed]
        if not (listed and left):
            return ()
        names = ", ".join(f"{part}.txt" for part in self.given_splits)
        return (
            f"{names} leave out {count_of(left, 'pair')} of {len(self.stems)}, first {left[0]!r}: they take no part",
        )


def files_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}; the folder layout needs images/ and masks/ side by side")
    return files_by_name(list_images(folder))


def files_by_mask_stem(folder: Path, images: Mapping[str, Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    names = Names(images)
    for stem, path in files_by_stem(folder).items():
        name = names.find(*mask_names(stem)) or stem
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
    if len(names) == 1:
        raise DataError(f"{path} names one class; line 1 is label 0, the background: name it and the class, 2 lines")
    if len(names) < 2 or len(set(names)) != len(names) or len(names) > IGNORED:
        raise DataError(f"{path} needs 2 to 255 different class names, one a line, got {len(names)}; mend the file")
    return names


@dataclass(frozen=True, slots=True)
class Groups:
    """What ``groups.csv`` says.

    Attributes:
        of: from stem to group; a stem that has no row is a group of its own.
        path: of the file.
        rows: names in the file that fit no pair.
        stems: pairs without a row.
    """

    of: dict[str, str]
    path: Path
    rows: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        told = (
            (self.rows, "row", f"in {self.path} without a pair"),
            (self.stems, "pair", f"without a row in {self.path}"),
        )
        return tuple(f"{count_of(names, word)} {where}, first {names[0]!r}" for names, word, where in told if names)

    @property
    def problems(self) -> tuple[str, ...]:
        """What looks like names that were meant to fit: groups may then leak from one part into another."""
        if not (self.rows and self.stems):
            return ()
        return (f"{'; '.join(self.sentences)}: write stems or file names, and remove the rows of images that are gone",)

    @property
    def notes(self) -> tuple[str, ...]:
        """What may be so on purpose."""
        return () if self.problems else self.sentences


def count_of(items: Sequence[str], word: str) -> str:
    return f"{len(items)} {word}{'s' if len(items) != 1 else ''}"


def read_groups(path: Path, stems: tuple[str, ...]) -> Groups:
    """Return each stem's group; rows name stems or files, see :class:`Names`.

    Raises:
        DataError: where the columns are others, a row has no group, a stem has two, or no row fits.
    """
    groups = {stem: stem for stem in stems}
    if not path.is_file():
        return Groups(groups, path)
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if not {"stem", "group"} <= set(rows.fieldnames or ()):
        raise DataError(f"{path} needs the columns stem,group, got {rows.fieldnames}; mend its first line")
    names, given, unknown = Names(stems), dict[str, str](), list[str]()
    for row in rows:
        written, group = row["stem"] or "", row["group"]
        if not group:
            raise DataError(f"{path} gives {written!r} no group; name one, or remove the line: it is then on its own")
        stem = names.find_line(written)
        if stem is None:
            unknown.append(written)
        elif given.setdefault(stem, group) != group:
            raise DataError(f"{path} puts {stem!r} into two groups, {given[stem]!r} and {group!r}; keep one line")
    if unknown and not given:
        raise DataError(
            f"{path} names none of the {len(stems)} pairs here, the first row {unknown[0]!r}, the first pair "
            f"{stems[0]!r}; write stems or file names"
        )
    left = tuple(stem for stem in stems if stem not in given) if given else ()
    return Groups(groups | given, path, tuple(unknown), left)


def read_mask(path: Path, class_names: tuple[str, ...] | None, threshold: int | None = None) -> np.ndarray:
    """Return a mask as uint8 labels (H, W): {0, 1} for a binary task, class indices otherwise, 255 ignored.

    Its EXIF orientation is applied, as for images; transparency is left aside.

    Args:
        path: of the mask.
        class_names: None for a binary task.
        threshold: grey value of 255 from which a binary mask is foreground.

    Raises:
        DataError: where the file is broken or holds other values, naming it and them.
    """
    if threshold is not None and class_names is None:
        return cut_greys(path, threshold)
    values, palette = read_values(path)
    found = np.unique(values)
    if class_names is None:
        return binary_labels(path, values, found) if palette is None else palette_labels(path, values, found, palette)
    allowed = {*range(len(class_names)), IGNORED}
    if wrong := [value for value in found.tolist() if value not in allowed]:
        raise DataError(
            f"{path} holds {listed(wrong)}, expected class indices 0 to {len(class_names) - 1} or 255 for ignored; "
            "mend the mask or classes.txt"
        )
    return values.astype(np.uint8)


def cut_greys(path: Path, threshold: int) -> np.ndarray:
    """Return the labels of a binary mask of greys of 255.

    Raises:
        DataError: where its greys have another range: more bits, indices of a palette with hues, or labels 0 and 1.
    """
    greys, palette = read_greys(path)
    if palette is not None:
        raise DataError(f"{path} has a palette with hues, which --mask-threshold can't cut; save it as grey")
    if greys.dtype not in (np.uint8, np.bool_):
        raise DataError(f"{path} has more than 8 bits a pixel; --mask-threshold is a grey of 255: save it as 8 bits")
    if greys.dtype == np.bool_:
        return greys.astype(np.uint8)
    if threshold > greys.max(initial=0) == 1:
        raise DataError(
            f"{path} holds 0 and 1, of which --mask-threshold {threshold} would leave nothing; save it as 0 and 255"
        )
    return (greys >= threshold).astype(np.uint8)


def palette_labels(path: Path, values: np.ndarray, found: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the labels of a binary mask with a palette: white of black and white, otherwise the index above 0.

    Raises:
        DataError: where it holds other indices, or one whose colour is darker than that of the background.
    """
    if found[-1] >= len(palette):
        return binary_labels(path, values, found)
    is_white = (palette == 255).all(axis=1)
    if (is_white | (palette == 0).all(axis=1))[found].all():
        return is_white[values].astype(np.uint8)
    labels, luminance = binary_labels(path, values, found), palette @ np.array([299, 587, 114])
    if luminance[0] > luminance[found[-1]]:
        raise DataError(
            f"index 0 of the palette of {path} is lighter than index {found[-1]}, so it is not clear which is the "
            "foreground; save the mask as grey, 0 and 255"
        )
    return labels


def binary_labels(path: Path, values: np.ndarray, found: np.ndarray) -> np.ndarray:
    if set(found.tolist()) <= {0, 1}:
        return values.astype(np.uint8)
    if any(set(found.tolist()) <= {0, full} for full in (255, 65535)):
        return (values > 0).astype(np.uint8)
    raise DataError(
        f"{path} holds {listed(found.tolist())}, expected {{0, 1}} or {{0, 255}} for a binary mask; "
        "pass --mask-threshold 128 if it is JPEG or soft, or add classes.txt if its values are class indices"
    )


def listed(values: list[int | float]) -> str:
    shown = ", ".join(str(value) for value in values[:5])
    return f"the value{'s' if len(values) > 1 else ''} {shown}{', ...' if len(values) > 5 else ''}"
