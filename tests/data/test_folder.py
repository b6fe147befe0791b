"""The ``folder`` layout, read from files that each test writes."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smooth_attention.core.errors import DataError
from smooth_attention.data.files import MIN_SIDE_PX, read_image
from smooth_attention.data.folder import FolderSource, read_mask

SHARED = Path(__file__).parents[3] / "shared" / "data"
SHAPE = (40, 36)
LABELS = np.random.default_rng(0).integers(0, 2, SHAPE, np.uint8)
PICTURE = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), np.uint8)
ORIENTATION = 274  # the EXIF tag


def opaque(*channels):
    """Channels with noise as transparency, which must not matter."""
    return np.stack([*channels, PICTURE[..., 0]], axis=-1)


def encode(array, suffix):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()))
    return buffer.getvalue()


@pytest.mark.parametrize("ending", ["", "_mask", "_seg", "_segmentation", "_label"])
@pytest.mark.parametrize(
    "suffixes", [(".jpg", ".png"), (".JPG", ".PNG"), (".TIFF", ".Bmp"), (".webp", ".tif")], ids=str
)
def test_folder_matches_masks_by_stem_ending_and_any_suffix(tmp_path, save, ending, suffixes):
    for stem in ("b.1", "mask_a", "a"):
        save(tmp_path / "images" / f"{stem}{suffixes[0]}", PICTURE)
        save(tmp_path / "masks" / f"{stem}{ending}{suffixes[1]}", LABELS)
    (tmp_path / "images" / ".hidden").touch()
    (tmp_path / "masks" / "a_folder.png").mkdir()
    source = FolderSource(tmp_path)
    assert source.stems == ("a", "b.1", "mask_a")
    assert source.mask_files["a"].name == f"a{ending}{suffixes[1]}"
    assert (source.name, source.problems, source.class_names) == (tmp_path.name, (), None)
    assert (source.num_labels, source.num_logits) == (2, 1)
    np.testing.assert_array_equal(source.load("a").mask, LABELS)


def test_folder_prefers_the_image_of_a_masks_whole_stem(write_folder):
    source = FolderSource(write_folder(["a", "a_mask"]))
    assert source.problems == ()
    assert [source.mask_files[stem].stem for stem in source.stems] == ["a", "a_mask"]


def test_folder_lists_what_has_no_partner_images_first(write_folder):
    root = write_folder("abcd")
    (root / "masks" / "a.png").unlink()
    (root / "masks" / "d.png").unlink()
    (root / "images" / "c.png").rename(root / "images" / "z_mask.png")  # an ending counts on masks alone
    source = FolderSource(root)
    assert source.stems == ("b",)
    (root / "masks" / "notes.txt").write_text("late at night")
    lonely_images = [f"{root}/images/{name}.png has no mask of the same stem" for name in ("a", "d", "z_mask")]
    stray = f"{root}/masks/notes.txt is no image by its name"
    assert FolderSource(root).problems == (
        *lonely_images,
        f"{root}/masks/c.png has no image of the same stem",
        stray,
    )


def test_folder_reads_classes_groups_and_lists(write_folder):
    texts = {
        "classes.txt": "\ufeffsky\n road \ncar\n\n",
        "groups.csv": '\ufeffgroup,stem,camera\n"north, 1",a,x\n"north, 1",b,x\nsouth,c,y\nelsewhere,not here,z\n',
        "train.txt": "\ufeffb\n\nimages/a.png\n",
        "val.txt": "c.PNG\n",
        "test.txt": "d\ne\n",
    }
    source = FolderSource(write_folder("abcde", num_labels=3, texts=texts))
    assert source.class_names == ("sky", "road", "car")
    assert (source.num_labels, source.num_logits) == (3, 3)
    assert source.groups == {"a": "north, 1", "b": "north, 1", "c": "south", "d": "d", "e": "e"}
    assert source.given_splits == {"train": ("b", "a"), "val": ("c",), "test": ("d", "e")}


def test_folder_leaves_unmatched_stems_out_of_its_lists(write_folder):
    root = write_folder("abc", texts={"train.txt": "a\nb", "test.txt": "c"})
    (root / "masks" / "b.png").unlink()
    assert FolderSource(root).given_splits == {"train": ("a",), "test": ("c",)}


def test_digest_changes_with_either_file(write_folder, save):
    root = write_folder("ab")
    source = FolderSource(root)
    before = source.digest("a"), source.digest("b"), source.fingerprint
    assert before[0] != before[1]
    for folder in ("images", "masks"):
        path = root / folder / "a.png"
        array = np.array(Image.open(path))
        array[0, 0] ^= 1
        save(path, array)
        after = FolderSource(root)
        assert (after.digest("a") == before[0], after.digest("b") == before[1]) == (False, True)
        assert after.fingerprint != before[2]
        before = after.digest("a"), after.digest("b"), after.fingerprint


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_read_image_applies_the_exif_orientation(tmp_path, save, suffix):
    left_red = np.zeros((40, 80, 3), np.uint8)
    left_red[:, :40, 0] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # shown turned clockwise: the left side comes to the top
    got = read_image(save(tmp_path / f"turned{suffix}", left_red, exif=exif))
    assert got.shape == (80, 40, 3)
    assert got.dtype == np.uint8
    assert got[:32, :, 0].min() > 200 > 60 > got[48:, :, 0].max()


@pytest.mark.parametrize(
    ("array", "want"),
    [
        (PICTURE, PICTURE),
        (opaque(*np.moveaxis(PICTURE, -1, 0)), PICTURE),
        (PICTURE[..., 0], PICTURE[..., [0, 0, 0]]),
        (PICTURE[..., 0] > 99, np.uint8(255) * (PICTURE[..., [0, 0, 0]] > 99)),
    ],
    ids=["RGB", "RGBA", "L", "1"],
)
def test_read_image_gives_rgb_of_any_mode(tmp_path, save, array, want):
    np.testing.assert_array_equal(read_image(save(tmp_path / "image.png", array)), want)


@pytest.mark.parametrize(("dtype", "suffix", "mode"), [(np.uint16, ".png", "I;16"), (np.float32, ".tif", "F")], ids=str)
def test_read_image_refuses_more_than_8_bits(tmp_path, save, dtype, suffix, mode):
    path = save(tmp_path / f"deep{suffix}", np.full(SHAPE, 1000, dtype))
    with pytest.raises(DataError, match=rf"deep\{suffix} has more than 8 bits a channel \(mode {mode}\); scale it"):
        read_image(path)


def test_read_image_refuses_a_decompression_bomb(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match=r"huge\.png is too large to open safely .*; make it smaller"):
        read_image(tmp_path / "huge.png")


@pytest.mark.parametrize("folder", ["images", "masks"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9], ids=["empty", "head", "most"])
def test_load_names_a_truncated_file(write_folder, folder, suffix, share):
    root = write_folder("ab")
    (root / folder / "b.png").unlink()
    whole = encode(PICTURE if folder == "images" else LABELS, suffix)
    path = root / folder / f"b{suffix}"
    path.write_bytes(whole[: int(share * len(whole))])
    source = FolderSource(root)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))} is (broken \(|no image that).*; replace or remove"):
        source.load("b")
    assert source.load("a").image.shape == (36, 40, 3)


@pytest.mark.parametrize(
    ("content", "match"),
    [(b"not an image\n", "is no image that can be read"), (None, "^no such file: ")],
    ids=["text", "gone"],
)
def test_load_names_a_file_that_is_no_image(write_folder, content, match):
    root = write_folder("ab")
    source = FolderSource(root)
    path = root / "masks" / "a.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=match) as raised:
        source.load("a")
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("image", "mask", "match"),
    [
        ((40, 36), (40, 48), r"differ in size: .*images/a\.png is 36x40, .*masks/a\.png is 48x40; resize one"),
        ((31, 50), (31, 50), r"images/a\.png is 50x31, too small .* at least 32 px: remove it, or use --skip-broken"),
        ((50, 31), (50, 31), r"images/a\.png is 31x50, too small"),
    ],
    ids=["sizes differ", "too low", "too narrow"],
)
def test_load_refuses_sizes(write_folder, save, image, mask, match):
    root = write_folder("a")
    save(root / "images" / "a.png", np.zeros((*image, 3), np.uint8))
    save(root / "masks" / "a.png", np.zeros(mask, np.uint8))
    with pytest.raises(DataError, match=match):
        FolderSource(root).load("a")


def test_load_takes_the_smallest_size_and_a_turned_image(write_folder, save):
    root = write_folder("ab", width=MIN_SIDE_PX, height=MIN_SIDE_PX)
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    save(root / "images" / "b.png", np.zeros((40, 60, 3), np.uint8), exif=exif)
    save(root / "masks" / "b.png", np.zeros((60, 40), np.uint8))
    source = FolderSource(root)
    assert source.load("a").mask.shape == (MIN_SIDE_PX, MIN_SIDE_PX)
    assert source.load("b").image.shape == (60, 40, 3)


MASK_MODES = {
    "L 0/1": LABELS,
    "L 0/255": LABELS * 255,
    "1": LABELS.astype(bool),
    "RGB 0/1": LABELS[..., None].repeat(3, -1),
    "RGB 0/255": LABELS[..., None].repeat(3, -1) * 255,
    "RGBA 0/255": opaque(LABELS * 255, LABELS * 255, LABELS * 255),
    "LA 0/255": opaque(LABELS * 255),
    "I;16 0/1": LABELS.astype(np.uint16),
    "F 0/255": LABELS.astype(np.float32) * 255,
}


@pytest.mark.parametrize("mode", MASK_MODES)
def test_read_mask_gives_binary_labels_of_any_mode(tmp_path, save, mode):
    path = save(tmp_path / f"mask{'.tif' if mode.startswith('F') else '.png'}", MASK_MODES[mode])
    got = read_mask(path, None)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, LABELS)


@pytest.mark.parametrize("class_names", [None, ("grass", "cow", "sky")], ids=["binary", "classes"])
def test_read_mask_takes_palette_indices_not_colours(tmp_path, class_names):
    image = Image.fromarray(LABELS)
    image.putpalette([5, 5, 5, 200, 10, 10, 10, 10, 10])
    assert image.mode == "P"
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", class_names), LABELS)


@pytest.mark.parametrize(("value", "want"), [(0, 0), (1, 1), (255, 1)])
def test_read_mask_takes_a_binary_mask_of_one_value(tmp_path, save, value, want):
    path = save(tmp_path / "mask.png", np.full(SHAPE, value, np.uint8))
    assert set(np.unique(read_mask(path, None))) == {want}


def test_read_mask_keeps_indices_and_ignored_pixels(tmp_path, save):
    labels = np.tile(np.array([0, 1, 2, 255], np.uint8), (40, 10))
    got = read_mask(save(tmp_path / "mask.png", labels), ("grass", "cow", "sky"))
    np.testing.assert_array_equal(got, labels)


def test_read_mask_applies_the_exif_orientation_as_for_images(tmp_path, save):
    exif = Image.Exif()
    exif[ORIENTATION] = 3  # turned by 180 degrees
    got = read_mask(save(tmp_path / "mask.png", LABELS, exif=exif), None)
    np.testing.assert_array_equal(got, LABELS[::-1, ::-1])


COLOURED = r"bad\.\w+ is a coloured mask \(mode {}\); save one channel of labels"
BINARY = r"bad\.\w+ holds the value{}, expected \{{0, 1\}} or \{{0, 255\}} .*--mask-threshold .*or add classes\.txt"
INDICES = r"bad\.\w+ holds the value{}, expected class indices 0 to 2 or 255 for ignored; mend the mask or classes"


@pytest.mark.parametrize(
    ("values", "suffix", "with_classes", "match"),
    [
        (PICTURE, ".png", False, COLOURED.format("RGB")),
        (opaque(*np.moveaxis(PICTURE, -1, 0)), ".png", True, COLOURED.format("RGBA")),
        ([0, 2], ".png", False, BINARY.format("s 0, 2")),
        ([7], ".png", False, BINARY.format(" 7")),
        ([1, 255], ".png", False, BINARY.format("s 1, 255")),
        ([0, 1, 255], ".png", False, BINARY.format("s 0, 1, 255")),
        ([0, 255], ".jpg", False, BINARY.format(r"s 0, 1, 2, 3, 4, \.\.\.")),
        ([0, 3, 255], ".png", True, INDICES.format(" 3")),
        ([0, 254, 3, 255], ".png", True, INDICES.format("s 3, 254")),
        (np.full(SHAPE, 300, np.uint16), ".png", True, INDICES.format(" 300")),
        (np.full(SHAPE, 0.5, np.float32), ".tif", True, INDICES.format(r" 0\.5")),
        (np.full(SHAPE, -1, np.float32), ".tif", True, INDICES.format(r" -1\.0")),
        (np.full(SHAPE, np.nan, np.float32), ".tif", True, INDICES.format(" nan")),
        (np.full(SHAPE, np.nan, np.float32), ".tif", False, BINARY.format(" nan")),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith(".") else "",
)
def test_read_mask_refuses_other_values(tmp_path, save, values, suffix, with_classes, match):
    if isinstance(values, list):
        values = np.random.default_rng(0).choice(np.array(values, np.uint8), SHAPE)
    path = save(tmp_path / f"bad{suffix}", values)
    with pytest.raises(DataError, match=match):
        read_mask(path, ("grass", "cow", "sky") if with_classes else None)


def test_read_mask_refuses_a_mode_whose_black_is_in_its_last_channel(tmp_path):
    inks = np.zeros((*SHAPE, 4), np.uint8)
    inks[..., 3] = LABELS * 255
    Image.frombytes("CMYK", SHAPE[::-1], inks.tobytes()).save(tmp_path / "bad.tif")
    with pytest.raises(DataError, match=COLOURED.format("CMYK")):
        read_mask(tmp_path / "bad.tif", None)


def write_copy(name):
    def spoil(root):
        (root / name).write_bytes((root / "images" / "a.png").read_bytes())

    return spoil


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (
            lambda root: root.rename(root.with_name("away")),
            r"no such data directory: .*pets; give a directory with imag",
        ),
        (lambda root: (root / "images").rename(root / "x"), r"no such folder: .*pets/images; the folder layout needs"),
        (lambda root: (root / "masks").rename(root / "x"), r"no such folder: .*pets/masks; the folder layout needs"),
        (write_copy("images/a.JPG"), r"two files share the stem 'a': .*images/a\.JPG and .*images/a\.png; rename one"),
        (write_copy("masks/a.bmp"), r"two files share the stem 'a': .*masks/a\.bmp and .*masks/a\.png; rename one"),
        (write_copy("masks/a_seg.png"), r"two masks belong to the image 'a': .*a\.png and .*a_seg\.png; remove one"),
        (
            lambda root: [path.rename(path.with_stem(f"{path.stem}-x")) for path in (root / "masks").iterdir()],
            r"no image in .*pets/images has a mask of the same stem in .*pets/masks",
        ),
    ],
    ids=["root", "images", "masks", "image twice", "mask twice", "two endings", "no pair"],
)
def test_folder_refuses(write_folder, spoil, match):
    root = write_folder("ab")
    spoil(root)
    with pytest.raises(DataError, match=match):
        FolderSource(root)


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ({"classes.txt": "sky\n"}, r"classes\.txt names one class; line 1 is label 0, the background"),
        ({"classes.txt": "sky\nsky\n"}, r"classes\.txt needs 2 to 255 different class names"),
        ({"classes.txt": ""}, r"classes\.txt needs .* got 0"),
        ({"classes.txt": "\n".join(map(str, range(256)))}, r"classes\.txt needs .* got 256"),
        ({"groups.csv": ""}, r"groups\.csv needs the columns stem,group, got None; mend its first line"),
        ({"groups.csv": "a,1\nb,1\n"}, r"groups\.csv needs the columns stem,group, got \['a', '1'\]"),
        ({"groups.csv": "stem;group\na;1\n"}, r"groups\.csv needs the columns .* got \['stem;group'\]"),
        ({"groups.csv": "stem,group\na,1\nb,\n"}, r"groups\.csv gives 'b' no group; name one, or remove the line"),
        ({"groups.csv": "stem,group\na\n"}, r"groups\.csv gives 'a' no group"),
        ({"groups.csv": "stem,group\na,1\na,2\n"}, r"groups\.csv puts 'a' into two groups, '1' and '2'; keep one"),
        ({"groups.csv": "stem,group\nx,1\ny,1\n"}, r"none of the 3 pairs here, the first row 'x', the first pair 'a'"),
        ({"train.txt": "a\n"}, r"pets has train\.txt; given splits need at least train\.txt and test\.txt: add"),
        ({"train.txt": "a\n", "val.txt": "b\n"}, r"pets has train\.txt, val\.txt; given splits need at least"),
        ({"test.txt": "a\n"}, r"pets has test\.txt; given splits need at least"),
        ({"train.txt": "a\nx\ny\n"}, r"train\.txt names 2 stems that have no image, first 'x'; mend the list"),
        ({"train.txt": "a\nb\na.png\n"}, r"train\.txt names 'a' twice; name each stem once"),
        ({"train.txt": "a\n", "test.txt": " \n\n"}, r"test\.txt is empty; name at least one stem or remove the file"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_folder_refuses_texts(write_folder, texts, match):
    root = write_folder("abc", texts=texts)
    with pytest.raises(DataError, match=match):
        FolderSource(root)


@pytest.mark.parametrize("name", ["classes.txt", "groups.csv", "train.txt"])
def test_folder_refuses_a_text_that_is_not_utf8(write_folder, name):
    root = write_folder("ab")
    (root / name).write_bytes("stem,group\nä,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=rf"{name} is no text in UTF-8 \(.*\); save it as UTF-8"):
        FolderSource(root)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "num_pairs", "lists"),
    [
        ("flood", 270, {}),
        ("fire", 200, {}),
        ("polyps", 200, {}),
        ("fish", 71, {}),
        ("animals", 126, {}),
        ("camvid", 220, {"train": 146, "val": 33, "test": 41}),
    ],
)
def test_folder_opens_real_data(name, num_pairs, lists):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {SHARED / name}")
    source = FolderSource(SHARED / name)
    assert (source.name, len(source.stems), source.problems) == (name, num_pairs, ())
    assert {part: len(stems) for part, stems in source.given_splits.items()} == lists
    assert (source.num_labels, source.num_logits) == ((11, 11) if name == "camvid" else (2, 1))
    assert 3 <= len(set(source.groups.values())) <= num_pairs
    pair = source.load(source.stems[0])
    assert pair.image.shape == (*pair.mask.shape, 3)
    assert min(pair.mask.shape) >= MIN_SIDE_PX
    labels = set(np.unique(pair.mask).tolist())
    assert len(labels) >= 2
    assert labels <= ({*range(11), 255} if name == "camvid" else {0, 1})
