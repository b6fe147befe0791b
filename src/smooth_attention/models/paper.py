"""The network of the paper: a ResNet-18 encoder, the attention block, five transposed convolutions, no skips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor, nn

from smooth_attention.core.arms import DEFAULT_THRESHOLD, ROWS
from smooth_attention.core.errors import ConfigError
from smooth_attention.models.arms import build_block, check_block
from smooth_attention.models.network import Network, check_classes
from smooth_attention.models.saved import read_weights

__all__ = ["PaperUNet"]

WIDTHS = (512, 256, 128, 64, 32)
GATED_BLOCKS = {row.block for row in ROWS if row.is_gated}


class PaperUNet(Network):
    """The published encoder-decoder: each cell of the stride-32 map decodes its own 32x32 block.

    Args:
        encoder_weights: ``"imagenet"`` (torchvision's IMAGENET1K_V1, downloaded once by torchvision), ``None`` or
            ``"none"``, or a file with a ResNet-18 state dict under torchvision's names.
        classes: number of logits L; 1 is a binary task.
        threshold: of the block, as published 0.1-0.9; 2.0 never smooths. ``None`` where ``block_options`` say it.
        block: what stands at the bottleneck, as in :func:`create_model`.
        block_options: further options of the block; the published ``scale=1.0`` is the default of dot logits here.

    Raises:
        ConfigError: on encoder weights that can't be downloaded or read, or don't fit.
        OptionError: on a block or option that does not exist.

    Reference:
        Smooth Attention (preprint 202409.1283) and its public code; 12,661,410 parameters for one class. The
        published state dict (``encoder.*``, ``smooth_attention.*``, ``decoder.*``) loads strictly.

    Example:
        >>> import torch, smooth_attention as sa
        >>> sa.PaperUNet(encoder_weights=None)(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 1, 64, 96])
    """

    def __init__(
        self,
        encoder_weights: str | Path | None = "imagenet",
        classes: int = 1,
        threshold: float | None = DEFAULT_THRESHOLD,
        *,
        block: str = "smooth",
        block_options: Mapping[str, Any] | None = None,
    ) -> None:
        check_block(block)
        options = paper_block_options(block, threshold, block_options)
        super().__init__({"kind": "paper", "classes": check_classes(classes), "block": block, "block_options": options})
        self.encoder = resnet18_children(encoder_weights)
        self.smooth_attention: nn.Module = nn.Identity()  # keeps its place in the order of modules
        layers: list[nn.Module] = []
        for width, following in zip(WIDTHS, (*WIDTHS[1:], classes), strict=True):
            layers += [nn.ConvTranspose2d(width, following, kernel_size=2, stride=2), nn.ReLU(inplace=True)]
        self.decoder = nn.Sequential(*layers[:-1])
        # last, so that the rest has the same initial weights whatever the block
        self.smooth_attention = build_block(self.recipe["block"], WIDTHS[0], self.recipe["block_options"])

    def decode(self, x: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.smooth_attention(self.encoder(x)))
        return logits


def paper_block_options(block: str, threshold: float | None, block_options: Mapping[str, Any] | None) -> dict[str, Any]:
    options = dict(block_options or {})
    if block in GATED_BLOCKS:
        if options.get("logits", "dot") == "dot":  # of cosine logits a scale is where the multiplier starts
            options = {"scale": 1.0, **options}
        if threshold is not None and not {"threshold", "fraction"} & options.keys():
            options["threshold"] = threshold
    return options


def resnet18_children(encoder_weights: str | Path | None) -> nn.Sequential:
    """Return torchvision's ResNet-18 up to layer4 as a Sequential, its children numbered in order."""
    from torchvision.models import ResNet18_Weights, resnet18

    is_imagenet = encoder_weights == "imagenet"
    try:
        network = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1 if is_imagenet else None)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"the ImageNet weights can't be downloaded ({error}); give a file, or 'none'") from error
    if encoder_weights is not None and str(encoder_weights) not in ("imagenet", "none"):
        state = read_weights(Path(encoder_weights))
        named = {name: value for name, value in state.items() if not name.startswith("fc.")}
        head = {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
        try:
            network.load_state_dict(named | head)
        except RuntimeError as error:
            reason = shorten(str(error), 300, placeholder=" ...")
            raise ConfigError(
                f"{encoder_weights} does not fit ResNet-18; expected torchvision's names and shapes: {reason}"
            ) from error
    return nn.Sequential(*list(network.children())[:-2])
