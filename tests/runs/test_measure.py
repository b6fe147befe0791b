"""What a study asks of a finished run: against scikit-learn, scipy and the operator's dense form."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn import metrics as oracle

from look_runs import copy_with_model, small_net
from record_files import read_values
from smooth_attention import PaperUNet
from smooth_attention.core.errors import ConfigError, DataError
from smooth_attention.core.records import Record, read_record, write_record
from smooth_attention.data.files import open_image
from smooth_attention.metrics.shape import autocorrelation, perimeter2_area, total_variation
from smooth_attention.models.blocks import SmoothAttention
from smooth_attention.models.controls import RandomSmoothAttention
from smooth_attention.ops import neighbour_mean
from smooth_attention.runs.evaluate import evaluate_run
from smooth_attention.runs.measure import attention_maps, measure_attention, measure_masks, measure_run


def copy_run(run: Path, copy: Path) -> Path:
    """Copy all of a run but its checkpoints, which are large."""
    return shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))


@pytest.fixture
def run(finished_run: tuple[Path, Record], tmp_path: Path) -> Path:
    return copy_run(finished_run[0], tmp_path / "run")


@pytest.fixture(scope="module")
def measured(finished_run: tuple[Path, Record], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copy_run(finished_run[0], tmp_path_factory.mktemp("measured") / "run")
    measure_run(run, cache=cache)
    return run


def test_training_iou_is_that_of_the_whole_evaluation(measured: Path, cache: Path) -> None:
    found = read_values(measured)["metrics"]["train"]
    whole = evaluate_run(measured, split="train", mode="on", cache=cache).metrics
    assert found == {
        "pooled": {"iou": pytest.approx(whole.pooled.iou)},
        "per_image": {"iou": pytest.approx(whole.per_image.iou)},
        "num_images": len(read_record(measured).data.split.train),
    }
    assert whole.pooled.iou != pytest.approx(whole.per_image.iou)


def test_masks_are_those_written(measured: Path) -> None:
    record = read_record(measured)
    components, ratios = [], []
    for stem in record.data.split.test:
        mask = np.asarray(open_image(measured / "predictions" / f"{stem}.png")) > 0
        components.append(ndimage.label(mask, np.ones((3, 3)))[1])
        ratios.append(perimeter2_area(mask))
    assert record.measures.masks.written() == {
        "components": pytest.approx(np.mean(components)),
        "perimeter2_area": pytest.approx(np.nanmean(ratios)),
        "images": len(components),
    }


def test_always_smooth_attention_is_smoother(measured: Path) -> None:
    figures = read_record(measured).measures.attention
    assert figures.smoothed.total_variation < figures.plain.total_variation
    assert figures.smoothed.autocorrelation > figures.plain.autocorrelation


def test_rest_of_the_record_stays(measured: Path, finished_run: tuple[Path, Record]) -> None:
    record, before = read_record(measured), finished_run[1]
    assert (before.measures, before.metrics.train) == (None, None)
    assert None not in (record.measures, record.metrics.train)
    assert replace(record, measures=None, metrics=replace(record.metrics, train=None)) == before


def test_second_call_changes_nothing_and_needs_no_model(measured: Path, cache: Path, tmp_path: Path) -> None:
    run = shutil.copytree(measured, tmp_path / "run")
    shutil.rmtree(run / "model")
    before = (run / "record.json").read_bytes()
    assert measure_run(run, cache=cache) == read_record(measured)
    assert (run / "record.json").read_bytes() == before


def test_two_measurements_are_equal_bytes(measured: Path, run: Path, cache: Path) -> None:
    measure_run(run, cache=cache)
    assert (run / "record.json").read_bytes() == (measured / "record.json").read_bytes()


def test_corruptions_are_added_when_asked_for(measured: Path, cache: Path, tmp_path: Path) -> None:
    run = shutil.copytree(measured, tmp_path / "run")
    assert measure_run(run, cache=cache).metrics.test.corruptions is None
    record = measure_run(run, cache=cache, corruptions=True)
    test = record.metrics.test
    assert test.corruptions is not None
    assert test.corruptions.clean.iou == pytest.approx(test.pooled.iou)
    without = replace(test, corruptions=None)
    assert replace(record, metrics=replace(record.metrics, test=without)) == read_record(measured)


def test_run_without_attention_has_none(look_run: Path, cache: Path, tmp_path: Path) -> None:
    blur = copy_with_model(look_run, tmp_path / "blur", small_net(block="blur"), arm="blur", threshold=None)
    measures = measure_run(blur, cache=cache).measures
    assert measures.attention is None
    assert measures.masks.images > 0


def test_classes_are_measured_one_by_one(class_run: Path, cache: Path, tmp_path: Path) -> None:
    run = copy_run(class_run, tmp_path / "kinds")
    record = measure_run(run, cache=cache)
    whole = evaluate_run(run, split="train", mode="on", cache=cache).metrics
    assert record.metrics.train.pooled.iou == pytest.approx(whole.pooled.iou)
    assert record.metrics.train.per_image.iou == pytest.approx(whole.per_image.iou)
    assert record.measures.masks.components >= 1


def test_mask_figures_are_means_over_classes_then_images(tmp_path: Path) -> None:
    from smooth_attention.core.files import write_bytes
    from smooth_attention.runs.pictures import encode_mask

    labels = np.zeros((2, 12, 12), np.uint8)
    labels[0, 2:4, 2:4] = labels[0, 8:10, 8:10] = 2  # one background, two components of class 2
    for index, each in enumerate(labels):
        write_bytes(tmp_path / f"{index}.png", encode_mask(each, ("ground", "a", "b")))
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    figures = measure_masks(files, ("ground", "a", "b"))
    assert figures.components == pytest.approx(np.mean([np.mean([1, 2]), 1]))
    by_image = [[perimeter2_area(labels[0] == label) for label in (0, 2)], [perimeter2_area(labels[1] == 0)]]
    assert figures.perimeter2_area == pytest.approx(np.mean([np.mean(each) for each in by_image]))


def test_empty_predictions_count_as_no_component(tmp_path: Path) -> None:
    from smooth_attention.core.files import write_bytes
    from smooth_attention.runs.pictures import encode_mask

    write_bytes(tmp_path / "empty.png", encode_mask(np.zeros((5, 5), np.uint8), None))
    write_bytes(tmp_path / "full.png", encode_mask(np.ones((5, 5), np.uint8), None))
    figures = measure_masks([tmp_path / "empty.png", tmp_path / "full.png"], None)
    assert figures.components == 0.5
    assert figures.perimeter2_area == pytest.approx(perimeter2_area(np.ones((5, 5), bool)))


@pytest.mark.parametrize("options", [{"threshold": 0.1}, {}], ids=str)
def test_maps_are_rows_of_the_dense_matrix(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    block = SmoothAttention(8, heads=2, scale=1.0, **options).eval()
    x = torch.randn(2, 8, 5, 6)
    with torch.no_grad():
        query, key, _ = block.project(x)
        dense = (query @ key.mT).softmax(-1)
        gate = gate_by_definition(dense, (5, 6), options)
        smoothed = torch.where(gate[..., None], neighbour_mean(dense, grid=(5, 6)), dense)
        maps = attention_maps(block, x)
    np.testing.assert_allclose(maps["plain"], dense.unflatten(-1, (5, 6)), atol=1e-6)
    np.testing.assert_allclose(maps["smoothed"], smoothed.unflatten(-1, (5, 6)), atol=1e-6)
    if options:
        assert gate.any()
        assert not gate.all()


def gate_by_definition(rows: torch.Tensor, grid: tuple[int, int], options: dict[str, float]) -> torch.Tensor:
    flat = rows.flatten(0, 1)
    around = torch.nn.functional.pad(flat.mT.unflatten(-1, grid), (1, 1, 1, 1), mode="replicate")
    shifts = [around[..., i : i + grid[0], j : j + grid[1]].flatten(2).mT for i in range(3) for j in range(3)]
    roughness = torch.stack([(each - flat).abs().amax(-1) for each in shifts]).amax(0)
    return roughness.view(rows.shape[:-1]) > options.get("threshold", float("inf"))


def test_random_arm_is_measured_where_it_smooths() -> None:
    torch.manual_seed(0)
    block, x = RandomSmoothAttention(8, scale=1.0, fraction=0.25).eval(), torch.randn(1, 8, 6, 6)
    by_rule = SmoothAttention(8, scale=1.0, fraction=0.25).eval()
    by_rule.load_state_dict(block.state_dict())
    moved = []
    for each in (block, by_rule):
        with torch.no_grad():
            maps = attention_maps(each, x)
        moved.append(np.abs(maps["smoothed"] - maps["plain"]).max((-2, -1)) > 1e-7)
        assert moved[-1].sum() == 9
    assert (moved[0] != moved[1]).any()


def test_attention_figures_are_means_over_images_and_positions(run: Path, cache: Path) -> None:
    from smooth_attention.data.cache import cached_pairs
    from smooth_attention.data.opening import open_source
    from smooth_attention.models import load_model
    from smooth_attention.models.diagnostics import captured_inputs

    record = read_record(run)
    source = open_source(record.config["data"])
    pairs = cached_pairs(source, image_size=128, directory=cache)
    net, stems = load_model(run), record.data.split.test
    figures = measure_attention(net, stems, pairs)
    assert figures is not None
    images = torch.from_numpy(np.stack([pairs.images[pairs.index[stem]] for stem in stems])).permute(0, 3, 1, 2)
    with torch.no_grad(), captured_inputs(net) as inputs:
        net(net.preprocessing.normalise(images))
    ((block, x),) = inputs.items()
    assert isinstance(block, SmoothAttention)
    with torch.no_grad():
        maps = attention_maps(block, x)
    for name, values in maps.items():
        assert getattr(figures, name).total_variation == pytest.approx(total_variation(values).mean(), rel=1e-4)
        assert getattr(figures, name).autocorrelation == pytest.approx(np.nanmean(autocorrelation(values)), rel=1e-4)


def test_networks_without_attention_have_no_maps() -> None:
    assert measure_attention(PaperUNet(None, block="blur"), ["never looked up"], None) is None  # type: ignore[arg-type]


def test_unfinished_run_is_refused(run: Path, cache: Path) -> None:
    write_record(run, replace(read_record(run), status="failed"))
    with pytest.raises(ConfigError, match="is failed, not done"):
        measure_run(run, cache=cache)


def test_run_whose_data_changed_is_refused(run: Path, cache: Path) -> None:
    record = read_record(run)
    write_record(run, replace(record, data=replace(record.data, fingerprint="another")))
    with pytest.raises(ConfigError, match="the data of scenes changed since"):
        measure_run(run, cache=cache)


def test_missing_predictions_are_named(run: Path, cache: Path) -> None:
    stem = read_record(run).data.split.test[0]
    (run / "predictions" / f"{stem}.png").unlink()
    with pytest.raises(DataError, match=f"{stem}.png"):
        measure_run(run, cache=cache)
    assert read_record(run).measures is None


def test_pooled_training_iou_is_scikit_learns(measured: Path, scenes: Path, cache: Path, tmp_path: Path) -> None:
    from smooth_attention.models import load_model
    from smooth_attention.runs.predict import predict

    record, net = read_record(measured), load_model(measured)
    stems = record.data.split.train
    predicted = np.concatenate([predict(net, scenes / "images" / f"{stem}.png").ravel() for stem in stems])
    truth = np.concatenate([np.asarray(open_image(scenes / "masks" / f"{stem}.png")).ravel() > 0 for stem in stems])
    assert record.metrics.train.pooled.iou == pytest.approx(oracle.jaccard_score(truth, predicted), abs=1e-3)
