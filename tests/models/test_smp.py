"""Networks of segmentation_models.pytorch: where the block sits, what the encoder keeps, what is refused."""

import pytest
import torch
from torch import nn

from smooth_attention.core.errors import ConfigError, OptionError
from smooth_attention.models import SmoothAttention, create_model
from smooth_attention.models.arms import BLOCKS, FILTERS
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


@pytest.mark.parametrize(
    ("arch", "output_stride"),
    [("unet", 8), ("unet", 16), ("deeplabv3", 8), ("deeplabv3", 16), ("deeplabv3plus", 8), ("pan", 16)],
)
def test_dilated_encoder_has_the_grid_of_its_stride(arch, output_stride):
    net = create_model(arch, encoder_weights=None, output_stride=output_stride, stages=(-1,)).eval()
    assert net.stride == output_stride
    assert capture_shapes(net, torch.zeros(1, 3, 128, 192)) == [(512, 128 // output_stride, 192 // output_stride)]


def test_dry_run_leaves_modes_statistics_and_seed_alone():
    torch.manual_seed(0)
    net = create_model("unet", encoder_weights=None, block="none")
    drawn = torch.rand(1)
    assert all(module.training for module in net.modules())
    assert all(value == 0 for name, value in net.state_dict().items() if name.endswith("num_batches_tracked"))
    torch.manual_seed(0)
    create_model("unet", encoder_weights=None, block="none")
    assert torch.equal(torch.rand(1), drawn)


@pytest.mark.parametrize("arch", ["pan", "dpt", "unet"])
@pytest.mark.parametrize("size", [(1, 1), (33, 200), (100, 130)], ids=str)
def test_network_takes_any_size(arch, size):
    encoder_name = "tu-vit_tiny_patch16_224" if arch == "dpt" else "mobilenet_v2"
    net = create_model(arch, encoder_name=encoder_name, encoder_weights=None, classes=2).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, *size)).shape == (1, 2, *size)


def test_weights_of_a_timm_encoder_come_by_timm_own_download(monkeypatch):
    asked = []

    def download(model, **options):
        asked.append(model.pretrained_cfg["architecture"])

    monkeypatch.setattr("timm.models._builder.load_pretrained", download)
    make(encoder_name="tu-resnet18", encoder_weights="imagenet")
    assert asked == ["resnet18"]


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
        ({"arch": "transunet"}, r"an architecture is one of unet, .*, dpt, got 'transunet'; did you mean unet"),
        ({"arch": "deeplab"}, "got 'deeplab'; did you mean deeplabv3, deeplabv3plus"),
        ({"encoder_name": "resnet19"}, "no encoder 'resnet19' in .*; did you mean .*resnet18"),
        ({"encoder_name": "tu-resnet19"}, "no encoder 'tu-resnet19' in .*; did you mean .*tu-resnet18"),
        ({"encoder_name": "tu-hf-hub:owner/name"}, "no encoder 'tu-hf-hub:owner/name'"),
        ({"encoder_name": "tu-local-dir:/models"}, "no encoder 'tu-local-dir:/models'"),
        ({"arch": "unetplusplus", "encoder_name": "mit_b0"}, "can't build this network: UnetPlusPlus is not support"),
        ({"arch": "dpt"}, r"dpt takes tu-vit\* encoders, got 'resnet18'; such as tu-vit_tiny_patch16_224"),
        ({"encoder_name": "tu-vit_tiny_patch16_224"}, "tu-vit_tiny_patch16_224 goes with dpt alone, unet needs"),
        ({"arch": "dpt", "encoder_name": "tu-vit_tiny_patch16_224", "output_stride": 8}, "dpt takes encoder_depth, "),
        ({"arch": "linknet", "output_stride": 16}, "linknet can't decode resnet18 with {'output_stride': 16}: "),
        ({"arch": "pspnet", "output_stride": 16}, "the encoder of this pspnet has stride 8, output_stride=16 would"),
        ({"arch": "pan", "output_stride": 8}, "can't build this network: PAN support output stride 16 or 32, got 8"),
        ({"arch": "deeplabv3", "stages": (-2,)}, r"deeplabv3 reads the maps \[5\] of resnet18, .* 4 .*stages=\(5,\)"),
        ({"arch": "fpn", "stages": (1,)}, r"fpn reads the maps \[2, 3, 4, 5\] .* after 1 would change nothing"),
        ({"encoder_name": "mit_b0", "stages": (1,)}, r"stage 1 of mit_b0 is empty \(0 channels\); name a deeper one"),
        ({"stages": ()}, "stages is empty; name at least one"),
        ({"stages": (-1, 5)}, r"stages \(-1, 5\) name the same map twice"),
        ({"stages": (6,)}, r"resnet18 has stages 1 to 5 \(or -1 to -5\), got 6; -2 is the second deepest map"),
        ({"stages": (-2, 0)}, "resnet18 has stages 1 to 5 .*, got 0;"),
        ({"stages": (-6,)}, "resnet18 has stages 1 to 5 .*, got -6;"),
        ({"block": "sharp"}, f"a block is one of {', '.join(['none', *BLOCKS, *FILTERS])}, got 'sharp'"),
        ({"block_options": {"treshold": 0.4}}, "block 'smooth' does not take these options: .*treshold"),
        (
            {"decoder_chanels": (64,)},
            r"unet takes encoder_depth, .*, got 'decoder_chanels'; did you mean decoder_channels",
        ),
        ({"in_channels": 1}, "unet takes encoder_depth, .*, got 'in_channels'; did you mean"),
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
