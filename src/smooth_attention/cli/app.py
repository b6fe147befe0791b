"""``smooth-attention app [RUN...]``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smooth_attention.cli.options import read_options

__all__ = []


@dataclass(frozen=True)
class AppOptions:
    """Serve a page on which one clicks into an image and sees where the network looks, before and after smoothing."""

    runs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help="Run or model directories; none: an untrained network.", metavar="[RUN...]"),
    ] = ()
    host: Annotated[
        str, tyro.conf.arg(help="Address to listen at; 0.0.0.0 lets other machines in, there is no password.")
    ] = "127.0.0.1"
    port: Annotated[int | None, tyro.conf.arg(help="Port to listen at; left out: the first free one from 7860 on.")] = (
        None
    )


def run(arguments: list[str], prog: str) -> None:
    options = read_options(AppOptions, arguments, prog)

    from smooth_attention.app.serve import serve

    # rich and its tables are not needed for one line, and would be imported before the page is served
    serve(options.runs, host=options.host, port=options.port, announce=lambda address: print(address, flush=True))
