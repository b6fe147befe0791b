"""What made a result: versions of this package and of what it stands on."""

from __future__ import annotations

import platform
from importlib import metadata

__all__ = ["versions"]

PACKAGES = (
    "smooth-attention",
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "timm",
    "lightning",
    "torchmetrics",
    "numpy",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package a number depends on, "absent" where not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
