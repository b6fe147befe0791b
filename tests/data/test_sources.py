import numpy as np
import pytest

from smooth_attention.core.errors import DataError
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.shapes import ShapesSource

TEXTS = {"groups.csv": "stem,group\na,1\nb,1\nc,2\nd,2\n", "train.txt": "a\nb\nc\n", "test.txt": "d\n"}


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


def test_labels_of_a_subset_are_read_without_images(write_folder, monkeypatch):
    source = FolderSource(write_folder("abc"))
    want = source.load("b").mask
    monkeypatch.setattr(FolderSource, "load", None)
    np.testing.assert_array_equal(source.without({"a"}).read_labels("b"), want)
