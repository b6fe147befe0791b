"""Masks of image files, written beside what else is asked for: nothing of the user's is overwritten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from smooth_attention.core.errors import DataError
from smooth_attention.core.files import write_bytes
from smooth_attention.data.files import SUFFIXES, read_image
from smooth_attention.models.inference import label_map, predict_logits, probabilities
from smooth_attention.models.network import Network
from smooth_attention.runs.pictures import encode_array, encode_image, encode_mask
from smooth_attention.viz.overlays import mask_overlay

__all__ = ["predict_files"]


def predict_files(
    net: Network, images: Sequence[Path], output: Path, *, with_probabilities: bool = False, with_overlay: bool = False
) -> list[Path]:
    """Write the mask of every image as ``<stem>.png`` at the image's size, and return the paths.

    Args:
        net: the network.
        images: files, or directories of them.
        output: where to write; made where it is missing.
        with_probabilities: also write ``<stem>.npy``: float32 (H, W), or (L, H, W) for classes.
        with_overlay: also write ``<stem>_overlay.png``: the mask over the image.

    Raises:
        DataError: naming what is missing, no image, or shares a stem with another, before anything is written for it.
    """
    written = []
    listed = list_images(images)
    if overwritten := [path for path in listed.values() if path.resolve().parent == output.resolve()]:
        raise DataError(f"the masks would be written beside {overwritten[0]}; name another --output directory")
    for stem, path in listed.items():
        pixels = read_image(path)
        logits = predict_logits(net, pixels)
        labels = label_map(logits)
        target = output / f"{stem}.png"
        write_bytes(target, encode_mask(labels, net.label_names))
        if with_probabilities:
            write_bytes(output / f"{stem}.npy", encode_array(probabilities(logits)))
        if with_overlay:
            write_bytes(
                output / f"{stem}_overlay.png",
                encode_image(Image.fromarray(mask_overlay(pixels, labels, num_classes=net.classes))),
            )
        written.append(target)
    return written


def list_images(paths: Iterable[Path]) -> dict[str, Path]:
    """Return image files by stem, those of a directory in sorted order.

    Raises:
        DataError: where a path does not exist, a directory holds no image, or two images share a stem.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise DataError(f"no such image or directory: {path}")
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} holds no image; known endings: {', '.join(sorted(SUFFIXES))}")
        for file in files:
            if file.stem in found:
                raise DataError(
                    f"two images share the stem {file.stem!r}: {found[file.stem]} and {file}; predict them apart"
                )
            found[file.stem] = file
    return found
