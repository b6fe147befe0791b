"""The picture of docs/operator.md: roughness and gate of a generated map, and which logits its gate needs.

``python docs/figures/draw_operator.py`` writes ``docs/images/operator.png``. The map is drawn from a seed. Key tiles
are smaller than the operator's own, which would be two on a map of this size.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import ndimage
from torch import Tensor

from smooth_attention.ops import roughness, smoothing_gate

IMAGE = Path(__file__).parents[1] / "images" / "operator.png"
SIDE, WIDTH, THRESHOLD = 24, 16, 0.4
GRID = (SIDE, SIDE)
KEY_TILE = 2 * SIDE
# Okabe and Ito's colours; the two that rule out differ in lightness as well.
BY_ROW, BY_TILE, SCANNED, ENTRY = "#d9d9d9", "#56b4e9", "#f0e442", "#000000"
SMOOTHED, KEPT = "#d55e00", "#e8e8e8"


class Screen(NamedTuple):
    """Which pairs of query row and key tile the two bounds leave, and the entries above the threshold."""

    is_row_out: np.ndarray  # (N,)
    is_tile_out: np.ndarray  # (N, tiles)
    entries: np.ndarray  # (entries, 2): query row, key


def draw_map() -> tuple[Tensor, Tensor]:
    """Return query and key (N, E) in float64: regions with detail, and queries that grow longer in places."""
    generator = np.random.default_rng(0)
    regions, detail = (_draw_noise(generator, (sigma, sigma, 0), WIDTH) for sigma in (3, 0.7))
    features = (1.5 * regions + detail) / math.hypot(1.5, 1)
    length = 0.2 + 2 / (1 + np.exp(-3 * _draw_noise(generator, (3, 8, 0), 1)))
    key = torch.from_numpy(features.reshape(-1, WIDTH))
    return torch.from_numpy(length.reshape(-1, 1)) * key, key


def _draw_noise(generator: np.random.Generator, sigma: tuple[float, ...], width: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(generator.normal(size=(*GRID, width)), sigma=sigma)
    return noise / noise.std()


def screen(query: Tensor, key: Tensor) -> Screen:
    """Return what the bounds by norm and log-sum-exp and by centre and radius of a tile rule out."""
    scaled = query * WIDTH**-0.5
    logits = scaled @ key.mT
    lse = logits.logsumexp(-1, keepdim=True)
    floor = lse + math.log(THRESHOLD)
    reach = scaled.norm(dim=-1, keepdim=True)
    tiles = key.unflatten(0, (-1, KEY_TILE))
    centre = tiles.mean(1)
    radius = (tiles - centre[:, None]).norm(dim=-1).amax(-1)
    is_row_out = (reach * key.norm(dim=-1).amax() <= floor)[:, 0]
    is_tile_out = scaled @ centre.mT + reach * radius <= floor
    entries = ((logits - lse).exp() > THRESHOLD).nonzero()
    rows, keys = entries.unbind(-1)
    assert not (is_row_out[rows] | is_tile_out[rows, keys // KEY_TILE]).any(), "a bound ruled out an entry above t"
    return Screen(is_row_out.numpy(), is_tile_out.numpy(), entries.numpy())


def draw_figure(query: Tensor, key: Tensor, screened: Screen) -> Figure:
    rough = roughness(query, key, grid=GRID)
    gate = smoothing_gate(query, key, grid=GRID, threshold=THRESHOLD, backend="tiled")
    assert torch.equal(gate, rough > THRESHOLD)
    figure = Figure(figsize=(12, 7.4), dpi=100, layout="constrained")
    axes = figure.subplot_mosaic([["roughness", "pairs"], ["gate", "pairs"]], width_ratios=[1, 2.15])
    _draw_cells(axes["roughness"], rough.reshape(GRID), "cividis", "a  Roughness $r$")
    figure.colorbar(
        axes["roughness"].images[0], ax=[axes["roughness"], axes["gate"]], shrink=0.5, ticks=[0, 0.2, 0.4, 0.6, 0.8, 1]
    )
    share = gate.double().mean().item()
    colours = ListedColormap([KEPT, SMOOTHED])
    _draw_cells(axes["gate"], gate.reshape(GRID), colours, f"b  Gate at $t = {THRESHOLD}$: {share:.0%} smoothed")
    _draw_pairs(axes["pairs"], screened)
    shares = _shares(screened)
    legend = [
        Patch(color=SMOOTHED, label="b: smoothed"),
        Patch(color=KEPT, label="b: kept"),
        Patch(color=BY_ROW, label=f"c: ruled out by the row bound ({shares[0]:.0%})"),
        Patch(color=BY_TILE, label=f"c: ruled out by the tile bound ({shares[1]:.0%})"),
        Patch(color=SCANNED, label=f"c: logits computed ({shares[2]:.0%})"),
        Line2D([], [], color=ENTRY, marker="o", markersize=4, linestyle="", label=_count(screened)),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_cells(axes: Axes, cells: Tensor, colours: str | ListedColormap, title: str) -> None:
    axes.imshow(cells, cmap=colours, vmin=0, vmax=1)
    axes.set(title=title, xlabel="column (positions)", ylabel="row (positions)")
    axes.set_xticks(range(0, SIDE, 5))
    axes.set_yticks(range(0, SIDE, 5))


def _count(screened: Screen) -> str:
    return f"c: entry above $t$ ({len(screened.entries)} of {SIDE**4:,})"


def _code(screened: Screen) -> np.ndarray:
    """Return 0 where the row bound, 1 where only the tile bound rules a pair out, 2 where neither does: (N, tiles)."""
    return np.where(screened.is_row_out[:, None], 0, np.where(screened.is_tile_out, 1, 2))


def _shares(screened: Screen) -> np.ndarray:
    code = _code(screened)
    return np.bincount(code.ravel(), minlength=3) / code.size


def _draw_pairs(axes: Axes, screened: Screen) -> None:
    num = SIDE**2
    colours = ListedColormap([BY_ROW, BY_TILE, SCANNED])
    edges = (0, num, num, 0)
    axes.imshow(_code(screened), cmap=colours, vmin=0, vmax=2, extent=edges, aspect="auto", interpolation="nearest")
    axes.vlines(np.arange(KEY_TILE, num, KEY_TILE), 0, num, color="white", linewidth=1)
    rows, keys = screened.entries.T + 0.5
    axes.scatter(keys, rows, s=10, color=ENTRY, linewidths=0)
    axes.set(title=f"c  Which logits the gate in b needs, by tiles of {KEY_TILE} keys")
    axes.set(xlabel="key (flat position)", ylabel="query row (flat position)")
    axes.set_xticks(range(0, num + 1, 2 * KEY_TILE))
    axes.set_yticks(range(0, num + 1, 2 * KEY_TILE))


if __name__ == "__main__":
    tensors = draw_map()
    draw_figure(*tensors, screen(*tensors)).savefig(IMAGE)
