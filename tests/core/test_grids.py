import doctest
import itertools
import subprocess
import sys

import pytest

from smooth_attention.core import grids
from smooth_attention.core.errors import ShapeError
from smooth_attention.core.grids import check_grid, half_directions, neighbour_offsets


@pytest.mark.parametrize("grid", [(5,), [2, 3], (2, 1, 4)], ids=str)
def test_check_grid_returns_a_tuple(grid):
    num_positions = 1
    for size in grid:
        num_positions *= size
    assert check_grid(grid, num_positions) == tuple(grid)


@pytest.mark.parametrize(
    ("grid", "num_positions", "match"),
    [
        ((7, 7), 48, r"hold every position, got grid=\(7, 7\) with 49 cells for 48 positions"),
        ((), 1, "1 to 3 axes"),
        ((1, 1, 1, 1), 1, r"1 to 3 axes .* got grid=\(1, 1, 1, 1\)"),
        (49, 49, "1 to 3 axes .* got grid=49"),
        ("77", 49, "1 to 3 axes"),
        ((0, 7), 0, "positive whole sizes"),
        ((-7, -7), 49, "positive whole sizes"),
        ((7.0, 7.0), 49, "positive whole sizes"),
        ((7, None), 7, "positive whole sizes"),
    ],
    ids=str,
)
def test_check_grid_refuses(grid, num_positions, match):
    with pytest.raises(ShapeError, match=match):
        check_grid(grid, num_positions)


@pytest.mark.parametrize(("num_axes", "num_neighbours"), [(1, 2), (2, 8), (3, 26)])
def test_neighbour_offsets_are_all_steps_but_the_centre(num_axes, num_neighbours):
    offsets = neighbour_offsets(num_axes)
    assert len(offsets) == num_neighbours
    assert {*offsets, (0,) * num_axes} == set(itertools.product((-1, 0, 1), repeat=num_axes))


@pytest.mark.parametrize(("num_axes", "num_directions"), [(1, 1), (2, 4), (3, 13)])
def test_half_directions_and_their_opposites_are_all_offsets(num_axes, num_directions):
    directions = half_directions(num_axes)
    opposites = [tuple(-step for step in direction) for direction in directions]
    assert len(directions) == num_directions
    assert sorted([*directions, *opposites]) == sorted(neighbour_offsets(num_axes))


def test_examples_run():
    result = doctest.testmod(grids)
    assert result.attempted >= 3
    assert result.failed == 0


def test_grids_import_without_torch():
    code = "import sys, smooth_attention.core.grids; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
