"""Caches that real processes fill, together and until they are killed."""

import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deadlines import LAST_RESORT_S
from smooth_attention.core.errors import ConfigError, DataError
from smooth_attention.data import cache as cache_module
from smooth_attention.data.cache import cached_pairs, check_readable, resize_mask
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.shapes import ShapesSource

SIZE = 24

# Neither goes on before the other one is filling, too.
FILL_TOGETHER = """
import os, sys, time
from pathlib import Path
from smooth_attention.data.cache import cached_pairs
from smooth_attention.data.folder import FolderSource

root, cache, meeting = map(Path, sys.argv[1:])

class Slow(FolderSource):
    def load(self, stem):
        (meeting / str(os.getpid())).touch()
        deadline = time.monotonic() + 900
        while len(list(meeting.iterdir())) < 2:
            assert time.monotonic() < deadline, "the other process never came"
            time.sleep(0.005)
        return super().load(stem)

pairs = cached_pairs(Slow(root), image_size=24, directory=cache)
print(len(pairs.index), int(pairs.images.sum()), int(pairs.masks.sum()), pairs.images.filename)
"""

DIE_FILLING = """
import os, signal, sys
from pathlib import Path
from smooth_attention.data.cache import cached_pairs
from smooth_attention.data.folder import FolderSource

class Deadly(FolderSource):
    def load(self, stem):
        if stem == self.stems[-1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(stem)

cached_pairs(Deadly(Path(sys.argv[1])), image_size=24, directory=Path(sys.argv[2]))
"""


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "made" / "cache"


def place(pairs):
    return Path(pairs.images.filename).parent


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("image_size", [16, 24, 50])
def test_cache_equals_a_direct_resize(write_folder, directory, image_size):
    root = write_folder("abc", num_labels=4, texts={"classes.txt": "a\nb\nc\nd\n"})
    pairs = cached_pairs(FolderSource(root), image_size=image_size, directory=directory)
    assert pairs.index == {"a": 0, "b": 1, "c": 2}
    assert (pairs.images.shape, pairs.images.dtype) == ((3, image_size, image_size, 3), np.uint8)
    assert (pairs.masks.shape, pairs.masks.dtype) == ((3, image_size, image_size), np.uint8)
    for stem, row in pairs.index.items():
        for folder, got, resample in (
            ("images", pairs.images, Image.Resampling.BILINEAR),
            ("masks", pairs.masks, Image.Resampling.NEAREST),
        ):
            direct = Image.open(root / folder / f"{stem}.png").resize((image_size, image_size), resample)
            np.testing.assert_array_equal(got[row], np.asarray(direct))


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (4, 12)], ids=str)
def test_resize_mask_takes_height_first_and_mixes_no_labels(size):
    mask = np.array([[0, 7, 7, 255], [0, 7, 9, 9]], np.uint8)
    got = resize_mask(mask, size)
    assert got.shape == size
    rows = ((np.arange(size[0]) + 0.5) * 2 / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * 4 / size[1]).astype(int)
    np.testing.assert_array_equal(got, mask[rows][:, columns])


def test_cache_is_mapped_read_only(write_folder, directory):
    pairs = cached_pairs(FolderSource(write_folder()), image_size=SIZE, directory=directory)
    for array in (pairs.images, pairs.masks):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_cache_is_filled_once(write_folder, directory):
    source = FolderSource(write_folder())
    first = cached_pairs(source, image_size=SIZE, directory=directory)
    written = place(first).stat().st_mtime_ns, (place(first) / "images.npy").stat().st_ino
    second = cached_pairs(FolderSource(source.root), image_size=SIZE, directory=directory)
    assert place(second) == place(first)
    assert written == (place(second).stat().st_mtime_ns, (place(second) / "images.npy").stat().st_ino)
    assert names_in(directory) == [place(first).name]
    assert names_in(place(first)) == ["images.npy", "masks.npy"]


def test_cache_of_the_same_content_elsewhere_is_the_same(write_folder, directory):
    places = {
        place(cached_pairs(FolderSource(write_folder(root=root)), image_size=SIZE, directory=directory))
        for root in ("here/pets", "there/pets")
    }
    assert len(places) == 1


def change_pixel(root):
    path = root / "images" / "a.png"
    pixels = np.array(Image.open(path))
    pixels[3, 4, 1] ^= 1
    Image.fromarray(pixels).save(path)


def change_label(root):
    path = root / "masks" / "f.png"
    Image.fromarray(1 - np.array(Image.open(path))).save(path)


def swap_stems(root):
    for folder in ("images", "masks"):
        (root / folder / "a.png").rename(root / folder / "x.png")
        (root / folder / "b.png").rename(root / folder / "a.png")
        (root / folder / "x.png").rename(root / folder / "b.png")


@pytest.mark.parametrize(
    "change",
    [
        change_pixel,
        change_label,
        swap_stems,
        lambda root: (root / "masks" / "c.png").unlink(),
        lambda root: (root / "classes.txt").write_text("sky\nroad\n"),
    ],
    ids=["pixel", "mask", "stems", "one less", "classes"],
)
def test_cache_changes_with_the_content(write_folder, directory, change):
    root = write_folder()
    before = place(cached_pairs(FolderSource(root), image_size=SIZE, directory=directory))
    change(root)
    source = FolderSource(root)
    pairs = cached_pairs(source, image_size=SIZE, directory=directory)
    assert place(pairs) != before
    for stem in source.stems:
        direct = Image.fromarray(source.load(stem).image).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(pairs.images[pairs.index[stem]], np.asarray(direct))


def test_cache_changes_with_the_size(write_folder, directory):
    source = FolderSource(write_folder())
    places = {place(cached_pairs(source, image_size=size, directory=directory)) for size in (16, 24)}
    assert len(places) == 2


def test_cache_of_a_subset_has_its_own_rows(write_folder, directory):
    whole = FolderSource(write_folder())
    all_pairs = cached_pairs(whole, image_size=SIZE, directory=directory)
    pairs = cached_pairs(whole.without({"a", "c"}), image_size=SIZE, directory=directory)
    assert pairs.index == {"b": 0, "d": 1, "e": 2, "f": 3}
    np.testing.assert_array_equal(pairs.images, all_pairs.images[[1, 3, 4, 5]])


def test_cache_holds_generated_scenes(directory):
    source = ShapesSource(3, size=40)
    pairs = cached_pairs(source, image_size=40, directory=directory)
    np.testing.assert_array_equal(pairs.images[2], source.load("00002").image)
    np.testing.assert_array_equal(pairs.masks[2], source.load("00002").mask)


def test_two_processes_fill_one_cache_at_once(write_folder, directory, tmp_path):
    root, meeting = write_folder(), tmp_path / "meeting"
    meeting.mkdir()
    fillers = [
        subprocess.Popen(
            [sys.executable, "-c", FILL_TOGETHER, root, directory, meeting], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = [filler.communicate(timeout=LAST_RESORT_S)[0] for filler in fillers]
    assert [filler.returncode for filler in fillers] == [0, 0]
    assert len(list(meeting.iterdir())) == 2
    pairs = cached_pairs(FolderSource(root), image_size=SIZE, directory=directory)
    filename = pairs.images.filename
    assert printed == [f"6 {pairs.images.sum()} {pairs.masks.sum()} {filename}\n"] * 2
    assert pairs.images.sum() > 0 < pairs.masks.sum()
    assert names_in(directory) == [place(pairs).name]


def test_a_killed_filler_leaves_nothing_that_a_reader_takes_for_whole(write_folder, directory):
    root = write_folder()
    killed = subprocess.run([sys.executable, "-c", DIE_FILLING, root, directory], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = names_in(directory)
    assert len(left) == 1
    assert left[0].startswith(".pets-")
    pairs = cached_pairs(FolderSource(root), image_size=SIZE, directory=directory)
    assert place(pairs).name not in left
    last = np.asarray(Image.open(root / "images" / "f.png").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pairs.images[5], last)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_broken_file_is_named_and_nothing_is_left(write_folder, directory, folder):
    root = write_folder()
    path = root / folder / "d.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=re.escape(f"{path} is ")):
        cached_pairs(FolderSource(root), image_size=SIZE, directory=directory)
    assert names_in(directory) == []


def test_a_cache_that_cannot_be_put_in_place_is_no_silent_success(write_folder, directory):
    source = FolderSource(write_folder())
    target = place(cached_pairs(source, image_size=SIZE, directory=directory))
    for path in target.iterdir():
        path.unlink()
    target.rmdir()
    target.write_text("a file in the way")
    with pytest.raises(NotADirectoryError):
        cached_pairs(source, image_size=SIZE, directory=directory)
    assert names_in(directory) == [target.name]


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_cache_permissions_follow_the_umask(write_folder, directory, umask):
    before = os.umask(umask)
    try:
        pairs = cached_pairs(FolderSource(write_folder()), image_size=SIZE, directory=directory)
    finally:
        os.umask(before)
    assert place(pairs).stat().st_mode & 0o777 == 0o777 & ~umask
    assert Path(pairs.masks.filename).stat().st_mode & 0o777 == 0o666 & ~umask


def test_pickled_pairs_carry_the_place_not_the_pixels(write_folder, directory):
    pairs = cached_pairs(FolderSource(write_folder()), image_size=200, directory=directory)
    pickled = pickle.dumps(pairs)
    assert len(pickled) < 1000 < pairs.images.nbytes
    back = pickle.loads(pickled)
    assert (place(back), back.index) == (place(pairs), pairs.index)
    np.testing.assert_array_equal(back.images, pairs.images)
    np.testing.assert_array_equal(back.masks, pairs.masks)


def test_check_readable_gives_one_sentence_for_each_broken_pair(write_folder, save):
    root = write_folder()
    (root / "images" / "b.png").write_bytes(b"no image")
    save(root / "masks" / "d.png", np.full((36, 40), 9, np.uint8))
    save(root / "masks" / "e.png", np.zeros((50, 40), np.uint8))
    broken = check_readable(FolderSource(root))
    assert list(broken) == ["b", "d", "e"]
    for stem, sentence in {
        "b": "images/b.png is no image",
        "d": "masks/d.png holds the value 9",
        "e": "differ in size",
    }.items():
        assert sentence in broken[stem]


def test_cache_imports_no_torch():
    code = f"import sys, {cache_module.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_cache_that_cannot_be_written_is_told(write_folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"the cache .*file/below can't be written \(.*\); name another directory in"):
        cached_pairs(FolderSource(write_folder()), image_size=SIZE, directory=tmp_path / "file" / "below")


def test_a_disk_without_room_for_the_cache_is_told_and_nothing_is_left(write_folder, directory, monkeypatch):
    """A mapped file that outgrows its disk would kill the process."""
    source = FolderSource(write_folder())
    num_bytes = len(source.stems) * SIZE * SIZE * 4
    for free, has_room in ((num_bytes - 1, False), (num_bytes, True)):
        monkeypatch.setattr("shutil.disk_usage", lambda place, free=free: SimpleNamespace(free=free))
        if has_room:
            cached_pairs(source, image_size=SIZE, directory=directory)
        else:
            with pytest.raises(ConfigError, match=r"the cache .* needs 0 MB, its disk has 0 MB left; free some"):
                cached_pairs(source, image_size=SIZE, directory=directory)
            assert names_in(directory) == []


def test_a_data_set_may_have_the_longest_name(write_folder, directory):
    root = write_folder(root="n" * 255)
    assert len(cached_pairs(FolderSource(root), image_size=SIZE, directory=directory).index) == 6
