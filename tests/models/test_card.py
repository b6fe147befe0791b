"""The model card: what the hub reads of it, and what a person does."""

import ast
import re

import numpy as np
import pytest
from huggingface_hub import ModelCard

import recipes
from smooth_attention.core.records import METRIC_TITLES
from smooth_attention.metrics import StandardMetrics
from smooth_attention.models import PaperUNet, Preprocessing, create_model, insert
from smooth_attention.models.card import write_card

UNET = recipes.UNET | {"block_options": {"threshold": 0.35}}
FILTERED = {**UNET, "block": "none", "block_options": {}, "filter": "median", "filter_options": {"size": 7}}
PAPER = recipes.PAPER | {"block_options": {"scale": 1.0, "fraction": 0.25}}


def make_facts(*, with_prediction=True, **changes):
    """Facts of a training, with figures of two images as the package computes them."""
    metrics = StandardMetrics(None)
    for stem, side in (("first", 3), ("second", 6)):
        truth, prediction = np.zeros((2, 8, 8), np.uint8)
        truth[:side, :side] = with_prediction
        prediction[:side, 1:side] = with_prediction
        metrics.update(stem, prediction, truth)
    found = metrics.compute()
    return {
        "arm": "smooth",
        "data": "Harbour 2",
        "images": {"train": 31, "val": 7, "test": 2},
        "protocol": "standard",
        "replicate": {"fold": None, "folds": None, "seed": 5, "split_seed": 11},
        "metrics": {"test": {name: found[name] for name in ("pooled", "per_image")}},
        **changes,
    }


def read_rows(card):
    """Return the card's tables, from the first cell of a row to the others."""
    rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in card.splitlines() if line.startswith("| ")]
    return {first: rest[0] if len(rest) == 1 else rest for first, *rest in rows}


def parse(card):
    """Return the card as the hub's client understands it; it refuses what it does not."""
    return ModelCard(card, ignore_metadata_errors=False).data


@pytest.fixture
def card():
    return write_card("harbour", UNET, Preprocessing(), make_facts())


def test_metadata_is_what_the_hub_reads(card):
    data = parse(card)
    assert data.library_name == "smooth-attention"
    assert data.pipeline_tag == "image-segmentation"
    assert {"image-segmentation", "smooth-attention"} <= set(data.tags)
    assert data.model_name == "harbour"


def test_metadata_holds_the_figures_with_their_convention(card):
    results = parse(card).eval_results
    figures = make_facts()["metrics"]["test"]["pooled"]
    assert {each.metric_type: each.metric_value for each in results} == {
        name: round(figures[name], 4) for name in METRIC_TITLES
    }
    assert {each.dataset_name for each in results} == {"Harbour 2"}
    assert {each.dataset_split for each in results} == {"test"}
    assert all(each.metric_name.endswith(", pooled over the test images at native size") for each in results)


@pytest.mark.parametrize("undefined", [None, float("nan"), float("inf")], ids=str)
def test_undefined_figure_is_called_so_and_is_no_result(undefined):
    facts = make_facts()
    facts["metrics"]["test"]["pooled"]["precision"] = undefined
    facts["metrics"]["test"]["per_image"]["recall"] = undefined
    card = write_card("harbour", UNET, Preprocessing(), facts)
    rows = read_rows(card)
    assert rows["precision"] == ["undefined", "1.0000"]
    assert rows["recall"][1] == "undefined"
    assert {each.metric_type for each in parse(card).eval_results} == METRIC_TITLES.keys() - {"precision"}


def test_figures_of_images_without_foreground_are_undefined():
    card = write_card("harbour", UNET, Preprocessing(), make_facts(with_prediction=False))
    assert "undefined" in read_rows(card)["precision"]
    parse(card)


@pytest.mark.parametrize("licence", ["cc-by-4.0", "mit"])
def test_licence_that_is_given_is_stated(licence):
    card = write_card("harbour", UNET, Preprocessing(), make_facts(licence=licence))
    assert parse(card).license == licence
    assert parse(card).license_name is None
    assert read_rows(card)["licence of the weights"] == licence


def test_licence_that_is_not_given_is_not_made_up(card):
    assert (parse(card).license, parse(card).license_name) == ("other", "not-stated")
    assert read_rows(card)["licence of the weights"].startswith("not stated; it depends on the data")


def test_card_tells_arm_data_images_and_replicate(card):
    rows = read_rows(card)
    assert rows["arm"] == "smooth"
    assert rows["data"] == "Harbour 2 (31 train, 7 val, 2 test images)"
    assert rows["protocol"] == "standard"
    assert rows["replicate"] == "seed 5, split_seed 11"
    assert rows["input"].startswith("RGB resized to 224 x 224, scaled to 0-1, minus [0.485, 0.456, 0.406], divided by")


def test_card_tells_the_figures_with_their_convention(card):
    test = make_facts()["metrics"]["test"]
    rows = read_rows(card)
    assert rows["metric"] == ["pooled over images", "mean of images"]
    for name, title in METRIC_TITLES.items():
        assert rows[title] == [f"{test[part][name]:.4f}" for part in ("pooled", "per_image")], name
    assert rows["IoU"][0] != rows["IoU"][1]
    assert "On 2 test images at native size, protocol `standard`" in card
    assert "One training (one seed) is no evidence" in card


@pytest.mark.parametrize(
    ("recipe", "block"),
    [
        (UNET, "smooth, threshold 0.35, at encoder maps [-2]"),
        (PAPER, "smooth, scale 1.0, fraction 0.25, at stride 32"),
        ({**UNET, "block_options": {}}, "plain attention (smooth without threshold), at encoder maps [-2]"),
        ({**UNET, "block": "se", "block_options": {"reduction": 8}}, "se, reduction 8, at encoder maps [-2]"),
        (FILTERED, "median, size 7, on the mask"),
        (
            {**FILTERED, **{name: UNET[name] for name in ("block", "block_options")}},
            "smooth, threshold 0.35, at encoder maps [-2]; median, size 7, on the mask",
        ),
        ({**UNET, "block": "none", "block_options": {}}, "none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_card_tells_the_block_with_its_options_and_place(recipe, block):
    assert read_rows(write_card("harbour", recipe, Preprocessing(), {}))["block"] == block


def test_card_tells_inserted_blocks(tmp_path):
    net = insert(PaperUNet(None, block="none", threshold=None), {"encoder.6": 256}, block_options={"threshold": 0.2})
    net.save_pretrained(tmp_path / "net")
    rows = read_rows((tmp_path / "net" / "README.md").read_text())
    assert rows["block"] == "smooth, threshold 0.2, after encoder.6"


@pytest.mark.parametrize(
    ("recipe", "network"),
    [
        (PAPER, "PaperUNet: ResNet-18 encoder-decoder without skip connections"),
        (UNET, "unet of segmentation_models.pytorch, encoder resnet18"),
        (
            {**UNET, "smp_options": {"output_stride": 16}},
            "unet of segmentation_models.pytorch, encoder resnet18, output_stride 16",
        ),
    ],
    ids=["paper", "unet", "options"],
)
def test_card_tells_the_network(recipe, network):
    assert read_rows(write_card("harbour", recipe, Preprocessing(), {}))["network"] == network


@pytest.mark.parametrize(
    ("classes", "names", "words"),
    [
        (1, None, "into foreground and background."),
        (3, ("sky", "sea", "ship"), "into 3 classes: sky, sea, ship."),
        (4, None, "into 4 classes."),
    ],
    ids=["binary", "named", "unnamed"],
)
def test_card_names_the_classes(classes, names, words):
    card = write_card("harbour", {**UNET, "classes": classes}, Preprocessing(class_names=names), {})
    assert f"\n\nSegments images {words} Made with smooth-attention" in card


def test_card_of_an_untrained_network_has_no_figures():
    card = write_card("harbour", UNET, Preprocessing(), {})
    rows = read_rows(card)
    assert "## Metrics\n\nNone: this network was not scored by the package.\n" in card
    assert (rows["arm"], rows["data"]) == ("not trained as an arm", "not stated")
    assert "IoU" not in card
    assert parse(card).eval_results is None


@pytest.mark.parametrize("name", ["harbour", "owner/harbour", "owner/net_1.2-b", 'a "quoted" \\ name', "hafen-größe"])
def test_card_shows_code_that_loads_the_model_by_its_name(name):
    card = write_card(name, UNET, Preprocessing(), {})
    (code,) = re.findall(r"```python\n(.*?)\n```", card, flags=re.DOTALL)
    tree = ast.parse(code)
    calls = {node.func.attr: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert ast.literal_eval(calls["load_model"].args[0]) == name
    assert "predict" in calls
    assert len(code.splitlines()) <= 5
    assert f"\n# {name}\n" in card
    assert parse(card).model_name == name


def test_bars_in_a_name_leave_the_table_whole():
    card = write_card("harbour", UNET, Preprocessing(), make_facts(data="day|night"))
    assert read_rows(card)["data"].startswith(r"day\|night (31 train")
    assert parse(card).eval_results[0].dataset_name == "day|night"


@pytest.mark.parametrize(
    ("directory", "name"), [("harbour", "harbour"), ("harbour/model", "harbour"), ("a/harbour", "harbour")]
)
def test_saved_card_names_what_load_model_takes(tmp_path, directory, name):
    create_model(encoder_weights=None).save_pretrained(tmp_path / directory)
    assert f'sa.load_model("{name}")' in (tmp_path / directory / "README.md").read_text()


def test_saved_card_states_the_licence_and_keeps_it(tmp_path):
    net = PaperUNet(None)
    net.save_pretrained(tmp_path / "net", licence="cc-by-4.0")
    net.save_pretrained(tmp_path / "net")
    assert ModelCard.load(tmp_path / "net" / "README.md").data.license == "cc-by-4.0"


def test_card_of_a_run_agrees_with_its_record(finished_run):
    output, record = finished_run
    card = (output / "model" / "README.md").read_text()
    rows, found = read_rows(card), record.metrics.test.pooled.written()
    assert rows["arm"] == "always"
    assert rows["data"].startswith(f"{record.data.name} (")
    assert {title: rows[title][0] for title in METRIC_TITLES.values()} == {
        title: "undefined" if found[name] is None else f"{found[name]:.4f}" for name, title in METRIC_TITLES.items()
    }
    assert f'sa.load_model("{output.name}")' in card
    assert {each.dataset_name for each in parse(card).eval_results} == {record.data.name}
