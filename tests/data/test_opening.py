"""Opening data: recognised or named layouts, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from smooth_attention.core.errors import DataError
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.opening import open_source


@pytest.mark.parametrize("layout", [None, "folder"])
@pytest.mark.parametrize("kind", [str, Path])
def test_open_source_recognises_a_folder(write_folder, layout, kind):
    source = open_source(kind(write_folder("ab")), layout)
    assert isinstance(source, FolderSource)
    assert source.stems == ("a", "b")


@pytest.mark.parametrize(
    ("data", "layout", "match"),
    [
        ("nowhere", None, "no such data directory: nowhere; give a directory with images/ and masks/, or 'shapes'"),
        ("shapes", "folder", "no such data directory: shapes"),
        ("shapes", "birds", "layout 'birds' needs CUB_200_2011/images/ .*; give the directory .*, got shapes"),
        (
            "shapes",
            "cats",
            "no layout 'cats'; known: folder, parts, birds, .*; leave it out to have it recognised",
        ),
    ],
)
def test_open_source_refuses(tmp_path, monkeypatch, data, layout, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=match):
        open_source(data, layout)
