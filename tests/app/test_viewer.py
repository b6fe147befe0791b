"""Answers to the page, without the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from look_runs import small_net
from record_files import write_values
from smooth_attention.app.drawing import PANEL_PX, rule_of
from smooth_attention.app.session import ERRORS, SHOWN_PX, Seen, Session, Settings, fit
from smooth_attention.app.viewer import Viewer
from smooth_attention.core.errors import ConfigError, DataError, OptionError
from smooth_attention.core.records import read_record
from smooth_attention.data.cache import resize_mask
from smooth_attention.look.attention import Look


@pytest.fixture(scope="module")
def viewer(make_viewer: Callable[..., Viewer]) -> Viewer:
    return make_viewer(classes=3, heads=2)


@pytest.fixture
def session(viewer: Viewer) -> Session:
    return viewer.choose_sample("smooth", next(iter(viewer.open("smooth").samples)))


def test_samples_are_the_test_images_with_their_figures(viewer: Viewer, app_runs: dict[str, Path]) -> None:
    record = read_record(app_runs["smooth"])
    images = {image.stem: image.iou for image in record.metrics.test.images}
    assert dict(viewer.open("smooth").samples) == images
    assert f"Test IoU {record.metrics.test.pooled.iou:.3f} (pooled" in viewer.open("smooth").notes[0]


def test_mask_caption_has_the_figure_of_the_record(viewer: Viewer, session: Session) -> None:
    iou = viewer.open("smooth").samples[session.subject.name]
    _, views = viewer.draw(session, Settings("smooth"))
    assert f"IoU {iou:.3f} of this image (protocol standard)" in views[0].captions[0].text


def test_other_sizes_are_told(viewer: Viewer, session: Session) -> None:
    _, (view,) = viewer.draw(session, Settings("smooth", image_size=128))
    assert "of this image (protocol standard but at 128 px)" in view.captions[0].text
    assert "128 px" in view.heading


def test_image_that_a_network_may_have_seen_is_no_fair_test(viewer: Viewer, session: Session) -> None:
    offer = viewer.open("smooth")
    assert session.subject.is_test_of(offer)
    stem = next(stem for stem in offer.source.stems if stem not in offer.test)
    seen = viewer.choose_sample("smooth", next(iter(offer.samples)))
    moved = replace(seen, subject=replace(seen.subject, name=stem))
    assert "no test image of this network: no fair IoU" in viewer.draw(moved, Settings("smooth"))[1][0].captions[0].text
    other = replace(seen, subject=replace(seen.subject, data="another data set"))
    assert not other.subject.is_test_of(offer)
    assert "no fair" not in viewer.draw(session, Settings("smooth", "none"))[1][1].captions[0].text


def test_two_networks_share_the_scale_of_attention(viewer: Viewer, session: Session) -> None:
    seen, views = viewer.draw(session, Settings("smooth", "heads", head=1))
    ends = {caption.ends for view in views for caption in view.captions[1:3]}
    largest = max(float(row.max()) for each in seen if each.row for row in (each.row.plain, each.row.used))
    assert ends == {("0", f"{largest:.3g}")}
    assert (seen[1].head.number, seen[0].head.number) == (1, 0)  # the first has one head only


def test_click_is_where_the_picture_says(viewer: Viewer, session: Session) -> None:
    height, width = session.subject.shape
    for longest in (SHOWN_PX, PANEL_PX):
        factor = longest / max(height, width)
        clicked = viewer.click(session, 0.75 * width * factor - 0.5, 0.25 * height * factor - 0.5, longest)
        assert clicked.point == pytest.approx((0.75 * width, 0.25 * height))
        assert session.point == (width / 2, height / 2)


def test_errors_are_drawn_where_the_truth_is_known(viewer: Viewer, session: Session, tmp_path: Path) -> None:
    _, (view,) = viewer.draw(session, Settings("smooth", shows=ERRORS))
    assert [name for name, _ in view.captions[0].key] == [
        "found (true positive)", "false alarm (false positive)", "missed (false negative)",
    ]  # fmt: skip
    Image.fromarray(session.subject.load()).save(tmp_path / "own.png")
    _, (own,) = viewer.draw(viewer.choose_upload(tmp_path / "own.png"), Settings("smooth", shows=ERRORS))
    assert own.captions[0].text == "no errors are drawn: no truth with these labels is known"


def test_errors_of_classes_are_coloured_by_predicted_class(viewer: Viewer, session: Session) -> None:
    settings = Settings("heads", opacity=1.0)
    _, (view,) = viewer.draw(session, settings)
    net = viewer.open("heads").net
    truth = (np.arange(session.subject.shape[1]) % 3 * np.ones(session.subject.shape)).astype(np.uint8)
    judged = replace(session, subject=replace(session.subject, truth=truth, class_names=net.label_names), masks={})
    mask = session.masks["heads", settings][0]
    settings = replace(settings, shows=ERRORS)
    _, (errors,) = viewer.draw(judged, settings)
    assert "coloured by predicted class" in errors.captions[0].text
    assert view.captions[0].key[0] == ("class 0", "rgb(0 114 178)")
    wrong = resize_mask(truth, mask.shape[:2]) != judged.looks["heads", None].labels(None, mask.shape[:2])
    assert 0 < wrong.mean() < 1
    drawn = judged.masks["heads", settings][0]
    np.testing.assert_array_equal(drawn[wrong], mask[wrong])
    np.testing.assert_array_equal(drawn[~wrong], fit(session.subject.shown, PANEL_PX)[~wrong])


def test_truth_of_other_labels_does_not_count(viewer: Viewer, session: Session) -> None:
    _, (view,) = viewer.draw(session, Settings("heads"))
    assert "IoU" not in view.captions[0].text


def test_what_was_not_trained_so_says_so_wherever_it_goes(
    viewer: Viewer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smooth_attention.app.viewer.encode_figure", lambda figure: figure.get_suptitle().encode())
    for settings, is_told in [(Settings("smooth"), False), (Settings("smooth", rule="threshold"), True)]:
        _, (view,) = viewer.draw(session, settings)
        surface = viewer.turn(session, settings)[0].layout.title.text
        for told in (view.heading, viewer.view_file(session, settings).decode(), surface):
            assert ("recomputed with the same weights, not retrained" in told) == is_told


def test_rule_is_that_of_the_block_that_is_looked_at(viewer: Viewer, session: Session) -> None:
    net = small_net(stages=(-3, -2), threshold=0.1)
    look = Look(net, session.subject.load(), 64)
    look.heads[1].module.threshold, look.heads[1].module.fraction = None, 0.5
    seen = [Seen(viewer.open("smooth"), look, head) for head in look.heads]
    assert [rule_of(each, None) for each in seen] == ["threshold 0.1", "fraction 0.5"]


def test_run_that_failed_before_its_data_was_open_is_a_sentence(tmp_path: Path) -> None:
    write_values(tmp_path / "failed", {"status": "failed", "reason": "no data", "config": {}})
    with pytest.raises(ConfigError, match="failed is failed, not done"):
        Viewer({"failed": tmp_path / "failed"}).open("failed")


def test_looks_of_networks_that_are_no_longer_shown_are_dropped(viewer: Viewer, session: Session) -> None:
    viewer.draw(session, Settings("smooth", "none"))
    viewer.draw(session, Settings("none", image_size=128))
    assert list(session.looks) == [("none", 128)]
    assert [name for name, _ in session.masks] == ["none"]


def test_saved_files_are_the_view_and_the_mask_at_the_images_size(
    viewer: Viewer, session: Session, tmp_path: Path
) -> None:
    for name, content in {
        "view": viewer.view_file(session, Settings("smooth", "heads")),
        "mask": viewer.mask_file(session, Settings("heads")),
    }.items():
        (tmp_path / name).write_bytes(content)
    with Image.open(tmp_path / "mask") as mask:
        assert (mask.mode, mask.size) == ("P", session.subject.shape[::-1])
        assert np.asarray(mask).max() == 2
    with Image.open(tmp_path / "view") as view:
        assert view.format == "PNG"
    with pytest.raises(OptionError, match="none has no attention to save a view of; save its mask"):
        viewer.view_file(session, Settings("none"))


@pytest.mark.parametrize("stem", ["../record", "/etc/passwd", "scene99"])
def test_only_sample_images_are_opened(viewer: Viewer, stem: str) -> None:
    with pytest.raises(DataError, match="no sample image of smooth; choose one of the list"):
        viewer.choose_sample("smooth", stem)


def test_unknown_names_are_refused(viewer: Viewer, session: Session) -> None:
    with pytest.raises(OptionError, match="none of the networks here"):
        viewer.open("/etc")
    with pytest.raises(OptionError, match="a rule is one of as trained"):
        viewer.draw(session, Settings("smooth", rule="always"))
    with pytest.raises(OptionError, match="fraction needs to lie between 0 and 1"):
        viewer.draw(session, Settings("smooth", rule="fraction", value=2.0))
