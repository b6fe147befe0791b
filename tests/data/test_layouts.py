"""The published layouts, each from a miniature of the exact tree with its traps."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from miniatures import (
    BLOCK,
    SHAPE,
    VOTES,
    WRITERS,
    photo,
    write_birds,
    write_fire,
    write_fish,
    write_flood,
    write_instruments,
)
from smooth_attention.core.errors import DataError
from smooth_attention.data import copies
from smooth_attention.data.check import check_source
from smooth_attention.data.files import open_image
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.layouts import PUBLISHED, LayoutName
from smooth_attention.data.opening import OWN, open_layout, open_source
from smooth_attention.data.splits import make_split


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(tmp_path / "cache"))


BINARY = ["fish", "instruments", "flood"]


@pytest.fixture(params=WRITERS)
def published(request, tmp_path, save):
    """Name, root and inner tree of each layout."""
    root = tmp_path / "data"
    root.mkdir()
    return request.param, root, WRITERS[request.param](root, save)


def test_layouts_are_the_known_ones():
    assert [*OWN, *PUBLISHED] == list(get_args(LayoutName))
    assert list(PUBLISHED) == list(WRITERS)


def test_layout_is_recognised_from_outer_and_inner_directory(published):
    name, root, tree = published
    outer, inner, named = open_source(root), open_source(tree), open_source(str(root), name)
    for source in (outer, inner, named):
        assert type(source) is PUBLISHED[name]
        assert (source.name, source.layout, source.class_names, source.num_logits) == (name, name, None, 1)
        assert source.stems == outer.stems == tuple(sorted(set(outer.stems)))
        assert source.fingerprint == outer.fingerprint
        assert all(stem == Path(stem).name and " " not in stem for stem in source.stems)


def test_check_finds_no_problem_and_notes_the_traps(published):
    name, root, _ = published
    report = check_source(open_source(root))
    assert report.problems == []
    assert report.num_pairs == {"birds": 6, "fish": 24, "fire": 5, "instruments": 6, "flood": 7}[name]
    told = {
        "birds": ["votes of five", "Laysan_Albatross_0001_rgb.jpg is a known stray without a mask"],
        "fish": ["flips and turns of far fewer photos", "'Hourse Mackerel' is spelled as published"],
        "fire": ["JPEG with ringing", "5 images in {root}/Image/Not_Fire have no masks and take no part"],
        "instruments": ["three equal channels"],
        "flood": ["the val folder is the test part", "recognised by train/ and val/"],
    }[name]
    assert len(report.notes) == len(told)
    for note, part in zip(report.notes, told, strict=True):
        assert part.format(root=root) in note
    assert min(report.parts.values()) >= 1


def test_notes_stay_with_a_subset(published):
    source = open_source(published[1])
    assert source.without({source.stems[0]}).notes == source.notes != ()


def test_masks_are_the_foreground(published):
    name, root, _ = published
    source = open_source(root)
    for stem in source.stems:
        pair, grey = source.load(stem), source.load_grey(stem)
        want = VOTES >= 128 if name == "birds" else BLOCK
        if name == "fish":
            want = [want, want[:, ::-1], want[::-1], np.rot90(want)][(int(stem[-5:]) - 1) % 4]
        assert (pair.mask.dtype, grey.dtype, pair.image.shape) == (np.uint8, np.uint8, (*want.shape, 3))
        np.testing.assert_array_equal(pair.mask, want)
        np.testing.assert_array_equal(pair.mask, grey >= 128)
        assert grey.max() > 250
    assert set(np.unique(source.load_grey(source.stems[0]))) >= (
        {0, 51, 102, 153, 204, 255} if name == "birds" else {0, 255}
    )


def test_fire_masks_ring_and_birds_include_a_grey_image(tmp_path, save):
    fire = open_source(write_fire(tmp_path / "fire", save))
    assert len(np.unique(fire.load_grey("Img_0"))) > 2
    birds = open_source(write_birds(tmp_path / "birds", save))
    assert open_image(birds.image_files[birds.stems[1]]).mode == "L"
    assert (np.ptp(birds.load(birds.stems[1]).image, axis=-1) == 0).all()


@pytest.mark.parametrize("beside", [True, False], ids=["beside", "inside"])
def test_birds_segmentations_may_lie_beside_or_inside(tmp_path, save, beside):
    tree = write_birds(tmp_path, save, beside=beside)
    assert len(open_source(tmp_path).stems) == len(open_source(tree).stems) == 6


def test_official_splits_are_given(tmp_path, save):
    birds, instruments, flood = (
        open_source(WRITERS[name](tmp_path / name, save)) for name in ("birds", "instruments", "flood")
    )
    assert birds.given_splits == {
        "train": tuple(birds.stems[i] for i in (0, 1, 3, 4)),
        "test": tuple(birds.stems[i] for i in (2, 5)),
    }
    assert sorted(instruments.given_splits["train"]) == [instruments.stems[i] for i in (0, 1, 4, 5)]
    assert instruments.given_splits["test"] == instruments.stems[2:4]
    assert flood.stems[0] == "train_0"
    assert flood.given_splits == {"train": flood.stems[:5], "test": ("val_0", "val_1")}
    for source in (birds, instruments, flood):
        split = make_split(source)
        assert split.test == tuple(sorted(source.given_splits["test"]))
        assert set(split.train) | set(split.val) == set(source.given_splits["train"])
        assert split.warnings == ()


def test_birds_without_their_lists_are_split_by_us_and_noted(tmp_path, save):
    tree = write_birds(tmp_path, save)
    (tree / "images.txt").unlink()
    source = open_source(tmp_path)
    assert source.given_splits == {}
    assert f"{tree} lacks images.txt or train_test_split.txt" in source.notes[-1]


def test_looks_of_one_fish_photo_share_a_group_within_a_species(tmp_path, save):
    write_fish(tmp_path, save)
    source = open_source(tmp_path)
    assert set(source.stems) == {f"{s}_{n:05d}" for s in ("Hourse_Mackerel", "Trout") for n in range(1, 13)}
    for species in ("Hourse_Mackerel", "Trout"):
        for number in range(12):
            assert source.groups[f"{species}_{number + 1:05d}"] == f"{species}_{number // 4 * 4 + 1:05d}"
    split = make_split(source)
    owners = {source.groups[stem]: part for part, stems in split.parts().items() for stem in stems}
    assert all(owners[source.groups[stem]] == part for part, stems in split.parts().items() for stem in stems)


def test_fish_groups_are_found_lazily_and_once_for_the_same_images(tmp_path, save, monkeypatch):
    tree = write_fish(tmp_path, save)
    calls = []
    found = copies.group_near_duplicates
    monkeypatch.setattr(copies, "group_near_duplicates", lambda images: calls.append(1) or found(images))
    source = open_source(tmp_path)
    assert calls == []
    groups = source.groups
    assert (len(calls), source.groups is groups) == (2, True)
    assert open_source(tree).groups == groups
    assert len(calls) == 2
    (kept,) = (tmp_path / "cache").glob("fish-copies-*.json")
    assert json.loads(kept.read_text()) == groups
    save(tree / "Trout" / "Trout" / "00002.png", photo("another"))
    assert open_source(tmp_path).groups["Trout_00002"] == "Trout_00002"
    assert len(calls) == 4


def test_broken_fish_is_a_group_of_its_own_and_named_by_check(tmp_path, save):
    tree = write_fish(tmp_path, save)
    (tree / "Trout" / "Trout" / "00001.png").write_bytes(b"no image")
    source = open_source(tmp_path)
    assert source.groups["Trout_00001"] == "Trout_00001"
    assert source.groups["Trout_00003"] == "Trout_00002"
    assert [problem.partition(" is ")[0] for problem in check_source(source).problems] == [
        str(tree / "Trout" / "Trout" / "00001.png")
    ]


def test_another_layout_of_the_same_files_is_other_data(tmp_path, save):
    tree = write_instruments(tmp_path, save)
    assert open_source(tree, "folder").fingerprint != open_source(tree).fingerprint
    assert type(open_source(tree, "folder")) is FolderSource


def test_files_without_a_partner_are_problems(tmp_path, save):
    tree = write_flood(tmp_path, save)
    (tree / "train" / "labels" / "3.png").unlink()
    (tree / "val" / "images" / "0.jpg").unlink()
    (tree / "val" / "labels" / "readme.txt").touch()
    source = open_source(tmp_path)
    assert source.problems == (
        f"{tree}/train/images/3.jpg has no mask of the same stem",
        f"{tree}/val/labels/0.png has no image of the same stem",
        f"{tree}/val/labels/readme.txt is no image by its name",
    )
    assert source.given_splits["test"] == ("val_1",)


def test_folder_that_is_no_species_is_a_problem(tmp_path, save):
    tree = write_fish(tmp_path, save)
    (tree / "Shrimp" / "Shrimp").mkdir(parents=True)
    assert open_source(tmp_path).problems == (f"{tree}/Shrimp is no species: it lacks Shrimp/ or 'Shrimp GT/'",)


def first_mask(root):
    source = open_source(root)
    return source, source.stems[0], source.mask_files[source.stems[0]]


@pytest.mark.parametrize("name", BINARY)
def test_mask_of_class_indices_is_refused(tmp_path, save, name):
    WRITERS[name](tmp_path, save)
    source, stem, path = first_mask(tmp_path)
    save(path, (2 * BLOCK).astype(np.uint8))
    with pytest.raises(DataError, match=r"\.png holds at most 2, expected a mask of 0 and 1 or of 0 and 255"):
        source.load(stem)


def test_mask_of_16_bits_is_refused(published, save):
    source, stem, path = first_mask(published[1])
    Image.fromarray(np.full(SHAPE, 300, np.uint16)).save(path, "PNG")
    with pytest.raises(DataError, match="has more than 8 bits a pixel; the published masks have 8: fetch it again"):
        source.load(stem)


@pytest.mark.parametrize("name", WRITERS)
def test_empty_mask_is_all_background(tmp_path, save, name):
    WRITERS[name](tmp_path, save)
    source, stem, path = first_mask(tmp_path)
    save(path, np.zeros(SHAPE, np.uint8))
    assert not source.load(stem).mask.any()


def test_two_layouts_in_one_directory_are_refused_by_name(tmp_path, save):
    write_birds(tmp_path, save)
    write_flood(tmp_path, save)
    with pytest.raises(DataError, match="holds the layouts birds and flood; give the directory of one, or name --layo"):
        open_source(tmp_path)
    assert open_source(tmp_path, "flood").name == "flood"


def test_user_folder_with_lists_stays_a_folder(write_folder):
    root = write_folder("abc", texts={"train.txt": "a\nb\n", "test.txt": "c\n"})
    assert type(open_layout(root)) is FolderSource


@pytest.mark.parametrize("name", WRITERS)
def test_override_that_does_not_fit_says_what_is_expected(tmp_path, name):
    with pytest.raises(DataError, match=rf"layout '{name}' needs .*/.*; give the directory that holds the published"):
        open_source(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "part"),
    [("birds", "segmentations"), ("fire", "Segmentation_Mask"), ("instruments", "kvasir-instrument/masks")],
)
def test_missing_part_is_named(tmp_path, save, name, part):
    WRITERS[name](tmp_path, save)
    (tmp_path / part).rename(tmp_path / "away")
    with pytest.raises(DataError, match=rf"layout '{name}' lacks .*{part.rpartition('/')[2]}"):
        open_source(tmp_path)


def test_tree_without_pairs_is_refused(tmp_path, save):
    tree = write_fire(tmp_path, save)
    for path in (tree / "Segmentation_Mask" / "Fire").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no image of layout 'fire' in .* has a mask of the same stem; give the dir"):
        open_source(tmp_path)


def test_shared_stem_is_refused(tmp_path, save):
    tree = write_flood(tmp_path, save)
    save(tree / "val" / "images" / "0.png", photo("twice"))
    with pytest.raises(DataError, match="two files share the stem 'val_0'"):
        open_source(tmp_path)


def pack(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


@pytest.mark.parametrize("layout", [None, "birds"])
def test_archives_that_are_not_unpacked_are_told(tmp_path, layout):
    pack(tmp_path / "CUB_200_2011.tgz", ["x"])
    with pytest.raises(DataError, match=r"not yet unpacked: .*CUB_200_2011\.tgz; unpack each .* or use 'data fetch'"):
        open_source(tmp_path, layout)


def test_archive_beside_or_in_the_tree_is_told_when_a_part_is_missing(tmp_path, save):
    write_birds(tmp_path, save)
    (tmp_path / "segmentations").rename(tmp_path / "away")
    pack(tmp_path / "segmentations.tgz", ["x"])
    with pytest.raises(DataError, match=r"'birds' lacks .*not yet unpacked: .*/segmentations\.tgz"):
        open_source(tmp_path)
    tree = write_instruments(tmp_path / "other", save)
    (tree / "masks").rename(tree / "away")
    pack(tree / "masks.tar.gz", ["x"])
    with pytest.raises(DataError, match=r"'instruments' lacks .*not yet unpacked: .*/masks\.tar\.gz"):
        open_source(tmp_path / "other")


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        (
            "train_test_split.txt",
            "1 1\n2 0\n",
            r"train_test_split\.txt gives image 3 no part, expected 1 \(train\) or 0",
        ),
        ("train_test_split.txt", "1 2\n", r"train_test_split\.txt gives image 1 no part"),
        ("images.txt", "1\n", r"images\.txt needs two words a line, got '1'; fetch it again"),
    ],
    ids=["short", "other", "words"],
)
def test_birds_refuse_damaged_lists(tmp_path, save, file, text, match):
    (write_birds(tmp_path, save) / file).write_text(text)
    with pytest.raises(DataError, match=match):
        open_source(tmp_path)


def test_instruments_refuse_a_list_of_unknown_stems(tmp_path, save):
    (write_instruments(tmp_path, save) / "test.txt").write_text("nobody\n")
    with pytest.raises(DataError, match=r"test\.txt names 1 stems that have no image, first 'nobody'; mend the list"):
        open_source(tmp_path)
