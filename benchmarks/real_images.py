"""Train on real images by the commands of docs/results.md and print its table from the records.

``python benchmarks/real_images.py DATA_ROOT --output DIR``: a finished run is not trained again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from smooth_attention.core.records import Record, read_record

RUNS = {
    "flood": ("flood", "--network paper --threshold 0.4 --epochs 20"),
    "polyps": ("polyps", "--network paper --threshold 0.4 --epochs 20"),
    "flood-unet": ("flood", "--epochs 20"),
    "fish": ("fish", "--network paper --threshold 0.4 --epochs 20"),
    "fire": ("fire", "--network paper --threshold 0.4 --epochs 20"),
    "animals": ("animals", "--network paper --threshold 0.4 --epochs 20"),
    "camvid": ("camvid", "--network paper --threshold 0.4 --epochs 20"),
}
HEADER = (
    "| data | options | test images | IoU | Dice | boundary IoU | IoU per image | gamma | gate off changes | minutes |"
)


def row(name: str, options: str, record: Record) -> str:
    test = record.metrics.test
    chosen = record.epoch.chosen
    minutes = (record.seconds.train + record.seconds.evaluate) / 60
    figures = [
        str(len(test.images)),
        f"{test.pooled.iou:.3f}",
        f"{test.pooled.dice:.3f}",
        f"{test.pooled.boundary_iou:.3f}",
        f"{test.per_image.iou:.3f}",
        f"{record.diagnostics.gamma[chosen]:.4f}",
        f"{100 * test.gate_off.changed_pixels:.3f} %",
        f"{minutes:.1f}",
    ]
    return " | ".join(["", name, f"`{options}`", *figures, ""]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS))
    options = parser.parse_args()
    for name in options.only:
        data, words = RUNS[name]
        command = ["train", str(options.root / data), *words.split(), "--encoder-weights", "none"]
        subprocess.run(
            [sys.executable, "-m", "smooth_attention", *command, "--output", str(options.output / name)], check=True
        )
    print(HEADER + "\n" + "|".join(["", *["---"] * (HEADER.count("|") - 1), ""]))
    for name in options.only:
        print(row(RUNS[name][0], RUNS[name][1], read_record(options.output / name)))


if __name__ == "__main__":
    main()
