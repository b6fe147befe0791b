"""A network's look at an image: rows by the formula, masks by networks made with the rule, places in the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from look_runs import sharpen
from smooth_attention import create_model, insert, predict
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.look.attention import Look, heads_of
from smooth_attention.models import Preprocessing, SmoothAttention
from smooth_attention.models.network import Network
from smooth_attention.models.rows import Rule

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 130, 3), np.uint8)  # height, width


def make_net(image_size: int = 64, *, block: str = "smooth", **options: Any) -> Network:
    torch.manual_seed(0)
    net = create_model("unet", encoder_weights=None, block=block, block_options=options or None, stages=(-3,))
    net.preprocessing = Preprocessing(image_size=image_size)
    return sharpen(net)


def formula(head_query: torch.Tensor, head_key: torch.Tensor, scale: float) -> np.ndarray:
    """Return the whole matrix of attention in float64, by softmax as it is written."""
    logits = scale * head_query.double().numpy() @ head_key.double().numpy().T
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def mean_of_neighbours(matrix: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    rows = matrix.reshape(*grid, -1)
    padded = np.pad(rows, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = grid
    shifted = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    return (sum(shifted) / 8).reshape(matrix.shape)


def test_rows_and_roughness_are_the_formulas() -> None:
    net = make_net(threshold=0.1, heads=2)
    look = Look(net, IMAGE)
    assert [head.name for head in look.heads] == ["model.encoder.blocks.3, head 0", "model.encoder.blocks.3, head 1"]
    for head in look.heads:
        scale = head.met.query.shape[-1] ** -0.5
        matrix = formula(head.met.query[0, head.number], head.met.key[0, head.number], scale)
        smooth = mean_of_neighbours(matrix, head.grid)
        rows = head.rows(range(64), Rule(-1.0))
        np.testing.assert_allclose([row.plain.ravel() for row in rows], matrix, atol=1e-5)
        np.testing.assert_allclose([row.used.ravel() for row in rows], smooth, atol=1e-5)
        assert [row.used.sum() for row in rows] == pytest.approx([1] * 64, abs=1e-5)
        padded = np.pad(matrix.reshape(8, 8, -1), ((1, 1), (1, 1), (0, 0)), mode="edge")
        steps = [np.abs(padded[i : i + 8, j : j + 8] - padded[1:9, 1:9]).max(-1) for i in range(3) for j in range(3)]
        np.testing.assert_allclose(head.roughness, np.max(steps, axis=0), atol=1e-5)
        np.testing.assert_array_equal(head.gate(Rule(0.3)), head.roughness > 0.3)
        np.testing.assert_array_equal(head.gate(), head.roughness > 0.1)
        rough = head.rows([9], Rule(0.3))[0]
        assert (rough.roughness, rough.gate) == (head.roughness[1, 1], float(head.roughness[1, 1] > 0.3))


def test_mask_is_that_of_predict_and_of_a_network_with_the_rule() -> None:
    net, other = make_net(threshold=0.1), make_net(fraction=0.5)
    other.load_state_dict(net.state_dict())
    look = Look(net, IMAGE)
    trained = predict(net, IMAGE)
    np.testing.assert_array_equal(look.labels(), trained)
    changed = look.labels(Rule(fraction=0.5))
    np.testing.assert_array_equal(changed, predict(other, IMAGE))
    assert (changed != trained).any()
    for threshold in (0.2, 0.3, 0.4, 0.5):  # more than are kept
        look.labels(Rule(threshold))
    np.testing.assert_array_equal(look.labels(), trained)
    assert look.labels(None, (10, 20)).shape == (10, 20)
    np.testing.assert_array_equal(predict(net, IMAGE), trained)  # nothing of a rule is left in the network


@pytest.mark.parametrize("image_size", [64, 96, 100], ids=lambda size: f"{size}px")
def test_places_of_the_image_and_positions_of_the_grid(image_size: int) -> None:
    look = Look(make_net(threshold=0.1), IMAGE, image_size)
    head = look.heads[0]
    height, width = look.shape
    padded = -(-image_size // 32) * 32
    assert head.grid == (padded // 8, padded // 8)
    assert look.covered == image_size / padded
    for x, y in [(0.0, 0.0), (129.9, 49.9), (65.3, 1.2), (3.0, 48.0)]:
        left, top, right, bottom = look.box_of(head, look.position_at(head, x, y))
        assert left <= x < right
        assert top <= y < bottom
    # a cell is 8 px of the square that the network sees, at most what is left of the image
    left, top, right, bottom = look.box_of(head, 0)
    assert (left, top) == (0, 0)
    assert (right, bottom) == pytest.approx((8 / image_size * width, 8 / image_size * height))
    assert look.position_at(head, -5, 1e9) == look.position_at(head, 0, height - 1e-6)
    assert look.box_of(head, look.position_at(head, width, height))[2:] == pytest.approx((width, height))


def test_far_corner_is_in_the_image_not_in_the_padding() -> None:
    net = create_model("unet", encoder_weights=None, block_options={"threshold": 0.1})
    look = Look(net, np.zeros((64, 64, 3), np.uint8), 80)  # padded to 96: 5 of 6 rows and columns are image
    head = look.heads[0]
    assert (head.grid, look.inside(head)) == ((6, 6), (5, 5))
    for x, y in [(64, 64), (63.999, 63.999), (1e9, 1e9)]:
        assert look.position_at(head, x, y) == 4 * 6 + 4


def test_roughest_is_looked_for_among_the_smoothed() -> None:
    look = Look(make_net(block="random", fraction=0.1), IMAGE)
    head = look.heads[0]
    assert look.roughest(head, Rule()) == head.roughness.argmax()
    smoothed = head.gate() > 0
    assert smoothed.ravel()[look.roughest(head)]
    assert head.roughness.ravel()[look.roughest(head)] == head.roughness[smoothed].max()


@pytest.mark.parametrize("seed", range(4))
def test_roughest_lies_in_the_image_not_in_the_padding(seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (50, 130, 3), np.uint8)
    look = Look(make_net(threshold=0.1), image, 36)  # padded to 64
    head = look.heads[0]
    row, column = divmod(look.roughest(head, Rule()), 8)
    assert max(row, column) <= 4
    assert head.roughness[row, column] == head.roughness[:5, :5].max()
    left, top, right, bottom = look.box_of(head, look.roughest(head, Rule()))
    assert (left < right, top < bottom) == (True, True)


@pytest.mark.parametrize("block", ["smooth", "random"])
def test_network_keeps_its_mode_and_random_numbers_their_order(block: str) -> None:
    net = make_net(block=block, fraction=0.2).train()
    torch.manual_seed(0)
    looks = [Look(net, IMAGE), Look(net, IMAGE)]
    looks[0].labels(Rule(0.5))
    np.testing.assert_array_equal(looks[0].heads[0].gate(), looks[1].heads[0].gate())
    assert net.training
    drawn = torch.rand(1)
    assert drawn == torch.rand(1, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(looks[0].labels(), predict(net, IMAGE))


def test_evenly_spaced_positions() -> None:
    head = Look(make_net(), IMAGE).heads[0]
    assert head.spaced(100) == list(range(64))
    assert head.spaced(4) == [0, 16, 32, 48]


def test_every_block_and_none() -> None:
    assert Look(make_net(block="none"), IMAGE).heads == ()
    assert Look(make_net(block="blur"), IMAGE).describe() == "no attention"
    net = insert(make_net(threshold=0.4), {"model.encoder.encoder.layer3": 256}, block_options={"fraction": 0.5})
    look = Look(net, IMAGE)
    assert [head.grid for head in look.heads] == [(4, 4), (8, 8)]
    assert look.describe() == "threshold 0.4"
    assert look.describe(Rule()) == "no smoothing"


def test_images_and_grids_that_can_not_be_looked_at() -> None:
    with pytest.raises(ShapeError, match="uint8 of shape"):
        Look(make_net(), IMAGE[..., 0])
    with pytest.raises(OptionError, match="image_size is a side in pixels"):
        Look(make_net(), IMAGE, 0)
    with pytest.raises(ShapeError, match="a picture needs a grid of two axes, x has 1"):
        heads_of("x", SmoothAttention(4, ndim=1), torch.zeros(1, 4, 9))
