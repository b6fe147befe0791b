"""What people really have: read exactly, or refused by a sentence that names it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniatures import save_image
from smooth_attention.core.errors import DataError
from smooth_attention.data.check import check_source
from smooth_attention.data.files import read_greys, read_image
from smooth_attention.data.folder import read_mask
from smooth_attention.data.opening import open_source
from smooth_attention.data.splits import make_split

CASES = Path(__file__).parents[3] / "shared" / "cases"
SHAPE = (40, 36)
LABELS = (np.random.default_rng(0).random(SHAPE) < 0.4).astype(np.uint8)
PICTURE = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), np.uint8)

Save = Callable[..., Path]


def save_palette(path: Path, labels: np.ndarray, colours: list[tuple[int, int, int]]) -> Path:
    image = Image.fromarray(labels)
    image.putpalette([value for colour in colours for value in colour])
    image.save(path)
    return path


WHITE, BLACK, RED, NAVY = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 90)


@pytest.mark.parametrize("labels", [LABELS, np.zeros_like(LABELS), np.ones_like(LABELS)], ids=["both", "none", "all"])
@pytest.mark.parametrize("colours", [[BLACK, WHITE], [BLACK, RED], [NAVY, RED]], ids=["black", "red", "navy"])
def test_index_above_0_is_foreground(tmp_path: Path, labels: np.ndarray, colours: list[tuple[int, int, int]]) -> None:
    np.testing.assert_array_equal(read_mask(save_palette(tmp_path / "m.png", labels, colours), None), labels)


@pytest.mark.parametrize("labels", [LABELS, np.zeros_like(LABELS), np.ones_like(LABELS)], ids=["both", "none", "all"])
def test_white_is_foreground_wherever_it_stands_in_the_palette(tmp_path: Path, labels: np.ndarray) -> None:
    path = save_palette(tmp_path / "m.png", 1 - labels, [WHITE, BLACK])
    np.testing.assert_array_equal(read_mask(path, None), labels)
    np.testing.assert_array_equal(read_mask(path, ("background", "thing")), 1 - labels)  # of classes, indices count
    np.testing.assert_array_equal(read_greys(path).values, 255 * labels)  # a published mask is cut where it is grey


@pytest.mark.parametrize("colours", [[WHITE, RED], [(90, 90, 90), NAVY]], ids=["white", "grey"])
def test_lighter_background_is_refused(tmp_path: Path, colours: list[tuple[int, int, int]]) -> None:
    path = save_palette(tmp_path / "m.png", LABELS, colours)
    with pytest.raises(DataError, match=r"index 0 of the palette of .*m\.png is lighter than index 1.*save"):
        read_mask(path, None)


def test_deep_masks_are_0_and_full(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "m.png", LABELS.astype(np.uint16) * 65535)
    np.testing.assert_array_equal(read_mask(path, None), LABELS)


def test_mask_in_the_alpha_channel_is_named(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "m.png", np.dstack([*[np.full(SHAPE, 255, np.uint8)] * 3, 255 * LABELS]))
    with pytest.raises(DataError, match=r"all pixels of .*m\.png are 255; the mask may be in the alpha channel"):
        read_mask(path, None)


@pytest.mark.parametrize(("suffix", "what"), [(".tif", "pages"), (".gif", "frames"), (".webp", "frames")])
def test_pages_and_frames_are_counted(tmp_path: Path, suffix: str, what: str) -> None:
    first, *rest = (Image.fromarray(np.roll(PICTURE, 9 * step, 0)) for step in range(3))
    first.save(tmp_path / f"stack{suffix}", save_all=True, append_images=rest)
    with pytest.raises(DataError, match=rf"stack\{suffix} holds 3 {what}, of which one would be read"):
        read_image(tmp_path / f"stack{suffix}")


def test_photo_with_a_preview_is_read(tmp_path: Path) -> None:
    photo = Image.fromarray(PICTURE)
    photo.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[photo.resize((8, 8))])
    assert read_image(tmp_path / "phone.jpg").shape == PICTURE.shape


def test_deep_colours_are_refused(tmp_path: Path) -> None:
    import struct
    import zlib

    rows = b"".join(b"\0" + row.tobytes() for row in (PICTURE.astype(">u2") * 16))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", SHAPE[1], SHAPE[0], 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits a channel \(16-bit RGB\); scale it to 0-255"):
        read_image(tmp_path / "deep.png")


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.jpg.png"), ("A.JPG", "a.png"), ("a.png", "a_gt.png"), ("a.png", "a_GT.png"),
        ("a.png", "a_labels.png"), ("a.png", "a_L.png"), ("a.png", "a-mask.png"), ("a.png", "mask_a.png"),
        ("a.png", "gt_a.png"), ("a_0000.png", "a.png"), ("a.png", "a_mask.gif"), ("a.png", " a.png"),
        (unicodedata.normalize("NFD", "é") + ".png", unicodedata.normalize("NFC", "é") + ".png"),
    ],
    ids=str,
)  # fmt: skip
def test_masks_are_named_as_people_name_them(tmp_path: Path, save: Save, names: tuple[str, str]) -> None:
    save(tmp_path / "images" / names[0], PICTURE)
    save(tmp_path / "masks" / names[1], 255 * LABELS)
    source = open_source(tmp_path)
    assert source.problems == ()
    np.testing.assert_array_equal(source.load(source.stems[0]).mask, LABELS)


def test_two_masks_of_one_image_are_refused(write_folder: Callable[..., Path], save: Save) -> None:
    root = write_folder("ab")
    save(root / "masks" / "a_gt.png", LABELS)
    with pytest.raises(DataError, match=r"two masks belong to the image 'a': .*a\.png and .*a_gt\.png; remove one"):
        open_source(root)


def test_names_that_fit_nothing_are_shown(write_folder: Callable[..., Path]) -> None:
    root = write_folder("ab")
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_1stHO.png"))
    with pytest.raises(DataError, match=r"the first image is a\.png, the first mask a_1stHO\.png"):
        open_source(root)


def test_what_systems_leave_is_ignored_and_subfolders_are_told(write_folder: Callable[..., Path], save: Save) -> None:
    root = write_folder("abc")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png"):
        (root / "images" / name).write_bytes(b"x")
    (root / "masks" / "empty").mkdir()
    assert open_source(root).problems == ()
    save(root / "images" / "more" / "d.png", PICTURE)
    save(root / "images" / "more" / "e.png", PICTURE)
    assert open_source(root).problems == (
        f"{root}/images/more holds 2 images, which are not read; move them up into {root}/images, or elsewhere",
    )


@pytest.mark.parametrize("line", ["a.png", "images/a.png", "images\\a.png", " a ", "A.PNG", "a"])
def test_groups_and_lists_name_files_as_people_do(write_folder: Callable[..., Path], line: str) -> None:
    texts = {"groups.csv": f"stem,group\n{line},x\nb,x\nc,y\n", "train.txt": f"{line}\nb\n", "test.txt": "c\n"}
    source = open_source(write_folder("abc", texts=texts))
    assert source.groups == {"a": "x", "b": "x", "c": "y"}
    assert source.given_splits == {"train": ("a", "b"), "test": ("c",)}
    assert (source.problems, source.notes) == ((), ())


def test_rows_and_pairs_left_over_are_named(write_folder: Callable[..., Path]) -> None:
    source = open_source(write_folder("abcd", texts={"groups.csv": "stem,group\na,x\nb,x\nC1,y\nD1,y\n"}))
    (problem,) = source.problems
    assert "2 rows in" in problem
    assert "first 'C1'; 2 pairs without a row" in problem
    source = open_source(write_folder("abcd", root="some", texts={"groups.csv": "stem,group\na,x\nb,x\n"}))
    assert source.problems == ()
    assert source.notes == (f"2 pairs without a row in {source.root}/groups.csv, first 'c'",)


def test_pairs_that_lists_leave_out_are_counted(write_folder: Callable[..., Path]) -> None:
    source = open_source(write_folder("abcde", texts={"train.txt": "a\nb\n", "test.txt": "c\n"}))
    assert source.notes == ("train.txt, test.txt leave out 2 pairs of 5, first 'd': they take no part",)
    assert source.notes[0] in check_source(source).notes


def test_stems_with_dots_are_found(tmp_path: Path, save: Save) -> None:
    for stem in ("scan_1.tif", "scan_2.tif"):
        save(tmp_path / "images" / f"{stem}.png", PICTURE)
        save(tmp_path / "masks" / f"{stem}.png", LABELS)
    (tmp_path / "train.txt").write_text("scan_1.tif\n")
    (tmp_path / "test.txt").write_text("scan_2.tif.png\n")
    assert open_source(tmp_path).given_splits == {"train": ("scan_1.tif",), "test": ("scan_2.tif",)}


def test_masks_of_0_and_255_want_no_classes(write_folder: Callable[..., Path], save: Save) -> None:
    root = write_folder("abc", texts={"classes.txt": "ground\nwater\n"})
    for path in (root / "masks").iterdir():
        save(path, 255 * LABELS.T)
    assert any("255 means ignored with classes.txt" in problem for problem in check_source(open_source(root)).problems)
    (root / "classes.txt").write_text("water\n")
    with pytest.raises(DataError, match=r"names one class; line 1 is label 0, the background"):
        open_source(root)


def test_turned_photo_is_told(write_folder: Callable[..., Path], save: Save) -> None:
    root, exif = write_folder("a"), Image.Exif()
    exif[274] = 6
    save(root / "images" / "a.png", np.zeros((40, 60, 3), np.uint8), exif=exif)
    save(root / "masks" / "a.png", np.zeros((40, 60), np.uint8))
    with pytest.raises(DataError, match="the mask fits the image before its EXIF rotation: turn one of them"):
        open_source(root).load("a")


PLACES = {
    "in parts": lambda part, kind: Path(part) / kind,
    "in kinds": lambda part, kind: Path(kind) / part,
}


@pytest.mark.parametrize("masks", ["masks", "labels", "annotations"])
@pytest.mark.parametrize("place", PLACES)
def test_folders_are_the_split(tmp_path: Path, save: Save, place: str, masks: str) -> None:
    for part, stems in {"train": "abcdef", "valid": "gh", "test": "ij"}.items():
        for stem in stems:
            save(tmp_path / PLACES[place](part, "images") / f"{stem}.jpg", PICTURE)
            save(tmp_path / PLACES[place](part, masks) / f"{stem}.png", LABELS * 2)
    (tmp_path / "classes.txt").write_text("ground\nmud\nwater\n")
    source = open_source(tmp_path)
    assert (source.layout, source.class_names, source.problems) == ("parts", ("ground", "mud", "water"), ())
    assert make_split(source).parts() == {"train": tuple("abcdef"), "val": tuple("gh"), "test": tuple("ij")}
    np.testing.assert_array_equal(source.load("i").mask, 2 * LABELS)


def test_without_a_test_folder_val_is_tested_and_shared_stems_carry_their_part(tmp_path: Path, save: Save) -> None:
    for part, stems in {"train": "abcdefgh", "val": "ab"}.items():
        for stem in stems:
            save(tmp_path / part / "images" / f"{stem}.png", np.roll(PICTURE, ord(stem) + len(part), 0))
            save(tmp_path / part / "masks" / f"{stem}.png", LABELS)
    source = open_source(tmp_path)
    assert "val is the test part" in source.notes[0]
    split = make_split(source)
    assert split.test == ("val_a", "val_b")
    assert {*split.train, *split.val} == {f"train_{stem}" for stem in "abcdefgh"}


@pytest.mark.parametrize("texts", [{"classes.txt": "ground\nmud\nwater\n"}, {}], ids=["classes", "greys"])
def test_three_greys_are_never_cut_in_two(tmp_path: Path, save: Save, texts: dict[str, str]) -> None:
    greys = np.array([0, 100, 255], np.uint8)[np.random.default_rng(2).integers(0, 3, SHAPE)]
    for part in ("train", "val"):
        for stem in "abc":
            save(tmp_path / part / "images" / f"{stem}.png", PICTURE)
            save(tmp_path / part / "labels" / f"{stem}.png", greys)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    source = open_source(tmp_path)
    assert source.layout == "parts"
    with pytest.raises(DataError, match=r"labels/a\.png holds the values? (0, )?100"):
        source.read_labels(source.stems[0])


def test_soft_masks_are_cut_where_it_is_said(tmp_path: Path) -> None:
    block = np.kron(LABELS[:10, :9], np.ones((4, 4), np.uint8))  # JPEG rings; it keeps blocks
    for stem in "abc":
        save_image(tmp_path / "images" / f"{stem}.png", PICTURE)
        save_image(tmp_path / "masks" / f"{stem}.jpg", 255 * block, quality=90)
    with pytest.raises(DataError, match="pass --mask-threshold 128 if it is JPEG or soft"):
        open_source(tmp_path).load("a")
    cut = open_source(tmp_path, mask_threshold=128)
    np.testing.assert_array_equal(cut.load("a").mask, block)
    assert cut.fingerprint != open_source(tmp_path, mask_threshold=10).fingerprint


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (LABELS, "holds 0 and 1, of which --mask-threshold 128 would leave nothing"),
        (LABELS.astype(np.uint16) * 40000, "has more than 8 bits a pixel; --mask-threshold is a grey of 255"),
    ],
    ids=["labels", "16 bits"],
)
def test_threshold_refuses_other_ranges(tmp_path: Path, save: Save, array: np.ndarray, match: str) -> None:
    with pytest.raises(DataError, match=match):
        read_mask(save(tmp_path / "m.png", array), None, 128)


def test_threshold_cuts_greys_of_a_palette_and_refuses_hues(tmp_path: Path, save: Save) -> None:
    np.testing.assert_array_equal(
        read_mask(save_palette(tmp_path / "m.png", LABELS, [BLACK, WHITE]), None, 128), LABELS
    )
    np.testing.assert_array_equal(read_mask(save(tmp_path / "bits.png", LABELS.astype(bool)), None, 128), LABELS)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "none.png", 0 * LABELS), None, 128), 0 * LABELS)
    with pytest.raises(DataError, match="has a palette with hues, which --mask-threshold can't cut"):
        read_mask(save_palette(tmp_path / "red.png", LABELS, [BLACK, RED]), None, 128)


def test_threshold_is_refused_where_it_means_nothing(write_folder: Callable[..., Path]) -> None:
    root = write_folder("abc", texts={"classes.txt": "ground\nwater\n"})
    with pytest.raises(DataError, match="--mask-threshold 9 means nothing here: generated scenes have exact masks"):
        open_source("shapes", mask_threshold=9)
    with pytest.raises(DataError, match=r"classes\.txt says that masks hold class indices; leave out --mask-threshold"):
        open_source(root, mask_threshold=9)


def test_part_that_is_there_twice_is_refused(tmp_path: Path, save: Save) -> None:
    for part, kind in (
        ("train", "images"),
        ("train", "masks"),
        ("train", "labels"),
        ("val", "images"),
        ("val", "masks"),
    ):
        save(tmp_path / part / kind / "a.png", PICTURE if kind == "images" else LABELS)
    with pytest.raises(DataError, match=r"train/masks and .*train/labels are both masks of the part train"):
        open_source(tmp_path)


REAL = {
    "palette_inverted": (8, None), "rgb16png": (0, "16-bit RGB"), "multipage": (0, "holds 5 pages"),
    "dotstem": (8, None), "supervisely": (8, None), "gifmask": (8, None), "thumbs": (8, None), "g_half": (8, None),
    "nested3": (5, "holds 3 images, which are not read"), "jpegmask": (0, "pass --mask-threshold 128"),
    "offbyone": (0, "differ in size"), "cls255": (8, "255 means ignored with classes.txt"),
    "train_val_three_greys": (0, r"holds the values? 100"),
}  # fmt: skip


@pytest.mark.realdata
@pytest.mark.skipif(not CASES.is_dir(), reason="the cases of real users lie beside the checkout, and are not there")
@pytest.mark.parametrize("name", REAL)
def test_real_cases_give_what_is_right(name: str) -> None:
    report = check_source(source := open_source(CASES / name))
    count, sentence = REAL[name]
    assert report.num_pairs == count
    assert bool(report.problems) == (sentence is not None)
    assert sentence is None or any(re.search(sentence, problem) for problem in report.problems)
    if name == "palette_inverted":
        assert report.classes["foreground"][0] == pytest.approx(0.4408, abs=1e-4)
    if name == "g_half":
        assert report.num_groups == 4
        assert not any("groups" in leak for leak in report.leaks)
    if name == "dotstem":
        assert set(source.given_splits) == {"train", "val", "test"}
