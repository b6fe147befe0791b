"""What is known of a training before its first step, and the checkpoints that it goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DistributedSampler

from smooth_attention.core.errors import ConfigError, DamagedError
from smooth_attention.models import PaperUNet, create_model
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.fit import (
    check_batches,
    check_devices,
    device_share,
    latest_checkpoint,
    make_loader,
    read_checkpoint,
    smallest_batch,
)


def config_of(**options: Any) -> RunConfig:
    return RunConfig(arm="none", encoder_weights="none", **{"image_size": 32, **options})


@pytest.mark.parametrize("drops_last", [True, False])
@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_images", [1, 2, 3, 7, 8, 9, 17])
def test_smallest_batch_is_that_of_the_loader(num_images: int, batch_size: int, devices: int, drops_last: bool) -> None:
    """Lightning shares the order of a loader among devices by torch's sampler; none of them is left without a batch."""
    config = config_of(batch_size=batch_size, devices=devices)
    images: Any = range(num_images)
    loader = make_loader(images, config, drop_last=drops_last)
    for rank in range(devices):
        share = DistributedSampler(images, num_replicas=devices, rank=rank)
        sizes = [len(batch) for batch in BatchSampler(share, batch_size, loader.drop_last)]
        assert min(sizes) == smallest_batch(device_share(num_images, config), batch_size, drops_last)


@pytest.mark.parametrize(
    ("options", "num_images", "drops_last", "sentence"),
    [
        ({"batch_size": 1}, 9, True, "9 training images in batches of 1 leave a batch of one image.*--batch-size 2"),
        ({"batch_size": 8}, 1, True, "1 training images in batches of 8 leave .*; use more images"),
        ({"batch_size": 8}, 9, False, "9 training images in batches of 8 leave .*; use --batch-size 7"),
        ({"batch_size": 8, "devices": 2}, 17, False, "in batches of 8 on 2 devices leave .*; use --batch-size 7"),
        ({"batch_size": 8, "devices": 2}, 2, True, "on 2 devices leave .*; use more images or fewer --devices"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_batch_of_one_that_cannot_be_normalised_is_refused(
    options: dict[str, Any], num_images: int, drops_last: bool, sentence: str
) -> None:
    """Images of 32 px are one value a channel at stride 32: torch's own refusal is the oracle."""
    net = create_model("unet", encoder_name="resnet18", encoder_weights=None, block="none")
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        net.train()(torch.zeros(1, 3, 32, 32))
    modes = {name: module.training for name, module in net.named_modules()}
    statistics = {name: value.clone() for name, value in net.named_buffers()}
    with pytest.raises(ConfigError, match=sentence) as caught:
        check_batches(net, config_of(**options), num_images, drops_last=drops_last)
    assert r"a map of one value ((1, 512, 1, 1))" in str(caught.value)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert all(torch.equal(value, statistics[name]) for name, value in net.named_buffers())
    advised = sentence.rpartition("--batch-size ")[2]
    if advised.isdigit():
        check_batches(net, config_of(**options | {"batch_size": int(advised)}), num_images, drops_last=drops_last)


@pytest.mark.parametrize(
    ("options", "num_images", "drops_last"),
    [
        ({"batch_size": 8}, 9, True),
        ({"batch_size": 8}, 10, False),
        ({"batch_size": 1, "image_size": 64}, 9, False),
        ({"batch_size": 8, "devices": 2}, 9, True),
    ],
    ids=str,
)
def test_batches_that_train_are_let_through(options: dict[str, Any], num_images: int, drops_last: bool) -> None:
    net = create_model("unet", encoder_name="resnet18", encoder_weights=None, block="none")
    check_batches(net, config_of(**options), num_images, drops_last=drops_last)


def test_a_network_that_pools_the_whole_image_is_refused_at_any_size() -> None:
    net = create_model("deeplabv3", encoder_name="resnet18", encoder_weights=None, block="none")
    config = config_of(batch_size=1, network="deeplabv3", image_size=128)
    with pytest.raises(ConfigError, match=r"a map of one value \(\(1, 256, 1, 1\)\).*; use --batch-size 2"):
        check_batches(net, config, 9, drops_last=True)


def test_the_papers_network_takes_single_images_at_its_size() -> None:
    net = PaperUNet(encoder_weights=None)
    check_batches(net, config_of(batch_size=8, network="paper", image_size=64), 9, drops_last=False)


def test_more_devices_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_devices(config_of(devices=2))
    with pytest.raises(ConfigError, match="this machine has 2 GPUs, got --devices 3"):
        check_devices(config_of(devices=3))


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99], ids=lambda kept: f"first {kept}")
def test_a_truncated_checkpoint_is_named_with_the_way_out(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    torch.save({"epoch": 3, "state_dict": {"weight": torch.arange(1000.0)}}, path)
    assert read_checkpoint(path)["epoch"] == 3
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    for read in (read_checkpoint, lambda path: latest_checkpoint(path.parent)):
        with pytest.raises(
            DamagedError, match=r"last\.ckpt is damaged; delete .*checkpoints to begin the training again"
        ):
            read(path)


def test_training_begins_anew_without_a_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "checkpoints") is None
