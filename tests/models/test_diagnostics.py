"""What a block does to the maps it meets, against figures computed from the reference's attention matrix."""

from itertools import product

import pytest
import torch
from torch import nn

from smooth_attention.models import SmoothAttention, create_model
from smooth_attention.models.controls import BoxBlur, RandomSmoothAttention
from smooth_attention.models.diagnostics import MAX_ROWS, captured_inputs, diagnose, diagnose_network
from smooth_attention.ops.reference import reference

THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def make_block(kind=SmoothAttention, *, channels=6, gamma=0.7, **options):
    torch.manual_seed(0)
    block = kind(channels, gamma_init=gamma, **options).eval()
    for conv in (block.query, block.key):
        conv.weight.data *= 3
    return block


def make_uniform(channels=2):
    """A block whose queries are all zero: every key gets the same attention."""
    block = SmoothAttention(channels)
    nn.init.zeros_(block.query.weight)
    nn.init.zeros_(block.query.bias)
    return block


def project_heads(block, x):
    """Query and key (B, M, N, E) whose products are the logits."""
    query, key = (conv(x).flatten(2).unflatten(1, (block.heads, -1)).mT for conv in (block.query, block.key))
    if block.logits == "dot":
        return query * (query.shape[-1] ** -0.5 if block.scale is None else block.scale), key
    query, key = (rows / rows.norm(dim=-1, keepdim=True) for rows in (query, key))
    return query * block.logit_scale.exp()[:, None, None], key


@pytest.mark.parametrize("grid", [(6, 5), (1, 1)], ids=str)
@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        *product([SmoothAttention, RandomSmoothAttention], [{}, {"threshold": 0.35}, {"fraction": 0.2}]),
        (SmoothAttention, {"threshold": 0.2, "temperature": 0.05}),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "options", [{}, {"scale": 1.0}, {"heads": 3, "head_dim": 4}, {"heads": 2, "logits": "cosine"}], ids=str
)
@torch.no_grad()
def test_figures_equal_those_of_the_attention_matrix(kind, options, rule, grid):
    block = make_block(kind, **options, **rule).double()
    x = torch.randn(2, 6, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    query, key = project_heads(block, x)
    plain = reference(query, key, key, grid=grid, scale=1.0)
    hard = {name: value for name, value in rule.items() if name != "temperature"}
    gate_BMN = reference(query, key, key, grid=grid, scale=1.0, **hard).gate.double()
    if "temperature" in rule:
        block.soft_threshold += 0.1 * torch.arange(block.heads)
        block.log_temperature -= 0.2 * torch.arange(block.heads)
        distance_BMN = plain.roughness - block.soft_threshold[:, None]
        gate_BMN = 1 / (1 + torch.exp(-distance_BMN / block.log_temperature[:, None].exp()))
    update = 0.7 * block.update(x)

    want = {"gamma": 0.7, "share_of_output": (update.norm() / (x + update).norm()).item()}
    want["smoothed_fraction.t"] = gate_BMN.mean().item()
    for threshold in THRESHOLDS:
        want[f"smoothed_fraction.{threshold}"] = (plain.roughness > threshold).double().mean().item()
    want["max_probability"] = plain.attention.amax(-1).median().item()
    want["sink_share"] = plain.attention.mean(-2).amax(-1).mean().item()

    got = diagnose(block, x)
    assert got.keys() == want.keys()
    assert got == pytest.approx(want, abs=1e-6)
    if grid == (6, 5):
        assert 0 < want["smoothed_fraction.0.9"] < want["smoothed_fraction.0.1"], "the figures do not vary"


def test_blur_has_no_figures_of_attention():
    x = torch.randn(2, 3, 4, 5)
    blur = BoxBlur(3, gamma_init=0.5)
    got = diagnose(blur, x)
    assert got.keys() == {"gamma", "share_of_output"}
    assert got["share_of_output"] == pytest.approx(((blur(x) - x).norm() / blur(x).norm()).item(), rel=1e-5)


def test_share_of_output_is_zero_where_the_block_is_the_identity():
    assert diagnose(SmoothAttention(3), torch.randn(1, 3, 4, 5))["share_of_output"] == 0
    assert diagnose(SmoothAttention(3), torch.zeros(1, 3, 4, 5))["share_of_output"] == 0


def test_uniform_attention_has_no_sink():
    got = diagnose(make_uniform(), torch.randn(2, 2, 4, 5))
    assert got["sink_share"] == pytest.approx(1 / 20)
    assert got["max_probability"] == pytest.approx(1 / 20)
    assert got["smoothed_fraction.0.1"] == 0


def test_sink_is_the_key_that_all_positions_attend_to():
    """Every query is (1, 1), every key its own features: the one bright position takes it all."""
    block = make_uniform()
    nn.init.ones_(block.query.bias)
    block.key.weight.data = torch.eye(2)[..., None, None]
    nn.init.zeros_(block.key.bias)
    x = torch.zeros(2, 2, 4, 5)
    x[0, :, 1, 3] = x[1, :, 0, 0] = 50
    got = diagnose(block, x)
    assert got["sink_share"] == pytest.approx(1, abs=1e-6)
    assert got["max_probability"] == pytest.approx(1, abs=1e-6)
    assert got["smoothed_fraction.0.1"] == 0, "all look at the same key, so no row differs from another"


def test_position_as_rough_as_the_threshold_is_not_smoothed():
    """Rows (1/2, 1/2) and (0, 1) lie exactly half apart."""
    block = SmoothAttention(1, ndim=1, threshold=0.5)
    block.load_state_dict({name: torch.full_like(p, name.endswith("weight")) for name, p in block.named_parameters()})
    got = diagnose(block, torch.tensor([[[0.0, 100.0]]]))
    names = [f"smoothed_fraction.{t}" for t in ("t", 0.4, 0.5, 0.6)]
    assert [got[name] for name in names] == [0, 1, 0, 0]


def test_map_of_more_positions_is_sampled_evenly():
    grid = (33, 32)
    block, x = make_block(channels=2), torch.randn(1, 2, *grid, generator=torch.Generator().manual_seed(3))
    assert MAX_ROWS < 33 * 32 <= 2 * MAX_ROWS
    query, key, _ = block.project(x)
    rows = ((query @ key.mT) * 2**-0.5).softmax(-1)[..., ::2, :]
    got = diagnose(block, x)
    assert got["max_probability"] == pytest.approx(rows.amax(-1).median().item(), rel=1e-4)
    assert got["sink_share"] == pytest.approx(rows.mean(-2).amax(-1).mean().item(), rel=1e-4)
    assert diagnose(make_uniform(), x)["sink_share"] == pytest.approx(1 / (33 * 32))


def test_captured_inputs_are_the_last_ones_and_hooks_are_removed():
    first, second = SmoothAttention(2), BoxBlur(2)
    net = nn.Sequential(first, second)
    x = torch.randn(2, 1, 2, 4, 4)
    with captured_inputs(net) as inputs:
        net(x[0])
        net(x[1])
    net(x[0])
    assert list(inputs) == [first, second]
    assert torch.equal(inputs[first], x[1])
    assert not inputs[second].requires_grad
    assert not first._forward_pre_hooks


def test_hooks_are_removed_after_an_exception():
    block = SmoothAttention(2)
    with pytest.raises(KeyError, match="inside"), captured_inputs(block):
        raise KeyError("inside")
    assert not block._forward_pre_hooks


def test_network_figures_are_the_mean_over_its_blocks():
    net = create_model(encoder_weights=None, stages=(-3, -2), block_options={"threshold": 0.1}).eval()
    blocks = list(net.model.encoder.blocks.values())
    for gamma, block in zip((0.2, 0.6), blocks, strict=True):
        block.gamma.data.fill_(gamma)
    with captured_inputs(net) as inputs, torch.no_grad():
        net(torch.randn(1, 3, 64, 64))
    each = [diagnose(block, inputs[block]) for block in blocks]
    got = diagnose_network(inputs)
    assert got["gamma"] == pytest.approx(0.4)
    assert got == pytest.approx({name: (each[0][name] + each[1][name]) / 2 for name in each[0]})


def test_network_without_block_has_no_figures():
    net = nn.Sequential(nn.Conv2d(2, 2, 1))
    with captured_inputs(net) as inputs:
        net(torch.zeros(1, 2, 3, 3))
    assert diagnose_network(inputs) == {}


def test_maps_in_half_precision_are_diagnosed_in_float32():
    block = make_block(threshold=0.3)
    x = torch.randn(1, 6, 5, 5).bfloat16()
    assert diagnose_network({block: x}) == diagnose(block, x.float())
