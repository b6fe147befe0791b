"""Saved networks: read back bit for bit, without download or pickle; what does not belong together is refused."""

import json
import math
import os

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file

from recipes import PAPER, UNET
from smooth_attention.core.errors import DataError
from smooth_attention.models import (
    ARMS,
    PaperUNet,
    Preprocessing,
    SmoothAttention,
    create_model,
    insert,
    load_model,
    resolve_arm,
)
from smooth_attention.models.network import Network
from smooth_attention.models.rivals import MedianFilter
from smooth_attention.models.saved import digest, digest_file

FILTER = {"block": "median", "block_options": {"size": 3}}
NETWORKS = {
    "paper": lambda **block: PaperUNet(None, threshold=None, **block),
    "unet": lambda **block: create_model("unet", encoder_weights=None, **block),
}


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


@pytest.fixture(params=[PAPER, UNET], ids=["paper", "unet"])
def saved(request, tmp_path):
    """What is refused before its weights are looked at: the recipe of a network, with one small tensor."""
    return save_recipe(request.param, tmp_path / "saved")


def save_recipe(recipe, directory, *, value=0.0):
    """Save a small tensor as the weights of a recipe, right or wrong."""
    small = Network(recipe)
    small.weight = torch.nn.Parameter(torch.full((100,), value))
    small.save_pretrained(directory)
    return directory


def edit_config(directory, change):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_and_reseal(directory, change):
    """Edit the config and bind config and weights to each other again, as a forger would."""
    edit_config(directory, change)
    reseal(directory)


def reseal(directory):
    config, weights = json.loads((directory / "config.json").read_text()), directory / "model.safetensors"
    described = {name: value for name, value in config.items() if name not in ("schema", "weights_sha256")}
    save_file(load_file(weights), weights, metadata={"format": "pt", "config_sha256": digest(described)})
    edit_config(directory, lambda config: config.update(weights_sha256=digest_file(weights)))


def assert_read_back(net, again, images):
    """The same class, recipe, preprocessing, facts, state and output, bit for bit."""
    assert type(again) is type(net)
    assert not again.training
    assert again.recipe == json.loads(json.dumps(net.recipe))
    assert again.preprocessing == net.preprocessing
    assert again.facts == net.facts
    state = again.state_dict()
    assert state.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(state[name], tensor), name
    with torch.no_grad():
        assert torch.equal(again(images), net.eval()(images))


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
    assert_read_back(net, load_model(tmp_path / "saved"), images)


@pytest.mark.parametrize(
    "options",
    [
        {"stages": (3, -1), "decoder_channels": (64, 32, 32, 16, 16)},
        {"arch": "fpn", "encoder_name": "mobilenet_v2", "arm": "cbam"},
        {"arch": "deeplabv3plus", "output_stride": 8},
        {"arch": "segformer", "encoder_name": "tu-resnet18", "arm": "median"},
        {"arch": "dpt", "encoder_name": "tu-vit_tiny_patch16_224"},
    ],
    ids=lambda options: options.get("arch", "unet"),
)
def test_network_of_other_form_is_read_back_bit_for_bit(images, tmp_path, sealed, options):
    torch.manual_seed(0)
    options = dict(options)
    block, block_options = resolve_arm(options.pop("arm", "smooth"))
    net = create_model(encoder_weights=None, block=block, block_options=block_options, **options)
    for parameter in net.parameters():
        parameter.data += 0.01
    net.save_pretrained(tmp_path / "saved")
    torch.manual_seed(99)
    assert_read_back(net, load_model(tmp_path / "saved"), images)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_recipe_with_a_filter_in_place_of_its_block_is_read_back_bit_for_bit(make, images, tmp_path, sealed):
    """As recipes were before a filter had its own field."""
    net = make(**FILTER)
    older = {name: value for name, value in net.recipe.items() if name not in ("filter", "filter_options")} | FILTER
    net.save_pretrained(tmp_path / "saved")
    edit_and_reseal(tmp_path / "saved", lambda config: config.update(network=older))
    again = load_model(tmp_path / "saved")
    assert_read_back(net, again, images)
    assert str(again.mask_filter) == "MedianFilter(size=3)"


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_recipe_with_a_block_and_a_filter_is_built_with_both(make, images, tmp_path):
    net = make(block="blur", block_options={"gamma_init": 1.0}).eval()
    net.save_pretrained(tmp_path / "saved")
    edit_and_reseal(tmp_path / "saved", lambda config: config["network"].update(filter="median", filter_options={}))
    again = load_model(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(again(images), MedianFilter().eval()(net(images)))


def test_network_with_inserted_block_is_read_back_bit_for_bit(make_network, images, tmp_path, sealed):
    name = "decoder.1" if isinstance(net := make_network("none"), PaperUNet) else "model.decoder.blocks.0"
    net = insert(net, {name: 256}, block_options={"threshold": 0.1, "gamma_init": 0.5})
    net.save_pretrained(tmp_path / "saved")
    torch.manual_seed(99)
    again = load_model(tmp_path / "saved")
    assert again.get_submodule(name).block.threshold == 0.1
    assert_read_back(net, again, images)


@pytest.mark.parametrize("threshold", [math.inf, -math.inf, -1.0, 1e-320, 0.1 + 0.2], ids=str)
def test_threshold_is_read_back_to_the_last_bit(make_network, tmp_path, sealed, threshold):
    make_network(threshold=threshold).save_pretrained(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.recipe["block_options"]["threshold"] == threshold
    assert [m.threshold for m in again.modules() if isinstance(m, SmoothAttention)] == [threshold]


def test_facts_are_read_back_and_an_undefined_figure_is_none(make_network, tmp_path, sealed):
    net = make_network("none")
    figures = {"iou": 0.1 + 0.2, "dice": math.nan, "precision": None}
    net.facts = {
        "arm": "none",
        "data": "häfen",
        "images": {"train": 3, "test": 2},
        "protocol": "standard",
        "replicate": {"fold": None, "seed": 5},
        "metrics": {"test": {"pooled": figures, "per_image": figures}},
    }
    net.save_pretrained(tmp_path / "saved", licence="cc-by-4.0")
    read = {**figures, "dice": None}
    assert load_model(tmp_path / "saved").facts == {
        **net.facts,
        "licence": "cc-by-4.0",
        "metrics": {"test": {"pooled": read, "per_image": read}},
    }


@pytest.mark.parametrize("strict", [True, False])
def test_block_in_a_network_of_smp_is_lost_by_smp_and_kept_here(tmp_path, images, sealed, strict):
    """SMP rebuilds the architecture from its own options, which do not know the block."""
    options = {"encoder_name": "mobilenet_v2", "encoder_weights": None, "decoder_channels": (32, 16, 16, 8, 8)}
    block = {"block_options": {"threshold": 0.1, "gamma_init": 0.5}}
    theirs = insert(smp.Unet(**options), {"decoder.blocks.0": 32}, **block)
    theirs.save_pretrained(tmp_path / "theirs")
    if strict:
        with pytest.raises(RuntimeError, match=r"Missing key.*decoder.blocks.0.conv1(.|\n)*Unexpected key"):
            smp.from_pretrained(str(tmp_path / "theirs"))
    else:
        again = smp.from_pretrained(str(tmp_path / "theirs"), strict=False)
        assert not any(isinstance(module, SmoothAttention) for module in again.modules())
    ours = insert(create_model("unet", block="none", **options), {"model.decoder.blocks.0": 32}, **block)
    ours.save_pretrained(tmp_path / "ours")
    again = load_model(tmp_path / "ours")
    assert sum(isinstance(module, SmoothAttention) for module in again.modules()) == 1
    assert_read_back(ours, again, images)


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


def test_saving_replaces_the_directory(saved):
    (saved / "left-over.txt").write_text("of another network")
    PaperUNet(None, threshold=None, block="blur").save_pretrained(str(saved))
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert load_model(saved).recipe["block"] == "blur"
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_directory_without_a_file_is_refused(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(DataError, match=f"holds config.json and model.safetensors, .*saved/{missing} is missing; give"):
        load_model(saved)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
def test_permissions_of_every_file_follow_the_umask(make_network, tmp_path, umask):
    before = os.umask(umask)
    try:
        make_network().save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(("README.md", "config.json", "model.safetensors"), 0o666 & ~umask)


def test_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere/config.json is missing; give what save_pretrained wrote"):
        load_model(tmp_path / "nowhere")


def test_file_in_place_of_a_directory_is_refused(saved):
    with pytest.raises(DataError, match=r"is a directory that save_pretrained wrote, got the file .*model.safetensors"):
        load_model(saved / "model.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pkl"])
@pytest.mark.parametrize("exists", [True, False])
def test_pickle_is_refused_unopened_with_the_way_to_convert_it(tmp_path, sealed, monkeypatch, suffix, exists):
    path = tmp_path / f"net{suffix}"
    if exists:
        torch.save({"weight": torch.zeros(1)}, path)
    advice = (
        rf"net\{suffix} is a pickle, which can run code .* build its network with create_model, load "
        r"torch.load\(file, weights_only=True\) into it, and call save_pretrained"
    )
    with monkeypatch.context() as closed:
        for door in ("builtins.open", "io.open"):
            closed.setattr(door, lambda *args, **kwargs: pytest.fail("a file was opened"))
        with pytest.raises(DataError, match=advice):
            load_model(path)


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", ["half", "empty", "binary"])
def test_damaged_file_is_refused(saved, damaged, content):
    whole = (saved / damaged).read_bytes()
    (saved / damaged).write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "binary": b"\xff\x00"}[content])
    with pytest.raises(DataError, match=r"saved holds a damaged model file \(.+\); save the model again"):
        load_model(saved)


@pytest.mark.parametrize("cut", [1, 40])
def test_weights_that_lack_their_end_are_refused(saved, cut):
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[:-cut])
    with pytest.raises(DataError, match=r"saved holds a damaged model file \(.+\); save the model again"):
        load_model(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["network"]["block_options"].update(threshold=0.9),
        lambda config: config["preprocessing"].update(image_size=96),
        lambda config: config["facts"].update(licence="mit"),
        lambda config: config.update(more=1),
        lambda config: config.pop("facts"),
        lambda config: config.pop("network"),
    ],
    ids=["threshold", "image_size", "licence", "added", "no facts", "no network"],
)
def test_config_that_was_changed_is_refused(saved, change):
    edit_config(saved, change)
    with pytest.raises(
        DataError,
        match=r"saved/config.json is not the one saved with model.safetensors: it was changed; save the model again",
    ):
        load_model(saved)


def test_config_written_otherwise_is_read(make_network, tmp_path):
    """Its digest is of its values, not of its bytes."""
    net = make_network(threshold=0.05)
    net.save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7, sort_keys=True))
    assert load_model(tmp_path / "saved").recipe == net.recipe


def test_card_that_was_edited_or_removed_is_no_obstacle(make_network, tmp_path):
    net = make_network("none")
    net.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").unlink()
    assert load_model(tmp_path / "saved").recipe == net.recipe


CHANGED_WEIGHTS = r"saved/model.safetensors is not the one saved with config.json: it was changed; save the model again"


def test_weights_with_one_bit_flipped_are_refused(saved):
    content = bytearray((saved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=CHANGED_WEIGHTS):
        load_model(saved)


@pytest.mark.parametrize("digest", ["0" * 64, 3, None])
def test_config_without_the_digest_of_its_weights_is_refused(saved, digest):
    edit_config(saved, lambda config: config.update(weights_sha256=digest) if digest else config.pop("weights_sha256"))
    with pytest.raises(DataError, match=CHANGED_WEIGHTS):
        load_model(saved)


def test_weights_of_another_training_of_the_network_are_refused(saved, tmp_path):
    recipe = json.loads((saved / "config.json").read_text())["network"]
    other = save_recipe(recipe, tmp_path / "other", value=1.0)
    (other / "model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(DataError, match=CHANGED_WEIGHTS):
        load_model(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"config_sha256": ""}], ids=str)
def test_weights_without_the_digest_of_their_config_are_refused(saved, metadata):
    save_file(load_file(saved / "model.safetensors"), saved / "model.safetensors", metadata=metadata)
    with pytest.raises(DataError, match=r"saved/config.json is not the one saved with model.safetensors: it was"):
        load_model(saved)


@pytest.mark.parametrize("schema", [1, 3, None])
def test_other_schema_is_refused(saved, schema):
    edit_config(saved, lambda config: config.update(schema=schema))
    with pytest.raises(DataError, match=f"saved/config.json has schema {schema}, expected 2; save it again"):
        load_model(saved)


def test_config_that_is_no_mapping_is_refused(saved):
    (saved / "config.json").write_text("[1]")
    with pytest.raises(DataError, match=r"saved/config.json has schema None, expected 2"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "deeplab"}, "a network's kind is 'paper' or 'smp', got 'deeplab'"),
        ({"block": "sharp"}, "a block is one of none, smooth, random, blur, .*, got 'sharp'"),
        ({"filter": "mean"}, "a filter is one of median, got 'mean'"),
        ({"classes": None}, ".*None.*"),
        ({"classes": 10**13}, ".*"),
        ({"block_options": {"treshold": 0.4}}, "block 'smooth' does not take these options: .*treshold"),
        ({"inserted": [{"module": "decoder"}]}, ".*"),
        ({"depth": 5}, ".*depth.*"),
    ],
    ids=str,
)
def test_recipe_that_can_not_be_built_is_refused(saved, change, reason):
    edit_and_reseal(saved, lambda config: config["network"].update(change))
    with pytest.raises(DataError, match=f"saved/config.json describes no network that can be built \\({reason}"):
        load_model(saved)


@pytest.mark.parametrize("value", ["absent", None, [1]], ids=str)
@pytest.mark.parametrize("part", ["network", "preprocessing", "facts"])
def test_config_without_a_part_is_refused(saved, part, value):
    edit_and_reseal(saved, lambda config: config.pop(part) if value == "absent" else config.update({part: value}))
    with pytest.raises(DataError, match=rf"saved/config.json has no {part}; save the model again"):
        load_model(saved)


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
@pytest.mark.parametrize("arch", ["unet", "dpt"])
@pytest.mark.parametrize(
    "name",
    [
        "tu-hf-hub:owner/name",
        "tu-hf_hub:owner/name",
        "tu-local-dir:/x",
        "timm-hf-hub:owner/name",
        "hf-hub:owner/name",
        "tu-vit_tiny_patch16_224:owner/name",
        "tu-",
        "../x",
    ],
)
def test_encoder_that_would_be_looked_for_elsewhere_is_refused(tmp_path, sealed, arch, name):
    recipe = {**UNET, "arch": arch, "encoder_name": name}
    with pytest.raises(DataError, match=r"config.json describes no network that can be built \(.*(encoder|dpt alone)"):
        load_model(save_recipe(recipe, tmp_path / "saved"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"decoder_chanels": [8] * 5}, "unet takes encoder_depth, .*, got 'decoder_chanels'"),
        ({"encoder_weights": "imagenet"}, "unet takes encoder_depth, .*, got 'encoder_weights'"),
        ({"decoder_channels": [8, 8]}, "segmentation_models.pytorch can't build this network: "),
        ({"output_stride": 3}, "segmentation_models.pytorch can't build this network: "),
    ],
    ids=str,
)
def test_options_that_smp_does_not_take_are_refused(tmp_path, sealed, options, reason):
    saved = save_recipe({**UNET, "smp_options": options}, tmp_path / "saved")
    with pytest.raises(DataError, match=rf"config.json describes no network that can be built \({reason}"):
        load_model(saved)


@pytest.mark.parametrize("change", [{"classes": 2}, {"block": "none", "block_options": {}}], ids=str)
def test_weights_of_another_network_are_refused(make_network, tmp_path, change):
    saved = tmp_path / "saved"
    make_network().save_pretrained(saved)
    edit_and_reseal(saved, lambda config: config["network"].update(change))
    with pytest.raises(DataError, match=r"the weights in .*saved do not fit its config.json: ") as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_preprocessing_of_a_later_version_keeps_what_is_known(make_network, tmp_path):
    saved = tmp_path / "saved"
    make_network().save_pretrained(saved)
    edit_and_reseal(saved, lambda config: config["preprocessing"].update(interpolation="area", image_size=96))
    assert load_model(saved).preprocessing == Preprocessing(image_size=96)
