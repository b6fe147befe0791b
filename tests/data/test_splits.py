import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smooth_attention.core.errors import DataError
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.sources import Source
from smooth_attention.data.splits import VALIDATION_FRAC, find_copies, find_leaks, keep_share, make_split


class Names(Source):
    """Stems in groups, ``g0-0, g0-1, g1-0 ...``; a split reads no pixels."""

    def __init__(self, group_sizes):
        self.name = "names"
        self.groups = {f"g{group}-{i}": f"g{group}" for group, size in enumerate(group_sizes) for i in range(size)}
        self.stems = tuple(sorted(self.groups))

    def load(self, stem):
        raise NotImplementedError

    def digest(self, stem):
        return f"content of {stem}"

    def image_digest(self, stem):
        return self.digest(stem)


SINGLES = Names([1] * 20)
GROUP_SIZES = st.lists(st.integers(1, 9), min_size=3, max_size=24)


def all_splits(source, folds, split_seed=0):
    return [make_split(source, split_seed=split_seed, fold=fold, folds=folds) for fold in range(folds)]


@given(GROUP_SIZES, st.integers(3, 6), st.integers(0, 99))
def test_folds_partition_the_stems_by_whole_groups(group_sizes, folds, split_seed):
    source, folds = Names(group_sizes), min(folds, len(group_sizes))
    splits = all_splits(source, folds, split_seed)
    assert sorted(stem for split in splits for stem in split.test) == list(source.stems)
    for split in splits:
        parts = split.parts()
        assert list(parts) == ["train", "val", "test"]
        assert sorted(stem for stems in parts.values() for stem in stems) == list(source.stems)
        assert all(stems and list(stems) == sorted(stems) for stems in parts.values())
        groups = [{source.groups[stem] for stem in stems} for stems in parts.values()]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert find_leaks(source, parts) == []
        assert split.warnings == ()


@given(GROUP_SIZES, st.integers(3, 6), st.integers(0, 99))
def test_folds_are_balanced_to_within_the_largest_group(group_sizes, folds, split_seed):
    sizes = [len(split.test) for split in all_splits(Names(group_sizes), min(folds, len(group_sizes)), split_seed)]
    assert max(sizes) - min(sizes) <= max(group_sizes)


@given(GROUP_SIZES, st.integers(0, 99))
def test_validation_holds_its_share_but_never_twice_of_it(group_sizes, split_seed):
    source = Names(group_sizes)
    split = make_split(source, split_seed=split_seed, folds=3)
    wanted = VALIDATION_FRAC * (len(split.train) + len(split.val))
    of_train = [source.groups[stem] for stem in split.train]
    if len({source.groups[stem] for stem in split.val}) > 1:
        assert len(split.val) <= 2 * wanted
    if len(split.val) < wanted:  # then no further group would fit
        assert all(len(split.val) + of_train.count(group) > 2 * wanted for group in of_train)


@pytest.mark.parametrize(
    ("num_groups", "folds", "sizes"),
    [(20, None, (13, 3, 4)), (20, 5, (13, 3, 4)), (20, 2, (8, 2, 10)), (20, 20, (16, 3, 1)), (30, 3, (17, 3, 10))],
)
def test_split_sizes_are_those_written_down(num_groups, folds, sizes):
    split = make_split(Names([1] * num_groups), folds=folds)
    assert tuple(len(stems) for stems in split.parts().values()) == sizes


def test_split_is_the_same_for_ever():
    split = make_split(SINGLES, split_seed=7, fold=1, folds=4)
    assert split == make_split(Names([1] * 20), split_seed=7, fold=1, folds=4)
    assert split.test == ("g1-0", "g11-0", "g13-0", "g15-0", "g17-0")
    assert split.val == ("g10-0", "g2-0", "g8-0")


@pytest.mark.parametrize("folds", [None, 4])
def test_split_moves_with_split_seed(folds):
    splits = [make_split(Names([1] * 60), split_seed=seed, folds=folds) for seed in range(5)]
    assert len({split.test for split in splits}) == 5
    assert len({split.val for split in splits}) == 5


def test_split_neither_reads_nor_moves_the_global_generators():
    splits = set()
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        splits.add(make_split(SINGLES))
        assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert len(splits) == 1


def test_split_depends_on_the_names_of_groups_not_on_content(write_folder):
    first, other = (FolderSource(write_folder("abcdefgh", root=f"{n}", num_labels=n)) for n in (1, 2))
    assert first.fingerprint != other.fingerprint
    assert make_split(first) == make_split(other)


@pytest.mark.parametrize(
    ("group_sizes", "options", "match"),
    [
        ([1], {}, "names has 1 pairs in 1 groups; a split needs at least 3 groups, .* add images, or mend groups.csv"),
        ([5, 4], {}, "names has 9 pairs in 2 groups; a split needs at least 3 groups"),
        ([1] * 4, {"folds": 5}, "names has 4 groups, too few for 5 folds; lower --folds"),
        ([1] * 4, {"folds": 7}, "names has 4 groups, too few for 7 folds"),
        ([1] * 9, {"folds": 1}, "folds are at least 2 and a fold is 0 to folds - 1, got fold=0 of folds=1"),
        ([1] * 9, {"folds": 0}, "folds are at least 2"),
        ([1] * 9, {"fold": 5}, "got fold=5 of folds=5"),
        ([1] * 9, {"fold": -1, "folds": 3}, "got fold=-1 of folds=3"),
        ([8, 1, 1], {"fold": 0, "folds": 2}, "names has only one group left for train and val; add images"),
    ],
    ids=str,
)
def test_split_refuses(group_sizes, options, match):
    with pytest.raises(DataError, match=match):
        make_split(Names(group_sizes), **options)


def test_given_lists_are_used_as_given_whatever_the_split_seed(write_folder):
    source = FolderSource(write_folder("abcdef", texts={"train.txt": "f\nb\na", "val.txt": "c", "test.txt": "e"}))
    for split_seed in range(3):
        split = make_split(source, split_seed=split_seed)
        assert split.parts() == {"train": ("a", "b", "f"), "val": ("c",), "test": ("e",)}
        assert split.warnings == ()


def test_given_lists_are_left_aside_where_folds_are_named(write_folder):
    source = FolderSource(write_folder("abcdef", texts={"train.txt": "a\nb", "val.txt": "c", "test.txt": "d"}))
    assert sorted(stem for split in all_splits(source, 3) for stem in split.test) == list("abcdef")


def test_missing_val_is_drawn_from_train_by_whole_groups(write_folder):
    stems = [f"{group}{index}" for group in "abcdefgh" for index in (1, 2)]
    texts = {
        "groups.csv": "stem,group\n" + "".join(f"{stem},{stem[0]}\n" for stem in stems),
        "train.txt": "\n".join(stems[:14]),
        "test.txt": "\n".join(stems[14:]),
    }
    source = FolderSource(write_folder(stems, texts=texts))
    splits = [make_split(source, split_seed=split_seed) for split_seed in range(4)]
    for split in splits:
        assert split.test == ("h1", "h2")
        assert sorted(split.train + split.val) == stems[:14]
        assert len(split.val) == 4  # 15 % of 14 is 2.1, and groups are pairs
        assert not {stem[0] for stem in split.val} & {stem[0] for stem in split.train}
        assert split.warnings == ()
    assert splits[0] == make_split(source)
    assert len({split.val for split in splits}) > 1


@pytest.mark.parametrize(
    ("texts", "lonely", "fold", "match"),
    [
        ({"train.txt": "a\nb", "test.txt": "c"}, "", 1, "pets has given lists, so fold 1 means nothing; name --folds"),
        ({"train.txt": "a\nb", "test.txt": "c"}, "c", 0, r"the test part of pets is empty; mend test\.txt"),
        ({"train.txt": "a", "val.txt": "b", "test.txt": "c"}, "b", 0, r"the val part of pets is empty; mend val\.txt"),
        ({"train.txt": "a", "test.txt": "c"}, "", 0, r"pets has only one group left for train and val; .* or a val\.t"),
    ],
    ids=["fold", "empty test", "empty val", "one group"],
)
def test_given_lists_refuse(write_folder, texts, lonely, fold, match):
    root = write_folder("abc", texts=texts)
    for stem in lonely:
        (root / "masks" / f"{stem}.png").unlink()
    with pytest.raises(DataError, match=match):
        make_split(FolderSource(root), fold=fold)


def test_leaks_name_the_group_and_the_identical_image(write_folder):
    texts = {
        "groups.csv": "stem,group\na,film 1\nb,film 1\nc,film 1\n",
        "train.txt": "a\nd\nf",
        "val.txt": "b",
        "test.txt": "e\ng",
    }
    root = write_folder("abcdefg", texts=texts)
    for stem in "eg":
        (root / "images" / f"{stem}.png").write_bytes((root / "images" / "d.png").read_bytes())
    source = FolderSource(root)
    assert make_split(source).warnings == (
        "group 'film 1' shared between parts: a in train, b in val",
        "identical image shared between parts: d in train, e in test",
    )
    assert find_copies(source) == ["identical images: d, e, g"]


def test_leaks_name_the_stem_in_two_lists(write_folder):
    source = FolderSource(write_folder("abc", texts={"train.txt": "a\nb", "val.txt": "c", "test.txt": "b"}))
    assert make_split(source).warnings == ("stem 'b' shared between parts: b in train, b in test",)


def test_equal_masks_are_no_leak(write_folder):
    root = write_folder("abc")
    (root / "masks" / "b.png").write_bytes((root / "masks" / "a.png").read_bytes())
    source = FolderSource(root)
    assert find_copies(source) == []
    assert find_leaks(source, {"train": ["a"], "test": ["b"]}) == []


def test_identical_images_across_folds_are_named(write_folder):
    root = write_folder("abcdef")
    (root / "images" / "b.png").write_bytes((root / "images" / "a.png").read_bytes())
    found = [split.warnings for split in all_splits(FolderSource(root), 6)]
    assert any(warnings and "identical image shared between parts: " in warnings[0] for warnings in found)


def test_no_fold_holds_the_largest_group_whatever_the_seed():
    source = Names([40, *[5] * 10])
    folds = [[len(make_split(source, split_seed=seed, fold=k).test) for k in range(5)] for seed in range(8)]
    assert len({sizes.index(max(sizes)) for sizes in folds}) > 1


def test_validation_passes_over_a_group_that_would_swallow_train():
    source = Names([100, *[5] * 10])
    for fold in range(5):
        split = make_split(source, fold=fold)
        assert len(split.val) < len(split.train)


def test_few_groups_make_fewer_folds():
    source = Names([112, 41, 34, 33])
    assert sum(len(make_split(source, fold=fold).test) for fold in range(4)) == 220
    assert make_split(source).folds == 4
    with pytest.raises(DataError, match="got fold=4 of folds=4"):
        make_split(source, fold=4)


@given(GROUP_SIZES, st.sampled_from([0.25, 0.5, 0.9]))
def test_share_of_the_training_pairs_keeps_whole_groups_and_the_other_parts(group_sizes, share):
    source = Names(group_sizes)
    split = make_split(source, folds=3)
    try:
        kept = keep_share(source, split, share, 0)
    except DataError:
        trained = [source.groups[stem] for stem in split.train]
        assert min(map(trained.count, trained)) / 2 > share * len(split.train)
        return
    assert (kept.val, kept.test, kept.folds) == (split.val, split.test, split.folds)
    assert set(kept.train) <= set(split.train)
    groups = {source.groups[stem] for stem in kept.train}
    assert {stem for stem in split.train if source.groups[stem] in groups} == set(kept.train)
    assert abs(len(kept.train) - share * len(split.train)) <= max(group_sizes)


def test_share_is_the_same_whenever_drawn_and_all_of_it_is_the_split():
    split = make_split(SINGLES, folds=5)
    halves = [keep_share(SINGLES, split, 0.5, 0) for _ in range(2)]
    assert halves[0] == halves[1]
    assert abs(len(halves[0].train) - len(split.train) / 2) <= 0.5
    assert keep_share(SINGLES, split, 0.5, 1) != halves[0]
    assert keep_share(SINGLES, split, 1.0, 0) is split


def test_share_below_one_group_is_refused():
    split = make_split(SINGLES, folds=5)
    with pytest.raises(DataError, match=r"0.01 of the \d+ training pairs of names is less than the smallest"):
        keep_share(SINGLES, split, 0.01, 0)
