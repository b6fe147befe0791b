"""The gate without the matrix: against the formula in float64, by property, and on inputs that try each shortcut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smooth_attention.ops import smooth_attention, smoothing_gate, tiled
from smooth_attention.ops.log_sum_exp import log_sum_exp
from smooth_attention.ops.reference import reference
from smooth_attention.ops.tiled import tiled_gate

KINDS = ["diffuse", "normal", "mixed", "peaked", "sinks", "smooth", "shared"]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles of keys and several chunks of rows, at sizes that the formula can follow."""
    monkeypatch.setattr(tiled, "SCREEN_TILE", 96)
    monkeypatch.setattr(tiled, "TILE_ENTRIES", 96 * 150)


def draw_kind(kind, grid, *, num_keys=None, width=16, dtype=torch.float32, seed=0):
    """Query and key (2, N, E), (2, S, E) as feature maps have them: even, sharp here and there, with sinks, smooth."""
    generator = torch.Generator().manual_seed(seed)
    num_positions = math.prod(grid)
    num_keys = num_positions if num_keys is None else num_keys
    query = torch.randn(2, num_positions, width, generator=generator, dtype=torch.float64)
    key = torch.randn(2, num_keys, width, generator=generator, dtype=torch.float64)
    aimed = 20 / math.sqrt(width) * key[:, torch.randint(num_keys, (num_positions,), generator=generator)]
    is_aimed = torch.rand(2, num_positions, 1, generator=generator, dtype=torch.float64) < 0.05
    if kind == "diffuse":
        query = 0.5 * query
    elif kind == "mixed":
        query = torch.where(is_aimed, aimed, query)
    elif kind == "peaked":
        query = aimed
    elif kind == "sinks":  # a few long keys that many rows look at: the bound by the longest key rules nothing out
        key[:, :2] *= 8
    elif kind == "smooth":  # neighbours alike, as in a feature map
        query = query.cumsum(1) / 4
    elif kind == "shared":  # two or three keys share nearly all of a row: entries beyond the largest decide
        key[:, 1] = key[:, 0] + 0.01
        key[:, 2] = key[:, 0] - 0.01
        query = torch.where(is_aimed, 20 / math.sqrt(width) * key[:, :1], query)
    return query.to(dtype), key.to(dtype)


def margin(query, key, scale):
    """How near the threshold rounding may decide, as docs/operator.md says."""
    largest = (scale * query.double() @ key.double().mT).abs().amax().item()
    eps = torch.finfo(torch.promote_types(query.dtype, torch.float32)).eps
    return 4 * eps * max(1.0, largest) * math.sqrt(query.shape[-1])


def check_gate(query, key, grid, threshold, *, scale=None, allowed=0, lse=None):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    want = reference(query.double(), key.double(), key.double(), grid=grid, threshold=threshold, scale=scale)
    got = tiled_gate(query, key, grid=grid, threshold=threshold, fraction=None, scale=scale, lse=lse)
    is_certain = (want.roughness - threshold).abs() > margin(query, key, scale)
    left_out = (~is_certain).sum().item()
    assert left_out <= allowed, f"{left_out} positions of {is_certain.numel()} lie at the threshold"
    assert torch.equal(got[is_certain], want.gate[is_certain])
    return want.gate


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [1 / 64, 0.1, 0.4, 0.9])
@pytest.mark.parametrize("grid", [(400,), (21, 19), (7, 8, 7)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_gate_is_the_formula_s(kind, threshold, grid, dtype):
    check_gate(*draw_kind(kind, grid, dtype=dtype), grid, threshold, allowed=6)


def test_kinds_reach_every_share():
    shares = {k: check_gate(*draw_kind(k, (21, 19)), (21, 19), 0.4, allowed=2).float().mean().item() for k in KINDS}
    assert shares["diffuse"] == 0
    assert shares["normal"] < 0.2
    assert 0.05 < shares["mixed"] < 0.6
    assert shares["peaked"] > 0.99
    assert 0.1 < shares["smooth"] < 0.99


def test_entries_beyond_the_largest_decide():
    # Row 0 holds 0.5 and 0.3; its neighbour 0.5 at the same place but nothing at the other: they differ by 0.3 there.
    wanted = torch.tensor([[0.5, 0.3, 0.2 - 2e-9, 1e-9, 1e-9], [0.5, 1e-9, 1e-9, 0.3, 0.2 - 2e-9]], dtype=torch.float64)
    query, key = wanted.log().unsqueeze(0), torch.eye(5, dtype=torch.float64).unsqueeze(0)
    options = {"grid": (2,), "fraction": None, "scale": 1.0}
    assert tiled_gate(query, key, threshold=0.29, **options).all()
    assert not tiled_gate(query, key, threshold=0.31, **options).any()


@pytest.mark.parametrize("is_fast", [False, True], ids=["screen in full", "screen in bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_screening_dtype_changes_nothing(kind, is_fast, monkeypatch):
    monkeypatch.setattr(tiled, "multiplies_bfloat16", lambda: is_fast)
    query, key = draw_kind(kind, (21, 19))
    check_gate(query, key, (21, 19), 0.1, allowed=2)
    check_gate(query, key, (21, 19), 0.1, scale=-0.25, allowed=2)


def test_large_logits_are_not_screened_in_bfloat16(monkeypatch):
    monkeypatch.setattr(tiled, "multiplies_bfloat16", lambda: True)
    query, key = draw_kind("normal", (21, 19), width=64)
    rows = tiled.Rows(
        query[0], key[0], query[0, :, 0], 30 * query[0].norm(dim=-1), key[0].norm(dim=-1).amax()[None], 0.4
    )
    assert tiled.screen_by(rows)[1] == torch.float32
    assert tiled.screen_by(rows._replace(reach=query[0].norm(dim=-1) / 8))[1] == torch.bfloat16
    check_gate(query, key, (21, 19), 0.4, scale=1.0, allowed=5)


def test_diffuse_inputs_need_no_logits(monkeypatch):
    def fail(*args):
        raise AssertionError("no logits are needed here")

    query, key = draw_kind("diffuse", (21, 19))
    monkeypatch.setattr(tiled, "log_sum_exp", fail)
    options = {"grid": (21, 19), "fraction": None, "scale": 0.1}
    assert not tiled_gate(query, key + 100.0, threshold=0.4, **options).any()
    with pytest.raises(AssertionError, match="no logits"):
        tiled_gate(20 * query, key, threshold=0.4, **options)


@pytest.mark.parametrize("kind", ["mixed", "peaked"])
def test_few_logits_are_multiplied_where_few_rows_matter(kind, monkeypatch):
    """Rows ruled out and rows settled are dropped: of all logits only a part is ever computed."""
    multiplied = 0

    def count(logits_PT, floor_P):
        nonlocal multiplied
        multiplied += logits_PT.numel()
        return may_exceed(logits_PT, floor_P)

    may_exceed = tiled.may_exceed
    monkeypatch.setattr(tiled, "may_exceed", count)
    query, key = draw_kind(kind, (32, 32), width=64)
    if kind == "mixed":
        query = torch.where(query.norm(dim=-1, keepdim=True) > 12, query, 0.4 * query)
    lse = log_sum_exp(query / 8, key)
    tiled_gate(query, key, grid=(32, 32), threshold=0.4, fraction=None, scale=1 / 8, lse=lse)
    share = multiplied / (2 * 32**4)
    assert 0 < share < {"mixed": 0.3, "peaked": 0.6}[kind]


@pytest.mark.parametrize("threshold", [1e-6, 1e-3, 0.0156])
def test_low_thresholds(threshold):
    query, key = draw_kind("normal", (21, 20), dtype=torch.float64)
    check_gate(0.2 * query, key, (21, 20), threshold)


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("grid", [(300,), (17, 19), (5, 6, 7)], ids=str)
def test_fraction_takes_the_roughest(fraction, grid):
    query, key = draw_kind("smooth", grid, dtype=torch.float64)
    want = reference(query, key, key, grid=grid, fraction=fraction).gate
    assert torch.equal(smoothing_gate(query, key, grid=grid, fraction=fraction, backend="tiled"), want)
    assert (want.sum(-1) == round(fraction * math.prod(grid))).all()


def test_fraction_breaks_ties_by_position():
    query = torch.zeros(1, 30, 4)
    query[0, 15:] = 1.0  # two flat halves: 14 and 15 are rough, the rest ties at zero
    gate = smoothing_gate(query, torch.randn(1, 600, 4), grid=(30,), fraction=0.2, backend="tiled")
    assert gate[0].nonzero().squeeze(-1).tolist() == [0, 1, 2, 3, 14, 15]


@pytest.mark.parametrize("num_keys", [3, 40, 700])
@pytest.mark.parametrize("rule", [{"threshold": 0.3}, {"threshold": 1e-3}, {"fraction": 0.4}], ids=str)
@pytest.mark.parametrize("wrong", ["nan query", "nan key", "inf query", "inf key", "overflow"])
def test_rows_of_nan(wrong, rule, num_keys, backend):
    grid = (5, 6)
    query, key = draw_kind("normal", grid, num_keys=num_keys)
    match wrong:
        case "nan query":
            query[0, 7, 2] = math.nan
        case "nan key":
            key[0, 1, 0] = math.nan
        case "inf query":
            query[1, 0, 0] = math.inf
        case "inf key":
            key[0, 1, 3] = math.inf
        case "overflow":
            query[0, :, 3], query[0, 9, 3], key[0, 0, 3] = 0, 1e30, 1e30
    want = reference(query, key, key, grid=grid, **rule)
    assert want.roughness.isnan().any()
    assert torch.equal(smoothing_gate(query, key, grid=grid, backend=backend, **rule), want.gate)
    if wrong in ("nan query", "nan key", "inf query"):
        output = smooth_attention(query, key, key, grid=grid, backend=backend, **rule)
        assert torch.equal(output.isnan().any(-1), want.output.isnan().any(-1))


def test_lse_given_is_the_lse_used():
    query, key = draw_kind("mixed", (21, 19))
    own = log_sum_exp(query / 4, key)
    options = {"grid": (21, 19), "threshold": 0.4, "fraction": None, "scale": 0.25}
    assert torch.equal(tiled_gate(query, key, lse=own, **options), tiled_gate(query, key, **options))
    assert not tiled_gate(query, key, lse=own + 9.0, **options).any()


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    grid=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    threshold=st.floats(0.0, 1.0, exclude_max=True),
    kind=st.sampled_from(KINDS),
    num_keys=st.integers(3, 600),
    scale=st.sampled_from([None, 1.0, 0.0, -2.0]),
    width=st.integers(1, 20),
    seed=st.integers(0, 999),
)
def test_any_call(grid, threshold, kind, num_keys, scale, width, seed):
    query, key = draw_kind(kind, grid, num_keys=num_keys, width=width, dtype=torch.float64, seed=seed)
    check_gate(query, key, grid, threshold, scale=scale, allowed=math.prod(grid) * 2 if threshold < 1e-6 else 0)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    grid=st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
    fraction=st.floats(0.0, 1.0, exclude_min=True, exclude_max=True),
    heads=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 999),
)
def test_any_fraction_and_heads_in_output(grid, fraction, heads, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(math.prod(grid), 4), (30, 4), (30, 3)]
    inputs = [2 * torch.randn(2, heads, *s, generator=generator, dtype=torch.float64) for s in shapes]
    want = reference(*inputs, grid=grid, fraction=fraction)
    got = smooth_attention(*(x.to(dtype) for x in inputs), grid=grid, fraction=fraction, backend="tiled")
    ranked = want.roughness.sort(-1, descending=True).values
    count = round(fraction * math.prod(grid))
    if 0 < count < math.prod(grid) and dtype == torch.float32:  # the last chosen has to be told from the next
        is_told = (ranked[..., count - 1] - ranked[..., count]) > 1e-5
        got, want = got[is_told], want._replace(output=want.output[is_told])
    torch.testing.assert_close(got.double(), want.output, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-11)
