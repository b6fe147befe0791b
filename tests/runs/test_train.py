"""Training: exact when killed and continued, honest when it fails, nothing overwritten."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import one_hot

from deadlines import LAST_RESORT_S
from record_files import read_values
from smooth_attention.core.errors import (
    ConfigError,
    DamagedError,
    DataError,
    DataWarning,
    OptionError,
    RunError,
    ShapeError,
)
from smooth_attention.core.records import Record, read_record, write_record
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.files import open_image
from smooth_attention.data.opening import open_source
from smooth_attention.models import load_model
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.fit import choose_precision
from smooth_attention.runs.mask_files import predict_files
from smooth_attention.runs.task import PaperTask, SegmentationLoss, StandardTask
from smooth_attention.runs.train import build_network, train

SMALL = {"encoder_weights": "none", "image_size": 32, "batch_size": 4}


def command(data: Path, output: Path, *options: str) -> list[str]:
    fixed = ["--encoder-weights", "none", "--image-size", "32", "--batch-size", "4", "--epochs", "4"]
    return [sys.executable, "-m", "smooth_attention", "train", str(data), "--output", str(output), *fixed, *options]


@pytest.mark.slow
def test_killed_and_continued_equals_undisturbed_bit_for_bit(scenes: Path, cache: Path, tmp_path: Path) -> None:
    """Arm ``random`` draws inside the forward pass too, so every source of randomness takes part."""
    environment = {**os.environ, "SMOOTH_ATTENTION_CACHE": str(cache)}
    options = ["--arm", "random", "--threshold", "0.01"]
    quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL}
    killed = subprocess.Popen(command(scenes, tmp_path / "killed", *options), **quiet)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + LAST_RESORT_S
    while not last.is_file() or torch.load(last, weights_only=True)["epoch"] < 1:
        assert killed.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert read_record(tmp_path / "killed").status == "running"
    for name in ("killed", "undisturbed"):
        subprocess.run(command(scenes, tmp_path / name, *options), check=True, **quiet)

    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("killed", "undisturbed")]
    assert weights[0].keys() == weights[1].keys()
    assert [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])] == []
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("killed", "undisturbed")]
    assert lines[0] == lines[1]
    assert len(lines[0].splitlines()) == 4
    assert read_record(tmp_path / "killed").metrics == read_record(tmp_path / "undisturbed").metrics


def test_record_holds_what_the_design_names(finished_run: tuple[Path, Record]) -> None:
    output, record = finished_run
    assert record == read_record(output)
    assert (read_values(output)["schema"], record.status) == (1, "done")
    assert record.replicate.written() == {"fold": 0, "folds": 5, "seed": 0, "split_seed": 0}
    parts = record.data.split
    assert sorted((*parts.train, *parts.val, *parts.test)) == [f"scene{i:02d}" for i in range(12)]
    test = record.metrics.test
    assert [image.stem for image in test.images] == list(parts.test)
    assert {
        "iou",
        "dice",
        "accuracy",
        "precision",
        "recall",
        "f1",
        "boundary_iou",
        "ece",
    } <= test.pooled.written().keys()
    assert {"iou", "changed_pixels"} == test.gate_off.written().keys() == test.bypass.written().keys()
    diagnostics = record.diagnostics
    assert diagnostics.smoothed_fraction.keys() == {"t", *(f"0.{tenth}" for tenth in range(1, 10))}
    for name in ("gamma", "share_of_output", "max_probability", "sink_share"):
        assert len(getattr(diagnostics, name)) == 2
    assert {"python", "torch", "smooth-attention"} <= record.versions.keys()


def test_run_directory_holds_what_the_design_names(finished_run: tuple[Path, Record]) -> None:
    output, record = finished_run
    assert {path.name for path in output.iterdir()} == {
        "config.yaml", "record.json", "metrics.jsonl", "checkpoints", "model", "predictions"
    }  # fmt: skip
    assert {path.stem for path in (output / "predictions").iterdir()} == set(record.data.split.test)
    for path in (output / "checkpoints").iterdir():
        assert "state_dict" in torch.load(path, weights_only=True)


def test_diagnostics_move_between_epochs_and_gate_changes_the_output(finished_run: tuple[Path, Record]) -> None:
    _, record = finished_run
    diagnostics = record.diagnostics
    assert diagnostics.gamma[0] != diagnostics.gamma[1]
    assert 0 < diagnostics.smoothed_fraction["t"][-1] <= 1
    assert record.metrics.test.gate_off.changed_pixels > 0
    assert record.metrics.test.bypass.changed_pixels > 0


def test_finished_run_is_reported_not_trained_again(finished_run: tuple[Path, Record], cache: Path) -> None:
    output, record = finished_run
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert train(RunConfig(**record.config), output, cache=cache) == record
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_another_configuration_is_refused(finished_run: tuple[Path, Record], cache: Path) -> None:
    output, record = finished_run
    with pytest.raises(ConfigError, match=r"another configuration \(epochs 2 there, 3 now\)"):
        train(RunConfig(**{**record.config, "epochs": 3}), output, cache=cache)
    assert read_record(output) == record


def test_directory_with_other_files_is_refused(scenes: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        train(RunConfig(data=str(scenes), **SMALL), tmp_path, cache=cache)
    with pytest.raises(ConfigError, match="is a file"):
        train(RunConfig(data=str(scenes), **SMALL), tmp_path / "thesis.txt", cache=cache)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_learning_rate_that_explodes_is_named(scenes: Path, cache: Path, tmp_path: Path) -> None:
    options = {**SMALL, "batch_size": 2, "learning_rate": 1e36, "clip_norm": 1e36, "precision": "32"}
    config = RunConfig(data=str(scenes), **options)
    with pytest.raises(RunError, match=r"the loss became (nan|inf) in epoch 0, step \d; .* lower --learning-rate"):
        train(config, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("in_training", "sentence"),
    [(True, "the loss became nan in epoch 1, step 0"), (False, "the logits of epoch 1 are not finite")],
    ids=["loss", "logits"],
)
def test_nan_stops_and_keeps_the_last_good_checkpoint(
    scenes: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_training: bool, sentence: str
) -> None:
    """A planted fault: from the second epoch on the network gives NaN, in training or in validation."""
    calls = []

    def spoil(net: torch.nn.Module, images: Any, logits: torch.Tensor) -> torch.Tensor | None:
        if net.training is in_training:
            calls.append(net)
            return logits * float("nan") if len(calls) > 1 else None
        return None

    def build(config: RunConfig, source: Any) -> Any:
        net = build_network(config, source)
        net.register_forward_hook(spoil)
        return net

    monkeypatch.setattr("smooth_attention.runs.train.build_network", build)
    config = RunConfig(data=str(scenes), epochs=3, **{**SMALL, "batch_size": 16})  # one step an epoch
    with pytest.raises(RunError, match=f"{sentence}; the last good checkpoint is kept"):
        train(config, tmp_path / "run", cache=cache)
    record = read_record(tmp_path / "run")
    assert record.status == "failed"
    assert sentence in record.reason
    assert not (tmp_path / "run" / "model").exists()
    for name in ("best", "last"):
        kept = torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert kept["epoch"] == 0
        assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())
    monkeypatch.undo()
    assert train(config, tmp_path / "run", cache=cache).epoch.last == 2


def test_changed_data_are_refused_when_a_run_continues(
    write_scenes: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    data = write_scenes()
    config = RunConfig(data=str(data), learning_rate=1e36, clip_norm=1e36, precision="32", **SMALL)
    with pytest.raises(RunError):
        train(config, tmp_path / "run", cache=cache)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(data / "images" / "scene00.png")
    with pytest.raises(ConfigError, match="the data of scenes changed since"):
        train(config, tmp_path / "run", cache=cache)


def test_classes_train_with_ignored_pixels_early_stopping_and_events(
    write_scenes: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    data = write_scenes(16, with_classes=True)
    config = RunConfig(data=str(data), epochs=3, patience=1, tensorboard=True, learning_rate=1e-9, **SMALL)
    record = train(config, tmp_path / "run", cache=cache)
    pooled = record.metrics.test.pooled
    assert list(pooled.classes) == ["background", "objects", "tools", "flames", "regions"]
    defined = [figures.iou for figures in pooled.classes.values() if figures.iou is not None]
    assert pooled.iou == pytest.approx(np.mean(defined))
    assert record.epoch.last == 1  # nothing learns at that rate, so patience 1 ends it in the second epoch
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    predicted = open_image(next((tmp_path / "run" / "predictions").iterdir()))
    assert predicted.mode == "P"
    assert np.asarray(predicted).max() < 5


@pytest.mark.parametrize("patience", [None, 1])
def test_killed_while_scoring_continues_without_training_again(
    scenes: Path, cache: Path, tmp_path: Path, patience: int | None
) -> None:
    config = RunConfig(data=str(scenes), epochs=3, patience=patience, learning_rate=1e-9, **SMALL)
    run = tmp_path / "run"
    record = train(config, run, cache=cache)
    assert record.epoch.last == (2 if patience is None else 1)
    written = (run / "metrics.jsonl").stat().st_mtime_ns
    write_record(run, replace(record, status="running"))
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "predictions")
    again = train(config, run, cache=cache)
    assert (again.epoch, again.metrics) == (record.epoch, record.metrics)
    assert (run / "metrics.jsonl").stat().st_mtime_ns == written
    assert again.seconds.train > 0  # what was trained before counts


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_with_a_damaged_last_checkpoint_training_goes_on_from_the_best_to_the_same_end(
    scenes: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three epochs is the best, by a planted IoU; the third is trained again."""
    monkeypatch.setattr(StandardTask, "compute_metrics", lambda task: {"val_iou": (0.2, 0.3, 0.1)[task.current_epoch]})
    config = RunConfig(data=str(scenes), epochs=3, arm="random", threshold=0.01, **SMALL)
    run = tmp_path / "run"
    record = train(config, run, cache=cache)
    assert (record.epoch.chosen, record.epoch.last) == (1, 2)
    lines, weights = (run / "metrics.jsonl").read_text(), load_file(run / "model" / "model.safetensors")
    end = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    write_record(run, replace(record, status="running"))
    cut_in_half(run / "checkpoints" / "last.ckpt")
    with pytest.warns(DataWarning, match=r"last\.ckpt is damaged; training goes on from .*best\.ckpt"):
        again = train(config, run, cache=cache)
    assert (again.epoch, again.metrics, (run / "metrics.jsonl").read_text()) == (record.epoch, record.metrics, lines)
    for before, after in (
        (weights, load_file(run / "model" / "model.safetensors")),
        (end, torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]),
    ):
        assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_without_a_sound_checkpoint_the_way_out_is_said_and_works(scenes: Path, cache: Path, tmp_path: Path) -> None:
    config = RunConfig(data=str(scenes), epochs=1, **SMALL)
    run = tmp_path / "run"
    record = train(config, run, cache=cache)
    write_record(run, replace(record, status="running"))
    for name in ("best", "last"):
        cut_in_half(run / "checkpoints" / f"{name}.ckpt")
    with pytest.raises(DamagedError, match=r"is damaged; delete .*checkpoints to begin the training again"):
        train(config, run, cache=cache)
    failed = read_record(run)
    assert (failed.status, "is damaged; delete" in str(failed.reason)) == ("failed", True)
    shutil.rmtree(run / "checkpoints")
    assert train(config, run, cache=cache).metrics == record.metrics


@pytest.mark.parametrize("place", ["fit", "score_run"])
@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ZeroDivisionError("division\nby zero"), "failed", "ZeroDivisionError: division by zero"),
        (OSError(28, "No space left on device"), "failed", "OSError: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), "running", None),
    ],
    ids=["any error", "system", "interrupted"],
)
def test_a_run_that_dies_says_so_in_its_record(
    scenes: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: BaseException,
    status: str,
    reason: str | None,
) -> None:
    """What is interrupted is continued later, so it stays at work."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"smooth_attention.runs.train.{place}", fail)
    config = RunConfig(data=str(scenes), epochs=1, **SMALL)
    with pytest.raises(type(error)):
        train(config, tmp_path / "run", cache=cache)
    record = read_record(tmp_path / "run")
    assert (record.status, record.reason) == (status, reason)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 1}, "in batches of 1 leave a batch of one image.* use --batch-size 2"),
        ({"devices": 9, "batch_size": 8}, "on 9 devices leave a batch of one image.* or fewer --devices"),
    ],
    ids=str,
)
def test_a_batch_of_one_is_refused_before_anything_is_written(
    scenes: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # more devices than there are is another sentence
    config = RunConfig(data=str(scenes), **{**SMALL, "arm": "none", **options})
    with pytest.raises(ConfigError, match=sentence):
        train(config, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


def test_output_that_cannot_be_written_is_refused_before_the_data_is_opened(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="file is no directory; name another place"):
        train(RunConfig(data="nowhere"), tmp_path / "file" / "run", cache=cache)


def test_absent_class_is_refused_unless_allowed(write_scenes: Callable[..., Path], cache: Path, tmp_path: Path) -> None:
    data = write_scenes(16, with_classes=True)
    with (data / "classes.txt").open("a") as file:
        file.write("unicorn\n")
    config = RunConfig(data=str(data), epochs=1, **SMALL)
    with pytest.raises(DataError, match=r"unicorn never occurs in the .* training masks of kinds"):
        train(config, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()
    allowed = config.model_copy(update={"allow_absent_classes": True})
    classes = train(allowed, tmp_path / "run", cache=cache).metrics.test.pooled.classes
    assert not classes["unicorn"].iou  # undefined, or 0 where one was predicted


@pytest.mark.parametrize("broken", ["truncated", "unmatched"])
def test_broken_file_stops_training_unless_skipped(
    write_scenes: Callable[..., Path], cache: Path, tmp_path: Path, broken: str
) -> None:
    data = write_scenes()
    path = data / "masks" / "scene03.png"
    if broken == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    else:
        path.unlink()
    config = RunConfig(data=str(data), epochs=1, **SMALL)
    with pytest.raises(DataError, match=r"scene03\.png"):
        train(config, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()
    with pytest.warns(DataWarning, match=r"scene03\.png"):
        record = train(config.model_copy(update={"skip_broken": True}), tmp_path / "run", cache=cache)
    assert "scene03" not in {*record.data.split.train, *record.data.split.val, *record.data.split.test}
    assert "scene03.png" in record.data.warnings[0]


def test_arms_share_what_they_have_in_common(scenes: Path) -> None:
    source = open_source(scenes)
    arms = [{"arm": "none"}, {"arm": "blur"}, {"arm": "attention"}, {"arm": "smooth", "threshold": 0.1}]
    states = [build_network(RunConfig(data="x", **SMALL, **arm), source).state_dict() for arm in arms]
    shared = states[-1]
    for name, value in states[0].items():
        assert torch.equal(value, shared[name]), name
    assert all(torch.equal(states[2][name], states[3][name]) for name in states[2])
    other = build_network(RunConfig(data="x", seed=1, **SMALL), source).state_dict()
    assert not torch.equal(other["model.segmentation_head.0.weight"], states[3]["model.segmentation_head.0.weight"])


@pytest.mark.parametrize("classes", [1, 4])
def test_loss_ignores_void_and_is_small_only_when_right(classes: int) -> None:
    generator = torch.Generator().manual_seed(derive_seed("loss", classes))
    mask = torch.randint(0, max(2, classes), (2, 8, 8), generator=generator)
    mask[:, :2] = 255
    loss = SegmentationLoss(classes)
    truth = mask.clamp(max=max(1, classes - 1))
    right = 20.0 * ((2 * truth - 1)[:, None] if classes == 1 else one_hot(truth, classes).movedim(-1, 1))
    disturbed = right.clone()
    disturbed[:, :, :2] = torch.randn(2, classes, 2, 8, generator=generator) * 20
    assert loss(right, mask) < 1e-3
    torch.testing.assert_close(loss(disturbed, mask), loss(right, mask))
    assert loss(-right, mask) > 1


def test_auto_precision_is_one_of_lightnings() -> None:
    assert choose_precision("auto") in ("32-true", "bf16-mixed")
    assert [choose_precision(name) for name in ("32", "bf16", "16")] == ["32-true", "bf16-mixed", "16-mixed"]


def test_metrics_lines_are_json_with_the_epoch(finished_run: tuple[Path, Record]) -> None:
    output, _ = finished_run
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all({"train_loss", "val_iou", "learning_rate", "gamma"} <= line.keys() for line in lines)


@pytest.mark.parametrize(("decay_gamma", "decay"), [(False, 0.0), (True, 0.5)])
def test_gamma_has_its_own_rate_and_decay(scenes: Path, decay_gamma: bool, decay: float) -> None:
    """Adam's first step is as long as the rate, whatever the gradient."""
    config = RunConfig(
        data=str(scenes), **SMALL, gamma_rate=20, weight_decay=0.5, learning_rate=1e-3, decay_gamma=decay_gamma
    )
    net = build_network(config, open_source(str(scenes)))
    task = PaperTask(net, config)
    rest, gammas = task.parameter_groups()
    assert (rest["lr"], rest["weight_decay"]) == (1e-3, 0.5)
    assert (gammas["lr"], gammas["weight_decay"]) == (0.02, decay)
    (gamma,) = gammas["params"]
    assert {id(gamma), *map(id, rest["params"])} == {id(parameter) for parameter in net.parameters()}
    optimizer, before = task.configure_optimizers(), gamma.item()
    net(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    assert abs(gamma.item() - before) == pytest.approx(0.02, rel=1e-3)


def test_network_without_block_has_one_group(scenes: Path) -> None:
    config = RunConfig(data=str(scenes), arm="none", **SMALL)
    assert len(PaperTask(build_network(config, open_source(str(scenes))), config).parameter_groups()) == 1


def test_gamma_rate_reaches_training(scenes: Path, cache: Path, tmp_path: Path) -> None:
    moved = []
    for rate in (1.0, 30.0):
        config = RunConfig(data=str(scenes), **SMALL, epochs=1, gamma_rate=rate, encoder="mobilenet_v2")
        record = train(config, tmp_path / str(rate), cache=cache)
        moved.append(abs(record.diagnostics.gamma[-1] - 0.1))
    assert moved[1] > 5 * moved[0]


def test_grid_of_one_cell_is_refused_before_anything_is_written(scenes: Path, cache: Path, tmp_path: Path) -> None:
    config = RunConfig(data=str(scenes), network="paper", **SMALL)
    with pytest.raises(ShapeError, match=r"images of 32 px leave the block a grid of one cell \(\(512, 1, 1\)\)"):
        train(config, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "switched"),
    [
        ({"network": "deeplabv3plus", "arm": "smooth", "threshold": 0.01, "output_stride": 8}, {"gate_off", "bypass"}),
        ({"network": "fpn", "arm": "se"}, {"bypass"}),
        ({"network": "unet", "arm": "median"}, {"bypass"}),
    ],
    ids=lambda value: value["network"] if isinstance(value, dict) else "",
)
def test_other_networks_and_arms_train_on_classes(
    write_scenes: Callable[..., Path], cache: Path, tmp_path: Path, options: dict[str, Any], switched: set[str]
) -> None:
    """From training over figures, card and reload to masks."""
    data, run = write_scenes(8, with_classes=True), tmp_path / "run"
    settings = {"encoder": "mobilenet_v2", "encoder_weights": "none", "image_size": 64, "batch_size": 4, "epochs": 1}
    config = RunConfig(data=str(data), **settings, **options, allow_absent_classes=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        record = train(config, run, cache=cache)
    test = record.metrics.test
    assert 0 <= test.pooled.iou <= 1
    assert {"gate_off", "bypass"} & test.written().keys() == switched
    net = load_model(run)
    assert net.recipe["arch"] == options["network"]
    assert net.facts["arm"] == options["arm"]
    card = (run / "model" / "README.md").read_text()
    for part in (options["arm"], "kinds", f"| IoU | {test.pooled.iou:.4f} |", "load_model", "licence"):
        assert part in card
    _, (masked,) = predict_files(net, [next((data / "images").iterdir())], tmp_path / "masks")
    assert masked.mask.is_file()
