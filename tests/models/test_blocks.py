"""The attention block against the published module and its options; what every block does."""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import jaxtyping
import pytest
import torch
from safetensors import safe_open

from feature_maps import draw_map, find_gate, make_block
from smooth_attention import ops
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models.blocks import Block, SmoothAttention, block_mode
from smooth_attention.models.controls import BoxBlur, RandomSmoothAttention
from smooth_attention.ops.reference import reference

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.safetensors"))
PROJECTIONS = ("query", "key", "value")
BLOCKS = [SmoothAttention, RandomSmoothAttention, BoxBlur]
ATTENTION_BLOCKS = [SmoothAttention, RandomSmoothAttention]
RULES = [{}, {"threshold": 0.3}, {"fraction": 0.25}]
SOFT = {"threshold": 0.3, "temperature": 0.05}
LEARNED_PER_HEAD = ("logit_scale", "soft_threshold", "log_temperature")
COMPILE = """
import torch
from smooth_attention.models.blocks import SmoothAttention

for options in (
    {"threshold": 0.3},
    {"heads": 2, "head_dim": 3, "fraction": 0.25},
    {"heads": 2, "logits": "cosine", "threshold": 0.3},
    {"heads": 2, "logits": "cosine", "threshold": 0.3, "temperature": 0.1},
):
    torch._dynamo.reset()
    block, x = SmoothAttention(8, gamma_init=1.0, **options), torch.randn(2, 8, 5, 4)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), block(x))
    compiled(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())
"""


def project_by_hand(conv, head, heads, x):
    """One head's rows (B, N, E) of a 1x1 convolution."""
    width = conv.out_channels // heads
    mine = slice(head * width, (head + 1) * width)
    return (conv.weight.flatten(1)[mine] @ x.flatten(2) + conv.bias[mine, None]).mT


def update_by_hand(block, x):
    """The block's update, one head after another; roughness, hard gate and the mean of neighbours by the reference."""
    updates = []
    for head in range(block.heads):
        query, key, value = (project_by_hand(getattr(block, name), head, block.heads, x) for name in PROJECTIONS)
        factor = query.shape[-1] ** -0.5 if block.scale is None else block.scale
        if block.logits == "cosine":
            query, key = (rows / rows.square().sum(-1, keepdim=True).sqrt() for rows in (query, key))
            factor = block.logit_scale[head].exp()
        formula = partial(reference, factor * query, key, value, grid=tuple(x.shape[2:]), scale=1.0)
        plain, mean = formula(), formula(threshold=-1.0).output
        gate = formula(threshold=block.threshold, fraction=block.fraction).gate.to(x.dtype)
        if block.temperature is not None:
            distance = plain.roughness - block.soft_threshold[head]
            gate = 1 / (1 + torch.exp(-distance / block.log_temperature[head].exp()))
        updates.append(plain.output + gate[..., None] * (mean - plain.output))
    return torch.cat(updates, -1).mT.reshape(x.shape)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_published_module_is_reproduced_in_output_and_gradients(path):
    with safe_open(path, "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        threshold = float(file.metadata()["threshold"])
    x = stored["x"].double().requires_grad_()
    block = SmoothAttention(x.shape[1], threshold=threshold, scale=1.0).double()
    published = {name.removeprefix("state."): value for name, value in stored.items() if name.startswith("state.")}
    block.load_state_dict(published, strict=True)

    y = block(x)
    y.backward(stored["upstream_grad"])
    torch.testing.assert_close(y.detach(), stored["y"], rtol=0, atol=1e-9)

    got = {"x": x.grad} | {f"{name}_weight": getattr(block, name).weight.grad for name in PROJECTIONS}
    largest = max(stored[f"grad_{name}"].abs().max().item() for name in got)
    for name, gradient in got.items():
        want = stored[f"grad_{name}"]
        torch.testing.assert_close(gradient, want, rtol=0, atol=1e-9 * largest, msg=lambda m, n=name: f"{n}: {m}")
    # a sum of cancelling terms is known no better than its terms
    terms = (stored["upstream_grad"] * (y - x).detach() / block.gamma.item()).abs().sum().item()
    torch.testing.assert_close(block.gamma.grad, stored["grad_gamma"], rtol=0, atol=1e-9 * terms)


def test_golden_files_are_all_there():
    assert len(GOLDEN) == 8


@pytest.mark.parametrize("rule", [*RULES, {"heads": 2, "head_dim": 3, "logits": "cosine", "threshold": 0.3}], ids=str)
@pytest.mark.parametrize("grid", [(9,), (1, 9), (7, 5), (3, 4, 2)], ids=str)
@pytest.mark.parametrize("kind", ATTENTION_BLOCKS)
def test_attention_keeps_shape_and_passes_gradients(kind, grid, rule):
    block = make_block(kind, ndim=len(grid), **rule)
    x = draw_map(grid).requires_grad_()
    y = block(x)
    y.square().sum().backward()
    assert y.shape == x.shape
    assert x.grad.abs().sum() > 0
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("grid", [(9,), (7, 5), (3, 4, 2)], ids=str)
@pytest.mark.parametrize("rule", [*RULES, SOFT], ids=str)
@pytest.mark.parametrize("logits", [{}, {"scale": 1.0}, {"logits": "cosine"}], ids=str)
@pytest.mark.parametrize("head_dim", [None, 3])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_its_heads_by_hand_in_output_and_every_gradient(heads, head_dim, logits, rule, grid):
    block = make_block(gamma=0.5, ndim=len(grid), heads=heads, head_dim=head_dim, **logits, **rule).double()
    x, upstream = (draw_map(grid, dtype=torch.float64, seed=seed) for seed in (1, 2))
    inputs = {"x": x.requires_grad_()} | dict(block.named_parameters())
    got, want = block(x), block.gamma * update_by_hand(block, x) + x
    torch.testing.assert_close(got, want)
    gradients = (torch.autograd.grad(y, [*inputs.values()], upstream) for y in (got, want))
    for name, g, w in zip(inputs, *gradients, strict=True):
        torch.testing.assert_close(g, w, msg=lambda m, n=name: f"{n}: {m}")
        # what is added to every key changes no row of a softmax
        assert w.abs().min() > 1e-9 or (name == "key.bias" and block.logits == "dot"), name


@pytest.mark.parametrize("logits", ["dot", "cosine"])
@pytest.mark.parametrize(("heads", "head_dim"), [(1, None), (1, 3), (2, None), (4, 3)], ids=str)
def test_projections_have_an_axis_of_heads(heads, head_dim, logits):
    block, x = make_block(heads=heads, head_dim=head_dim, logits=logits), draw_map()
    width = 8 // heads if head_dim is None else head_dim
    query, key, value = block.project(x)
    assert query.shape == key.shape == (3, heads, 35, width)
    assert value.shape == (3, heads, 35, 8 // heads)
    assert {t.stride(-1) for t in (query, key, value)} == {1}
    if logits == "cosine":
        multipliers = block.logit_scale.exp()[:, None].expand(3, heads, 35)
        torch.testing.assert_close(query.norm(dim=-1), multipliers)
        torch.testing.assert_close(key.norm(dim=-1), torch.ones(3, heads, 35))


@pytest.mark.parametrize(
    ("options", "width", "more"),
    [
        ({}, 8, {}),
        ({"threshold": 0.4, "head_dim": 8}, 8, {}),
        ({"heads": 4}, 8, {}),
        ({"heads": 4, "head_dim": 3}, 12, {}),
        ({"heads": 2, "logits": "cosine"}, 8, {"logit_scale": (2,)}),
        ({**SOFT, "head_dim": 3}, 3, {"soft_threshold": (1,), "log_temperature": (1,)}),
        ({**SOFT, "heads": 2, "logits": "cosine"}, 8, dict.fromkeys(LEARNED_PER_HEAD, (2,))),
    ],
    ids=str,
)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_state_has_the_published_names_and_those_of_its_options(ndim, options, width, more):
    want = {"gamma": (1,), "value.weight": (8, 8, *(1,) * ndim), "value.bias": (8,)} | more
    for name in ("query", "key"):
        want |= {f"{name}.weight": (width, 8, *(1,) * ndim), f"{name}.bias": (width,)}
    state = SmoothAttention(8, ndim=ndim, **options).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == want


@pytest.mark.parametrize(
    ("options", "name", "start"),
    [
        ({"logits": "cosine"}, "logit_scale", math.log(10)),
        ({"logits": "cosine", "scale": 100.0}, "logit_scale", math.log(100)),
        ({"logits": "cosine", "scale": 0.5}, "logit_scale", math.log(0.5)),
        ({"threshold": 0.4, "temperature": 0.1}, "soft_threshold", 0.4),
        ({"threshold": 0.4, "temperature": 0.1}, "log_temperature", math.log(0.1)),
    ],
    ids=str,
)
def test_learned_number_of_each_head_starts_where_it_is_told(options, name, start):
    block = SmoothAttention(8, heads=4, **options)
    assert getattr(block, name).tolist() == pytest.approx([start] * 4)
    assert block.threshold == options.get("threshold")


@pytest.mark.parametrize("start", [math.log(100) + 0.1, 1000.0])
def test_cosine_multiplier_stays_at_a_hundred(start):
    block, x = make_block(logits="cosine"), draw_map()
    block.logit_scale.data.fill_(math.log(100))
    want = block(x)
    block.logit_scale.data.fill_(start)
    block(x).square().sum().backward()
    assert torch.equal(block(x), want)
    assert block.logit_scale.grad.item() == 0


@pytest.mark.parametrize("names", [("query",), ("key",), ("query", "key")], ids=str)
@pytest.mark.parametrize("rule", [*RULES, SOFT], ids=str)
def test_cosine_of_a_zero_vector_has_finite_gradients(rule, names):
    block, x = make_block(logits="cosine", heads=2, **rule), draw_map()
    x[0], x[1, :, 2] = 0, 0
    for name in names:
        getattr(block, name).bias.data.zero_()
    y = block(x.requires_grad_())
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    for name, tensor in {"x": x, **dict(block.named_parameters())}.items():
        assert torch.isfinite(tensor.grad).all(), name


def test_soft_gate_passes_gradcheck():
    block = make_block(channels=4, gamma=0.7, heads=2, head_dim=1, logits="cosine", **SOFT).double()
    names, parameters = zip(*block.named_parameters(), strict=True)
    x = draw_map((2, 3), batch=2, channels=4, dtype=torch.float64).requires_grad_()

    def run(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters))


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_soft_gate_of_low_temperature_is_the_step(threshold):
    soft = make_block(heads=2, threshold=threshold, temperature=1e-7)
    step = make_block(heads=2, threshold=threshold)
    soft.soft_threshold.data.fill_(threshold)
    x = draw_map()
    torch.testing.assert_close(soft(x), step(x))
    assert 0 < find_gate(step, x).float().mean() < 1


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_with_gamma_zero_is_the_identity(kind):
    x = draw_map()
    assert torch.equal(kind(8)(x), x)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_output_dtype_follows_the_input(kind, dtype):
    block = make_block(kind)
    if dtype == torch.float64:
        block.double()
    assert block(draw_map(dtype=dtype)).dtype == dtype


def test_float64_block_computes_in_float64():
    block = make_block(threshold=0.3).double()
    x = draw_map(dtype=torch.float64)
    query, key, value = block.project(x)
    assert {query.dtype, key.dtype, value.dtype} == {torch.float64}
    rough = (block(x) - make_block(threshold=0.3)(x.float())).abs().max().item()
    assert 0 < rough < 1e-4


def test_float64_block_takes_a_map_of_float32():
    block, x = make_block(threshold=0.3).double(), draw_map()
    torch.testing.assert_close(block(x), block(x.double()).float(), rtol=0, atol=1e-6)
    assert block.project(x)[0].dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ATTENTION_BLOCKS)
def test_autocast_leaves_gate_and_update_in_float32(kind, dtype):
    block = make_block(kind, threshold=0.5)
    x = draw_map((9, 9), dtype=dtype)
    want = block.update(x.float()).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        gate, update, y = find_gate(block, x), block.update(x), block(x)
    assert torch.equal(gate, find_gate(block, x.float()))
    assert torch.equal(update, want)
    assert y.dtype == dtype
    # and it matters: bfloat16 projections would have gated other positions
    narrow = SmoothAttention(8, threshold=0.5).bfloat16()
    narrow.load_state_dict(block.state_dict())
    coarse = [getattr(narrow, name)(x.bfloat16()).flatten(2).mT for name in PROJECTIONS[:2]]
    assert not torch.equal(gate, ops.smoothing_gate(*coarse, grid=(9, 9), threshold=0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rule", [*RULES, SOFT], ids=str)
@pytest.mark.parametrize("logits", ["dot", "cosine"])
def test_autocast_leaves_heads_logits_and_soft_gate_in_float32(logits, rule, dtype):
    block, x = make_block(heads=2, head_dim=3, logits=logits, **rule), draw_map(dtype=dtype)
    want = block.update(x.float()).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block.update(x), want)


@pytest.mark.parametrize(
    ("kind", "options", "rule"),
    [
        (SmoothAttention, {}, {"threshold": 0.1}),
        (SmoothAttention, {"heads": 2, "head_dim": 3, "logits": "cosine"}, {"fraction": 0.3}),
        (SmoothAttention, {"heads": 2}, SOFT),
        (RandomSmoothAttention, {}, {"threshold": 0.1}),
        (RandomSmoothAttention, {"heads": 2, "logits": "cosine"}, {"threshold": 0.1}),
    ],
    ids=str,
)
def test_gate_off_equals_plain_attention_of_the_same_weights(kind, options, rule):
    block, plain = make_block(kind, **options, **rule), make_block(**options)
    x = draw_map()
    assert not torch.equal(block(x), plain(x))
    with block_mode(block, "gate_off"):
        assert torch.equal(block(x), plain(x))


@pytest.mark.parametrize("kind", BLOCKS)
def test_bypass_is_the_identity(kind):
    block = make_block(kind)
    x = draw_map()
    assert not torch.equal(block(x), x)
    with block_mode(block, "bypass"):
        assert block(x) is x


def test_block_mode_is_restored_after_an_exception():
    net = torch.nn.Sequential(SmoothAttention(4), torch.nn.ReLU(), BoxBlur(4))
    net[2].mode = "bypass"
    with pytest.raises(ShapeError, match="add the batch axis"), block_mode(net, "gate_off"):
        net(torch.zeros(4, 5, 5))
    with block_mode(net, "gate_off"):
        assert [net[0].mode, net[2].mode] == ["gate_off", "gate_off"]
    assert [net[0].mode, net[2].mode] == ["on", "bypass"]


def test_block_mode_refuses_an_unknown_mode():
    block = SmoothAttention(4)
    with pytest.raises(OptionError, match="one of on, gate_off, bypass, got 'off'"), block_mode(block, "off"):
        pytest.fail("the context was entered")
    assert block.mode == "on"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "at least one channel, got channels=0"),
        ({"ndim": 4}, "grids of 1, 2 or 3 axes, got ndim=4"),
        ({"ndim": 0}, "grids of 1, 2 or 3 axes, got ndim=0"),
        ({"threshold": float("nan")}, "threshold needs to be a number, got threshold=nan"),
        ({"threshold": 0.4, "fraction": 0.2}, "exclude each other, got threshold=0.4 and fraction=0.2"),
        ({"fraction": 0.0}, "fraction needs to lie between 0 and 1, both excluded, got fraction=0.0"),
        ({"fraction": 1.0}, "fraction needs to lie between 0 and 1, both excluded, got fraction=1.0"),
        ({"heads": 0}, "at least one head, got heads=0; leave it at 1"),
        ({"heads": 3}, "got channels=8 and heads=3; take a divisor of 8, such as 2$"),
        ({"heads": 16}, "got channels=8 and heads=16; take a divisor of 8, such as 8$"),
        ({"heads": 2, "head_dim": 0}, r"width of at least 1, got head_dim=0; use None for channels // heads = 4$"),
        ({"scale": math.inf}, "scale needs to be finite, got scale=inf"),
        ({"logits": "cos"}, "logits are one of dot, cosine, got 'cos'"),
        ({"logits": "cosine", "scale": 0.0}, r"above 0 and at most at 100, got scale=0.0; use None for 10$"),
        ({"logits": "cosine", "scale": 100.1}, r"above 0 and at most at 100, got scale=100.1; use None for 10$"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ATTENTION_BLOCKS)
def test_option_outside_its_range_is_refused(kind, options, message):
    with pytest.raises(OptionError, match=message):
        kind(**{"channels": 8, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.1}, "needs a finite threshold, got temperature=0.1 and threshold=None; give one"),
        ({"threshold": -math.inf}, "needs a finite threshold, got temperature=0.1 and threshold=-inf; give one"),
        ({"fraction": 0.2}, "exclude each other, got temperature=0.1 and fraction=0.2; give a threshold instead"),
        ({"threshold": 0.4, "temperature": 0.0}, "positive and finite, got temperature=0.0; use None for a step"),
        ({"threshold": 0.4, "temperature": math.inf}, "positive and finite, got temperature=inf; use None for a step"),
        ({"threshold": 0.4, "temperature": math.nan}, "positive and finite, got temperature=nan; use None for a step"),
    ],
    ids=str,
)
def test_soft_gate_without_its_numbers_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        SmoothAttention(8, **{"temperature": 0.1, **options})


@pytest.mark.parametrize("shape", [(8, 7, 5), (2, 8, 7), (1, 2, 8, 7, 5)], ids=str)
def test_map_with_other_axes_is_refused(shape):
    with pytest.raises(ShapeError, match=rf"with 2 grid axes, got .*{list(shape)}.*; add the batch axis or set ndim"):
        SmoothAttention(8)(torch.zeros(shape))


@pytest.mark.slow
def test_attention_compiles_into_one_graph_with_any_option():
    """In a process of its own: the shape checks of these tests can't be traced."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILE], check=True)


@pytest.mark.filterwarnings("ignore")  # the tracer's own
@pytest.mark.parametrize("rule", [{"threshold": 0.3}, {"fraction": 0.25}, SOFT], ids=str)
@pytest.mark.parametrize("logits", ["dot", "cosine"])
def test_trace_of_a_blank_map_smooths(logits, rule, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    block, x = make_block(heads=2, logits=logits, **rule), draw_map()
    traced = torch.jit.trace(block, torch.zeros_like(x))
    torch.testing.assert_close(traced(x), block(x))
    with block_mode(block, "gate_off"):
        assert not torch.allclose(traced(x), block(x), atol=1e-3)


def test_block_without_an_update_can_not_run():
    with pytest.raises(NotImplementedError):
        Block()(draw_map())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threshold": 0.4, "scale": 1.0}, "threshold=0.4, fraction=None, scale=1.0"),
        ({"heads": 2, "head_dim": 2}, "threshold=None, fraction=None, scale=None, heads=2"),
        ({"fraction": 0.2, "head_dim": 3}, "threshold=None, fraction=0.2, scale=None, head_dim=3"),
        (
            {"threshold": 0.4, "heads": 4, "head_dim": 2, "logits": "cosine", "temperature": 0.1},
            "threshold=0.4, fraction=None, scale=1.0, heads=4, head_dim=2, logits='cosine', temperature=0.1",
        ),
    ],
    ids=str,
)
def test_block_shows_its_options_when_printed(options, text):
    assert SmoothAttention(4, **options).extra_repr() == text
