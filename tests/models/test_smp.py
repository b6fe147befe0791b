"""Networks of segmentation_models.pytorch: where the block sits, what the encoder keeps, what is refused."""

import pytest
import torch
from torch import nn

from smooth_attention.core.errors import ConfigError, OptionError
from smooth_attention.models import SmoothAttention, create_model
from smooth_attention.models.blocks import Block
from smooth_attention.models.diagnostics import captured_inputs

RESNET18_CHANNELS = [3, 64, 64, 128, 256, 512]


def make(**options):
    torch.manual_seed(0)
    return create_model("unet", **{"encoder_weights": None, **options}).eval()


def capture_shapes(net, images):
    with torch.no_grad(), captured_inputs(net) as inputs:
        net(images)
    return [tuple(x.shape[1:]) for x in inputs.values()]


@pytest.mark.parametrize(
    ("stages", "shapes"),
    [
        ((-2,), [(256, 4, 6)]),
        ((4,), [(256, 4, 6)]),
        ((-1,), [(512, 2, 3)]),
        ((3, -1), [(128, 8, 12), (512, 2, 3)]),
        ((2, 3, 4), [(64, 16, 24), (128, 8, 12), (256, 4, 6)]),
    ],
    ids=str,
)
def test_block_sees_the_maps_of_its_stages(images, stages, shapes):
    assert capture_shapes(make(stages=stages), images) == shapes


def test_block_sits_after_the_stride_16_stage_by_default(images):
    assert capture_shapes(make(), images) == [(256, 4, 6)]


@pytest.mark.parametrize("stages", [(-2,), (3, -1)], ids=str)
def test_blocks_with_gamma_zero_leave_the_output_as_it_is(images, stages):
    net, without = make(stages=stages), make(stages=stages, block="none")
    with torch.no_grad():
        assert torch.equal(net(images), without(images))


def test_block_changes_what_the_decoder_sees_and_nothing_deeper(images):
    """The stages below go on from the map as it was."""
    encoder = make(block_options={"gamma_init": 1.0}).model.encoder
    with torch.no_grad():
        with_block, before = encoder(images), encoder.encoder(images)
    assert [torch.equal(a, b) for a, b in zip(with_block, before, strict=True)] == [True] * 4 + [False, True]


def test_several_blocks_have_their_own_weights():
    blocks = [module for module in make(stages=(-2, -1)).modules() if isinstance(module, Block)]
    assert [block.query.weight.shape[0] for block in blocks] == [256, 512]
    assert blocks[0].gamma is not blocks[1].gamma


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.2, "scale": 1.0},
        {"threshold": 0.2, "heads": 4, "head_dim": 16, "logits": "cosine", "temperature": 0.1},
    ],
    ids=str,
)
def test_block_takes_its_options(images, options):
    net = make(block_options={"gamma_init": 0.5, **options})
    (block,) = (module for module in net.modules() if isinstance(module, SmoothAttention))
    assert block.gamma.item() == 0.5
    assert {name: getattr(block, name) for name in options} == options
    net(images).square().mean().backward()
    for name, parameter in block.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_block_by_default_is_plain_attention():
    (block,) = (module for module in make().modules() if isinstance(module, SmoothAttention))
    assert (block.threshold, block.fraction, block.scale, block.gamma.item()) == (None, None, None, 0.0)


@pytest.mark.parametrize(
    ("smp_options", "stride"), [({}, 32), ({"encoder_depth": 4, "decoder_channels": (32,) * 4}, 16)]
)
def test_encoder_keeps_its_channels_and_stride(images, smp_options, stride):
    net, without = make(**smp_options), make(block="none", **smp_options)
    depth = smp_options.get("encoder_depth", 5)
    for encoder in (net.model.encoder, without.model.encoder):
        assert encoder.out_channels == RESNET18_CHANNELS[: depth + 1]
        assert encoder.output_stride == stride
    assert net.stride == stride
    assert net(images).shape == (2, 1, 64, 96)


@pytest.mark.parametrize("encoder_name", ["mobilenet_v2", "timm-mobilenetv3_small_minimal_100"])
@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_other_encoder_takes_the_block(images, encoder_name):
    net = make(encoder_name=encoder_name)
    channels = net.model.encoder.out_channels[-2]
    assert capture_shapes(net, images) == [(channels, 4, 6)]


def test_smp_options_reach_smp():
    net = make(decoder_attention_type="scse", decoder_channels=(64, 32, 32, 16, 16))
    assert any(type(module).__name__ == "SCSEModule" for module in net.modules())
    assert net.model.segmentation_head[0].in_channels == 16


@pytest.mark.parametrize("nothing", [None, "none"])
def test_encoder_without_weights_is_drawn_by_the_seed(nothing):
    weights = [make(encoder_weights=nothing).state_dict(), make(encoder_weights=nothing).state_dict()]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_encoder_takes_weights_from_a_file(resnet18_file, resnet18_state):
    got = make(encoder_weights=resnet18_file).model.encoder.encoder.state_dict()
    want = {name: value for name, value in resnet18_state.items() if not name.startswith("fc.")}
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert torch.equal(got[name], value), name


def test_encoder_refuses_a_wrong_file_by_its_name(wrong_weights):
    path, message = wrong_weights
    with pytest.raises(ConfigError, match=message) as caught:
        make(encoder_weights=path)
    assert len(str(caught.value)) < 600


def test_imagenet_weights_come_by_smp_own_download(monkeypatch, tmp_path, resnet18_state):
    """The one part stood in for is the hub; what it gives is loaded into the encoder, before any block is added."""
    from safetensors.torch import save_file

    headless = {name: value for name, value in resnet18_state.items() if not name.startswith("fc.")}
    save_file(headless, tmp_path / "model.safetensors")
    asked = []

    def download(repo_id, *, filename, revision):
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", download)
    encoder = make(encoder_weights="imagenet").model.encoder.encoder
    assert ("smp-hub/resnet18.imagenet", "model.safetensors") in asked
    for name, value in headless.items():
        assert torch.equal(encoder.state_dict()[name], value), name


def test_imagenet_weights_that_do_not_arrive_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"(?s)ImageNet weights can't be downloaded \(.*\); give a file, or 'none'"):
        make(encoder_weights="imagenet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "transunet"}, "an architecture is one of unet, got 'transunet'"),
        ({"encoder_name": "resnet19"}, "can't build this network: Wrong encoder name `resnet19`"),
        ({"encoder_name": "tu-resnet19"}, r"can't build this network: Unknown model \(resnet19\)"),
        ({"stages": (6,)}, r"resnet18 has stages 1 to 5 \(or -1 to -5\), got 6; -2 is the stride-16 map"),
        ({"stages": (-2, 0)}, "resnet18 has stages 1 to 5 .*, got 0;"),
        ({"stages": (-6,)}, "resnet18 has stages 1 to 5 .*, got -6;"),
        ({"block": "sharp"}, "a block is one of none, smooth, random, blur, got 'sharp'"),
        ({"block_options": {"treshold": 0.4}}, "block 'smooth' does not take these options: .*treshold"),
        ({"stage": (-1,)}, "create_model takes SMP's encoder_depth, .*, got 'stage'; leave it out"),
        ({"in_channels": 1}, "create_model takes SMP's encoder_depth, .*, got 'in_channels'; leave it out"),
    ],
    ids=str,
)
def test_request_that_can_not_be_met_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        create_model(**{"encoder_weights": None, **options})


def test_network_is_an_ordinary_module(images):
    """Parameters of encoder, block and decoder are found, moved and trained by anybody's loop."""
    net = make(block_options={"gamma_init": 0.1}).train()
    assert isinstance(net, nn.Module)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in net.named_parameters()}
    net(images).square().mean().backward()
    optimizer.step()
    moved = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    for part in ("model.encoder.encoder.conv1", "model.encoder.blocks.4.gamma", "model.decoder", "model.segmentation"):
        assert any(name.startswith(part) for name in moved), part
