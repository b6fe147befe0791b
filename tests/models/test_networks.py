"""One suite for all networks: a few of them here, all of them by ``make support``."""

import subprocess
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from network_checks import CHECKS, TOLERANCE, draw_images
from smooth_attention.core.networks import ARCHITECTURES, default_stages
from smooth_attention.models import Network, block_mode
from smooth_attention.models.smp import find_read_maps
from zoo import NETWORKS, build

NAMES = (
    "paper",
    "unet-two-stages",
    "deeplabv3plus-mobilenet_v2-dilated",
    "fpn-mit_b0",
    "unet-convnext",
    "pan",
    "dpt-vit",
)


@pytest.fixture(scope="module", params=NAMES)
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param]()


@pytest.mark.parametrize(
    "check",
    [pytest.param(name, marks=pytest.mark.slow if name == "onnx" else ()) for name in CHECKS if name != "compile"],
)
def test_network_passes_the_common_check(network, check):
    CHECKS[check](network)


@pytest.mark.slow
def test_networks_compile_into_one_graph():
    """In a process without the shape checks, which can't be traced."""
    code = (
        "import network_checks, zoo\n"
        f"for name in {NAMES}:\n"
        "    network_checks.check_compile(zoo.NETWORKS[name]())\n"
        "    print(name)"
    )
    here = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(here)]}\n{code}"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.split() == list(NAMES)


@pytest.mark.filterwarnings("ignore")  # the tracer's own
@pytest.mark.parametrize("rule", [{"threshold": 0.05}, {"fraction": 0.25}], ids=str)
@torch.no_grad()
def test_trace_of_a_blank_image_smooths(rule, monkeypatch, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    net, images = build(block_options={"gamma_init": 0.5, **rule}).eval(), draw_images()
    traced = torch.jit.trace(net, torch.zeros_like(images))
    torch.testing.assert_close(traced(images), net(images), **TOLERANCE)
    torch.onnx.export(net, (torch.zeros_like(images),), tmp_path / "net.onnx", dynamo=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(logits, net(images).numpy(), rtol=1e-3, atol=1e-3)
    with block_mode(net, "gate_off"):
        assert not torch.allclose(traced(images), net(images), atol=1e-2)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_default_stage_is_the_second_deepest_map_that_is_read(arch):
    """The static table, against what a gradient says; create_model refuses a stage that the decoder does not read."""
    net = build(arch, "tu-vit_tiny_patch16_224" if arch == "dpt" else "resnet18")
    read, count = find_read_maps(net), len(net.model.encoder.out_channels)
    assert count - 1 in read
    assert default_stages(arch) == ((-2,) if count - 2 in read else (-1,))


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        ("forward", lambda net: net.model.segmentation_head[0].bias.data.fill_(float("nan"))),
        ("block", lambda net: net.model.encoder.blocks["4"].gamma.data.zero_()),
        ("backward", lambda net: net.model.decoder.requires_grad_(False)),
        ("backward", lambda net: net.model.encoder.blocks["4"].query.requires_grad_(False)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_common_check_finds_a_planted_fault(check, spoil):
    net = build("unet")
    spoil(net)
    with pytest.raises(AssertionError):
        CHECKS[check](net)
