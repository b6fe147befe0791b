"""The configuration of a run: its fields are the options of ``train`` and the keys of its YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from smooth_attention.core.arms import DEFAULT_THRESHOLD, RIVALS, SPECS, Arm
from smooth_attention.core.errors import ConfigError
from smooth_attention.core.files import expand, write_text
from smooth_attention.core.names import suggest
from smooth_attention.core.networks import Architecture, default_stages
from smooth_attention.data.layouts import LayoutName

__all__ = ["PlainPath", "RunConfig", "checked", "given", "make_config", "read_config", "read_mapping", "write_config"]

PROTOCOL_DEFAULTS: dict[str, dict[str, Any]] = {
    "standard": {
        "network": "unet",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "augment": True,
        "precision": "auto",
    },
    "paper": {
        "network": "paper",
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "clip_norm": None,
        "augment": False,
        "precision": "32",
    },
}


# a path as it is compared and recorded: ``~`` expanded, no slash at its end; other words are left as they are
PlainPath = Annotated[str, AfterValidator(lambda text: str(expand(Path(text))))]
Model = TypeVar("Model", bound=BaseModel)


def given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class RunConfig(BaseModel):
    """One training: dataset x arm x replicate. Defaults stand here and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: PlainPath = Field("shapes", description="'shapes' (generated) or a directory of images and masks.")
    layout: LayoutName | None = Field(None, description="Layout of the directory; recognised if left out.")
    protocol: Literal["standard", "paper"] = Field(
        "standard", description="How data, training and metrics are defined; 'paper' as published, binary tasks only."
    )
    network: Literal[Architecture, "paper"] | None = Field(
        None,
        description="Network of segmentation_models.pytorch, or 'paper', which has no skip connections; left out: "
        "'unet', for protocol 'paper' 'paper'.",
    )
    encoder: str = Field(
        "resnet18", description="Encoder by its name in segmentation_models.pytorch; 'paper' has ResNet-18."
    )
    output_stride: Literal[8, 16, 32] | None = Field(
        None, description="8 or 16 dilates the encoder; left out: as the network has it; not for 'paper' and 'dpt'."
    )
    encoder_weights: PlainPath = Field("imagenet", description="'imagenet', 'none', or a file with a state dict.")
    stages: tuple[int, ...] | None = Field(
        None,
        description="Encoder feature maps that pass the block, -1 the deepest; not for 'paper'; left out: -2, or -1 "
        "where the decoder does not read that.",
    )
    arm: Arm = Field("smooth", description="What stands at the block's place.")
    threshold: float | None = Field(
        None, description=f"Smooth where the roughness exceeds this; lower smooths more; left out: {DEFAULT_THRESHOLD}."
    )
    fraction: float | None = Field(None, gt=0, lt=1, description="Smooth the roughest share of the positions instead.")
    gamma_init: float | None = Field(
        None,
        description=f"Where the block's learned weight starts; left out: 1 for {', '.join(RIVALS)}, else 0 for "
        "'paper', as published, and 0.1 for the others.",
    )
    gamma_rate: float = Field(1.0, gt=0, description="Multiplies the learning rate of the block's learned weight.")
    decay_gamma: bool = Field(False, description="Weight decay for the block's learned weight too.")
    epochs: int = Field(20, ge=1, description="Passes over the training images.")
    batch_size: int = Field(8, ge=1, description="Images per step.")
    image_size: int = Field(224, ge=32, description="Side in pixels of the square that images are resized to.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Left out: 1e-3, the peak of AdamW's schedule; for protocol 'paper' 1e-4, Adam, constant.",
    )
    weight_decay: float | None = Field(None, ge=0, description="Left out: 1e-4; for protocol 'paper' 0.")
    clip_norm: float | None = Field(
        None, gt=0, description="Gradients are scaled down to this norm; left out: 1, for protocol 'paper' never."
    )
    patience: int | None = Field(None, ge=1, description="Stop after so many epochs without a better validation IoU.")
    augment: bool | None = Field(
        None, description="Random flips, affine maps, colour jitter; left out: yes, for protocol 'paper' no."
    )
    train_frac: float = Field(
        1.0, gt=0, le=1, description="Share of the training images that trains, drawn in whole groups."
    )
    seed: int = Field(0, ge=0, description="Moves weights, order and augmentation; never the split.")
    split_seed: int = Field(0, ge=0, description="Moves the split.")
    fold: int = Field(0, ge=0, description="Which fold is the test part.")
    folds: int | None = Field(None, ge=2, description="Number of folds by group; left out: given lists, or 5.")
    precision: Literal["auto", "32", "bf16", "16"] | None = Field(
        None, description="'auto': bf16 where it is native; left out: 'auto', for protocol 'paper' '32'."
    )
    devices: int = Field(1, ge=1, description="Devices to train on.")
    deterministic: bool = Field(False, description="Deterministic kernels only; on one CPU runs are exact anyway.")
    mask_threshold: int | None = Field(
        None, ge=1, le=255, description="Grey value from which a binary mask is foreground, for JPEG and soft masks."
    )
    skip_broken: bool = Field(False, description="Leave out broken and unmatched files instead of stopping.")
    allow_absent_classes: bool = Field(False, description="Train although a class never occurs in the training part.")
    tensorboard: bool = Field(False, description="Also write TensorBoard events.")

    @model_validator(mode="before")
    @classmethod
    def fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Give what is left out the value that protocol, network and arm imply, so that the resolved one is written."""
        filled = {**PROTOCOL_DEFAULTS.get(str(values.get("protocol", "standard")), {}), **given(values)}
        spec = SPECS.get(str(filled.get("arm", "smooth")))  # an unknown arm is refused later
        if filled.get("gamma_init") is None:
            own = 0.0 if filled.get("network") == "paper" else 0.1
            filled["gamma_init"] = own if spec is None or spec.gamma_init is None else spec.gamma_init
        if filled.get("stages") is None and filled.get("network") != "paper":
            filled["stages"] = default_stages(str(filled.get("network")))
        if spec and spec.is_gated and filled.get("threshold") is None and filled.get("fraction") is None:
            filled["threshold"] = DEFAULT_THRESHOLD
        return filled

    @model_validator(mode="after")
    def check_protocol(self) -> RunConfig:
        if self.protocol == "paper":
            wrong = {"augment": self.augment, "patience": self.patience, "folds": self.folds}
            if named := [name for name, value in wrong.items() if value]:
                raise ValueError(f"protocol 'paper' has no {named[0]}, as published; leave it out or use 'standard'")
            if self.precision != "32":
                raise ValueError(f"protocol 'paper' trains in float32, got precision '{self.precision}'; leave it out")
        return self

    @model_validator(mode="after")
    def check_network(self) -> RunConfig:
        if self.network == "paper":
            own = {"encoder": "resnet18", "stages": None, "output_stride": None}
            if named := [name for name, value in own.items() if getattr(self, name) != value]:
                raise ValueError(f"network 'paper' has its own {named[0]}, as published; leave it out or use 'unet'")
        return self

    @model_validator(mode="after")
    def check_together(self) -> RunConfig:
        if self.threshold is not None and self.fraction is not None:
            raise ValueError("threshold and fraction exclude each other; give one of them")
        if self.threshold is not None and self.threshold != self.threshold:
            raise ValueError(f"threshold is NaN; give a number such as {DEFAULT_THRESHOLD}")
        if not SPECS[self.arm].is_gated and (self.threshold is not None or self.fraction is not None):
            raise ValueError(f"arm '{self.arm}' takes neither threshold nor fraction; leave them out")
        if self.image_size % 32:
            nearest = 32 * max(1, round(self.image_size / 32))
            raise ValueError(f"image_size must be a multiple of 32, got {self.image_size}; the nearest is {nearest}")
        if self.fold and self.folds is None:
            raise ValueError(f"fold {self.fold} needs folds; say of how many")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold is 0 to {self.folds - 1} of {self.folds} folds, got {self.fold}")
        return self


def make_config(values: dict[str, Any], *, source: str = "") -> RunConfig:
    """Return a configuration from plain values.

    Raises:
        ConfigError: one sentence naming every field that does not fit, and where the values came from.
    """
    return checked(RunConfig, values, source)


def checked(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Return a model made of plain values.

    Raises:
        ConfigError: one sentence naming every field that does not fit, and where the values came from.
    """
    try:
        return model(**values)
    except ValidationError as error:
        clauses = "; ".join(explain(item, model) for item in error.errors())
        raise ConfigError((f"{source}: " if source else "") + clauses) from error


def explain(item: Any, model: type[BaseModel]) -> str:
    """Return one clause for one pydantic error: what was expected, what came."""
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        for part in item["loc"][:-1]:
            model = model.model_fields[part].annotation  # type: ignore[assignment]
        return f"no option {name!r}; {suggest(item['loc'][-1], model.model_fields)}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "literal_error":
        allowed = re.findall(r"'([^']+)'", item["ctx"]["expected"])
        message += f" ({suggest(item['input'], allowed)})" if allowed else ""
    return f"{name}: {message}, got {item['input']!r}" if name else message


def read_config(path: Path) -> dict[str, Any]:
    """Return the fields that a YAML file sets, checked against :class:`RunConfig`.

    Raises:
        ConfigError: where the file is missing, is no YAML mapping, or a field does not fit.
    """
    values = read_mapping(path, what="configuration", example="epochs: 20")
    make_config(values, source=str(path))
    return values


def read_mapping(path: Path, *, what: str, example: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; an empty file is an empty one.

    Raises:
        ConfigError: where the file is missing or is no YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read the {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not in UTF-8: {error.reason} at byte {error.start}; save it as text in UTF-8"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, expected a mapping such as '{example}'")
    return values


def write_config(path: Path, config: RunConfig) -> None:
    """Write the resolved configuration as YAML that :func:`read_config` reads back."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
