"""A network of each kind, by name: tests take those whose structure they need. Each call builds one anew, alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from smooth_attention.models import Network, PaperUNet, create_model

OPTIONS = {"threshold": 0.05, "gamma_init": 0.5}  # smooths some positions and changes the output


def build(arch: str = "unet", encoder_name: str = "resnet18", **options: Any) -> Network:
    torch.manual_seed(0)
    options = {"block_options": OPTIONS, **options}
    return create_model(arch, encoder_name=encoder_name, encoder_weights=None, **options)


def build_paper() -> Network:
    torch.manual_seed(0)
    return PaperUNet(None, threshold=None, block_options=OPTIONS)


NETWORKS: dict[str, Callable[[], Network]] = {
    "paper": build_paper,
    "unet": build,
    "unet-none": lambda: build(block="none", block_options={}),
    "unet-median": lambda: build(block="median", block_options={"size": 3}),
    "unet-scse-median": lambda: build(block="median", block_options={"size": 3}, decoder_attention_type="scse"),
    "unet-two-stages": lambda: build(stages=(3, -1), classes=3),
    "unet-convnext": lambda: build(encoder_name="tu-convnext_atto"),
    "unetplusplus-hrnet": lambda: build("unetplusplus", "tu-hrnet_w18_small"),
    "manet-densenet121": lambda: build("manet", "densenet121"),
    "linknet-vgg11_bn": lambda: build("linknet", "vgg11_bn"),
    "fpn-mit_b0": lambda: build("fpn", "mit_b0", classes=3, block_options={"fraction": 0.25, "gamma_init": 0.5}),
    "fpn-three-stages": lambda: build("fpn", stages=(3, 4, -1)),
    "pspnet": lambda: build("pspnet"),
    "deeplabv3-efficientnet": lambda: build("deeplabv3", "tu-efficientnet_b0"),
    "deeplabv3plus-mobilenet_v2": lambda: build("deeplabv3plus", "mobilenet_v2"),
    "deeplabv3plus-mobilenet_v2-dilated": lambda: build("deeplabv3plus", "mobilenet_v2", output_stride=8),
    "pan": lambda: build("pan", classes=3),
    "upernet-convnext": lambda: build("upernet", "tu-convnext_atto"),
    "segformer-mit_b0": lambda: build("segformer", "mit_b0"),
    "segformer-mit_b0-two-stages": lambda: build("segformer", "mit_b0", stages=(3, -1)),
    "dpt-vit": lambda: build("dpt", "tu-vit_tiny_patch16_224"),
}
