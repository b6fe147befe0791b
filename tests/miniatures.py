"""Miniatures of the published datasets: the exact trees with their traps, written by the tests that need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SHAPE = (36, 48)
BLOCK = np.zeros(SHAPE, bool)
BLOCK[8:28, 12:30] = True
VOTES = np.zeros(SHAPE, np.uint8)
for index, vote in enumerate((51, 102, 153, 204, 255)):
    VOTES[:, 8 * index + 8 : 8 * index + 16] = vote


def save_image(path: Path, array: np.ndarray, **options: object) -> Path:
    """Write an array as an image, its format by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def photo(name, shape=SHAPE):
    """A picture with coarse structure, drawn from its name alone."""
    rng = np.random.default_rng([*name.encode()])
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


def write_birds(root, save, *, beside=True):
    """Two classes of three; a grey image, votes, a stray and the official lists."""
    tree = root / "CUB_200_2011"
    masks = (root if beside else tree) / "segmentations"
    names, parts = [], []
    for kind in ("001.Black_footed_Albatross", "002.Laysan_Albatross"):
        for index in range(3):
            stem = f"{kind[4:]}_{len(names):04d}_{796 + index}"
            save(tree / "images" / kind / f"{stem}.jpg", photo(stem)[..., 0] if index == 1 else photo(stem))
            save(masks / kind / f"{stem}.png", VOTES)
            names.append(f"{len(names) + 1} {kind}/{stem}.jpg")
            parts.append(f"{len(names)} {int(index < 2)}")
    save(tree / "images" / kind / "Laysan_Albatross_0001_rgb.jpg", photo("stray"))
    (tree / "images.txt").write_text("\n".join(names) + "\n")
    (tree / "train_test_split.txt").write_text("\n".join(parts) + "\n")
    return tree


def write_fish(root, save):
    """Two species whose numbers collide; four looks of each photo; masks as booleans, 0/255 and 0/1."""
    tree = root / "Fish_Dataset" / "Fish_Dataset"
    looks = (lambda a: a, lambda a: a[:, ::-1], lambda a: a[::-1], np.rot90)
    encodings = (lambda m: m, lambda m: np.uint8(255) * m, lambda m: m.astype(np.uint8), lambda m: np.uint8(255) * m)
    for species in ("Hourse Mackerel", "Trout"):
        for number in range(12):
            look, encode = looks[number % 4], encodings[number % 4]
            image = np.ascontiguousarray(look(photo(f"photo {number // 4}")))  # both species show the same photos
            save(tree / species / species / f"{number + 1:05d}.png", image)
            save(tree / species / f"{species} GT" / f"{number + 1:05d}.png", np.ascontiguousarray(encode(look(BLOCK))))
    return tree


def write_fire(root, save):
    """Masks whose JPEG rings, and images without fire, which have none."""
    for index in range(5):
        save(root / "Image" / "Fire" / f"Img_{index}.jpg", photo(f"fire {index}"))
        save(root / "Segmentation_Mask" / "Fire" / f"Img_{index}.jpg", np.uint8(255) * BLOCK, quality=75)
        save(root / "Image" / "Not_Fire" / f"Img_{index}.jpg", photo(f"none {index}"))
    return root


def write_instruments(root, save):
    """Three-channel masks; lists of stems, of which the order does not matter."""
    tree = root / "kvasir-instrument"
    stems = [f"ck2395w2mb4vu07480otsu{index:02d}" for index in range(6)]
    for stem in stems:
        save(tree / "images" / f"{stem}.jpg", photo(stem))
        save(tree / "masks" / f"{stem}.png", np.uint8(255) * BLOCK[..., None].repeat(3, -1))
    (tree / "train.txt").write_text("\n".join(stems[:3:-1] + stems[:2]) + "\n")
    (tree / "test.txt").write_text("\n".join(stems[2:4]) + "\n")
    (tree / "bboxes.json").write_text("{}")
    return tree


def write_flood(root, save):
    """Both folders share stems; suffixes of image and mask differ."""
    tree = root / "dataset"
    for part, count in (("train", 5), ("val", 2)):
        for index in range(count):
            save(tree / part / "images" / f"{index}.jpg", photo(f"{part} {index}"))
            suffix = "jpg" if index == 1 else "png"
            save(tree / part / "labels" / f"{index}.{suffix}", np.uint8(255) * BLOCK)
    return tree


WRITERS = {
    "birds": write_birds,
    "fish": write_fish,
    "fire": write_fire,
    "instruments": write_instruments,
    "flood": write_flood,
}
