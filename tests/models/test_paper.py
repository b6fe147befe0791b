"""The network of the paper: its parameters and their names, its encoder weights, its sizes."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights

from smooth_attention.core.errors import ConfigError, OptionError, ShapeError
from smooth_attention.models import PaperUNet, SmoothAttention, resolve_arm
from smooth_attention.models.arms import BLOCKS, FILTERS
from smooth_attention.models.controls import BoxBlur, RandomSmoothAttention


def batch_norm(name, width):
    vectors = {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": ()}


def basic_block(name, inside, width):
    shapes = {f"{name}.conv1.weight": (width, inside, 3, 3), f"{name}.conv2.weight": (width, width, 3, 3)}
    shapes |= batch_norm(f"{name}.bn1", width) | batch_norm(f"{name}.bn2", width)
    if inside != width:
        shapes |= {f"{name}.downsample.0.weight": (width, inside, 1, 1)} | batch_norm(f"{name}.downsample.1", width)
    return shapes


def published_shapes(classes=1):
    """Names and shapes of the published state dict, spelled out."""
    shapes = {"encoder.0.weight": (64, 3, 7, 7)} | batch_norm("encoder.1", 64)
    for layer, (inside, width) in zip((4, 5, 6, 7), [(64, 64), (64, 128), (128, 256), (256, 512)], strict=True):
        shapes |= basic_block(f"encoder.{layer}.0", inside, width) | basic_block(f"encoder.{layer}.1", width, width)
    shapes["smooth_attention.gamma"] = (1,)
    for name in ("query", "key", "value"):
        shapes[f"smooth_attention.{name}.weight"] = (512, 512, 1, 1)
        shapes[f"smooth_attention.{name}.bias"] = (512,)
    for layer, inside, width in zip((0, 2, 4, 6, 8), (512, 256, 128, 64, 32), (256, 128, 64, 32, classes), strict=True):
        shapes[f"decoder.{layer}.weight"] = (inside, width, 2, 2)
        shapes[f"decoder.{layer}.bias"] = (width,)
    return shapes


def assert_resnet18(encoder, state):
    """Check that the numbered children hold the named tensors of torchvision's ResNet-18, and nothing else."""
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    want = {}
    for name, value in state.items():
        child, _, rest = name.partition(".")
        if child != "fc":
            want[f"{numbers[child]}.{rest}"] = value
    got = encoder.state_dict()
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert torch.equal(got[name], value), name


@pytest.fixture
def torch_home(tmp_path, monkeypatch) -> Path:
    """The empty folder where torch keeps what it downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def weight_server(tmp_path, monkeypatch):
    """A local server in place of torchvision's; the function puts a file there and gives its name."""
    folder = tmp_path / "server"
    folder.mkdir()

    class QuietHandler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def offer(state, *, digest=None):
        torch.save(state, folder / "new")
        digest = digest or hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
        name = (folder / "new").rename(folder / f"resnet18-{digest}.pth").name
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, "url", url)
        return folder / name

    yield offer
    server.shutdown()
    thread.join()
    server.server_close()


def test_parameters_are_as_many_as_published():
    net = PaperUNet(None)
    counts = [sum(p.numel() for p in part.parameters()) for part in (net.encoder, net.smooth_attention, net.decoder)]
    assert counts == [11_176_512, 787_969, 696_929]
    assert sum(p.numel() for p in net.parameters()) == 12_661_410


@pytest.mark.parametrize("classes", [1, 5])
def test_published_state_dict_loads_strictly(tmp_path, classes):
    published = {
        name: torch.tensor(3) if name.endswith("num_batches_tracked") else torch.rand(shape)
        for name, shape in published_shapes(classes).items()
    }
    torch.save(published, tmp_path / "published.pth")
    net = PaperUNet(None, classes)
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == published_shapes(classes)
    net.load_state_dict(torch.load(tmp_path / "published.pth", weights_only=True), strict=True)
    for name, value in net.state_dict().items():
        assert torch.equal(value, published[name]), name


def test_modules_stand_in_the_published_order():
    net = PaperUNet(None)
    assert [name for name, _ in net.named_children()] == ["mask_filter", "encoder", "smooth_attention", "decoder"]
    assert not net.mask_filter.state_dict()
    assert [type(layer).__name__ for layer in net.decoder] == ["ConvTranspose2d", "ReLU"] * 4 + ["ConvTranspose2d"]


def test_cell_of_the_bottleneck_decodes_its_own_square():
    """No skips and no overlap: only where a cell of the map changed do logits change."""
    net = PaperUNet(None, block="none").eval()
    cells = torch.randn(1, 512, 2, 3)
    other = cells.clone()
    other[..., 1, 2] += 1
    with torch.no_grad():
        rows, columns = (net.decoder(cells) != net.decoder(other))[0, 0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 63, 64, 95)


@pytest.mark.parametrize(
    ("options", "kind", "want"),
    [
        ({}, SmoothAttention, (0.4, None, 1.0)),
        ({"threshold": 2.0}, SmoothAttention, (2.0, None, 1.0)),
        ({"threshold": None}, SmoothAttention, (None, None, 1.0)),
        ({"block_options": {"threshold": 0.1}}, SmoothAttention, (0.1, None, 1.0)),
        ({"block_options": {"fraction": 0.2}}, SmoothAttention, (None, 0.2, 1.0)),
        ({"block_options": {"scale": None}}, SmoothAttention, (0.4, None, None)),
        ({"block": "random"}, RandomSmoothAttention, (0.4, None, 1.0)),
    ],
    ids=str,
)
def test_block_has_the_published_scale_and_the_rule_asked_for(options, kind, want):
    block = PaperUNet(None, **options).smooth_attention
    assert type(block) is kind
    assert (block.threshold, block.fraction, block.scale) == want
    assert block.gamma.item() == 0


@pytest.mark.parametrize(("given", "start"), [({}, 10.0), ({"scale": 5.0}, 5.0)], ids=str)
def test_published_scale_is_not_where_a_cosine_multiplier_starts(given, start):
    block = PaperUNet(None, block_options={"logits": "cosine", **given}).smooth_attention
    assert block.logit_scale.exp().item() == pytest.approx(start)


@pytest.mark.parametrize(("block", "kind"), [("blur", BoxBlur), ("none", torch.nn.Identity)])
def test_block_without_attention_needs_no_rule(block, kind):
    assert type(PaperUNet(None, block=block).smooth_attention) is kind


def test_attention_arms_are_one_arm_at_the_published_scale():
    recipes = []
    for arm in ("attention", "attention-unscaled"):
        block, options = resolve_arm(arm)
        recipes.append(PaperUNet(None, threshold=None, block=block, block_options=options).recipe)
    assert recipes[0] == recipes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"block": "sharp"},
            f"a block is one of {', '.join(['none', *BLOCKS, *FILTERS])}, got 'sharp'; known: none, smooth",
        ),
        ({"block_options": {"treshold": 0.4}}, "block 'smooth' does not take these options: .*treshold"),
        ({"block_options": {"fraction": 2.0}}, "fraction needs to lie between 0 and 1"),
    ],
    ids=str,
)
def test_block_or_option_that_does_not_exist_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        PaperUNet(None, **options)


def test_image_without_pixels_is_refused():
    with pytest.raises(ShapeError, match=r"PaperUNet needs images of shape \(B, 3, H, W\), got \(1, 3, 0, 64\)"):
        PaperUNet(None)(torch.zeros(1, 3, 0, 64))


@pytest.mark.parametrize("nothing", [None, "none"])
def test_encoder_without_weights_is_drawn_by_the_seed(torch_home, nothing):
    nets = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        nets.append(PaperUNet(nothing).encoder[0].weight)
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])
    assert not list(torch_home.iterdir())


def test_encoder_takes_weights_from_a_file(resnet18_file, resnet18_state):
    assert_resnet18(PaperUNet(resnet18_file).encoder, resnet18_state)
    assert_resnet18(PaperUNet(str(resnet18_file)).encoder, resnet18_state)


def test_encoder_takes_a_file_without_classifier(tmp_path, resnet18_state):
    headless = {name: value for name, value in resnet18_state.items() if not name.startswith("fc.")}
    torch.save(headless, tmp_path / "headless.pth")
    assert_resnet18(PaperUNet(tmp_path / "headless.pth").encoder, resnet18_state)


def test_encoder_refuses_a_wrong_file_by_its_name(wrong_weights):
    path, message = wrong_weights
    with pytest.raises(ConfigError, match=message) as caught:
        PaperUNet(path)
    assert len(str(caught.value)) < 600


def test_imagenet_weights_already_downloaded_are_used(torch_home, resnet18_state, monkeypatch):
    monkeypatch.setattr("torch.hub.urlopen", lambda *args, **kwargs: pytest.fail("asked the network"))
    torch.save(resnet18_state, torch_home / Path(ResNet18_Weights.IMAGENET1K_V1.url).name)
    assert_resnet18(PaperUNet("imagenet").encoder, resnet18_state)


def test_imagenet_weights_are_downloaded_once(torch_home, weight_server, resnet18_state):
    served = weight_server(resnet18_state)
    assert_resnet18(PaperUNet().encoder, resnet18_state)
    assert (torch_home / served.name).read_bytes() == served.read_bytes()
    served.unlink()
    assert_resnet18(PaperUNet().encoder, resnet18_state)


@pytest.mark.parametrize("fault", ["absent", "altered"])
def test_imagenet_weights_that_do_not_arrive_are_refused(torch_home, weight_server, fault):
    served = weight_server({"conv1.weight": torch.zeros(1)}, digest="00000000")
    if fault == "absent":
        served.unlink()
    reason = {"absent": "HTTP Error 404", "altered": 'invalid hash value .expected "00000000"'}[fault]
    with pytest.raises(ConfigError, match=rf"ImageNet weights can't be downloaded \({reason}.*give a file, or 'none'"):
        PaperUNet()
    assert not list(torch_home.iterdir())
