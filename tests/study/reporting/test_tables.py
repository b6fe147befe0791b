"""Tables of studies whose figures are known: layout, bold, conventions, files."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from record_files import read_values, write_values
from smooth_attention.core.records import METRIC_TITLES
from smooth_attention.metrics import PUBLISHED
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.reporting.table_formats import Cell, Column, Table, number, spread, word
from smooth_attention.study.reporting.tables import (
    claims_table,
    diagnostics_table,
    metrics_table,
    paper_table,
    robustness_table,
    verdict_table,
    write_tables,
)
from smooth_attention.study.statistics import correct_for_contrasts
from smooth_attention.study.verdicts.claims import judge_claims
from smooth_attention.study.verdicts.conclusions import judge_study
from smooth_attention.study.verdicts.contrasts import compare_arms
from smooth_attention.study.verdicts.verdict import judge
from study_records import make_study_records

ARMS = {"none": 0.70, "attention": 0.70, "smooth-0.4": 0.73}
SWEEP = {"smooth-0.1": 0.70, "smooth-0.4": 0.74, "attention": 0.70}


def texts(table: Table) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def columns_of(table: Table) -> list[str]:
    return [column.title for column in table.columns]


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study_records(tmp_path / "study", arms=ARMS, seeds=4, images=40)


def test_figures_are_means_and_deviations_of_the_trainings(study: Study) -> None:
    table = metrics_table(study, "flood")
    assert columns_of(table) == ["Arm", *METRIC_TITLES.values(), "IoU, pooled"]
    tests = [result.record.metrics.test for result in study.of("flood", "smooth-0.4")]
    rows = {row["arm"]: row for row in read_csv(table.to_csv())}
    for name in METRIC_TITLES:
        values = [getattr(test.per_image, name) for test in tests]
        assert float(rows["smooth-0.4"][name]) == pytest.approx(np.mean(values))
        assert float(rows["smooth-0.4"][f"{name}_sd"]) == pytest.approx(np.std(values, ddof=1))
    pooled = np.mean([test.pooled.iou for test in tests])
    assert texts(table)["smooth-0.4"][-1].startswith(f"{pooled:.3f} ± 0.00")
    assert texts(table)["smooth-0.4"][0].startswith("0.730 ± 0.00")


def test_bold_is_what_holm_over_the_table_leaves(study: Study) -> None:
    table = metrics_table(study, "flood")
    cells = [(arm, name) for arm in ("none", "smooth-0.4") for name in METRIC_TITLES]
    p_values = [compare_arms(study, "flood", arm, "attention", name).p_value() for arm, name in cells]  # type: ignore[union-attr]
    expected = dict(zip(cells, correct_for_contrasts(p_values), strict=True))
    rows = {row["arm"]: row for row in read_csv(table.to_csv())}
    for row in table.rows:
        for cell, name in zip(row[1:], METRIC_TITLES, strict=False):
            key = (row[0].text, name)
            assert cell.is_bold == (key in expected and expected[key] < 0.05 and key[0] == "smooth-0.4")
            if key in expected:
                assert float(rows[key[0]][f"{name}_p"]) == pytest.approx(expected[key])
    assert any(cell.is_bold for row in table.rows for cell in row)
    assert not any(row[-1].is_bold for row in table.rows)
    assert rows["attention"]["iou_p"] == ""
    assert "Bold: better than attention, p < .05 over trainings and images, by Holm over all cells" in table.caption
    assert "4 trainings of each arm, 40 test images" in table.caption
    assert "protocol standard" in table.caption


def test_worse_is_never_bold(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"attention": 0.73, "smooth-0.4": 0.70}, seeds=4, images=40)
    table = metrics_table(study, "flood")
    assert float(read_csv(table.to_csv())[1]["iou_p"]) < 0.05
    assert not any(cell.is_bold for row in table.rows for cell in row)
    assert "Nothing is bold: no cell is better than attention" in table.caption


@pytest.mark.parametrize("replicates", [{"seeds": 1}, {"folds": 4, "seeds": 1, "run_sd": 0.1}], ids=str)
def test_nothing_is_bold_without_evidence(tmp_path: Path, replicates: dict[str, Any]) -> None:
    table = metrics_table(make_study_records(tmp_path, arms=ARMS, images=40, **replicates), "flood")
    assert not any(cell.is_bold for row in table.rows for cell in row)
    assert "Nothing is bold" in table.caption


def test_folds_count_as_trainings(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, folds=4, seeds=2, images=40)
    caption = metrics_table(study, "flood").caption
    assert "8 trainings of each arm over 4 folds, 40 test images" in caption


def test_one_training_has_no_deviation(tmp_path: Path) -> None:
    table = metrics_table(make_study_records(tmp_path, arms=ARMS, seeds=1), "flood")
    assert texts(table)["none"][0] == "0.700"
    assert "deviation" not in table.caption
    assert "1 training of each arm" in table.caption
    assert read_csv(table.to_csv())[0]["iou_sd"] == ""


def test_reference_is_none_where_there_is_no_attention(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.70, "smooth-0.4": 0.74}, seeds=4, images=40)
    table = metrics_table(study, "flood")
    assert "better than none" in table.caption
    assert table.rows[1][1].is_bold
    study = make_study_records(tmp_path / "b", arms={"blur": 0.70, "smooth-0.4": 0.74}, seeds=4, images=40)
    table = metrics_table(study, "flood")
    assert "Nothing is bold: neither attention nor none is among the arms" in table.caption
    assert not any(cell.is_bold for row in table.rows for cell in row)


def test_unfinished_arms_are_counted(study: Study) -> None:
    kept = tuple(result for result in study.results if result.arm != "none" or result.seed < 2)
    part = Study(study.config, study.directory, kept, (), study.planned)
    assert "2 to 4 trainings of each arm" in metrics_table(part, "flood").caption


def test_positive_control_stands_in_the_verdicts_alone(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, half_data=True, contrasts=[["smooth-0.4", "none"]])
    assert study.of("flood", "none-half")
    assert list(texts(metrics_table(study, "flood"))) == list(texts(diagnostics_table(study, "flood"))) == list(ARMS)
    last = verdict_table(judge(study)).rows[-1]
    assert [cell.text for cell in last][:3] == ["flood", "none-half", "none"]
    assert last[-1].text.endswith("(positive control)")


def test_sweep_is_labelled_by_threshold(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=SWEEP, protocol="paper", seeds=4, images=40)
    table = metrics_table(study, "flood")
    assert columns_of(table)[0] == "Threshold"
    assert list(texts(table)) == ["0.1", "0.4", "2.0 (plain attention)"]
    assert "better than 2.0 (plain attention)" in table.caption
    assert table.rows[1][1].is_bold


@pytest.mark.parametrize(
    ("dataset", "layout", "title"),
    [
        ("polyps", None, "Table 4 layout; data: polyps (stand-in)"),
        ("flood", "folder", "Table 5 layout; data: flood (stand-in)"),
        ("flood", "flood", "Table 5 layout; data: flood"),
        ("birds", "birds", "Table 1 layout; data: birds"),
        ("fish", None, "Table 2 layout; data: fish (stand-in)"),
        ("fire", None, "Table 3 layout; data: fire (stand-in)"),
        ("shapes", None, "The paper's layout; data: shapes (in no table of the paper)"),
    ],
)
def test_title_says_whose_layout_and_which_data(tmp_path: Path, dataset: str, layout: str | None, title: str) -> None:
    study = make_study_records(tmp_path, arms=SWEEP, protocol="paper", dataset=dataset, layout=layout)
    assert metrics_table(study, dataset).title == f"{title}; protocol standard"
    assert paper_table(study, dataset).title == f"{title}; protocol paper"


def test_published_figures_have_their_ceiling_and_are_never_bold(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=SWEEP, protocol="paper", seeds=4, images=40)
    for result in study.results:
        record = read_values(result.directory)
        record["metrics"]["paper"]["best_test"]["iou"] += 0.05
        write_values(result.directory, record)
    study = load_study(study.config, study.directory)
    table = paper_table(study, "flood")
    rows = read_csv(table.to_csv())
    assert [(row["threshold"], row["epoch"]) for row in rows[:2]] == [("0.1", "last"), ("0.1", "best on test")]
    records = [result.record.metrics.paper for result in study.of("flood", "smooth-0.1")]
    for row, epoch in zip(rows, ("last", "best_test"), strict=False):
        for name in PUBLISHED:
            assert float(row[name]) == pytest.approx(
                np.mean([getattr(getattr(record, epoch), name) for record in records])
            )
    assert [row["threshold"] for row in rows[-2:]] == ["ceiling", "the paper's own"]
    assert [float(rows[-2][name]) for name in PUBLISHED] == list(records[0].ceiling.written().values())
    assert [cell.text for cell in table.rows[-1][2:]] == ["not available"] * 6
    assert not any(cell.is_bold for row in table.rows for cell in row)
    assert "Nothing is bold: there is one number a training" in table.caption
    assert "Protocol paper: IoU and Dice by image columns" in table.caption


def test_diagnostics_are_those_of_the_chosen_epoch(study: Study) -> None:
    rows = {row["arm"]: row for row in read_csv(diagnostics_table(study, "flood").to_csv())}
    record = study.of("flood", "smooth-0.4")[0].record
    epoch, diagnostics = record.epoch.chosen, record.diagnostics
    assert len(set(diagnostics.gamma)) > 1
    assert float(rows["smooth-0.4"]["gamma"]) == pytest.approx(diagnostics.gamma[epoch])
    assert float(rows["smooth-0.4"]["smoothed_fraction"]) == pytest.approx(diagnostics.smoothed_fraction["t"][epoch])
    assert float(rows["smooth-0.4"]["gate_off_changed_pixels"]) == pytest.approx(0.002)
    assert rows["attention"]["gate_off_changed_pixels"] == ""
    assert float(rows["attention"]["bypass_changed_pixels"]) == pytest.approx(0.01)
    assert float(rows["none"]["train_minus_test_iou"]) == pytest.approx(0.05)
    shown = texts(diagnostics_table(study, "flood"))
    assert shown["none"][:7] == ["–"] * 7
    assert shown["smooth-0.4"][5:] == ["0.200", "1.000", "+5.00"]
    assert "chosen" not in columns_of(diagnostics_table(study, "flood"))


def test_tuned_arm_says_what_it_chose(tmp_path: Path) -> None:
    arms = {"none": 0.70, "smooth-0.1": 0.71, "smooth-0.4": 0.71}
    study = make_study_records(tmp_path, arms=arms, tuned=True, seeds=5, run_sd=0.02)
    chosen = [result.chosen for result in study.of("flood", "smooth-tuned")]
    assert len(set(chosen)) == 2
    table = diagnostics_table(study, "flood")
    assert columns_of(table)[-1] == "chosen"
    shown = texts(table)["smooth-tuned"][-1]
    assert dict(part.split(": ") for part in shown.split(", ")) == {
        name: str(chosen.count(name)) for name in ("smooth-0.1", "smooth-0.4")
    }
    assert texts(table)["smooth-0.1"][-1] == ""


def test_robustness_is_the_mean_over_severities_and_trainings(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, corruptions=True)
    table = robustness_table(study, "flood")
    rows = {row["arm"]: row for row in read_csv(table.to_csv())}
    found = [result.record.metrics.test.corruptions for result in study.of("flood", "smooth-0.4")]
    fog = np.mean([each.corruptions["fog"].retention for each in found])
    assert float(rows["smooth-0.4"]["fog"]) == pytest.approx(fog)
    assert float(rows["smooth-0.4"]["retention"]) == pytest.approx(np.mean([each.retention for each in found]))
    assert float(rows["smooth-0.4"]["noise_row_distance"]) == pytest.approx(0.02)
    assert rows["none"]["noise_row_distance"] == ""
    assert float(rows["none"]["shift_mask_agreement"]) == pytest.approx(
        np.mean([result.record.metrics.test.corruptions.stability["shift"].mask_agreement
                 for result in study.of("flood", "none")])
    )  # fmt: skip
    assert "mean over severities 1, 3 and trainings" in table.caption


def test_verdicts_are_the_findings(study: Study) -> None:
    findings = judge(study)
    rows = read_csv(verdict_table(findings).to_csv())
    assert len(rows) == len(findings) == 2
    for row, finding in zip(rows, findings, strict=True):
        assert (row["dataset"], row["arm"], row["reference"], row["verdict"]) == (
            finding.dataset, finding.arm, finding.reference, finding.verdict,
        )  # fmt: skip
        assert [float(row[name]) for name in ("difference", "low", "high", "p_holm")] == [
            finding.mean, finding.low, finding.high, finding.p_corrected,
        ]  # fmt: skip
    assert "points: hundredths of IoU" in verdict_table(findings).caption


def test_unbounded_interval_is_a_dash(tmp_path: Path) -> None:
    table = verdict_table(judge(make_study_records(tmp_path, arms=ARMS, seeds=1)))
    assert {row[4].text for row in table.rows} == {"–"}
    assert read_csv(table.to_csv())[0]["low"] == ""


def test_claims_on_other_data_say_so(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, images=40)
    outcomes = [row[-1].text for row in claims_table(judge_claims(study)).rows]
    assert "holds (not tested on the paper's data)" in outcomes
    assert "not tested" in outcomes
    assert all("(not tested on the paper's data)" in text for text in outcomes if text != "not tested")
    published = make_study_records(tmp_path / "b", arms=ARMS, images=40, layout="flood")
    assert "holds" in [row[-1].text for row in claims_table(judge_claims(published)).rows]


def test_every_table_is_three_files(tmp_path: Path) -> None:
    study = make_study_records(
        tmp_path / "study", arms=ARMS, dataset=("flood", "my data_1"), corruptions=True, half_data=True
    )
    paths = write_tables(study, judge_study(study), tmp_path / "tables")
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "tables").iterdir())
    stems = {path.stem for path in paths}
    kinds = ("figures", "diagnostics", "robustness")
    by_dataset = {f"{kind}-{name}" for kind in kinds for name in ("flood", "my_data_1")}
    assert stems == by_dataset | {"verdict", "claims", "retention"}
    for path in paths:
        text = path.read_text()
        assert "nan" not in re.findall(r"[a-z]+", text)
        if path.suffix == ".tex":
            check_latex(text)
        if path.suffix == ".md":
            lines = [line for line in text.splitlines() if line.startswith("|")]
            assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def check_latex(text: str) -> None:
    """Assert that braces and environments close, columns agree, and nothing special is left bare."""
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)
    assert bare.count("{") == bare.count("}")
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    rows = text.split(r"\toprule")[1].split(r"\bottomrule")[0].replace("\\midrule\n", "").strip().split("\\\\\n")
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    without_label = re.sub(r"\\label\{.*\}", "", text)
    assert not re.search(r"(?<!\\)[%#_~]", without_label)
    assert not re.search("[±−²<>]", re.sub(r"\$[<>]\$", "", text))


def test_published_table_is_written_for_its_protocol_alone(tmp_path: Path) -> None:
    study = make_study_records(tmp_path / "study", arms=SWEEP, protocol="paper", dataset="polyps")
    names = {path.name for path in write_tables(study, judge_study(study), tmp_path / "tables")}
    assert {"paper-polyps.md", "paper-polyps.tex", "paper-polyps.csv", "figures-polyps.md"} <= names
    assert not any(name.startswith("robustness") for name in names)


def test_dataset_with_nothing_but_its_control_has_no_table(tmp_path: Path) -> None:
    study = make_study_records(tmp_path / "study", arms=ARMS, half_data=True)
    kept = tuple(result for result in study.results if result.arm.endswith("-half"))
    part = Study(study.config, study.directory, kept, (), study.planned)
    names = {path.stem for path in write_tables(part, judge_study(part), tmp_path / "tables")}
    assert names == {"verdict", "claims"}


def test_four_formats_of_one_table() -> None:
    row = (word("a_b | 50%"), number(-0.12345678901234566, 2, scale=100), Cell("x", (None,), is_bold=True))
    columns = (Column("Arm", ("arm",), "left"), Column("d, %", ("d",)), Column("p_1", ("p",)))
    table = Table("t", "Title & more", columns, (row,), "p < .05 ± 1²")
    assert table.to_markdown() == (
        "### Title & more\n\n| Arm | d, % | p_1 |\n| :-- | --: | --: |\n"
        "| a_b \\| 50% | −12.35 | **x** |\n\np < .05 ± 1²\n"
    )
    assert table.to_csv() == "arm,d,p\na_b | 50%,-0.12345678901234566,\n"
    latex = table.to_latex()
    assert r"\caption{Title \& more. p $<$ .05 $\pm$ 1\textsuperscript{2}}" in latex
    assert r"a\_b | 50\% & $-$12.35 & \textbf{x} \\" in latex
    assert r"\begin{tabular}{lrr}" in latex
    check_latex(latex)
    page = table.to_html()
    assert '<th scope="col" class="word">Arm</th><th scope="col">d, %</th>' in page
    assert '<th scope="row" class="word">a_b | 50%</th><td>−12.35</td><td><strong>x</strong></td>' in page
    assert page.count("Title &amp; more") == 2
    assert '<p class="note">p &lt; .05 ± 1²</p>' in page


def test_long_words_of_the_page_break_their_lines() -> None:
    columns = (Column("a", ("a",), "left"), Column("b", ("b",), "wide"), Column("c", ("c",)))
    table = Table("t", "", columns, ((word("x"), word("<i> " * 20), number(1.0)),), "")
    assert f'<td class="word prose">{"&lt;i&gt; " * 20}</td><td>1.000</td>' in table.to_html()


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([0.5, None, 0.7, float("nan")], ("0.600 ± 0.141", (0.6, 0.02**0.5))),
        ([0.5, None], ("0.500", (0.5, None))),
        ([None], ("–", (None, None))),
    ],
    ids=["several", "one", "none"],
)
def test_spread_is_of_the_known_values(values: list[float | None], cell: tuple[str, tuple[Any, ...]]) -> None:
    found = spread(values)
    assert (found.text, found.values) == (cell[0], pytest.approx(cell[1]))


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [(None, {}, "–"), (0.1234, {}, "0.123"), (0.02, {"scale": 100, "with_sign": True, "digits": 1}, "+2.0")],
)
def test_numbers_as_shown(value: float | None, options: dict[str, Any], text: str) -> None:
    assert number(value, **options) == Cell(text, (value,))


def test_backslashes_and_braces_are_escaped_once() -> None:
    table = Table("t", r"a\b {c} ~ ^", (Column("x", ("x",)),), ((word("1"),),), "")
    assert r"a\textbackslash{}b \{c\} \textasciitilde{} \textasciicircum{}" in table.to_latex()
