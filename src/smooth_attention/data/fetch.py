"""Fetching of the published datasets: licence first, downloads that go on where they broke off, whole trees or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from smooth_attention.core.errors import DataError, OptionError, RunError
from smooth_attention.core.files import replace_directory
from smooth_attention.data.archives import is_archive, unpack
from smooth_attention.data.layouts import PUBLISHED

__all__ = ["DATASETS", "fetch_dataset"]

TIMEOUT_S = 30
CHUNK = 1 << 16  # bytes; what is lost at most when a connection breaks
BEGUN = ".part"


@dataclass(frozen=True, slots=True)
class Download:
    """One archive.

    Attributes:
        base_url: of the place it lies at.
        name: of the file there.
        checksum: as ``algorithm:hexadecimal``, or None where none is known.
        num_bytes: its size, or None where it is not known.
    """

    base_url: str
    name: str
    checksum: str | None = None
    num_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published dataset.

    Attributes:
        title: its own name.
        pairs: how many images with masks it holds, in words.
        page: where its authors describe it.
        licence: what it may be used for.
        downloads: its archives, where they lie on a plain server.
        handle: ``owner/name`` on Kaggle, where it lies there.
    """

    title: str
    pairs: str
    page: str
    licence: str
    downloads: tuple[Download, ...] = ()
    handle: str | None = None


def on_kaggle(title: str, pairs: str, handle: str) -> Dataset:
    page = f"https://www.kaggle.com/datasets/{handle}"
    return Dataset(title, pairs, page, f"as stated on its page, {page}", handle=handle)


CALTECH = "https://data.caltech.edu/records"
SIMULA = "https://datasets.simula.no"
DATASETS: dict[str, Dataset] = {
    "birds": Dataset(
        "CUB-200-2011",
        "11,788",
        f"{CALTECH}/65de6-vp158",
        "non-commercial research only",
        (
            Download(
                f"{CALTECH}/65de6-vp158/files",
                "CUB_200_2011.tgz",
                "md5:97eceeb196236b17998738112f37df78",
                1_150_585_339,
            ),
            Download(
                f"{CALTECH}/w9d68-gec53/files",
                "segmentations.tgz",
                "sha256:dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
                39_272_883,
            ),
        ),
    ),
    "fish": on_kaggle("A Large Scale Fish Dataset", "9,000", "crowww/a-large-scale-fish-dataset"),
    "fire": on_kaggle("Fire Segmentation Image Dataset", "about 13,000", "diversisai/fire-segmentation-image-dataset"),
    "instruments": Dataset(
        "Kvasir-Instrument",
        "590",
        f"{SIMULA}/kvasir-instrument/",
        "research and education only",
        (Download(f"{SIMULA}/downloads", "kvasir-instrument.zip"),),
    ),
    "flood": on_kaggle(
        "Flood Semantic Segmentation Dataset", "663", "lihuayang111265/flood-semantic-segmentation-dataset"
    ),
}


def fetch_dataset(
    name: str,
    root: Path,
    *,
    accept_licence: bool,
    base_url: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Return the directory of a published dataset, ``root/name``, fetched unless it is there.

    Archives are kept in ``root/name-archives``; one that lies there already, also placed by hand, is not downloaded.
    A download that broke off goes on where it stopped; the tree appears whole or not at all.

    Args:
        name: one of :data:`DATASETS`.
        root: where datasets live.
        accept_licence: that its licence is accepted; without it nothing is asked of any server.
        base_url: of another place with the same archives.
        report: takes a line on what is going on.

    Raises:
        OptionError: where the name is unknown or the licence is not accepted; its text is in the sentence.
        DataError: where the directory holds something else, or an archive is damaged or not safe.
        RunError: where a download fails; the sentence says how to place the files by hand.
    """
    if name not in DATASETS:
        raise OptionError(f"no dataset {name!r} to fetch; known: {', '.join(DATASETS)}")
    dataset, target, store = DATASETS[name], root / name, root / f"{name}-archives"
    if target.exists():
        if not PUBLISHED[name].recognises(target):
            raise DataError(f"{target} is there and does not hold {dataset.title}; remove it, or name another --root")
        report(f"{target} is there already")
        return target
    if not accept_licence:
        raise OptionError(
            f"{dataset.title} ({dataset.page}) comes under this licence: {dataset.licence}; "
            "give --accept-licence to accept it and fetch"
        )
    report(f"{dataset.title}; licence, accepted: {dataset.licence}")
    store.mkdir(parents=True, exist_ok=True)
    archives = [download(name, item, store, base_url or item.base_url, report) for item in dataset.downloads]
    with replace_directory(target) as tree:
        fill_tree(name, archives, store, tree, report)
    return target


def fill_tree(name: str, archives: list[Path], store: Path, tree: Path, report: Callable[[str], None]) -> None:
    if not archives:  # Kaggle's; its archives may have been placed by hand
        archives = [path for path in sorted(store.iterdir()) if is_archive(path)]
    for archive in archives:
        report(f"unpacking {archive}")
        unpack(archive, tree)
    if not archives:
        shutil.copytree(download_from_kaggle(name, store, report), tree, copy_function=link_or_copy, dirs_exist_ok=True)
    if not PUBLISHED[name].recognises(tree):
        raise DataError(f"what was fetched for {name!r} has not {PUBLISHED[name].expected}; see {DATASETS[name].page}")


def download(name: str, item: Download, store: Path, base_url: str, report: Callable[[str], None]) -> Path:
    """Return the path of an archive whose checksum was compared, downloaded unless it is there."""
    pooch = import_late("pooch")
    url = f"{base_url.rstrip('/')}/{item.name}"
    bring = partial(continue_download, begun=store / (item.name + BEGUN), num_bytes=item.num_bytes, report=report)
    try:
        return Path(pooch.retrieve(url, item.checksum, fname=item.name, path=store, downloader=bring))
    except (OSError, ValueError) as error:
        raise RunError(f"{url} could not be fetched ({error}); {by_hand(name, store)}") from error


def continue_download(
    url: str, output_file: str, pooch: Any, *, begun: Path, num_bytes: int | None, report: Callable[[str], None]
) -> None:
    """Download to a file, through one that stays when the connection breaks; pooch itself would begin anew."""
    import requests

    have = begun.stat().st_size if begun.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            begun.unlink()
            return continue_download(url, output_file, pooch, begun=begun, num_bytes=num_bytes, report=report)
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        if num_bytes is not None and total not in (None, num_bytes):
            begun.unlink(missing_ok=True)
            raise ValueError(f"the server offers {total} bytes, published are {num_bytes}")
        report(f"downloading {url}" + f", from byte {have}" * bool(have))
        with begun.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                tenths = 10 * have // total if total else 0
                have += file.write(chunk)
                if total and 10 * have // total > tenths:
                    report(f"{have / 1e6:.1f} of {total / 1e6:.1f} MB")
    begun.replace(output_file)
    return None


def download_from_kaggle(name: str, store: Path, report: Callable[[str], None]) -> Path:
    """Return the directory in Kaggle's own cache that holds a dataset; its client resumes and compares checksums."""
    kagglehub = import_late("kagglehub")
    handle = DATASETS[name].handle
    report(f"downloading {handle} from Kaggle")
    own = vars(import_module("kagglehub.exceptions")).values()
    failures: tuple[type[Exception], ...] = (
        OSError,
        ValueError,
        *(error for error in own if isinstance(error, type) and issubclass(error, Exception)),
    )
    try:
        return Path(kagglehub.dataset_download(handle))
    except failures as error:
        raise RunError(f"{handle} could not be fetched from Kaggle ({error}); {by_hand(name, store)}") from error


def by_hand(name: str, store: Path) -> str:
    """Return how to place the files of a dataset where there is no network."""
    dataset = DATASETS[name]
    files = " and ".join(item.name for item in dataset.downloads) or "the zip archive"
    return (
        "the same command continues where it stopped; where there is no network, get "
        f"{files} from {dataset.page} on another machine, put into {store} and run the same command again"
    )


def link_or_copy(source: str, target: str) -> str:
    """Link a file where the file system can, so that thousands of images do not lie on disk twice."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def import_late(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise OptionError(f"fetching needs {module}: pip install 'smooth-attention[data]'") from error
