"""Against runs of the module published with the paper (tests/golden/README.md)."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from smooth_attention.ops import attention_rows, roughness, smooth_attention, smoothing_gate
from smooth_attention.ops.reference import reference

FILES = sorted((Path(__file__).parents[1] / "golden").glob("*.safetensors"))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}
PROJECTIONS = ("query", "key", "value")

pytestmark = [
    pytest.mark.parametrize("dtype", TOLERANCE, ids=str),
    pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem),
]


def load(path):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        meta = file.metadata()
    grid = (int(meta["height"]), int(meta["width"]))
    return tensors, {"grid": grid, "threshold": float(meta["threshold"]), "scale": 1.0}


def project(stored, dtype):
    """The leaves that have gradients, and the flattened query, key and value made of them."""
    leaves = {"x": stored["x"], "gamma": stored["state.gamma"]}
    leaves |= {f"{name}_weight": stored[f"state.{name}.weight"] for name in PROJECTIONS}
    leaves = {name: leaf.to(dtype, copy=True).requires_grad_() for name, leaf in leaves.items()}
    biases = [stored[f"state.{name}.bias"].to(dtype) for name in PROJECTIONS]
    maps = [
        F.conv2d(leaves["x"], leaves[f"{name}_weight"], bias) for name, bias in zip(PROJECTIONS, biases, strict=True)
    ]
    return leaves, [x.flatten(2).mT for x in maps]


def assert_within(got, want, bound, name):
    off = (got.double() - want).abs().max().item()
    assert off <= bound, f"{name}: off by {off:.3g}, allowed {float(bound):.3g}"


def run_reference(*inputs, **options):
    return reference(*inputs, **options).output


@pytest.mark.parametrize("run", [smooth_attention, run_reference], ids=["door", "reference"])
def test_output_and_every_gradient(path, dtype, run):
    stored, options = load(path)
    leaves, inputs = project(stored, dtype)
    smoothed = run(*inputs, **options).mT.unflatten(-1, options["grid"])
    y = leaves["gamma"] * smoothed + leaves["x"]
    upstream = stored["upstream_grad"].to(dtype)
    y.backward(upstream)

    tolerance = TOLERANCE[dtype]
    assert_within(y.detach(), stored["y"], tolerance, "y")
    # A gradient that is a sum of cancelling terms is known no better than its terms.
    gradients = {name: stored[f"grad_{name}"] for name in leaves}
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    gamma_terms = (upstream * smoothed.detach()).abs().sum().item()
    for name, gradient in gradients.items():
        bound = tolerance * (gamma_terms if name == "gamma" else largest)
        assert_within(leaves[name].grad, gradient, bound, f"grad_{name}")


def test_gate_roughness_and_rows(path, dtype):
    stored, options = load(path)
    _, (query, key, _) = project(stored, dtype)
    tolerance = TOLERANCE[dtype]
    # No position is left out: in every file the closest one is farther from the threshold than rounding reaches.
    assert stored["margin"].item() > 2 * tolerance
    assert torch.equal(smoothing_gate(query, key, **options), stored["smoothed"])
    rough = roughness(query, key, grid=options["grid"], scale=1.0).detach()
    assert_within(rough, stored["roughness"], tolerance, "roughness")
    rows = attention_rows(query, key, torch.arange(query.shape[-2]), **options).detach()
    assert_within(rows, stored["attention"], tolerance, "attention")
