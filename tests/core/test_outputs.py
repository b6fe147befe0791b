"""Places where output can't be written: told before, by the system's own refusals; nothing is left where it can."""

from __future__ import annotations

from pathlib import Path

import pytest

from smooth_attention.core.errors import OptionError
from smooth_attention.core.outputs import check_output_directory, check_output_file

LONG = "n" * 256


@pytest.mark.parametrize("check", [check_output_directory, check_output_file])
@pytest.mark.parametrize("name", ["new", "new/below", "there/new"])
def test_places_that_can_be_written_are_left_as_they_are(tmp_path, check, name):
    (tmp_path / "there").mkdir()
    check(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_what_is_there_may_be_replaced_or_filled(tmp_path):
    (tmp_path / "file").write_text("kept")
    check_output_file(tmp_path / "file")
    check_output_directory(tmp_path)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("check", [check_output_directory, check_output_file])
@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("file/below", "file is no directory; name another place"),
        ("file/far/below", "file is no directory; name another place"),
        (LONG, "File name too long"),
        (f"new/{LONG}", "File name too long"),
        ("/proc/new", r"/proc/new can't be written \(.+\); name another place"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_places_that_cannot_be_written_are_refused(tmp_path, check, place, sentence):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OptionError, match=sentence):
        check(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_no_directory_and_a_directory_no_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="file is no directory"):
        check_output_directory(tmp_path / "file")
    with pytest.raises(OptionError, match="is a directory; name a file in it"):
        check_output_file(Path(tmp_path))
