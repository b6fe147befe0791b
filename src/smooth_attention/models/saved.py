"""A model directory: a model card, and ``config.json`` and ``model.safetensors``, which hold each other's digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smooth_attention.core.errors import ConfigError, DataError
from smooth_attention.core.files import current_umask, plain, replace_directory
from smooth_attention.models.card import write_card
from smooth_attention.models.preprocessing import Preprocessing

__all__ = ["CONFIG", "WEIGHTS", "read_saved", "read_weights", "write_saved"]

SCHEMA = 2
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def write_saved(
    directory: Path,
    recipe: Mapping[str, Any],
    preprocessing: Preprocessing,
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    name: str | None = None,
) -> None:
    """Write a model directory, replacing it as a whole.

    Args:
        directory: where to write.
        recipe: keyword arguments that build the network again.
        preprocessing: of its input.
        facts: what its card says of training, see :class:`Network`.
        tensors: its state dict.
        name: of the model in its card; None: the directory's, for a run's ``model`` the run's.
    """
    from safetensors.torch import save_file

    described = {"network": recipe, "preprocessing": asdict(preprocessing), "facts": plain(facts)}
    with replace_directory(directory) as temporary:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, temporary / WEIGHTS, metadata={"format": "pt", "config_sha256": digest(described)})
        (temporary / WEIGHTS).chmod(0o666 & ~current_umask())  # safetensors keeps it from everyone else
        config = {"schema": SCHEMA, "weights_sha256": digest_file(temporary / WEIGHTS), **described}
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        card = write_card(name or name_of(directory.resolve()), recipe, preprocessing, facts)
        (temporary / CARD).write_text(card, encoding="utf-8")


def read_saved(directory: Path) -> tuple[dict[str, Any], Preprocessing, dict[str, Any], dict[str, Tensor]]:
    """Return recipe, preprocessing, facts and tensors of a model directory; nothing is unpickled.

    Raises:
        DataError: where a file is missing, truncated, changed after it was saved, or of another schema.
    """
    from safetensors import SafetensorError, safe_open  # late: the block alone does not need it

    for file in (directory / CONFIG, directory / WEIGHTS):
        if not file.is_file():
            raise DataError(
                f"a model directory holds {CONFIG} and {WEIGHTS}, {file} is missing; "
                "give what save_pretrained wrote, or the directory of a finished run"
            )
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        with safe_open(directory / WEIGHTS, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (ValueError, SafetensorError) as error:
        raise DataError(f"{directory} holds a damaged model file ({error}); save the model again") from error
    schema = config.get("schema") if isinstance(config, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{directory}/{CONFIG} has schema {schema!r}, expected {SCHEMA}; save it again")
    described = {name: value for name, value in config.items() if name not in ("schema", "weights_sha256")}
    if digest(described) != metadata.get("config_sha256"):
        raise DataError(
            f"{directory}/{CONFIG} is not the one saved with {WEIGHTS}: it was changed; save the model again"
        )
    if digest_file(directory / WEIGHTS) != config.get("weights_sha256"):
        raise DataError(
            f"{directory}/{WEIGHTS} is not the one saved with {CONFIG}: it was changed; save the model again"
        )
    for part in ("network", "preprocessing", "facts"):
        if not isinstance(described.get(part), dict):
            raise DataError(f"{directory}/{CONFIG} has no {part}; save the model again")
    known = {field.name for field in fields(Preprocessing)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in described["preprocessing"].items() if k in known
    }
    return described["network"], Preprocessing(**values), described["facts"], tensors


def name_of(directory: Path) -> str:
    """Return what ``load_model`` takes from the directory that holds it: a run is loaded by its own name."""
    return directory.parent.name if directory.name == "model" else directory.name


def digest(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
