"""Saved networks: read back bit for bit, without download or pickle; what does not belong together is refused."""

import json

import pytest
import torch

from smooth_attention.core.errors import DataError
from smooth_attention.models import ARMS, PaperUNet, Preprocessing, create_model, load_model
from smooth_attention.models.network import Network


@pytest.fixture
def sealed(monkeypatch):
    """No pickle is read and nothing is downloaded."""
    for door in (
        "torch.load",
        "torch.hub.load_state_dict_from_url",
        "torchvision.models._api.load_state_dict_from_url",
        "segmentation_models_pytorch.encoders.hf_hub_download",
        "socket.socket.connect",
    ):
        monkeypatch.setattr(door, lambda *args, door=door, **kwargs: pytest.fail(f"{door} was called"))


@pytest.fixture
def saved(make_network, tmp_path):
    """What is refused before its weights are looked at: the recipe of a network, with one small tensor."""
    small = Network(make_network(threshold=0.05).recipe)
    small.weight = torch.nn.Parameter(torch.zeros(100))
    small.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit_config(directory, change):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("arm", "options"),
    [
        *((arm, {}) for arm in ARMS),
        ("smooth", {"heads": 4, "head_dim": 8, "logits": "cosine", "temperature": 0.1}),
        ("random", {"heads": 2, "logits": "cosine", "scale": 5.0}),
    ],
    ids=str,
)
def test_network_is_read_back_bit_for_bit(make_network, images, tmp_path, sealed, arm, options):
    net = make_network(arm, classes=3, **({} if arm == "none" else {"gamma_init": 0.5, **options}))
    net(images)  # moves the statistics of batch normalisation
    for parameter in net.parameters():
        parameter.data += 0.01  # nothing is where it starts
    net.eval()
    net.preprocessing = Preprocessing(
        image_size=64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), class_names=("sky", "sea", "ship")
    )
    net.save_pretrained(tmp_path / "saved")
    torch.manual_seed(99)
    again = load_model(tmp_path / "saved")
    assert type(again) is type(net)
    assert not again.training
    assert again.recipe == net.recipe
    assert again.preprocessing == net.preprocessing
    state = again.state_dict()
    assert state.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(state[name], tensor), name
    with torch.no_grad():
        assert torch.equal(again(images), net(images))


def test_network_at_several_stages_is_read_back(images, tmp_path, sealed):
    net = create_model(
        encoder_weights=None, stages=(3, -1), block_options={"gamma_init": 0.5}, decoder_channels=(64, 32, 32, 16, 16)
    ).eval()
    net.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path)(images), net(images))


def test_network_with_weights_from_a_file_is_read_back_without_it(resnet18_state, images, tmp_path):
    torch.save(resnet18_state, tmp_path / "resnet18.pth")
    net = PaperUNet(tmp_path / "resnet18.pth").eval()
    net.save_pretrained(tmp_path / "saved")
    (tmp_path / "resnet18.pth").unlink()
    assert torch.equal(load_model(tmp_path / "saved")(images), net(images))


def test_network_of_a_run_is_read_from_its_model(make_network, tmp_path):
    net = make_network(threshold=0.05)
    net.save_pretrained(tmp_path / "run" / "model")
    assert load_model(str(tmp_path / "run")).recipe == net.recipe


def test_saving_replaces_the_directory(make_network, saved):
    (saved / "left-over.txt").write_text("of another network")
    make_network("blur").save_pretrained(str(saved))
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert load_model(saved).recipe["block"] == "blur"
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_directory_without_a_file_is_refused(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(DataError, match=f"holds config.json and model.safetensors, .*saved/{missing} is missing; give"):
        load_model(saved)


def test_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere/config.json is missing; give what save_pretrained wrote"):
        load_model(tmp_path / "nowhere")


def test_file_in_place_of_a_directory_is_refused(saved):
    with pytest.raises(DataError, match=r"is a directory that save_pretrained wrote, got the file .*model.safetensors"):
        load_model(saved / "model.safetensors")


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", ["half", "empty", "binary"])
def test_damaged_file_is_refused(saved, damaged, content):
    whole = (saved / damaged).read_bytes()
    (saved / damaged).write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "binary": b"\xff\x00"}[content])
    with pytest.raises(DataError, match=r"saved holds a damaged model file \(.+\); save the model again"):
        load_model(saved)


@pytest.mark.parametrize("schema", [2, None])
def test_other_schema_is_refused(saved, schema):
    edit_config(saved, lambda config: config.update(schema=schema))
    with pytest.raises(DataError, match=f"saved/config.json has schema {schema}, expected 1; save it again"):
        load_model(saved)


def test_config_that_is_no_mapping_is_refused(saved):
    (saved / "config.json").write_text("[1]")
    with pytest.raises(DataError, match=r"saved/config.json has schema None, expected 1"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "deeplab"}, "a network's kind is 'paper' or 'smp', got 'deeplab'"),
        ({"block": "sharp"}, "a block is one of none, smooth, random, blur, got 'sharp'"),
        ({"classes": None}, ".*None.*"),
        ({"block_options": {"treshold": 0.4}}, "block 'smooth' does not take these options: .*treshold"),
    ],
    ids=str,
)
def test_recipe_that_can_not_be_built_is_refused(saved, change, reason):
    edit_config(saved, lambda config: config["network"].update(change))
    with pytest.raises(DataError, match=f"saved/config.json describes no network that can be built \\({reason}"):
        load_model(saved)


@pytest.mark.parametrize("part", ["network", "preprocessing"])
def test_config_without_a_part_is_refused(saved, part):
    edit_config(saved, lambda config: config.pop(part))
    with pytest.raises(
        DataError, match=rf"saved/config.json describes no network that can be built \('{part}'\); save it again"
    ):
        load_model(saved)


@pytest.mark.parametrize("change", [{"classes": 2}, {"block": "none", "block_options": {}}], ids=str)
def test_weights_of_another_network_are_refused(make_network, tmp_path, change):
    saved = tmp_path / "saved"
    make_network().save_pretrained(saved)
    edit_config(saved, lambda config: config["network"].update(change))
    with pytest.raises(DataError, match=r"the weights in .*saved do not fit its config.json: ") as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_preprocessing_of_a_later_version_keeps_what_is_known(make_network, tmp_path):
    saved = tmp_path / "saved"
    make_network().save_pretrained(saved)
    edit_config(saved, lambda config: config["preprocessing"].update(interpolation="area", image_size=96))
    assert load_model(saved).preprocessing == Preprocessing(image_size=96)
