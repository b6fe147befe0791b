"""Against an oracle: the paper's wording in plain loops, which shares no line with the package."""

import itertools
import math

import numpy as np
import pytest
import torch

from smooth_attention.ops import attention_rows, neighbour_mean, roughness, smooth_attention, smoothing_gate
from smooth_attention.ops.reference import reference

GRIDS = [(1,), (6,), (1, 1), (1, 5), (5, 1), (4, 4), (3, 5), (1, 1, 1), (2, 3, 3), (3, 1, 2)]
RULES = [
    {"threshold": None},
    {"threshold": -1.0},
    {"threshold": 0.0},
    {"threshold": 0.15},
    {"threshold": 0.5},
    {"threshold": 1.0},
    {"fraction": 0.2},
    {"fraction": 0.75},
]


def softmax_rows(query, key, scale):
    attention = np.zeros((len(query), len(key)))
    for i in range(len(query)):
        logits = [scale * sum(a * b for a, b in zip(query[i], k, strict=True)) for k in key]
        powers = [math.exp(logit - max(logits)) for logit in logits]
        for s, power in enumerate(powers):
            attention[i, s] = power / sum(powers)
    return attention


def neighbours_of(cell, grid):
    """The flat positions of the neighbours; one beyond the border is the border cell nearest to it."""
    found = []
    for step in itertools.product((-1, 0, 1), repeat=len(grid)):
        if all(s == 0 for s in step):
            continue
        coordinates = [min(max(c + s, 0), size - 1) for c, s, size in zip(cell, step, grid, strict=True)]
        found.append(int(np.ravel_multi_index(coordinates, grid)))
    return found


def oracle(query, key, value, *, grid, threshold=None, fraction=None, scale=None):
    """Output, smoothed attention, roughness and gate of one map."""
    scale = 1 / math.sqrt(query.shape[1]) if scale is None else scale
    attention = softmax_rows(query, key, scale)
    cells = list(np.ndindex(*grid))
    rough = [
        max(abs(attention[n, s] - attention[i, s]) for n in neighbours_of(cell, grid) for s in range(len(key)))
        for i, cell in enumerate(cells)
    ]
    if fraction is not None:
        roughest_first = sorted(range(len(cells)), key=lambda i: (-rough[i], i))
        chosen = set(roughest_first[: round(fraction * len(cells))])
        gate = [i in chosen for i in range(len(cells))]
    else:
        gate = [threshold is not None and r > threshold for r in rough]
    smoothed = attention.copy()
    for i, cell in enumerate(cells):
        if gate[i]:
            around = neighbours_of(cell, grid)
            smoothed[i] = sum(attention[n] for n in around) / len(around)
    output = np.zeros((len(cells), value.shape[1]))
    for i in range(len(cells)):
        for s in range(len(key)):
            output[i] += smoothed[i, s] * value[s]
    return output, smoothed, np.array(rough), np.array(gate)


@pytest.mark.parametrize("scale", [None, 1.0, 0.0, -0.5], ids=lambda s: f"scale={s}")
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_doors_and_reference_match_the_oracle(grid, rule, scale, draw):
    inputs = [x.detach() for x in draw(grid, batch=(), num_keys=5, widths=(3, 2))]
    options = {"grid": grid, "scale": scale, **rule}
    output, attention, rough, gate = (torch.from_numpy(x) for x in oracle(*(x.numpy() for x in inputs), **options))

    positions = torch.arange(len(rough))
    expected = {"output": output, "attention": attention, "roughness": rough, "gate": gate}
    doors = {
        "output": smooth_attention(*inputs, **options),
        "attention": attention_rows(*inputs[:2], positions, **options),
        "roughness": roughness(*inputs[:2], grid=grid, scale=scale),
        "gate": smoothing_gate(*inputs[:2], **options),
    }
    specified = reference(*inputs, **options)._asdict()
    for name, want in expected.items():
        for source, got in (("door", doors[name]), ("reference", specified[name])):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12, msg=lambda m, at=(source, name): f"{at}: {m}")


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_neighbour_mean_matches_the_oracle(grid, draw):
    x = draw(grid, batch=())[0].detach()
    want = torch.stack([x[neighbours_of(cell, grid)].mean(dim=0) for cell in np.ndindex(*grid)])
    torch.testing.assert_close(neighbour_mean(x, grid=grid), want, rtol=0, atol=1e-14)
