"""Corruptions: each by what its published constant means, whatever the size of the image and the order of calls."""

from __future__ import annotations

import colorsys
import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.data.corruptions import CONSTANTS, CORRUPTIONS, SEVERITIES, corrupt, draw_plasma
from smooth_attention.data.shapes import draw_scene

RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return draw_scene(3, size=224).image


def by_severity(*constants: float) -> list[tuple[int, float]]:
    return list(enumerate(constants, start=1))


def grey(value: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def one_white_pixel(size: int = 61) -> np.ndarray:
    image = grey(0, (size, size))
    image[size // 2, size // 2] = 255
    return image


def test_corruptions_are_the_ten_of_the_documentation() -> None:
    assert CORRUPTIONS == (
        "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "motion_blur",
        "jpeg", "brightness", "contrast", "fog", "pixelate",
    )  # fmt: skip
    assert SEVERITIES == (1, 2, 3, 4, 5)


def test_constants_that_come_in_pairs_are_the_published_ones() -> None:
    """The other tests hold single constants to what they do to an image; these differ by less than it shows."""
    assert CONSTANTS["defocus_blur"] == ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    assert CONSTANTS["motion_blur"] == ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    assert CONSTANTS["fog"] == ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_grows_with_severity(scene: np.ndarray, name: str) -> None:
    """Mean over a few seeds: how much fog there is differs from draw to draw."""
    damage = [
        np.mean([np.abs(corrupt(scene, name, severity, seed=seed) - scene.astype(float)).mean() for seed in range(8)])
        for severity in SEVERITIES
    ]
    assert damage[0] > 1
    assert all(before < after for before, after in pairwise(damage))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_result_depends_on_the_seed_alone(scene: np.ndarray, name: str) -> None:
    image = scene[:40, :60].copy()
    first = corrupt(image, name, 3, seed=1)
    another = corrupt(image, name, 3, seed=2)
    np.random.default_rng().random(7)
    np.testing.assert_array_equal(corrupt(image, name, 3, seed=1), first)
    np.testing.assert_array_equal(image, scene[:40, :60])
    assert np.array_equal(first, another) == (name not in RANDOM)


@pytest.mark.parametrize("size", [(33, 50), (300, 17), (2, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_size_comes_back_as_it_is(name: str, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for severity in (1, 5):
        result = corrupt(image, name, severity, seed=0)
        assert (result.shape, result.dtype) == (image.shape, np.uint8)
        if size == (33, 50):
            assert not np.array_equal(result, image)


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "brightness", "contrast", "fog", "pixelate"])
def test_black_and_white_do_not_wrap_round(name: str) -> None:
    """Black has nothing that fog could be scaled to, and turns grey by brightness alone."""
    assert set(np.unique(corrupt(grey(0), name, 2, seed=0))) == ({51} if name == "brightness" else {0})
    white = corrupt(grey(255), name, 2, seed=0)
    assert white.min() == (255 if name != "fog" else 85)
    assert white.max() == 255


def test_noise_does_not_wrap_round() -> None:
    assert corrupt(grey(0), "gaussian_noise", 1, seed=0).max() < 128
    assert corrupt(grey(255), "gaussian_noise", 1, seed=0).min() > 128
    assert corrupt(grey(0), "shot_noise", 1, seed=0).max() == 0
    assert corrupt(grey(255), "shot_noise", 1, seed=0).min() > 64


@pytest.mark.parametrize(("severity", "sd"), [(1, 0.08), (2, 0.12)])
def test_gaussian_noise_has_the_published_deviation(severity: int, sd: float) -> None:
    noise = corrupt(grey(128, (200, 200)), "gaussian_noise", severity, seed=0) / 255.0 - 128 / 255
    assert noise.std() == pytest.approx(sd, rel=0.01)
    assert abs(noise.mean()) < 0.002
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (3, 12)])
def test_shot_noise_has_the_variance_of_counted_photons(severity: int, photons: int) -> None:
    value = 64 / 255
    noisy = corrupt(grey(64, (200, 200)), "shot_noise", severity, seed=0) / 255
    assert noisy.mean() == pytest.approx(value, rel=0.01)
    assert noisy.var() == pytest.approx(value / photons, rel=0.02)


@pytest.mark.parametrize(("severity", "share"), by_severity(0.03, 0.06, 0.09, 0.17, 0.27))
def test_impulse_noise_makes_the_published_share_black_or_white(severity: int, share: float) -> None:
    noisy = corrupt(grey(128, (300, 300)), "impulse_noise", severity, seed=0)
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert (noisy == 0).mean() == pytest.approx(share / 2, rel=0.05)
    assert (noisy == 255).mean() == pytest.approx(share / 2, rel=0.05)
    assert (noisy[..., 0] != noisy[..., 1]).any()  # channel by channel


@pytest.mark.parametrize(("severity", "radius"), by_severity(3, 4, 6, 8, 10))
def test_defocus_spreads_a_point_over_a_disc(severity: int, radius: int) -> None:
    """The disc of the published radius, softened by half a pixel from severity 2 on."""
    spread = corrupt(one_white_pixel(), "defocus_blur", severity, seed=0)[..., 0].astype(float)
    rows, columns = np.nonzero(spread)
    reach = max(rows.max() - 30, columns.max() - 30)
    assert reach - radius in ((0,) if severity == 1 else (0, 1))
    np.testing.assert_array_equal(spread, spread.T)
    offsets = np.arange(61) - 30
    disc = offsets[:, None] ** 2 + offsets**2 <= radius**2
    assert spread[disc].mean() == pytest.approx(255 / disc.sum(), abs=0.6)
    if severity == 1:
        assert set(np.unique(spread[disc])) == {round(255 / 29)}


@pytest.mark.parametrize(("severity", "radius"), by_severity(10, 15, 15, 15, 20))
def test_motion_spreads_a_point_along_a_centred_line(severity: int, radius: int) -> None:
    for seed in range(4):
        spread = corrupt(one_white_pixel(), "motion_blur", severity, seed=seed)[..., 0].astype(float)
        rows, columns = (places - 30 for places in np.nonzero(spread))
        np.testing.assert_array_equal(spread, spread[::-1, ::-1])  # objects stay where their masks are
        assert len(rows) <= 2 * radius + 1
        assert max(np.hypot(rows, columns)) <= radius + 1
        if severity > 2:  # else the ends are too faint to be seen
            assert max(np.hypot(rows, columns)) > 0.9 * radius
        assert max(np.abs(rows)) <= max(np.abs(columns))  # at most 45 degrees from the rows


def test_motion_has_gaussian_weights() -> None:
    """At severity 2 a line of 15 px each way with a deviation of 5 px: its middle has the share 1 / (5 sqrt(2 pi))."""
    spread = corrupt(one_white_pixel(), "motion_blur", 2, seed=0)[..., 0]
    assert spread[30, 30] == pytest.approx(255 / (5 * np.sqrt(2 * np.pi)), abs=1)


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "contrast", "pixelate"])
def test_an_even_image_stays_even_to_its_border(name: str) -> None:
    for severity in SEVERITIES:
        np.testing.assert_array_equal(corrupt(grey(90, (33, 50)), name, severity, seed=0), grey(90, (33, 50)))


@pytest.mark.parametrize(("severity", "quality"), by_severity(25, 18, 15, 10, 7))
def test_jpeg_is_that_of_the_published_quality(scene: np.ndarray, severity: int, quality: int) -> None:
    file = io.BytesIO()
    Image.fromarray(scene).save(file, "JPEG", quality=quality)
    np.testing.assert_array_equal(corrupt(scene, "jpeg", severity, seed=0), np.asarray(Image.open(file)))


@pytest.mark.parametrize(("severity", "more"), by_severity(0.1, 0.2, 0.3, 0.4, 0.5))
def test_brightness_raises_the_value_of_hsv(severity: int, more: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image[0, 0] = 0
    bright = corrupt(image, "brightness", severity, seed=0)
    for got, pixel in zip(bright.reshape(-1, 3), image.reshape(-1, 3) / 255, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + more))
        np.testing.assert_allclose(got, 255 * np.array(expected), atol=0.51)


@pytest.mark.parametrize(("severity", "share"), by_severity(0.4, 0.3, 0.2, 0.1, 0.05))
def test_contrast_draws_values_to_the_mean_of_their_channel(severity: int, share: float) -> None:
    image = np.zeros((8, 10, 3), np.uint8)
    image[:, 5:] = (200, 100, 50)
    low = corrupt(image, "contrast", severity, seed=0)
    for channel, mean in enumerate((100, 50, 25)):
        np.testing.assert_allclose(low[:, :5, channel], mean - share * mean, atol=0.51)
        np.testing.assert_allclose(low[:, 5:, channel], mean + share * mean, atol=0.51)


@pytest.mark.parametrize(("severity", "thickness"), by_severity(1.5, 2, 2.5, 2.5, 3))
def test_fog_runs_from_none_to_its_thickness(severity: int, thickness: float) -> None:
    """On an even image of the fog's own size the thinnest place leaves g * g / (g + thickness), the thickest g."""
    value = 200 / 255
    foggy = corrupt(grey(200), "fog", severity, seed=0)
    assert foggy.min() == round(255 * value**2 / (value + thickness))
    assert foggy.max() == 200
    np.testing.assert_array_equal(foggy[..., 0], foggy[..., 1])


def test_fog_is_in_patches_that_get_finer_with_severity() -> None:
    fogs = [corrupt(grey(200, (128, 128)), "fog", severity, seed=0)[..., 0] / 255 for severity in SEVERITIES]
    steps = [np.abs(np.diff(fog, axis=1)).mean() / fog.std() for fog in fogs]
    assert steps[0] == pytest.approx(steps[1], abs=0.005)  # both halve their waves twice as fast as their sizes
    assert steps[1] < steps[2] < steps[3] < steps[4] < 0.3


def test_plasma_has_the_mean_of_its_neighbours_where_noise_has_faded() -> None:
    """On a torus: of the diagonal neighbours in the middle of squares, of the nearest ones in the middle of edges."""
    plasma = draw_plasma(50, 10, np.random.default_rng(0))  # a hundredth of the noise in each round
    assert plasma.shape == (64, 64)
    assert (plasma.min(), plasma.max()) == (0, 1)
    above, below, left, right = (np.roll(plasma, *by) for by in ((1, 0), (-1, 0), (1, 1), (-1, 1)))
    diagonal = (np.roll(above, 1, 1) + np.roll(above, -1, 1) + np.roll(below, 1, 1) + np.roll(below, -1, 1)) / 4
    nearest = (above + below + left + right) / 4
    np.testing.assert_allclose(plasma[1::2, 1::2], diagonal[1::2, 1::2], atol=1e-6)
    np.testing.assert_allclose(plasma[::2, 1::2], nearest[::2, 1::2], atol=1e-6)
    np.testing.assert_allclose(plasma[1::2, ::2], nearest[1::2, ::2], atol=1e-6)


def test_pixelate_has_the_box_means_of_blocks() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    blocks = corrupt(image, "pixelate", 5, seed=0).reshape(10, 4, 25, 4, 3)
    np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape))
    np.testing.assert_allclose(blocks[:, 0, :, 0], image.reshape(10, 4, 25, 4, 3).mean(axis=(1, 3)), atol=1.01)
    coarse = [corrupt(image, "pixelate", severity, seed=0)[0] for severity in SEVERITIES]
    assert [int((np.diff(row.astype(int), axis=0) != 0).any(axis=1).sum()) + 1 for row in coarse] == [
        60, 50, 40, 30, 25,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
    ids=lambda image: f"{image.dtype} {image.shape}",
)
def test_what_is_no_rgb_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"corrupt needs a uint8 image of shape \(H, W, 3\), got "):
        corrupt(image, "fog", 1, seed=0)


def test_unknown_corruptions_and_severities_are_refused() -> None:
    with pytest.raises(OptionError, match=r"a corruption is one of gaussian_noise, .*, got 'frog'; .*fog"):
        corrupt(grey(0), "frog", 1, seed=0)
    for severity in (0, 6):
        with pytest.raises(OptionError, match=f"is 1, 2, 3, 4 or 5, got {severity}; 1 is the mildest"):
            corrupt(grey(0), "fog", severity, seed=0)
