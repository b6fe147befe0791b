"""How long the app takes to its first page and from a click to the new picture, and how long each figure takes.

Run by ``make bench``, in headless Chromium; prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app_page import act, choose, click_at, serve
from browsers import WAIT_MS, open_browser
from smooth_attention.look.figure_input import open_figure_input
from smooth_attention.look.figures import TURNING, figure_makers
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.train import train
from smooth_attention.viz.curves import print_figure
from smooth_attention.viz.surfaces import turning_page

AIM_FIRST_PAGE_S, AIM_FIGURE_S = 12.0, 5.0
AIM_CLICK_S = {224: 0.5, 1024: 2.0}  # by the size that the networks see, in pixels
Row = tuple[str, list[float], float]  # what was measured, its seconds, the aim


def measure_app(runs: list[Path], cache: Path, folder: Path, clicks: int) -> Iterator[Row]:
    with open_browser() as browser:
        started = time.perf_counter()
        with serve(*runs, cache=cache, folder=folder) as served:
            page = browser.new_page()
            page.set_default_timeout(WAIT_MS)
            page.goto(served.url)
            page.locator("#main").wait_for()
            yield "first page after the start", [time.perf_counter() - started], AIM_FIRST_PAGE_S
            page.locator("#picture-0-4 img").wait_for()
            for size_px, aim in AIM_CLICK_S.items():
                act(page, lambda size_px=size_px: choose(page, "#size", f"{size_px} px"), "#picture-0-1 img")
                # from one half of the image to the other, so that every click is at another position
                places = [((click + 0.5) / clicks, 0.8 if click % 2 else 0.2) for click in range(clicks)]
                yield f"click to picture, {size_px} px", [click_at(page, "#main img", *place) for place in places], aim


def measure_figures(runs: list[Path], cache: Path) -> Iterator[Row]:
    given = open_figure_input(runs, cache=cache, stem=None, point=None, thresholds=(0.1, 0.9))
    for name, make in figure_makers(given).items():
        started = time.perf_counter()
        (turning_page if name in TURNING else print_figure)(make())
        yield f"figure `{name}` of two runs", [time.perf_counter() - started], AIM_FIGURE_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=20, help="at each size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        cache, runs = folder / "cache", [folder / arm for arm in ("smooth", "attention")]
        for run in runs:
            small = {"encoder_weights": "none", "image_size": 96, "epochs": 1}
            train(RunConfig(arm=run.name, gamma_init=1.0, **small), run, cache=cache)
        print("| what | seconds: median (least-most) | aim |\n|---|---|---|")
        for rows in (measure_app(runs, cache, folder, options.clicks), measure_figures(runs, cache)):
            for what, seconds, aim in rows:
                spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
                print(f"| {what} | {spread} | {aim:g} |", flush=True)


if __name__ == "__main__":
    main()
