"""What ``data check`` reports, against NumPy on the same files."""

import numpy as np
import pytest
from PIL import Image

from smooth_attention.data.check import check_source
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.shapes import ShapesSource
from smooth_attention.data.splits import make_split

CLASSES = ("sky", "road", "car")


@pytest.fixture
def streets(write_folder, save):
    """Three classes of which the last never occurs, with ignored pixels and two sizes."""
    root = write_folder("abcdefgh", texts={"classes.txt": "\n".join(CLASSES)})
    save(root / "images" / "h.png", np.zeros((60, 50, 3), np.uint8))
    save(root / "masks" / "h.png", np.pad(np.zeros((50, 40), np.uint8), 5, constant_values=255))
    return root


def masks_of(root):
    return [np.asarray(Image.open(path)) for path in sorted((root / "masks").iterdir())]


def test_check_counts_what_numpy_counts(streets):
    report = check_source(FolderSource(streets))
    masks = masks_of(streets)
    pixels = np.concatenate([mask.ravel() for mask in masks])
    counted = pixels[pixels != 255]
    assert (report.name, report.num_pairs, report.num_groups) == ("pets", 8, 8)
    assert report.sizes == [((40, 36), 7), ((50, 60), 1)]
    assert report.ignored_frac == pytest.approx(np.mean(pixels == 255), rel=1e-12)
    assert tuple(report.classes) == CLASSES
    for label, (share, num_images) in enumerate(report.classes.values()):
        assert share == pytest.approx(np.mean(counted == label), rel=1e-12)
        assert num_images == sum((mask == label).any() for mask in masks)
    assert report.problems == ["class 'car' occurs in no mask"]
    assert (report.leaks, report.near_duplicates) == ([], None)


@pytest.mark.parametrize("value", [1, 255])
def test_check_of_a_binary_task_names_foreground_and_background(write_folder, save, value):
    root = write_folder()
    for stem in "abcdef":
        mask = np.zeros((36, 40), np.uint8)
        mask[:9] = value
        save(root / "masks" / f"{stem}.png", mask)
    report = check_source(FolderSource(root))
    assert report.classes == {"background": (0.75, 6), "foreground": (0.25, 6)}
    assert (report.ignored_frac, report.problems) == (0.0, [])


def test_check_says_that_no_mask_has_foreground(write_folder, save):
    root = write_folder(num_labels=1)
    assert check_source(FolderSource(root)).problems == ["class 'foreground' occurs in no mask"]


def test_check_names_broken_and_unmatched_files_and_counts_the_rest(write_folder, save):
    root = write_folder("abcdefgh")
    (root / "images" / "b.png").write_bytes(b"no image")
    save(root / "masks" / "d.png", np.full((36, 40), 9, np.uint8))
    (root / "masks" / "e.png").unlink()
    (root / "images" / "f.png").unlink()
    report = check_source(FolderSource(root))
    assert report.num_pairs == 4
    assert report.sizes == [((40, 36), 4)]
    expected = [
        f"{root}/images/e.png has no mask",
        f"{root}/masks/f.png has no image",
        f"{root}/images/b.png is no image",
        f"{root}/masks/d.png holds the value 9",
    ]
    assert len(report.problems) == len(expected)
    for problem, start in zip(report.problems, expected, strict=True):
        assert problem.startswith(start)


def test_check_of_broken_files_alone_still_reports(write_folder):
    root = write_folder("abc")
    for path in (root / "images").iterdir():
        path.write_bytes(b"no image")
    report = check_source(FolderSource(root))
    assert (report.num_pairs, report.sizes, report.ignored_frac) == (0, [], 0.0)
    assert report.classes == {"background": (0.0, 0), "foreground": (0.0, 0)}
    assert sum("is no image" in problem for problem in report.problems) == 3


@pytest.mark.parametrize(
    "texts",
    [{}, {"groups.csv": "stem,group\na,1\nb,1\n"}, {"train.txt": "a\nb\nc\nd", "val.txt": "e", "test.txt": "f"}],
    ids=["single", "groups", "lists"],
)
def test_check_counts_the_parts_that_train_would_use(write_folder, texts):
    source = FolderSource(write_folder(texts=texts))
    report = check_source(source)
    assert report.num_groups == (5 if "groups.csv" in texts else 6)
    assert report.parts == {part: len(stems) for part, stems in make_split(source).parts().items()}
    assert min(report.parts.values()) >= 1


def test_check_says_why_no_split_can_be_made(write_folder):
    report = check_source(FolderSource(write_folder("a")))
    assert report.parts == {}
    assert report.problems == [
        "pets has 1 pairs in 1 groups; a split needs at least 3 groups, one each for train, val and test: "
        "add images, or mend groups.csv"
    ]


def test_check_names_leaks_and_identical_images(write_folder):
    texts = {
        "groups.csv": "stem,group\na,1\nb,1\n",
        "train.txt": "a\nc\nf",
        "val.txt": "e",
        "test.txt": "b\nd",
    }
    root = write_folder("abcdefg", texts=texts)
    for folder in ("images", "masks"):
        for stem in "dg":
            (root / folder / f"{stem}.png").write_bytes((root / folder / "c.png").read_bytes())
    report = check_source(FolderSource(root))
    assert report.leaks == [
        "identical images: c, d, g",
        "group '1' shared between parts: a in train, b in test",
        "identical image shared between parts: c in train, d in test",
    ]
    assert report.problems == []


def test_check_groups_near_duplicates_among_readable_pairs(write_folder, save):
    root = write_folder()
    image = np.array(Image.open(root / "images" / "b.png"))
    save(root / "images" / "d.png", np.ascontiguousarray(image[:, ::-1]))
    save(root / "images" / "f.png", np.ascontiguousarray(np.rot90(image)))
    save(root / "masks" / "f.png", np.zeros((40, 36), np.uint8))
    (root / "images" / "c.png").write_bytes(b"no image")
    report = check_source(FolderSource(root), with_near_duplicates=True)
    assert report.near_duplicates == [["b", "d", "f"]]
    assert report.num_pairs == 5
    assert report.leaks == []


def test_check_of_generated_scenes_finds_nothing_wrong():
    report = check_source(ShapesSource(12, size=48))
    assert (report.name, report.num_pairs, report.sizes) == ("shapes", 12, [((48, 48), 12)])
    assert (report.problems, report.leaks) == ([], [])
    assert sum(report.parts.values()) == 12
