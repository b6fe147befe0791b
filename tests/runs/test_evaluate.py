"""Evaluation: the record's figures are those of the masks on disk, by scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from smooth_attention.core.errors import ConfigError
from smooth_attention.core.records import Record, write_record
from smooth_attention.data.files import open_image
from smooth_attention.data.folder import FolderSource
from smooth_attention.models import block_mode, load_model
from smooth_attention.runs.evaluate import evaluate_network, evaluate_run, open_run, other_modes
from smooth_attention.runs.measure import score_iou
from smooth_attention.runs.predict import predict
from smooth_attention.runs.robustness import measure_robustness


def masks_of(run: Path, data: Path, stems: list[str]) -> tuple[np.ndarray, np.ndarray]:
    predicted = [np.asarray(open_image(run / "predictions" / f"{stem}.png")).ravel() for stem in stems]
    truth = [np.asarray(open_image(data / "masks" / f"{stem}.png")).ravel() for stem in stems]
    return np.concatenate(predicted) > 0, np.concatenate(truth) > 0


def test_pooled_figures_equal_scikit_learn_on_the_written_masks(
    finished_run: tuple[Path, Record], scenes: Path
) -> None:
    run, record = finished_run
    predicted, truth = masks_of(run, scenes, record.data.split.test)
    pooled = record.metrics.test.pooled
    assert pooled.iou == pytest.approx(oracle.jaccard_score(truth, predicted))
    assert pooled.dice == pytest.approx(oracle.f1_score(truth, predicted))
    assert pooled.accuracy == pytest.approx(oracle.accuracy_score(truth, predicted))
    assert pooled.precision == pytest.approx(oracle.precision_score(truth, predicted))
    assert pooled.recall == pytest.approx(oracle.recall_score(truth, predicted))


def test_evaluate_again_gives_the_records_figures(finished_run: tuple[Path, Record], cache: Path) -> None:
    run, record = finished_run
    again = evaluate_run(run, split="test", mode="on", cache=cache).metrics
    assert again.pooled.iou == pytest.approx(record.metrics.test.pooled.iou, abs=1e-6)
    assert again.gate_off.written() == pytest.approx(record.metrics.test.gate_off.written(), abs=1e-6)


@pytest.mark.parametrize("mode", ["gate_off", "bypass"])
def test_switched_figures_are_those_of_the_switched_network(
    finished_run: tuple[Path, Record], scenes: Path, cache: Path, mode: Any
) -> None:
    run, record = finished_run
    stems = record.data.split.test
    net = load_model(run)
    with block_mode(net, mode):
        switched = np.concatenate([predict(net, scenes / "images" / f"{stem}.png").ravel() for stem in stems])
    before, truth = masks_of(run, scenes, stems)
    said = getattr(record.metrics.test, mode)
    assert said.changed_pixels == pytest.approx(np.mean(switched != before), abs=1e-3)
    assert said.iou == pytest.approx(oracle.jaccard_score(truth, switched), abs=1e-3)
    again = evaluate_run(run, split="test", mode=mode, cache=cache).metrics
    assert again.pooled.iou == pytest.approx(said.iou)


def test_other_parts_of_the_split_can_be_evaluated(finished_run: tuple[Path, Record], cache: Path) -> None:
    run, record = finished_run
    images = evaluate_run(run, split="val", mode="on", cache=cache).metrics.images
    assert [image.stem for image in images] == list(record.data.split.val)


def test_unfinished_run_is_refused(finished_run: tuple[Path, Record], cache: Path, tmp_path: Path) -> None:
    _, record = finished_run
    write_record(tmp_path, replace(record, status="running"))
    with pytest.raises(ConfigError, match="is running, not done"):
        evaluate_run(tmp_path, split="test", mode="on", cache=cache)


def test_run_whose_data_changed_is_refused(finished_run: tuple[Path, Record], cache: Path, tmp_path: Path) -> None:
    _, record = finished_run
    write_record(tmp_path, replace(record, data=replace(record.data, fingerprint="another")))
    with pytest.raises(ConfigError, match="the data of scenes changed since"):
        evaluate_run(tmp_path, split="test", mode="on", cache=cache)


def test_modes_are_what_can_be_switched() -> None:
    from smooth_attention import PaperUNet

    def modes(block: str, **options: Any) -> list[str]:
        return other_modes(PaperUNet(None, threshold=None, block=block, block_options=options))

    assert modes("none") == []
    assert modes("blur") == ["bypass"]
    assert modes("smooth") == ["bypass"]
    assert modes("smooth", threshold=0.4) == modes("random", fraction=0.5) == ["gate_off", "bypass"]


def test_gate_off_is_refused_where_there_is_no_gate(
    finished_run: tuple[Path, Record], cache: Path, tmp_path: Path
) -> None:
    from smooth_attention import PaperUNet

    run, record = finished_run
    write_record(tmp_path, replace(record, config={**record.config, "arm": "none", "threshold": None}))
    PaperUNet(None, block="none").save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="arm 'none', which has no gate that smooths to switch off"):
        evaluate_run(tmp_path, split="test", mode="gate_off", cache=cache)
    with pytest.raises(ConfigError, match="has no block to switch off"):
        evaluate_run(tmp_path, split="test", mode="bypass", cache=cache)
    assert run.is_dir()


def test_scoring_decodes_no_image(
    finished_run: tuple[Path, Record], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, record = finished_run
    opened = open_run(run, cache=cache)
    stems = record.data.split.test[:2]
    monkeypatch.setattr(FolderSource, "load", None)
    assert evaluate_network(opened.net, opened.source, stems, opened.pairs).pooled.iou > 0
    assert score_iou(opened.net, opened.source, stems, opened.pairs).num_images == 2
    once = {"severities": [1], "corruptions": ["brightness"]}
    assert measure_robustness(opened.net, opened.source, stems, opened.pairs, **once).images == 2
