"""How fragmented a mask is, how rough an attention map is: no truth needed.

A mask is boolean (H, W); of a label map compare with one label first. Pixels outside the image are background, so the
image border counts as contour, as in Boundary IoU.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

from smooth_attention.core.errors import DataError, ShapeError

__all__ = ["autocorrelation", "count_components", "perimeter2_area", "total_variation"]

CONSTANT = 1e-6  # a map whose values spread by less than this share of the largest is constant: the rest is rounding


def count_components(mask: np.ndarray) -> int:
    """Connected components of a mask; pixels that touch at a corner are connected. An empty mask has none.

    Args:
        mask: boolean, (H, W).

    Raises:
        ShapeError: the mask has not two axes.
        DataError: the mask is not boolean.

    Example:
        >>> import numpy as np
        >>> count_components(np.eye(3, dtype=bool)), count_components(np.array([[True, False, True]]))
        (1, 2)
    """
    _, count = ndimage.label(checked_mask(mask), structure=np.ones((3, 3)))
    return int(count)


def perimeter(mask: np.ndarray) -> float:
    r"""Length of a mask's contour, holes included, in pixels, by Crofton's formula with four directions.

    :math:`\frac{\pi}{8} (N_- + N_| + (N_\diagup + N_\diagdown) / \sqrt 2)`, with N the number of steps from mask to
    background along the rows, the columns and both diagonals. A large disc has its :math:`2 \pi r`; a straight
    contour is 5 % too short along the axes and the diagonals, at most 3 % too long between them. Counting pixel
    edges instead would give every disc the perimeter of its bounding square.

    Args:
        mask: boolean, (H, W).

    Raises:
        ShapeError: the mask has not two axes.
        DataError: the mask is not boolean.

    Reference:
        Legland et al., Computation of Minkowski Measures on 2D and 3D Binary Images, Image Analysis & Stereology 2007.

    Example:
        >>> import numpy as np
        >>> round(perimeter(np.ones((100, 100), bool)))
        378
    """
    padded = np.pad(checked_mask(mask), 1)
    across = np.count_nonzero(padded[:, 1:] != padded[:, :-1]) + np.count_nonzero(padded[1:] != padded[:-1])
    falling = np.count_nonzero(padded[1:, 1:] != padded[:-1, :-1])
    rising = np.count_nonzero(padded[1:, :-1] != padded[:-1, 1:])
    return float(math.pi / 8 * (across + (falling + rising) / math.sqrt(2)))


def perimeter2_area(mask: np.ndarray) -> float:
    r"""Perimeter squared over area: how ragged a mask is, at any size.

    :math:`4 \pi = 12.6` for a large disc, about 14.4 for a square along the axes, k times as much for k equal ones. The
    whole mask counts as one shape. NaN for an empty mask; masks of a few pixels can lie below :math:`4 \pi`.

    Args:
        mask: boolean, (H, W).

    Raises:
        ShapeError: the mask has not two axes.
        DataError: the mask is not boolean.

    Example:
        >>> import numpy as np
        >>> round(perimeter2_area(np.ones((100, 100), bool)), 1)
        14.3
    """
    area = int(np.count_nonzero(checked_mask(mask)))
    return perimeter(mask) ** 2 / area if area else math.nan


def total_variation(maps: np.ndarray) -> Float64[np.ndarray, "*lead"]:
    """Sum of the absolute differences of all horizontal and vertical neighbours of a map.

    Meant for rows of attention, which sum to 1, so that grids of any size compare: 0 if a position looks everywhere
    alike, 4 if it looks at one inner cell. No wrap: a border cell has no neighbour outside.

    Args:
        maps: (..., H, W), any leading axes.

    Returns:
        One number per map.

    Raises:
        ShapeError: fewer than two axes.

    Example:
        >>> import numpy as np
        >>> total_variation(np.array([[0.0, 1.0, 0.0]]))
        array(2.)
    """
    maps = checked_maps(maps)
    across, down = (np.abs(np.diff(maps, axis=axis)).sum((-2, -1)) for axis in (-1, -2))
    return np.asarray(across + down)


def autocorrelation(maps: np.ndarray) -> Float64[np.ndarray, "*lead"]:
    r"""Moran's I of a map with its up to 8 neighbours of weight 1, no wrap.

    :math:`\frac{N}{\sum w_{ij}} \frac{\sum w_{ij} (x_i - \bar x)(x_j - \bar x)}{\sum (x_i - \bar x)^2}`: towards 1
    where alike cells lie together, about :math:`-1 / (N - 1)` where cells are drawn at random. NaN for a constant map.

    Args:
        maps: (..., H, W), any leading axes.

    Returns:
        One number per map, NaN where the values spread by less than 1e-6 of the largest.

    Raises:
        ShapeError: fewer than two axes.

    Reference:
        Moran, Notes on Continuous Stochastic Phenomena, Biometrika 1950.

    Example:
        >>> import numpy as np
        >>> round(float(autocorrelation(np.array([[0.0, 1.0], [0.0, 1.0]]))), 3)
        -0.333
    """
    maps = checked_maps(maps)
    height, width = maps.shape[-2:]
    rest = maps - maps.mean((-2, -1), keepdims=True)
    pairs = [
        rest[..., :, 1:] * rest[..., :, :-1],
        rest[..., 1:, :] * rest[..., :-1, :],
        rest[..., 1:, 1:] * rest[..., :-1, :-1],
        rest[..., 1:, :-1] * rest[..., :-1, 1:],
    ]
    together = sum(products.sum((-2, -1)) for products in pairs)
    num_pairs = height * (width - 1) + (height - 1) * width + 2 * (height - 1) * (width - 1)
    is_constant = np.ptp(maps, axis=(-2, -1)) <= CONSTANT * np.abs(maps).max((-2, -1))
    spread = np.where(is_constant, np.nan, (rest**2).sum((-2, -1)))
    return np.asarray(height * width / max(1, num_pairs) * together / spread)


def checked_mask(mask: np.ndarray) -> Bool[np.ndarray, "h w"]:
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ShapeError(f"a mask must be (H, W), got {mask.shape=}; measure one image at a time")
    if mask.dtype != np.bool_:
        raise DataError(f"a mask must be boolean, got {mask.dtype}; compare with a label first, e.g. labels == 1")
    return mask


def checked_maps(maps: np.ndarray) -> Float64[np.ndarray, "*lead h w"]:
    maps = np.asarray(maps, np.float64)
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise ShapeError(f"maps must be (..., H, W) with at least one cell, got {maps.shape=}; unflatten the rows")
    return maps
