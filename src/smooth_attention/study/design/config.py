"""The configuration of a study: its YAML, the same fields on the command line, presets as functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from smooth_attention.core.arms import ARMS, RIVALS
from smooth_attention.core.errors import ConfigError
from smooth_attention.core.files import write_text
from smooth_attention.data.layouts import LayoutName
from smooth_attention.runs.config import PlainPath, RunConfig, checked, given, read_mapping
from smooth_attention.study.design.arms import TUNED, StudyArm, find_arm, half_of, make_arm, parse_arms

__all__ = [
    "PRESETS",
    "REFERENCES",
    "NetworkConfig",
    "Replicates",
    "StudyConfig",
    "TrainingConfig",
    "budget_hours",
    "lay_over",
    "make_study",
    "read_study",
    "write_study",
]

NETWORK = {"name": "network", **{field: field for field in ("encoder", "output_stride", "encoder_weights", "stages")}}
TRAINING = (
    "epochs",
    "batch_size",
    "image_size",
    "learning_rate",
    "weight_decay",
    "clip_norm",
    "gamma_init",
    "gamma_rate",
    "decay_gamma",
    "patience",
    "augment",
    "precision",
    "deterministic",
    "mask_threshold",
    "skip_broken",
    "allow_absent_classes",
)
REFERENCES = ("none", "blur", "attention")  # what a smooth arm is compared with where nothing is said


def fields_of_run(names: Mapping[str, str]) -> dict[str, Any]:
    """Return fields of a run's configuration by their names here, with their own defaults and descriptions."""
    found = RunConfig.model_fields
    return {name: (found[field].annotation, found[field]) for name, field in names.items()}


STRICT = ConfigDict(frozen=True, extra="forbid")
NetworkConfig = create_model("NetworkConfig", __config__=STRICT, **fields_of_run(NETWORK))
TrainingConfig = create_model("TrainingConfig", __config__=STRICT, **fields_of_run({name: name for name in TRAINING}))


class Replicates(BaseModel):
    """How often everything is trained."""

    model_config = STRICT

    folds: int | None = Field(
        default=None,
        ge=2,
        description="Folds by group, each tested once; left out: one split, the given lists if there are.",
    )
    seeds: int = Field(default=3, ge=1, description="Trainings of each arm on each split.")

    @property
    def count(self) -> int:
        return (self.folds or 1) * self.seeds


class StudyConfig(BaseModel):
    """Datasets x arms x replicates. Defaults stand here and in :class:`RunConfig`, nowhere else."""

    model_config = STRICT

    data: tuple[PlainPath, ...] = Field(("shapes",), min_length=1, description="'shapes' or directories.")
    layout: LayoutName | None = Field(None, description="Layout of the directories; recognised if left out.")
    protocol: Literal["standard", "paper"] = Field("standard", description="How data, training, metrics are defined.")
    network: NetworkConfig = NetworkConfig()
    arms: tuple[str | dict[str, dict[str, Any]], ...] = Field(("none", "smooth"), min_length=1)
    contrasts: tuple[tuple[str, str], ...] = Field(
        (), description="Pairs of arms compared; left out: smooth arms against none, blur and attention."
    )
    replicates: Replicates = Replicates()
    training: TrainingConfig = TrainingConfig()
    margin: float = Field(0.01, gt=0, description="Differences of IoU smaller than this do not matter to me.")
    half_data: bool = Field(True, description="Positive control: the reference arm again on half of the images.")
    corruptions: bool = Field(False, description="Also score corrupted test images.")
    budget: str | None = Field(None, description="Time, e.g. 2h or 90min; replicates are dropped to keep to it.")

    @field_validator("budget")
    @classmethod
    def check_budget(cls, budget: str | None) -> str | None:
        if budget is not None:
            budget_hours(budget)
        return budget

    @model_validator(mode="after")
    def check_arms(self) -> StudyConfig:
        arms = self.parsed_arms
        contrasts = self.parsed_contrasts
        if self.protocol == "paper" and any(arm.name == TUNED for arm in arms):
            raise ValueError(f"protocol 'paper' has no validation images, so {TUNED} can't choose; leave it out")
        if not contrasts:
            raise ValueError(f"nothing to compare in arms {', '.join(arm.name for arm in arms)}; declare contrasts")
        for arm in self.trained_arms:
            self.run_config(self.data[0], arm)
        return self

    @property
    def parsed_arms(self) -> tuple[StudyArm, ...]:
        """The arms by name, without the positive control."""
        return parse_arms(self.arms)

    @property
    def parsed_contrasts(self) -> tuple[tuple[str, str], ...]:
        """Names of (arm, reference), each pair once."""
        arms = self.parsed_arms
        if self.contrasts:
            named = [(find_arm(a, arms).name, find_arm(b, arms).name) for a, b in self.contrasts]
            if same := [a for a, b in named if a == b]:
                raise ConfigError(f"a contrast needs two different arms, got {same[0]!r} twice")
            return tuple(dict.fromkeys(named))
        asked = {arm.name for arm in parse_arms(choice for choice in self.arms if choice != TUNED)}
        smooth = [arm.name for arm in arms if arm.is_smooth and (arm.candidates or arm.name in asked)]
        references = [arm.name for arm in arms if arm.name in REFERENCES]
        return tuple((arm, reference) for arm in smooth for reference in references)

    @property
    def control(self) -> tuple[StudyArm, StudyArm] | None:
        """The arm on half of the images and the arm itself: the reference of the first contrast, if it is trained."""
        if not self.half_data:
            return None
        by_name = {arm.name: arm for arm in self.parsed_arms}
        pairs = [by_name[name] for pair in self.parsed_contrasts for name in reversed(pair)]
        whole = next(arm for arm in pairs if not arm.candidates)
        return half_of(whole), whole

    @property
    def trained_arms(self) -> tuple[StudyArm, ...]:
        """What is trained, the positive control last."""
        trained = [arm for arm in self.parsed_arms if not arm.candidates]
        return (*trained, *([self.control[0]] if self.control else []))

    def run_config(self, data: str, arm: StudyArm, *, fold: int = 0, seed: int = 0) -> RunConfig:
        """Return the configuration of one run of this study."""
        network = {NETWORK[name]: value for name, value in self.network.model_dump().items()}  # type: ignore[attr-defined]
        training = self.training.model_dump()  # type: ignore[attr-defined]
        common = {"data": data, "layout": self.layout, "protocol": self.protocol, **given(network), **given(training)}
        if arm.settings.get("network") == "paper":  # which has its own encoder and place
            common = {key: value for key, value in common.items() if key not in ("encoder", "output_stride", "stages")}
        return RunConfig(**common, **arm.settings, fold=fold, folds=self.replicates.folds, seed=seed)


def budget_hours(text: str) -> float:
    """Return the hours of a text such as ``2h``, ``90min`` or ``1h30min``."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*m(?:in)?)?", text.strip())
    hours = float(found[1] or 0) + float(found[2] or 0) / 60 if found else 0.0
    if hours <= 0:
        raise ConfigError(f"a budget is a time such as 2h, 90min or 1h30min, got {text!r}")
    return hours


def make_study(values: Mapping[str, Any], *, source: str = "") -> StudyConfig:
    """Return a configuration from plain values.

    Raises:
        ConfigError: one sentence naming every field that does not fit, and where the values came from.
    """
    return checked(StudyConfig, values, source)


def read_study(path: Path) -> dict[str, Any]:
    """Return the values that a YAML file sets, not yet checked: a preset or options may complete them.

    Raises:
        ConfigError: where the file is missing or is no YAML mapping.
    """
    return read_mapping(path, what="study", example="data: [flood]")


def write_study(path: Path, config: StudyConfig) -> None:
    """Write the configuration as YAML that :func:`read_study` reads back."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings laid over each other; later ones win, field by field."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def lay_over(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings laid over each other as :func:`merge` does; other arms make earlier contrasts void."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if "arms" in layer:
            merged.pop("contrasts", None)
        merged = merge(merged, layer)
    return merged


def quick() -> dict[str, Any]:
    """Does it look worthwhile: small images, the arms that answer the question, and the tuned one."""
    return {
        "arms": ["none", "blur", "attention", "smooth", TUNED],
        "training": {"image_size": 128},
        "contrasts": [
            ["smooth", "none"],
            ["smooth", "blur"],
            ["smooth", "attention"],
            [TUNED, "none"],
            [TUNED, "attention"],
        ],
    }


def controls() -> dict[str, Any]:
    """Everything else that could have brought the gain; gate off and bypass come with every run."""
    others = [arm for arm in ARMS if arm not in ("smooth", *RIVALS)]
    on_paper = [make_arm(name, {"network": "paper"}).name for name in ("smooth", "none")]
    return {
        "arms": [*others, "smooth", *RIVALS, {"none": {"network": "paper"}}, {"smooth": {"network": "paper"}}],
        "contrasts": [
            *(["smooth", other] for other in [*others, *RIVALS]),
            on_paper,
        ],
        "replicates": {"seeds": 5},
    }


def paper() -> dict[str, Any]:
    """The paper's tables: thresholds 0.1 to 0.9 against 2.0, its protocol and network."""
    thresholds = [round(0.1 * tenth, 1) for tenth in range(1, 10)]
    return {"protocol": "paper", "arms": [*(f"smooth-{t}" for t in thresholds), "attention"]}


def demo() -> dict[str, Any]:
    """Generated scenes, four arms and the control, two replicates, a few minutes: it shows the parts working."""
    return {
        "arms": ["none", "blur", "attention", "smooth-f0.25"],
        "network": {"encoder_weights": "none"},
        "replicates": {"seeds": 2},
        "training": {"image_size": 96, "epochs": 4},
    }


PRESETS = {"quick": quick, "controls": controls, "paper": paper, "demo": demo}
