"""The report as people meet it: opened from disk in a browser, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browsers import DESK, PHONE, WAIT_MS, open_browser
from report_pictures import add_pictures
from smooth_attention.study.reporting.report import write_report
from smooth_attention.study.verdicts.conclusions import judge_study
from study_records import make_study_records

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arms = {
        "none": 0.70,
        "attention": 0.705,
        "smooth-0.1": 0.71,
        "smooth-0.4": 0.73,
        "smooth-f0.1": 0.7,
        "smooth-f0.25": 0.7,
    }
    study = make_study_records(
        tmp_path_factory.mktemp("report"),
        arms=arms,
        seeds=4,
        dataset=["flood", "polyps"],
        contrasts=[["smooth-0.4", "none"], ["smooth-0.4", "attention"], ["smooth-f0.25", "none"]],
        corruptions=True,
        half_data=True,
    )
    add_pictures(study)
    return write_report(study, judge_study(study), command="smooth-attention study flood polyps --output STUDY")


@pytest.fixture(scope="module", params=[DESK, PHONE], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Iterator[Page]:
    """A page that has been scrolled through; whatever it complains of or asks for fails the test."""
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(WAIT_MS)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: complaints.append(asked.url) if not is_local(asked.url) else None)
    opened.goto(report.as_uri())
    for chart in opened.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()
    yield opened
    opened.close()
    assert complaints == []


def is_local(address: str) -> bool:
    return address.startswith(("file:", "data:", "blob:"))


def test_every_chart_is_drawn_and_fits(page: Page) -> None:
    charts = page.locator(".chart")
    assert charts.count() == 19
    assert page.locator(".js-plotly-plot .main-svg").count() >= charts.count()
    for chart in charts.all():
        box, plot = chart.bounding_box(), chart.locator(".main-svg").first.bounding_box()
        assert box is not None
        assert plot is not None
        assert plot["width"] <= box["width"] + 1
        assert plot["height"] == pytest.approx(box["height"], abs=1)


def test_page_never_scrolls_sideways(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == page.evaluate("innerWidth")


def test_verdict_is_seen_at_once(page: Page) -> None:
    page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    heading = page.get_by_role("heading", level=1)
    assert re.match(r"Verdict: \d", heading.inner_text())
    box, size = page.locator(".chip").first.bounding_box(), page.viewport_size
    assert box is not None
    assert size is not None
    assert box["y"] + box["height"] < size["height"]
    assert page.get_by_text("flood: smooth-0.4 is better than none").is_visible()


def test_hovering_names_the_image(page: Page) -> None:
    chart = page.locator("figure", has_text="flood: image by image").locator(".chart")
    chart.scroll_into_view_if_needed()
    chart.locator(".points path.point").first.hover(force=True)
    label = chart.locator(".hoverlayer .hovertext").first
    label.wait_for()
    assert re.search(r"im\d+.*arm 0\.\d+, reference 0\.\d+", label.text_content() or "")


def test_legend_adds_a_contrast(page: Page) -> None:
    chart = page.locator("figure", has_text="flood: image by image").locator(".chart")
    groups = chart.locator(".scatterlayer .trace")
    before = groups.count()
    chart.locator(".legendtoggle").nth(1).click(force=True)
    groups.nth(before).wait_for()
    assert groups.count() == before + 1


def test_wide_page_keeps_its_contents_in_sight(page: Page) -> None:
    page.locator("#diagnostics").scroll_into_view_if_needed()
    size = page.viewport_size
    assert size is not None
    box = page.get_by_role("navigation").bounding_box()
    assert box is not None
    assert (box["y"] >= 0) == (size["width"] == DESK[0])


def test_pictures_are_whole(page: Page) -> None:
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 2 * 6 * 4
    assert min(widths) > 0
