"""The look page as people meet it: opened from disk, clicked and slid, on a desk and on a phone."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from browsers import DESK, PHONE, WAIT_MS, open_browser, overflow_px
from look_runs import HOSTILE, copy_with_model, small_net
from smooth_attention.data.cache import resize_mask
from smooth_attention.data.sources import Pair
from smooth_attention.look.attention import Head, Look
from smooth_attention.look.page import write_look_page
from smooth_attention.look.page_data import EVERY, FRACTIONS, OFF, THRESHOLDS, picture_shape
from smooth_attention.models.rows import Rule
from smooth_attention.runs.evaluate import OpenedRun, open_run
from smooth_attention.viz.colours import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE, palette
from smooth_attention.viz.heatmaps import ATTENTION, POWER, colour_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MAPS = ("mask", "plain", "used", "roughness", "gate")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@dataclass(frozen=True, eq=False)
class Written:
    """A page with what it is about.

    Attributes:
        path: of the page.
        opened: the run.
        stems: of its images.
    """

    path: Path
    opened: OpenedRun
    stems: list[str]

    def pair(self, number: int) -> Pair:
        return self.opened.source.load(self.stems[number])

    def look(self, number: int) -> Look:
        return Look(self.opened.net, self.pair(number).image, self.opened.config.image_size)


@pytest.fixture(scope="module")
def pages(look_run: Path, class_run: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    """Return pages by what is special in them."""
    root = tmp_path_factory.mktemp("pages")

    def with_net(name: str, net: Any, **config: Any) -> Path:
        return copy_with_model(look_run, root / name, net, **config)

    runs = {
        "binary": look_run,
        "classes": class_run,
        "heads": with_net("heads", small_net(stages=(-3, -2), heads=2, threshold=0.1)),
        "padded": with_net("padded", small_net("pan", threshold=0.1, temperature=0.1)),
        "none": with_net("none", small_net(block="none"), arm="none", threshold=None),
    }
    written = {}
    for name, run in runs.items():
        path, samples = root / f"{name}.html", 1 if name in ("heads", "padded") else 2
        stems = write_look_page(run, path, cache=cache, samples=samples)
        written[name] = Written(path, open_run(run, cache=cache), stems)
    return written


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page that has nothing but itself; whatever it asks for or complains of fails the test."""
    contexts, complaints = [], []

    def open_page(path: Path, size: tuple[int, int] = DESK, *, touch: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, has_touch=touch, offline=True, accept_downloads=False
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: complaints.append(asked.url) if is_foreign(asked.url, path) else None)
        page.goto(path.as_uri())
        page.locator("body[data-sample='0']").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def is_foreign(address: str, path: Path) -> bool:
    return address != path.as_uri() and not address.startswith("data:")


def choose_sample(page: Page, number: int) -> None:
    page.locator(".strip input").nth(number).check()
    page.locator(f"body[data-sample='{number}']").wait_for()


def click(page: Page, where: str, x: float, y: float) -> None:
    """Click at shares of a picture's width and height."""
    stage = page.locator(f".stage[data-map={where}]")
    box = stage.bounding_box()
    assert box is not None
    stage.click(position={"x": x * box["width"], "y": y * box["height"]})


def slide(page: Page, kind: str, place: int) -> None:
    """Move a slider to a stop as dragging does."""
    page.locator(f"#{kind}").evaluate(
        "(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input')) }", place
    )


def read(page: Page, name: str) -> Any:
    return page.evaluate(f"() => look.{name}")


def expect_row(page: Page, head: Head, rule: Rule | None) -> None:
    """Assert that the rows, the roughness and the gate of the chosen position are those of the package."""
    shown, position = read(page, "rows"), read(page, "position")
    pair, mean = head.rows([position], rule)[0], head.rows([position], EVERY)[0].used
    for name, exact in (("plain", pair.plain), ("used", pair.used)):
        found = np.array(shown[name])
        assert np.abs(found - exact.ravel()).max() <= max(pair.plain.max(), mean.max()) / 255
        assert found.sum() == pytest.approx(1, abs=0.01)
    assert shown["limit"] == pytest.approx(max(pair.plain.max(), mean.max()), rel=1e-4)
    assert shown["roughness"] == pair.roughness
    assert shown["gate"] == pair.gate
    np.testing.assert_array_equal(np.float32(read(page, "gate")), head.gate(rule).ravel())
    np.testing.assert_array_equal(np.float32(read(page, "roughness")), head.roughness.ravel())


def expect_mask(page: Page, look: Look, rule: Rule | None) -> None:
    np.testing.assert_array_equal(read(page, "mask"), look.labels(rule, picture_shape(look.shape)).ravel())


def pixels(page: Page, canvas: str) -> np.ndarray:
    """Return RGBA (h, w, 4) of a canvas."""
    address = page.locator(canvas).evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


@pytest.mark.parametrize("name", ["binary", "classes", "padded"])
def test_click_chooses_the_position_of_the_package(
    visit: Callable[..., Page], pages: dict[str, Written], name: str
) -> None:
    written = pages[name]
    page = visit(written.path)
    for number in reversed(range(len(written.stems))):
        look = written.look(number)
        head, (height, width) = look.heads[-1], look.shape
        choose_sample(page, number)
        for where, x, y in (("mask", 0.13, 0.71), ("plain", 0.97, 0.02), ("gate", 0.51, 0.98), ("used", 0.03, 0.4)):
            click(page, where, x, y)
            assert read(page, "position") == look.position_at(head, x * width, y * height)
            assert read(page, "box") == pytest.approx(look.box_of(head, read(page, "position")))
            expect_row(page, head, None)
        expect_mask(page, look, None)
    assert any(len(set(written.pair(number).mask.shape)) == 2 for number in range(len(written.stems)))


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_outline_lies_on_the_cell_in_every_picture(
    visit: Callable[..., Page], pages: dict[str, Written], size: tuple[int, int]
) -> None:
    page = visit(pages["padded"].path, size)
    click(page, "mask", 0.55, 0.35)
    width, height = (read(page, f"page.samples[0].{side}") for side in ("width", "height"))
    left, top, right, bottom = read(page, "box")
    for where in MAPS:
        stage, mark = (page.locator(f".stage[data-map={where}]{part}").bounding_box() for part in ("", " .mark"))
        assert stage is not None
        assert mark is not None
        assert stage["width"] / stage["height"] == pytest.approx(width / height, rel=0.01)
        x, y = stage["width"] / width, stage["height"] / height
        assert mark["x"] - stage["x"] == pytest.approx(left * x, abs=0.6)
        assert mark["y"] - stage["y"] == pytest.approx(top * y, abs=0.6)
        assert mark["width"] == pytest.approx((right - left) * x, abs=0.6)
        assert mark["height"] == pytest.approx((bottom - top) * y, abs=0.6)


def test_maps_lie_on_the_image_and_reach_beyond_it_where_it_is_padded(
    visit: Callable[..., Page], pages: dict[str, Written]
) -> None:
    covered = pages["padded"].look(0).covered
    page = visit(pages["padded"].path)
    for where in MAPS[1:]:
        stage, canvas = (page.locator(f".stage[data-map={where}]{part}").bounding_box() for part in ("", " canvas"))
        assert stage is not None
        assert canvas is not None
        assert (canvas["x"], canvas["y"]) == pytest.approx((stage["x"], stage["y"]), abs=0.1)
        assert canvas["width"] * covered == pytest.approx(stage["width"], rel=0.01)
        assert canvas["height"] * covered == pytest.approx(stage["height"], rel=0.01)
    assert "The grid reaches beyond the image" in page.locator("#attention-unit").inner_text()


@pytest.mark.parametrize(("name", "every"), [("binary", 1), ("classes", 4)])
def test_sliding_moves_gate_row_and_mask_as_the_package_does(
    visit: Callable[..., Page], pages: dict[str, Written], name: str, every: int
) -> None:
    written = pages[name]
    page, look = visit(written.path), written.look(0)
    head = look.heads[0]
    trained = read(page, "mask")
    click(page, "roughness", 0.4, 0.6)
    rules = [("threshold", place, Rule(threshold=value)) for place, value in enumerate(THRESHOLDS)]
    rules += [("fraction", place, Rule(fraction=value)) for place, value in enumerate(FRACTIONS)]
    changed = 0
    for kind, place, rule in rules[::every]:
        slide(page, kind, place)
        assert page.locator(f"#rules [value={kind}]").is_checked()
        expect_row(page, head, rule)
        expect_mask(page, look, rule)
        count = sum(a != b for a, b in zip(read(page, "mask"), trained, strict=True))
        changed += count
        caption = page.locator("#caption").inner_text()
        is_trained = rule == Rule(threshold=0.1)
        assert is_trained or (f"{count:,} of {len(trained):,} pixels" if count else "no pixel differs") in caption
        for words in (caption, page.locator("#recomputed").inner_text(), page.locator("#used-caption").inner_text()):
            assert ("ecomputed with the same weights, not retrained" in words) != is_trained
    assert changed > 0
    for kind, rule in (("none", OFF), ("every", EVERY), ("trained", None)):
        page.locator(f"#rules [value={kind}]").check()
        expect_row(page, head, rule)
        expect_mask(page, look, rule)
    assert read(page, "mask") == trained
    assert "ecomputed" not in page.locator("main").inner_text()


def test_every_head_of_every_block_can_be_looked_at(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page, look = visit(pages["heads"].path), pages["heads"].look(0)
    assert page.locator("#view option").all_inner_texts() == [head.name for head in look.heads]
    assert {head.grid for head in look.heads} == {(8, 8), (4, 4)}
    click(page, "mask", 0.3, 0.8)
    for number, head in enumerate(look.heads):
        page.locator("#view").select_option(str(number))
        assert read(page, "view") == head.name
        assert read(page, "position") == look.position_at(head, 0.3 * look.shape[1], 0.8 * look.shape[0])
        slide(page, "threshold", 3)
        expect_row(page, head, Rule(threshold=THRESHOLDS[3]))
        expect_mask(page, look, Rule(threshold=THRESHOLDS[3]))


def test_both_rows_have_one_colour_scale(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page = visit(pages["binary"].path)
    page.locator("#rules [value=every]").check()
    shown, table = read(page, "rows"), colour_table(ATTENTION)
    for name in ("plain", "used"):
        places = np.rint(255 * (np.array(shown[name]) / shown["limit"]) ** POWER).astype(int)
        drawn = pixels(page, f".stage[data-map={name}] canvas")
        np.testing.assert_array_equal(drawn.reshape(-1, 4)[:, :3], table[places])
        assert drawn[..., 3].min() == 255
    bar = page.locator("#attention-bar span").all_inner_texts()
    assert bar[0] == "0"
    assert float(bar[-1]) == pytest.approx(shown["limit"], rel=0.05)
    assert f"0 to {bar[-1]}" in page.locator("#attention-unit").inner_text()


def test_mask_errors_and_truth_have_the_colours_of_the_figures(
    visit: Callable[..., Page], pages: dict[str, Written]
) -> None:
    page, look = visit(pages["binary"].path), pages["binary"].look(0)
    truth, mask = resize_mask(pages["binary"].pair(0).mask, look.shape), look.labels()
    np.testing.assert_array_equal(read(page, "truth"), truth.ravel())
    pictures = {
        "mask": {TRUE_POSITIVE: mask == 1},
        "truth": {TRUE_POSITIVE: truth == 1},
        "errors": {
            TRUE_POSITIVE: (mask == 1) & (truth == 1),
            FALSE_POSITIVE: (mask == 1) & (truth == 0),
            FALSE_NEGATIVE: (mask == 0) & (truth == 1),
        },
        "image": {},
    }
    for shows, places in pictures.items():
        page.locator(f"[name=shows][value={shows}]").check()
        drawn = pixels(page, ".fill")
        for colour, place in places.items():
            np.testing.assert_array_equal((drawn == (*colour, 255)).all(-1), place)
        assert (drawn[..., 3] > 0).sum() == sum(place.sum() for place in places.values())
    page.locator("[name=shows][value=errors]").check()
    assert page.locator("#key span").all_inner_texts() == ["found", "false alarm", "missed"]


def test_classes_have_their_colours_and_names_and_ignored_pixels_are_striped(
    visit: Callable[..., Page], pages: dict[str, Written]
) -> None:
    page, written = visit(pages["classes"].path), pages["classes"]
    truth = written.pair(0).mask
    names = written.opened.source.class_names
    assert names is not None
    page.locator("[name=shows][value=truth]").check()
    drawn = pixels(page, ".fill")
    for label in set(np.unique(truth)) - {255}:
        assert (drawn[truth == label] == (*palette(5)[label], 255)).all()
    assert {tuple(colour) for colour in drawn[truth == 255]} == {(120, 120, 120, 255), (230, 230, 230, 255)}
    occurring = [names[label] for label in sorted(set(np.unique(truth)) - {255})]
    assert page.locator("#key span").all_inner_texts() == [*occurring, "ignored"]
    page.locator("[name=shows][value=errors]").check()
    mask = np.array(read(page, "mask")).reshape(truth.shape)
    wrong = (mask != truth) & (truth != 255)
    drawn = pixels(page, ".fill")
    np.testing.assert_array_equal(drawn[wrong, :3], palette(5)[mask[wrong]])
    assert not drawn[~wrong & (truth != 255), 3].any()
    assert page.locator("#key span").all_inner_texts() == [*(names[i] for i in np.unique(mask[wrong])), "ignored"]
    assert "coloured by predicted class" in page.locator("#caption").inner_text()


def test_names_are_text_whatever_they_hold(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page, written = visit(pages["classes"].path), pages["classes"]
    assert page.locator("h2#stem").inner_text() == written.stems[0]
    assert page.locator(".strip b").all_inner_texts() == written.stems
    assert page.get_by_text("<i>classes", exact=True).is_visible()
    assert HOSTILE in read(page, "page.classes")
    assert page.locator("body [onerror], body b b, body i i, dd i").count() == 0
    assert page.title() == "Look into <i>classes"


def test_keyboard_moves_position_image_and_rule(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page, look = visit(pages["binary"].path), pages["binary"].look(0)
    head = look.heads[0]
    stage = page.locator(".stage[data-map=mask]")
    for _ in range(30):
        page.keyboard.press("Tab")
        if stage.evaluate("stage => stage === document.activeElement"):
            break
    assert stage.evaluate("stage => getComputedStyle(stage).outlineStyle") == "solid"
    for key in ["Up", "Left"] * 8:  # to the first position, and no further
        page.keyboard.press(f"Arrow{key}")
    for key, position in (("Up", 0), ("Left", 0), ("Right", 1), ("Down", 9), ("Down", 17)):
        page.keyboard.press(f"Arrow{key}")
        assert read(page, "position") == position
    assert "Row 3, column 2 of 8 x 8 positions" in page.locator("#readout").inner_text()
    expect_row(page, head, None)
    page.locator("#threshold").focus()
    page.keyboard.press("End")
    assert read(page, "rule") == "threshold 0.9"
    page.locator(".strip input").first.focus()
    page.keyboard.press("ArrowRight")
    page.locator("body[data-sample='1']").wait_for()
    assert read(page, "stem") == pages["binary"].stems[1]


def test_each_image_keeps_its_position(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page = visit(pages["binary"].path)
    for number in (0, 1):
        look = pages["binary"].look(number)
        choose_sample(page, number)
        assert read(page, "position") == look.roughest(look.heads[0])
    click(page, "mask", 0.2, 0.2)
    chosen = read(page, "position")
    choose_sample(page, 0)
    choose_sample(page, 1)
    assert read(page, "position") == chosen


def test_pointer_reads_the_values_under_it(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page, look = visit(pages["binary"].path), pages["binary"].look(0)
    box = page.locator(".stage[data-map=used]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.9 * box["height"])
    pair = look.heads[0].rows([read(page, "position")])[0]
    words = page.locator("#pointer").inner_text()
    assert "row 8, column 3." in words
    assert f"{float(look.heads[0].roughness[7, 2]):.3g}" in words
    assert np.array(read(page, "rows.plain"))[8 * 7 + 2] == pytest.approx(
        pair.plain[7, 2], abs=float(pair.plain.max()) / 255
    )


def test_dragging_takes_the_position_along(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page, look = visit(pages["binary"].path), pages["binary"].look(0)
    box = page.locator(".stage[data-map=mask]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.3 * box["height"], steps=4)
    wanted = look.position_at(look.heads[0], 0.6 * look.shape[1], 0.3 * look.shape[0])
    assert read(page, "position") == wanted
    page.mouse.up()
    assert read(page, "position") == wanted


def test_phone_stacks_everything_and_touch_works(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    for name in ("binary", "classes", "none"):
        page = visit(pages[name].path, PHONE, touch=True)
        assert overflow_px(page) == 0
    page, look = visit(pages["binary"].path, PHONE, touch=True), pages["binary"].look(0)
    stage = page.locator(".stage[data-map=mask]")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    stage.tap(position={"x": 0.7 * box["width"], "y": 0.2 * box["height"]})
    assert read(page, "position") == look.position_at(look.heads[0], 0.7 * look.shape[1], 0.2 * look.shape[0])
    main, maps = (page.locator(part).bounding_box() for part in ("#main", ".maps"))
    assert main is not None
    assert maps is not None
    assert maps["y"] > main["y"] + main["height"]


def test_desk_shows_image_and_maps_side_by_side(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page = visit(pages["binary"].path)
    assert overflow_px(page) == 0
    main, maps = (page.locator(part).bounding_box() for part in ("#main", ".maps"))
    assert main is not None
    assert maps is not None
    assert maps["x"] >= main["x"] + main["width"]
    assert maps["y"] < main["y"] + main["height"]


def test_units_stand_under_the_pictures(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page, (height, width) = visit(pages["binary"].path), pages["binary"].look(0).shape
    gamma = f"gamma {float(pages['binary'].look(0).heads[0].module.gamma.detach()):.3g}"
    for place, words in {
        "#caption": [f"pixels, x y of {width} x {height}"],
        "#plain-caption": ["Attention, share of 1; ", "row sums to 1.00"],
        "#used-caption": ["Attention, share of 1; ", "row sums to 1.00"],
        "#roughness-caption": ["Roughness, 0 to 1; here "],
        "#gate-caption": ["as trained: threshold 0.1; ", "of 64 positions"],
        "#readout": [gamma, f"of {width} x {height}\N{NO-BREAK SPACE}px", "without smoothing"],
    }.items():
        for word in words:
            assert word in page.locator(place).inner_text()


def test_run_without_attention_shows_masks_alone(visit: Callable[..., Page], pages: dict[str, Written]) -> None:
    page, look = visit(pages["none"].path), pages["none"].look(0)
    assert page.get_by_text("has no attention to look at").is_visible()
    assert page.locator(".maps, #rules, .mark:visible").count() == 0
    expect_mask(page, look, None)
    page.locator("[name=shows][value=errors]").check()
    choose_sample(page, 1)
    expect_mask(page, pages["none"].look(1), None)


def test_page_needs_no_file_beside_it(visit: Callable[..., Page], pages: dict[str, Written], tmp_path: Path) -> None:
    alone = tmp_path / "mailed page.html"
    shutil.copy(pages["binary"].path, alone)
    page = visit(alone)
    widths = page.evaluate("() => [...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 2 + len(MAPS)
    assert min(widths) > 0
