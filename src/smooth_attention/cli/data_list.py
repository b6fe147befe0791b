"""``smooth-attention data list``."""

from __future__ import annotations

from dataclasses import dataclass

from smooth_attention.cli.options import read_options

__all__ = []


@dataclass(frozen=True)
class ListOptions:
    """List the published datasets that can be fetched."""


def run(arguments: list[str], prog: str) -> None:
    read_options(ListOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line, print_table
    from smooth_attention.data.fetch import DATASETS

    rows = [[name, dataset.title, dataset.pairs] for name, dataset in DATASETS.items()]
    caption = "fetch one with: smooth-attention data fetch NAME --root DIR"
    print_table("published datasets", ["name", "dataset", "pairs"], rows, caption=caption)
    for name, dataset in DATASETS.items():
        print_line(f"{name}: {dataset.page}; licence: {dataset.licence}")
