"""Inputs to try the operator on."""

import jaxtyping
import pytest
import torch

from smooth_attention.ops.dispatch import BACKENDS

RULES = ({"threshold": 0.3, "fraction": None}, {"threshold": None, "fraction": 0.25})
POINT = torch.zeros(1, 1, 1)


def runs_here(backend):
    """Whether a backend takes every rule on the CPU; the others have tests of their own."""
    return all(backend.why_not(POINT, POINT, grid=(1,), scale=1.0, **rule) is None for rule in RULES)


@pytest.fixture(params=[backend.name for backend in BACKENDS if runs_here(backend)])
def backend(request):
    """The name of each backend that takes every rule on the CPU."""
    return request.param


@pytest.fixture
def draw():
    """A function that draws query, key and value, the same for the same arguments."""

    def draw_inputs(grid, dtype=torch.float64, *, batch=(2,), num_keys=11, widths=(8, 6), spread=1.5, seed=0):
        generator = torch.Generator().manual_seed(seed)
        num_positions = torch.Size(grid).numel()
        shapes = [(num_positions, widths[0]), (num_keys, widths[0]), (num_keys, widths[1])]
        drawn = [torch.randn(*batch, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
        query, key, value = (x.to(dtype) for x in (spread * drawn[0], drawn[1], drawn[2]))
        return [x.requires_grad_() for x in (query, key, value)]

    return draw_inputs


@pytest.fixture
def untyped(monkeypatch):
    """Lets bad arguments past the type checks, so that the package's own checks answer, as they do for users."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
