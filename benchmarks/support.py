"""Which networks work with the block: every architecture with every tested encoder, through the common checks.

Run by ``make support``; writes ``docs/support.md``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import shorten

import torch

from network_checks import CHECKS
from smooth_attention.core.errors import OptionError
from smooth_attention.core.networks import ARCHITECTURES
from smooth_attention.core.provenance import versions
from smooth_attention.models import Network, PaperUNet, create_model

ENCODERS = ("resnet18", "mobilenet_v2", "mit_b0", "tu-convnext_atto")
OPTIONS = {"threshold": 0.05, "gamma_init": 0.5}
HEAD = """# Supported networks

`create_model(NETWORK, encoder_name=ENCODER, ...)` with the block `smooth` (threshold 0.05, gamma 0.5) at its default
place, through the common checks of `tests/network_checks.py`; images of 128 x 160 px, random weights, CPU. Made by
`make support`{made}.

- *forward*: finite logits at image size, the same each time. *block*: changes the logits, and with gamma 0 nothing.
- *backward*: a finite gradient everywhere but in encoder layers behind the last map that the decoder gets.
- *odd sizes*: 100 x 130 and 1 x 7 px. *save and load*: bit for bit.
- *compile*: one graph (`fullgraph=True`, aot_eager). *export*: `torch.export`. *onnx*: in onnxruntime; all three with
  the logits of eager mode.

"""


def list_networks() -> Iterator[tuple[str, str, str, Callable[[], Network]]]:
    """Give network, encoder, options and a function that builds it."""
    yield "paper", "ResNet-18", "", lambda: PaperUNet(None, threshold=None, block_options=OPTIONS)
    for arch in ARCHITECTURES:
        for encoder in ("tu-vit_tiny_patch16_224",) if arch == "dpt" else ENCODERS:
            yield arch, encoder, "", build(arch, encoder)
        for stride in (16, 8) if arch != "dpt" else ():
            yield arch, "resnet18", f"output_stride={stride}", build(arch, "resnet18", output_stride=stride)
    yield "unet", "resnet18", "stages=(3, 4, 5), classes=3", build("unet", "resnet18", stages=(3, 4, 5), classes=3)


def build(arch: str, encoder: str, **options: object) -> Callable[[], Network]:
    return lambda: create_model(
        arch, encoder_name=encoder, encoder_weights=None, block_options=OPTIONS, **options  # type: ignore[arg-type]
    )  # fmt: skip


def check_all(make: Callable[[], Network]) -> tuple[list[str], list[str]]:
    """Return the cells of a row, and one sentence for each check that failed."""
    torch.manual_seed(0)
    try:
        net = make()
    except OptionError as error:
        return ["-"] * (3 + len(CHECKS)), [shorten(str(error), 200, placeholder=" ...")]
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    cells = [f"{millions:.1f} M", str(net.recipe.get("stages", "stride 32")), str(net.stride)]
    failures = []
    for name, check in CHECKS.items():
        try:
            check(net)
        except Exception as error:  # noqa: BLE001 - the table says what failed
            failures.append(f"{name}: {type(error).__name__} {shorten(str(error), 200, placeholder=' ...')}")
            cells.append("**no**")
        else:
            cells.append("yes")
    return cells, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/support.md"))
    output = parser.parse_args().output
    started = time.monotonic()
    rows, notes = [], []
    for arch, encoder, options, make in list_networks():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cells, failures = check_all(make)
        name = ", ".join(part for part in (arch, encoder, options) if part)
        print(name, *cells, *failures, flush=True)
        rows.append(f"| {arch} | {encoder} | {options} | {' | '.join(cells)} |")
        notes += [f"- {name}: {failure}" for failure in failures]
    heads = ["network", "encoder", "options", "parameters", "block at maps", "stride", *CHECKS]
    found = versions()
    made = ", with " + ", ".join(f"{name} {found[name]}" for name in ("torch", "segmentation-models-pytorch", "timm"))
    made += f", in {(time.monotonic() - started) / 60:.0f} minutes"
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *rows]
    text = HEAD.format(made=made) + "\n".join(lines) + "\n\nWhat can't be built or failed, with the message:\n\n"
    output.write_text(text + "\n".join(notes) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
