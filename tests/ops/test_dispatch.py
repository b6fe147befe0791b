import re
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from smooth_attention.core.errors import BackendError
from smooth_attention.ops import dispatch, explain_backend, smooth_attention, smoothing_gate
from smooth_attention.ops.dispatch import BACKENDS, Backend, choose_backend

DOCS = Path(__file__).parents[2] / "docs/operator.md"
NAMES = [backend.name for backend in BACKENDS]
QUERY, KEY = torch.zeros(4, 2), torch.zeros(3, 2)


def fail(*args, **kwargs):
    raise AssertionError("this backend must not run")


def backend_of(name, reason=None, later=None, run=fail):
    return Backend(name, run, lambda *args, **kwargs: reason, lambda *args, **kwargs: later)


def test_docs_show_every_backend_in_the_order_in_which_auto_looks():
    _, table = DOCS.read_text(encoding="utf-8").split("| backend | can run | auto takes it |\n")
    assert re.findall(r"^\| `(\w+)`", table.partition("\n\n")[0], re.MULTILINE) == NAMES


def test_auto_takes_the_first_that_can_run_and_is_worth_it(monkeypatch):
    backends = (backend_of("a", "no"), backend_of("b", later="large"), backend_of("c"), backend_of("d"))
    monkeypatch.setattr(dispatch, "BACKENDS", backends)
    choice = choose_backend("auto", QUERY, KEY)
    assert choice.backend is backends[2]
    assert str(choice) == "c (a: no; b: large)"
    assert str(choose_backend("b", QUERY, KEY)) == "b"
    assert str(choose_backend("d", QUERY, KEY)) == "d"


def test_auto_takes_what_can_run_where_nothing_is_worth_it(monkeypatch):
    backends = (backend_of("a", "no"), backend_of("b", later="large"), backend_of("c", "captured"))
    monkeypatch.setattr(dispatch, "BACKENDS", backends)
    choice = choose_backend("auto", QUERY, KEY)
    assert choice.backend is backends[1]
    assert choice.passed_over == {"a": "no", "c": "captured"}


def test_named_backend_never_falls_back(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKENDS", (backend_of("a", "needs a GPU"), backend_of("b")))
    with pytest.raises(BackendError, match=r"backend 'a' can't run this call \(a: needs a GPU\)"):
        choose_backend("a", QUERY, KEY)


def test_auto_lists_every_reason(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKENDS", (backend_of("a", "needs a GPU"), backend_of("b", "needs one axis")))
    with pytest.raises(BackendError, match=r"'auto' can't run .*\(a: needs a GPU; b: needs one axis\)"):
        choose_backend("auto", QUERY, KEY)


@pytest.mark.parametrize("threshold", [None, -1.0, 0.4, 2.0], ids=str)
def test_unknown_backend_is_refused_at_every_threshold(threshold):
    for call in (
        lambda **options: smooth_attention(QUERY, KEY, KEY, **options),
        lambda **options: smoothing_gate(QUERY, KEY, **options),
    ):
        with pytest.raises(BackendError, match=rf"no backend 'fast' \(known: auto, {', '.join(NAMES)}\)"):
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


def test_size_decides_between_dense_and_tiled():
    small, large = torch.randn(2, 1, 49, 8), torch.randn(2, 4, 900, 8)
    assert explain_backend(*small, grid=(7, 7), threshold=0.4).startswith("dense")
    why = explain_backend(*large, grid=(30, 30), threshold=0.4)
    assert why.startswith("tiled (")
    assert "dense: 3,240,000 entries" in why
    assert explain_backend(*large, grid=(30, 30), threshold=0.4, backend="dense") == "dense"
    assert explain_backend(*large, grid=(30, 30), threshold=2.0) == "none: this rule needs no logits"


def test_meta_and_fake_tensors_reach_no_backend(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKENDS", (backend_of("never"),))
    with FakeTensorMode():
        query, key, value = (torch.empty(2, n, 8) for n in (12, 5, 5))
        assert smooth_attention(query, key, value, grid=(3, 4), threshold=0.3).shape == (2, 12, 8)
