"""Pairs of image and mask files: what the ``folder`` layout and the published ones share."""

from __future__ import annotations

import hashlib
import struct
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from smooth_attention.core.errors import DataError
from smooth_attention.data.naming import Names, is_image_name
from smooth_attention.data.sources import Pair, Source

__all__ = [
    "FileSource",
    "files_by_name",
    "list_files",
    "list_images",
    "name_strays",
    "read_greys",
    "read_image",
    "read_stems",
    "read_text",
    "read_values",
]

MIN_SIDE_PX = 32
ORIENTATION = 274  # the EXIF tag
OF_THE_SYSTEM = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))  # and all that begin with a dot


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
            fits_turned = image.shape[1::-1] == mask.shape and is_turned(self.image_files[stem])
            advice = "the mask fits the image before its EXIF rotation: turn one" if fits_turned else "resize one"
            raise DataError(
                f"image and mask differ in size: {self.image_files[stem]} is {image.shape[1]}x{image.shape[0]}, "
                f"{self.mask_files[stem]} is {mask.shape[1]}x{mask.shape[0]}; {advice} of them"
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
    """Return the files in a folder, without those that operating systems leave there."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not is_of_the_system(path)]


def is_of_the_system(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in OF_THE_SYSTEM


def list_images(folder: Path) -> list[Path]:
    return [path for path in list_files(folder) if is_image_name(path.name)]


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
    """Return one sentence for each file that is no image by its name, and for each subfolder with images."""
    listed = list(folders)
    strays = [path for folder in listed for path in list_files(folder) if not is_image_name(path.name)]
    return (
        *(f"{path} is no image by its name" for path in strays),
        *(sentence for folder in listed for sentence in name_subfolders(folder)),
    )


def name_subfolders(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not is_of_the_system(path):
            images = [file for file in sorted(path.rglob("*")) if file.is_file() and is_image_name(file.name)]
            if images:
                count = f"{len(images)} image{'s' if len(images) > 1 else ''}"
                found.append(f"{path} holds {count}, which are not read; move them up into {folder}, or elsewhere")
    return found


def read_stems(path: Path, known: Iterable[str]) -> tuple[str, ...]:
    """Return the stems that a list names, a stem or file name a line.

    Raises:
        DataError: where it is empty, names a stem twice or one that is not ``known``.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    names = Names(known)
    found = [names.find_line(line) for line in lines]
    if missing := [line for line, stem in zip(lines, found, strict=True) if stem is None]:
        raise DataError(f"{path} names {len(missing)} stems that have no image, first {missing[0]!r}; mend the list")
    stems = tuple(stem for stem in found if stem is not None)
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
                refuse_partial(path, image)
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


def refuse_partial(path: Path, image: Image.Image) -> None:
    """Raise where the pixels that would be read are less than what the file holds: other pages, deeper channels."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # a photo with its preview
        what = "pages" if image.format == "TIFF" else "frames"
        raise DataError(f"{path} holds {pages} {what}, of which one would be read; save each in a file of its own")
    tiles = getattr(image, "tile", ())  # of image files, which Pillow opens
    if image.mode in ("RGB", "RGBA", "LA") and any(";16" in raw_mode(tile[3]) for tile in tiles):
        raise DataError(
            f"{path} has more than 8 bits a channel (16-bit {image.mode}); scale it to 0-255 and save again"
        )


def raw_mode(arguments: Any) -> str:
    """Return how pixels lie in the file, from the arguments of Pillow's decoder."""
    first = arguments if isinstance(arguments, str) else next(iter(arguments or ()), "")
    return str(first)


def is_turned(path: Path) -> bool:
    """Return whether the EXIF orientation of an image exchanges its sides."""
    with Image.open(path) as image:
        return image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)


class Values(NamedTuple):
    """A mask as it is stored.

    Attributes:
        values: (H, W); of a palette image the indices.
        palette: (n, 3) colours of the indices; None: there is no palette.
    """

    values: np.ndarray
    palette: np.ndarray | None


def read_values(path: Path) -> Values:
    """Return a mask as it is stored, its EXIF orientation applied, transparency left aside.

    Raises:
        DataError: where the file is broken, its colours differ or only its transparency does, naming it.
    """
    image = open_image(path)
    values, palette, alpha = np.asarray(image), None, None
    if image.mode in ("LA", "PA", "RGB", "RGBA"):
        alpha = values[..., -1] if image.mode.endswith("A") else None
        colours = values[..., : len(image.mode.removesuffix("A"))]
        if (colours == colours[..., :1]).all():
            values = colours[..., 0]
    if values.ndim != 2:
        raise DataError(f"{path} is a coloured mask (mode {image.mode}); save one channel of labels")
    if alpha is not None and np.ptp(values) == 0 and np.ptp(alpha) > 0:
        raise DataError(
            f"all pixels of {path} are {values.flat[0]}; the mask may be in the alpha channel: save it alone"
        )
    if image.mode.startswith("P"):
        palette = np.reshape(image.getpalette("RGB") or (), (-1, 3)).astype(np.uint8)
    return Values(values, palette)


def read_greys(path: Path) -> Values:
    """Return a mask as greys, without palette where it has no hues: the greys that its indices stand for.

    Raises:
        DataError: as :func:`read_values`.
    """
    values, palette = found = read_values(path)
    if palette is None or values.max(initial=0) >= len(palette) or (palette != palette[:, :1])[np.unique(values)].any():
        return found
    return Values(palette[values, 0], None)
