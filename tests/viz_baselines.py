"""Pictures that figures are compared with; ``SMOOTH_ATTENTION_GOLDEN=--update pytest tests/viz`` makes them anew."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

FOLDER = Path(__file__).parent / "viz" / "baselines"
MAX_MEAN_DIFFERENCE = 2.5  # grey levels: lettering differs a little between builds of FreeType


def compare_with_baseline(figure: Figure | np.ndarray, name: str) -> None:
    """Raise unless a figure, drawn at 50 dpi, or an array looks like its baseline."""
    if isinstance(figure, Figure):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=50)
        figure = np.asarray(Image.open(buffer).convert("RGB"))
    path = FOLDER / f"{name}.png"
    if os.environ.get("SMOOTH_ATTENTION_GOLDEN") == "--update":
        FOLDER.mkdir(exist_ok=True)
        Image.fromarray(figure).save(path, optimize=True)
    with Image.open(path) as image:
        baseline = np.asarray(image.convert("RGB"))
    assert figure.shape == baseline.shape, name
    difference = np.abs(figure.astype(int) - baseline).mean()
    assert difference < MAX_MEAN_DIFFERENCE, f"{name} differs by {difference:.1f} grey levels on average; look at both"
