"""The arms of a study: what each changes in the common configuration, and the one name it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smooth_attention.core.arms import ARMS, DEFAULT_THRESHOLD, GATED
from smooth_attention.core.errors import ConfigError
from smooth_attention.core.names import suggest

__all__ = ["TUNED", "StudyArm", "find_arm", "half_of", "make_arm", "parse_arms"]

TUNED = "smooth-tuned"
HALF = "-half"  # what the name of the positive control ends with
KNOWN = (*ARMS, TUNED)
SETTINGS = ("threshold", "fraction", "network", "stages", "gamma_init", "gamma_rate")  # what an arm may set of a run
TUNED_SETTINGS = ("thresholds", "fractions")
TUNED_RULES: tuple[dict[str, float], ...] = ({"threshold": 0.1}, {"threshold": DEFAULT_THRESHOLD}, {"fraction": 0.25})
NAMED_RULE = re.compile(rf"({'|'.join(GATED)})-(f?)(-?[0-9.]+(?:e-?[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class StudyArm:
    """One alternative of a study.

    Attributes:
        name: the same for equal settings, e.g. ``smooth-0.4``, ``smooth-f0.25``; a directory's name too.
        settings: fields of a run's configuration.
        candidates: names of the arms among which ``smooth-tuned`` chooses on validation; empty for what is trained.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()

    @property
    def is_smooth(self) -> bool:
        """Whether its gate is what the study is about."""
        return bool(self.candidates) or self.settings.get("arm") == "smooth"


def parse_arms(choices: Iterable[str | Mapping[str, Any]]) -> tuple[StudyArm, ...]:
    """Return the arms behind names such as ``none``, ``smooth-0.4`` or mappings such as ``{smooth: {fraction: 0.25}}``.

    Equal ones are one. ``smooth-tuned`` chooses among the smooth arms beside it; where fewer than two are, thresholds
    0.1 and 0.4 and fraction 0.25 join as arms of their own.

    Raises:
        ConfigError: on an unknown arm or setting.
    """
    arms: dict[str, StudyArm] = {}
    tuned = False
    for choice in choices:
        name, settings = split_choice(choice)
        if name == TUNED:
            tuned = True
            rules = [{"threshold": t} for t in settings.get("thresholds", ())]
            rules += [{"fraction": f} for f in settings.get("fractions", ())]
            parsed = [make_arm("smooth", rule) for rule in rules]
        else:
            parsed = [make_arm(name, settings)]
        arms.update((arm.name, arm) for arm in parsed)
    if tuned:
        if sum(arm.is_smooth for arm in arms.values()) < 2:
            arms.update((arm.name, arm) for arm in (make_arm("smooth", rule) for rule in TUNED_RULES))
        arms[TUNED] = StudyArm(TUNED, candidates=tuple(name for name, arm in arms.items() if arm.is_smooth))
    return tuple(arms.values())


def split_choice(choice: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return an arm's name and the settings it was given, once both are known."""
    if isinstance(choice, str):
        name, settings = choice, {}
        if found := NAMED_RULE.fullmatch(choice):
            name, rule = found[1], "fraction" if found[2] else "threshold"
            settings = {rule: float(found[3])}
    elif isinstance(choice, Mapping) and len(choice) == 1:
        name, given = next(iter(choice.items()))
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"arm {name!r} needs a mapping of settings such as {{threshold: {DEFAULT_THRESHOLD}}}, got {given!r}"
            )
        settings = dict(given)
    else:
        raise ConfigError(f"an arm is a name, or one name with its settings, got {choice!r}")
    if name not in KNOWN:
        raise ConfigError(f"no arm {name!r}; {suggest(name, KNOWN)}")
    allowed = TUNED_SETTINGS if name == TUNED else SETTINGS
    if unknown := [key for key in settings if key not in allowed]:
        raise ConfigError(f"arm {name!r} has no setting {unknown[0]!r}; known: {', '.join(allowed)}")
    return name, settings


def make_arm(name: str, settings: Mapping[str, Any]) -> StudyArm:
    """Return the arm by its canonical name; a threshold of 1 and more never smooths, which is ``attention``."""
    rule = {key: settings[key] for key in ("threshold", "fraction") if settings.get(key) is not None}
    others = {key: value for key, value in settings.items() if key not in ("threshold", "fraction")}
    if name in GATED and rule.get("threshold", 0.0) >= 1:
        name, rule = "attention", {}
    label = name
    if name in GATED:
        rule = rule or {"threshold": DEFAULT_THRESHOLD}
        label = f"{name}-{''.join(f'f{v:g}' if k == 'fraction' else f'{v:g}' for k, v in rule.items())}"
    label += "".join(f"+{key}={value}" for key, value in sorted(others.items()))
    return StudyArm(re.sub(r"[^\w.+=-]", "_", label), {"arm": name, **rule, **others})


def find_arm(name: str, arms: Iterable[StudyArm]) -> StudyArm:
    """Return the arm that a name means; ``smooth`` is ``smooth-0.4``.

    Raises:
        ConfigError: naming those that are in the study.
    """
    by_name = {arm.name: arm for arm in arms}
    if name not in by_name and name in KNOWN and name != TUNED:
        name = make_arm(name, {}).name
    if name not in by_name:
        raise ConfigError(f"contrasts compare arms of the study, got {name!r}; {suggest(name, by_name)}")
    return by_name[name]


def half_of(arm: StudyArm) -> StudyArm:
    """Return the positive control: the same arm trained on half of the images."""
    return StudyArm(f"{arm.name}{HALF}", {**arm.settings, "train_frac": 0.5})
