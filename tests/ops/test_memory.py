"""Memory, by the allocator's account of every byte: nothing grows with the square of the number of positions."""

import pytest
import torch
import torch.nn.functional as F

from measure import MIB, peak_extra_bytes
from smooth_attention.ops import attention_rows, roughness, smooth_attention, smoothing_gate

SIDE = 48
N = SIDE**2
MATRIX = 4 * N * N  # bytes of one N x N matrix in float32


def draw(*lead, widths=(16, 16, 16), spread=4.0):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(*lead, N, w, generator=generator) for w in widths)
    return [x.requires_grad_() for x in (spread * query, key, value)]


def arrange_5d():
    return draw(1, 1, 1)


def arrange_broadcast():
    query, key, value = draw(1, 1)
    return [query, key[0], value[0, 0]]


def arrange_wide_value():
    return draw(1, 1, widths=(8, 8, 24))


def arrange_narrow_value():
    return draw(1, 1, widths=(24, 24, 8))


def arrange_strided():
    return [x.detach().mT.contiguous().mT.requires_grad_() for x in draw(1, 1)]


def arrange_two_axes():
    return draw()


ARRANGEMENTS = [
    arrange_5d,
    arrange_broadcast,
    arrange_wide_value,
    arrange_narrow_value,
    arrange_strided,
    arrange_two_axes,
]


def test_account_sees_the_matrix():
    query, key, value = draw(1, 1, 1)
    assert peak_extra_bytes(lambda: F.scaled_dot_product_attention(query, key, value)) > MATRIX
    assert peak_extra_bytes(lambda: torch.empty(MIB)) == 4 * MIB


@pytest.mark.parametrize("arrange", ARRANGEMENTS, ids=lambda a: a.__name__.removeprefix("arrange_"))
@pytest.mark.parametrize("rule", [{}, {"threshold": 0.4}, {"fraction": 0.25}], ids=str)
def test_no_matrix_in_forward_and_backward(arrange, rule):
    inputs = arrange()
    plain = peak_extra_bytes(lambda: F.scaled_dot_product_attention(*inputs).sum().backward())
    ours = peak_extra_bytes(
        lambda: (
            smooth_attention(*inputs, grid=(SIDE, SIDE), backend="tiled" if rule else "auto", **rule).sum().backward()
        )
    )
    assert plain > MATRIX, "torch needs no help with this arrangement any more"
    assert ours < 0.75 * MATRIX


def test_auto_needs_no_matrix_in_any_door():
    query, key, value = draw(1, 1)
    grid = (SIDE, SIDE)
    learned = torch.tensor(0.4, requires_grad=True)
    calls = {
        "smooth_attention": lambda: smooth_attention(query, key, value, grid=grid, threshold=0.4).sum().backward(),
        "soft": lambda: (
            smooth_attention(query, key, value, grid=grid, threshold=learned, temperature=0.1).sum().backward()
        ),
        "smoothing_gate": lambda: smoothing_gate(query, key, grid=grid, fraction=0.25),
        "roughness": lambda: roughness(query, key, grid=grid).sum().backward(),
        "attention_rows": lambda: attention_rows(query, key, torch.tensor([5, N - 1]), grid=grid, threshold=0.4),
    }
    peaks = {name: peak_extra_bytes(call) for name, call in calls.items()}
    assert all(peak < 0.75 * MATRIX for peak in peaks.values()), peaks


@pytest.mark.parametrize("kind", ["diffuse", "peaked"])
def test_memory_grows_with_the_number_of_positions(kind):
    peaks = []
    for side in (64, 128):
        generator = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(1, side**2, 8, generator=generator) for _ in range(3))
        query = key.flip(1) * 6 if kind == "peaked" else 0.3 * query
        peaks.append(
            peak_extra_bytes(
                lambda q=query, k=key, v=value, s=side: smooth_attention(q, k, v, grid=(s, s), threshold=0.4)
            )
        )
    assert peaks[1] <= 4**1.1 * max(peaks[0], 8 * MIB)
    assert peaks[1] < 4 * 128**4 / 16
