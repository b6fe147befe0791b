"""torch.export and a user's own ONNX export: plain operators only, equal to eager on other sizes too."""

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
        rows = x.flatten(2).mT
        out = smooth_attention(2 * rows, rows, rows[..., :3], grid=x.shape[2:], **self.rule)
        return out.mT.unflatten(2, x.shape[2:])


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
