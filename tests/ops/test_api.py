import doctest
import inspect

import pytest
import torch
import torch.nn.functional as F

from smooth_attention import ops
from smooth_attention.ops import api, attention_rows, neighbour_mean, roughness, smooth_attention, smoothing_gate
from smooth_attention.ops.dense import compute_attention
from smooth_attention.ops.reference import reference

GRIDS = [(1,), (7,), (1, 1), (1, 9), (7, 7), (13, 5), (1, 1, 1), (3, 4, 5)]
RULES = [{"threshold": 0.3}, {"fraction": 0.25}, {"threshold": -1.0}, {"threshold": None}]
# As a share of the largest entry of what is compared.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
SIGNATURES = {
    "explain_backend": "query key * grid threshold=None fraction=None scale=None backend='auto'",
    "smooth_attention": "query key value * grid threshold=None fraction=None temperature=None scale=None"
    " backend='auto'",
    "smoothing_gate": "query key * grid threshold=None fraction=None scale=None backend='auto'",
    "roughness": "query key * grid scale=None",
    "attention_rows": "query key positions * grid threshold=None fraction=None scale=None",
    "neighbour_mean": "x * grid",
}


def outputs_and_grads(run, inputs, upstream):
    output = run(*inputs)
    return output.detach(), *torch.autograd.grad(output, inputs, upstream.to(output.dtype))


def assert_close(got, want, share, name):
    bound = share * max(want.abs().max().item(), 1e-3)
    off = (got.double() - want.double()).abs().max().item()
    assert off <= bound, f"{name}: off by {off:.3g}, allowed {bound:.3g}"


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_backend_matches_reference_in_output_and_every_gradient(backend, rule, grid, dtype, draw):
    inputs = draw(grid, dtype, widths=(8, 8))
    wide = [x.detach().double().requires_grad_() for x in inputs]
    specified = reference(*wide, grid=grid, **rule)
    gate = smoothing_gate(*inputs[:2], grid=grid, backend=backend, **rule)
    # Gates are decided in float32 at least, so no position of these draws is near enough to flip.
    assert torch.equal(gate, specified.gate)
    upstream = torch.randn(specified.output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = outputs_and_grads(
        lambda q, k, v: smooth_attention(q, k, v, grid=grid, backend=backend, **rule), inputs, upstream
    )
    want = outputs_and_grads(lambda q, k, v: reference(q, k, v, grid=grid, **rule).output, wide, upstream)
    for name, g, w in zip(["output", "d_query", "d_key", "d_value"], got, want, strict=True):
        assert g.dtype == dtype
        assert_close(g, w, TOLERANCE[dtype], name)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("grid", [(5,), (3, 3), (2, 2, 2)], ids=str)
def test_gradient(grid, rule, draw):
    inputs = draw(grid, batch=(), num_keys=3, widths=(2, 2))
    rough = roughness(*inputs[:2], grid=grid)
    # A step of the numeric derivative must not flip a gate.
    assert (rough - 0.3).abs().min() > 1e-4
    assert torch.autograd.gradcheck(lambda q, k, v: smooth_attention(q, k, v, grid=grid, **rule), inputs)
    positions = torch.tensor([1, 3, 3])
    assert torch.autograd.gradcheck(lambda q, k: attention_rows(q, k, positions, grid=grid, **rule), inputs[:2])


@pytest.mark.parametrize("threshold", [None, 1, 1.0, 2.0, float("inf")], ids=str)
def test_high_threshold_is_scaled_dot_product_attention(threshold, draw):
    inputs = draw((6, 6), torch.float32, batch=(2, 3), widths=(8, 8))
    plain = F.scaled_dot_product_attention(*inputs)
    assert torch.equal(smooth_attention(*inputs, grid=(6, 6), threshold=threshold), plain)


@pytest.mark.parametrize("threshold", [-1, -1e-9, -float("inf")], ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_negative_threshold_smooths_every_row(grid, threshold, draw):
    query, key, value = draw(grid)
    assert smoothing_gate(query, key, grid=grid, threshold=threshold).all()
    want = neighbour_mean(F.scaled_dot_product_attention(query, key, value), grid=grid)
    torch.testing.assert_close(smooth_attention(query, key, value, grid=grid, threshold=threshold), want)


def test_threshold_zero_leaves_equal_rows_alone(draw):
    query, key, _ = draw((4, 4))
    assert not smoothing_gate(query, key, grid=(4, 4), threshold=0.0, scale=0.0).any()
    assert smoothing_gate(query, key, grid=(4, 4), threshold=0.0).all()


def test_scale_none_is_one_over_the_root_of_the_width(draw):
    inputs = draw((4, 4), widths=(16, 3))
    options = {"grid": (4, 4), "threshold": 0.2}
    assert torch.equal(smooth_attention(*inputs, **options), smooth_attention(*inputs, **options, scale=0.25))
    flat = smooth_attention(*inputs, **options, scale=0.0)
    torch.testing.assert_close(flat, inputs[2].mean(dim=-2, keepdim=True).expand_as(flat))


def test_gate_has_no_graph_and_changes_no_input(draw):
    inputs = draw((4, 4))
    before = [x.detach().clone() for x in inputs]
    assert not smoothing_gate(*inputs[:2], grid=(4, 4), threshold=0.2).requires_grad
    smooth_attention(*inputs, grid=(4, 4), threshold=0.2)
    assert all(torch.equal(x, b) for x, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_autocast_changes_nothing(rule, draw):
    inputs = draw((7, 7), torch.float32, spread=4.0)
    positions = torch.arange(49)

    def run():
        query, key, _ = inputs
        output = smooth_attention(*inputs, grid=(7, 7), **rule)
        gate = smoothing_gate(query, key, grid=(7, 7), **rule)
        rows = attention_rows(query, key, positions, grid=(7, 7), **rule)
        rough = roughness(query, key, grid=(7, 7))
        return output, gate, rows, rough, reference(*inputs, grid=(7, 7), **rule).output

    def with_gradients(results):  # outside of autocast, as its documentation asks
        return [*results, *torch.autograd.grad(results[0].square().sum(), inputs)]

    plain = with_gradients(run())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.scaled_dot_product_attention(*inputs).dtype == torch.bfloat16  # what it would be without our care
        cast = run()
    for got, want in zip(with_gradients(cast), plain, strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def test_half_precision_inputs_have_their_gate_in_float32(draw):
    query, key, _ = draw((14, 14), torch.bfloat16, num_keys=40, spread=6.0)
    gate = smoothing_gate(query, key, grid=(14, 14), threshold=0.4)
    assert torch.equal(gate, smoothing_gate(query.float(), key.float(), grid=(14, 14), threshold=0.4))
    scale = query.shape[-1] ** -0.5
    logits = (query @ key.mT).detach() * scale
    exact = compute_attention(query, key, scale)
    assert (logits.float().softmax(-1) - exact).abs().max() > 1e-3  # bfloat16 logits would tell another story


def test_non_contiguous_inputs(draw):
    contiguous = [x.detach() for x in draw((6, 7), batch=(2, 3))]
    strided = [x.permute(1, 3, 0, 2).contiguous().permute(2, 0, 3, 1) for x in contiguous]
    assert not any(x.is_contiguous() for x in strided)
    options = {"grid": (6, 7), "threshold": 0.3}
    torch.testing.assert_close(smooth_attention(*strided, **options), smooth_attention(*contiguous, **options))
    assert torch.equal(smoothing_gate(*strided[:2], **options), smoothing_gate(*contiguous[:2], **options))
    mean = neighbour_mean(strided[0], grid=(6, 7))
    assert torch.equal(mean, neighbour_mean(contiguous[0], grid=(6, 7)))


@pytest.mark.parametrize(
    ("lead_query", "lead_key", "lead_value"),
    [
        ((), (), ()),
        ((3,), (), ()),
        ((), (3,), ()),
        ((), (), (3,)),
        ((2, 1), (1, 3), (3,)),
        ((2, 3), (2, 3), (2, 3)),
        ((2, 1, 2), (3, 1), (2, 3, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_leading_dimensions_broadcast(lead_query, lead_key, lead_value, rule, draw):
    leads = (lead_query, lead_key, lead_value)
    inputs = [draw((3, 4), batch=lead, num_keys=5, seed=i)[i].detach() for i, lead in enumerate(leads)]
    options = {"grid": (3, 4), **rule}
    output = smooth_attention(*inputs, **options)
    assert output.shape == F.scaled_dot_product_attention(*inputs).shape
    lead_rows = torch.broadcast_shapes(lead_query, lead_key)
    gate = smoothing_gate(*inputs[:2], **options)
    assert gate.shape == (*lead_rows, 12)
    assert attention_rows(*inputs[:2], torch.arange(4), **options).shape == (*lead_rows, 4, 5)
    # One map at a time gives the same.
    lead = torch.broadcast_shapes(*leads)
    maps = [x.expand(*lead, *x.shape[-2:]).reshape(-1, *x.shape[-2:]) for x in inputs]
    single = [smooth_attention(q, k, v, **options) for q, k, v in zip(*maps, strict=True)]
    torch.testing.assert_close(output, torch.stack(single).view(output.shape))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("lead", [(0,), (2, 0), (0, 3)], ids=str)
def test_empty_batch(lead, rule, draw):
    inputs = draw((3, 4), torch.float32, batch=lead)
    query, key, _ = inputs
    output = smooth_attention(*inputs, grid=(3, 4), **rule)
    assert output.shape == (*lead, 12, 6)
    output.sum().backward()
    assert query.grad.shape == query.shape
    assert smoothing_gate(query, key, grid=(3, 4), **rule).shape == (*lead, 12)
    assert roughness(query, key, grid=(3, 4)).shape == (*lead, 12)
    assert attention_rows(query, key, torch.tensor([0, 5]), grid=(3, 4), **rule).shape == (*lead, 2, 11)
    assert neighbour_mean(query, grid=(3, 4)).shape == query.shape


def test_single_row_of_two_axes_is_not_one_axis(draw):
    query, key, value = draw((9,), batch=())
    one, two = ({"grid": grid, "threshold": 0.3} for grid in [(9,), (1, 9)])
    gate = smoothing_gate(query, key, **one)
    assert torch.equal(gate, smoothing_gate(query, key, **two))
    is_inner = gate & (torch.arange(9) % 8 > 0)
    assert is_inner.any()
    plain = smooth_attention(query, key, value, grid=(9,))
    outputs = [smooth_attention(query, key, value, **options) for options in (one, two)]
    # The padded rows are copies: an inner cell counts itself by a quarter.
    torch.testing.assert_close(outputs[1][is_inner], (plain / 4 + 3 / 4 * outputs[0])[is_inner])
    torch.testing.assert_close(outputs[1][~gate], plain[~gate])


def test_rows_come_in_the_order_asked_for(draw):
    query, key, _ = draw((4, 5))
    rows = attention_rows(query, key, torch.arange(20), grid=(4, 5), threshold=0.3)
    chosen = torch.tensor([19, 0, 7, 7], dtype=torch.uint8)  # a step back from 0 must not wrap around
    some = attention_rows(query, key, chosen, grid=(4, 5), threshold=0.3)
    torch.testing.assert_close(some, rows[:, chosen.long()])
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 20, dtype=torch.float64))
    assert attention_rows(query, key, chosen[:0], grid=(4, 5), threshold=0.3).shape == (2, 0, 11)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_door_keeps_the_dtype(dtype, draw):
    query, key, value = draw((3, 3), dtype)
    options = {"grid": (3, 3), "threshold": 0.3}
    assert smooth_attention(query, key, value, **options).dtype == dtype
    assert attention_rows(query, key, torch.tensor([4]), **options).dtype == dtype
    assert roughness(query, key, grid=(3, 3)).dtype == dtype
    assert neighbour_mean(query, grid=(3, 3)).dtype == dtype
    assert smoothing_gate(query, key, **options).dtype == torch.bool


def test_meta_tensors_give_shapes():
    query, key, value = (torch.empty(2, n, 8, device="meta") for n in (12, 5, 5))
    output = smooth_attention(query, key, value, grid=(3, 4), threshold=0.3)
    assert (output.shape, output.device.type) == ((2, 12, 8), "meta")


def test_doors_are_these_with_these_arguments():
    assert sorted(ops.__all__) == sorted(SIGNATURES)
    for name, want in SIGNATURES.items():
        shown, has_star = [], False
        for parameter in inspect.signature(getattr(ops, name)).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and not has_star:
                shown.append("*")
                has_star = True
            is_given = parameter.default is parameter.empty
            shown.append(parameter.name if is_given else f"{parameter.name}={parameter.default!r}")
        assert " ".join(shown) == want, name


@pytest.mark.parametrize("name", SIGNATURES)
def test_example_runs(name):
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(api, name), name, globs={})
    result = doctest.DocTestRunner().run(example)
    assert result.attempted >= 2
    assert result.failed == 0
