"""Shape figures against closed forms, Moran's I against its double sum."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from smooth_attention.core.errors import DataError, ShapeError
from smooth_attention.metrics.shape import (
    autocorrelation,
    count_components,
    perimeter,
    perimeter2_area,
    total_variation,
)

SIZE = 161
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def disc(radius: float, centre: tuple[float, float] = (80.0, 80.3)) -> np.ndarray:
    mask: np.ndarray = (ROWS - centre[0]) ** 2 + (COLUMNS - centre[1]) ** 2 <= radius**2
    return mask


def turned_square(side: float, degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    along = (COLUMNS - 80) * math.cos(angle) + (ROWS - 80) * math.sin(angle)
    across = (ROWS - 80) * math.cos(angle) - (COLUMNS - 80) * math.sin(angle)
    mask: np.ndarray = (np.abs(along) <= side / 2) & (np.abs(across) <= side / 2)
    return mask


def moran(grid: np.ndarray) -> float:
    """Moran's I by its definition, cell by cell."""
    height, width = grid.shape
    rest = grid - grid.mean()
    together = weights = 0.0
    for i in range(height):
        for j in range(width):
            for k in range(max(0, i - 1), min(height, i + 2)):
                for m in range(max(0, j - 1), min(width, j + 2)):
                    if (i, j) != (k, m):
                        together += rest[i, j] * rest[k, m]
                        weights += 1
    return float(grid.size / weights * together / (rest**2).sum())


def variation(grid: np.ndarray) -> float:
    height, width = grid.shape
    across = sum(abs(grid[i, j] - grid[i, j - 1]) for i in range(height) for j in range(1, width))
    return float(across + sum(abs(grid[i, j] - grid[i - 1, j]) for i in range(1, height) for j in range(width)))


@pytest.mark.parametrize("radius", [12, 30, 70])
def test_disc_has_the_perimeter_of_a_circle(radius: int) -> None:
    assert perimeter(disc(radius)) == pytest.approx(2 * math.pi * radius, rel=0.02)
    assert perimeter2_area(disc(radius)) == pytest.approx(4 * math.pi, rel=0.03)


@pytest.mark.parametrize("degrees", [0, 10, 22.5, 30, 45])
def test_perimeter_of_a_square_hardly_turns_with_it(degrees: float) -> None:
    assert perimeter(turned_square(100, degrees)) == pytest.approx(400, rel=0.055)


def test_single_pixel_is_the_formula_by_hand() -> None:
    pixel = np.zeros((5, 5), bool)
    pixel[2, 2] = True
    assert perimeter(pixel) == pytest.approx(math.pi / 8 * (4 + 4 / math.sqrt(2)))
    assert perimeter2_area(pixel) == pytest.approx(perimeter(pixel) ** 2)


def test_image_border_counts_as_contour() -> None:
    full, inner = np.ones((9, 7), bool), np.zeros((20, 20), bool)
    inner[4:13, 6:13] = True
    assert perimeter(full) == pytest.approx(perimeter(inner))


def test_holes_have_a_contour_too() -> None:
    ring = disc(60) & ~disc(20)
    assert perimeter(ring) == pytest.approx(perimeter(disc(60)) + perimeter(disc(20)))


def test_two_equal_pieces_double_the_ratio() -> None:
    one, two = disc(30, (80, 40)), disc(30, (80, 40)) | disc(30, (80, 120))
    assert (count_components(one), count_components(two)) == (1, 2)
    assert perimeter2_area(two) == pytest.approx(2 * perimeter2_area(one))


def test_ragged_edge_raises_the_ratio() -> None:
    ragged = disc(40) & ~((ROWS + COLUMNS) % 4 < 2) | disc(36)
    assert perimeter2_area(ragged) > 2 * perimeter2_area(disc(40))


def test_corners_connect() -> None:
    checkers = np.indices((6, 7)).sum(0) % 2 == 0
    assert count_components(checkers) == 1
    assert count_components(np.repeat(np.repeat(np.eye(2, dtype=bool), 2, 0), 2, 1)) == 1
    assert count_components(np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]], bool)) == 4


def test_empty_mask_has_no_component_and_no_ratio() -> None:
    empty = np.zeros((4, 6), bool)
    assert (count_components(empty), perimeter(empty)) == (0, 0)
    assert math.isnan(perimeter2_area(empty))


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (2, 2), (7, 7), (6, 9)], ids=str)
def test_maps_equal_the_double_sums(shape: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((3, 2, *shape))
    maps /= maps.sum((-2, -1), keepdims=True)
    for measure, oracle in ((autocorrelation, moran), (total_variation, variation)):
        found = measure(maps)
        assert found.shape == (3, 2)
        expected = [[oracle(grid) for grid in row] for row in maps]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_variation_of_a_row_of_attention_is_0_to_4() -> None:
    peak = np.zeros((5, 5))
    peak[2, 3] = 1
    assert total_variation(peak) == 4
    assert total_variation(np.full((5, 5), 1 / 25)) == pytest.approx(0)


def test_autocorrelation_knows_order_from_chance() -> None:
    halves = np.repeat([[0.0, 1.0]], 12, 0).repeat(6, 1)
    chance = np.random.default_rng(0).permutation(halves.ravel()).reshape(halves.shape)
    assert autocorrelation(halves) > 0.8
    assert abs(autocorrelation(chance)) < 0.1
    stripes = np.repeat([[0.0, 1.0] * 6], 12, 0)
    assert autocorrelation(stripes) < -0.2


@pytest.mark.parametrize("value", [0.0, 1 / 49], ids=["zero", "uniform"])
def test_constant_map_has_no_autocorrelation(value: float) -> None:
    maps = np.full((2, 7, 7), value)
    maps[1, 0, 0] += value * 1e-8  # what rounding leaves of a uniform row
    assert np.isnan(autocorrelation(maps)).all()
    assert np.isnan(autocorrelation(np.ones((1, 1))))


@pytest.mark.parametrize("measure", [count_components, perimeter, perimeter2_area])
def test_masks_are_checked(measure: Callable[[np.ndarray], float]) -> None:
    with pytest.raises(ShapeError, match=r"a mask must be \(H, W\), got mask.shape=\(2, 3, 3\)"):
        measure(np.ones((2, 3, 3), bool))
    with pytest.raises(DataError, match="a mask must be boolean, got uint8"):
        measure(np.ones((3, 3), np.uint8))


@pytest.mark.parametrize("measure", [total_variation, autocorrelation])
@pytest.mark.parametrize("shape", [(5,), (2, 0, 3)], ids=str)
def test_maps_are_checked(measure: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"maps must be \(..., H, W\) with at least one cell"):
        measure(np.ones(shape))
