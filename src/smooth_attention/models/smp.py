"""Networks of segmentation_models.pytorch with a block on the feature maps that their encoder hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from smooth_attention.core.errors import ConfigError, OptionError, ShapeError
from smooth_attention.models.arms import build_block
from smooth_attention.models.network import Network, check_classes, read_weights

ARCHITECTURES = ("unet",)
# what SMP's Unet takes besides; it drops any other name without a word
SMP_OPTIONS = (
    "encoder_depth",
    "output_stride",
    "decoder_use_norm",
    "decoder_channels",
    "decoder_attention_type",
    "decoder_interpolation",
)


class BlockEncoder(nn.Module):
    """An SMP encoder whose feature maps at some stages pass a block on their way to the decoder.

    The encoder's own deeper stages see the maps as they were.

    Args:
        encoder: the encoder, kept as it is.
        blocks: from the index of a feature map (0 is the image, 1 stride 2, ...) to its block.
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

    def forward(self, x: Tensor) -> list[Tensor]:
        features = list(self.encoder(x))
        for stage, block in self.blocks.items():
            features[int(stage)] = block(features[int(stage)])
        return features


class SMPNetwork(Network):
    """A network of segmentation_models.pytorch with a block after encoder stages; made by :func:`create_model`."""

    def __init__(self, recipe: Mapping[str, Any], encoder_weights: str | Path | None) -> None:
        import segmentation_models_pytorch as smp

        super().__init__(recipe)
        own_weights = encoder_weights if encoder_weights == "imagenet" else None
        try:
            self.model = smp.create_model(
                self.recipe["arch"],
                encoder_name=self.recipe["encoder_name"],
                encoder_weights=own_weights,
                classes=self.recipe["classes"],
                **self.recipe["smp_options"],
            )
        except OSError as error:
            raise ConfigError(f"the ImageNet weights can't be downloaded ({error}); give a file, or 'none'") from error
        except (KeyError, RuntimeError) as error:
            raise OptionError(f"segmentation_models.pytorch can't build this network: {error.args[0]}") from error
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
            index = stage + len(channels) if stage < 0 else stage
            if not 1 <= index < len(channels):
                raise OptionError(
                    f"{self.recipe['encoder_name']} has stages 1 to {len(channels) - 1} "
                    f"(or -1 to {1 - len(channels)}), got {stage}; -2 is the stride-16 map of a ResNet"
                )
            if index in blocks:
                raise OptionError(f"stages {tuple(self.recipe['stages'])} name the same map twice; name it once")
            blocks[index] = build_block(self.recipe["block"], channels[index], self.recipe["block_options"])
        return BlockEncoder(encoder, blocks)

    @property
    def stride(self) -> int:
        return int(self.model.encoder.output_stride)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b l h w"]:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ShapeError(
                f"the network needs images of shape (B, 3, H, W), got {tuple(x.shape)}; add the batch axis"
            )
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
    stages: Sequence[int] = (-2,),
    **smp_options: Any,
) -> SMPNetwork:
    """Return a network of segmentation_models.pytorch with a block after encoder stages.

    Args:
        arch: architecture by SMP's name; ``"unet"``.
        encoder_name: encoder by SMP's name.
        encoder_weights: ``"imagenet"`` (downloaded by SMP), ``None`` or ``"none"``, or a file with a state dict of
            the encoder.
        classes: number of logits L; 1 is a binary task.
        block: ``"smooth"``, ``"random"``, ``"blur"`` or ``"none"``.
        block_options: options of the block, e.g. ``{"threshold": 0.4}``; see :class:`SmoothAttention`.
        stages: indices into the encoder's feature maps; 0 is the image, -1 the coarsest.
        smp_options: passed on to SMP: depth and stride of the encoder, form of the decoder.

    Returns:
        A module from (B, 3, H, W) images to (B, classes, H, W) logits.

    Raises:
        OptionError: on an architecture, encoder, stage, block or option that does not exist.
        ConfigError: on encoder weights that can't be downloaded or read, or don't fit.

    Example:
        >>> import torch, smooth_attention as sa
        >>> net = sa.create_model("unet", encoder_weights=None, block_options={"threshold": 0.4})
        >>> net(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])
    """
    if arch not in ARCHITECTURES:
        raise OptionError(f"an architecture is one of {', '.join(ARCHITECTURES)}, got {arch!r}")
    for name in smp_options:
        if name not in SMP_OPTIONS:
            raise OptionError(f"create_model takes SMP's {', '.join(SMP_OPTIONS)}, got {name!r}; leave it out")
    recipe = {
        "kind": "smp",
        "arch": arch,
        "encoder_name": encoder_name,
        "classes": check_classes(classes),
        "block": block,
        "block_options": dict(block_options or {}),
        "stages": list(stages),
        "smp_options": smp_options,
    }
    return SMPNetwork(recipe, encoder_weights)


def load_encoder_weights(encoder: nn.Module, path: Path) -> None:
    try:
        encoder.load_state_dict(dict(read_weights(path)))
    except RuntimeError as error:
        reason = shorten(str(error), 300, placeholder=" ...")
        raise ConfigError(f"{path} does not fit {type(encoder).__name__}: {reason}") from error
