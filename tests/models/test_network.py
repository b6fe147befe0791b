"""What every network has: logits, classes, a preprocessing; and the reader of weight files."""

import pytest
import torch
from safetensors.torch import save_file

from smooth_attention.core.errors import ConfigError, OptionError, ShapeError
from smooth_attention.models import Preprocessing
from smooth_attention.models.blocks import Block, block_mode
from smooth_attention.models.network import Network
from smooth_attention.models.saved import read_weights


@pytest.mark.parametrize("classes", [1, 2, 11])
def test_network_gives_logits_at_image_size(make_network, images, classes):
    net = make_network(classes=classes).eval()
    assert net.classes == classes
    assert net.stride == 32
    assert net(images).shape == (2, classes, 64, 96)


@pytest.mark.parametrize("classes", [0, -3])
def test_network_without_classes_is_refused(make_network, classes):
    with pytest.raises(OptionError, match=f"at least one class, got classes={classes}; 1 is a binary task"):
        make_network(classes=classes)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64)], ids=str)
def test_network_refuses_what_is_no_batch_of_images(make_network, shape):
    with pytest.raises(ShapeError, match=rf"\(B, 3, H, W\).*got \({', '.join(map(str, shape))}\)"):
        make_network()(torch.zeros(shape))


def test_network_has_imagenet_preprocessing_before_training(make_network):
    assert make_network().preprocessing == Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), None)


def test_network_switches_all_its_blocks(make_network, images):
    net, none = make_network(gamma_init=1.0, threshold=0.0).eval(), make_network("none").eval()
    plain = make_network("attention", gamma_init=1.0).eval()
    with torch.no_grad():
        outputs = [net(images)]
        for mode, twin in (("gate_off", plain), ("bypass", none)):
            with block_mode(net, mode):
                outputs.append(net(images))
            assert torch.equal(outputs[-1], twin(images)), mode
        assert not torch.equal(outputs[0], outputs[1])
        assert torch.equal(net(images), outputs[0])


def test_network_passes_its_recipe_on(make_network):
    net = make_network(threshold=0.3)
    assert net.recipe["block"] == "smooth"
    assert net.recipe["block_options"]["threshold"] == 0.3
    assert any(isinstance(module, Block) and module.threshold == 0.3 for module in net.modules())


def test_base_network_has_the_stride_of_a_resnet():
    net = Network({"classes": 3})
    assert (net.stride, net.classes) == (32, 3)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_weight_file_is_read(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = {"weight": torch.randn(2, 3), "steps": torch.tensor(3)}
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    read = read_weights(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], value) for name, value in state.items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weight_file_that_is_truncated_is_refused(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"weight": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=rf"weights\{suffix} is no readable weight file \(\w+\); give a state dict"):
        read_weights(path)


def test_weight_file_that_runs_code_is_refused_and_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (type(tmp_path).touch, (tmp_path / "ran",))

    torch.save({"weight": Payload()}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="is no readable weight file"):
        read_weights(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()
