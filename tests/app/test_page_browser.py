"""The page as people meet it, in a real browser: click, slide, compare, upload, save, two people at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from app_page import Served, act, choose, click_at, serve
from browsers import DESK, PHONE, WAIT_MS, open_browser, overflow_px
from smooth_attention import load_model, predict
from smooth_attention.core.records import read_record
from smooth_attention.data.files import read_image
from smooth_attention.look.attention import Look
from smooth_attention.models.rows import Rule
from smooth_attention.viz.heatmaps import MARK

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = [f"#picture-0-{place} img" for place in range(5)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Callable[..., Page]]:
    """Open the page as a new person; what it asks of other machines, or complains of, fails the test."""
    contexts, complaints = [], []

    def open_page(size: tuple[int, int] = DESK, url: str = served.url) -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("request", lambda asked: None if is_local(asked.url, url) else complaints.append(asked.url))
        page.goto(url)
        page.locator(PICTURES[0]).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def is_local(asked: str, url: str) -> bool:
    return asked.startswith((url, "data:", "blob:"))


def picture(page: Page, shown: str) -> np.ndarray:
    """Return what an image element shows, as the server sent it."""
    response = page.request.get(page.locator(shown).evaluate("img => img.src"))
    return np.asarray(Image.open(io.BytesIO(response.body())).convert("RGB")).astype(int)


def marked_box(page: Page, shown: str) -> tuple[float, float]:
    """Return the middle of the outline that marks the position, as shares of the picture's sides."""
    pixels = picture(page, shown)
    is_mark = np.abs(pixels - [*bytes.fromhex(MARK[1:])]).sum(-1) < 90
    rows, columns = np.nonzero(is_mark)
    assert len(rows) > 20
    height, width = is_mark.shape
    return (columns.min() + columns.max() + 1) / 2 / width, (rows.min() + rows.max() + 1) / 2 / height


def slide(page: Page, part: str, value: float) -> None:
    number = page.locator(f"{part} input[type=number]")
    number.fill(f"{value:g}")
    number.press("Enter")


def readout(page: Page) -> str:
    return page.locator("#readout").inner_text()


def show_wide(page: Page, run: Path) -> str:
    """Show a sample image that is not square, and return its stem."""
    stems = read_record(run).data.split.test
    stem = next(stem for stem in stems if int(stem.removeprefix("scene")) % 3)  # see write_scenes
    if f"image {stem}" not in readout(page):
        act(page, lambda: choose(page, "#sample", stem))
    return stem


@pytest.mark.parametrize("shown", ["#main img", *PICTURES])
def test_position_is_marked_where_it_was_clicked_in_every_picture(
    visit: Callable[..., Page], app_runs: dict[str, Path], shown: str
) -> None:
    page = visit()
    show_wide(page, app_runs["smooth"])
    click_at(page, shown, 0.2, 0.7)  # 6 x 6 positions: column 2, row 5
    assert "row 5, column 2 of 6 x 6 positions" in readout(page)
    for each in ["#main img", *PICTURES]:
        assert marked_box(page, each) == pytest.approx((1.5 / 6, 4.5 / 6), abs=0.02)


def test_click_shows_the_row_of_that_position(
    visit: Callable[..., Page], app_runs: dict[str, Path], wide_scenes: Path
) -> None:
    page = visit()
    stem = show_wide(page, app_runs["smooth"])
    click_at(page, "#main img", 0.9, 0.1)
    look = Look(load_model(app_runs["smooth"]), read_image(wide_scenes / "images" / f"{stem}.png"))
    head = look.heads[0]
    row = head.rows([5])[0]
    caption = page.locator("#caption-0-1").inner_text()
    assert f"at most {row.plain.max():.3g}, sum 1.000" in caption
    assert f"at most {row.used.max():.3g}, sum 1.000" in page.locator("#caption-0-2").inner_text()
    # one scale for both pictures of attention
    scales = [page.locator(f"#caption-0-{place} .scale").inner_text().split() for place in (1, 2)]
    assert scales[0] == scales[1] == ["0", f"{max(row.plain.max(), row.used.max()):.3g}"]
    assert f"Roughness {row.roughness:.3g}" in readout(page)


def test_slide_recomputes_the_gate_and_says_so(
    visit: Callable[..., Page], app_runs: dict[str, Path], wide_scenes: Path
) -> None:
    page = visit()
    stem = show_wide(page, app_runs["smooth"])
    assert "recomputed" not in page.locator("#heading-0").inner_text()
    act(page, lambda: page.locator("#rule").get_by_text("fraction", exact=True).click(), PICTURES[4])
    act(page, lambda: slide(page, "#value", 0.5), PICTURES[4])
    assert "50.0 % of 36 positions" in page.locator("#caption-0-4").inner_text()
    assert "recomputed with the same weights, not retrained" in page.locator("#heading-0").inner_text()
    look = Look(load_model(app_runs["smooth"]), read_image(wide_scenes / "images" / f"{stem}.png"))
    changed = (look.labels(Rule(fraction=0.5), (96, 96)) != look.labels(None, (96, 96))).mean()
    assert f"{100 * changed:.3f} % of the pixels differ" in page.locator("#caption-0-0").inner_text()
    act(page, lambda: page.locator("#rule").get_by_text("as trained", exact=True).click(), PICTURES[4])
    assert "25.0 % of 36 positions" in page.locator("#caption-0-4").inner_text()


def test_opacity_zero_leaves_the_image(visit: Callable[..., Page]) -> None:
    page = visit()
    act(page, lambda: slide(page, "#opacity", 0), PICTURES[3])
    faded = picture(page, PICTURES[3])
    assert np.abs(faded - faded.mean(-1, keepdims=True)).max(-1).mean() < 8  # grey but for the mark
    act(page, lambda: slide(page, "#opacity", 1), PICTURES[3])
    assert np.abs(picture(page, PICTURES[3]) - faded).mean() > 20


def test_compare_shows_a_second_network_on_the_same_image(visit: Callable[..., Page]) -> None:
    page = visit()
    assert not page.locator("#heading-1").is_visible()
    choose(page, "#second", "none")
    page.locator("#picture-1-0 img").wait_for()
    assert "none" in page.locator("#heading-1").inner_text()
    assert "no attention in this network" in page.locator("#caption-1-1").inner_text()
    assert "of this image (protocol standard)" in page.locator("#caption-1-0").inner_text()
    choose(page, "#second", "nothing")
    page.locator("#heading-1").wait_for(state="hidden")


@pytest.mark.slow
def test_another_network_takes_the_place_of_the_first(visit: Callable[..., Page]) -> None:
    page = visit()
    page.get_by_role("tab", name="3-D").click()
    page.locator("#surface .js-plotly-plot").wait_for()
    saved: list[str] = []
    page.on("download", lambda download: saved.append(download.suggested_filename))
    with page.expect_download():
        page.locator("#save-view").click()
    choose(page, "#first", "none")  # which has no attention to draw or to save
    page.locator("#surface .js-plotly-plot").wait_for(state="detached")
    assert page.get_by_test_id("toast-body").count() == 0
    page.locator("#save-view").click()
    toast = page.get_by_test_id("toast-body")
    toast.wait_for()
    assert "none has no attention to save a view of; save its mask" in toast.inner_text()
    choose(page, "#first", "smooth")
    page.locator("#surface .js-plotly-plot").wait_for()
    assert toast.count() == 1
    assert saved == ["view.png"]  # what is refused does not bring the file before it again


def upload(page: Page, path: Path) -> None:
    page.locator("#upload input[type=file]").set_input_files(str(path))


def test_upload_is_looked_at_and_its_mask_saved_at_its_own_size(
    visit: Callable[..., Page], app_runs: dict[str, Path], wide_scenes: Path, tmp_path: Path
) -> None:
    image = Image.open(wide_scenes / "images" / "scene01.png").resize((331, 127))
    path = tmp_path / "my photo.png"
    image.save(path)
    page = visit()
    act(page, lambda: upload(page, path))
    assert "image my photo.png" in readout(page)
    click_at(page, "#main img", 0.3, 0.3)
    assert "of 331 x 127 px" in readout(page)
    saved = {}
    for name in ("mask", "view"):
        with page.expect_download() as waiting:
            page.locator(f"#save-{name}").click()
        saved[name] = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(saved[name])
    mask = np.asarray(Image.open(saved["mask"]))
    assert (mask.shape, saved["mask"].name) == ((127, 331), "mask.png")
    np.testing.assert_array_equal(mask > 0, predict(load_model(app_runs["smooth"]), path) > 0)
    with Image.open(saved["view"]) as view:
        assert view.format == "PNG"
        assert min(view.size) > 200


WRONG = {
    "text.png": (b"no image at all", "no image that can be read"),
    "one.png": (Image.new("RGB", (1, 1)), "1 x 1 px; a side of at least 8 px"),
    "large.png": (Image.new("L", (8000, 7000)), "56 megapixels, at most 50"),
    "deep.png": (Image.fromarray(np.zeros((20, 20), np.uint16)), "more than 8 bits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file_gets_a_sentence_and_the_page_goes_on(visit: Callable[..., Page], tmp_path: Path, name: str) -> None:
    content, sentence = WRONG[name]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content.save(tmp_path / name)
    page = visit()
    before = readout(page)
    upload(page, tmp_path / name)
    toast = page.get_by_test_id("toast-body")
    toast.wait_for()
    assert sentence in toast.inner_text()
    assert str(Path("/")) + "tmp" not in toast.inner_text()
    assert readout(page) == before
    click_at(page, "#main img", 0.1, 0.1)
    assert "row 1, column 1" in readout(page)


def test_two_people_do_not_mix(visit: Callable[..., Page], tmp_path: Path) -> None:
    first, second = visit(), visit()
    own = tmp_path / "own.png"
    Image.new("RGB", (120, 60), (200, 30, 30)).save(own)
    act(first, lambda: upload(first, own))
    click_at(second, "#main img", 0.9, 0.9)
    assert "image own.png" in readout(first)
    assert "own.png" not in readout(second)
    act(second, lambda: second.locator("#rule").get_by_text("no smoothing").click(), PICTURES[4])
    click_at(first, "#main img", 0.1, 0.9)
    assert "recomputed" not in first.locator("#heading-0").inner_text()
    assert "row 6, column 1" in readout(first)
    assert "row 6, column 6" in readout(second)


def test_three_dimensions_follow_the_position(visit: Callable[..., Page]) -> None:
    page = visit()
    page.get_by_role("tab", name="3-D").click()
    page.locator("#surface .js-plotly-plot").wait_for()
    page.locator("#scatter .js-plotly-plot").wait_for()
    heights = "() => document.querySelector('#surface .js-plotly-plot').data.map(t => JSON.stringify(t.z))"
    before = page.evaluate(heights)
    assert len(before) == 2
    click_at(page, "#main img", 0.05, 0.05)
    page.wait_for_function(f"before => JSON.stringify(({heights})()) !== JSON.stringify(before)", arg=before)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_page_fits_its_window(visit: Callable[..., Page], size: tuple[int, int]) -> None:
    page = visit(size)
    assert overflow_px(page) == 0
    main, controls = (page.locator(part).bounding_box() for part in ("#main", "#first"))
    assert main is not None
    assert controls is not None
    assert (main["y"] + main["height"] <= controls["y"]) == (size == PHONE)  # a phone shows the image first


@pytest.mark.slow
def test_without_a_run_the_network_is_untrained_and_says_so(browser: Browser, cache: Path, tmp_path: Path) -> None:
    with serve(cache=cache, folder=tmp_path) as page_served:
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(page_served.url)
        page.locator(PICTURES[4]).wait_for()
        assert "untrained, its weights are random" in page.locator("#notes").inner_text()
        assert "25.0 % of 196 positions" in page.locator("#caption-0-4").inner_text()
        page.close()


@pytest.mark.parametrize(("size_px", "side"), [(224, 14), (1024, 64)], ids=["224px", "1024px"])
def test_networks_see_the_size_that_was_chosen(visit: Callable[..., Page], size_px: int, side: int) -> None:
    page = visit()
    act(page, lambda: choose(page, "#size", f"{size_px} px"), PICTURES[1])
    click_at(page, "#main img", 0.05, 0.8)
    assert f"row {int(0.8 * side) + 1}, column {int(0.05 * side) + 1} of {side} x {side} positions" in readout(page)
