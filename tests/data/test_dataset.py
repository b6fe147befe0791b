"""Augmented items: the same whatever ran before, and the mask stays with its image."""

import pickle
import random

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d, pad
from torch.utils.data import DataLoader

from smooth_attention.data.cache import cached_pairs
from smooth_attention.data.dataset import EpochSampler, PairDataset
from smooth_attention.data.folder import FolderSource
from smooth_attention.data.sources import IGNORED

SIZE = 64
EPOCHS = range(25)


@pytest.fixture
def noise(write_folder, tmp_path):
    """Noise, of five classes."""
    root = write_folder(num_labels=5, texts={"classes.txt": "sky\nroad\ncar\ntree\nsign\n"})
    return cached_pairs(FolderSource(root), image_size=SIZE, directory=tmp_path / "cache")


@pytest.fixture
def discs(tmp_path, save):
    """A large disc on the left and a small one below on the right; the red channel is the mask."""
    y, x = np.mgrid[:SIZE, :SIZE]
    mask = ((x - 20) ** 2 + (y - 26) ** 2 < 150) | ((x - 46) ** 2 + (y - 44) ** 2 < 50)
    root = tmp_path / "discs"
    for stem in ("a", "b"):
        save(root / "images" / f"{stem}.png", np.stack([mask, 0 * mask, 0 * mask], -1).astype(np.uint8) * 255)
        save(root / "masks" / f"{stem}.png", mask)
    return cached_pairs(FolderSource(root), image_size=SIZE, directory=tmp_path / "cache")


@pytest.fixture
def plain(tmp_path, save):
    """A function that gives one white image whose mask is all of one label, of four."""

    def write(label):
        root = tmp_path / f"label{label}"
        save(root / "images" / "a.png", np.full((SIZE, SIZE, 3), 255, np.uint8))
        save(root / "masks" / "a.png", np.full((SIZE, SIZE), label, np.uint8))
        (root / "classes.txt").write_text("sky\nroad\ncar\ntree\n")
        return cached_pairs(FolderSource(root), image_size=SIZE, directory=tmp_path / "cache")

    return write


def assert_equal_items(got, want):
    for name, g, w in zip(("image", "mask"), got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")


def differ(first, second):
    return any(not torch.equal(f, s) for f, s in zip(first, second, strict=True))


def interior(region, margin=2):
    """Pixels whose whole neighbourhood lies in the region; the frame is an edge as well."""
    outside = pad((~region).float()[None, None], [margin] * 4, value=1.0)
    return max_pool2d(outside, 2 * margin + 1, stride=1)[0, 0] == 0


def generator_states():
    numpy_state = np.random.get_state()  # noqa: NPY002
    accelerators = [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    return random.getstate(), numpy_state[1].tolist(), torch.get_rng_state().tolist(), accelerators


def test_item_without_a_seed_is_the_cached_pair(noise):
    dataset = PairDataset(noise, "fb")
    assert len(dataset) == 2
    for position, stem in enumerate("fb"):
        row = noise.index[stem]
        image, mask = dataset[7, position]
        assert (type(image), image.dtype, image.shape) == (torch.Tensor, torch.float32, (3, SIZE, SIZE))
        assert (type(mask), mask.dtype, mask.shape) == (torch.Tensor, torch.int64, (SIZE, SIZE))
        np.testing.assert_array_equal(image.numpy(), np.moveaxis(noise.images[row], -1, 0).astype(np.float32) / 255)
        np.testing.assert_array_equal(mask.numpy(), noise.masks[row])
        assert_equal_items(dataset[8, position], (image, mask))


def test_item_is_the_same_in_any_order_and_company(noise):
    first, other = PairDataset(noise, "abcdef", seed=3), PairDataset(noise, "fca", seed=3)
    keys = [(epoch, position) for epoch in (0, 1) for position in range(6)]
    items = {(epoch, "abcdef"[position]): first[epoch, position] for epoch, position in keys}
    for epoch, position in reversed([(epoch, position) for epoch in (0, 1) for position in range(3)]):
        assert_equal_items(other[epoch, position], items[epoch, "fca"[position]])


@pytest.mark.parametrize("seed", [0, None])
def test_item_neither_reads_nor_moves_the_global_generators(noise, seed):
    dataset, items = PairDataset(noise, "abc", seed=seed), []
    if torch.cuda.is_available():
        torch.cuda.init()
    for global_seed in (1, 2):
        random.seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        torch.manual_seed(global_seed)
        before = generator_states()
        items.append(dataset[4, 1])
        assert generator_states() == before
    assert_equal_items(*items)


def test_item_changes_with_seed_epoch_and_stem(discs):
    np.testing.assert_array_equal(discs.images[0], discs.images[1])  # so that only the stem differs
    items = [
        PairDataset(discs, "ab", seed=seed)[epoch, position]
        for seed in (0, 1)
        for epoch in (0, 1)
        for position in (0, 1)
    ]
    assert all(differ(items[i], items[j]) for i in range(8) for j in range(i))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_batches_are_the_same_in_a_worker_process(noise):
    batches = []
    for num_workers in (0, 1):
        dataset, sampler = PairDataset(noise, "abcdef", seed=0), EpochSampler(6, seed=0)
        sampler.set_epoch(2)
        torch.manual_seed(num_workers)
        loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=num_workers)
        batches.append(list(loader))
    assert [tuple(image.shape) for image, _ in batches[0]] == [(4, 3, SIZE, SIZE), (2, 3, SIZE, SIZE)]
    for alone, in_worker in zip(*batches, strict=True):
        assert_equal_items(in_worker, alone)


def test_dataset_survives_pickling_as_for_a_spawned_worker(noise):
    dataset = PairDataset(noise, "abcdef", seed=0)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < noise.images.nbytes / 4
    assert_equal_items(pickle.loads(pickled)[3, 2], dataset[3, 2])


def test_augmented_mask_stays_with_its_image(discs):
    dataset = PairDataset(discs, "ab", seed=0)
    moved = 0
    for epoch in EPOCHS:
        image, mask = dataset[epoch, 0]
        red = image[0]
        inside, outside = interior(mask == 1), interior(mask == 0)
        assert inside.sum() > 50
        assert outside.sum() > 1000
        assert red[inside].min() > red[outside].max() + 0.3
        moved += bool((mask.numpy() != discs.masks[0]).any())
    assert moved > len(EPOCHS) // 2


def test_augmentation_flips_moves_and_recolours(discs):
    dataset = PairDataset(discs, "ab", seed=0)
    weights, columns, brightness = [], [], []
    for epoch in EPOCHS:
        image, mask = dataset[epoch, 1]
        foreground = mask == 1
        weights.append(float(foreground.sum()))
        columns.append(float(foreground.nonzero()[:, 1].float().mean()))
        brightness.append(float(image[0][interior(foreground)].mean()))
    assert min(columns) < SIZE / 2 - 2  # the large disc on the left, as it is
    assert max(columns) > SIZE / 2 + 2  # and on the right, flipped
    assert max(weights) > 1.1 * min(weights)
    assert max(brightness) - min(brightness) > 0.05


@pytest.mark.parametrize("label", [0, 3, IGNORED])
def test_augmentation_adds_no_legal_label(plain, label):
    dataset, uncovered = PairDataset(plain(label), "a", seed=0), 0
    for epoch in EPOCHS:
        image, mask = dataset[epoch, 0]
        assert set(mask.unique().tolist()) <= {label, IGNORED}
        assert (mask == label).float().mean() > 0.5
        uncovered += int((mask == IGNORED).sum())
        if label != IGNORED:
            grey = image.mean(0)  # white and black, however recoloured, stay apart
            assert (grey[interior(mask == label)] > 0.6).all()
            assert (grey[interior(mask == IGNORED)] < 0.3).all()
    assert uncovered > 100


def test_augmentation_keeps_the_labels_of_a_rich_mask(noise):
    dataset = PairDataset(noise, "abcdef", seed=0)
    for epoch in EPOCHS:
        assert set(dataset[epoch, 2][1].unique().tolist()) <= {0, 1, 2, 3, 4, IGNORED}


def test_augmentation_leaves_the_cache_as_it_was(noise):
    before = noise.images.copy(), noise.masks.copy()
    for epoch in range(5):
        image, mask = PairDataset(noise, "a", seed=0)[epoch, 0]
        image.zero_()
        mask.zero_()
    np.testing.assert_array_equal(noise.images, before[0])
    np.testing.assert_array_equal(noise.masks, before[1])


def test_sampler_without_a_seed_goes_in_order():
    sampler = EpochSampler(4)
    assert len(sampler) == 4
    assert list(sampler) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    sampler.set_epoch(3)
    assert list(sampler) == [(3, 0), (3, 1), (3, 2), (3, 3)]


def test_sampler_orders_by_seed_and_epoch_alone():
    orders = {}
    for seed in (0, 1):
        sampler = EpochSampler(30, seed=seed)
        for epoch in (5, 0):
            torch.manual_seed(epoch)
            before = torch.get_rng_state()
            sampler.set_epoch(epoch)
            keys = list(sampler)
            assert torch.equal(torch.get_rng_state(), before)
            assert {key[0] for key in keys} == {epoch}
            orders[seed, epoch] = tuple(key[1] for key in keys)
            assert sorted(orders[seed, epoch]) == list(range(30))
            assert list(sampler) == keys
    assert len(set(orders.values())) == 4
    fresh = EpochSampler(30, seed=1)
    fresh.set_epoch(5)
    assert tuple(key[1] for key in fresh) == orders[1, 5]
