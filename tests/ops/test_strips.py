import math

import pytest
import torch

from smooth_attention.ops import roughness, strips
from smooth_attention.ops.dense import compute_attention, compute_roughness
from smooth_attention.ops.log_sum_exp import log_sum_exp
from smooth_attention.ops.reference import reference
from smooth_attention.ops.strips import find_steepest, measure_roughness

GRIDS = [(1,), (40,), (1, 1), (1, 9), (9, 1), (13, 11), (3, 4, 5), (6, 1, 7)]


@pytest.fixture(params=[1 << 19, 600], ids=["one strip", "many strips"])
def tile_entries(request, monkeypatch):
    monkeypatch.setattr(strips, "TILE_ENTRIES", request.param)
    monkeypatch.setattr(strips, "KEY_TILE", min(256, request.param // 60))
    return request.param


def draw(grid, num_keys=37, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(math.prod(grid), width), (num_keys, width)]
    return [1.5 * torch.randn(3, *s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_roughness_and_gradient_match_the_formula(grid, tile_entries):
    query, key = draw(grid)
    results = []
    for rough in (measure_roughness(query, key, grid), reference(query, key, key, grid=grid, scale=1.0).roughness):
        weights = torch.linspace(-1, 1, rough.numel(), dtype=rough.dtype).view_as(rough)
        results.append((rough, *torch.autograd.grad((rough * weights).sum(), (query, key))))
    for name, got, want in zip(["roughness", "d_query", "d_key"], *results, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_steepest_entry_is_where_it_says(grid, tile_entries):
    query, key = (x.detach() for x in draw(grid))
    attention = compute_attention(query, key, 1.0)
    rough, neighbour, where = find_steepest(query, key, log_sum_exp(query, key), list(grid))
    torch.testing.assert_close(rough, compute_roughness(attention, grid), rtol=0, atol=1e-13)
    here = attention.gather(-1, where.unsqueeze(-1)).squeeze(-1)
    there = attention.gather(-2, neighbour.unsqueeze(-1).expand_as(attention)).gather(-1, where.unsqueeze(-1))
    torch.testing.assert_close((here - there.squeeze(-1)).abs(), rough, rtol=0, atol=1e-13)
    steps = torch.stack(torch.unravel_index(neighbour, grid)) - torch.stack(
        torch.unravel_index(torch.arange(query.shape[1]).expand_as(neighbour), grid)
    )
    assert steps.abs().max() <= 1


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 2, 3)], ids=str)
def test_gradient(grid):
    query, key = (x[0] for x in draw(grid, num_keys=4, width=3))
    assert torch.autograd.gradcheck(lambda q, k: roughness(q, k, grid=grid, scale=1.0), (query, key))


def test_normaliser_belongs_to_the_gradient():
    """Without the gradient of the log-sum-exp the result would be wrong by more than itself."""
    query, key = draw((6, 6))
    rough = measure_roughness(query, key, (6, 6))
    (right,) = torch.autograd.grad(rough.sum(), query)
    lse = log_sum_exp(query, key).detach()
    _, neighbour, where = find_steepest(query.detach(), key.detach(), lse, [6, 6])
    at_key = strips.take_keys(key, where)
    here = ((query * at_key).sum(-1) - lse).exp()
    there = ((strips.take_keys(query, neighbour) * at_key).sum(-1) - lse.gather(-1, neighbour)).exp()
    (constant,) = torch.autograd.grad((here - there).abs().sum(), query)
    assert (constant - right).norm() > right.norm()


def test_rows_of_nan_reach_their_neighbours(tile_entries):
    query, key = (x.detach() for x in draw((13, 11)))
    query[1, 60, 0] = math.nan
    query[2, :, 1], query[2, 0, 1], key[2, 0, 1] = 0, 1e200, 1e200
    got = measure_roughness(query, key, (13, 11))
    want = compute_roughness(compute_attention(query, key, 1.0), (13, 11))
    assert want[0].isnan().sum() == 0
    assert want[1].isnan().sum() == 9
    assert want[2].isnan().sum() == 4
    torch.testing.assert_close(got, want, equal_nan=True, rtol=0, atol=1e-12)
