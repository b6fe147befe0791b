"""Three arms on generated images: no block, plain attention, smooth attention; one table and one picture.

One seed each, so a difference between rows is no evidence; it shows the parts working.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from smooth_attention.cli.tables import print_line, print_table, show
from smooth_attention.core.files import write_bytes
from smooth_attention.data.cache import default_cache
from smooth_attention.data.folder import open_image
from smooth_attention.data.sources import open_source
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.pictures import encode_figure
from smooth_attention.runs.train import train
from smooth_attention.viz.overlays import PredictionRow, prediction_grid

ARMS = ("none", "attention", "smooth")
RULES: dict[str, Any] = {"smooth": {"fraction": 0.25}}
SETTINGS: dict[str, Any] = {"data": "shapes", "encoder_weights": "none", "image_size": 96, "epochs": 10}


def main(output: Path) -> None:
    records = {}
    for arm in ARMS:
        print_line(f"{arm}:")
        records[arm] = train(RunConfig(arm=arm, **RULES.get(arm, {}), **SETTINGS), output / arm, cache=default_cache())
    rows = [table_row(arm, record) for arm, record in records.items()]
    header = ["arm", "IoU", "Dice", "gamma", "smoothed fraction", "% pixels changed by gate off"]
    caption = (
        f"{len(records['none']['metrics']['test']['images'])} test images at native size, IoU and Dice pooled; "
        "smooth: the roughest quarter of the positions; gamma and smoothed fraction: last epoch, on validation images; "
        "one seed: differences between rows prove nothing"
    )
    print_table("shapes", header, rows, caption=caption)
    write_bytes(output / "predictions.png", encode_figure(draw(output, records)))
    print_line(f"picture: {output / 'predictions.png'}")


def table_row(arm: str, record: dict[str, Any]) -> list[str]:
    test, diagnostics = record["metrics"]["test"], record["diagnostics"]
    smoothed = diagnostics.get("smoothed_fraction", {}).get("t", [None])[-1]
    changed = test.get("gate_off", {}).get("changed_pixels")
    return [
        arm,
        show(test["pooled"]["iou"]),
        show(test["pooled"]["dice"]),
        show(diagnostics.get("gamma", [None])[-1], 4),
        show(smoothed),
        show(None if changed is None else 100 * changed),
    ]


def draw(output: Path, records: dict[str, Any]) -> Any:
    import numpy as np

    source = open_source("shapes", size=SETTINGS["image_size"])
    rows = []
    for images in list(zip(*(records[arm]["metrics"]["test"]["images"] for arm in ARMS), strict=True))[:4]:
        stem = images[0]["stem"]
        pair = source.load(stem)
        predictions = {a: (np.asarray(open_image(output / a / "predictions" / f"{stem}.png")) > 0) * 1 for a in ARMS}
        captions = {arm: f"IoU {show(image['iou'], 2)}" for arm, image in zip(ARMS, images, strict=True)}
        rows.append(PredictionRow(pair.image, pair.mask, predictions, captions, stem))
    return prediction_grid(rows, columns=ARMS, title="Generated scenes, first four test images, one seed")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
