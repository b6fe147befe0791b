"""torch.compile, in a process without the shape checks, which can't be traced; operators by torch's own check."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deadlines import LAST_RESORT_S
from smooth_attention.ops import dispatch, log_sum_exp, smooth_attention, strips

SOURCE = Path(__file__).parents[2] / "src"
SCRIPT = """
import sys
import torch
from torch._dynamo.utils import counters
import smooth_attention as sa

how = sys.argv[1]

def hard(q, k, v, height, width, number):
    return sa.smooth_attention(q, k, v, grid=(height, width), threshold=number)

def share(q, k, v, height, width, number):
    return sa.smooth_attention(q, k, v, grid=(height, width), fraction=number)

def soft(q, k, v, height, width, number):
    learned = q.new_tensor([number])
    return sa.smooth_attention(q, k, v, grid=(height, width), threshold=learned, temperature=0.1)

for function, numbers in ((hard, (0.1, 0.4)), (share, (0.25, 0.25)), (soft, (0.2, 0.2))):
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(function, backend=how, fullgraph=True, dynamic=True)
    for (height, width), number in zip(((7, 7), (9, 5), (30, 27)), (*numbers, numbers[0])):
        torch.manual_seed(height)
        inputs = [torch.randn(2, height * width, 16, requires_grad=True) for _ in range(3)]
        results = []
        for call in (function, compiled):
            output = call(3 * inputs[0], *inputs[1:], height, width, number)
            results.append((output, *torch.autograd.grad(output.square().sum(), inputs)))
        for eager, ours in zip(*results):
            torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs <= 2, f"{function.__name__}: {graphs} graphs"  # one, and one more where a number changes
    print(function.__name__, "fine")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["aot_eager", "inductor"])
def test_one_graph_for_all_sizes(how):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LAST_RESORT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[:3] == ["hard fine", "share fine", "soft fine"]


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's check reads it
@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (dispatch.traced_gate, (draw(2, 49, 8), draw(2, 30, 8), None, [7, 7], 0.1, None, 1.0, "auto")),
        (dispatch.traced_gate, (draw(2, 49, 8), draw(2, 30, 8), draw(2, 49), [7, 7], None, 0.3, 1.0, "tiled")),
        (strips.find_steepest, (draw(2, 49, 8), draw(2, 30, 8), draw(2, 49) + 9, [7, 7])),
        (log_sum_exp.log_sum_exp, (draw(2, 9, 8).requires_grad_(), draw(2, 30, 8).requires_grad_())),
        (log_sum_exp.log_sum_exp_backward, (draw(2, 9), draw(2, 9, 8), draw(2, 30, 8), draw(2, 9) + 9)),
    ],
    ids=["gate", "gate with lse", "steepest", "log-sum-exp", "its backward"],
)
def test_operator_keeps_torch_s_rules(operator, arguments):
    outcome = torch.library.opcheck(operator, arguments)
    assert set(outcome.values()) == {"SUCCESS"}


def test_deterministic_mode_runs_forward_and_backward():
    torch.use_deterministic_algorithms(True)
    try:
        for rule in ({"threshold": 0.1}, {"fraction": 0.25}, {"threshold": 0.1, "temperature": 0.1}):
            query, key, value = (draw(2, 900, 8).requires_grad_() for _ in range(3))
            gradients = []
            for _ in range(2):
                output = smooth_attention(3 * query, key, value, grid=(30, 30), backend="tiled", **rule)
                gradients.append(torch.autograd.grad(output.square().sum(), (query, key, value)))
            assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)
