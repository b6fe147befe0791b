import pytest
import torch

from smooth_attention.core.grids import neighbour_offsets
from smooth_attention.ops import neighbour_mean
from smooth_attention.ops.neighbours import shift_positions

GRIDS = [(1,), (7,), (1, 1), (1, 9), (4, 6), (1, 1, 1), (3, 4, 5)]


def weights_of(grid):
    """Row i: the weight of every cell in the mean of position i."""
    return neighbour_mean(torch.eye(torch.Size(grid).numel(), dtype=torch.float64), grid=grid)


@pytest.mark.parametrize(
    ("grid", "own", "beside"),
    [((4,), 1 / 2, 1 / 2), ((4, 4), 3 / 8, 2 / 8), ((4, 4, 4), 7 / 26, 4 / 26)],
    ids=["1 axis", "2 axes", "3 axes"],
)
def test_corner_counts_itself(grid, own, beside):
    corner = weights_of(grid)[0].unflatten(0, grid)
    torch.testing.assert_close(corner[(0,) * len(grid)].item(), own)
    for axis in range(len(grid)):
        index = [0] * len(grid)
        index[axis] = 1
        torch.testing.assert_close(corner[tuple(index)].item(), beside)


@pytest.mark.parametrize("grid", [(5,), (5, 5), (5, 5, 5)], ids=str)
def test_inner_cell_weighs_each_neighbour_alike_and_leaves_itself_out(grid):
    middle = weights_of(grid).unflatten(0, grid)[(2,) * len(grid)].unflatten(0, grid)
    num_neighbours = 3 ** len(grid) - 1
    window = middle[(slice(1, 4),) * len(grid)].flatten()
    want = torch.full_like(window, 1 / num_neighbours)
    want[num_neighbours // 2] = 0
    torch.testing.assert_close(window, want)
    torch.testing.assert_close(middle.sum().item(), 1.0)


def test_row_of_two_axes_holds_copies_of_itself():
    one, two = weights_of((7,))[3], weights_of((1, 7))[3]
    torch.testing.assert_close(one[2:5].tolist(), [1 / 2, 0.0, 1 / 2])
    torch.testing.assert_close(two[2:5].tolist(), [3 / 8, 1 / 4, 3 / 8])


@pytest.mark.parametrize("grid", [(1,), (1, 1), (1, 1, 1)], ids=str)
def test_single_cell_keeps_its_value(grid):
    x = torch.tensor([[3.0, -1.0]])
    torch.testing.assert_close(neighbour_mean(x, grid=grid), x)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_mean_by_slices_equals_mean_by_positions(grid, draw):
    x = draw(grid)[0]
    positions = torch.arange(x.shape[-2])
    gathered = [x[..., shift_positions(positions, o, grid), :] for o in neighbour_offsets(len(grid))]
    torch.testing.assert_close(neighbour_mean(x, grid=grid), torch.stack(gathered).mean(dim=0), rtol=0, atol=1e-14)


def test_shift_clamps_each_axis_by_itself():
    positions = torch.tensor([0, 2, 5])  # of rows 0 1 2 / 3 4 5
    assert shift_positions(positions, (1, -1), (2, 3)).tolist() == [3, 4, 4]
    assert shift_positions(positions, (-1, 1), (2, 3)).tolist() == [1, 2, 2]


@pytest.mark.parametrize("grid", [(4,), (3, 4), (2, 1, 3)], ids=str)
def test_gradient(grid, draw):
    assert torch.autograd.gradcheck(lambda x: neighbour_mean(x, grid=grid), draw(grid, widths=(2, 1))[:1])


def test_nan_reaches_the_neighbours_and_no_others():
    x = torch.zeros(25, 1)
    x[12] = torch.nan
    mean = neighbour_mean(x, grid=(5, 5)).view(5, 5)
    want = torch.zeros(5, 5, dtype=torch.bool)
    want[1:4, 1:4] = True
    want[2, 2] = False
    assert torch.equal(mean.isnan(), want)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_keeps_dtype_and_sums_in_float32(dtype, atol, draw):
    x = draw((6, 6), dtype)[0].detach()
    mean = neighbour_mean(x, grid=(6, 6))
    assert mean.dtype == dtype
    exact = neighbour_mean(x.double(), grid=(6, 6))
    torch.testing.assert_close(mean.double(), exact, rtol=0, atol=atol)
    # Rounded once, at the end, so never further from the exact mean than the nearest number of the dtype (and float32).
    assert torch.equal(mean, neighbour_mean(x.float(), grid=(6, 6)).to(dtype))
