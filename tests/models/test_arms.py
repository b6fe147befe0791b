"""Arms: what each resolves to, and that arms of one seed differ in their block alone."""

import pytest
import torch

from smooth_attention.core.arms import GATED, RIVALS, ROWS, SPECS
from smooth_attention.core.errors import OptionError
from smooth_attention.models import ARMS, SmoothAttention, resolve_arm
from smooth_attention.models.arms import BLOCKS, FILTERS, build_block
from smooth_attention.models.blocks import Block
from smooth_attention.models.controls import BoxBlur, RandomSmoothAttention
from smooth_attention.models.rivals import MedianFilter, Rival

ATTENTIVE = [row.name for row in ROWS if row.any_grid]
WITH_BLOCK = [row.name for row in ROWS if row.block != "none"]
FILTERED = [row.name for row in ROWS if row.filter]
# nl refuses gamma_init=0: its last normalisation starts at 0 as well, and then neither would get a gradient
WITH_GAMMA_ZERO = [arm for arm in WITH_BLOCK if arm != "nl"]


def network_tensors(net):
    """The state dict without the block, under names that are the same with and without one."""
    return {
        name.replace("model.encoder.encoder.", "model.encoder."): value
        for name, value in net.state_dict().items()
        if "smooth_attention." not in name and "encoder.blocks." not in name
    }


def find_block(net):
    (block,) = (module for module in net.modules() if isinstance(module, Block))
    return block


def test_rows_name_what_can_be_built():
    assert {row.block for row in ROWS} == {"none", *BLOCKS}
    assert {row.filter for row in ROWS} == {None, *FILTERS}


@pytest.mark.parametrize(
    ("arm", "given", "block", "options"),
    [
        ("none", {}, "none", {}),
        ("none", {"gamma_init": 0.1, "scale": 1.0}, "none", {}),
        ("blur", {}, "blur", {}),
        ("blur", {"gamma_init": 0.1}, "blur", {"gamma_init": 0.1}),
        ("attention", {}, "smooth", {}),
        ("attention", {"gamma_init": 0.1}, "smooth", {"gamma_init": 0.1}),
        ("attention-unscaled", {}, "smooth", {"scale": 1.0}),
        ("always", {}, "smooth", {"threshold": -1.0}),
        ("smooth", {}, "smooth", {"threshold": 0.4}),
        ("smooth", {"threshold": 0.0}, "smooth", {"threshold": 0.0}),
        ("smooth", {"fraction": 0.25, "scale": 1.0}, "smooth", {"fraction": 0.25, "scale": 1.0}),
        ("smooth", {"temperature": 0.1, "heads": 2}, "smooth", {"threshold": 0.4, "temperature": 0.1, "heads": 2}),
        ("random", {}, "random", {"threshold": 0.4}),
        ("random", {"threshold": 0.1}, "random", {"threshold": 0.1}),
        ("random", {"fraction": 0.25}, "random", {"fraction": 0.25}),
        *((arm, {}, arm, {}) for arm in RIVALS),
        *((arm, {"reduction": 4, "gamma_init": 0.1}, arm, {"reduction": 4, "gamma_init": 0.1}) for arm in RIVALS),
        *((arm, {}, SPECS[arm].filter, {}) for arm in FILTERED),
        *((arm, {"gamma_init": 0.1}, SPECS[arm].filter, {}) for arm in FILTERED),
    ],
    ids=str,
)
def test_arm_resolves_to_block_and_options(arm, given, block, options):
    assert resolve_arm(arm, **given) == (block, options)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("attention", {"scale": 1.0}), ("attention-unscaled", {})),
        (("always", {}), ("smooth", {"threshold": -1.0})),
        (("smooth", {}), ("smooth", {"threshold": 0.4})),
        (("none", {}), ("none", {"gamma_init": 0.1})),
        *(((arm, {}), (arm, {"gamma_init": 0.1})) for arm in FILTERED),
    ],
    ids=str,
)
def test_arms_of_one_configuration_resolve_equal(one, other):
    (arm, options), (other_arm, other_options) = one, other
    assert resolve_arm(arm, **options) == resolve_arm(other_arm, **other_options)


def test_arms_by_default_all_differ():
    assert len({str(resolve_arm(arm)) for arm in ARMS}) == len(ARMS)


def test_arm_unknown_is_refused():
    with pytest.raises(OptionError, match=rf"an arm is one of {', '.join(ARMS)}, got 'smoth'; did you mean smooth\?"):
        resolve_arm("smoth")


@pytest.mark.parametrize("rule", [{"threshold": 0.4}, {"fraction": 0.25}], ids=str)
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in GATED])
def test_arm_without_gate_refuses_a_rule(arm, rule):
    ((name, value),) = rule.items()
    with pytest.raises(OptionError, match=f"arm '{arm}' takes neither threshold nor fraction, got .*{name}={value}"):
        resolve_arm(arm, **rule)


@pytest.mark.parametrize("arm", GATED)
def test_arm_with_two_rules_is_refused(arm):
    with pytest.raises(OptionError, match=r"exclude each other, got threshold=0.4, fraction=0.25; give one"):
        resolve_arm(arm, threshold=0.4, fraction=0.25)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none", torch.nn.Identity),
        ("smooth", SmoothAttention),
        ("random", RandomSmoothAttention),
        ("blur", BoxBlur),
        *((arm, Rival) for arm in RIVALS),
    ],
)
def test_block_is_built_by_name(name, kind):
    assert type(build_block(name, 16)) is kind


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sharp", {}, f"a block is one of none, {', '.join(BLOCKS)}, got 'sharp'"),
        *((name, {}, f"a block is one of none, .*, got '{name}'") for name in FILTERS),
        ("none", {"threshold": 0.4}, "block 'none' has no options, got threshold; leave them out"),
        ("smooth", {"treshold": 0.4}, "block 'smooth' does not take these options: .*'treshold'"),
        ("smooth", {"heads": 3}, "got channels=8 and heads=3; take a divisor of 8, such as 2"),
        ("random", {"threshold": 0.4, "temperature": 0.1}, "a soft gate has none, got temperature=0.1; leave it out"),
        ("blur", {"threshold": 0.4}, "block 'blur' does not take these options: .*'threshold'"),
    ],
    ids=str,
)
def test_block_unknown_or_with_foreign_options_is_refused(name, options, message):
    with pytest.raises(OptionError, match=message):
        build_block(name, 8, options)


@pytest.mark.parametrize("arm", ARMS)
def test_arm_trains_in_both_networks(make_network, images, arm):
    net = make_network(arm, **({"gamma_init": 0.1} if arm in WITH_BLOCK else {}))
    logits = net(images)
    assert logits.shape == (2, 1, 64, 96)
    logits.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    if arm in WITH_BLOCK:
        block = find_block(net)
        # nl starts as the identity: first its last normalisation gets a gradient, gamma after one step
        first = block.module.norm.weight if arm == "nl" else block.gamma
        assert first.grad.any()


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "none"])
def test_arms_share_the_initial_weights_they_have_in_common(make_network, arm):
    none, net = make_network("none"), make_network(arm)
    want, got = network_tensors(none), network_tensors(net)
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), name
    if arm in ATTENTIVE:
        published = find_block(make_network("smooth")).state_dict()
        for name, tensor in find_block(net).state_dict().items():
            assert torch.equal(tensor, published[name]), name
    other = network_tensors(make_network(arm, seed=1))
    assert any(not torch.equal(other[name], tensor) for name, tensor in want.items()), "the seed changes nothing"


@pytest.mark.parametrize("arm", WITH_GAMMA_ZERO)
def test_arm_with_gamma_zero_equals_no_block_bit_for_bit(make_network, images, arm):
    none, net = make_network("none").eval(), make_network(arm, gamma_init=0.0).eval()
    with torch.no_grad():
        want = none(images)
        assert torch.equal(net(images), want)
        find_block(net).gamma.fill_(1.0)
        assert not torch.equal(net(images), want), "the block is not in the network"


@pytest.mark.parametrize("arm", WITH_BLOCK)
def test_arm_starts_at_its_own_gamma(make_network, arm):
    """Rivals start as their libraries ship them, our blocks as the identity."""
    assert find_block(make_network(arm)).gamma.item() == (1.0 if arm in RIVALS else 0.0)


def test_arm_nl_starts_as_no_block(make_network, images):
    none, net = make_network("none").eval(), make_network("nl").eval()
    with torch.no_grad():
        want = none(images)
        assert torch.equal(net(images), want)
        find_block(net).module.norm.weight.fill_(1.0)
        assert not torch.equal(net(images), want), "the block is not in the network"


def test_arm_median_is_no_block_and_filters_what_the_network_gives(make_network, images):
    none, net = make_network("none").eval(), make_network("median").eval()
    assert not [module for module in net.modules() if isinstance(module, Block)]
    assert (net.recipe["block"], net.recipe["filter"]) == ("none", "median")
    with torch.no_grad():
        logits = none(images) - none(images).median()
        torch.testing.assert_close(net(images), MedianFilter(size=5).eval()(none(images)), rtol=0, atol=0)
        assert not torch.equal(net.mask_filter(logits), logits), "there was nothing to filter"
        assert torch.equal(net.train()(images), none.train()(images)), "it filters in training"
