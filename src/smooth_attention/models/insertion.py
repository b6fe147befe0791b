"""Blocks in anybody's network: after any module that gives a feature map, by its name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from textwrap import shorten
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from smooth_attention.core.arms import ROWS
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.core.names import suggest
from smooth_attention.models.arms import BLOCKS, build_block, check_known
from smooth_attention.models.blocks import block_mode, evaluation_mode
from smooth_attention.models.network import Network

__all__ = ["insert", "place", "remove"]

Net = TypeVar("Net", bound=nn.Module)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SAMPLE_SIDES = {1: 224, 2: 224, 3: 64}
ANY_GRID = {row.block for row in ROWS if row.any_grid}


class WithBlock(nn.Module):
    """A module whose output passes a block; what :func:`insert` puts at the module's place.

    Attributes:
        module: as it was; its keys in the state dict move from ``NAME.`` to ``NAME.module.``.
        block: what it passes; its keys are ``NAME.block.``.
    """

    def __init__(self, module: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.module, self.block = module, block

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = self.block(self.module(*args, **kwargs))
        return out


def insert(
    net: Net,
    modules: Mapping[str, int],
    *,
    block: str = "smooth",
    block_options: Mapping[str, Any] | None = None,
    sample: Tensor | tuple[Any, ...] | None = None,
) -> Net:
    """Return a copy of a network with a block after each of the named modules.

    The copy keeps weights, modes, dtype and device; with ``gamma_init`` 0, the default of ``smooth``, its output stays
    bit-identical until training. In its state dict the keys ``NAME.*`` become ``NAME.module.*``, and ``NAME.block.*``
    are new. :func:`remove` takes the blocks out again. All that follows the module sees what the block gives.

    Args:
        net: any network; left as it is.
        modules: from the name of a module, as in ``net.named_modules()``, to the channels C of its output
            (B, C, *grid).
        block: ``"smooth"``, ``"random"``, ``"blur"`` or a rival such as ``"se"``; the arms' table names all.
        block_options: of the block, e.g. ``{"threshold": 0.4}``; the axes of the grid are found out.
        sample: an input of the network, or a tuple of its arguments, for two dry forwards in evaluation mode, before
            and after. ``None``: zeros of one image with the channels of its first convolution, 224 cells a side, 64
            for volumes.

    Raises:
        OptionError: on a module or block that does not exist, or a network that does not take the sample.
        ShapeError: where a module gives other channels, no single feature map, or a grid of one cell.

    Example:
        >>> import torch, smooth_attention as sa
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3))
        >>> sa.insert(net, {"1": 8}, block_options={"threshold": 0.4})[1].block
        SmoothAttention(
          threshold=0.4, fraction=None, scale=None
          (query): Projection2d(8, 8, kernel_size=(1, 1), stride=(1, 1))
          (key): Projection2d(8, 8, kernel_size=(1, 1), stride=(1, 1))
          (value): Projection2d(8, 8, kernel_size=(1, 1), stride=(1, 1))
        )
    """
    check_known("block to insert", block, BLOCKS)
    if not modules:
        raise OptionError("insert needs the names of modules and their channels, got none; such as {'layer3': 256}")
    check_names(net, modules)
    widened = copy.deepcopy(net)
    shapes = run_dry(widened, list(modules), sample)
    inserted: list[dict[str, Any]] = []
    for name, channels in sorted(modules.items(), key=lambda item: -item[0].count(".")):  # parts before the whole
        options = dict(block_options or {})
        ndim = check_map(name, channels, shapes[name], block) - 2
        if ndim != 2:
            options = {"ndim": ndim, **options}
        inserted.append({"module": name, "channels": channels, "block": block, "block_options": options})
        place(widened, **inserted[-1])
    check_reached(widened, sample)
    if isinstance(widened, Network):  # so that it can be saved and read back
        widened.recipe = {**widened.recipe, "inserted": [*widened.recipe.get("inserted", []), *inserted]}
    return widened


def remove(net: Net) -> Net:
    """Return a copy of a network without the blocks that :func:`insert` put into it, its state dict keys as before.

    Args:
        net: the network; left as it is.

    Raises:
        OptionError: where it has none.

    Example:
        >>> import torch, smooth_attention as sa
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> sa.remove(sa.insert(net, {"0": 8}))
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): ReLU()
        )
    """
    narrowed = copy.deepcopy(net)
    names = [name for name, module in narrowed.named_modules() if isinstance(module, WithBlock)]
    if not names:
        raise OptionError(f"{type(net).__name__} has no inserted block to remove")
    for name in reversed(names):  # the innermost first
        wrapper = narrowed.get_submodule(name)
        assert isinstance(wrapper, WithBlock)
        narrowed.set_submodule(name, wrapper.module)
    if isinstance(narrowed, Network):
        narrowed.recipe = {key: value for key, value in narrowed.recipe.items() if key != "inserted"}
    return narrowed


def place(net: nn.Module, module: str, channels: int, block: str, block_options: Mapping[str, Any]) -> None:
    """Put a block after a module of ``net``, in place and unchecked."""
    found = net.get_submodule(module)
    wrapper = WithBlock(found, build_block(block, channels, block_options))
    like = next((p for p in [*found.parameters(), *net.parameters()] if p.is_floating_point()), None)
    if like is not None:
        wrapper.block.to(device=like.device, dtype=like.dtype)
    wrapper.block.train(found.training)
    wrapper.training = found.training  # not train(): parts of the module may be in another mode
    net.set_submodule(module, wrapper)


def check_names(net: nn.Module, modules: Mapping[str, int]) -> None:
    known = {name: module for name, module in net.named_modules() if name}
    for name in modules:
        if name not in known:
            raise OptionError(f"{type(net).__name__} has no module {name!r}; {suggest(name, known)}")
        if isinstance(known[name], WithBlock):
            raise OptionError(f"module {name!r} has an inserted block already; remove() it first")


def run_dry(net: nn.Module, names: list[str], sample: Tensor | tuple[Any, ...] | None) -> dict[str, Any]:
    """Return the shape of each module's output, or what else it gave, from one forward in evaluation mode."""
    given = make_sample(net) if sample is None else sample
    arguments = given if isinstance(given, tuple) else (given,)
    found: dict[str, Any] = {}

    def note(name: str, out: Any) -> None:
        came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        before = found.setdefault(name, came)
        if isinstance(before, tuple) and (len(before), before[1:2]) != (len(came), came[1:2]):
            found[name] = f"map of {before}, then {came}"  # called more than once

    handles = [
        net.get_submodule(name).register_forward_hook(lambda module, args, out, name=name: note(name, out))
        for name in names
    ]
    try:
        with evaluation_mode(net), torch.no_grad():
            net(*arguments)
    except Exception as error:  # whatever somebody's network raises
        shown = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in arguments]
        reason = shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
        raise OptionError(
            f"{type(net).__name__} does not take an input of {shown} ({reason}); pass sample=, an input that it takes"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if missing := [name for name in names if name not in found]:
        raise OptionError(f"the forward pass never calls module {missing[0]!r}; name one that it calls as a whole")
    return found


def check_reached(net: nn.Module, sample: Tensor | tuple[Any, ...] | None) -> None:
    """Raise unless the network still runs and calls every block: it may hold a module by another name as well."""
    names = [name for name, module in net.named_modules() if isinstance(module, WithBlock)]
    try:
        with block_mode(net, "bypass"):
            run_dry(net, names, sample)
    except OptionError as error:
        cause = error.__cause__
        reason = (
            "it never calls a block"
            if cause is None
            else shorten(f"{type(cause).__name__}: {cause}", 300, placeholder=" ...")
        )
        raise OptionError(
            f"{type(net).__name__} does not run with blocks after {', '.join(names)} ({reason}): it "
            "looks into such a module, or calls it by another name; name others"
        ) from error


def make_sample(net: nn.Module) -> Tensor:
    first = next((module for module in net.modules() if isinstance(module, CONVOLUTIONS)), None)
    if first is None:
        raise OptionError(f"{type(net).__name__} has no convolution that would tell its input; pass sample=, an input")
    ndim = first.weight.ndim - 2
    return first.weight.new_zeros(1, first.in_channels, *[SAMPLE_SIDES[ndim]] * ndim)


def check_map(name: str, channels: int, shape: Any, block: str) -> int:
    """Return the number of axes of a module's output if a block can follow it."""
    axes = "(B, C, *grid) with one to three grid axes" if block in ANY_GRID else "(B, C, H, W)"
    if isinstance(shape, str) or not (3 <= len(shape) <= 5 if block in ANY_GRID else len(shape) == 4):
        came = f"a {shape}" if isinstance(shape, str) else f"{shape}"
        raise ShapeError(f"block {block!r} needs a feature map {axes}, module {name!r} gives {came}; name another")
    if shape[1] != channels == shape[-1]:
        raise ShapeError(
            f"block {block!r} needs a feature map {axes}, module {name!r} gives its {channels} channels last "
            f"({shape}); name a module that gives them first"
        )
    if shape[1] != channels:
        raise ShapeError(
            f"module {name!r} gives {shape[1]} channels (its output is {shape}), got {channels}; pass {shape[1]}"
        )
    if all(side == 1 for side in shape[2:]):
        raise ShapeError(
            f"module {name!r} gives a grid of one cell ({shape}), which has nothing to attend to; name an earlier "
            "module, or pass a larger sample="
        )
    return len(shape)
