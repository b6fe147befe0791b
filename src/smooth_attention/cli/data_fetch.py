"""``smooth-attention data fetch NAME --root DIR``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smooth_attention.cli.options import read_options

__all__ = []


@dataclass(frozen=True)
class FetchOptions:
    """Fetch a published dataset into DIR/NAME; without --accept-licence its licence is shown and nothing is fetched."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="As 'data list' names it.", metavar="NAME")]
    root: Annotated[Path, tyro.conf.arg(help="Directory of datasets; archives are kept in DIR/NAME-archives.")]
    accept_licence: Annotated[bool, tyro.conf.arg(help="Accept the dataset's licence.")] = False


def run(arguments: list[str], prog: str) -> None:
    options = read_options(FetchOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line
    from smooth_attention.data.fetch import fetch_dataset

    path = fetch_dataset(options.name, options.root, accept_licence=options.accept_licence, report=print_line)
    print_line(f"data: {path} (look at it with: smooth-attention data check {path})")
