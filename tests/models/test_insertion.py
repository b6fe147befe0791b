"""Blocks in anybody's network: what they keep, that they train, how they are taken out, what is refused."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import smooth_attention as sa
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models import Block, block_mode
from smooth_attention.models.arms import BLOCKS, FILTERS
from smooth_attention.models.insertion import ANY_GRID, WithBlock


class SkipConnection(nn.Module):
    """As in MONAI: what came in beside what a submodule makes of it."""

    def __init__(self, submodule):
        super().__init__()
        self.submodule = submodule

    def forward(self, x):
        return torch.cat([x, self.submodule(x)], dim=1)


def make_nested_unet(ndim):
    """A U-Net built from the inside out, as MONAI's: its modules have names such as ``1.submodule.0``."""
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    up = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[ndim]
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[ndim]

    def down(channels, out):
        return nn.Sequential(conv(channels, out, 3, stride=2, padding=1), norm(out), nn.PReLU())

    inner = nn.Sequential(down(8, 16), SkipConnection(conv(16, 16, 3, padding=1)), up(32, 8, 2, stride=2))
    return nn.Sequential(down(1, 8), SkipConnection(inner), up(16, 2, 2, stride=2))


class PlainUNet(nn.Module):
    """A U-Net as people write it, with all that training mode changes: batch statistics and dropout."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Dropout(0.3))
        self.act = nn.ReLU(inplace=True)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        skip = self.enter(x)
        return self.head(torch.cat([skip, self.up(self.act(self.down(skip)))], dim=1))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(1, 8, 1), nn.Conv2d(8, 1, 1)

    def forward(self, image, depth):
        return self.head(self.first(image) + self.second(depth))


class Unfold(nn.Module):
    """A linear map of each 4x4 patch, as vision transformers start; no convolution, channels last within."""

    def __init__(self):
        super().__init__()
        self.patches, self.embed, self.first = nn.PixelUnshuffle(4), nn.Linear(48, 8), nn.Unflatten(1, (8, 1))

    def forward(self, x):
        tokens = self.embed(self.patches(x).permute(0, 2, 3, 1))
        return self.first(tokens.permute(0, 3, 1, 2)).squeeze(2)


class Odd(nn.Module):
    """Modules that no block can follow, one for each reason."""

    def __init__(self):
        super().__init__()
        self.conv, self.wide, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 1), nn.ReLU()
        self.pool, self.uncalled, self.last = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), ToLast()
        self.pair, self.named, self.flat = ToPair(), ToDict(), nn.Flatten()
        self.looked_into, self.listed, self.alias = nn.Sequential(nn.Conv2d(8, 8, 1)), [nn.Conv2d(8, 8, 1)], nn.ReLU()
        self.listed_conv, self.both = self.listed[0], nn.Sequential(self.alias)

    def forward(self, x):
        x = self.act(self.conv(x))
        self.act(self.wide(x)), self.pool(x), self.last(x), self.pair(x), self.named(x), self.flat(x)
        x = self.listed[0](self.looked_into(x)) * self.looked_into[0].stride[0]
        return self.both(x)


class ToLast(nn.Module):
    def forward(self, x):
        return x.movedim(1, -1)


class ToPair(nn.Module):
    def forward(self, x):
        return x, x


class ToDict(nn.Module):
    def forward(self, x):
        return {"out": x}


def make_smp():
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None)


def make_torchvision(name):
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=2)


def make_timm(**options):
    import timm

    return timm.create_model("resnet18", pretrained=False, **options)


def make_paper():
    return sa.PaperUNet(None, block="none", threshold=None)


def make_created():
    return sa.create_model("unet", encoder_weights=None, block_options={"threshold": 0.4, "gamma_init": 0.1})


NETWORKS = {
    "smp": (make_smp, {"encoder.layer3": 256}, (3, 64, 64)),
    "deeplabv3": (lambda: make_torchvision("deeplabv3_mobilenet_v3_large"), {"backbone.12": 112}, (3, 64, 64)),
    "fcn": (lambda: make_torchvision("fcn_resnet50"), {"backbone.layer1.2": 256}, (3, 32, 32)),
    "lraspp": (lambda: make_torchvision("lraspp_mobilenet_v3_large"), {"backbone.16": 960}, (3, 64, 64)),
    "timm": (make_timm, {"layer3": 256}, (3, 64, 64)),
    "timm-features": (lambda: make_timm(features_only=True), {"layer2": 128, "layer3": 256}, (3, 64, 64)),
    "nested-2d": (lambda: make_nested_unet(2), {"1.submodule.0": 16}, (1, 32, 24)),
    "nested-3d": (lambda: make_nested_unet(3), {"1.submodule.1.submodule": 16}, (1, 16, 8, 12)),
    "plain": (PlainUNet, {"enter": 8, "down": 16}, (3, 16, 20)),
    "paper": (make_paper, {"encoder.5": 128}, (3, 64, 64)),
    "created": (make_created, {"model.encoder.encoder.layer2": 128}, (3, 64, 64)),
}


COMPILED = ["lraspp", "nested-3d", "plain", "paper"]
SMALL = {"scse": {"reduction": 4}}  # for as few channels as here


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request):
    """A network, the same with blocks, where they are, and two inputs."""
    make, modules, shape = NETWORKS[request.param]
    torch.manual_seed(0)
    net = make()
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    return net, sa.insert(net, modules, sample=images[:1]), modules, images


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return PlainUNet()


@pytest.fixture
def x():
    return torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))


def flatten(out):
    """The tensors of an output, whatever the network wraps them in."""
    if isinstance(out, torch.Tensor):
        return [out]
    return [tensor for each in (out.values() if isinstance(out, dict) else out) for tensor in flatten(each)]


def run(net, images, *, is_training=False):
    """The outputs of a copy, so that batch statistics stay as they are."""
    net = copy.deepcopy(net).train(is_training)
    torch.manual_seed(2)
    with torch.no_grad():
        return flatten(net(images))


def assert_equal(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def assert_same_state(got, want):
    assert list(got) == list(want)
    assert_equal(list(got.values()), list(want.values()))


def find_inserted(net):
    return [module.block for module in net.modules() if isinstance(module, WithBlock)]


@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
def test_insertion_leaves_the_output_bit_for_bit(pair, is_training):
    net, widened, _, images = pair
    assert_equal(run(widened, images, is_training=is_training), run(net, images, is_training=is_training))


def test_insertion_is_where_it_says(pair):
    """With gamma 1 the output changes; with the blocks bypassed it is the original's again."""
    net, widened, modules, images = pair
    widened = copy.deepcopy(widened)
    assert [name for name, each in widened.named_modules() if isinstance(each, WithBlock)] == list(modules)
    assert [block.value.out_channels for block in find_inserted(widened)] == list(modules.values())
    for block in find_inserted(widened):
        block.gamma.data.fill_(1.0)
    want = run(net, images)
    assert not all(torch.equal(got, each) for got, each in zip(run(widened, images), want, strict=True))
    for block in find_inserted(widened):
        block.mode = "bypass"
    assert_equal(run(widened, images), want)


def test_insertion_moves_keys_as_documented_and_keeps_every_tensor(pair):
    net, widened, modules, _ = pair
    before, after = net.state_dict(), widened.state_dict()
    moved = {}
    for name, tensor in before.items():
        place = next((place for place in modules if name.startswith(f"{place}.")), None)
        moved[name if place is None else f"{place}.module.{name.removeprefix(f'{place}.')}"] = tensor
    new = after.keys() - moved.keys()
    parts = ("gamma", "query.weight", "query.bias", "key.weight", "key.bias", "value.weight", "value.bias")
    assert new == {f"{place}.block.{part}" for place in modules for part in parts}
    assert_same_state({name: tensor for name, tensor in after.items() if name not in new}, moved)


def test_removal_gives_the_original_back(pair):
    net, widened, _, images = pair
    narrowed = sa.remove(widened)
    assert_same_state(narrowed.state_dict(), net.state_dict())
    assert [(name, type(each)) for name, each in narrowed.named_modules()] == [
        (name, type(each)) for name, each in net.named_modules()
    ]
    assert str(narrowed) == str(net)
    assert_equal(run(narrowed, images), run(net, images))
    assert find_inserted(widened), "remove changed what it was given"


def test_inserted_block_trains_and_the_original_stays(pair):
    net, widened, _, images = pair
    state, trained = copy.deepcopy(net.state_dict()), copy.deepcopy(widened).train()
    for parameter in trained.parameters():
        parameter.requires_grad_(False)
    for block in find_inserted(trained):
        block.requires_grad_(True)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1.0)
    sum(each.square().mean() for each in flatten(trained(images))).backward()
    for block in find_inserted(trained):
        assert torch.isfinite(block.gamma.grad).all()
        assert block.gamma.grad.item() != 0
    optimizer.step()
    want = run(net, images, is_training=True)
    assert any(not torch.equal(a, b) for a, b in zip(run(trained, images, is_training=True), want, strict=True))
    assert_same_state(net.state_dict(), state)


def test_insertion_shares_no_memory_with_the_original(pair):
    net, widened, _, _ = pair
    theirs = {tensor.data_ptr() for tensor in net.state_dict().values()}
    assert theirs.isdisjoint(tensor.data_ptr() for tensor in widened.state_dict().values())


def test_weights_of_an_inserted_network_load_into_another(pair, tmp_path):
    net, widened, modules, images = pair
    torch.save(widened.state_dict(), tmp_path / "net.pth")
    fresh = copy.deepcopy(net)
    for parameter in fresh.parameters():
        parameter.data.add_(1.0)
    fresh = sa.insert(fresh, modules, sample=images[:1], block_options={"gamma_init": 1.0})
    fresh.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True))
    assert_equal(run(fresh, images), run(widened, images))


@pytest.mark.slow
def test_inserted_networks_compile_in_one_graph():
    """In a process of its own: the shape checks can't be traced."""
    from deadlines import LAST_RESORT_S  # which that process does not find

    command = [sys.executable, __file__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LAST_RESORT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == COMPILED


@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
def test_modes_and_trainability_are_kept_by_each_part(plain, is_training):
    """A frozen normalisation inside of a module in training mode stays frozen."""
    plain.train(is_training)
    plain.down[2].eval()
    plain.down[2].requires_grad_(False)
    widened = sa.insert(plain, {"down": 16, "enter": 8}, sample=torch.zeros(1, 3, 16, 16))
    modes = {name: module.training for name, module in sa.remove(widened).named_modules()}
    assert modes == {name: module.training for name, module in plain.named_modules()}
    for block in find_inserted(widened):
        assert {part.training for part in block.modules()} == {is_training}
    assert {name for name, each in widened.named_parameters() if not each.requires_grad} == {
        "down.module.2.weight",
        "down.module.2.bias",
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype_is_that_of_the_module(plain, x, dtype):
    widened = sa.insert(plain.to(dtype), {"down": 16, "act": 16}, block_options={"gamma_init": 1.0})
    for block in find_inserted(widened):
        assert {parameter.dtype for parameter in block.parameters()} == {dtype}
    assert widened.eval()(x.to(dtype)).dtype == dtype


def test_dry_forward_leaves_batch_statistics_alone(plain):
    widened = sa.insert(plain.train(), {"down": 16}, sample=torch.full((1, 3, 16, 16), 9.0))
    assert_same_state(sa.remove(widened).state_dict(), plain.state_dict())
    assert plain.down[2].num_batches_tracked == 0


def test_blocks_come_one_after_another(plain, x):
    once = sa.insert(plain, {"enter": 8}, sample=x)
    twice = sa.insert(once, {"down": 16}, sample=x)
    assert len(find_inserted(once)) == 1
    assert len(find_inserted(twice)) == 2
    assert_equal(run(twice, x), run(plain, x))
    assert_same_state(sa.remove(twice).state_dict(), plain.state_dict())


@pytest.mark.parametrize("modules", [{"down": 16, "down.1": 16}, {"down.1": 16, "down": 16}], ids=str)
def test_module_and_a_part_of_it_both_take_a_block(plain, x, modules):
    widened = sa.insert(plain, modules)
    assert isinstance(widened.down, WithBlock)
    assert isinstance(widened.down.module[1], WithBlock)
    assert_equal(run(widened, x), run(plain, x))
    assert_same_state(sa.remove(widened).state_dict(), plain.state_dict())


@pytest.mark.parametrize("block", [block for block in BLOCKS if block != "nl"])  # nl refuses gamma_init=0
def test_every_block_starts_as_the_identity_with_gamma_zero(plain, x, block):
    widened = sa.insert(plain, {"enter": 8}, block=block, block_options={"gamma_init": 0.0, **SMALL.get(block, {})})
    assert_equal(run(widened, x), run(plain, x))
    widened(x).square().mean().backward()
    (inserted,) = find_inserted(widened)
    assert isinstance(inserted, Block)
    assert inserted.gamma.grad.item() != 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("block", BLOCKS)
def test_block_keeps_the_memory_layout(plain, x, block, layout):
    """With another layout, what follows would choose another kernel, and round otherwise."""
    widened = sa.insert(plain.eval(), {"enter": 8}, block=block, block_options=SMALL.get(block))
    maps = plain.enter(x).contiguous(memory_format=layout)
    assert find_inserted(widened)[0](maps).stride() == maps.stride()


def test_options_reach_the_block(plain):
    options = {"threshold": 0.3, "heads": 2, "logits": "cosine"}
    (block,) = find_inserted(sa.insert(plain, {"down": 16}, block_options=options))
    assert {name: getattr(block, name) for name in options} == options
    assert options == {"threshold": 0.3, "heads": 2, "logits": "cosine"}


@pytest.mark.parametrize(("ndim", "side"), [(1, 224), (2, 224), (3, 64)])
def test_grid_and_sample_are_found_out(ndim, side):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    net = nn.Sequential(conv(2, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (side // 4) ** ndim, 1))
    (block,) = find_inserted(sa.insert(net, {"1": 4}))
    assert isinstance(block.query, conv)


def test_sample_may_be_several_arguments():
    net, inputs = TwoInputs(), (torch.randn(2, 3, 8, 8), torch.randn(2, 1, 8, 8))
    widened = sa.insert(net, {"second": 8}, sample=inputs)
    assert torch.equal(widened(*inputs), net(*inputs))


def test_network_without_convolution_takes_a_sample():
    net, images = Unfold(), torch.randn(2, 3, 32, 24)
    widened = sa.insert(net, {"patches": 48}, sample=images)
    assert torch.equal(widened(images), net(images))


def test_module_called_by_keyword_or_often_has_the_block_each_time(plain, x):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(input=self.conv(x)[:1])

    net = Twice()
    block = sa.insert(net, {"conv": 3}, block="blur", block_options={"gamma_init": 1.0}).conv.block
    want = block(net.conv(block(net.conv(x))[:1]))
    widened = sa.insert(net, {"conv": 3}, block="blur", block_options={"gamma_init": 1.0})
    assert torch.equal(widened(x), want)


@pytest.mark.parametrize("name", ["paper", "created"])
def test_own_network_with_an_inserted_block_is_saved_and_read_back(name, tmp_path):
    make, modules, shape = NETWORKS[name]
    net = make()
    recipe = copy.deepcopy(net.recipe)
    ((place, channels),) = modules.items()
    options = {"threshold": 0.3, "gamma_init": 0.5}
    widened = sa.insert(net, modules, block_options=options, sample=torch.zeros(1, *shape))
    record = {"module": place, "channels": channels, "block": "smooth", "block_options": options}
    assert widened.recipe == {**recipe, "inserted": [record]}
    assert net.recipe == recipe
    assert sa.remove(widened).recipe == recipe
    widened.save_pretrained(tmp_path / "net")
    loaded = sa.load_model(tmp_path / "net")
    assert loaded.recipe == widened.recipe
    images = torch.randn(1, *shape)
    assert_equal(run(loaded, images), run(widened, images))
    assert not torch.equal(*run(widened, images), *run(net, images))


def test_own_network_records_blocks_in_the_order_in_which_they_can_be_put_back(tmp_path):
    net = sa.insert(make_paper(), {"encoder.5": 128, "encoder.5.0": 128}, sample=torch.zeros(1, 3, 64, 64))
    net = sa.insert(net, {"encoder.4": 64}, block="se", sample=torch.zeros(1, 3, 64, 64))
    assert [item["module"] for item in net.recipe["inserted"]] == ["encoder.5.0", "encoder.5", "encoder.4"]
    net.save_pretrained(tmp_path / "net")
    assert_same_state(sa.load_model(tmp_path / "net").state_dict(), net.state_dict())


def test_block_mode_reaches_inserted_blocks(plain, x):
    widened = sa.insert(plain, {"down": 16}, block_options={"gamma_init": 1.0}).eval()
    with torch.no_grad(), block_mode(widened, "bypass"):
        assert_equal([widened(x)], run(plain, x))
    assert find_inserted(widened)[0].mode == "on"


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"looked_inot": 8}, r"Odd has no module 'looked_inot'; did you mean looked_into"),
        ({"": 8}, r"Odd has no module ''; known: conv, wide, act"),
        ({"uncalled": 8}, "the forward pass never calls module 'uncalled'; name one that it calls as a whole"),
        ({"looked_into": 8}, r"does not run with blocks after looked_into \(TypeError: 'WithBlock' object is not"),
        ({"listed_conv": 8}, r"after listed_conv \(it never calls a block\): it looks into such a module, or calls"),
        ({"alias": 8}, r"after alias \(it never calls a block\): .* by another name; name others"),
        ({}, "insert needs the names of modules and their channels, got none; such as {'layer3': 256}"),
    ],
    ids=str,
)
def test_module_that_can_not_be_reached_is_refused(modules, message):
    net = Odd()
    with pytest.raises(OptionError, match=message):
        sa.insert(net, modules, sample=torch.zeros(1, 3, 10, 6))
    assert not find_inserted(net)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"conv": 16}, r"module 'conv' gives 8 channels \(its output is \(1, 8, 10, 6\)\), got 16; pass 8"),
        ({"conv": 8, "wide": 8}, r"module 'wide' gives 12 channels .*, got 8; pass 12"),
        ({"pool": 8}, r"gives a grid of one cell \(\(1, 8, 1, 1\)\), which has nothing to attend to; name an earlier"),
        ({"last": 8}, r"'last' gives its 8 channels last \(\(1, 10, 6, 8\)\); name a module that gives them first"),
        ({"pair": 8}, r"\(B, C, \*grid\) with one to three grid axes, module 'pair' gives a tuple; name another"),
        ({"named": 8}, "module 'named' gives a dict; name another"),
        ({"flat": 480}, r"module 'flat' gives \(1, 480\); name another"),
        ({"act": 8}, r"'act' gives a map of \(1, 8, 10, 6\), then \(1, 12, 10, 6\); name another"),
    ],
    ids=str,
)
def test_module_without_a_fitting_feature_map_is_refused(modules, message):
    with pytest.raises(ShapeError, match=message):
        sa.insert(Odd(), modules, sample=torch.zeros(1, 3, 10, 6))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in ANY_GRID])
def test_block_of_images_is_refused_in_volumes(block):
    with pytest.raises(
        ShapeError, match=rf"block '{block}' needs a feature map \(B, C, H, W\), module '0' gives \(1, 8"
    ):
        sa.insert(make_nested_unet(3), {"0": 8}, block=block, sample=torch.zeros(1, 1, 8, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "smoth"}, rf"a block to insert is one of {', '.join(BLOCKS)}, got 'smoth'; did you mean smooth\?"),
        *(({"block": name}, f"a block to insert is one of .*, got '{name}'") for name in ("none", *FILTERS)),
        ({"block_options": {"treshold": 0.4}}, "block 'smooth' does not take these options: .*treshold"),
        ({"block_options": {"heads": 3}}, "got channels=16 and heads=3; take a divisor of 16, such as 2"),
        ({"block": "nl", "block_options": {"gamma_init": 0}}, "'nl' starts as the identity and would not train"),
        (
            {"sample": torch.zeros(1, 4, 16, 16)},
            r"does not take an input of \[\(1, 4, 16, 16\)\] \(RuntimeError: .*; pass",
        ),
        (
            {"sample": (torch.zeros(1, 3, 16, 16), None)},
            r"of \[\(1, 3, 16, 16\), 'NoneType'\] \(TypeError: .* sample=, an",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_insertion_with_wrong_options_is_refused(plain, options, message):
    with pytest.raises(OptionError, match=message):
        sa.insert(plain, {"down": 16}, **options)


def test_network_that_takes_several_inputs_asks_for_a_sample():
    with pytest.raises(
        OptionError, match=r"TwoInputs does not take an input of \[\(1, 3, 224, 224\)\] .*'depth'.*sample="
    ):
        sa.insert(TwoInputs(), {"first": 8})


def test_network_without_convolution_asks_for_a_sample():
    with pytest.raises(
        OptionError, match="Unfold has no convolution that would tell its input; pass sample=, an input"
    ):
        sa.insert(Unfold(), {"patches": 48})


def test_module_with_a_block_takes_no_other(plain):
    with pytest.raises(OptionError, match=r"module 'down' has an inserted block already; remove\(\) it first"):
        sa.insert(sa.insert(plain, {"down": 16}), {"down": 16}, block="se")


def test_removal_of_nothing_is_refused(plain):
    with pytest.raises(OptionError, match="PlainUNet has no inserted block to remove"):
        sa.remove(plain)


def check_compile():
    for name in COMPILED:
        make, modules, shape = NETWORKS[name]
        images = torch.randn(2, *shape)
        net = sa.insert(make(), modules, sample=images, block_options={"threshold": 0.3, "gamma_init": 0.5}).eval()
        torch.compiler.reset()
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        with torch.no_grad():
            assert_equal(flatten(compiled(images)), flatten(net(images)))
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    check_compile()
