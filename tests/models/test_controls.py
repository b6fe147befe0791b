"""The controls: random places against the places of the gate, the blur against a box mean."""

import io

import jaxtyping
import numpy as np
import pytest
import torch

from feature_maps import changed_positions, draw_map, find_gate, make_block
from smooth_attention.core.errors import OptionError
from smooth_attention.models.blocks import SmoothAttention, block_mode
from smooth_attention.models.controls import BoxBlur, RandomSmoothAttention


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "rule", [{"threshold": 0.4}, {"threshold": -1.0}, {"threshold": 2.0}, {"fraction": 0.3}], ids=str
)
def test_random_smooths_as_many_positions_of_each_map_and_head_as_the_gate(rule, is_training, heads):
    kinds = (SmoothAttention, RandomSmoothAttention)
    smooth, random = (make_block(kind, heads=heads, logits="cosine", **rule).train(is_training) for kind in kinds)
    x = draw_map((9, 8), batch=4)
    by_rule, by_chance = changed_positions(smooth, x), changed_positions(random, x)
    assert torch.equal(by_rule, find_gate(smooth, x))
    assert torch.equal(by_chance.sum(-1), by_rule.sum(-1))
    if rule["threshold" if "threshold" in rule else "fraction"] in (0.4, 0.3):
        assert (by_chance != by_rule).any(-1).all()
        assert len(set(by_rule.sum(-1).flatten().tolist())) > 1 or "fraction" in rule


@pytest.mark.parametrize("heads", [1, 2])
def test_random_positions_take_the_mean_of_their_neighbours(heads):
    random = make_block(RandomSmoothAttention, threshold=0.4, heads=heads)
    always = make_block(threshold=-1.0, heads=heads)
    x = draw_map((9, 8))
    where = changed_positions(random, x).unflatten(-1, (9, 8)).repeat_interleave(8 // heads, 1)
    with block_mode(random, "gate_off"):
        plain = random(x)
    assert torch.equal(random(x), torch.where(where, always(x), plain))


def test_random_in_evaluation_depends_on_nothing_but_the_image():
    block = make_block(RandomSmoothAttention, fraction=0.3).double()
    x = draw_map((9, 8), dtype=torch.float64)
    torch.manual_seed(1)
    want, state = block(x), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(block(x), want)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "evaluation moved the global generator"
    alone = torch.cat([block(one) for one in x.flip(0).split(1)]).flip(0)
    torch.testing.assert_close(alone, want)
    assert torch.equal(changed_positions(block, x[1:2]), changed_positions(block, x)[1:2])


@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
def test_random_places_are_a_permutation_of_their_own_for_each_head(is_training):
    block = make_block(RandomSmoothAttention, fraction=0.3, heads=4).train(is_training)
    places = block.places(torch.zeros(3, 4, 72))
    assert torch.equal(places.sort(-1).values, torch.arange(72).expand(3, 4, 72))
    assert len({tuple(one) for one in places[0].tolist()}) == 4
    assert torch.equal(places[0], places[1]) != is_training
    if not is_training:
        assert torch.equal(block.places(torch.zeros(3, 1, 72)), places[:, :1]), "heads move the places of the first"


def test_random_places_have_no_soft_gate():
    with pytest.raises(OptionError, match=r"smooths whole positions, a soft gate has none, got temperature=0.1; leave"):
        RandomSmoothAttention(8, threshold=0.4, temperature=0.1)


def test_random_in_training_draws_new_places_from_the_global_generator():
    block = make_block(RandomSmoothAttention, fraction=0.3).train()
    x = draw_map((9, 8))
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(block(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.filterwarnings("ignore")  # the exporters' own
@pytest.mark.parametrize(
    "export",
    [
        torch.jit.trace,
        lambda block, x: torch.export.export(block, (x,)),
        lambda block, x: torch.onnx.export(block, (x,), io.BytesIO(), dynamo=False),
    ],
    ids=["trace", "export", "onnx by tracing"],
)
def test_random_places_are_in_no_exported_graph(export, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    block, x = make_block(RandomSmoothAttention, threshold=0.3), draw_map()
    with pytest.raises(
        OptionError, match="no exported graph can hold, got an export or a trace; export the network of"
    ):
        export(block, x)


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (5, 7)], ids=str)
def test_blur_moves_towards_the_box_mean(grid):
    x = draw_map(grid, dtype=torch.float64)
    height, width = grid
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    box = np.zeros(x.shape)
    for down in range(3):
        for right in range(3):
            box += padded[:, :, down : down + height, right : right + width] / 9
    blurred = make_block(BoxBlur, gamma=0.25).double()(x)
    np.testing.assert_allclose(blurred.detach().numpy(), 0.75 * x.numpy() + 0.25 * box, atol=1e-12)
