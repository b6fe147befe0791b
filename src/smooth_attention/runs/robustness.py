"""How much of a trained network's IoU corrupted images leave, and how little its masks and its attention move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from smooth_attention.core.errors import DataError, OptionError
from smooth_attention.core.files import plain
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import Robustness
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.cache import CachedPairs
from smooth_attention.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from smooth_attention.data.sources import IGNORED, Source
from smooth_attention.metrics import mean_defined
from smooth_attention.metrics.iou import count_scored, summarise_iou
from smooth_attention.models.blocks import Mode, SmoothAttention, block_mode
from smooth_attention.models.diagnostics import MAX_ROWS, captured_inputs
from smooth_attention.models.inference import batches, infer, prepare, resized_labels
from smooth_attention.models.network import Network
from smooth_attention.models.rows import used_gate, used_rows
from smooth_attention.runs.evaluate import open_run
from smooth_attention.runs.picks import evenly

__all__ = ["measure_robustness", "measure_run_robustness", "spaced_rows"]

Grid = TypeVar("Grid", np.ndarray, Tensor)
Condition = tuple[str, int]  # corruption and severity
Step = tuple[int, int]  # pixels down and right
Rows = tuple[Tensor, Tensor]  # of attention, as the block uses them and before smoothing

CLEAN = ("clean", 0)
NOISE_SD = 2  # grey levels of 255
STEPS: tuple[Step, ...] = ((0, 1), (1, 0), (0, -1), (-1, 0))


def measure_robustness(
    net: Network,
    source: Source,
    stems: Sequence[str],
    pairs: CachedPairs,
    *,
    seed: int = 0,
    severities: Sequence[int] = SEVERITIES,
    corruptions: Sequence[str] = CORRUPTIONS,
    max_images: int = 64,
    mode: Mode = "on",
) -> Robustness:
    """Return the IoU on corrupted images beside that on clean ones, and what small perturbations change.

    Images are altered at the network's size; the corruptions are made for 224 px, see :func:`corrupt`. Logits are
    resized bilinearly to each image's native size and compared with the mask as it is on disk, as in evaluation. How
    images are altered depends on seed and stems alone, so networks of one image size meet the same ones.

    Args:
        net: the network; moved nowhere, put into evaluation mode.
        source: where the native masks come from.
        stems: which pairs.
        pairs: the same pairs at the network's size.
        seed: of what is random in corruptions and perturbations.
        severities: which of 1 to 5.
        corruptions: which of :data:`CORRUPTIONS`.
        max_images: of more stems than this so many are taken, evenly spaced.
        mode: ``"gate_off"`` or ``"bypass"`` switch the blocks for all metrics.

    Returns:
        None where undefined:

        - ``images``: how many were used; ``severities``
        - ``clean``: ``iou``, of counts added over images, and ``iou_per_image``, mean over images; of classes the mean
        - ``corruptions``: by name ``iou``, ``iou_per_image`` and ``retention``, which is pooled IoU over the clean one;
          lists by severity
        - ``retention``: mean over corruptions and severities
        - ``stability``: for ``noise``, Gaussian of 2 grey levels, and ``shift``, 1 px in one of four directions drawn
          per image (the border is repeated, the logits are moved back), ``mask_agreement``: share of counted pixels
          whose label is that for the clean image. With attention also ``row_distance``: largest absolute difference
          between a position's row of attention for the clean and for the perturbed image, mean over at most 1024
          positions, heads, blocks and images; and ``row_distance_plain``, the same of the rows before smoothing

    Raises:
        DataError: without stems.
        OptionError: without severities, corruptions or images, or on an unknown one.
    """
    check_request(stems, severities, corruptions, max_images)
    chosen = evenly(stems, max_images)
    counts: dict[Condition, list[np.ndarray]] = {key: [] for key in (CLEAN, *product(corruptions, severities))}
    stability = {name: StabilitySums() for name in PERTURBATIONS}
    with block_mode(net, mode):
        for stems_now in batches(chosen):
            images = [np.array(pairs.images[pairs.index[stem]]) for stem in stems_now]
            truths = [source.read_labels(stem) for stem in stems_now]
            seeds = [derive_seed(seed, "robustness", stem) for stem in stems_now]
            clean, clean_inputs = look(net, images)
            clean_masks = native_masks(clean, truths)
            counts[CLEAN] += count_masks(clean_masks, truths, source)
            for name, severity in product(corruptions, severities):
                altered = [corrupt(image, name, severity, seed=s) for image, s in zip(images, seeds, strict=True)]
                counts[name, severity] += count_masks(native_masks(look(net, altered)[0], truths), truths, source)
            for name, sums in stability.items():
                masks, inputs = look_perturbed(net, images, truths, seeds, name)
                sums.add_masks(clean_masks, masks, truths)
                sums.add_rows(clean_inputs, inputs)
    scores = {condition: summarise_iou(np.stack(found)) for condition, found in counts.items()}
    found = {
        "images": len(chosen),
        "severities": list(severities),
        **summarise(scores, corruptions, severities),
        "stability": {name: sums.compute() for name, sums in stability.items()},
    }
    return read_part(Robustness, plain(found))


def check_request(stems: Sequence[str], severities: Sequence[int], corruptions: Sequence[str], max_images: int) -> None:
    """Raise unless there is something to measure."""
    if not stems:
        raise DataError("robustness needs at least one image, got none; choose another part of the split")
    if not severities or not corruptions or max_images < 1:
        raise OptionError(
            "robustness needs at least one severity, corruption and image, "
            f"got {severities=}, {corruptions=}, {max_images=}; leave them at their defaults"
        )


def measure_run_robustness(run: Path, *, split: str, mode: Mode, cache: Path) -> Robustness:
    """Return the robustness of a finished run's network on one part of its split.

    Arguments and errors as in :func:`evaluate_run`, but for a mode that has nothing to switch.
    """
    opened = open_run(run, cache=cache)
    stems, seed = getattr(opened.record.data.split, split), opened.config.split_seed
    return measure_robustness(opened.net, opened.source, stems, opened.pairs, seed=seed, mode=mode)


def look(net: Network, images: Sequence[np.ndarray]) -> tuple[Tensor, dict[SmoothAttention, Tensor]]:
    """Return the float32 logits (B, L, S, S) of uint8 images, and what came into each attention that is in use."""
    with captured_inputs(net) as captured:
        logits = infer(net, prepare(net, np.stack(images)))
    used = {block: x for block, x in captured.items() if isinstance(block, SmoothAttention) and block.mode != "bypass"}
    return logits, used


def native_masks(logits: Tensor, truths: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [resized_labels(each, truth.shape) for each, truth in zip(logits, truths, strict=True)]


def count_masks(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray], source: Source) -> list[np.ndarray]:
    return [count_scored(mask, truth, source.class_names) for mask, truth in zip(masks, truths, strict=True)]


def summarise(
    scores: Mapping[Condition, Mapping[str, float]], corruptions: Sequence[str], severities: Sequence[int]
) -> dict[str, Any]:
    clean = scores[CLEAN]
    found = {}
    for name in corruptions:
        by_severity = [scores[name, severity] for severity in severities]
        found[name] = {key: [each[key] for each in by_severity] for key in clean}
        found[name]["retention"] = [
            iou / clean["iou"] if clean["iou"] > 0 else float("nan") for iou in found[name]["iou"]
        ]
    retained = [value for of_name in found.values() for value in of_name["retention"]]
    return {"clean": dict(clean), "corruptions": found, "retention": float(mean_defined(np.array(retained), axis=0))}


def add_noise(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Step]:
    noisy = image + NOISE_SD * rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(noisy).clip(0, 255).astype(np.uint8), (0, 0)


def shift(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Step]:
    step = STEPS[rng.integers(len(STEPS))]
    return move(image.transpose(2, 0, 1), step).transpose(1, 2, 0), step


# each returns the perturbed image and how far its content moved
PERTURBATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, Step]]] = {
    "noise": add_noise,
    "shift": shift,
}


def move(x: Grid, step: Step) -> Grid:
    """Return ``x`` (..., H, W) with its content moved; the border it came from is repeated."""
    rows, columns = (np.clip(np.arange(side) - by, 0, side - 1) for side, by in zip(x.shape[-2:], step, strict=True))
    return x[..., rows[:, None], columns]


def look_perturbed(
    net: Network, images: Sequence[np.ndarray], truths: Sequence[np.ndarray], seeds: Sequence[int], name: str
) -> tuple[list[np.ndarray], dict[SmoothAttention, Tensor]]:
    """Return the native masks of perturbed images, moved back where they moved, and what came into the attention."""
    perturbed = [
        PERTURBATIONS[name](image, np.random.default_rng(derive_seed(seed, name)))
        for image, seed in zip(images, seeds, strict=True)
    ]
    logits, inputs = look(net, [image for image, _ in perturbed])
    back = [move(each, (-down, -right)) for each, (_, (down, right)) in zip(logits, perturbed, strict=True)]
    return native_masks(torch.stack(back), truths), inputs


class StabilitySums:
    """What a perturbation changes in masks and in rows of attention, added up over batches."""

    def __init__(self) -> None:
        self.num_same = self.num_counted = 0
        self.distances: list[tuple[float, float]] = []

    def add_masks(
        self, before: Sequence[np.ndarray], after: Sequence[np.ndarray], truths: Sequence[np.ndarray]
    ) -> None:
        for old, new, truth in zip(before, after, truths, strict=True):
            is_counted = truth != IGNORED
            self.num_same += int((old == new)[is_counted].sum())
            self.num_counted += int(is_counted.sum())

    def add_rows(self, before: Mapping[SmoothAttention, Tensor], after: Mapping[SmoothAttention, Tensor]) -> None:
        for block, x in before.items():
            for old, new in zip(x.split(1), after[block].split(1), strict=True):  # one by one: rows take much memory
                pairs = zip(spaced_rows(block, old), spaced_rows(block, new), strict=True)
                used, plain = ((a - b).abs().amax(-1).mean().item() for a, b in pairs)
                self.distances.append((used, plain))

    def compute(self) -> dict[str, float]:
        shares = {"mask_agreement": self.num_same / self.num_counted if self.num_counted else float("nan")}
        if self.distances:
            shares["row_distance"], shares["row_distance_plain"] = np.mean(self.distances, axis=0).tolist()
        return shares


@torch.inference_mode()
def spaced_rows(block: SmoothAttention, x: Tensor, *, most: int = MAX_ROWS) -> Rows:
    """Return rows of attention (B, M, P, N) at evenly spaced positions, as the block uses them and before smoothing."""
    grid = tuple(x.shape[2:])
    query, key, _ = block.project(x)
    positions = torch.tensor(evenly(range(query.shape[-2]), most), device=x.device)
    return used_rows(block, query, key, positions, grid, used_gate(block, query, key, grid))
