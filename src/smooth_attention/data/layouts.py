"""The five published datasets as they are distributed: where files lie, what a mask's grey means, known strays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from smooth_attention.core.errors import DataError
from smooth_attention.data.archives import is_archive
from smooth_attention.data.files import (
    FileSource,
    files_by_name,
    list_files,
    list_images,
    name_strays,
    read_greys,
    read_stems,
    read_text,
)

__all__ = ["PUBLISHED", "LayoutName", "archives_in", "missing"]

# two for data of one's own, then those of PUBLISHED
LayoutName = Literal["folder", "parts", "birds", "fish", "fire", "instruments", "flood"]

FOREGROUND = 128  # grey values from here on are foreground
LOOKED_AT = 8  # masks that tell a published set from others of the same folders
RINGING = 16


class PublishedSource(FileSource):
    """A published dataset; its foreground is where the grey mask is at least 128.

    Args:
        root: the directory that holds the published tree, or the tree's inner directory.

    Raises:
        DataError: where the tree or a part of it is missing, also because archives are not unpacked.
    """

    inner: tuple[str, ...] = ()  # where the tree may lie below the root
    expected: str  # what has to be there, for sentences
    is_binary = True  # masks hold two values, 0 and 1 or 0 and 255, up to the ringing of JPEG

    def __init__(self, root: Path) -> None:
        tree = self.find_tree(root)
        if tree is None:
            raise missing(root, f"layout {self.name!r} needs {self.expected}")
        self.root, self.tree, self.layout = root, tree, self.name
        self.find_files()
        self.stems = tuple(sorted(self.image_files.keys() & self.mask_files.keys()))
        if not self.stems:
            raise missing(root, f"no image of layout {self.name!r} in {tree} has a mask of the same stem", tree)
        self.find_lists()

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Return whether the published tree lies in a directory; one with classes.txt is somebody's own."""
        tree = cls.find_tree(root)
        return tree is not None and not any((place / "classes.txt").is_file() for place in (root, tree))

    @classmethod
    def find_tree(cls, root: Path) -> Path | None:
        return next((tree for tree in (root, *(root / name for name in cls.inner)) if cls.is_tree(tree)), None)

    @classmethod
    @abstractmethod
    def is_tree(cls, tree: Path) -> bool:
        """Return whether the inner directory of the layout is this one."""

    @abstractmethod
    def find_files(self) -> None:
        """Set image_files, mask_files, problems and notes."""

    def find_lists(self) -> None:
        """Set given_splits, for a dataset that has an official split."""

    @cached_property
    def groups(self) -> Mapping[str, str]:  # type: ignore[override]
        return {stem: stem for stem in self.stems}

    def load_grey(self, stem: str) -> np.ndarray:
        path = self.mask_files[stem]
        values = read_greys(path).values
        if values.dtype != np.uint8 and values.dtype != np.bool_:
            raise DataError(f"{path} has more than 8 bits a pixel; the published masks have 8: fetch it again")
        if values.dtype == np.bool_ or (self.is_binary and values.max() == 1):
            return values.astype(np.uint8) * np.uint8(255)
        if self.is_binary and 1 < values.max() < FOREGROUND:
            raise DataError(f"{path} holds at most {values.max()}, expected a mask of 0 and 1 or of 0 and 255")
        return values

    def read_labels(self, stem: str) -> np.ndarray:
        return (self.load_grey(stem) >= FOREGROUND).astype(np.uint8)

    def digest(self, stem: str) -> str:
        return f"{self.name} {super().digest(stem)}"  # another layout may read the same files in another way

    def folder(self, path: Path) -> Path:
        if not path.is_dir():
            raise missing(self.root, f"layout {self.name!r} lacks {path}", self.tree)
        return path


class BirdsSource(PublishedSource):
    """CUB-200-2011: votes of five labellers, an official split, a few stray images."""

    name = "birds"
    inner = ("CUB_200_2011",)
    expected = "CUB_200_2011/images/ with a folder for each class, and segmentations/ in it or beside it"
    is_binary = False

    @classmethod
    def is_tree(cls, tree: Path) -> bool:
        return any(path.is_dir() for path in tree.glob("images/[0-9][0-9][0-9].*"))

    def find_files(self) -> None:
        beside = self.tree.parent / "segmentations"
        masks = self.folder(beside if beside.is_dir() else self.tree / "segmentations")
        folders = [subfolders(self.tree / "images"), subfolders(masks)]
        self.image_files, self.mask_files = (files_by_name(images_in(some)) for some in folders)
        strays = {stem for stem in self.image_files.keys() - self.mask_files.keys() if stem.endswith("_rgb")}
        left_out = [f"{self.image_files.pop(stem)} is a known stray without a mask" for stem in sorted(strays)]
        self.problems = (*self.find_lonely(), *name_strays(chain(*folders)))
        self.notes = ("masks are votes of five labellers: foreground where at least three agree", *left_out)

    def find_lists(self) -> None:
        names, parts = (self.tree / name for name in ("images.txt", "train_test_split.txt"))
        if not (names.is_file() and parts.is_file()):
            self.notes += (f"{self.tree} lacks images.txt or train_test_split.txt, so the official split is not used",)
            return
        is_train = dict(two_words(parts))
        lists: dict[str, list[str]] = {"train": [], "test": []}
        for number, path in two_words(names):
            if is_train.get(number) not in ("0", "1"):
                raise DataError(f"{parts} gives image {number} no part, expected 1 (train) or 0; fetch it again")
            lists["train" if is_train[number] == "1" else "test"].append(Path(path).stem)
        self.given_splits = {part: self.only_pairs(stems) for part, stems in lists.items()}


class FishSource(PublishedSource):
    """A Large Scale Fish Dataset: flips and turns of far fewer photos, which form groups; no official split."""

    name = "fish"
    inner = ("Fish_Dataset", "Fish_Dataset/Fish_Dataset")
    expected = "Fish_Dataset/Fish_Dataset/<Species>/ with <Species>/ and '<Species> GT/' in it"

    @classmethod
    def is_tree(cls, tree: Path) -> bool:
        return tree.is_dir() and any(is_species(path) for path in subfolders(tree))

    def find_files(self) -> None:
        species = [path for path in subfolders(self.tree) if is_species(path)]
        folders = [[path / path.name for path in species], [path / f"{path.name} GT" for path in species]]
        self.image_files, self.mask_files = (files_by_name(images_in(some), fish_stem) for some in folders)
        others = [path for path in subfolders(self.tree) if path not in species]
        self.problems = (
            *self.find_lonely(),
            *name_strays(chain(*folders)),
            *(f"{path} is no species: it lacks {path.name}/ or '{path.name} GT/'" for path in others),
        )
        self.notes = (
            "images are flips and turns of far fewer photos; look-alikes of one species form a group, "
            "but turns by other than 90 degrees are not found",
        )
        if any(path.name == "Hourse Mackerel" for path in species):
            self.notes += ("the species 'Hourse Mackerel' is spelled as published",)

    @cached_property
    def groups(self) -> Mapping[str, str]:  # type: ignore[override]
        """From stem to the first stem that shows the same photo; found once, then read from the cache directory."""
        from smooth_attention.data.copies import group_copies  # late: scipy, which no other layout needs

        by_species: dict[str, list[str]] = {}
        for stem in self.stems:
            by_species.setdefault(self.image_files[stem].parent.name, []).append(stem)
        return group_copies(self, list(by_species.values()))


class FireSource(PublishedSource):
    """Fire Segmentation Image Dataset: masks are JPEG, and only images with fire have one."""

    name = "fire"
    expected = "Image/Fire/ and Segmentation_Mask/Fire/"
    is_binary = False

    @classmethod
    def is_tree(cls, tree: Path) -> bool:
        return (tree / "Image" / "Fire").is_dir()

    def find_files(self) -> None:
        folders = [self.tree / "Image" / "Fire", self.folder(self.tree / "Segmentation_Mask" / "Fire")]
        self.image_files, self.mask_files = (files_by_name(list_images(folder)) for folder in folders)
        self.problems = (*self.find_lonely(), *name_strays(folders))
        self.notes = ("masks are JPEG with ringing: foreground where grey is at least 128",)
        without = self.tree / "Image" / "Not_Fire"
        if without.is_dir():
            self.notes += (f"{len(list_images(without))} images in {without} have no masks and take no part",)


class InstrumentsSource(PublishedSource):
    """Kvasir-Instrument: three-channel masks and an official split."""

    name = "instruments"
    inner = ("kvasir-instrument",)
    expected = "images/, masks/, train.txt, test.txt and bboxes.json"

    @classmethod
    def is_tree(cls, tree: Path) -> bool:
        # The boxes tell it from the folder layout, which also has images/, masks/ and lists.
        return all((tree / name).is_file() for name in ("bboxes.json", "train.txt", "test.txt"))

    def find_files(self) -> None:
        folders = [self.folder(self.tree / name) for name in ("images", "masks")]
        self.image_files, self.mask_files = (files_by_name(list_images(folder)) for folder in folders)
        self.problems = (*self.find_lonely(), *name_strays(folders))
        self.notes = ("masks have three equal channels: foreground where they are at least 128",)

    def find_lists(self) -> None:
        known = self.image_files.keys() | self.mask_files.keys()
        self.given_splits = {
            part: self.only_pairs(read_stems(self.tree / f"{part}.txt", known)) for part in ("train", "test")
        }


class FloodSource(PublishedSource):
    """Flood Semantic Segmentation Dataset: two folders, which are the split."""

    name = "flood"
    inner = ("dataset",)
    expected = "dataset/train/ and dataset/val/ with images/ and labels/ in each"
    keeps_lists = True
    parts: Mapping[str, str] = {"train": "train", "val": "test"}  # folder and the part it is

    @classmethod
    def is_tree(cls, tree: Path) -> bool:
        return all((tree / part / name).is_dir() for part in cls.parts for name in ("images", "labels"))

    @classmethod
    def recognises(cls, root: Path) -> bool:
        tree = cls.find_tree(root)
        if tree is None or (tree / "test").is_dir() or not super().recognises(root):
            return False
        masks = images_in(tree / part / "labels" for part in cls.parts)
        return all(is_black_and_white(path) for path in masks[:: max(1, len(masks) // LOOKED_AT)])

    def find_files(self) -> None:
        folders = [[self.tree / part / name for part in self.parts] for name in ("images", "labels")]
        self.image_files, self.mask_files = (files_by_name(images_in(some), flood_stem) for some in folders)
        self.problems = (*self.find_lonely(), *name_strays(chain(*folders)))
        self.notes = (
            "stems carry the name of their folder; the val folder is the test part",
            "recognised by train/ and val/ with images/ and labels/, no test/, black and white masks, no classes.txt; "
            "for data of your own name --layout parts",
        )

    def find_lists(self) -> None:
        self.given_splits = {
            part: tuple(stem for stem in self.stems if self.image_files[stem].parent.parent.name == folder)
            for folder, part in self.parts.items()
        }


PUBLISHED: dict[str, type[PublishedSource]] = {
    layout.name: layout for layout in (BirdsSource, FishSource, FireSource, InstrumentsSource, FloodSource)
}


def missing(root: Path, sentence: str, tree: Path | None = None) -> DataError:
    """Return the error for a tree that is not there, with a hint at archives where they are the reason."""
    if archives := [path for place in {root, tree or root} for path in archives_in(place)]:
        names = ", ".join(str(path) for path in sorted(archives)[:4])
        return DataError(
            f"{sentence}; there are archives, perhaps not yet unpacked: {names}; unpack each where it lies "
            "(tar -xf FILE, or unzip FILE), and the archives inside it too, or use 'data fetch'"
        )
    return DataError(f"{sentence}; give the directory that holds the published tree, got {root}")


def archives_in(folder: Path) -> list[Path]:
    return [path for path in list_files(folder) if is_archive(path)] if folder.is_dir() else []


def is_black_and_white(mask: Path) -> bool:
    """Return whether nearly all of a mask is black or white, up to the ringing of JPEG; a broken one may be."""
    try:
        values = read_greys(mask).values
    except DataError:
        return True
    return bool(np.mean((values <= RINGING) | (values >= 255 - RINGING)) > 0.99) or values.max() <= 1


def subfolders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def images_in(folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders for path in list_images(folder)]


def is_species(folder: Path) -> bool:
    return (folder / folder.name).is_dir() and (folder / f"{folder.name} GT").is_dir()


def fish_stem(path: Path) -> str:
    """Return species and number: the numbers start anew in each species."""
    return f"{path.parent.name.removesuffix(' GT').replace(' ', '_')}_{path.stem}"


def flood_stem(path: Path) -> str:
    """Return folder and stem: train and val may share stems."""
    return f"{path.parent.parent.name}_{path.stem}"


def two_words(path: Path) -> Sequence[tuple[str, str]]:
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if wrong := [line for line in lines if len(line) != 2]:
        raise DataError(f"{path} needs two words a line, got {' '.join(wrong[0])!r}; fetch it again")
    return [(first, second) for first, second in lines]
