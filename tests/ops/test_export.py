"""torch.export, torch.jit.trace and a user's own ONNX export: plain operators only, equal to eager on other sizes too.

An example may be blank, so that no position of it is rough: the graph smooths other maps all the same.
"""

import warnings

import numpy as np
import pytest
import torch

from smooth_attention.ops import smooth_attention

onnxruntime = pytest.importorskip("onnxruntime")

RULES = [
    {},
    {"threshold": 0.2},
    {"threshold": -1.0},
    {"fraction": 0.25},
    {"threshold": 0.2, "temperature": 0.1},
]


class Attend(torch.nn.Module):
    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, x):
        rows = x.flatten(2).transpose(1, 2)
        out = smooth_attention(2 * rows, rows, rows[..., :3], grid=x.shape[2:], **self.rule)
        return out.transpose(1, 2).unflatten(2, x.shape[2:])


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():  # the exporters' own
        warnings.simplefilter("ignore")
        yield


def dynamic():
    return ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_export(rule):
    net = Attend(rule)
    program = torch.export.export(net, (draw(2, 8, 7, 9),), dynamic_shapes=dynamic())
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.scaled_dot_product_attention.default" in targets
    assert not [target for target in targets if not target.startswith(("aten.", "<built-in function"))]
    other = draw(3, 8, 11, 6)
    torch.testing.assert_close(program.module()(other), net(other), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_onnx_without_a_translation_table(rule, tmp_path):
    net = Attend(rule)
    program = torch.onnx.export(net, (draw(2, 8, 7, 9),), dynamo=True, verbose=False, dynamic_shapes=dynamic())
    program.save(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    other = draw(3, 8, 11, 6)
    (got,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    np.testing.assert_allclose(got, net(other).numpy(), rtol=1e-4, atol=1e-5)


def differs_from_plain(rule, x):
    return bool(rule) == (not torch.allclose(Attend(rule)(x), Attend({})(x), atol=1e-3))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_trace_of_a_blank_example(rule, tmp_path):
    net, x = Attend(rule), draw(2, 8, 7, 9)
    torch.jit.save(torch.jit.trace(net, torch.zeros(2, 8, 7, 9)), tmp_path / "net.pt")
    traced = torch.jit.load(tmp_path / "net.pt")
    assert not [node.kind() for node in traced.inlined_graph.nodes() if node.kind().startswith("smooth_attention")]
    other, holed = draw(3, 8, 11, 6), x.clone()
    holed[0, 0, 3, 3] = torch.nan
    assert differs_from_plain(rule, x)
    for given in (x, other, holed):
        torch.testing.assert_close(traced(given), net(given), rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_trace_passes_gradients(rule):
    net, x = Attend(rule), draw(2, 8, 7, 9).requires_grad_()
    traced = torch.jit.trace(net, torch.zeros(2, 8, 7, 9, requires_grad=True))
    got, want = (torch.autograd.grad(run(x).square().sum(), x)[0] for run in (traced, net))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_onnx_by_tracing_a_blank_example(rule, tmp_path):
    net, x = Attend(rule), draw(2, 8, 7, 9)
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (torch.zeros(2, 8, 7, 9),), path, dynamo=False)
    session = onnxruntime.InferenceSession(path)
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert differs_from_plain(rule, x)
    np.testing.assert_allclose(got, net(x).numpy(), rtol=1e-4, atol=1e-5)
