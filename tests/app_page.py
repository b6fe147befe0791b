"""The app as a process of its own, and what a person does in its page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deadlines import LAST_RESORT_S

if TYPE_CHECKING:
    from playwright.sync_api import Page


@dataclass(frozen=True, slots=True)
class Served:
    """A page that is served.

    Attributes:
        url: its address, with a slash at the end.
        pid: of the process that serves it.
    """

    url: str
    pid: int


@contextmanager
def serve(*arguments: str | Path, cache: Path, folder: Path) -> Iterator[Served]:
    """Run the app until the context ends; its first line of output is the address."""
    log = folder / "app.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", "from smooth_attention.cli.main import main; main()", "app", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env={**os.environ, "SMOOTH_ATTENTION_CACHE": str(cache), "TMPDIR": str(folder)},
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, log.read_text()
            yield Served(address, process.pid)
        finally:
            process.terminate()
            process.wait(LAST_RESORT_S)
            process.stdout.close()
    assert process.returncode == 130
    assert not list(folder.glob("smooth-attention-*"))  # uploads and pictures are gone
    # what Gradio refuses by itself leaves a traceback, which does not reach our code
    assert "smooth_attention/" not in log.read_text(), log.read_text()


def act(page: Page, action: Callable[[], None], shown: str = "#main img") -> float:
    """Do something that draws a picture anew, wait for the new one, and return the seconds from one to the other."""
    before = page.locator(shown).get_attribute("src")
    started = time.perf_counter()
    action()
    page.wait_for_function(
        "([shown, before]) => { const img = document.querySelector(shown);"
        " return img && img.src !== before && !img.src.endsWith(before) && img.complete && img.naturalWidth > 0; }",
        arg=[shown, before],
    )
    return time.perf_counter() - started


def click_at(page: Page, shown: str, x_frac: float, y_frac: float) -> float:
    """Click into a picture at a share of its sides."""
    page.locator(shown).scroll_into_view_if_needed()
    box = page.locator(shown).bounding_box()
    assert box is not None
    natural = page.locator(shown).evaluate("img => [img.naturalWidth, img.naturalHeight]")
    # the picture fits into its frame, with room left over at two sides
    factor = min(box["width"] / natural[0], box["height"] / natural[1])
    wide, high = natural[0] * factor, natural[1] * factor
    x = box["x"] + (box["width"] - wide) / 2 + x_frac * wide
    y = box["y"] + (box["height"] - high) / 2 + y_frac * high
    return act(page, lambda: page.mouse.click(x, y))


def choose(page: Page, part: str, text: str) -> None:
    """Choose an entry of a list by the text that it starts with."""
    page.locator(f"{part} input").click()
    page.get_by_role("option", name=re.compile(f"^{re.escape(text)}")).first.click()
