"""Pairs of image and mask files: what the ``folder`` layout and the published ones share."""

from __future__ import annotations

import hashlib
import struct
import warnings
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from smooth_attention.core.errors import DataError
from smooth_attention.data.sources import Pair, Source

__all__ = [
    "SUFFIXES",
    "FileSource",
    "files_by_name",
    "list_files",
    "list_images",
    "name_strays",
    "read_image",
    "read_stems",
    "read_text",
    "single_channel",
]

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"))
MIN_SIDE_PX = 32


class FileSource(Source):
    """Pairs of files; a layout finds them, and says how a mask is encoded.

    Attributes:
        image_files: from stem to image, also of images without a mask.
        mask_files: from stem to mask, also of masks without an image.
    """

    image_files: dict[str, Path]
    mask_files: dict[str, Path]

    @abstractmethod
    def read_labels(self, stem: str) -> np.ndarray:
        """Return the mask of a stem as uint8 labels (H, W)."""

    def load(self, stem: str) -> Pair:
        image = read_image(self.image_files[stem])
        mask = self.read_labels(stem)
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"image and mask differ in size: {self.image_files[stem]} is {image.shape[1]}x{image.shape[0]}, "
                f"{self.mask_files[stem]} is {mask.shape[1]}x{mask.shape[0]}; resize one of them"
            )
        if min(mask.shape) < MIN_SIDE_PX:
            raise DataError(
                f"{self.image_files[stem]} is {mask.shape[1]}x{mask.shape[0]}, too small to learn from; "
                f"both sides need at least {MIN_SIDE_PX} px: remove it, or use --skip-broken"
            )
        return Pair(image, mask)

    def digest(self, stem: str) -> str:
        return " ".join(self.file_digests(stem))

    def image_digest(self, stem: str) -> str:
        return self.file_digests(stem)[0]

    def file_digests(self, stem: str) -> tuple[str, str]:
        """Return the hashes of image and mask file; each file is read once."""
        if stem not in self._digests:
            files = (self.image_files[stem], self.mask_files[stem])
            image, mask = (hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in files)
            self._digests[stem] = image, mask
        return self._digests[stem]

    def only_pairs(self, stems: Iterable[str]) -> tuple[str, ...]:
        """Return those of the stems that are pairs, in their order."""
        pairs = set(self.stems)
        return tuple(stem for stem in stems if stem in pairs)

    @cached_property
    def _digests(self) -> dict[str, tuple[str, str]]:
        return {}

    def find_lonely(self) -> tuple[str, ...]:
        """Return one sentence for each image without a mask, then for each mask without an image."""
        lonely_images = sorted(str(self.image_files[s]) for s in self.image_files.keys() - self.mask_files.keys())
        lonely_masks = sorted(str(self.mask_files[s]) for s in self.mask_files.keys() - self.image_files.keys())
        return (
            *(f"{path} has no mask of the same stem" for path in lonely_images),
            *(f"{path} has no image of the same stem" for path in lonely_masks),
        )


def list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]


def list_images(folder: Path) -> list[Path]:
    return [path for path in list_files(folder) if is_image(path)]


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name."""
    return path.suffix.lower() in SUFFIXES


def files_by_name(paths: Iterable[Path], name: Callable[[Path], str] = lambda path: path.stem) -> dict[str, Path]:
    """Return the paths by their stem, or by another name.

    Raises:
        DataError: where two have the same.
    """
    found: dict[str, Path] = {}
    for path in paths:
        key = name(path)
        if key in found:
            raise DataError(f"two files share the stem {key!r}: {found[key]} and {path}; rename one")
        found[key] = path
    return found


def name_strays(folders: Iterable[Path]) -> tuple[str, ...]:
    """Return one sentence for each file that is no image by its name."""
    strays = [path for folder in folders for path in list_files(folder) if not is_image(path)]
    return tuple(f"{path} is no image by its name" for path in strays)


def read_stems(path: Path, known: Container[str]) -> tuple[str, ...]:
    """Return the stems that a list names, a stem or file name a line.

    Raises:
        DataError: where it is empty, names a stem twice or one that is not ``known``.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    stems = tuple(Path(line).stem if Path(line).suffix.lower() in SUFFIXES else line for line in lines)
    if missing := [stem for stem in stems if stem not in known]:
        raise DataError(f"{path} names {len(missing)} stems that have no image, first {missing[0]!r}; mend the list")
    if len(set(stems)) != len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise DataError(f"{path} names {twice!r} twice; name each stem once")
    if not stems:
        raise DataError(f"{path} is empty; name at least one stem or remove the file")
    return stems


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from error


def read_image(path: Path) -> np.ndarray:
    """Return an image as uint8 (H, W, 3) RGB, its EXIF orientation applied.

    Raises:
        DataError: where the file is missing, truncated, no image or of more than 8 bits a channel, naming it.
    """
    image = open_image(path)
    if image.mode.startswith(("I", "F")):  # converting these clips all above 255
        raise DataError(f"{path} has more than 8 bits a channel (mode {image.mode}); scale it to 0-255 and save again")
    return np.asarray(image.convert("RGB"))


def open_image(path: Path) -> Image.Image:
    """Return an image, its EXIF orientation applied.

    Raises:
        DataError: where the file is missing, truncated, damaged, too large or no image, naming it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is no image that can be read; replace or remove it") from error
    except (OSError, SyntaxError, ValueError, AttributeError, TypeError, struct.error) as error:  # EXIF raises them all
        raise DataError(f"{path} is broken ({error}); replace or remove it") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is too large to open safely ({error}); make it smaller") from error


def single_channel(path: Path) -> np.ndarray:
    """Return the values of a mask (H, W) as they are stored, its EXIF orientation applied, transparency left aside.

    Raises:
        DataError: where the file is broken or its colours differ, naming it.
    """
    image = open_image(path)
    values = np.asarray(image)
    if image.mode in ("LA", "PA", "RGB", "RGBA"):
        colours = values[..., : len(image.mode.removesuffix("A"))]
        if (colours == colours[..., :1]).all():
            values = colours[..., 0]
    if values.ndim != 2:
        raise DataError(f"{path} is a coloured mask (mode {image.mode}); save one channel of labels")
    return values
