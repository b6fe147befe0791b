"""The report: one file that holds everything it shows, says what is missing, and shows names as they are."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from record_files import read_values, write_values
from report_pictures import add_pictures
from smooth_attention.study.execution.collect import Failure, Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.reporting.charts import MAX_POINTS, over_replicates, rule_curves, styles_of
from smooth_attention.study.reporting.masks import colour_key, mask_sheets
from smooth_attention.study.reporting.report import write_report
from smooth_attention.study.verdicts.claims import Claim
from smooth_attention.study.verdicts.conclusions import judge_study
from smooth_attention.study.verdicts.verdict import judge
from study_records import make_study_records

ARMS = {
    "none": 0.70,
    "attention": 0.705,
    "smooth-0.1": 0.71,
    "smooth-0.4": 0.72,
    "smooth-f0.1": 0.71,
    "smooth-f0.25": 0.7,
}
COMMAND = "smooth-attention study data/flood --output 'my study'"
NASTY = "</script><script>alert(1)</script><img src=http://example.org/x.png>&amp;"


def write(study: Study, *, claims: Sequence[Claim] = ()) -> str:
    conclusions = dataclasses.replace(judge_study(study), claims=tuple(claims))
    path = write_report(study, conclusions, command=COMMAND)
    assert path == study.directory / "report.html"
    return path.read_text(encoding="utf-8")


def without_library(page: str) -> str:
    """Return the page without plotly's JavaScript."""
    scripts = re.findall(r"<script>.*?</script>", page, flags=re.DOTALL)
    return page.replace(max(scripts, key=len), "")


def charts(page: str) -> list[dict[str, Any]]:
    """Return the charts of a page, as the page's own code reads them."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)]


def scatter_of(page: str) -> dict[str, Any]:
    words = [[note["text"] for note in chart["layout"].get("annotations", ())] for chart in charts(page)]
    return charts(page)[next(place for place, found in enumerate(words) if "arm better" in found)]


def titles(page: str) -> list[str]:
    return re.findall(r"<figure>\s*<h4>([^<]*)", page)


def edit(study: Study, change: Any) -> Study:
    for result in study.results:
        record = read_values(result.directory)
        change(record)
        write_values(result.directory, record)
    return load_study(study.config, study.directory)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """A study with everything that a report shows, and its report."""
    study = make_study_records(
        tmp_path_factory.mktemp("full"),
        arms=ARMS,
        seeds=2,
        dataset=["flood", "polyps"],
        contrasts=[["smooth-0.4", "none"], ["smooth-f0.25", "attention"]],
        tuned=True,
        corruptions=True,
        half_data=True,
    )
    add_pictures(study)
    claim = Claim("flood", "table 5", "best at 0.4", measured="0.720", outcome="holds", on_paper_data=True)
    return study, write(study, claims=[claim])


def test_every_verdict_sentence_is_on_top(full: tuple[Study, str]) -> None:
    study, page = full
    top = page[: page.index('<section id="differences">')].replace("&#39;", "'")
    for finding in judge(study):
        assert finding.sentence in top
    assert "Runs</dt><dd>28 of 28 done</dd>" in top
    assert "✓ control seen" in top


def test_every_part_is_there_with_convention_and_command(full: tuple[Study, str]) -> None:
    study, page = full
    assert 'class="missing"' not in page.replace('<noscript><p class="missing">', "")
    found = titles(page)
    for dataset in study.datasets:
        for part in ("IoU by threshold", "IoU by fraction", "image by image", "corrupted images", "training", "gamma"):
            assert f"{dataset}: {part}" in found
    assert len(charts(page)) == page.count("<figcaption>") == 1 + 2 * 9
    captions = re.findall(r"<figcaption>([^<]+)<code[^>]*>([^<]+)</code>", page)
    assert len(captions) == page.count("<figcaption>")
    assert {command for _, command in captions} == {COMMAND.replace("'", "&#39;")}
    assert "best at 0.4" in page


def test_page_loads_nothing(full: tuple[Study, str]) -> None:
    page = without_library(full[1])
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert not re.search(r"<link|<iframe|@import|url\(", page)
    assert {address[:5] for address in re.findall(r'src="([^"]*)', page)} == {"data:"}


def test_library_is_there_once(full: tuple[Study, str]) -> None:
    assert full[1].count("plotly.js v") == 1


def test_an_arm_looks_the_same_in_every_chart(full: tuple[Study, str]) -> None:
    study, page = full
    styles = styles_of(study)
    looks: dict[str, set[tuple[str, str]]] = {}
    for chart in charts(page):
        for trace in chart["data"]:
            if trace.get("name") in styles and trace.get("line"):
                looks.setdefault(trace["name"], set()).add((trace["line"]["color"], trace["marker"]["symbol"]))
    assert set(looks) >= set(ARMS)
    assert looks == {name: {(styles[name].hex, styles[name].symbol)} for name in looks}


def test_figures_for_paper_are_written(full: tuple[Study, str]) -> None:
    found = {path.name for path in (full[0].directory / "figures").iterdir()}
    names = ["forest", *(f"{rule}-{dataset}" for rule in ("threshold", "fraction") for dataset in ("flood", "polyps"))]
    assert found == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def test_report_is_the_same_twice(full: tuple[Study, str]) -> None:
    study, page = full
    again = write(study)
    assert again.split("<h2>Claims")[0] == page.split("<h2>Claims")[0]


def test_masks_show_image_truth_and_both_arms(full: tuple[Study, str]) -> None:
    sheets = mask_sheets(full[0])
    assert [sheet.dataset for sheet in sheets] == ["flood", "polyps"]
    for row in (row for sheet in sheets for row in sheet.rows):
        captions = [picture.caption for picture in row.pictures]
        assert captions[:2] == ["image", "truth"]
        assert re.fullmatch(r"smooth-0.4: IoU 0\.\d\d", captions[2])
        assert re.fullmatch(r"none: IoU 0\.\d\d", captions[3])
        assert len({picture.address for picture in row.pictures}) == 4


def test_masks_of_classes_have_the_colours_of_classes(tmp_path: Path) -> None:
    classes = ["sky", "ground"]
    study = make_study_records(tmp_path, arms=ARMS, seeds=1)
    study = edit(study, lambda record: record["data"].update(class_names=classes))
    add_pictures(study, classes)
    (sheet,) = mask_sheets(study)
    assert sheet.key == colour_key(classes) == (("#0072b2", "sky"), ("#e69f00", "ground"))
    assert "sky</span>" in write(study)


def test_mask_of_an_image_without_iou_says_so(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.7, "smooth-0.4": 0.72}, seeds=1)
    study = edit(study, lambda record: [image.update(iou=None) for image in record["metrics"]["test"]["images"]])
    add_pictures(study)
    assert "IoU undefined" in write(study)


def test_missing_parts_are_named_and_leave_no_empty_chart(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.7, "median": 0.7}, seeds=1, measured=False)
    for result in study.results:
        (result.directory / "metrics.jsonl").unlink()
    page = edit(study, lambda record: record["metrics"]["test"].pop("bypass", None))
    text = write(page)
    for sentence in (
        "Fewer than two thresholds",
        "There are no samples",
        "Corrupted images were not scored",
        "No run left its metrics by epoch",
        "No arm has a block",
        "None of the paper&#39;s claims",
    ):
        assert sentence in text
    assert titles(text) == ["Differences of arms", "flood: image by image"]


def test_arms_that_never_met_leave_no_differences(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.7, "smooth-0.4": 0.72}, seeds=1)
    for result in study.of("flood", "none"):
        (result.directory / "record.json").unlink()
    page = write(load_study(study.config, tmp_path))
    assert "no pair of trainings is finished" in page
    assert "Differences of arms" not in page
    assert not (tmp_path / "figures" / "forest.png").exists()


def test_study_without_any_run_has_a_report(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.7, "smooth-0.4": 0.72}, seeds=1)
    empty = dataclasses.replace(study, results=())
    page = write(empty)
    assert "nothing compared yet" in page
    assert "0 of 2 done, 2 to do" in page
    assert charts(page) == []


def test_failed_runs_are_counted_and_say_why(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.7, "smooth-0.4": 0.72}, seeds=2)
    failure = Failure("flood", "smooth-0.4", 0, 1, "the loss became nan in epoch 3")
    kept = tuple(result for result in study.results if (result.arm, result.seed) != ("smooth-0.4", 1))
    page = write(dataclasses.replace(study, results=kept, failures=(failure,)))
    assert "3 of 4 done, 1 failed" in page
    assert "the loss became nan in epoch 3" in page


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, seeds=2, half_data=True)

    def rename(record: dict[str, Any]) -> None:
        for image in record["metrics"]["test"]["images"]:
            image["stem"] = image["group"] = f"{image['stem']}{NASTY}"

    study = edit(study, rename)
    results = tuple(dataclasses.replace(result, dataset=NASTY.replace("/", "-")) for result in study.results)
    failure = Failure(NASTY, NASTY, 0, 0, NASTY)
    study = dataclasses.replace(study, results=results, failures=(failure,))
    claim = Claim(NASTY, NASTY, NASTY, measured=NASTY, outcome="holds", on_paper_data=False)
    path = write_report(study, dataclasses.replace(judge_study(study), claims=(claim,)), command=NASTY)
    page = without_library(path.read_text(encoding="utf-8"))
    assert "alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "<img src=http" not in page
    assert len(re.findall("<script", page)) == 1 + len(charts(page))
    scatter = scatter_of(page)
    assert scatter["data"][1]["text"][0].endswith("&lt;img src=http://example.org/x.png&gt;&amp;amp;")


def test_tuned_arm_says_what_it_chose(full: tuple[Study, str]) -> None:
    chosen = {result.chosen for result in full[0].of("flood", "smooth-tuned")}
    assert f"smooth-tuned ({', '.join(sorted(str(name) for name in chosen))})" in full[1]


def test_curves_have_a_place_for_each_threshold_and_levels_for_what_they_compare_with(full: tuple[Study, str]) -> None:
    curves, levels = rule_curves(full[0], "flood", "threshold")
    (curve,) = curves
    assert list(curve.x) == [0.1, 0.4]
    assert curve.mean == pytest.approx([0.71, 0.72])
    assert {level.name: round(level.mean, 6) for level in levels} == {"none": 0.7, "attention": 0.705}


def test_one_threshold_is_no_curve(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.7, "smooth-0.4": 0.72})
    assert rule_curves(study, "flood", "threshold") == ([], [])


def test_interval_over_trainings_is_students() -> None:
    mean, low, high = over_replicates([0.7, 0.8])
    assert mean == pytest.approx(0.75)
    assert high - mean == pytest.approx(mean - low) == pytest.approx(12.706 * 0.05, rel=1e-4)
    assert str(over_replicates([0.7])) == "(0.7, nan, nan)"
    assert str(over_replicates([float("nan")])) == "(nan, nan, nan)"


def test_many_images_are_thinned_and_the_caption_says_so(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.7, "smooth-0.4": 0.72}, seeds=1, images=MAX_POINTS + 1)
    page = write(study)
    assert f"at most {MAX_POINTS} images" in page
    scatter = scatter_of(page)
    assert len(scatter["data"][1]["text"]) == (MAX_POINTS + 2) // 2


def test_paper_protocol_shows_its_own_training_figure(tmp_path: Path) -> None:
    page = write(make_study_records(tmp_path, arms={"attention": 0.7, "smooth-0.4": 0.72}, protocol="paper"))
    assert "by columns, mean over batches" in page


@pytest.mark.slow
def test_500_records_make_less_than_10_mb(tmp_path: Path) -> None:
    arms = {"none": 0.7, "attention": 0.7} | {f"smooth-{tenth / 10:g}": 0.7 for tenth in range(1, 9)}
    datasets = [f"data{number}" for number in range(5)]
    study = make_study_records(tmp_path, arms=arms, seeds=10, images=24, dataset=datasets, corruptions=True)
    assert len(study.results) == 500
    add_pictures(dataclasses.replace(study, results=tuple(r for r in study.results if r.seed == 0)))
    write(study)
    assert (tmp_path / "report.html").stat().st_size < 10e6
