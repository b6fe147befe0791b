from pathlib import Path

import numpy as np
import pytest

from smooth_attention.core.errors import DataError
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.sources import ShapesSource, open_source

TEXTS = {"groups.csv": "stem,group\na,1\nb,1\nc,2\nd,2\n", "train.txt": "a\nb\nc\n", "test.txt": "d\n"}


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
        ("shapes", "cats", "no layout 'cats'; known: folder, birds, fish, .*; leave it out to have it recognised"),
    ],
)
def test_open_source_refuses(tmp_path, monkeypatch, data, layout, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=match):
        open_source(data, layout)


def test_shapes_are_pairs_of_the_size_asked_for():
    source = open_source("shapes", size=48)
    assert isinstance(source, ShapesSource)
    assert (source.name, len(source.stems), source.num_labels, source.num_logits) == ("shapes", 320, 2, 1)
    assert source.stems == tuple(sorted(set(source.stems)))
    pair = source.load(source.stems[3])
    assert (pair.image.shape, pair.image.dtype) == ((48, 48, 3), np.uint8)
    assert (pair.mask.shape, set(np.unique(pair.mask))) == ((48, 48), {0, 1})


def test_shapes_are_drawn_by_seed_and_stem_alone():
    stem = "00003"
    first, again, other = ShapesSource(9, size=48), ShapesSource(20, size=48), ShapesSource(9, seed=1, size=48)
    again.load("00004")
    np.testing.assert_array_equal(first.load(stem).image, again.load(stem).image)
    np.testing.assert_array_equal(first.load(stem).mask, again.load(stem).mask)
    assert (first.load(stem).image != other.load(stem).image).any()
    assert (first.load(stem).image != first.load("00004").image).any()


@pytest.mark.parametrize(
    "other",
    [ShapesSource(9, seed=1, size=48), ShapesSource(9, size=64), ShapesSource(8, size=48)],
    ids=["seed", "size", "count"],
)
def test_shapes_fingerprint_changes_with_every_setting(other):
    assert ShapesSource(9, size=48).fingerprint == ShapesSource(9, size=48).fingerprint
    assert ShapesSource(9, size=48).fingerprint != other.fingerprint


def test_fingerprint_is_of_the_content_wherever_it_lies(write_folder):
    first, copied = (FolderSource(write_folder("abc", root=root)) for root in ("pets", "elsewhere"))
    assert first.fingerprint == copied.fingerprint
    assert len(first.fingerprint) == 32


@pytest.mark.parametrize(
    "change",
    [
        {"stems": "abcde"},
        {"num_labels": 1},
        {"texts": {**TEXTS, "classes.txt": "sky\nroad\n"}},
        {"texts": {**TEXTS, "groups.csv": "stem,group\na,1\nb,2\n"}},
        {"texts": {**TEXTS, "train.txt": "a\nb\n"}},
    ],
    ids=["stems", "masks", "classes", "groups", "lists"],
)
def test_fingerprint_changes_with(write_folder, change):
    first = FolderSource(write_folder("abcd", texts=TEXTS))
    other = FolderSource(write_folder(**{"stems": "abcd", "root": "other", "texts": TEXTS, **change}))
    assert first.fingerprint != other.fingerprint


def test_without_keeps_the_rest_in_every_respect(write_folder):
    whole = FolderSource(write_folder("abcd", texts={**TEXTS, "classes.txt": "sky\nroad\n"}))
    rest = whole.without({"b"}).without({"d", "not there"})
    assert (rest.name, rest.stems, rest.class_names) == ("pets", ("a", "c"), ("sky", "road"))
    assert rest.groups == {"a": "1", "c": "2"}
    assert rest.given_splits == {"train": ("a", "c"), "test": ()}
    assert rest.digest("c") == whole.digest("c")
    assert rest.fingerprint != whole.fingerprint
    np.testing.assert_array_equal(rest.load("c").image, whole.load("c").image)
    assert whole.stems == ("a", "b", "c", "d")


def test_without_everything_is_refused(write_folder):
    source = FolderSource(write_folder("ab"))
    with pytest.raises(DataError, match="nothing is left of pets: none of its 2 pairs can be used"):
        source.without({"a", "b"})


def test_load_grey_is_the_mask_between_0_and_255(write_folder):
    for source in (FolderSource(write_folder("ab")), ShapesSource(4, size=48)):
        stem = source.stems[1]
        grey, rest = source.load_grey(stem), source.without({source.stems[0]})
        assert grey.dtype == np.uint8
        np.testing.assert_array_equal(grey, source.load(stem).mask * 255)
        np.testing.assert_array_equal(grey, rest.load_grey(stem))
        assert grey.any()


def test_load_grey_refuses_classes(write_folder):
    source = FolderSource(write_folder("abc", texts={"classes.txt": "sky\nroad\n"}))
    for some in (source, source.without({"b"})):
        with pytest.raises(DataError, match="pets has masks of 2 classes, which have no grey form; give data with one"):
            some.load_grey("a")
