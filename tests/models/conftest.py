"""Both networks behind one call, so that one suite fits them; weight files; a machine without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from smooth_attention.models import Network, PaperUNet, create_model, resolve_arm


def make_paper(block, options, **rest):
    return PaperUNet(None, threshold=None, block=block, block_options=options, **rest)


def make_unet(block, options, **rest):
    return create_model("unet", encoder_weights=None, block=block, block_options=options, **rest)


@pytest.fixture(params=[make_paper, make_unet], ids=["paper", "unet"])
def make_network(request: pytest.FixtureRequest) -> Callable[..., Network]:
    """A function that builds one of the networks for an arm, the same for the same seed."""

    def make(arm="smooth", *, seed=0, classes=1, **options):
        torch.manual_seed(seed)
        return request.param(*resolve_arm(arm, **options), classes=classes)

    return make


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="session")
def resnet18_state() -> dict[str, Tensor]:
    """A state dict of torchvision's ResNet-18, classifier and all, with no tensor at its usual start."""
    from torchvision.models import resnet18

    state = resnet18().state_dict()
    return {name: 0.9 * value + 0.01 if value.is_floating_point() else value + 3 for name, value in state.items()}


@pytest.fixture(scope="session", params=[".pth", ".safetensors"])
def resnet18_file(request: pytest.FixtureRequest, resnet18_state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / f"resnet18{request.param}"
    (torch.save if request.param == ".pth" else save_file)(resnet18_state, path)
    return path


@pytest.fixture(params=["missing", "other", "damaged", "code", "nested"])
def wrong_weights(request: pytest.FixtureRequest, tmp_path) -> tuple[Path, str]:
    """A file that is no weight file of an encoder, and what its refusal says."""
    path = tmp_path / f"{request.param}.pth"
    if request.param == "missing":
        return path, "'imagenet', 'none' or a file, got .*missing.pth', which is no file"
    if request.param == "damaged":
        path.write_bytes(b"no weights")
        return path, r"damaged.pth is no readable weight file \(\w+\)"
    content = {
        "other": {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        "code": {"conv1.weight": Path("anything that is no tensor")},
        "nested": {"state_dict": {"conv1.weight": torch.zeros(1)}},
    }
    torch.save(content[request.param], path)
    return path, {
        "other": r"other.pth does not fit ResNet\S+ .*Missing key.* \.\.\.$",
        "code": r"code.pth is no readable weight file \(UnpicklingError\)",
        "nested": "nested.pth holds no state dict of tensors; save one with",
    }[request.param]
