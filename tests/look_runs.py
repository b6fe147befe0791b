"""Small runs to look into: sharp attention, blocks that weigh much, images of which most are not square."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from smooth_attention import create_model, load_model
from smooth_attention.core.records import read_record, write_record
from smooth_attention.models import SmoothAttention
from smooth_attention.models.network import Network
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.train import train

SIZE_PX = 64
HOSTILE = '</script><img src="x" onerror="alert(1)">'  # harmless as a name only where it is escaped


def train_small(data: Path, output: Path, cache: Path, **options: Any) -> Path:
    """Train for an epoch with a block on a grid of 8 x 8, then sharpen the attention of what is saved."""
    small = {"encoder_weights": "none", "image_size": SIZE_PX, "epochs": 1, "batch_size": 4, "stages": (-3,)}
    train(RunConfig(data=str(data), **{"threshold": 0.1, **small, **options}), output, cache=cache)
    shutil.rmtree(output / "checkpoints")  # hundreds of MB
    sharpen(load_model(output)).save_pretrained(output / "model")
    return output


def copy_with_model(run: Path, copy: Path, net: Network, **config: Any) -> Path:
    """Copy a run with another network in it; the record's configuration changes as given."""
    shutil.copytree(run, copy)
    net.preprocessing = load_model(run).preprocessing
    net.save_pretrained(copy / "model")
    record = read_record(run)
    write_record(copy, replace(record, config={**record.config, **config}))
    return copy


def small_net(arch: str = "unet", *, stages: tuple[int, ...] = (-3,), block: str = "smooth", **options: Any) -> Network:
    torch.manual_seed(0)
    net = create_model(
        arch, encoder_name="resnet18", encoder_weights=None, block=block, block_options=options or None, stages=stages
    )
    return sharpen(net.eval())


def sharpen(net: Network) -> Network:
    """Let rows differ between neighbours and the mask depend on them."""
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in net.modules():
            if isinstance(block, SmoothAttention):
                for conv in (block.query, block.key):
                    conv.weight.normal_(std=3 * block.query.in_channels**-0.5, generator=drawn)
                block.gamma.fill_(5.0)
    return net


def write_hostile_scenes(data: Path) -> Path:
    """Rename images, masks and a class of a folder so that every name would be markup."""
    names = (data / "classes.txt").read_text().splitlines()
    (data / "classes.txt").write_text("\n".join([names[0], HOSTILE, *names[2:]]) + "\n")
    for folder in ("images", "masks"):
        for path in sorted((data / folder).iterdir()):
            path.rename(path.with_name(f"<b>{path.stem} & 'co'{path.suffix}"))
    return data
