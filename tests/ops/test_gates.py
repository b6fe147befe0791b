import pytest
import torch

from smooth_attention.ops import smooth_attention, smoothing_gate
from smooth_attention.ops.gates import decide_gate
from smooth_attention.ops.reference import reference

NAN = float("nan")


def gate_of(roughness, **rule):
    rule = {"threshold": None, "fraction": None} | rule
    return decide_gate(torch.tensor(roughness), **rule).int().tolist()


def test_threshold_is_strict():
    assert gate_of([0.25, 0.5, 0.75, NAN], threshold=0.5) == [0, 0, 1, 0]


def test_no_rule_smooths_nothing():
    assert gate_of([0.25, 1.0, NAN]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("fraction", "want"),
    [(0.1, [0, 0, 0, 0]), (0.25, [0, 0, 1, 0]), (0.5, [1, 0, 1, 0]), (0.75, [1, 0, 1, 1]), (0.99, [1, 1, 1, 1])],
)
def test_fraction_smooths_the_roughest_share(fraction, want):
    assert gate_of([0.6, 0.1, 0.9, 0.4], fraction=fraction) == want


def test_equally_rough_positions_go_by_position():
    assert gate_of([0.2, 0.5, 0.5, 0.5, 0.1], fraction=0.4) == [0, 1, 1, 0, 0]
    assert gate_of([0.0] * 40, fraction=0.25) == [1] * 10 + [0] * 30


def test_fraction_counts_per_map():
    assert gate_of([[0.9, 0.8, 0.7, 0.6], [0.0, 0.1, 0.2, 0.3]], fraction=0.5) == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_fraction_never_takes_nan():
    assert gate_of([NAN, 0.1, 0.3, NAN], fraction=0.25) == [0, 0, 1, 0]
    assert gate_of([NAN, 0.1, 0.3, NAN], fraction=0.9) == [0, 1, 1, 0]


@pytest.mark.parametrize("grid", [(8,), (7, 7), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.25, 0.5, 0.999])
def test_fraction_of_the_positions_is_smoothed(grid, fraction, draw):
    query, key, _ = draw(grid, batch=(2, 3))
    gate = smoothing_gate(query, key, grid=grid, fraction=fraction)
    num_positions = gate.shape[-1]
    assert gate.sum(-1).unique().tolist() == [round(fraction * num_positions)]


@pytest.mark.parametrize("threshold", [-1.0, 0.05, 0.4, 0.999, 1.0, None], ids=str)
@pytest.mark.parametrize("bad", ["query", "key"])
@pytest.mark.parametrize("value_of_bad", [NAN, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("widths", [(8, 6), (8, 8)], ids=str)  # the CPU's fused kernel takes equal widths only
@pytest.mark.parametrize("num_keys", [3, 40])
def test_nan_rows_are_not_smoothed_and_stay_nan(threshold, bad, value_of_bad, num_keys, widths, draw):
    grid = (5, 5)
    query, key, value = (x.detach() for x in draw(grid, batch=(), num_keys=num_keys, widths=widths))
    if bad == "query":
        query[12, 0] = value_of_bad
    else:
        key[1, 0] = value_of_bad
        query[7, 0] = -query[8, 0]  # one of the two rows is NaN, the other gives an infinite key no weight
    want = reference(query, key, value, grid=grid, threshold=threshold)
    gate = smoothing_gate(query, key, grid=grid, threshold=threshold)
    output = smooth_attention(query, key, value, grid=grid, threshold=threshold)
    assert want.output.isnan().any()
    assert torch.equal(output.isnan(), want.output.isnan())
    if threshold == -1.0 and bad == "key":
        assert not gate.any()  # told without logits, so an infinite key counts as a NaN
    else:
        assert torch.equal(gate, want.gate)
        torch.testing.assert_close(output, want.output, rtol=0, atol=1e-12, equal_nan=True)


def test_nan_query_closes_the_gate_around_itself(draw):
    grid = (5, 5)
    query, key, value = (x.detach() for x in draw(grid, batch=()))
    query[12] = NAN
    gate = smoothing_gate(query, key, grid=grid, threshold=-1.0).view(grid)
    assert not gate[1:4, 1:4].any()
    assert gate.sum() == 25 - 9
    output = smooth_attention(query, key, value, grid=grid, threshold=-1.0)
    assert output.isnan().any(-1).nonzero().flatten().tolist() == [12]


def test_nan_value_is_nan_in_its_column_only(draw):
    query, key, value = (x.detach() for x in draw((4, 4), batch=()))
    value[2, 1] = NAN
    output = smooth_attention(query, key, value, grid=(4, 4), threshold=0.2)
    assert output.isnan().any(dim=0).tolist() == [False, True, False, False, False, False]
    assert output[:, 1].isnan().all()


def test_gradient_of_value_beside_a_nan_query_is_finite_where_its_output_is_not_used(draw):
    query, key, value = (x.detach() for x in draw((5, 5), batch=()))
    query[12] = NAN
    query.requires_grad_()
    output = smooth_attention(query, key, value, grid=(5, 5), threshold=0.1)
    keep = torch.ones(25, dtype=torch.bool)
    keep[12] = False
    (gradient,) = torch.autograd.grad(output[keep].sum(), query)
    assert gradient[keep].isfinite().all()
    assert gradient[keep].abs().max() > 0
