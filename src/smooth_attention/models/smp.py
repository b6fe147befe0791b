"""Networks of segmentation_models.pytorch with a block on the feature maps that their encoder hands over."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from smooth_attention.core.errors import ConfigError, OptionError
from smooth_attention.core.names import suggest
from smooth_attention.core.networks import ARCHITECTURES, default_stages
from smooth_attention.models.arms import build_block, check_block
from smooth_attention.models.blocks import evaluation_mode
from smooth_attention.models.network import Network, check_classes
from smooth_attention.models.saved import read_weights

__all__ = ["SMPNetwork", "create_model"]


# named by create_model itself, or without meaning for a network that gives logits
OWN_OPTIONS = (
    "self",
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
    "aux_params",
    "kwargs",
)
TIMM = "tu-"  # SMP's prefix of timm's encoders


class BlockEncoder(nn.Module):
    """An SMP encoder whose feature maps at some stages pass a block on their way to the decoder.

    The encoder's own deeper stages see the maps as they were.

    Args:
        encoder: the encoder, kept as it is.
        blocks: from the index of a feature map (0 is the image, 1 stride 2, ...; of ``dpt`` all are maps) to its block.
    """

    def __init__(self, encoder: nn.Module, blocks: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.blocks = nn.ModuleDict({str(stage): block for stage, block in blocks.items()})

    @property
    def out_channels(self) -> list[int]:
        channels: list[int] = self.encoder.out_channels  # type: ignore[assignment]
        return channels

    @property
    def output_stride(self) -> int:
        stride: int = self.encoder.output_stride  # type: ignore[assignment]
        return stride

    def forward(self, x: Tensor) -> list[Tensor] | tuple[list[Tensor], list[Tensor | None]]:
        maps, prefix_tokens = split_features(self.encoder(x))
        for stage, block in self.blocks.items():
            maps[int(stage)] = block(maps[int(stage)])
        return maps if prefix_tokens is None else (maps, prefix_tokens)


class SMPNetwork(Network):
    """A network of segmentation_models.pytorch with a block after encoder stages; made by :func:`create_model`."""

    def __init__(self, recipe: Mapping[str, Any], encoder_weights: str | Path | None) -> None:
        super().__init__(recipe)
        check_encoder(self.recipe["arch"], self.recipe["encoder_name"])
        self.model: Any = build_model(self.recipe, download=encoder_weights == "imagenet")
        if encoder_weights is not None and str(encoder_weights) not in ("imagenet", "none"):
            load_encoder_weights(self.model.encoder, Path(encoder_weights))
        # last, so that the rest has the same initial weights whatever the block
        self.model.encoder = self.with_blocks(self.model.encoder)

    def with_blocks(self, encoder: nn.Module) -> BlockEncoder:
        channels: list[int] = encoder.out_channels  # type: ignore[assignment]
        if not self.recipe["stages"]:
            raise OptionError("stages is empty; name at least one, such as -2, or use block 'none'")
        blocks: dict[int, nn.Module] = {}
        for stage in self.recipe["stages"]:
            index = self.find_map(stage, channels)
            if index in blocks:
                raise OptionError(f"stages {tuple(self.recipe['stages'])} name the same map twice; name it once")
            blocks[index] = build_block(self.recipe["block"], channels[index], self.recipe["block_options"])
        return BlockEncoder(encoder, blocks)

    def find_map(self, stage: int, channels: Sequence[int]) -> int:
        """Return the index of the feature map that ``stage`` names, counted from 0."""
        first = 0 if self.recipe["arch"] == "dpt" else 1
        index = stage + len(channels) if stage < 0 else stage
        if not first <= index < len(channels):
            raise OptionError(
                f"{self.recipe['encoder_name']} has stages {first} to {len(channels) - 1} "
                f"(or -1 to {first - len(channels)}), got {stage}; -2 is the second deepest map"
            )
        if not channels[index]:
            raise OptionError(
                f"stage {stage} of {self.recipe['encoder_name']} is empty (0 channels); name a deeper one"
            )
        return index

    @property
    def stride(self) -> int:
        # dpt halves its stride-16 maps once more and doubles them again
        return 32 if self.recipe["arch"] == "dpt" else int(self.model.encoder.output_stride)

    @property
    def min_side(self) -> int:
        # pan pools its deepest map three times; a transformer reduces its keys by windows of up to 32 px
        return 8 * self.stride if self.recipe["arch"] == "pan" else max(32, self.stride)

    def decode(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


def create_model(
    arch: str = "unet",
    *,
    encoder_name: str = "resnet18",
    encoder_weights: str | Path | None = "imagenet",
    classes: int = 1,
    block: str = "smooth",
    block_options: Mapping[str, Any] | None = None,
    stages: Sequence[int] | None = None,
    **smp_options: Any,
) -> SMPNetwork:
    """Return a network of segmentation_models.pytorch with a block after encoder stages.

    Images may have any size: sides are padded to a multiple of the encoder's stride, the logits cropped.

    Args:
        arch: architecture by SMP's name: unet, unetplusplus, manet, linknet, fpn, pspnet, deeplabv3, deeplabv3plus,
            pan, upernet, segformer, or dpt, which takes ``tu-vit*`` encoders alone.
        encoder_name: encoder by SMP's name; timm's have the prefix ``tu-``.
        encoder_weights: ``"imagenet"`` (downloaded by SMP), ``None`` or ``"none"``, or a file with a state dict of
            the encoder.
        classes: number of logits L; 1 is a binary task.
        block: ``"smooth"``, ``"random"``, ``"blur"``, a rival such as ``"se"``, a filter of the mask such as
            ``"median"``, or ``"none"``; the arms' table names all.
        block_options: options of the block, e.g. ``{"threshold": 0.4}``; see :class:`SmoothAttention`.
        stages: indices into the encoder's feature maps; 0 is the image, -1 the deepest. ``None`` is -2, or -1 where
            the decoder does not read that map.
        smp_options: passed on to SMP: depth of the encoder, form of the decoder; ``output_stride=8`` or ``16``
            dilates the encoder.

    Returns:
        A module from (B, 3, H, W) images to (B, classes, H, W) logits.

    Raises:
        OptionError: on an architecture, encoder, stage, block or option that does not exist or does not fit the others;
            a stage that the decoder does not read is found by a dry run.
        ConfigError: on encoder weights that can't be downloaded or read, or don't fit.

    Example:
        >>> import torch, smooth_attention as sa
        >>> net = sa.create_model("unet", encoder_weights=None, block_options={"threshold": 0.4})
        >>> net(torch.zeros(1, 3, 100, 130)).shape
        torch.Size([1, 1, 100, 130])
    """
    if arch not in ARCHITECTURES:
        raise OptionError(
            f"an architecture is one of {', '.join(ARCHITECTURES)}, got {arch!r}; {suggest(arch, ARCHITECTURES)}"
        )
    check_block(block)
    recipe = {
        "kind": "smp",
        "arch": arch,
        "encoder_name": encoder_name,
        "classes": check_classes(classes),
        "block": block,
        "block_options": dict(block_options or {}),
        "stages": list(default_stages(arch) if stages is None else stages),
        "smp_options": smp_options,
    }
    net = SMPNetwork(recipe, encoder_weights)
    read = find_read_maps(net)
    unread = [int(stage) for stage in net.model.encoder.blocks if int(stage) not in read]
    if net.recipe["block"] != "none" and unread:
        raise OptionError(
            f"the decoder of {arch} reads the maps {read} of {encoder_name}, a block after {unread[0]} would change "
            f"nothing; use stages={tuple(read[-1:])}"
        )
    return net


def split_features(found: Any) -> tuple[list[Tensor], list[Tensor | None] | None]:
    """Return the feature maps of an SMP encoder, and the prefix tokens that those for ``dpt`` give beside them."""
    maps, prefix_tokens = found if isinstance(found, tuple) else (found, None)
    return list(maps), prefix_tokens


def build_model(recipe: Mapping[str, Any], *, download: bool) -> Any:
    """Return SMP's own network, its encoder with ImageNet weights if ``download``."""
    import segmentation_models_pytorch as smp

    options = map_options(recipe["arch"], recipe["smp_options"])
    is_timm = recipe["encoder_name"].startswith(TIMM)
    try:
        model = smp.create_model(
            recipe["arch"],
            encoder_name=recipe["encoder_name"],
            encoder_weights=(True if is_timm else "imagenet") if download else None,
            classes=recipe["classes"],
            **options,
        )
    except OSError as error:
        raise ConfigError(f"the ImageNet weights can't be downloaded ({error}); give a file, or 'none'") from error
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise OptionError(f"segmentation_models.pytorch can't build this network: {error.args[0]}") from error
    stride = recipe["smp_options"].get("output_stride")
    if stride is not None and stride != model.encoder.output_stride:
        raise OptionError(
            f"the encoder of this {recipe['arch']} has stride {model.encoder.output_stride}, output_stride={stride} "
            "would change nothing; leave it out"
        )
    return model


def map_options(arch: str, smp_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options under the names that SMP's class has; it would drop an unknown one without a word.

    Raises:
        OptionError: on an option that this architecture does not have.
    """
    import segmentation_models_pytorch as smp

    known = [
        name
        for name in inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[arch].__init__).parameters
        if name not in OWN_OPTIONS
    ]
    if arch != "dpt":  # a vision transformer has no strides to dilate
        known.append("output_stride")
    for name in smp_options:
        if name not in known:
            raise OptionError(f"{arch} takes {', '.join(known)}, got {name!r}; {suggest(name, known)}")
    options = dict(smp_options)
    if "output_stride" in options and "encoder_output_stride" in known:
        options["encoder_output_stride"] = options.pop("output_stride")
    return options | ({"dynamic_img_size": True} if arch == "dpt" else {})


def check_encoder(arch: str, encoder_name: str) -> None:
    """Raise unless the encoder exists here, so that no name makes a library look on the net, and goes with ``arch``.

    Raises:
        OptionError: with the nearest names.
    """
    from segmentation_models_pytorch.encoders import get_encoder_names
    from timm import is_model, list_models

    vits = f"{TIMM}vit"
    if arch == "dpt" and not encoder_name.startswith(vits):
        raise OptionError(
            f"dpt takes {vits}* encoders, got {encoder_name!r}; such as {TIMM}vit_tiny_patch16_224, or another network"
        )
    if arch != "dpt" and encoder_name.startswith(vits):
        raise OptionError(f"{encoder_name} goes with dpt alone, {arch} needs maps of several strides; use network dpt")
    names = get_encoder_names()
    if encoder_name.startswith(TIMM):
        if ":" not in encoder_name and is_model(encoder_name.removeprefix(TIMM)):
            return
        names = [TIMM + name for name in list_models()]
    elif encoder_name in names or encoder_name.startswith("timm-"):  # older names, which SMP translates
        return
    raise OptionError(
        f"there is no encoder {encoder_name!r} in segmentation_models.pytorch; {suggest(encoder_name, names)}"
    )


def find_read_maps(net: SMPNetwork) -> list[int]:
    """Return the indices of the feature maps that reach the logits, by one dry run on a small image.

    Raises:
        OptionError: where encoder and decoder don't fit each other.
    """
    encoder, decoder = net.model.encoder.encoder, net.model.decoder
    side = max(64, net.min_side)
    try:
        with evaluation_mode(net), torch.enable_grad():
            maps, prefix_tokens = split_features(encoder(next(net.parameters()).new_zeros(1, 3, side, side)))
            leaves = [each.detach().requires_grad_() for each in maps]
            decoded = decoder(leaves) if prefix_tokens is None else decoder(leaves, prefix_tokens)
            gradients = torch.autograd.grad(decoded.sum(), leaves, allow_unused=True)
    except (RuntimeError, ValueError) as error:
        reason = shorten(str(error), 300, placeholder=" ...")
        raise OptionError(
            f"{net.recipe['arch']} can't decode {net.recipe['encoder_name']} with {net.recipe['smp_options']}: {reason}"
        ) from error
    return [index for index, gradient in enumerate(gradients) if gradient is not None and gradient.numel()]


def load_encoder_weights(encoder: nn.Module, path: Path) -> None:
    try:
        encoder.load_state_dict(dict(read_weights(path)))
    except RuntimeError as error:
        reason = shorten(str(error), 300, placeholder=" ...")
        raise ConfigError(f"{path} does not fit {type(encoder).__name__}: {reason}") from error
