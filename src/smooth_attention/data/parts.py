"""The ``parts`` layout: a folder for each part of the split, with images and masks in it, or the reverse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smooth_attention.core.errors import DataError
from smooth_attention.data.folder import FolderSource, files_by_mask_stem, files_by_stem

__all__ = ["PartsSource"]

PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
MASKS = ("masks", "labels", "annotations")


class PartsSource(FolderSource):
    """Pairs in folders that are the split.

    Either ``train/``, ``val/``, ``test/`` with ``images/`` and ``masks/``, ``labels/`` or ``annotations/`` in each, or
    ``images/`` and ``masks/`` with ``train/``, ``val/``, ``test/`` in each. Without a test folder ``val`` is the test
    part, and validation is drawn from ``train``. Stems carry the name of their part where two parts share one.
    Everything else is as in layout ``folder``.

    Args:
        root: the directory.

    Raises:
        DataError: where folders are missing, stems are ambiguous or masks don't fit.
    """

    layout = "parts"

    @staticmethod
    def recognises(root: Path) -> bool:
        """Return whether a directory has at least two parts, one of which trains."""
        found = find_parts(root)
        return "train" in found and len(found) > 1

    def find_files(self) -> Sequence[Path]:
        found = find_parts(self.root)
        if "train" not in found or len(found) < 2:
            raise DataError(
                f"{self.root} needs train/ and val/ or test/ with images/ and masks/ in each, or the reverse; "
                f"found {', '.join(found) or 'neither'}"
            )
        images = {part: files_by_stem(folders[0]) for part, folders in found.items()}
        masks = {part: files_by_mask_stem(folders[1], images[part]) for part, folders in found.items()}
        stems = [stem for files in images.values() for stem in files]
        is_shared = len(set(stems)) < len(stems)

        def named(part: str, stem: str) -> str:
            return f"{part}_{stem}" if is_shared else stem

        self.image_files = {named(part, stem): path for part, files in images.items() for stem, path in files.items()}
        self.mask_files = {named(part, stem): path for part, files in masks.items() for stem, path in files.items()}
        self.members = {part: tuple(sorted(named(part, stem) for stem in files)) for part, files in images.items()}
        return [folder for folders in found.values() for folder in folders]

    def read_lists(self) -> dict[str, tuple[str, ...]]:
        parts = {part: self.only_pairs(stems) for part, stems in self.members.items()}
        if "test" not in parts:
            parts["test"] = parts.pop("val")
        return parts

    def find_unlisted(self) -> tuple[str, ...]:
        if "test" in self.members:
            return ()
        return ("there is no test folder: val is the test part, and validation is drawn from train",)


def find_parts(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folders of images and masks of each part that is there.

    Raises:
        DataError: where a part is there twice.
    """
    found = {}
    for part, names in PARTS.items():
        pairs = [
            folders
            for name in names
            for mask in MASKS
            for folders in ((root / name / "images", root / name / mask), (root / "images" / name, root / mask / name))
        ]
        there = [folders for folders in pairs if all(folder.is_dir() for folder in folders)]
        if len(there) > 1:
            named = " and ".join(str(folders[1]) for folders in there)
            raise DataError(
                f"{named} are both masks of the part {part} by their names; keep one, or move the other away"
            )
        if there:
            found[part] = there[0]
    return found
