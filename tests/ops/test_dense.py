import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smooth_attention.ops import roughness, smooth_attention, smoothing_gate
from smooth_attention.ops.dense import compute_roughness
from smooth_attention.ops.reference import reference

GRIDS = [(1,), (7,), (1, 1), (1, 9), (7, 7), (13, 5), (1, 1, 1), (3, 4, 5), (2, 1, 3)]
grids = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_roughness_matches_reference_in_value_and_gradient(grid, draw):
    query, key, value = draw(grid)
    results = []
    for rough in (roughness(query, key, grid=grid), reference(query, key, value, grid=grid).roughness):
        weights = torch.linspace(-1, 1, rough.numel(), dtype=rough.dtype).view_as(rough)
        results.append((rough, *torch.autograd.grad((rough * weights).sum(), (query, key))))
    for name, got, want in zip(["roughness", "d_query", "d_key"], *results, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 2, 3)], ids=str)
def test_roughness_gradient(grid, draw):
    query, key, _ = draw(grid, batch=(), num_keys=4, widths=(3, 1))
    assert torch.autograd.gradcheck(lambda q, k: roughness(q, k, grid=grid), (query, key))


def test_single_cell_is_smooth_and_has_gradient_zero(draw):
    query, key, _ = draw((1, 1))
    rough = roughness(query, key, grid=(1, 1))
    rough.sum().backward()
    assert rough.tolist() == [[0.0], [0.0]]
    assert query.grad.abs().max() == 0


def test_nan_row_spreads_to_its_neighbours_only():
    attention = torch.full((5, 3), 1 / 3)
    attention[0] = torch.nan
    assert compute_roughness(attention, (5,)).isnan().tolist() == [True, True, False, False, False]
    assert compute_roughness(attention[:1], (1, 1)).isnan().tolist() == [True]


def test_roughness_and_gate_agree_below_float32(draw):
    query, key, _ = draw((7, 7), torch.bfloat16, spread=3.0)
    rough = roughness(query, key, grid=(7, 7))
    assert rough.dtype == torch.bfloat16
    wide = roughness(query.float(), key.float(), grid=(7, 7))
    gate = smoothing_gate(query, key, grid=(7, 7), threshold=0.4)
    assert torch.equal(gate, wide > 0.4)
    assert 0 < gate.float().mean() < 1


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    grid=grids,
    threshold=st.integers(-50, 150).map(lambda hundredths: hundredths / 100),
    scale=st.sampled_from([None, 1.0, 0.0, -2.0]),
    num_keys=st.integers(1, 9),
    batch=st.sampled_from([(), (1,), (2, 2)]),
    seed=st.integers(0, 999),
)
def test_dense_matches_reference(grid, threshold, scale, num_keys, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(torch.Size(grid).numel(), 4), (num_keys, 4), (num_keys, 3)]
    query, key, value = (2 * torch.randn(*batch, *s, generator=generator, dtype=torch.float64) for s in shapes)
    options = {"grid": grid, "threshold": threshold, "scale": scale}
    want = reference(query, key, value, **options)
    gate = smoothing_gate(query, key, **options, backend="dense")
    output = smooth_attention(query, key, value, **options, backend="dense")
    # Two right paths may differ where rounding decides, which is nowhere but at roughness 0 or 1.
    is_certain = (want.roughness - threshold).abs() > 1e-12
    assert torch.equal(gate[is_certain], want.gate[is_certain])
    same = gate == want.gate
    torch.testing.assert_close(output[same], want.output[same], rtol=0, atol=1e-11)
    assert is_certain.all() or threshold in (0.0, 1.0), f"{(~is_certain).sum()} positions lie at the threshold"
