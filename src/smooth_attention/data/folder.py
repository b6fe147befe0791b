"""The ``folder`` layout: ``images/`` and ``masks/`` with equal stems, and optional lists beside them."""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from smooth_attention.core.errors import DataError
from smooth_attention.data.sources import IGNORED, Pair, Source

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"))
MASK_ENDINGS = ("_mask", "_segmentation", "_seg", "_label")
PARTS = ("train", "val", "test")
MIN_SIDE_PX = 32


class FolderSource(Source):
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
        self.problems = self.find_problems()
        self._digests: dict[str, tuple[str, str]] = {}

    def find_problems(self) -> tuple[str, ...]:
        lonely_images = sorted(str(self.image_files[s]) for s in self.image_files.keys() - self.mask_files.keys())
        lonely_masks = sorted(str(self.mask_files[s]) for s in self.mask_files.keys() - self.image_files.keys())
        strays = [
            str(path) for name in ("images", "masks") for path in list_files(self.root / name) if not is_image(path)
        ]
        return (
            *(f"{path} has no mask of the same stem" for path in lonely_images),
            *(f"{path} has no image of the same stem" for path in lonely_masks),
            *(f"{path} is no image by its name" for path in strays),
        )

    def load(self, stem: str) -> Pair:
        image = read_image(self.image_files[stem])
        mask = read_mask(self.mask_files[stem], self.class_names)
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

    def read_lists(self) -> dict[str, tuple[str, ...]]:
        lists = {}
        for part in PARTS:
            path = self.root / f"{part}.txt"
            if path.is_file():
                lists[part] = self.read_list(path)
        if lists and not {"train", "test"} <= lists.keys():
            raise DataError(
                f"{self.root} has {', '.join(f'{part}.txt' for part in lists)}; "
                "given splits need at least train.txt and test.txt: add what is missing or remove the lists"
            )
        return lists

    def read_list(self, path: Path) -> tuple[str, ...]:
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        stems = tuple(Path(line).stem if Path(line).suffix.lower() in SUFFIXES else line for line in lines)
        known = set(self.image_files) | set(self.mask_files)
        if missing := [stem for stem in stems if stem not in known]:
            raise DataError(
                f"{path} names {len(missing)} stems that have no image, first {missing[0]!r}; mend the list"
            )
        if len(set(stems)) != len(stems):
            twice = next(stem for stem in stems if stems.count(stem) > 1)
            raise DataError(f"{path} names {twice!r} twice; name each stem once")
        if not stems:
            raise DataError(f"{path} is empty; name at least one stem or remove the file")
        matched = set(self.stems)
        return tuple(stem for stem in stems if stem in matched)


def files_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}; the folder layout needs images/ and masks/ side by side")
    found: dict[str, Path] = {}
    for path in filter(is_image, list_files(folder)):
        if path.stem in found:
            raise DataError(f"two files share the stem {path.stem!r}: {found[path.stem]} and {path}; rename one")
        found[path.stem] = path
    return found


def list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name."""
    return path.suffix.lower() in SUFFIXES


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
    image = ImageOps.exif_transpose(open_image(path))
    if image.mode.startswith(("I", "F")):  # converting these clips all above 255
        raise DataError(f"{path} has more than 8 bits a channel (mode {image.mode}); scale it to 0-255 and save again")
    return np.asarray(image.convert("RGB"))


def open_image(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return image
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is no image that can be read; replace or remove it") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is broken ({error}); replace or remove it") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is too large to open safely ({error}); make it smaller") from error


def read_mask(path: Path, class_names: tuple[str, ...] | None) -> np.ndarray:
    """Return a mask as uint8 labels (H, W): {0, 1} for a binary task, class indices otherwise, 255 ignored.

    Its EXIF orientation is applied, as for images; transparency is left aside.

    Raises:
        DataError: where the file is broken or holds other values, naming it and them.
    """
    image = ImageOps.exif_transpose(open_image(path))
    values = np.asarray(image)
    if image.mode in ("LA", "PA", "RGB", "RGBA"):
        colours = values[..., : len(image.mode.removesuffix("A"))]
        if (colours == colours[..., :1]).all():
            values = colours[..., 0]
    if values.ndim != 2:
        raise DataError(f"{path} is a coloured mask (mode {image.mode}); save one channel of labels")
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
