"""The attention block against the published module and its options; what every block does."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from feature_maps import draw_map, find_gate, make_block
from smooth_attention import ops
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models.blocks import Block, SmoothAttention, block_mode
from smooth_attention.models.controls import BoxBlur, RandomSmoothAttention

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.safetensors"))
PROJECTIONS = ("query", "key", "value")
BLOCKS = [SmoothAttention, RandomSmoothAttention, BoxBlur]
ATTENTION_BLOCKS = [SmoothAttention, RandomSmoothAttention]


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


@pytest.mark.parametrize("rule", [{}, {"threshold": 0.3}, {"fraction": 0.25}], ids=str)
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
@pytest.mark.parametrize("rule", [{}, {"threshold": 0.3}, {"fraction": 0.25}], ids=str)
def test_attention_equals_the_operator_on_its_projections(grid, rule):
    block = make_block(ndim=len(grid), gamma=0.5, **rule)
    x = draw_map(grid)
    query, key, value = (conv(x).flatten(2).mT for conv in (block.query, block.key, block.value))
    attended = ops.smooth_attention(query, key, value, grid=grid, scale=8**-0.5, **rule)
    torch.testing.assert_close(block(x), 0.5 * attended.mT.reshape(x.shape) + x)


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


@pytest.mark.parametrize("kind", ATTENTION_BLOCKS)
def test_gate_off_equals_plain_attention_of_the_same_weights(kind):
    block, plain = make_block(kind, threshold=0.1), make_block(threshold=None)
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
        ({"heads": 2}, "SmoothAttention's heads=2 is not built yet; leave it at 1"),
        ({"head_dim": 4}, "SmoothAttention's head_dim=4 is not built yet; leave it at None"),
        ({"logits": "cosine"}, "SmoothAttention's logits='cosine' is not built yet; leave it at 'dot'"),
        ({"temperature": 0.1}, "SmoothAttention's temperature=0.1 is not built yet; leave it at None"),
    ],
    ids=str,
)
def test_option_not_built_yet_is_named(options, message):
    with pytest.raises(NotImplementedError, match=message):
        SmoothAttention(8, **options)


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
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ATTENTION_BLOCKS)
def test_option_outside_its_range_is_refused(kind, options, message):
    with pytest.raises(OptionError, match=message):
        kind(**{"channels": 8, **options})


@pytest.mark.parametrize("shape", [(8, 7, 5), (2, 8, 7), (1, 2, 8, 7, 5)], ids=str)
def test_map_with_other_axes_is_refused(shape):
    with pytest.raises(ShapeError, match=rf"with 2 grid axes, got .*{list(shape)}.*; add the batch axis or set ndim"):
        SmoothAttention(8)(torch.zeros(shape))


def test_block_without_an_update_can_not_run():
    with pytest.raises(NotImplementedError):
        Block()(draw_map())


def test_block_shows_its_rule_when_printed():
    assert "threshold=0.4, fraction=None, scale=1.0" in repr(SmoothAttention(4, threshold=0.4, scale=1.0))
