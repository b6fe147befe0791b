"""The figures of real runs: which are written, what they show, what is refused."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from look_runs import copy_with_model, small_net
from smooth_attention.cli.main import DONE, WRONG_REQUEST, run
from smooth_attention.core.errors import ConfigError, OptionError
from smooth_attention.core.records import read_record
from smooth_attention.look.figure_input import FigureInput, open_figure_input
from smooth_attention.look.figures import (
    PRINT_PX,
    TURNING,
    draw_distribution,
    draw_matrix,
    draw_thresholds,
    figure_makers,
    write_figures,
)
from smooth_attention.metrics.iou import image_iou, show_iou
from smooth_attention.models.rows import Rule
from smooth_attention.runs.picks import iou_by_stem
from smooth_attention.runs.pictures import shrink
from smooth_attention.viz.curves import print_figure
from smooth_attention.viz.surfaces import turning_page

FLAT = ["network", "masks", "attention", "surface", "scatter", "distribution", "thresholds", "epochs", "matrix"]


def input_of(
    *runs: Path, cache: Path, stem: str | None = None, point: tuple[float, float] | None = None
) -> FigureInput:
    return open_figure_input(runs, cache=cache, stem=stem, point=point, thresholds=(0.1, 0.9))


@pytest.fixture(scope="module")
def other_run(look_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with another rule, in a directory of the same name."""
    folder = tmp_path_factory.mktemp("other") / look_run.name
    return copy_with_model(look_run, folder, small_net(fraction=0.5), threshold=None, fraction=0.5)


@pytest.fixture(scope="module")
def written(look_run: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("figures") / "new" / "folder"
    list(write_figures([look_run], output, cache=cache))
    return output


def test_every_figure_is_written_for_print_and_page(written: Path) -> None:
    names = {f"{name}.{kind}" for name in FLAT for kind in ("png", "svg")} | {f"{name}.html" for name in TURNING}
    assert {path.name for path in written.iterdir()} == names
    for name in FLAT:
        with Image.open(written / f"{name}.png") as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=1)
        assert ElementTree.parse(written / f"{name}.svg").getroot().tag.endswith("svg")
    for name in TURNING:
        page = (written / f"{name}.html").read_text()
        assert 'src="http' not in page


@pytest.mark.slow
def test_every_figure_of_two_runs_is_drawn(look_run: Path, other_run: Path, cache: Path) -> None:
    for name, make in figure_makers(input_of(look_run, other_run, cache=cache)).items():
        files = (turning_page if name in TURNING else print_figure)(make())
        assert list(files) == (["html"] if name in TURNING else ["png", "svg"])


def test_position_is_where_it_was_asked_for(look_run: Path, other_run: Path, cache: Path) -> None:
    record = read_record(look_run)
    stem = next(s for s in iou_by_stem(record) if int(s.removeprefix("scene")) % 3)  # not square, see write_scenes
    given = input_of(look_run, other_run, cache=cache, stem=stem, point=(50.0, 10.0))
    height, width = given.pairs[stem].mask.shape
    assert height != width
    figure = figure_makers(given)["attention"]()
    pictures = [axes for axes in figure.axes if axes.images and axes.patches]
    assert len(pictures) == 10
    for axes in pictures:
        patch = axes.patches[0]
        assert patch.get_x() <= 50 < patch.get_x() + patch.get_width()
        assert patch.get_y() <= 10 < patch.get_y() + patch.get_height()
        assert axes.images[0].get_extent() == [0, width, height, 0]
        assert patch.get_width() == pytest.approx(width / 8)
    assert "position at 50, 10 px" in given.title("x")


def test_automatic_choice_is_where_there_is_smoothing(look_run: Path, cache: Path) -> None:
    given = input_of(look_run, cache=cache)
    (run,) = given.runs
    fractions = {stem: run.head(stem).gate().mean() for stem in given.pairs}
    assert fractions[given.stem] == max(fractions.values()) > 0
    head = run.head(given.stem)
    assert head.roughness.ravel()[given.position(run)] == head.roughness.max()
    assert f"(most smoothing of {len(given.pairs)})" in given.title("x")


def test_automatic_choice_says_so_where_all_smooth_as_much(other_run: Path, cache: Path) -> None:
    given = input_of(other_run, cache=cache)  # fraction 0.5
    steepest = {stem: given.runs[0].head(stem).roughness.max() for stem in given.pairs}
    assert steepest[given.stem] == max(steepest.values())
    assert f"(the roughest of {len(given.pairs)})" in given.title("x")


def test_masks_have_the_figure_of_the_record(look_run: Path, cache: Path) -> None:
    given = input_of(look_run, cache=cache)
    figure = figure_makers(given)["masks"]()
    figures = iou_by_stem(read_record(look_run))
    rows: dict[str, list[str]] = {}
    for axes in figure.axes:
        if axes.get_ylabel():
            rows[axes.get_ylabel()] = []
        if axes.get_xlabel():
            rows[list(rows)[-1]].append(axes.get_xlabel())
    assert list(rows) == list(given.pairs)
    looks = given.runs[0].looks
    for stem, (off, used) in rows.items():
        masks = {rule: looks[stem].labels(rule) for rule in (None, Rule())}
        iou = {rule: show_iou(image_iou(mask, given.pairs[stem].mask, None)) for rule, mask in masks.items()}
        changed = 100 * (masks[None] != masks[Rule()]).mean()
        assert (used, off) == (iou[None], f"{iou[Rule()]}; {changed:.3f} % of pixels differ")
    # the record is of the network before it was sharpened; ranks are by the record
    ranked = [figures[stem] for stem in given.pairs]
    assert ranked == sorted(ranked)


def test_distribution_is_the_share_of_values_up_to_each(look_run: Path, cache: Path) -> None:
    given = input_of(look_run, cache=cache)
    axes = draw_distribution(given).axes[0]
    run = given.runs[0]
    values = np.concatenate([row.plain.ravel() for stem in run.looks for row in run.head(stem).rows(range(64))])
    x, y = axes.lines[0].get_data()
    for place in (0, 40, 80, 120):
        assert y[place] == pytest.approx((values <= x[place]).mean())
    assert axes.get_xscale() == "log"


def test_thresholds_smooth_what_the_gate_says(look_run: Path, cache: Path) -> None:
    given = input_of(look_run, cache=cache)
    axes = draw_thresholds(given).axes[0]
    x, y = axes.lines[0].get_data()
    assert given.runs[0].head(given.stem).name in axes.get_title()
    run = given.runs[0]
    for place in (5, 20, 60):
        gates = [run.head(stem).gate(Rule(float(x[place]))).mean() for stem in run.looks]
        assert y[place] == pytest.approx(np.mean(gates), abs=0.005)


def test_matrix_of_a_large_grid_is_thinned(look_run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = input_of(look_run, cache=cache)
    whole = draw_matrix(given).axes[0].images[0].get_array()
    assert whole.shape == (64, 64)
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-5)
    monkeypatch.setattr("smooth_attention.look.figures.MAX_MATRIX_SIDE", 20)
    thinned = draw_matrix(given).axes[0].images[0].get_array()
    np.testing.assert_allclose(thinned, whole[::4, ::4])


def test_runs_called_alike_are_told_apart(look_run: Path, other_run: Path, cache: Path, tmp_path: Path) -> None:
    given = input_of(look_run, other_run, cache=cache)
    names = [run.name for run in given.runs]
    assert len(set(names)) == 2
    assert all(name.endswith(f"/{look_run.name}") for name in names)
    networks = [name for name in figure_makers(given) if name.startswith("network")]
    assert len(networks) == 2
    assert not any("/" in name for name in networks)


def test_arm_without_attention_has_network_and_masks(
    look_run: Path, bare_run: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["figures", str(bare_run), "--output", str(tmp_path / "out")]) == DONE
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"network", "masks"}
    assert "masks.png" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="were trained on different data"):
        input_of(look_run, bare_run, cache=cache)


def test_classes_are_drawn_by_name(class_run: Path, cache: Path, tmp_path: Path) -> None:
    files = [path.name for path in write_figures([class_run], tmp_path, cache=cache)]
    assert "masks.png" in files
    assert "attention.svg" in files


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--image", "nowhere"], "'nowhere' is no test image of"),
        (["--position", "-1", "5"], "lies outside image"),
        (["--position", "5000", "5"], "lies outside image"),
        (["--thresholds", "0.1", "nan"], "threshold needs to be a number"),
        (["--thresholds", "0.3", "0.30000001"], "got twice threshold 0.3"),
    ],
)
def test_other_images_and_places_are_refused(
    look_run: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(cache))
    assert run(["figures", str(look_run), "--output", str(tmp_path / "out"), *options]) == WRONG_REQUEST
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_in_the_place_of_a_file_is_refused_before_anything_is_drawn(
    look_run: Path, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    for output in (file, file / "below"):
        with pytest.raises(OptionError, match="file is no directory; name another place"):
            next(write_figures([look_run], output, cache=cache))
    assert file.read_text() == "kept"


def test_number_of_runs(look_run: Path, cache: Path) -> None:
    with pytest.raises(OptionError, match="of one run, or of two side by side, got 3"):
        input_of(look_run, look_run, look_run, cache=cache)
    with pytest.raises(OptionError, match="can't be compared with itself"):
        input_of(look_run, look_run, cache=cache)
    with pytest.raises(OptionError, match=r"compares two thresholds, got twice threshold 0\.1"):
        open_figure_input([look_run], cache=cache, stem=None, point=None, thresholds=(0.1, 0.1))


def test_large_images_are_shrunk_for_print() -> None:
    assert shrink((3000, 4000), PRINT_PX) == (600, 800)
    assert shrink((60, 90), PRINT_PX) == (60, 90)
    assert shrink((1, 4000), PRINT_PX) == (1, 800)
