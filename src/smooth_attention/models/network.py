"""What every network of this package has: logits from images, a recipe to rebuild it, what its input looks like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smooth_attention.core.errors import ConfigError, DataError, OptionError
from smooth_attention.core.files import replace_directory

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the network's input, and what its classes are called.

    Attributes:
        image_size: side of the square that images are resized to, in pixels.
        mean: subtracted per channel after scaling to 0-1; RGB.
        std: divided by per channel after that.
        class_names: names of the classes, or None for a binary task (foreground against background).
    """

    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    class_names: tuple[str, ...] | None = None

    def normalise(self, images: Tensor) -> Tensor:
        """Return float images (..., 3, H, W) from uint8 or 0-1 ones."""
        scaled = images / 255 if images.dtype == torch.uint8 else images
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.mean, self.std))
        return (scaled - mean) / std


class Network(nn.Module):
    """Base of the package's networks: ``(B, 3, H, W)`` float images to ``(B, classes, H, W)`` logits.

    Attributes:
        recipe: keyword arguments that build the same network again, with its kind; plain JSON values.
        preprocessing: set by training; the ImageNet convention at 224 px before.
    """

    recipe: dict[str, Any]
    preprocessing: Preprocessing

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        super().__init__()
        self.recipe = dict(recipe)
        self.preprocessing = Preprocessing()

    @property
    def stride(self) -> int:
        """Pixels per cell of the coarsest feature map; image sides are multiples of it in training."""
        return 32

    @property
    def classes(self) -> int:
        return int(self.recipe["classes"])

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, replacing the directory as a whole.

        Args:
            directory: where to write; :func:`smooth_attention.load_model` reads it back.
        """
        from safetensors.torch import save_file

        config = {"schema": SCHEMA, "network": self.recipe, "preprocessing": asdict(self.preprocessing)}
        with replace_directory(Path(directory)) as temporary:
            (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})


def read_saved(directory: Path) -> tuple[dict[str, Any], Preprocessing, dict[str, Tensor]]:
    """Return recipe, preprocessing and tensors of a model directory; nothing is unpickled.

    Raises:
        DataError: where a file is missing, truncated or of another schema.
    """
    from safetensors import SafetensorError  # late: the block alone does not need it
    from safetensors.torch import load_file

    for file in (directory / "config.json", directory / "model.safetensors"):
        if not file.is_file():
            raise DataError(
                f"a model directory holds config.json and model.safetensors, {file} is missing; "
                "give what save_pretrained wrote, or the directory of a finished run"
            )
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(directory / "model.safetensors")
    except (ValueError, SafetensorError) as error:
        raise DataError(f"{directory} holds a damaged model file ({error}); save the model again") from error
    schema = config.get("schema") if isinstance(config, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{directory}/config.json has schema {schema!r}, expected {SCHEMA}; save it again")
    known = {field.name for field in fields(Preprocessing)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in config["preprocessing"].items() if k in known
    }
    return config["network"], Preprocessing(**values), tensors


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file: ``.safetensors``, or ``.pth`` / ``.pt`` read without running its code.

    Raises:
        ConfigError: where the file is missing or is no such file.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise ConfigError(f"encoder weights are 'imagenet', 'none' or a file, got {str(path)!r}, which is no file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(f"{path} is no readable weight file ({type(error).__name__}); give a state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path} holds no state dict of tensors; save one with torch.save(net.state_dict(), path)")
    return state


def check_classes(classes: int) -> int:
    """Return ``classes`` if it is a number of logits a network can have.

    Raises:
        OptionError: below one.
    """
    if classes < 1:
        raise OptionError(f"a network needs at least one class, got {classes=}; 1 is a binary task")
    return classes
