"""What every network must do, as one function a fact: the test suite runs them on some, ``make support`` on all."""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from smooth_attention.models import Network, block_mode, load_model
from smooth_attention.models.blocks import Block

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # of a graph that orders its sums otherwise
SIDES = (128, 160)


def draw_images(count: int = 1, sides: tuple[int, int] = SIDES, *, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *sides, generator=torch.Generator().manual_seed(seed))


def blocks_of(net: Network) -> list[Block]:
    return [module for module in net.modules() if isinstance(module, Block)]


@contextmanager
def evaluated(net: Network) -> Iterator[Network]:
    with torch.no_grad():
        yield net.eval()


def check_forward(net: Network) -> None:
    """Finite logits at image size, the same each time, each image for itself."""
    images = draw_images(2)
    with evaluated(net):
        logits = net(images)
        assert logits.shape == (2, net.classes, *SIDES)
        assert torch.isfinite(logits).all()
        assert torch.equal(net(images), logits)
        torch.testing.assert_close(net(images[1:]), logits[1:], **TOLERANCE)


def check_block(net: Network) -> None:
    """The block changes the logits, and with gamma 0 nothing."""
    images = draw_images()
    silent = copy.deepcopy(net)
    for block in blocks_of(silent):
        torch.nn.init.zeros_(block.gamma)
    with evaluated(net), evaluated(silent):
        on, without = net(images), silent(images)
        with block_mode(net, "bypass"):
            assert torch.equal(net(images), without)
    assert blocks_of(net)
    assert not torch.equal(on, without)


def check_backward(net: Network) -> None:
    """A finite gradient for every parameter of block, decoder and head, and for the encoder's first layer."""
    net.train().zero_grad()
    net(draw_images(2)).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    for name, gradient in gradients.items():
        if gradient is None:
            assert is_unused_by_design(name), f"{name} has no gradient"
        else:
            assert torch.isfinite(gradient).all(), name
    assert all(block.gamma.grad is not None and block.gamma.grad.item() != 0 for block in blocks_of(net))
    first = next(gradient for name, gradient in gradients.items() if "encoder" in name and name.endswith("weight"))
    assert first is not None
    assert first.abs().sum() > 0
    net.zero_grad()


def is_unused_by_design(name: str) -> bool:
    """Layers of SMP's encoder that follow the last map it hands over, and the residual of DPT's deepest fusion."""
    return ".encoder.encoder." in name or "decoder.fusion_blocks" in name


def check_odd_sizes(net: Network) -> None:
    """Any size: what is padded is cropped again, and the padding repeats the border."""
    images = draw_images(sides=(100, 130))
    with evaluated(net):
        logits = net(images)
        assert logits.shape == (1, net.classes, 100, 130)
        height, width = (max(side + -side % net.stride, net.min_side) for side in (100, 130))
        rows, columns = (torch.arange(size).clamp(max=side - 1) for size, side in ((height, 100), (width, 130)))
        assert torch.equal(logits, net(images[:, :, rows][..., columns])[..., :100, :130])
        assert net(draw_images(sides=(1, 7))).shape == (1, net.classes, 1, 7)


def check_save_and_load(net: Network) -> None:
    """The same network from disk: weights, buffers, recipe, logits."""
    images = draw_images()
    with tempfile.TemporaryDirectory() as directory, evaluated(net):
        net.save_pretrained(directory)
        again = load_model(directory)
        assert again.recipe == net.recipe
        state = net.state_dict()
        assert again.state_dict().keys() == state.keys()
        for name, value in again.state_dict().items():
            assert torch.equal(value, state[name]), name
        assert torch.equal(again(images), net(images))


def check_compile(net: Network) -> None:
    """One graph without breaks, with the logits of eager mode."""
    images = draw_images()
    torch.compiler.reset()
    with evaluated(net):
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(images), net(images), **TOLERANCE)
    torch.compiler.reset()


def check_export(net: Network) -> None:
    """``torch.export`` gives a program with the logits of eager mode, and its file reads back."""
    images = draw_images()
    with evaluated(net):
        program = torch.export.export(net, (images,))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        buffer.seek(0)
        torch.testing.assert_close(torch.export.load(buffer).module()(images), net(images), **TOLERANCE)


def check_onnx(net: Network) -> None:
    """onnxruntime gives the logits of eager mode."""
    import onnxruntime

    images = draw_images()
    with evaluated(net), tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/model.onnx"
        torch.onnx.export(net, (images,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        np.testing.assert_allclose(logits, net(images).numpy(), rtol=1e-3, atol=1e-3)


CHECKS: dict[str, Callable[[Network], None]] = {
    "forward": check_forward,
    "block": check_block,
    "backward": check_backward,
    "odd sizes": check_odd_sizes,
    "save and load": check_save_and_load,
    "compile": check_compile,
    "export": check_export,
    "onnx": check_onnx,
}
