"""Recipes of networks, as ``config.json`` holds them."""

PAPER = {"kind": "paper", "classes": 1, "block": "smooth", "block_options": {"scale": 1.0, "threshold": 0.05}}
UNET = {
    "kind": "smp",
    "arch": "unet",
    "encoder_name": "resnet18",
    "classes": 1,
    "block": "smooth",
    "block_options": {"threshold": 0.05},
    "stages": [-2],
    "smp_options": {},
}
