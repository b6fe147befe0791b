"""What a look page holds: rows, gates and masks against Look and Head, its size, its sentences."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from look_runs import HOSTILE, SIZE_PX, copy_with_model, small_net
from smooth_attention.cli.main import main
from smooth_attention.core.errors import ConfigError, OptionError
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import Record, read_record
from smooth_attention.data.cache import resize_mask
from smooth_attention.data.shapes import draw_scene
from smooth_attention.data.sources import Pair
from smooth_attention.look.attention import Head, Look
from smooth_attention.look.page import remark_on_gate, step_threshold, write_look_page
from smooth_attention.look.page_data import (
    EVERY,
    MAP_BYTES,
    MAX_VIEWS,
    OFF,
    PICTURE_BYTES,
    ROW_BYTES,
    PageHead,
    Stop,
    choose_steps,
    kept_places,
    list_stops,
    pack_picture,
    picture_shape,
    plan_views,
    pool_keys,
    sample_data,
)
from smooth_attention.metrics.iou import image_iou
from smooth_attention.models.rows import Rule
from smooth_attention.runs.picks import iou_by_stem, spread_stems

MOST_BYTES = 8_000_000  # of a page of 12 images


def make_look(shape: tuple[int, int] = (60, 90), image_size: int = SIZE_PX, **net: Any) -> Look:
    return Look(small_net(**net), make_pair(shape).image, image_size)


def make_pair(shape: tuple[int, int]) -> Pair:
    scene = draw_scene(0, size=SIZE_PX)
    image = Image.fromarray(scene.image).resize(shape[::-1])
    return Pair(np.asarray(image), resize_mask(scene.mask.astype(np.uint8), shape))


def make_sample(look: Look, views: Sequence[PageHead], stops: Sequence[Stop] | None = None) -> dict[str, Any]:
    offered, pair = list_stops(look) if stops is None else stops, make_pair(look.shape)
    return sample_data(look, pair, views, offered, class_names=None, iou=image_iou(look.labels(), pair.mask, None))


def unpack(text: str, kind: str = "u1") -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


def unpack_rows(view: dict[str, Any], name: str) -> np.ndarray:
    largest = unpack(view[f"{name}_max"], "<f4")
    return (unpack(view[name]).reshape(len(largest), -1) / 255) ** 2 * largest[:, None]


def expect_rows(head: Head, view: PageHead, kept: dict[str, Any]) -> None:
    """Assert that rows are those of the head to within a step of 8 bits, and sum to 1."""
    pairs = head.rows(view.positions, EVERY)
    for name, maps in (("plain", [p.plain for p in pairs]), ("mean", [p.used for p in pairs])):
        exact, found = pool_keys(np.stack(maps), view.pool), unpack_rows(kept, name)
        assert np.all(np.abs(found - exact) <= exact.max(1, keepdims=True) / 255)
        np.testing.assert_allclose(found.sum(1), 1, atol=0.01)


@pytest.mark.parametrize(
    ("grid", "entries", "steps"),
    [
        ((1, 1), 1, (1, 1)),
        ((14, 14), 165_000, (1, 1)),
        ((14, 14), 196 * 196 - 1, (2, 1)),
        ((14, 14), 49 * 49, (2, 2)),
        ((14, 14), 0, (14, 14)),
        ((1, 9), 14, (3, 3)),
        ((64, 64), 165_000, (4, 3)),
        ((256, 256), 165_000, (13, 13)),
    ],
    ids=str,
)
def test_steps_are_the_smallest_that_fit(grid: tuple[int, int], entries: int, steps: tuple[int, int]) -> None:
    assert choose_steps(grid, entries) == steps


@pytest.mark.parametrize(
    ("side", "step", "places"), [(3, 1, [0, 1, 2]), (14, 4, [1, 5, 9, 13]), (6, 3, [1, 4]), (5, 5, [2]), (3, 9, [1])]
)
def test_kept_places_stand_in_the_middle_of_those_they_stand_for(side: int, step: int, places: list[int]) -> None:
    assert list(kept_places(side, step)) == places


def test_keys_are_summed_over_blocks_that_end_at_the_border() -> None:
    rows = np.random.default_rng(0).random((2, 5, 7), np.float32)
    wanted = [[row[i : i + 3, j : j + 3].sum() for i in (0, 3) for j in (0, 3, 6)] for row in rows]
    np.testing.assert_allclose(pool_keys(rows, 3), wanted, rtol=1e-6)


def test_every_block_has_a_view_before_any_has_a_second() -> None:
    look = make_look(stages=(-3, -2), heads=8, threshold=0.1)
    views, left_out = plan_views(look.heads)
    assert len(views) == MAX_VIEWS
    assert [view.index for view in views] == [*range(4), *range(8, 12)]
    assert left_out == [look.heads[index].name for index in (*range(4, 8), *range(12, 16))]


NETS: dict[str, dict[str, Any]] = {
    "threshold": {"threshold": 0.1},
    "fraction": {"fraction": 0.3},
    "attention": {},
    "soft": {"threshold": 0.2, "temperature": 0.1},
    "random": {"block": "random", "threshold": 0.2},
    "heads": {"stages": (-3, -2), "heads": 2, "threshold": 0.1},
    "padded": {"arch": "pan", "threshold": 0.1},
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_sample_is_what_look_and_heads_say(net: dict[str, Any]) -> None:
    look = make_look(**net)
    (views, left_out), stops = plan_views(look.heads), list_stops(look)[::3]
    assert left_out == []
    assert stops[0].rule is None
    sample = make_sample(look, views, stops)
    for view, kept in zip(views, sample["views"], strict=True):
        head = look.heads[view.index]
        np.testing.assert_array_equal(unpack(kept["roughness"], "<f4"), head.roughness.ravel())
        np.testing.assert_array_equal(unpack(kept["trained_gate"], "<f4"), head.gate().ravel())
        gates = unpack(kept["gates"]).reshape(len(stops) - 1, -1)
        for stop, gate in zip(stops[1:], gates, strict=True):
            np.testing.assert_array_equal(gate, head.gate(stop.rule).ravel())
        expect_rows(head, view, kept)
    masks = expand_masks(sample)
    for stop, place, iou in zip(stops, sample["mask_of_stop"], sample["iou_of_stop"], strict=True):
        np.testing.assert_array_equal(masks[place], look.labels(stop.rule))
        assert iou == pytest.approx(image_iou(look.labels(stop.rule), make_pair(look.shape).mask, None), abs=1e-6)
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def expand_masks(sample: dict[str, Any]) -> list[np.ndarray]:
    changes = [unpack(text).reshape(sample["picture"][::-1]) for text in sample["masks"]]
    return list(accumulate(changes, np.bitwise_xor))


def test_rules_that_open_the_same_gates_share_a_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    look = make_look(threshold=0.1)
    distinct = {look.heads[0].gate(stop.rule).tobytes() for stop in list_stops(look)}
    passes: list[None] = []
    run = look._run
    monkeypatch.setattr(look, "_run", lambda: (passes.append(None), run())[1])
    make_sample(look, [])
    assert len(passes) == len(distinct) - 1  # that of the training is there
    assert len(distinct) < len(list_stops(look))


@pytest.mark.parametrize("shape", [(480, 640), (2000, 1000), (30, 20), (3, 2000)], ids=str)
def test_picture_keeps_the_proportions_of_its_image(shape: tuple[int, int]) -> None:
    height, width = picture_shape(shape)
    assert max(height, width) == min(640, max(shape))
    assert abs(height / width - shape[0] / shape[1]) <= max(1 / width, height / width**2)


def test_masks_of_large_images_have_the_size_of_the_picture() -> None:
    look = make_look((400, 1200), threshold=0.1)
    sample = make_sample(look, [], [Stop("trained", None)])
    assert (sample["width"], sample["height"], sample["picture"]) == (1200, 400, (640, 213))
    np.testing.assert_array_equal(expand_masks(sample)[0], look.labels(None, (213, 640)))
    assert unpack(sample["truth"]).size == 213 * 640


@pytest.mark.parametrize("heads", [1, 4])
def test_large_grids_are_thinned_until_twelve_images_fit(heads: int) -> None:
    look = make_look((240, 320), 256, stages=(-4,), heads=heads, threshold=0.1)
    assert look.heads[0].grid == (64, 64)
    views, _ = plan_views(look.heads)
    sample = make_sample(look, views, [Stop("trained", None), Stop("none", OFF), Stop("every", EVERY)])
    assert 12 * len(json.dumps(sample)) < MOST_BYTES
    raw = sum(unpack(kept[name]).size for kept in sample["views"] for name in ("plain", "mean"))
    assert ROW_BYTES / 3 < raw <= ROW_BYTES
    for view, kept in zip(views, sample["views"], strict=True):
        assert view.pool > 1
        assert view.step >= view.pool
        expect_rows(look.heads[view.index], view, kept)


def test_heads_whose_maps_fill_the_page_are_left_out() -> None:
    look = make_look((240, 320), 256, stages=(-4,), heads=16, threshold=0.1)
    views, left_out = plan_views(look.heads)
    assert len(views) + len(left_out) == 16
    assert 1 < len(views) < MAX_VIEWS


def test_pictures_of_noise_are_kept_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    assert len(base64.b64decode(pack_picture(noise))) <= PICTURE_BYTES


def test_what_deflates_to_nothing_less_stays_below_the_limit() -> None:
    noise = np.random.default_rng(0).bytes(ROW_BYTES + MAP_BYTES)
    masks = 12 * 100_000  # far above those of trained networks
    assert 12 * (len(base64.b64encode(zlib.compress(noise))) + 4 * PICTURE_BYTES / 3) + masks < MOST_BYTES


def test_page_shows_images_from_worst_to_best_with_their_recorded_figures(
    look_run: Path, cache: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "look.html"
    stems = write_look_page(look_run, output, cache=cache, samples=2)
    record = read_record(look_run)
    assert stems == spread_stems(record, 2)
    data = read_data(output)
    shown = {sample["stem"]: sample["iou_of_stop"][0] for sample in data["samples"]}
    assert shown == pytest.approx({stem: iou_by_stem(record)[stem] for stem in stems}, abs=1e-6)
    text = output.read_text()
    for value in ("small", "unet, encoder resnet18, sees 64 x 64 px", "threshold 0.1", "standard"):
        assert f"<dd>{value}</dd>" in text
    assert "://" not in text
    assert [path.name for path in output.parent.iterdir()] == ["look.html"]


def read_data(page: Path) -> dict[str, Any]:
    """Return what a page holds, as a browser would: up to the first end tag."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_rule_of_the_training_is_told_from_the_same_rule_slid_to(look_run: Path, cache: Path, tmp_path: Path) -> None:
    write_look_page(look_run, tmp_path / "look.html", cache=cache, samples=1)
    stops = read_data(tmp_path / "look.html")["stops"]
    assert [(stop["kind"], stop["rule"]) for stop in stops if stop["is_trained"]] == [
        ("trained", "threshold 0.1"),
        ("threshold", "threshold 0.1"),
    ]
    assert stops[0]["threshold"] == 0.1


@pytest.mark.parametrize(
    ("net", "threshold"),
    [("threshold", 0.1), ("random", 0.2), ("soft", None), ("fraction", None), ("attention", None)],
)
def test_line_stands_where_the_gate_is_a_step(net: str, threshold: float | None) -> None:
    look = make_look(**NETS[net])
    assert step_threshold(look, Stop("trained", None)) == threshold
    assert step_threshold(look, Stop("threshold", Rule(threshold=0.3), 0.3)) == 0.3
    assert [step_threshold(look, Stop("none", rule)) for rule in (OFF, EVERY, Rule(fraction=0.3))] == [None] * 3


def test_names_are_escaped(class_run: Path, cache: Path, tmp_path: Path) -> None:
    write_look_page(class_run, tmp_path / "look.html", cache=cache, samples=2)
    text, data = (tmp_path / "look.html").read_text(), read_data(tmp_path / "look.html")
    assert HOSTILE in data["classes"]
    assert all(sample["stem"].startswith("<b>scene") for sample in data["samples"])
    assert HOSTILE not in text
    assert "<b>" not in text
    assert "<i>classes" not in text
    assert "Look into &lt;i&gt;classes" in text


def test_run_without_attention_shows_masks_and_says_so(look_run: Path, cache: Path, tmp_path: Path) -> None:
    run = copy_with_model(look_run, tmp_path / "run", small_net(block="none"), arm="none", threshold=None)
    write_look_page(run, tmp_path / "look.html", cache=cache, samples=2)
    text, data = (tmp_path / "look.html").read_text(), read_data(tmp_path / "look.html")
    assert "Arm none has no attention to look at" in text
    assert (data["views"], [stop["kind"] for stop in data["stops"]]) == ([], ["trained"])
    assert all(len(sample["masks"]) == 1 for sample in data["samples"])


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        (0.0, "Without the gate no pixel of all test masks would change. Expect the mask to hardly move."),
        (1e-8, "Without the gate less than 0.0001 % of the pixels of all test masks would change. Expect the mask"),
        (0.25, "Without the gate 25 % of the pixels of all test masks would change."),
    ],
)
def test_remark_says_how_much_the_gate_changes(share: float, sentence: str) -> None:
    remark = remark_on_gate(
        read_part(Record, {"metrics": {"test": {"gate_off": {"iou": 0.5, "changed_pixels": share}}}})
    )
    assert remark is not None
    assert remark.startswith(sentence)
    assert ("Expect" in remark) == (share < 0.001)


def test_without_a_gate_there_is_no_remark() -> None:
    assert remark_on_gate(read_part(Record, {"metrics": {"test": {}}})) is None


def test_wrong_requests_are_refused_before_anything_is_written(look_run: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is a directory; name a file in it"):
        write_look_page(look_run, tmp_path, cache=cache)
    with pytest.raises(OptionError, match=r"record\.json is no directory; name another place"):
        write_look_page(look_run, look_run / "record.json" / "look.html", cache=cache)
    with pytest.raises(ConfigError, match="is no run"):
        write_look_page(tmp_path, tmp_path / "look.html", cache=cache)
    with pytest.raises(OptionError, match="the number of images is at least 1, got 0"):
        write_look_page(look_run, tmp_path / "look.html", cache=cache, samples=0)
    assert list(tmp_path.iterdir()) == []


def test_verb_says_what_it_wrote(
    look_run: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["look", str(look_run), "--samples", "1"])
    assert caught.value.code == 0
    size_mb = Path("look.html").stat().st_size / 1e6
    assert capsys.readouterr().out == f"look.html: 1 test image of {look_run}, {size_mb:.1f} MB\n"


def test_rules_come_in_the_order_of_the_controls() -> None:
    stops = list_stops(make_look(threshold=0.1))
    kinds = [stop.kind for stop in stops]
    assert kinds == sorted(kinds, key=["trained", "none", "threshold", "fraction", "every"].index)
    assert [stop.rule for stop in stops if stop.value == 0.25] == [Rule(threshold=0.25), Rule(fraction=0.25)]


def test_page_that_no_mail_carries_is_refused(
    look_run: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smooth_attention.look.page.MAX_PAGE_BYTES", 1000)
    with pytest.raises(OptionError, match=r"above the 0\.001 MB that a mail carries; use --samples 1"):
        write_look_page(look_run, tmp_path / "look.html", cache=cache, samples=2)
    assert not (tmp_path / "look.html").exists()
    assert len(write_look_page(look_run, tmp_path / "look.html", cache=cache, samples=1)) == 1
