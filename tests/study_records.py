"""Studies whose records are written by hand: chosen IoU of arms x replicates x images, without any training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from record_files import write_values
from smooth_attention.core.arms import DEFAULT_THRESHOLD, ROWS, SPECS
from smooth_attention.core.files import write_json, write_text
from smooth_attention.core.provenance import versions
from smooth_attention.core.records import METRIC_TITLES
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.corruptions import CORRUPTIONS
from smooth_attention.metrics import PUBLISHED
from smooth_attention.runs.config import RunConfig, write_config
from smooth_attention.runs.protocols import PAPER_CONVENTION
from smooth_attention.study.design.arms import TUNED, StudyArm
from smooth_attention.study.design.config import make_study, write_study
from smooth_attention.study.design.plan import RUNS
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import PLAN_FILE, STUDY_FILE, load_study

THRESHOLDS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
ATTENTIVE = [row.name for row in ROWS if row.any_grid]
SMOOTHING = [row.name for row in ROWS if row.is_gated or "threshold" in row.options]
EPOCHS = 4
SWEPT = 1e-3  # how much later epochs move the diagnostics


def make_study_records(
    directory: Path,
    *,
    arms: Mapping[str, float],
    seeds: int = 3,
    folds: int | None = None,
    images: int = 20,
    group_size: int = 1,
    dataset: str | Sequence[str] = "flood",
    run_sd: float = 0.002,
    image_sd: float = 0.05,
    error_sd: float = 0.005,
    protocol: str = "standard",
    layout: str | None = None,
    contrasts: Sequence[Sequence[str]] = (),
    tuned: bool = False,
    measured: bool = True,
    half_data: bool = False,
    **study: Any,
) -> Study:
    """Write a study whose arms differ as said, and return it as it is read back.

    An image's IoU is the arm's mean + an effect of the image, the same for all arms + an effect of the training + a
    rest. Every effect is centred, so that an arm's mean over images and trainings is the one given, to a rounding.

    Args:
        directory: of the study.
        arms: mean IoU per image of each arm by its name in a study, e.g. ``{"none": 0.7, "smooth-0.4": 0.72}``.
        seeds: trainings of each arm on each split.
        folds: None: a fixed split.
        images: test images, over all folds.
        group_size: images of a group.
        dataset: one name or several, all with the same arms.
        run_sd: between trainings.
        image_sd: between images.
        error_sd: of the rest.
        protocol: ``standard`` or ``paper``.
        layout: of the data, as the configuration has it.
        contrasts: pairs of arms; none: each arm against the first.
        tuned: add ``smooth-tuned``, which chooses on validation among the smooth arms.
        measured: with what ``measure_run`` adds; ``corruptions=True`` adds figures on corrupted images.
        half_data: also the positive control, 0.05 worse.
        study: further fields of the configuration, such as ``margin``.
    """
    datasets = (dataset,) if isinstance(dataset, str) else tuple(dataset)
    names = list(arms)
    values: dict[str, Any] = {
        "data": [f"data/{name}" for name in datasets],
        "layout": layout,
        "protocol": protocol,
        "arms": [*names, *([TUNED] if tuned else [])],
        "contrasts": contrasts or [[name, names[0]] for name in names[1:]],
        "network": {"encoder_weights": "none"},
        "replicates": {"folds": folds, "seeds": seeds},
        "training": {"epochs": EPOCHS},
        "half_data": half_data,
        **study,
    }
    config = make_study(values)
    write_study(directory / STUDY_FILE, config)
    write_json(directory / PLAN_FILE, {"datasets": datasets, "requested": config.model_dump(mode="json")})
    means = dict(arms)
    if config.control:
        half, whole = config.control
        means[half.name] = means[whole.name] - 0.05
    for name, data in zip(datasets, config.data, strict=True):
        for arm in config.trained_arms:
            iou = draw_iou(arm.name, means[arm.name], folds or 1, seeds, images, run_sd, image_sd, error_sd)
            for fold in range(folds or 1):
                for seed in range(seeds):
                    run = directory / RUNS / name / arm.name / f"fold-{fold}-seed-{seed}"
                    run_config = config.run_config(data, arm, fold=fold, seed=seed)
                    record = write_run(run, name, arm, run_config, iou[fold, seed], group_size)
                    if measured:
                        add_measures(record, run_config, float(iou[fold, seed].mean()))
                    if config.corruptions:
                        record["metrics"]["test"]["corruptions"] = robustness_of(run_config)
                    write_values(run, record)
    return load_study(config, directory)


def draw_iou(
    arm: str, mean: float, folds: int, seeds: int, images: int, run_sd: float, image_sd: float, error_sd: float
) -> np.ndarray:
    """Return IoU of shape (folds, seeds, images of a fold)."""
    of_images = np.random.default_rng(0).normal(0, image_sd, (folds, 1, images // folds))
    rng = np.random.default_rng(derive_seed(arm))
    of_runs = rng.normal(0, run_sd, (folds, seeds, 1))
    rest = rng.normal(0, error_sd, (folds, seeds, images // folds))
    rest -= rest.mean(-1, keepdims=True)
    values: np.ndarray = mean + of_images - of_images.mean() + of_runs - of_runs.mean() + rest
    return values.clip(0.01, 0.99)


def write_run(
    run: Path, dataset: str, arm: StudyArm, config: RunConfig, iou: np.ndarray, group_size: int
) -> dict[str, Any]:
    """Write what a finished training leaves, without record, model and masks, and return its record."""
    write_config(run / "config.yaml", config)
    epochs = [epoch_line(epoch, config, iou) for epoch in range(EPOCHS)]
    write_text(run / "metrics.jsonl", "\n".join(json.dumps(line) for line in epochs) + "\n")
    is_paper = config.protocol == "paper"
    chosen = EPOCHS - 1 if is_paper else EPOCHS - 2
    first = config.fold * len(iou)
    test = [f"im{first + number:03d}" for number in range(len(iou))]
    total = len(iou) * (config.folds or 1)
    others = [stem for stem in (f"im{number:03d}" for number in range(total)) if stem not in test]
    others = others or [f"train{number:03d}" for number in range(3 * len(iou))]
    val = [] if is_paper else others[: max(1, len(others) // 4)]
    train = others[len(val) :][: max(1, round(config.train_frac * (len(others) - len(val))))]
    metrics: dict[str, Any] = {"test": figures_of(test, iou, group_size) | switched(arm, iou)}
    if is_paper:
        metrics["paper"] = paper_figures(epochs)
    else:
        metrics["val"] = figures_of(val, np.resize(iou, len(val)) + 0.01, group_size)
    return {
        "status": "done",
        "config": config.model_dump(mode="json"),
        "data": {
            "name": dataset,
            "layout": config.layout or "folder",
            "fingerprint": f"{derive_seed(dataset):032x}",
            "class_names": None,
            "split": {"train": train, "val": val, "test": test},
            "warnings": [],
        },
        "replicate": {
            "fold": config.fold,
            "folds": config.folds,
            "seed": config.seed,
            "split_seed": config.split_seed,
        },
        "versions": versions(),
        "device": "cpu",
        "epoch": {
            "chosen": chosen,
            "chosen_by": "the last epoch" if is_paper else "val_iou, pooled, at image size",
            "last": EPOCHS - 1,
        },
        "seconds": {"train": 12.3, "evaluate": 1.5},
        "metrics": metrics,
        "diagnostics": diagnostics_of(config, epochs),
    }


def figures_of(stems: Sequence[str], iou: np.ndarray, group_size: int) -> dict[str, Any]:
    """Return figures as ``StandardMetrics.compute`` does, of images whose masks err in as many pixels either way."""
    dice = 2 * iou / (1 + iou)
    columns = {
        **dict.fromkeys(METRIC_TITLES, dice),
        "iou": iou,
        "accuracy": 0.8 + 0.2 * iou,
        "boundary_iou": 0.6 * iou,
        "hd95_px": 40 * (1 - iou),
    }
    means = {name: float(values.mean()) for name, values in columns.items()}
    return {
        "pooled": {**{name: means[name] + 0.01 for name in METRIC_TITLES}, "ece": 0.05},
        "per_image": {**means, "num_images": len(stems), "num_undefined": dict.fromkeys(columns, 0)},
        "hd95": {"misses": 0, "missed": []},
        "images": [
            {"stem": stem, "group": group_of(stem, group_size)}
            | {name: float(values[row]) for name, values in columns.items()}
            for row, stem in enumerate(stems)
        ],
    }


def group_of(stem: str, group_size: int) -> str:
    return stem if group_size == 1 else f"g{int(stem.lstrip('imtran')) // group_size:03d}"


def switched(arm: StudyArm, iou: np.ndarray) -> dict[str, Any]:
    """Return what changes with the gate off and with the block bypassed, where there is one."""
    name, pooled = arm.settings["arm"], float(iou.mean()) + 0.01
    modes = {"gate_off": name in SMOOTHING, "bypass": name != "none"}
    drops = {"gate_off": (0.004, 0.002), "bypass": (0.02, 0.01)}
    return {m: {"iou": pooled - drops[m][0], "changed_pixels": drops[m][1]} for m, has in modes.items() if has}


def block_figures(config: RunConfig, epoch: int) -> dict[str, float]:
    """Return what a line of ``metrics.jsonl`` says of the block."""
    spec = SPECS[config.arm]
    if spec.block == "none":
        return {}
    figures = {"gamma": 0.1 + SWEPT * epoch, "share_of_output": 0.05 + SWEPT * epoch}
    if config.arm not in ATTENTIVE:
        return figures
    threshold = DEFAULT_THRESHOLD if config.threshold is None else config.threshold
    rule = 0.8 - 0.7 * threshold if spec.is_gated else float(config.arm in SMOOTHING)
    figures["smoothed_fraction.t"] = config.fraction or rule
    figures |= {f"smoothed_fraction.{t}": 0.8 - 0.7 * t for t in THRESHOLDS}
    return figures | {"max_probability": 0.3, "sink_share": 0.02}


def epoch_line(epoch: int, config: RunConfig, iou: np.ndarray) -> dict[str, float]:
    value = float(iou.mean()) - 0.02 * (EPOCHS - 1 - epoch)
    figures = {"val_iou": value}
    if config.protocol == "paper":
        figures = {f"test_{name}": value + 0.01 * place for place, name in enumerate(PUBLISHED)}
    return {
        "epoch": epoch,
        "train_loss": 1.0 / (1 + epoch),
        **figures,
        "learning_rate": config.learning_rate or 1e-3,
        **block_figures(config, epoch),
    }


def diagnostics_of(config: RunConfig, epochs: Sequence[dict[str, float]]) -> dict[str, Any]:
    names = ["gamma", "share_of_output", "max_probability", "sink_share"]
    found: dict[str, Any] = {name: [epoch[name] for epoch in epochs] for name in names if name in epochs[0]}
    if "smoothed_fraction.t" in epochs[0]:
        found["smoothed_fraction"] = {
            str(t): [epoch[f"smoothed_fraction.{t}"] for epoch in epochs] for t in ("t", *THRESHOLDS)
        }
    return found


def paper_figures(epochs: Sequence[dict[str, float]]) -> dict[str, Any]:
    def figures(epoch: dict[str, float]) -> dict[str, float]:
        return {"epoch": epoch["epoch"], **{name: epoch[f"test_{name}"] for name in PUBLISHED}}

    best = max(epochs, key=lambda epoch: epoch["test_iou"])
    ceiling = dict(zip(PUBLISHED, (0.99, 1.01, 0.98, 0.9, 1.0, 0.95), strict=True))
    return {"convention": PAPER_CONVENTION, "best_test": figures(best), "last": figures(epochs[-1]), "ceiling": ceiling}


def add_measures(record: dict[str, Any], config: RunConfig, mean_iou: float) -> None:
    """Add what ``measure_run`` adds; a lower mean IoU goes with rougher masks."""
    train = {"pooled": {"iou": mean_iou + 0.06}, "per_image": {"iou": mean_iou + 0.05}}
    split = record["data"]["split"]
    record["metrics"]["train"] = {**train, "num_images": min(100, len(split["train"]))}
    plain = {"total_variation": 0.5, "autocorrelation": 0.3}
    smoothed = {"total_variation": 0.4, "autocorrelation": 0.5} if config.arm in SMOOTHING else plain
    nudge = 1e-3 * config.seed
    attention = {
        name: {figure: value + nudge for figure, value in figures.items()}
        for name, figures in (("plain", plain), ("smoothed", smoothed))
    }
    record["measures"] = {
        "attention": attention if config.arm in ATTENTIVE else None,
        "masks": {
            "components": 5 * (1 - mean_iou) + 1,
            "perimeter2_area": 100 * (1 - mean_iou),
            "images": len(split["test"]),
        },
    }


def robustness_of(config: RunConfig) -> dict[str, Any]:
    """Return figures as ``measure_robustness`` does; smooth arms keep more."""
    kept = {"smooth": 0.9, "attention": 0.85}.get(config.arm, 0.8) + 0.001 * config.seed
    iou = [0.7 * kept, 0.7 * (kept - 0.1)]
    each = {"iou": iou, "iou_per_image": iou, "retention": [kept, kept - 0.1]}
    rows = {"row_distance": 0.02, "row_distance_plain": 0.03} if config.arm in ATTENTIVE else {}
    return {
        "images": 10,
        "severities": [1, 3],
        "clean": {"iou": 0.7, "iou_per_image": 0.7},
        "corruptions": dict.fromkeys(CORRUPTIONS, each),
        "retention": kept - 0.05,
        "stability": {name: {"mask_agreement": kept + 0.05, **rows} for name in ("noise", "shift")},
    }
