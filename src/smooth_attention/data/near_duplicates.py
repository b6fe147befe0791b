"""Copies among images: flipped, turned, recompressed, resized ones form a group, so that no split divides them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from smooth_attention.core.errors import OptionError, ShapeError

__all__ = ["MAX_DISTANCE", "group_near_duplicates"]

THUMBNAIL_PX = 32
FREQUENCIES = 16  # per axis
NUM_BITS = FREQUENCIES**2 - 1  # all but the mean brightness
MAX_DISTANCE = 40
LUMINANCE = np.array([0.299, 0.587, 0.114])
BLOCK = 512  # rows compared at once: bounds the memory for many thousand images


def perceptual_hash(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return 255 bits that stay the same when the image is flipped or turned by 90 degrees.

    The bits are the signs of the 16 x 16 lowest frequencies (discrete cosine transform) of a 32 x 32 grey thumbnail,
    without the mean. A flip negates the odd frequencies of an axis and a turn swaps the axes, so the hashes of the
    eight variants of an image follow from each other; the smallest of them stands for all.

    Args:
        image: uint8 RGB of shape (H, W, 3), of any size and aspect ratio.

    Returns:
        bool of shape (255,). Compare two with :func:`hash_distance`; a plain Hamming distance misses copies that are
        turned and altered as well, since the alteration may change which variant is the smallest.

    Raises:
        ShapeError: not a uint8 array of shape (H, W, 3).
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ShapeError(f"a hash needs a uint8 image of shape (H, W, 3), got {image.dtype} of shape {image.shape}")
    grey = image @ LUMINANCE
    thumbnail = box_weights(image.shape[0]) @ grey @ box_weights(image.shape[1]).T
    low = dctn(thumbnail, norm="ortho")[:FREQUENCIES, :FREQUENCIES]
    # Frequencies that a symmetric image lacks come out as rounding noise, whose sign must not count.
    low[np.abs(low) < 1e-6] = 0
    return min((variant > 0 for variant in list_variants(low)), key=np.ndarray.tobytes).ravel()[1:]


def hash_distance(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> int:
    """Return in how many of the 255 bits two hashes differ, at the flip and turn at which they differ least."""
    return int(distances(first[None], second[None])[0, 0])


def group_near_duplicates(
    images: Iterable[tuple[str, NDArray[np.uint8]]], *, max_distance: int = MAX_DISTANCE
) -> list[list[str]]:
    """Group images that are copies of each other, directly or through further copies.

    Found are copies flipped or turned by 90 degrees, recompressed, resized (also to another aspect ratio), up to some
    15 % brighter or 20 % darker, and cropped by up to 1 % of a side. Not found are most copies cropped by more, turned
    by other angles, or with much added, nor frames of one video unless hardly anything moved. The hash keeps coarse
    form only: pictures that differ in details alone are joined, such as pages of one form, dark pictures under one
    overlay, or plain surfaces (all evenly grey images are one group). Read the groups as proposals. Of 78,595 pairs of
    unrelated photographs in four real data sets the default joined none; the nearest such pair lay at 47.

    Args:
        images: pairs of a name and a uint8 RGB image of shape (H, W, 3); read once, one at a time.
        max_distance: most bits, of 255, in which two copies may differ; unrelated photographs differ in about 110. 0
            finds flips, turns and little else.

    Returns:
        The groups of two names or more, names and groups in the order in which they came.

    Raises:
        OptionError: `max_distance` outside 0 to 255.
        ShapeError: see :func:`perceptual_hash`.

    Example:
        >>> image = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
        >>> group_near_duplicates([("a", image), ("b", 255 - image), ("turned", np.rot90(image))])
        [['a', 'turned']]
    """
    if not 0 <= max_distance <= NUM_BITS:
        raise OptionError(f"max_distance counts bits, from 0 to {NUM_BITS}, got {max_distance}")
    names, hashes = [], []
    for name, image in images:
        names.append(name)
        hashes.append(perceptual_hash(image))
    if not names:
        return []
    groups: dict[int, list[str]] = {}
    for name, label in zip(names, linked(np.stack(hashes), max_distance), strict=True):
        groups.setdefault(label, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def linked(hashes: NDArray[np.bool_], max_distance: int) -> list[int]:
    """Number the connected components of the graph that joins hashes within the distance."""
    rows, columns = [], []
    for start in range(0, len(hashes), BLOCK):
        row, column = np.nonzero(distances(hashes[start : start + BLOCK], hashes[start:]) <= max_distance)
        rows.append(row + start)
        columns.append(column + start)
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(row), bool), (row, column)), shape=(len(hashes), len(hashes)))
    return connected_components(graph, directed=False)[1].tolist()


def distances(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Smallest Hamming distance over the eight variants, (first, second), as a matrix product of signs."""
    square = np.pad(np.where(first, np.float32(1), np.float32(-1)), ((0, 0), (1, 0)))  # the mean counts as 0
    square = square.reshape(-1, FREQUENCIES, FREQUENCIES)
    signs = np.where(second, np.float32(1), np.float32(-1)).T
    agreements = [variant.reshape(len(first), -1)[:, 1:] @ signs for variant in list_variants(square)]
    return (NUM_BITS - np.max(agreements, axis=0)) / 2


def list_variants(frequencies: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """Yield the frequencies (..., K, K) of the eight flips and turns of an image."""
    alternate = (1 - 2 * (np.arange(FREQUENCIES) % 2)).astype(frequencies.dtype)
    for turned in (frequencies, np.swapaxes(frequencies, -1, -2)):
        for flipped in (turned, turned * alternate):
            yield flipped
            yield flipped * alternate[:, None]


def box_weights(num_pixels: int) -> NDArray[np.float64]:
    """Return the (32, num_pixels) matrix that averages pixels over 32 equal stretches; symmetric under flips."""
    edges = np.linspace(0, num_pixels, THUMBNAIL_PX + 1)
    left = np.arange(num_pixels)
    overlap = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    return np.clip(overlap, 0, None) * (THUMBNAIL_PX / num_pixels)
