"""Protocol ``paper``: the published training and figures, on real files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from miniatures import WRITERS, save_image
from smooth_attention.core.errors import ConfigError, DataError, DataWarning
from smooth_attention.core.records import Epochs, Record
from smooth_attention.data.files import open_image
from smooth_attention.data.opening import open_source
from smooth_attention.metrics import PUBLISHED, paper_batch_metrics
from smooth_attention.models import load_model
from smooth_attention.runs.config import RunConfig, make_config
from smooth_attention.runs.protocols import paper_split
from smooth_attention.runs.task import PaperTask
from smooth_attention.runs.train import build_network, train

SMALL: dict[str, Any] = {"protocol": "paper", "encoder_weights": "none", "image_size": 64, "epochs": 3}


def soft_mask(path: Path) -> np.ndarray:
    """The mask as the published scripts see it: Pillow's antialiased bilinear resize of the grey file."""
    return np.asarray(open_image(path).convert("L").resize((64, 64), Image.Resampling.BILINEAR), np.float32) / 255


def test_protocol_implies_the_published_settings() -> None:
    config = RunConfig(protocol="paper")
    assert (config.network, config.arm, config.threshold, config.gamma_init) == ("paper", "smooth", 0.4, 0.0)
    assert (config.epochs, config.batch_size, config.image_size) == (20, 8, 224)
    assert (config.learning_rate, config.weight_decay, config.clip_norm) == (1e-4, 0.0, None)
    assert (config.augment, config.precision) == (False, "32")
    assert make_config(config.model_dump()) == config


def test_standard_is_the_default_and_fills_in_its_own() -> None:
    config = RunConfig()
    assert (config.protocol, config.network, config.gamma_init, config.threshold) == ("standard", "unet", 0.1, 0.4)
    assert (config.learning_rate, config.clip_norm, config.augment, config.precision) == (1e-3, 1.0, True, "auto")
    assert RunConfig(network="paper").gamma_init == 0.0
    assert RunConfig(fraction=0.5).threshold is None
    assert RunConfig(arm="none").threshold is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"precision": "bf16"}, "protocol 'paper' trains in float32, got precision 'bf16'"),
        ({"augment": True}, "protocol 'paper' has no augment"),
        ({"patience": 3}, "protocol 'paper' has no patience"),
        ({"folds": 5}, "protocol 'paper' has no folds"),
    ],
    ids=str,
)
def test_what_the_paper_does_not_do_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_config({"protocol": "paper", **values})


def test_last_epochs_figures_are_those_of_the_saved_model_by_the_rules(
    paper_run: tuple[Path, Record], scenes: Path
) -> None:
    output, record = paper_run
    net = load_model(output)
    stems = record.data.split.test
    images = [
        np.asarray(open_image(scenes / "images" / f"{s}.png").resize((64, 64), Image.Resampling.BILINEAR))
        for s in stems
    ]
    with torch.inference_mode():
        logits = net(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255)[:, 0]
    targets = np.stack([soft_mask(scenes / "masks" / f"{stem}.png") for stem in stems])
    expected = paper_batch_metrics((logits.sigmoid() > 0.5).numpy(), targets)
    last = record.metrics.paper.last
    assert last.epoch == 2
    assert {name: getattr(last, name) for name in PUBLISHED} == pytest.approx(
        {name: expected[name] for name in PUBLISHED}, abs=1e-3
    )


def test_ceiling_is_that_of_the_soft_masks(paper_run: tuple[Path, Record], scenes: Path) -> None:
    _, record = paper_run
    targets = np.stack([soft_mask(scenes / "masks" / f"{stem}.png") for stem in record.data.split.test])
    expected = paper_batch_metrics(targets > 0.5, targets)
    assert record.metrics.paper.ceiling.written() == pytest.approx({name: expected[name] for name in PUBLISHED})
    assert record.metrics.paper.ceiling.precision < 1


def test_best_epoch_is_the_best_on_test_and_says_so(paper_run: tuple[Path, Record]) -> None:
    output, record = paper_run
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    best = record.metrics.paper.best_test
    assert best.iou == max(line["test_iou"] for line in lines) == lines[best.epoch]["test_iou"]
    assert record.epoch == Epochs(chosen=2, chosen_by="the last epoch", last=2)


def test_record_holds_both_protocols_and_no_validation(paper_run: tuple[Path, Record]) -> None:
    _, record = paper_run
    assert record.metrics.written().keys() == {"test", "paper"}
    assert {"pooled", "per_image", "gate_off", "bypass"} <= record.metrics.test.written().keys()
    parts = record.data.split
    assert (len(parts.train), parts.val, len(parts.test)) == (10, (), 2)
    assert record.replicate.folds is None


def test_images_are_not_normalised(paper_run: tuple[Path, Record]) -> None:
    preprocessing = load_model(paper_run[0]).preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_loss_is_bce_against_the_soft_mask_and_the_optimiser_plain_adam(scenes: Path) -> None:
    config = RunConfig(data=str(scenes), **SMALL)
    task = PaperTask(build_network(config, open_source(scenes)), config)
    logits, masks = torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.rand(2, 4, 4, dtype=torch.float64)
    probabilities = logits[:, 0].sigmoid()
    by_hand = -(masks * probabilities.log() + (1 - masks) * (1 - probabilities).log()).mean()
    torch.testing.assert_close(task.compute_loss(logits, masks), by_hand)
    optimizer = task.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(1e-4, 0.0)}


def test_split_moves_with_split_seed_alone(scenes: Path) -> None:
    source = open_source(scenes)
    splits = [paper_split(source, RunConfig(protocol="paper", split_seed=seed)).test for seed in range(4)]
    assert len(set(splits)) > 1
    assert paper_split(source, RunConfig(protocol="paper", seed=7)).test == splits[0]


@pytest.mark.filterwarnings("ignore::smooth_attention.core.errors.DataWarning")  # fish leaks, as published
@pytest.mark.parametrize("layout", WRITERS)
def test_every_published_layout_trains_by_both_protocols(layout: str, cache: Path, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path / "data", save_image)
    settings = {"data": str(tmp_path / "data"), "encoder_weights": "none", "image_size": 64, "epochs": 1}
    record = train(RunConfig(protocol="paper", **settings), tmp_path / "paper", cache=cache)
    assert record.data.name == layout
    assert record.metrics.paper.written().keys() == {"convention", "best_test", "last", "ceiling"}
    source = open_source(tmp_path / "data")
    if layout == "flood":
        assert tuple(record.data.split.test) == source.given_splits["test"]
    else:
        assert len(record.data.split.test) == round(0.2 * len(source.stems))
    record = train(
        RunConfig(protocol="standard", network="paper", batch_size=2, **settings), tmp_path / "standard", cache=cache
    )
    assert set(source.given_splits.get("test", ())) <= set(record.data.split.test)


def test_groups_in_both_parts_are_warned_of(write_scenes: Callable[..., Path], cache: Path, tmp_path: Path) -> None:
    data = write_scenes()
    (data / "groups.csv").write_text("stem,group\n" + "".join(f"scene{i:02d},film\n" for i in range(12)))
    with pytest.warns(DataWarning, match="1 groups or images stand in both parts, as in the published split"):
        train(RunConfig(data=str(data), **{**SMALL, "epochs": 1}), tmp_path / "run", cache=cache)


def test_classes_and_too_few_images_are_refused(write_scenes: Callable[..., Path]) -> None:
    config = RunConfig(protocol="paper")
    with pytest.raises(DataError, match="protocol 'paper' is for binary tasks, kinds has 5 classes"):
        paper_split(open_source(write_scenes(8, with_classes=True)), config)
    with pytest.raises(DataError, match="scenes has 4 pairs; a split of 80/20 needs at least 5"):
        paper_split(open_source(write_scenes(4)), config)
