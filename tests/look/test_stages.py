"""Stages of networks: each weight counts once, order and shapes are those of the pass, links those of the tensors."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from smooth_attention.core.errors import OptionError
from smooth_attention.look.stages import MAX_STAGES, Stages, trace_stages
from smooth_attention.models import Network, PaperUNet, block_mode, insert
from zoo import NETWORKS, build

NAMES = (
    "paper",
    "unet",
    "unetplusplus-hrnet",
    "manet-densenet121",
    "linknet-vgg11_bn",
    "fpn-mit_b0",
    "pspnet",
    "deeplabv3-efficientnet",
    "deeplabv3plus-mobilenet_v2",
    "pan",
    "upernet-convnext",
    "segformer-mit_b0-two-stages",
    "dpt-vit",
    "unet-scse-median",
)


@pytest.fixture(scope="module", params=NAMES)
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param]()


@pytest.fixture(scope="module")
def traced(network) -> Stages:
    return trace_stages(network, 128)


@pytest.fixture(scope="module")
def unet() -> Network:
    return build()


def run_stages(traced):
    """Return the stages that run, without the entry for parameters that the pass does not read."""
    return [stage for stage in traced.stages if stage.role != "unused"]


def names(traced):
    return [stage.name for stage in traced.stages]


def find_blocks(traced):
    return [index for index, stage in enumerate(traced.stages) if stage.role == "block"]


def named_links(traced):
    """Return the links by the last word of their stages' paths."""
    ends = [stage.name.split(".", 1)[-1] for stage in traced.stages]
    return {(ends[i], ends[j]) for i, j in traced.links}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def watch(net, modules, image_size):
    """Return module names in the order in which they are first called, and the shapes that they gave, batch and all."""
    order, shapes = [], {}

    def note(name, out):
        order.append(name)
        first = out[0] if isinstance(out, (list, tuple)) else out
        shapes.setdefault(name, tuple(first.shape))

    handles = [
        net.get_submodule(name).register_forward_hook(lambda module, args, out, name=name: note(name, out))
        for name in modules
    ]
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, image_size, image_size))
    for handle in handles:
        handle.remove()
    return list(dict.fromkeys(order)), shapes


def test_parameters_sum_to_those_of_the_network(network, traced):
    assert sum(stage.parameters for stage in traced.stages) == traced.parameters == count(network)


def test_parameters_of_the_paper_are_the_published_ones():
    traced = trace_stages(PaperUNet(None), 64)
    assert traced.parameters == 12_661_410
    assert [stage.parameters for stage in traced.stages] == [
        *(9_536, 147_968, 525_568, 2_099_712, 8_393_728),
        787_969,
        *(524_544, 131_200, 32_832, 8_224, 129),
    ]


def test_a_stage_has_the_parameters_of_its_modules(network, traced):
    for stage in run_stages(traced):
        own = sum(count(network.get_submodule(name)) for name in stage.modules)
        if stage.name != "encoder.patch_embed":  # which has the position embedding as well
            assert stage.parameters == own, stage.name


def test_order_is_that_of_the_pass_and_no_module_stands_in_two_stages(network, traced):
    modules = [name for stage in run_stages(traced) for name in stage.modules]
    assert len(set(modules)) == len(modules)
    assert watch(network, modules, 128)[0] == modules


def test_shapes_are_those_that_the_modules_give(network, traced):
    stages = run_stages(traced)
    _, shapes = watch(network, [stage.modules[-1] for stage in stages], 128)
    for stage in stages:
        *grid, last = given = shapes[stage.modules[-1]][1:]
        assert stage.shape in (given, (last, *grid)), stage.name  # channels first, wherever they came
    assert stages[-1].shape == (network.classes, 128, 128)
    assert traced.input_shape == (3, 128, 128)


def test_a_network_has_as_many_stages_as_a_figure_shows_under_different_names(traced):
    assert 7 <= len(run_stages(traced)) <= MAX_STAGES
    assert max(Counter(names(traced)).values()) == 1


def test_links_lead_forward_over_at_least_one_stage_and_every_stage_but_the_first_reads_one(traced):
    assert traced.links == tuple(sorted(set(traced.links)))
    assert all(j > i + 1 for i, j in traced.links)
    readers = {j for _, j in traced.links} | {j for j, stage in enumerate(traced.stages) if stage.follows}
    assert readers == set(range(1, len(run_stages(traced))))


def test_every_output_is_read_but_the_last(traced):
    followed = {index - 1 for index, stage in enumerate(traced.stages) if stage.follows}
    assert followed | {i for i, _ in traced.links} == set(range(len(run_stages(traced)) - 1))


def test_paper_is_one_chain_without_links():
    traced = trace_stages(PaperUNet(None), 64)
    assert traced.links == ()
    assert [stage.follows for stage in traced.stages] == [False] + [True] * 10
    assert [stage.shape for stage in traced.stages] == [
        *((64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 2, 2)),
        *((256, 4, 4), (128, 8, 8), (64, 16, 16), (32, 32, 32), (1, 64, 64)),
    ]
    assert [stage.role for stage in traced.stages] == ["encoder"] * 5 + ["block"] + ["decoder"] * 5
    block = traced.stages[5]
    assert (block.name, block.kind, block.rule) == ("smooth_attention", "SmoothAttention", "threshold 0.4")


def test_pooling_and_activations_join_their_neighbours():
    traced = trace_stages(PaperUNet(None), 64)
    assert names(traced)[:3] == ["encoder.0-2", "encoder.3-4", "encoder.5"]
    assert traced.stages[0].modules == ("encoder.0", "encoder.1", "encoder.2")
    assert names(traced)[6:] == ["decoder.0-1", "decoder.2-3", "decoder.4-5", "decoder.6-7", "decoder.8"]


def test_unet_has_its_skip_links(unet):
    traced = trace_stages(unet, 64)
    assert names(traced) == [
        *("encoder.conv1", "encoder.layer1", "encoder.layer2", "encoder.layer3", "encoder.layer4", "encoder.blocks.4"),
        *(f"decoder.blocks.{index}" for index in range(5)),
        "segmentation_head",
    ]
    assert [stage.role for stage in traced.stages] == ["encoder"] * 5 + ["block"] + ["decoder"] * 5 + ["head"]
    assert named_links(traced) == {
        ("layer3", "blocks.4"),  # the block sees the map before the deepest
        ("layer4", "blocks.0"),
        ("layer2", "blocks.1"),
        ("layer1", "blocks.2"),
        ("conv1", "blocks.3"),
    }
    assert traced.stages[6].follows  # and reads the block
    assert not traced.stages[5].follows


def test_unet_without_block_reads_the_encoder_itself():
    traced = trace_stages(build(block="none", block_options={}), 64)
    assert find_blocks(traced) == []
    assert named_links(traced) == {
        ("layer3", "blocks.0"),
        ("layer2", "blocks.1"),
        ("layer1", "blocks.2"),
        ("conv1", "blocks.3"),
    }


def test_links_are_found_through_functions_between_modules():
    """A SegFormer resizes and joins maps outside modules, an FPN adds them in one."""
    segformer = trace_stages(build("segformer", "mit_b0", block="none", block_options={}), 64)
    assert named_links(segformer) == {
        ("block1", "mlp_stage.3"),
        ("block2", "mlp_stage.2"),
        ("block3", "mlp_stage.1"),
        *((f"mlp_stage.{index}", "fuse_stage") for index in range(3)),
    }
    fpn = trace_stages(build("fpn", block="none", block_options={}), 64)
    assert {pair for pair in named_links(fpn) if pair[1] == "merge"} == {
        (f"seg_blocks.{index}", "merge") for index in range(3)
    }


def test_blocks_stand_where_their_stages_are():
    traced = trace_stages(build(stages=(3, -1)), 64)
    assert [traced.stages[index].shape for index in find_blocks(traced)] == [(128, 8, 8), (512, 2, 2)]
    assert {("layer2", "blocks.3"), ("layer4", "blocks.5")} <= named_links(traced)
    readers = {i: j for i, j in traced.links if traced.stages[i].role == "block"}
    assert traced.stages[readers[find_blocks(traced)[0]]].name == "decoder.blocks.1"


def test_inserted_blocks_follow_their_modules(unet):
    places = {"model.encoder.encoder.layer3": 256, "model.decoder.blocks.1": 128}
    net = insert(build(block="none", block_options={}), places, block_options={"fraction": 0.1})
    traced = trace_stages(net, 64)
    blocks = find_blocks(traced)
    assert [names(traced)[index - 1] for index in blocks] == ["encoder.layer3", "decoder.blocks.1"]
    assert [names(traced)[index + 1] for index in blocks] == ["encoder.layer4", "decoder.blocks.2"]
    assert all(traced.stages[index].follows and traced.stages[index + 1].follows for index in blocks)
    assert {traced.stages[index].rule for index in blocks} == {"fraction 0.1"}
    assert ("layer3.block", "blocks.0") in named_links(traced)
    assert traced.parameters == count(net)


def test_block_after_a_block_is_a_stage_of_its_own():
    traced = trace_stages(insert(PaperUNet(None), {"smooth_attention": 512}, block="blur"), 64)
    assert [traced.stages[index].kind for index in find_blocks(traced)] == ["SmoothAttention", "BoxBlur"]


def test_resizing_at_the_end_belongs_to_what_it_resizes():
    traced = trace_stages(build("deeplabv3plus"), 64)
    assert [(stage.name, stage.shape) for stage in traced.stages if stage.role == "decoder"] == [
        ("decoder.aspp", (256, 16, 16)),
        ("decoder.block1", (48, 16, 16)),
        ("decoder.block2", (256, 16, 16)),
    ]
    assert named_links(traced) == {("layer1", "block1"), ("aspp", "block2")}


def test_block_inside_a_residual_block_is_found():
    net = insert(PaperUNet(None, block="none", threshold=None), {"encoder.6.0.conv1": 256}, block="blur")
    traced = trace_stages(net, 64)
    (index,) = find_blocks(traced)
    assert names(traced)[index - 1 : index + 2] == ["encoder.6.0.conv1", "encoder.6.0.conv1.block", "encoder.6.0.bn1"]
    assert traced.stages[index].kind == "BoxBlur"
    assert ("5", "6.0.downsample") in named_links(traced)
    assert traced.parameters == count(net)


@pytest.mark.parametrize(
    ("block", "options", "kind", "rule"),
    [
        ("smooth", {}, "SmoothAttention", "no smoothing"),
        (
            "smooth",
            {"threshold": 0.4, "temperature": 0.05},
            "SmoothAttention",
            "soft gate from threshold 0.4, temperature 0.05",
        ),
        ("random", {"fraction": 0.25}, "RandomSmoothAttention", "fraction 0.25, at random places"),
        ("se", {}, "SEModule", ""),
    ],
)
def test_block_is_called_by_its_class_and_rule(block, options, kind, rule):
    traced = trace_stages(PaperUNet(None, threshold=None, block=block, block_options=options), 64)
    (index,) = find_blocks(traced)
    assert (traced.stages[index].kind, traced.stages[index].rule) == (kind, rule)


def test_filter_of_the_mask_is_the_last_stage():
    last = trace_stages(build(block="median", block_options={}), 64).stages[-1]
    assert (last.name, last.role, last.kind, last.rule) == ("mask_filter", "filter", "MedianFilter", "size 5")
    assert last.parameters == 0


def test_what_is_not_run_is_an_entry_of_its_own():
    net = build("pspnet")  # its encoder stops at stride 8
    unused = trace_stages(net, 64).stages[-1]
    encoder = net.model.encoder.encoder
    assert (unused.role, unused.shape, unused.modules) == ("unused", (), ())
    assert unused.parameters == count(encoder.layer3) + count(encoder.layer4)


def test_bypassed_block_is_not_run(unet):
    with block_mode(unet, "bypass"):
        traced = trace_stages(unet, 64)
    assert find_blocks(traced) == []
    assert traced.stages[-1].parameters == count(unet.model.encoder.blocks)


def test_parameters_that_a_function_reads_belong_to_the_stage_before():
    net = build("dpt", "tu-vit_tiny_patch16_224")
    traced = trace_stages(net, 64)
    vit = net.model.encoder.encoder.model
    first = traced.stages[0]
    assert (first.name, first.shape) == ("encoder.patch_embed", (192, 4, 4))
    assert first.parameters == count(vit.patch_embed) + vit.pos_embed.numel() + vit.cls_token.numel()
    assert names(traced)[1:5] == [f"encoder.blocks.{run}" for run in ("0-2", "3-5", "6-8", "9-11")]
    assert traced.stages[1].shape == (17, 192)  # tokens, the first of them for the class


def test_names_tell_a_block_from_a_module_of_the_encoder():
    traced = trace_stages(build("unet", "tu-mobilenetv3_small_100"), 64)
    assert "encoder.blocks.4" in names(traced)
    assert [names(traced)[index] for index in find_blocks(traced)] == ["model.encoder.blocks.4"]


@pytest.mark.parametrize("image_size", [1, 33, 100])
def test_any_image_size_is_padded_as_the_network_does(unet, image_size):
    traced = trace_stages(unet, image_size)
    side = -(-image_size // 32) * 32
    assert traced.stages[0].shape == (64, side // 2, side // 2)
    assert traced.input_shape == (3, image_size, image_size)


@pytest.mark.parametrize("image_size", [0, -4])
def test_no_image_is_refused(unet, image_size):
    with pytest.raises(OptionError, match=f"at least one pixel, got image_size={image_size}; pass 224"):
        trace_stages(unet, image_size)


def count_hooks(net):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


def test_network_is_left_as_it_was(unet):
    unet.train()
    unet.model.encoder.eval()
    modes = [module.training for module in unet.modules()]
    state = {name: value.clone() for name, value in unet.state_dict().items()}
    handle = unet.model.decoder.register_forward_hook(lambda module, args, out: None)
    generator = torch.get_rng_state()
    trace_stages(unet, 64)
    assert count_hooks(unet) == 1
    handle.remove()
    assert [module.training for module in unet.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in unet.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in unet.parameters())


class Careful(nn.Conv2d):
    """Its input passes functions that give it back as it is."""

    def forward(self, x):
        return super().forward(x.contiguous().to(self.weight.dtype))


class Own(Network):
    """A network whose pass is given; its layers are ``a`` to ``d``, each of three channels, and ``e``, the identity."""

    def __init__(self, decode):
        super().__init__({"classes": 3})
        self.a, self.b, self.c, self.d = (Careful(3, 3, 3, padding=1) for _ in range(4))
        self.e = nn.Identity()
        self.offset = nn.Parameter(torch.ones(3, 1, 1))
        self.way = decode

    def decode(self, x: Tensor) -> Tensor:
        return self.way(self, x)


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(6, 3, 1)

    def forward(self, *, maps):
        return self.layer(torch.cat(tensors=maps["all"], dim=1))


def fail(net, x):
    raise RuntimeError(f"no way for {tuple(net.a(x).shape)}")


def test_network_that_fails_is_left_as_it_was():
    net = Own(fail).train()
    with pytest.raises(RuntimeError, match="no way"):
        trace_stages(net, 32)
    assert count_hooks(net) == 0
    assert all(module.training for module in net.modules())


def pass_on(net, x):
    """What comes back as it was still is its maker's, though others had it in hand."""
    a = net.a(x)
    return net.d(net.c(net.b(a)) + a)


def pass_image_on(net, x):
    """A module that hands on the image is no stage."""
    return net.b(net.a(net.e(x)))


def change_in_place(net, x):
    """What is changed in place is the work of who changes it."""
    a = net.a(x)
    a += net.b(x)
    return net.d(net.c(a))


def write_into(net, x):
    whole = torch.empty_like(x)
    whole[:, :, :16] = net.a(x)[:, :, :16]
    whole[:, :, 16:] = net.b(x)[:, :, 16:]
    return net.d(net.c(whole))


def write_out(net, x):
    whole = torch.empty_like(x)
    a = net.a(x)
    torch.add(a, net.b(a), out=whole)
    return net.d(net.c(whole))


def call_twice(net, x):
    return net.b(net.a(net.b(net.a(x))))


def read_image(net, x):
    return net.b(net.a(x)) + net.c(x) * net.offset


def test_smallest_neighbours_that_nobody_else_reads_join_where_there_are_too_many():
    def chain(net, x):
        maps = {}
        for letter in letters[:-1]:
            x = maps[letter] = net.get_submodule(letter)(x)
        return net.get_submodule(letters[-1])(x + maps["i"])  # i and j are the smallest, but the last reads i as well

    letters = [chr(ord("e") + index) for index in range(MAX_STAGES + 1)]
    net = Own(chain)
    for letter in letters:
        net.add_module(letter, nn.Conv2d(3, 3, 1 if letter in "ijk" else 3, padding="same", bias=letter not in "ij"))
    traced = trace_stages(net, 32)
    assert len(run_stages(traced)) == MAX_STAGES
    assert [stage.modules for stage in traced.stages if len(stage.modules) > 1] == [("j", "k")]


@pytest.mark.parametrize(
    ("decode", "order", "links"),
    [
        (pass_on, "abcd", {(0, 3)}),
        (pass_image_on, "ab", set()),
        (change_in_place, "abcd", {(0, 2)}),
        (write_into, "abcd", {(0, 2)}),
        (write_out, "abcd", {(0, 2)}),
        (call_twice, "abab", set()),
        (read_image, "abc", set()),
    ],
)
def test_links_follow_the_tensors(decode, order, links):
    net = Own(decode)
    traced = trace_stages(net, 32)
    assert "".join(name for stage in run_stages(traced) for name in stage.modules) == order
    assert set(traced.links) == links
    assert traced.parameters == count(net)


def test_module_called_twice_counts_once():
    net = Own(call_twice)
    first, _, second, _, rest = trace_stages(net, 32).stages
    assert (first.parameters, second.parameters) == (count(net.a), 0)
    assert rest.parameters == count(net.c) + count(net.d) + 3


def test_parameter_of_the_network_itself_belongs_to_the_stage_before_its_use():
    net = Own(read_image)
    assert trace_stages(net, 32).stages[2].parameters == count(net.c) + 3


def test_maps_in_keywords_and_dictionaries_are_read():
    net = Own(lambda net, x: net.e(maps={"all": [net.a(x), net.b(x)]}))
    net.e = Keyword()
    traced = trace_stages(net, 32)
    assert names(traced)[:3] == ["a", "b", "e"]
    assert traced.links == ((0, 2),)


def test_scripted_module_reads_what_it_is_given():
    net = Own(lambda net, x: net.b(net.e(net.a(x))))
    net.e = Scripted()
    traced = trace_stages(net, 32)
    assert names(traced)[:3] == ["a", "e", "b"]
    assert [stage.follows for stage in traced.stages[:3]] == [False, True, True]


class Scripted(nn.Module):
    """Its operations are hidden, as those of compiled code are."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            return torch.einsum("bchw,cd->bdhw", x, self.weight)


def test_inference_mode_outside_changes_nothing(unet):
    with torch.inference_mode():
        inside = trace_stages(unet, 64)
    assert inside == trace_stages(unet, 64)
