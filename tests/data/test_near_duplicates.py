"""Copies are found however they are turned or recompressed; different pictures are left apart."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.data.near_duplicates import (
    MAX_DISTANCE,
    NUM_BITS,
    group_near_duplicates,
    hash_distance,
    perceptual_hash,
)
from smooth_attention.data.shapes import draw_scene

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"


def turned(image, variant):
    """Return one of the eight flips and turns."""
    return np.rot90(image[:, ::-1] if variant >= 4 else image, variant % 4)


def recompressed(image, quality):
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resized(image, width, height):
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BICUBIC))


def brightened(image, factor):
    return np.clip(image * factor, 0, 255).astype(np.uint8)


ALTERATIONS = {
    "jpeg-20": lambda image: recompressed(image, 20),
    "half size": lambda image: resized(image, image.shape[1] // 2, image.shape[0] // 2),
    "other aspect ratio": lambda image: resized(image, 90, 140),
    "brighter": lambda image: brightened(image, 1.1),
    "darker": lambda image: brightened(image, 0.85),
    "turned and jpeg-50": lambda image: recompressed(turned(image, 5), 50),
}


@pytest.fixture(scope="module")
def images():
    # Not square, so that turns change the shape.
    return [draw_scene(index, size=128).image[:, :104] for index in range(24)]


@pytest.mark.parametrize("variant", range(8))
def test_hash_is_the_same_for_every_flip_and_turn(images, variant):
    for image in images:
        np.testing.assert_array_equal(perceptual_hash(turned(image, variant)), perceptual_hash(image))


def test_hash_of_a_symmetric_image_does_not_hang_on_rounding():
    half = draw_scene(0, size=64).image[:, :32]
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    for variant in range(8):
        np.testing.assert_array_equal(perceptual_hash(turned(image, variant)), perceptual_hash(image))


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_copies_are_near(images, alteration):
    distances = [
        hash_distance(perceptual_hash(image), perceptual_hash(ALTERATIONS[alteration](image))) for image in images
    ]
    assert max(distances) <= MAX_DISTANCE


def test_different_scenes_are_far(images):
    hashes = [perceptual_hash(image) for image in images]
    distances = [hash_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 1.5 * MAX_DISTANCE


def test_distance_is_the_least_over_flips_and_turns():
    # The oracle hashes all eight variants' frequencies afresh; two unlike images share no canonical orientation.
    first, second = draw_scene(1, size=64).image, draw_scene(2, size=64).image
    want = min(int((signs(turned(first, v)) != signs(second)).sum()) for v in range(8))
    assert hash_distance(perceptual_hash(first), perceptual_hash(second)) == want
    assert hash_distance(perceptual_hash(second), perceptual_hash(first)) == want


def signs(image):
    """Signs of the low frequencies, by the cosine sum itself; 64 px divide evenly into the 32 of the thumbnail."""
    grey = (image @ np.array([0.299, 0.587, 0.114])).reshape(32, 2, 32, 2).mean(axis=(1, 3))
    cosines = np.cos(np.pi / 32 * np.outer(np.arange(16), np.arange(32) + 0.5))
    return (cosines @ grey @ cosines.T).ravel()[1:] > 0


def test_groups_hold_copies_and_nothing_else(images):
    named = [(f"scene-{i}", image) for i, image in enumerate(images)]
    copies = [
        ("turned", turned(images[3], 3)),
        ("small", resized(images[3], 60, 70)),
        ("grainy", recompressed(images[7], 20)),
    ]
    assert group_near_duplicates([*named, *copies]) == [["scene-3", "turned", "small"], ["scene-7", "grainy"]]


def test_groups_join_through_further_copies(images):
    # Two crops at opposite corners are far from each other; the image between them is near to both.
    image = images[2]
    chain = [("left", image[:, :100]), ("right", image[:, 4:]), ("whole", image)]
    apart = hash_distance(perceptual_hash(chain[0][1]), perceptual_hash(chain[1][1]))
    near = max(hash_distance(perceptual_hash(image), perceptual_hash(crop)) for _, crop in chain[:2])
    assert near < apart
    assert group_near_duplicates(chain, max_distance=apart - 1) == [["left", "right", "whole"]]
    assert group_near_duplicates(chain[:2], max_distance=apart - 1) == []


def test_groups_of_more_images_than_are_compared_at_once(monkeypatch, images):
    monkeypatch.setattr("smooth_attention.data.near_duplicates.BLOCK", 5)
    named = [(f"scene-{i}", image) for i, image in enumerate(images)]
    assert group_near_duplicates([*named, ("copy", turned(images[0], 6))]) == [["scene-0", "copy"]]


def test_no_images_no_groups():
    assert group_near_duplicates([]) == []


@pytest.mark.parametrize("max_distance", [-1, NUM_BITS + 1])
def test_impossible_distance_is_refused(max_distance):
    with pytest.raises(OptionError, match="max_distance counts bits, from 0 to 255"):
        group_near_duplicates([], max_distance=max_distance)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
    ids=["grey", "float", "empty"],
)
def test_anything_but_a_colour_image_is_refused(image):
    with pytest.raises(ShapeError, match="uint8 image of shape"):
        perceptual_hash(image)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["fish", "flood"])
def test_real_photographs_join_only_known_copies(name):
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f"no real images at ../shared/data/{name}")
    known = dict(csv.reader((folder / "groups.csv").read_text().splitlines()))
    photos = [
        (path.stem, np.asarray(Image.open(path).convert("RGB"))) for path in sorted((folder / "images").iterdir())
    ]
    flipped = [(f"{stem} flipped", recompressed(turned(photo, 1), 60)) for stem, photo in photos[:20]]
    groups = group_near_duplicates([*photos, *flipped])
    found = {frozenset(group) for group in groups}
    assert all(any({stem, f"{stem} flipped"} <= group for group in found) for stem, _ in photos[:20])
    # 3019 and 3043 of flood are one photograph in two colourings, which its groups.csv does not know.
    known["3043"] = known.get("3019", "")
    joined = [{known[name.removesuffix(" flipped")] for name in group} for group in groups]
    assert all(len(sources) == 1 for sources in joined)
    repeated = {group for group in known.values() if sum(g == group for g in known.values()) > 1} - {"group", ""}
    assert repeated <= set().union(*joined)
