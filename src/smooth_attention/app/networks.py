"""The networks on offer, by name, opened when they are first asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from smooth_attention.core.errors import DataError, OptionError
from smooth_attention.core.records import RECORD, Record, read_record
from smooth_attention.data.cache_root import default_cache
from smooth_attention.data.opening import open_source
from smooth_attention.data.sources import Pair, Source
from smooth_attention.models.network import Network
from smooth_attention.models.smp import create_model
from smooth_attention.models.store import load_model
from smooth_attention.runs.evaluate import open_run
from smooth_attention.runs.picks import iou_by_stem, spread_stems

__all__ = ["Catalogue", "Offer"]

NUM_SAMPLES = 24
MAX_OPEN = 8


@dataclass(frozen=True, eq=False)
class Offer:
    """A network on offer, with the images that come with it.

    Attributes:
        name: in the list.
        net: the network.
        notes: sentences on what it is.
        samples: IoU of its sample images by stem, None where there is none.
        test: stems of all its test images.
        source: of the sample images; None: there are none.
    """

    name: str
    net: Network
    notes: tuple[str, ...]
    samples: Mapping[str, float | None]
    test: Collection[str]
    source: Source | None

    def load(self, stem: str) -> Pair:
        """Return a sample image with its mask.

        Raises:
            DataError: where it is no sample of this network, or can't be read.
        """
        if self.source is None or stem not in self.samples:
            raise DataError(f"{stem!r} is no sample image of {self.name}; choose one of the list")
        return self.source.load(stem)


class Catalogue:
    """The networks of the command line, or an untrained one where it names none.

    Args:
        paths: runs and model directories by the name in the list; None: an untrained network.
    """

    def __init__(self, paths: Mapping[str, Path | None]) -> None:
        self.paths = paths
        self.open_known = lru_cache(MAX_OPEN)(self.open_new)  # a study has dozens of runs

    def open(self, name: str) -> Offer:
        """Return a network by its name in the list.

        Raises:
            OptionError: on another name.
            ConfigError, DataError: where the run is not finished, or files are gone or damaged.
        """
        if name not in self.paths:
            raise OptionError(f"{name!r} is none of the networks here; choose one of the list")
        return self.open_known(name)

    def open_new(self, name: str) -> Offer:
        path = self.paths[name]
        return open_untrained(name) if path is None else open_offer(name, path)


def open_offer(name: str, path: Path) -> Offer:
    """Return the network of a run with its test images, or of a model directory without any.

    Raises:
        ConfigError, DataError: where the run is not finished, or files are gone or damaged.
    """
    if not (path / RECORD).is_file():
        return Offer(name, load_model(path), ("A model without a run: upload an image.",), {}, (), None)
    record = read_record(path)
    try:
        opened = open_run(path, cache=default_cache())
    except DataError as error:
        notes = describe_run(record), f"No sample images: {error}."
        return Offer(name, load_model(path), notes, {}, (), None)
    iou = record.metrics.test.pooled.iou
    scored = "" if iou is None else f" Test IoU {iou:.3f} (pooled, protocol standard, one training)."
    ious = iou_by_stem(record)
    samples = {stem: ious[stem] for stem in spread_stems(record, NUM_SAMPLES)}
    return Offer(name, opened.net, (describe_run(record) + scored,), samples, ious.keys(), opened.source)


def describe_run(record: Record) -> str:
    """Say what a finished run is."""
    config = record.config
    return f"Network {config['network']}, arm {config['arm']}, trained on {record.data.name}."


def open_untrained(name: str) -> Offer:
    """Return a network with random weights, the same every time, and generated images."""
    import torch

    source = open_source("shapes")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = create_model("unet", encoder_weights=None, block_options={"fraction": 0.25, "gamma_init": 0.1})
    note = (
        "This network is untrained, its weights are random: what it shows says nothing about a trained one. "
        "Start the app with a run: smooth-attention app RUN."
    )
    return Offer(name, net.eval(), (note,), dict.fromkeys(source.stems[:NUM_SAMPLES]), source.stems, source)
