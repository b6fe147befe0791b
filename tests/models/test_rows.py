"""Gate and rows under another rule: those of a block that was made with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from smooth_attention import SmoothAttention, create_model
from smooth_attention.core.errors import OptionError
from smooth_attention.models import block_mode
from smooth_attention.models.controls import RandomSmoothAttention
from smooth_attention.models.network import Network
from smooth_attention.models.rows import Rule, block_rule, describe_rule, used_gate, used_rows

RULES = [Rule(), Rule(0.2), Rule(fraction=0.3), Rule(-1.0), Rule(2.0)]
TRAINED: dict[str, dict[str, Any]] = {
    "step": {"threshold": 0.1},
    "plain": {},
    "soft": {"threshold": 0.3, "temperature": 0.1, "heads": 2},
}


def make_block(kind: type[SmoothAttention] = SmoothAttention, **options: Any) -> SmoothAttention:
    torch.manual_seed(0)
    block = kind(8, **options).eval()
    with torch.no_grad():
        for conv in (block.query, block.key):
            conv.weight.mul_(6)
    return block


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("rule", RULES, ids=Rule.describe)
def test_rule_replaces_the_blocks_own(trained: str, rule: Rule) -> None:
    block = make_block(**TRAINED[trained])
    heads = TRAINED[trained].get("heads", 1)
    other = make_block(threshold=rule.threshold, fraction=rule.fraction, heads=heads)
    other.load_state_dict({name: block.state_dict()[name] for name in other.state_dict()})
    x = torch.randn(1, 8, 5, 7)
    query, key, value = block.project(x)
    gate = used_gate(block, query, key, (5, 7), rule)
    torch.testing.assert_close(gate, used_gate(other, query, key, (5, 7)))
    rows, _ = used_rows(block, query, key, torch.arange(35), (5, 7), gate)
    torch.testing.assert_close(rows @ value, other.attend(query, key, value, (5, 7)))
    torch.testing.assert_close(rows.sum(-1), torch.ones(1, heads, 35))


@pytest.mark.parametrize("trained", TRAINED)
def test_own_rule_gives_the_rows_that_the_block_uses(trained: str) -> None:
    block = make_block(**TRAINED[trained])
    query, key, value = block.project(torch.randn(1, 8, 5, 7))
    gate = used_gate(block, query, key, (5, 7))
    rows, plain = used_rows(block, query, key, torch.arange(35), (5, 7), gate)
    torch.testing.assert_close(rows @ value, block.attend(query, key, value, (5, 7)))
    assert (trained == "plain") == torch.equal(rows, plain)


def test_random_arm_smooths_at_random_places_under_any_rule() -> None:
    block = make_block(RandomSmoothAttention, threshold=0.1)
    query, key, value = block.project(torch.randn(1, 8, 5, 7))
    gate = used_gate(block, query, key, (5, 7), Rule(fraction=0.2))
    rows, _ = used_rows(block, query, key, torch.arange(35), (5, 7), gate)
    block.threshold, block.fraction = None, 0.2
    torch.testing.assert_close(rows @ value, block.attend(query, key, value, (5, 7)))
    assert gate.sum() == 7


def test_gate_off_smooths_nowhere_whatever_the_rule() -> None:
    block = make_block(threshold=0.0)
    query, key, _ = block.project(torch.randn(1, 8, 5, 7))
    with block_mode(block, "gate_off"):
        assert not used_gate(block, query, key, (5, 7), Rule(-1.0)).any()


def small_net(**options: Any) -> Network:
    torch.manual_seed(0)
    return create_model("unet", encoder_weights=None, block_options={"gamma_init": 3.0, **options}, stages=(-3,)).eval()


def test_network_under_a_rule_is_the_network_made_with_it_and_then_itself_again() -> None:
    net, other = small_net(threshold=0.1, temperature=0.5), small_net(fraction=0.4)
    other.load_state_dict({name: net.state_dict()[name] for name in other.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    before = net(images)
    with block_rule(net, Rule(fraction=0.4)):
        torch.testing.assert_close(net(images), other(images))
    torch.testing.assert_close(net(images), before, rtol=0, atol=0)
    assert [name for name, _ in net.named_parameters() if name.endswith("soft_threshold")]
    with pytest.raises(RuntimeError, match="inside"), block_rule(net, Rule()):
        raise RuntimeError("inside")
    torch.testing.assert_close(net(images), before, rtol=0, atol=0)
    with block_rule(net, None):
        torch.testing.assert_close(net(images), before, rtol=0, atol=0)


def test_rules_are_described() -> None:
    assert [rule.describe() for rule in RULES] == [
        "no smoothing",
        "threshold 0.2",
        "fraction 0.3",
        "every position",
        "threshold 2",
    ]
    assert describe_rule(make_block(**TRAINED["soft"]), None) == "soft gate from threshold 0.3, temperature 0.1"
    assert describe_rule(make_block(**TRAINED["soft"]), Rule(0.1)) == "threshold 0.1"
    assert describe_rule(make_block(RandomSmoothAttention, fraction=0.5), None) == "fraction 0.5, at random places"


def test_rules_that_are_none_are_refused() -> None:
    with pytest.raises(OptionError, match="exclude each other"):
        Rule(0.1, 0.2)
    with pytest.raises(OptionError, match="between 0 and 1"):
        Rule(fraction=1.0)
    with pytest.raises(OptionError, match="needs to be a number"):
        Rule(float("nan"))
