"""The projections of a block are modules like any: what hooks, wraps, prunes, shards or replaces them acts."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm

from feature_maps import draw_map, make_block
from smooth_attention.models.blocks import SmoothAttention
from smooth_attention.models.controls import RandomSmoothAttention

PROJECTIONS = ("query", "key", "value")
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
HALVES = [torch.float16, torch.bfloat16]


class LowRank(nn.Module):
    """What LoRA puts at the place of a convolution."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Conv2d(base.in_channels, rank, 1, bias=False)
        self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def noted(block):
    """The dtypes that go into and come out of the projections, filled as they are called."""
    seen = {name: [] for name in PROJECTIONS}
    for name, calls in seen.items():
        getattr(block, name).register_forward_hook(
            lambda module, args, out, calls=calls: calls.append((args[0].dtype, out.dtype))
        )
    return seen


def step(block, x):
    """One step of gradient descent."""
    block.zero_grad()
    block(x).square().mean().backward()
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("grid", [(9,), (7, 5), (3, 4, 2)], ids=str)
def test_projection_is_the_convolution_it_says_in_output_and_every_gradient(grid, layout, bias):
    conv = SmoothAttention(8, head_dim=3, ndim=len(grid)).query.double()
    conv.bias = conv.bias if bias else None
    x = draw_map(grid, dtype=torch.float64)
    if layout == "channels last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    got, want = conv(x.requires_grad_()), CONVOLVE[len(grid)](x, conv.weight, conv.bias)
    assert isinstance(conv, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    torch.testing.assert_close(got, want)
    inputs, upstream = [x, *conv.parameters()], torch.randn_like(got)
    gradients = (torch.autograd.grad(y, inputs, upstream) for y in (got, want))
    for g, w in zip(*gradients, strict=True):
        torch.testing.assert_close(g, w)


@pytest.mark.parametrize("kind", [SmoothAttention, RandomSmoothAttention])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_forward_hook_is_called_once_and_what_it_returns_counts(kind, name):
    block, x = make_block(kind, threshold=0.3), draw_map()
    before, shapes = block(x), []
    module = getattr(block, name)
    handle = module.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    assert torch.equal(block(x), before)
    assert shapes == [(3, 8, 7, 5)]
    handle.remove()
    module.register_forward_hook(lambda module, args, out: -out)
    assert not torch.equal(block(x), before)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_old_spectral_norm_trains(name):
    block, x = make_block(threshold=0.3).train(), draw_map()
    module = spectral_norm(getattr(block, name))
    u, weight = module.weight_u.clone(), module.weight_orig.detach().clone()
    for _ in range(50):
        step(block, x)
    assert not torch.equal(module.weight_u, u)
    assert not torch.equal(module.weight_orig, weight)
    block.eval()(x)
    assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_parametrized_spectral_norm_trains(name):
    block, x = make_block(threshold=0.3).train(), draw_map()
    module = parametrizations.spectral_norm(getattr(block, name))
    parametrization = module.parametrizations.weight
    u, weight = parametrization[0]._u.clone(), parametrization.original.detach().clone()
    for _ in range(2):
        step(block, x)
    assert not torch.equal(parametrization[0]._u, u)
    assert not torch.equal(parametrization.original, weight)


def test_pruned_projections_train_and_stay_pruned():
    block, x = make_block(threshold=0.3).train(), draw_map()
    for name in PROJECTIONS:
        prune.l1_unstructured(getattr(block, name), "weight", amount=0.5)
    before = {name: getattr(block, name).weight_orig.detach().clone() for name in PROJECTIONS}
    for _ in range(2):
        step(block, x)
    for name in PROJECTIONS:
        module = getattr(block, name)
        is_kept = module.weight_mask.bool()
        assert 0 < is_kept.float().mean() < 1
        assert torch.equal(module.weight_orig[~is_kept], before[name][~is_kept])
        assert not torch.equal(module.weight_orig[is_kept], before[name][is_kept])
    block.eval()(x)
    assert not block.query.weight[~block.query.weight_mask.bool()].any()


@pytest.mark.parametrize("name", PROJECTIONS)
def test_low_rank_wrapper_changes_the_output_and_learns(name):
    block, x = make_block(threshold=0.3), draw_map()
    before = block(x)
    wrapper = LowRank(getattr(block, name))
    setattr(block, name, wrapper)
    assert not torch.equal(block(x), before)
    block(x).square().sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in (wrapper.down, wrapper.up))
    assert "LowRank" in repr(block)
    with torch.no_grad():
        wrapper.up.weight.zero_()
        assert torch.equal(block(x), before)
        with torch.autocast("cpu", torch.bfloat16):  # the wrapper's layers stay in float32 too
            assert torch.equal(block(x), before)


def test_convolution_at_the_place_of_a_projection_does_the_same():
    block, x = make_block(threshold=0.5, scale=1.0), draw_map()
    before = block(x)
    for name in PROJECTIONS:
        plain = nn.Conv2d(8, 8, 1)
        plain.load_state_dict(getattr(block, name).state_dict())
        setattr(block, name, plain)
    torch.testing.assert_close(block(x), before)


@torch.no_grad()
def test_parameters_are_needed_only_while_their_module_runs():
    """As where they are sharded: gathered before a module is called, empty after."""
    block, x = make_block(heads=2, threshold=0.3), draw_map()
    want = block(x)

    def gather(module, whole):
        for parameter, data in zip(module.parameters(), whole, strict=True):
            parameter.data = data

    for name in PROJECTIONS:
        module = getattr(block, name)
        whole = [parameter.data for parameter in module.parameters()]
        empty = [data.new_empty(0) for data in whole]
        gather(module, empty)
        module.register_forward_pre_hook(lambda module, args, whole=whole: gather(module, whole))
        module.register_forward_hook(lambda module, args, out, empty=empty: gather(module, empty))
    assert torch.equal(block(x), want)
    assert block.query.weight.numel() == 0


@pytest.mark.parametrize("rule", [{"threshold": 0.3}, {"fraction": 0.25, "logits": "cosine"}], ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_network_projects_in_half_and_attends_in_float32(dtype, rule):
    block, x = make_block(heads=2, **rule).to(dtype), draw_map(dtype=dtype)
    seen, attended = noted(block), []
    attend = block.attend
    block.attend = lambda *tensors: attended.extend(t.dtype for t in tensors[:3]) or attend(*tensors)
    assert block(x).dtype == dtype
    assert seen == {name: [(dtype, dtype)] for name in PROJECTIONS}
    assert attended == [torch.float32] * 3


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_projections_stay_in_float32_under_autocast(dtype):
    block, x = make_block(threshold=0.3), draw_map(dtype=dtype)
    seen = noted(block)
    with torch.autocast("cpu", torch.bfloat16):
        assert block(x).dtype == dtype
    assert seen == {name: [(torch.float32, torch.float32)] for name in PROJECTIONS}
