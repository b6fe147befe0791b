"""Robustness: figures of corrupted images by scikit-learn, and stability by networks of which it is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torch import Tensor, nn

from smooth_attention import create_model, load_model, ops
from smooth_attention.core.errors import DataError, OptionError
from smooth_attention.core.files import plain, write_json
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import Record, Robustness
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.cache import CachedPairs, cached_pairs
from smooth_attention.data.corruptions import corrupt
from smooth_attention.data.opening import open_source
from smooth_attention.data.sources import Source
from smooth_attention.models import Preprocessing, SmoothAttention
from smooth_attention.models.controls import RandomSmoothAttention
from smooth_attention.models.network import Network
from smooth_attention.runs import robustness
from smooth_attention.runs.evaluate import evaluate_network, evaluate_run
from smooth_attention.runs.picks import evenly
from smooth_attention.runs.robustness import (
    add_noise,
    look,
    look_perturbed,
    measure_robustness,
    measure_run_robustness,
    move,
    native_masks,
    shift,
    spaced_rows,
    summarise,
)

FEW = {"severities": (1, 5), "corruptions": ("contrast", "gaussian_noise")}


class Constant(Network):
    """Sees nothing: one logit everywhere."""

    def __init__(self) -> None:
        super().__init__({"classes": 1})
        self.logit = nn.Parameter(torch.ones(1))

    def decode(self, x: Tensor) -> Tensor:
        return self.logit + 0 * x[:, :1]


class Bright(Constant):
    """Foreground is where a pixel's red is above the mean of all red there is."""

    def decode(self, x: Tensor) -> Tensor:
        return self.logit * x[:, :1] + 1e-4  # no tie at 0


@pytest.fixture(scope="module")
def source(scenes: Path) -> Source:
    return open_source(scenes)


@pytest.fixture(scope="module")
def pairs(source: Source, cache: Path) -> CachedPairs:
    return cached_pairs(source, image_size=128, directory=cache)


@pytest.fixture(scope="module")
def chosen_stems(finished_run: tuple[Path, Record]) -> tuple[str, ...]:
    return finished_run[1].data.split.test


@pytest.fixture(scope="module")
def measured(
    finished_run: tuple[Path, Record], source: Source, pairs: CachedPairs, chosen_stems: tuple[str, ...]
) -> Robustness:
    return measure_robustness(load_model(finished_run[0]), source, chosen_stems, pairs, **FEW)


def test_clean_figures_are_those_of_evaluation(
    finished_run: tuple[Path, Record], cache: Path, measured: Robustness, chosen_stems: tuple[str, ...]
) -> None:
    metrics = evaluate_run(finished_run[0], split="test", mode="on", cache=cache).metrics
    assert metrics.pooled.iou > 0
    assert measured.clean.iou == pytest.approx(metrics.pooled.iou)
    assert measured.clean.iou_per_image == pytest.approx(metrics.per_image.iou)
    assert measured.images == len(chosen_stems)


def test_result_has_the_documented_structure(measured: Robustness, tmp_path: Path) -> None:
    assert list(measured.written()) == ["images", "severities", "clean", "corruptions", "retention", "stability"]
    assert measured.severities == (1, 5)
    assert list(measured.corruptions) == ["contrast", "gaussian_noise"]
    for figures in measured.corruptions.values():
        assert {name: len(values) for name, values in figures.written().items()} == {
            "iou": 2, "iou_per_image": 2, "retention": 2,
        }  # fmt: skip
    assert list(measured.stability) == ["noise", "shift"]
    for figures in measured.stability.values():
        assert list(figures.written()) == ["mask_agreement", "row_distance", "row_distance_plain"]
    write_json(tmp_path / "m.json", measured)
    assert read_part(Robustness, json.loads((tmp_path / "m.json").read_text())) == measured


def test_corrupted_figures_equal_scikit_learn_on_the_corrupted_images(
    finished_run: tuple[Path, Record],
    source: Source,
    pairs: CachedPairs,
    measured: Robustness,
    chosen_stems: tuple[str, ...],
) -> None:
    net = load_model(finished_run[0]).eval()
    predicted, truth = [], []
    for stem in chosen_stems:
        image = np.array(pairs.images[pairs.index[stem]])
        noisy = corrupt(image, "gaussian_noise", 5, seed=derive_seed(0, "robustness", stem))
        with torch.no_grad():
            logits = net(net.preprocessing.normalise(torch.from_numpy(noisy).permute(2, 0, 1)[None]))
        mask = source.load(stem).mask
        native = nn.functional.interpolate(logits, mask.shape, mode="bilinear", align_corners=False)
        predicted.append(native[0, 0].numpy().ravel() >= 0)
        truth.append(mask.ravel())
    iou = oracle.jaccard_score(np.concatenate(truth), np.concatenate(predicted))
    each = [oracle.jaccard_score(*pair) for pair in zip(truth, predicted, strict=True)]
    figures = measured.corruptions["gaussian_noise"]
    assert figures.iou[1] == pytest.approx(iou, abs=1e-3)
    assert figures.iou_per_image[1] == pytest.approx(np.mean(each), abs=1e-3)
    assert figures.iou[1] != measured.clean.iou


def test_retention_is_the_share_of_the_clean_iou(measured: Robustness) -> None:
    found = []
    for figures in measured.corruptions.values():
        expected = [iou / measured.clean.iou for iou in figures.iou]
        assert figures.retention == pytest.approx(expected)
        found += expected
    assert len(found) == 4
    assert measured.retention == pytest.approx(np.mean(found))


@pytest.mark.parametrize("mode", ["gate_off", "bypass"])
def test_modes_switch_every_figure(
    finished_run: tuple[Path, Record],
    cache: Path,
    source: Source,
    pairs: CachedPairs,
    measured: Robustness,
    chosen_stems: tuple[str, ...],
    mode: Any,
) -> None:
    """Without the gate the rows are the plain ones; without the block there are none."""
    net = load_model(finished_run[0])
    switched = measure_robustness(net, source, chosen_stems, pairs, **FEW, mode=mode)
    metrics = evaluate_run(finished_run[0], split="test", mode=mode, cache=cache).metrics
    assert switched.clean.iou == pytest.approx(metrics.pooled.iou)
    for name, figures in switched.stability.items():
        plain = measured.stability[name].row_distance_plain
        if mode == "bypass":
            assert list(figures.written()) == ["mask_agreement"]
        else:
            assert figures.row_distance == figures.row_distance_plain == pytest.approx(plain)
            assert measured.stability[name].row_distance != pytest.approx(plain)
    assert all(module.mode == "on" for module in net.modules() if isinstance(module, SmoothAttention))


def test_row_distances_are_those_of_the_attention_matrices(
    finished_run: tuple[Path, Record], pairs: CachedPairs, measured: Robustness, chosen_stems: tuple[str, ...]
) -> None:
    """The run smooths every position: rows by the softmax of the logits, then the mean of their neighbours."""
    net = load_model(finished_run[0]).eval()
    used, plain = [], []
    for stem in chosen_stems:
        image = np.array(pairs.images[pairs.index[stem]])
        rng = np.random.default_rng(derive_seed(derive_seed(0, "robustness", stem), "noise"))
        both = []
        for each in (image, add_noise(image, rng)[0]):
            _, inputs = look(net, [each])
            ((block, x),) = inputs.items()
            with torch.no_grad():
                query, key, _ = block.project(x)
                scale = query.shape[-1] ** -0.5 if block.scale is None else block.scale
                rows = (scale * query @ key.mT).softmax(-1)
            both.append((ops.neighbour_mean(rows, grid=tuple(x.shape[2:])), rows))
        used.append((both[0][0] - both[1][0]).abs().amax(-1).mean())
        plain.append((both[0][1] - both[1][1]).abs().amax(-1).mean())
    assert measured.stability["noise"].row_distance == pytest.approx(np.mean(used), rel=1e-3)
    assert measured.stability["noise"].row_distance_plain == pytest.approx(np.mean(plain), rel=1e-3)
    assert np.mean(used) > 0


@pytest.mark.parametrize("mode", ["on", "gate_off"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SmoothAttention, {}),
        (SmoothAttention, {"threshold": 0.05, "heads": 2}),
        (SmoothAttention, {"fraction": 0.3, "scale": 1.0}),
        (SmoothAttention, {"threshold": 0.05, "temperature": 0.02, "heads": 2}),
        (SmoothAttention, {"threshold": 0.1, "logits": "cosine"}),
        (RandomSmoothAttention, {"fraction": 0.3}),
    ],
    ids=str,
)
@torch.no_grad()
def test_spaced_rows_are_those_that_the_block_multiplies_its_values_with(
    kind: type[SmoothAttention], options: dict[str, Any], mode: Any
) -> None:
    torch.manual_seed(0)
    block = kind(6, **options).eval()
    block.mode = mode
    x = 3 * torch.randn(2, 6, 7, 5)
    query, key, value = block.project(x)
    used, plain = spaced_rows(block, x)
    torch.testing.assert_close(used @ value, block.attend(query, key, value, (7, 5)))
    assert torch.equal(used, plain) == (mode == "gate_off" or not options)


@pytest.mark.parametrize(("count", "most", "expected"), [(3, 5, [0, 1, 2]), (10, 4, [0, 2, 5, 7]), (6, 3, [0, 2, 4])])
def test_choice_is_evenly_spaced(count: int, most: int, expected: list[int]) -> None:
    assert evenly(range(count), most) == expected


def test_rows_are_taken_at_evenly_spaced_positions() -> None:
    block, x = SmoothAttention(4, threshold=0.1), torch.randn(1, 4, 7, 5)
    for few, every in zip(spaced_rows(block, x, most=10), spaced_rows(block, x), strict=True):
        torch.testing.assert_close(few, every[..., evenly(range(35), 10), :])


def test_a_network_that_sees_nothing_keeps_everything(
    source: Source, pairs: CachedPairs, chosen_stems: tuple[str, ...]
) -> None:
    result = measure_robustness(Constant(), source, chosen_stems, pairs, **FEW)
    assert result.clean.iou > 0
    assert result.retention == 1
    assert plain(result.stability) == {"noise": {"mask_agreement": 1.0}, "shift": {"mask_agreement": 1.0}}


def test_a_perturbation_that_changes_nothing_is_survived_in_full(
    finished_run: tuple[Path, Record],
    source: Source,
    pairs: CachedPairs,
    chosen_stems: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(robustness, "PERTURBATIONS", {"none": lambda image, rng: (image, (0, 0))})
    result = measure_robustness(load_model(finished_run[0]), source, chosen_stems, pairs, **FEW)
    assert plain(result.stability) == {"none": {"mask_agreement": 1.0, "row_distance": 0.0, "row_distance_plain": 0.0}}


def test_mask_agreement_leaves_out_ignored_pixels() -> None:
    figures = robustness.StabilitySums()
    before, after = np.array([[0, 1, 1, 0, 1]]), np.array([[1, 1, 0, 0, 1]])
    figures.add_masks([before, before], [after, before], [np.array([[255, 0, 1, 1, 0]]), np.array([[0, 0, 1, 1, 1]])])
    assert figures.compute() == {"mask_agreement": pytest.approx(8 / 9)}
    assert np.isnan(robustness.StabilitySums().compute()["mask_agreement"])


def test_masks_of_shifted_images_are_moved_back(pairs: CachedPairs) -> None:
    """A network that judges each pixel for itself agrees with itself but at the border that left the image."""
    images = [np.array(image) for image in pairs.images[:4]]
    truths = [image[..., 0] for image in images]
    net = Bright().eval()
    clean = native_masks(look(net, images)[0], truths)
    shifted, _ = look_perturbed(net, images, truths, [2, 3, 5, 7], "shift")
    for before, after in zip(clean, shifted, strict=True):
        assert 0 < before.mean() < 1
        np.testing.assert_array_equal(after[1:-1, 1:-1], before[1:-1, 1:-1])


def test_shift_moves_by_one_pixel_in_all_four_directions() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    found = set()
    for seed in range(20):
        shifted, (down, right) = shift(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(shifted[1:-1, 1:-1], np.roll(image, (down, right), axis=(0, 1))[1:-1, 1:-1])
        assert shifted.shape == image.shape
        found.add((down, right))
    assert found == {(0, 1), (1, 0), (0, -1), (-1, 0)}


def test_move_repeats_the_border_it_came_from() -> None:
    x = torch.arange(6).reshape(1, 2, 3)
    assert move(x, (0, 1)).tolist() == [[[0, 0, 1], [3, 3, 4]]]
    assert move(x.numpy(), (-1, 0)).tolist() == [[[3, 4, 5], [3, 4, 5]]]


def test_noise_has_a_deviation_of_two_grey_levels() -> None:
    image = np.full((200, 200, 3), 128, np.uint8)
    noisy, step = add_noise(image, np.random.default_rng(0))
    assert step == (0, 0)
    assert noisy.dtype == np.uint8
    assert (noisy.astype(float) - 128).std() == pytest.approx(2, rel=0.03)  # rounding adds a variance of 1/12
    assert add_noise(np.zeros_like(image), np.random.default_rng(0))[0].max() < 20


class Listening(Constant):
    """Remembers the images that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def decode(self, x: Tensor) -> Tensor:
        self.seen += [x.clone()]
        return super().decode(x)


def test_of_many_images_evenly_spaced_ones_are_used(source: Source, pairs: CachedPairs) -> None:
    net = Listening()
    result = measure_robustness(net, source, source.stems, pairs, **FEW, max_images=3)
    assert result.images == 3
    wanted = torch.from_numpy(np.array(pairs.images[[0, 4, 8]])).permute(0, 3, 1, 2)
    torch.testing.assert_close(net.seen[0], net.preprocessing.normalise(wanted))
    assert len(net.seen) == 1 + 4 + 2  # one batch clean, under each corruption, under each perturbation


def test_images_are_altered_by_seed_and_stem_alone(source: Source, pairs: CachedPairs) -> None:
    def altered(stems: list[str], **options: Any) -> Tensor:
        net = Listening()
        measure_robustness(net, source, stems, pairs, severities=[1], corruptions=["shot_noise"], **options)
        return torch.stack([batch[stems.index("scene03")] for batch in net.seen])

    alone = altered(["scene03"])
    assert torch.equal(altered(["scene07", "scene03"]), alone)
    others = altered(["scene03"], seed=1)
    assert torch.equal(others[0], alone[0])
    assert not torch.equal(others[1], alone[1])
    assert not torch.equal(others[2], alone[2])


def test_of_classes_the_figures_are_means_over_classes(write_scenes: Callable[..., Path], cache: Path) -> None:
    source = open_source(write_scenes(4, with_classes=True))
    assert source.class_names is not None
    torch.manual_seed(0)
    net = create_model("unet", encoder_weights=None, classes=5, block="none")
    net.preprocessing = Preprocessing(32, class_names=source.class_names)
    pairs = cached_pairs(source, image_size=32, directory=cache)
    result = measure_robustness(net, source, source.stems, pairs, severities=[3], corruptions=["fog"])
    metrics = evaluate_network(net, source, source.stems, pairs)
    assert result.clean.iou == pytest.approx(metrics.pooled.iou)
    assert result.clean.iou_per_image == pytest.approx(metrics.per_image.iou)
    assert list(result.stability["noise"].written()) == ["mask_agreement"]


def test_of_an_iou_of_zero_nothing_can_be_retained() -> None:
    half = {"iou": 0.5, "iou_per_image": 0.5}
    for clean in (0.0, float("nan")):
        scores = {("clean", 0): {"iou": clean, "iou_per_image": 0.5}, ("fog", 2): half}
        figures = summarise(scores, ["fog"], [2])
        assert np.isnan([figures["retention"], *figures["corruptions"]["fog"]["retention"]]).all()
        assert figures["corruptions"]["fog"]["iou"] == [0.5]


def test_a_run_is_measured_on_the_part_asked_for(
    finished_run: tuple[Path, Record],
    cache: Path,
    measured: Robustness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure_few(*args: Any, **options: Any) -> Robustness:
        return measure_robustness(*args, **options, **FEW)

    monkeypatch.setattr(robustness, "measure_robustness", measure_few)
    run, record = finished_run
    assert measure_run_robustness(run, split="test", mode="on", cache=cache) == measured
    other = measure_run_robustness(run, split="val", mode="bypass", cache=cache)
    assert other.images == len(record.data.split.val)
    assert other.clean != measured.clean
    assert list(other.stability["shift"].written()) == ["mask_agreement"]


def test_requests_without_images_severities_or_corruptions_are_refused(source: Source, pairs: CachedPairs) -> None:
    with pytest.raises(DataError, match="robustness needs at least one image, got none; choose another part"):
        measure_robustness(Constant(), source, [], pairs)
    for options in ({"severities": ()}, {"corruptions": ()}, {"max_images": 0}):
        with pytest.raises(OptionError, match="robustness needs at least one severity, corruption and image, got "):
            measure_robustness(Constant(), source, source.stems, pairs, **options)
    with pytest.raises(OptionError, match="a corruption is one of"):
        measure_robustness(Constant(), source, source.stems, pairs, corruptions=["rain"])
