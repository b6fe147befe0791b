"""The comparisons of ``make same``: planted differences are found, and what may differ is not one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import same

CSV = 'arm,iou,verdict\nsmooth-0.4,0.5,"helps, by 1.2 points"\nnone,,\n'


def write_run(folder: Path, *, level: int = 255, **changes: object) -> Path:
    """Write what a run leaves, as far as it is compared."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2, 3] = level
    (folder / "predictions").mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "predictions" / "a.png")
    iou = {"pooled": {"iou": 0.5}, "images": [{"stem": "a", "iou": 0.25}]}
    record = {"versions": {"torch": "2"}, "seconds": {"train": 1.0}, "metrics": {"test": iou}, **changes}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "before")


def test_run_may_differ_in_times_and_versions_only(run: Path, tmp_path: Path) -> None:
    now = write_run(tmp_path / "now", versions={"torch": "3", "more": "1"}, seconds={"train": 9.0})
    assert list(same.diff_run(run, now)) == []


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"pooled": {"iou": 0.5}, "images": [{"stem": "a", "iou": 0.26}]}, r"images\[0\]\.iou: 0\.25 before, 0\.26"),
        ({"pooled": {"iou": 0.5}, "images": []}, r"metrics\.test\.images: "),
        ({"images": [{"stem": "a", "iou": 0.25}]}, r"metrics\.test\.pooled is gone"),
        ({"pooled": {"iou": 0.5, "f1": 1}, "images": [{"stem": "a", "iou": 0.25}]}, r"pooled\.f1 is new: 1"),
        ({"pooled": {"iou": None}, "images": [{"stem": "a", "iou": 0.25}]}, r"pooled\.iou: 0\.5 before, None now"),
    ],
    ids=["number", "fewer", "gone", "new", "null"],
)  # fmt: skip
def test_planted_change_of_a_record_is_found(run: Path, tmp_path: Path, metrics: object, sentence: str) -> None:
    (found,) = same.diff_run(run, write_run(tmp_path / "now", metrics={"test": metrics}))
    assert re.search(sentence, found)


def test_integer_in_place_of_a_float_is_a_difference() -> None:
    assert list(same.diff("record", {"iou": 1.0}, {"iou": 1})) == ["iou: 1.0 before, 1 now"]


def test_new_key_is_allowed_where_the_table_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before, now = {"metrics": {"iou": 1}}, {"metrics": {"iou": 1, "nsd": 2}}
    monkeypatch.setattr(same, "ALLOWED", {"record: metrics.nsd": "a metric of its own"})
    assert list(same.diff("record", before, now)) == []
    assert list(same.diff("options", before, now)) == ["metrics.nsd is new: 2"]
    assert list(same.diff("record", now, before)) == ["metrics.nsd is gone"]


def test_changed_pixel_and_missing_prediction_are_found(run: Path, tmp_path: Path) -> None:
    now = write_run(tmp_path / "now", level=254)
    assert list(same.diff_run(run, now)) == ["predictions/a.png: other bytes"]
    (now / "predictions" / "a.png").rename(now / "predictions" / "b.png")
    assert list(same.diff_run(run, now)) == ["only on one side: predictions/a.png, predictions/b.png"]


def test_nothing_to_compare_is_a_difference(tmp_path: Path) -> None:
    (found,) = same.diff_folders(tmp_path, tmp_path, "*.png", same.diff_bytes)
    assert found.startswith("nothing to compare: no *.png")


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("smooth-0.4 against none: +1.2", "smooth 0.4 and none: +1.2"),
        ("−0.03 [−0.05, 0.01]", "$-$0.03 from $-$0.05 to 0.01"),
        ("p = 3e-05 of hd95", "probability 3e-05"),
    ],
)
def test_words_of_a_table_may_differ(before: str, now: str) -> None:
    assert list(same.diff_table(before, now, ".md")) == []


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        ("| 0.51 | 0.62 |", "| 0.51 | 0.63 |", "number 1: 0.62 before, 0.63 now"),
        ("| +1.2 |", "| −1.2 |", "number 0: +1.2 before, -1.2 now"),
        ("| 1.2 | 3 |", "| 1.2 | – |", "number 1: 3 before, none now"),
        ("| 0.5 |", "| 0.50 |", "number 0: 0.5 before, 0.50 now"),
        ("1e-05", "1e-06", "number 0: 1e-05 before, 1e-06 now"),
    ],
)
def test_planted_number_of_a_table_is_found(before: str, now: str, sentence: str) -> None:
    for suffix in (".md", ".tex"):
        assert list(same.diff_table(before, now, suffix)) == [sentence]


def test_csv_is_compared_by_field() -> None:
    assert list(same.diff_table(CSV, CSV.replace("helps, by", "is better by"), ".csv")) == []
    (number,) = same.diff_table(CSV, CSV.replace("1.2", "1.3"), ".csv")
    assert number == "row 1, verdict, number 0: 1.2 before, 1.3 now"
    (empty,) = same.diff_table(CSV, CSV.replace("none,,", "none,0.1,"), ".csv")
    assert empty == "row 2, iou, number 0: none before, 0.1 now"
    for other in (CSV.replace("iou", "IoU"), CSV + "se,0.1,\n"):
        (columns,) = same.diff_table(CSV, other, ".csv")
        assert columns.startswith("columns or rows: ")


def test_results_are_compared_byte_for_byte(tmp_path: Path) -> None:
    for name, text in (("before", CSV), ("now", CSV.replace("helps", "is good"))):
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "results.csv").write_text(text)
        (tmp_path / name / "tables" / "t.csv").write_text(text)
    assert list(same.diff_study(tmp_path / "before", tmp_path / "before")) == []
    (found,) = same.diff_study(tmp_path / "before", tmp_path / "now")
    assert found.startswith("results.csv, line 2: ")


def test_planted_logit_is_found(tmp_path: Path) -> None:
    logits = np.linspace(-1, 1, 9, dtype=np.float32)
    np.savez(tmp_path / "a.npz", smooth=logits, none=logits)
    np.savez(tmp_path / "b.npz", smooth=np.nextafter(logits, np.float32(2)))
    assert list(same.diff_arrays(tmp_path / "a.npz", tmp_path / "a.npz")) == []
    changed, missing = same.diff_arrays(tmp_path / "a.npz", tmp_path / "b.npz")
    assert changed.startswith("smooth: largest difference ")
    assert missing == "none is gone"


def test_checks_go_on_after_one_that_differs_or_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> list[str]:
        raise RuntimeError("train: exit status 1")

    checks = {"fine": list, "apart": lambda: ["a: 1 before, 2 now", "b is gone"], "broken": broken}
    assert not same.run_checks(checks)
    lines = [line.rpartition(" [")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "ok      fine",
        "DIFFERS apart: a: 1 before, 2 now (and 1 more)",
        "DIFFERS broken: RuntimeError: train: exit status 1",
    ]
    assert same.run_checks({"fine": list})


def test_generated_images_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        same.draw_data(tmp_path / name)
    assert list(same.diff_folders(tmp_path / "one", tmp_path / "other", "*/*/*.png", same.diff_bytes)) == []
    masks = [np.unique(np.asarray(Image.open(path))) for path in sorted((tmp_path / "one" / "bands").glob("masks/*"))]
    assert {*np.concatenate(masks)} == {0, 1, 2, 3, 255}
