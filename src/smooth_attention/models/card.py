"""The model card: what a saved network is, what it was trained on, what its metrics mean, how to use it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from smooth_attention.core.files import plain
from smooth_attention.core.parts import read_part
from smooth_attention.core.records import METRIC_TITLES, CardFacts
from smooth_attention.models.preprocessing import Preprocessing

__all__ = ["write_card"]

NOT_STATED = "not stated; it depends on the data the weights were trained on (the code is Apache-2.0)"


def write_card(name: str, recipe: Mapping[str, Any], preprocessing: Preprocessing, facts: Mapping[str, Any]) -> str:
    """Return a model card in Markdown with the hub's metadata.

    Args:
        name: of the model.
        recipe: what builds the network, see :class:`Network`.
        preprocessing: of its input.
        facts: of its training, see :class:`CardFacts`; empty where it was not trained by this package.
    """
    known = read_part(CardFacts, plain(facts))
    lines = [
        f"---\n{metadata(name, known)}---",
        f"# {name}",
        f"Segments images into {describe_classes(recipe, preprocessing)}. "
        "Made with smooth-attention: spatially smooth attention for image segmentation.",
        table({"": "", **describe_model(recipe, preprocessing, known)}),
        "## Metrics",
        describe_metrics(known),
        "## Use",
        "```python\nimport smooth_attention as sa\nfrom PIL import Image\n"
        f"net = sa.load_model({json.dumps(name, ensure_ascii=False)})  # a directory or a name on the hub; no pickle\n"
        'mask = sa.predict(net, "photo.jpg")  # uint8 (H, W) at the photo\'s size\n'
        'Image.fromarray(mask).save("mask.png")  # a label a pixel\n```',
    ]
    return "\n\n".join(lines) + "\n"


def metadata(name: str, facts: CardFacts) -> str:
    """Return the YAML that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=str(facts.data),
            dataset_name=str(facts.data),
            dataset_split="test",
            metric_type=metric,
            metric_value=round(value, 4),
            metric_name=f"{title}, pooled over the test images at native size",
        )
        for metric, title in METRIC_TITLES.items()
        if is_defined(value := getattr(facts.metrics.test.pooled, metric))
    ]
    licence: dict[str, Any] = (
        {"license": facts.licence} if facts.licence else {"license": "other", "license_name": "not-stated"}
    )
    return (
        ModelCardData(
            library_name="smooth-attention",
            pipeline_tag="image-segmentation",
            tags=["image-segmentation", "smooth-attention"],
            model_name=name,
            eval_results=results or None,
            **licence,
        ).to_yaml()
        + "\n"
    )


def describe_model(recipe: Mapping[str, Any], preprocessing: Preprocessing, facts: CardFacts) -> dict[str, str]:
    size = preprocessing.image_size
    mean, std = ([round(value, 3) for value in values] for values in (preprocessing.mean, preprocessing.std))
    rows = {
        "network": describe_network(recipe),
        "arm": facts.arm or "not trained as an arm",
        "block": describe_block(recipe),
        "input": f"RGB resized to {size} x {size}, scaled to 0-1, minus {mean}, divided by {std}",
        "data": "not stated",
    }
    if facts.data is not None:
        images = ", ".join(f"{count} {part}" for part, count in (facts.images or {}).items())
        replicate = facts.replicate.written().items()
        rows |= {
            "data": f"{facts.data} ({images} images)",
            "protocol": str(facts.protocol),
            "replicate": ", ".join(f"{key} {value}" for key, value in replicate if value is not None),
        }
    return rows | {"licence of the weights": facts.licence or NOT_STATED}


def describe_network(recipe: Mapping[str, Any]) -> str:
    if recipe["kind"] == "paper":
        return "PaperUNet: ResNet-18 encoder-decoder without skip connections"
    options = "".join(f", {name} {value}" for name, value in recipe["smp_options"].items())
    return f"{recipe['arch']} of segmentation_models.pytorch, encoder {recipe['encoder_name']}{options}"


def describe_block(recipe: Mapping[str, Any]) -> str:
    """Return the network's block, its filter and the blocks that ``insert`` put into it, with options and places."""
    place = f"at encoder maps {list(recipe['stages'])}" if "stages" in recipe else "at stride 32"
    blocks = [(recipe["block"], recipe["block_options"], place)]
    if "filter" in recipe:
        blocks.append((recipe["filter"], recipe["filter_options"], "on the mask"))
    blocks += [(each["block"], each["block_options"], f"after {each['module']}") for each in recipe.get("inserted", [])]
    shown = [
        ", ".join([name_block(block, options), *(f"{key} {value}" for key, value in options.items()), where])
        for block, options, where in blocks
        if block != "none"
    ]
    return "; ".join(shown) or "none"


def name_block(block: str, options: Mapping[str, Any]) -> str:
    is_plain = block == "smooth" and options.get("threshold") is None and options.get("fraction") is None
    return "plain attention (smooth without threshold)" if is_plain else block


def describe_classes(recipe: Mapping[str, Any], preprocessing: Preprocessing) -> str:
    if preprocessing.class_names:
        return f"{len(preprocessing.class_names)} classes: {', '.join(preprocessing.class_names)}"
    return "foreground and background" if recipe["classes"] == 1 else f"{recipe['classes']} classes"


def describe_metrics(facts: CardFacts) -> str:
    """Return the metrics of the test images with their convention, or that there are none."""
    test = facts.metrics.test
    scored = test.pooled.written()
    if not scored:
        return "None: this network was not scored by the package."
    rows = [
        f"| {title} | {show(getattr(test.pooled, name))} | {show(getattr(test.per_image, name))} |"
        for name, title in METRIC_TITLES.items()
        if name in scored
    ]
    return "\n".join(
        [
            f"On {test.per_image.num_images} test images at native size, protocol `standard`, of the foreground or "
            "the mean over the classes; a mean of images leaves out those where the metric is undefined. "
            "One training (one seed) is no evidence that one arm is better than another.",
            "",
            "| metric | pooled over images | mean of images |",
            "|---|---|---|",
            *rows,
        ]
    )


def show(value: float | None) -> str:
    return f"{value:.4f}" if is_defined(value) else "undefined"


def is_defined(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def table(rows: Mapping[str, str]) -> str:
    (left, right), *rest = ((key, value.replace("|", "\\|")) for key, value in rows.items())
    return "\n".join([f"| {left} | {right} |", "|---|---|", *(f"| {key} | {value} |" for key, value in rest)])
