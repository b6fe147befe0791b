import pytest
import torch

from smooth_attention.core.errors import BackendError
from smooth_attention.ops import dispatch, smooth_attention, smoothing_gate
from smooth_attention.ops.dispatch import Backend, choose_backend

QUERY, KEY = torch.zeros(4, 2), torch.zeros(3, 2)


def fail(*args, **kwargs):
    raise AssertionError("this backend must not run")


def backend_of(name, reason=None, run=fail):
    return Backend(name, run, lambda *args, **kwargs: reason)


def test_auto_takes_the_first_that_can_run(monkeypatch):
    backends = (backend_of("a", "no"), backend_of("b"), backend_of("c"))
    monkeypatch.setattr(dispatch, "BACKENDS", backends)
    assert choose_backend("auto", QUERY, KEY) is backends[1]
    assert choose_backend("c", QUERY, KEY) is backends[2]


def test_named_backend_never_falls_back(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKENDS", (backend_of("a", "needs a GPU"), backend_of("b")))
    with pytest.raises(BackendError, match=r"no backend 'a' for this call \(a: needs a GPU\)"):
        choose_backend("a", QUERY, KEY)


def test_auto_lists_every_reason(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKENDS", (backend_of("a", "needs a GPU"), backend_of("b", "needs one axis")))
    with pytest.raises(BackendError, match=r"no backend 'auto' .*\(a: needs a GPU; b: needs one axis\)"):
        choose_backend("auto", QUERY, KEY)


@pytest.mark.parametrize("threshold", [None, -1.0, 0.4, 2.0], ids=str)
def test_unknown_backend_is_refused_at_every_threshold(threshold):
    for call in (
        lambda **options: smooth_attention(QUERY, KEY, KEY, **options),
        lambda **options: smoothing_gate(QUERY, KEY, **options),
    ):
        with pytest.raises(BackendError, match=r"no backend 'fast' for this call \(known: auto, dense\)"):
            call(grid=(4,), threshold=threshold, backend="fast")


@pytest.mark.parametrize(
    ("rule", "share"),
    [
        ({}, 0.0),
        ({"threshold": 1.0}, 0.0),
        ({"threshold": 2.0}, 0.0),
        ({"threshold": -0.01}, 1.0),
        ({"threshold": -float("inf")}, 1.0),
        ({"fraction": 0.01}, 0.0),
    ],
    ids=str,
)
def test_rules_that_decide_alone_run_no_backend(rule, share, monkeypatch, draw):
    monkeypatch.setattr(dispatch, "BACKENDS", (backend_of("never"),))
    query, key, value = draw((4, 4))
    assert smoothing_gate(query, key, grid=(4, 4), **rule).float().mean() == share
    smooth_attention(query, key, value, grid=(4, 4), **rule)


def test_other_rules_run_the_backend(monkeypatch, draw):
    monkeypatch.setattr(dispatch, "BACKENDS", (backend_of("never"),))
    with pytest.raises(AssertionError, match="must not run"):
        smoothing_gate(*draw((4, 4))[:2], grid=(4, 4), threshold=0.4)
