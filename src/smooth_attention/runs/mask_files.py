"""Masks of image files, written beside what else is asked for: nothing of the user's is overwritten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from smooth_attention.core.errors import DataError
from smooth_attention.core.files import write_bytes
from smooth_attention.data.files import list_images, read_image
from smooth_attention.data.naming import SUFFIXES
from smooth_attention.models.inference import label_map, predict_logits, probabilities
from smooth_attention.models.network import Network
from smooth_attention.runs.pictures import encode_array, encode_image, encode_mask
from smooth_attention.viz.overlays import mask_overlay

__all__ = ["predict_files"]


@dataclass(frozen=True, slots=True)
class Masked:
    """What became of an image.

    Attributes:
        image: its path.
        mask: the path that was written; None: the image can't be read.
        error: why it can't.
    """

    image: Path
    mask: Path | None
    error: str = ""


def predict_files(
    net: Network, images: Sequence[Path], output: Path, *, with_probabilities: bool = False, with_overlay: bool = False
) -> tuple[int, Iterator[Masked]]:
    """Write the mask of every image as ``<stem>.png`` at the image's size.

    Args:
        net: the network.
        images: files, or directories of them.
        output: where to write; made where it is missing.
        with_probabilities: also write ``<stem>.npy``: float32 (H, W), or (L, H, W) for classes.
        with_overlay: also write ``<stem>_overlay.png``: the mask over the image.

    Returns:
        The number of images, and what becomes of each in turn: an image that can't be read does not keep the others.

    Raises:
        DataError: naming what is missing or no image, or what would be written twice or over an image; before any.
    """
    listed = list_inputs(images)
    endings = [".png", *([".npy"] if with_probabilities else []), *(["_overlay.png"] if with_overlay else [])]
    refuse_collisions(listed, output, endings)

    def write_each() -> Iterator[Masked]:
        for stem, path in listed.items():
            try:
                pixels = read_image(path)
            except DataError as error:
                yield Masked(path, None, str(error))
                continue
            logits = predict_logits(net, pixels)
            labels = label_map(logits)
            write_bytes(output / f"{stem}.png", encode_mask(labels, net.label_names))
            if with_probabilities:
                write_bytes(output / f"{stem}.npy", encode_array(probabilities(logits)))
            if with_overlay:
                overlay = Image.fromarray(mask_overlay(pixels, labels, num_classes=net.classes))
                write_bytes(output / f"{stem}_overlay.png", encode_image(overlay))
            yield Masked(path, output / f"{stem}.png")

    return len(listed), write_each()


def refuse_collisions(listed: Mapping[str, Path], output: Path, endings: Sequence[str]) -> None:
    """Raise where two files to write have one name, or one has that of an image."""
    if overwritten := [path for path in listed.values() if path.resolve().parent == output.resolve()]:
        raise DataError(f"the masks would be written beside {overwritten[0]}; name another --output directory")
    written: dict[str, Path] = {}
    for stem, path in listed.items():
        for ending in endings:
            if (other := written.setdefault(f"{stem}{ending}".casefold(), path)) is not path:
                raise DataError(f"{other} and {path} would both be written as {stem}{ending}; predict them apart")


def list_inputs(paths: Iterable[Path]) -> dict[str, Path]:
    """Return image files by stem, those of a directory in sorted order.

    Raises:
        DataError: where a path does not exist, a directory holds no image, or two images share a stem.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise DataError(f"no such image or directory: {path}")
        files = list_images(path) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} holds no image; known endings: {', '.join(sorted(SUFFIXES))}")
        for file in files:
            if file.stem in found:
                raise DataError(
                    f"two images share the stem {file.stem!r}: {found[file.stem]} and {file}; predict them apart"
                )
            found[file.stem] = file
    return found
