import math

import pytest
import torch
import torch.nn.functional as F

from smooth_attention.ops import log_sum_exp as module
from smooth_attention.ops.log_sum_exp import attend_with_lse, fused_why_not, log_sum_exp


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", [(1, 1), (49, 49), (30, 700), (900, 5)], ids=str)
def test_internal_operator_is_the_public_one_and_knows_its_normaliser(sizes, dtype):
    query, key, value = (3 * draw(2, 3, n, 8, dtype=dtype) for n in (sizes[0], sizes[1], sizes[1]))
    for x in (query, key, value):
        x.requires_grad_()
    assert fused_why_not(query, key, value) is None
    output, lse = attend_with_lse(query, key, value, scale=0.7)
    public = F.scaled_dot_product_attention(query, key, value, scale=0.7)
    assert torch.equal(output, public)
    exact = (0.7 * query.double() @ key.double().mT).logsumexp(-1)
    torch.testing.assert_close(lse.double(), exact, rtol=0, atol=1e-12 if dtype == torch.float64 else 2e-5)
    assert not lse.requires_grad
    upstream = torch.ones_like(output)
    got, want = (torch.autograd.grad(o, (query, key, value), upstream, retain_graph=True) for o in (output, public))
    for g, w in zip(got, want, strict=True):
        assert torch.equal(g, w)


def test_internal_operator_says_why_not(monkeypatch):
    query, key, value = (draw(1, 1, 6, 4) for _ in range(3))
    assert fused_why_not(query, key, value) is None
    strided = value.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert fused_why_not(query, key, strided) == "inputs are not contiguous"
    assert "too coarse" in fused_why_not(*(x.bfloat16() for x in (query, key, value)))
    assert "CPU's" in fused_why_not(*(x.to("meta") for x in (query, key, value)))
    assert "alike" in fused_why_not(query[0], key[0], value[0])
    assert "alike" in fused_why_not(query, key, value[..., :3])
    assert "nothing" in fused_why_not(query, key[:, :, :0], value[:, :, :0])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert fused_why_not(query, key, value) == "fused attention is switched off"
    monkeypatch.setattr(module, "SCHEMA", "aten::another")
    assert "has another operator" in fused_why_not(query, key, value)


@pytest.mark.parametrize("entries", [1 << 19, 100], ids=["one tile", "many tiles"])
def test_tile_by_tile(entries, monkeypatch):
    monkeypatch.setattr(module, "TILE_ENTRIES", entries)
    query, key = (2 * draw(2, n, 5).requires_grad_() for n in (70, 33))
    got, want = log_sum_exp(query, key), (query @ key.mT).logsumexp(-1)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    upstream = draw(2, 70)
    for g, w in zip(*(torch.autograd.grad(x, (query, key), upstream) for x in (got, want)), strict=True):
        torch.testing.assert_close(g, w, rtol=0, atol=1e-12)


def test_gradient():
    query, key = (draw(2, n, 3).requires_grad_() for n in (4, 5))
    assert torch.autograd.gradcheck(log_sum_exp, (query, key))


def test_infinite_and_nan_logits():
    query, key = draw(1, 4, 2), draw(1, 6, 2)
    query[0, 1, 0], query[0, 2, 1] = math.nan, math.inf
    want = (query @ key.mT).logsumexp(-1)
    torch.testing.assert_close(log_sum_exp(query, key), want, equal_nan=True)
