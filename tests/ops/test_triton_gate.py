"""Triton's gate, run by Triton's interpreter and, where there is a GPU, on it.

The interpreter has to be chosen before Triton is imported, so each check of numbers runs in a process of its own: this
file, called with the name of the check and the device.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smooth_attention.core.grids import neighbour_offsets
from smooth_attention.ops.dense import compute_attention
from smooth_attention.ops.neighbours import shift_positions
from smooth_attention.ops.reference import reference
from smooth_attention.ops.triton_gate import (
    choose_tiles,
    compare_tiles,
    dilate,
    rule_out,
    triton_gate,
    triton_why_not,
    why_not_device,
)

GRIDS = [(7,), (1, 9), (7, 7), (13, 5), (3, 4, 5)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SOURCE = Path(__file__).parents[2] / "src"
RULE = {"grid": (7,), "threshold": 0.3, "fraction": None, "scale": None}


def run_check(name: str, device: str) -> None:
    """Run one of the checks below in a process of its own, interpreted unless the device is a GPU."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "TRITON_INTERPRET": "1" if device == "cpu" else "0"}
    done = subprocess.run([sys.executable, __file__, name, device], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])


# What has to hold without a kernel


def test_why_not_is_none_where_it_can_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for dtype in DTYPES:
        query, key = torch.zeros(1, 7, 256, dtype=dtype), torch.zeros(1, 3, 256, dtype=dtype)
        assert triton_why_not(query, key, **RULE, lse=torch.zeros(1, 7)) is None
        assert triton_why_not(query, key, **RULE | {"threshold": 1 / 64}) is None


@pytest.mark.parametrize(
    ("change", "dtype", "shape", "reason"),
    [
        ({}, torch.float64, (7, 4), "computes in float32, .* not from torch.float64"),
        ({"threshold": None, "fraction": 0.5}, torch.float32, (7, 4), "a fraction needs every roughness"),
        ({"threshold": None}, torch.float32, (7, 4), "threshold=None is closed"),
        ({"threshold": 1.0}, torch.float32, (7, 4), "threshold=1.0 is closed"),
        ({"threshold": math.nan}, torch.float32, (7, 4), "threshold=nan"),
        ({"threshold": -1.0}, torch.float32, (7, 4), "below 1/64 a row may have more than 64 keys"),
        ({"threshold": 0.015}, torch.float32, (7, 4), "below 1/64 a row may have more than 64 keys"),
        ({}, torch.bfloat16, (7, 257), "a width of at most 256, got 257: wider rows overflow registers"),
        ({}, torch.float32, (0, 4), "nothing to launch for empty tensors"),
    ],
)
def test_why_not_tells_the_reason(change, dtype, shape, reason, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    query = torch.zeros(1, *shape, dtype=dtype)
    assert re.search(reason, triton_why_not(query, query[:, :3], **RULE | change))


def test_why_not_asks_for_the_device_first_and_for_triton_next(monkeypatch):
    query = torch.zeros(1, 7, 4, dtype=torch.float64)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert triton_why_not(query, query, **RULE) == "Triton's gate needs CUDA tensors, these are on cpu"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_why_not(query, query, **RULE) == "Triton is not installed"


@pytest.mark.parametrize(("capability", "reason"), [((7, 5), "capability 8.0, this one has 7.5"), ((9, 0), None)])
def test_why_not_asks_the_gpu_for_its_age(capability, reason, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    answer = why_not_device(torch.device("cuda", 0))
    assert answer is None if reason is None else reason in answer


@pytest.mark.parametrize("grid", [(1,), (6,), (1, 6), (4, 5), (1, 4, 5), (3, 1, 4), (3, 4, 5)], ids=str)
def test_dilate_reaches_the_neighbours_and_no_further(grid):
    num_positions = math.prod(grid)
    mask = torch.rand(3, num_positions, generator=torch.Generator().manual_seed(0)) < 0.1
    want = mask.clone()
    for offset in neighbour_offsets(len(grid)):
        want |= mask[:, shift_positions(torch.arange(num_positions), offset, grid)]
    assert torch.equal(dilate(mask, (1,) * (3 - len(grid)) + grid), want)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_are_ruled_out_have_no_entry_above_the_threshold(dtype, offset):
    generator = torch.Generator().manual_seed(0)
    query = torch.logspace(-2, 1, 200).unsqueeze(-1) * torch.randn(3, 200, 20, generator=generator)
    key = torch.randn(3, 50, 20, generator=generator) + min(offset, 6e4 if dtype == torch.float16 else offset)
    query, key = query.to(dtype), key.to(dtype)
    for threshold in (0.03, 0.1, 0.5):
        is_out = rule_out(query, key, threshold, 1.0)
        largest = compute_attention(query.double(), key.double(), 1.0).amax(-1)
        assert not (is_out & (largest > threshold)).any()
        assert offset > 1 or 0 < is_out.sum() < is_out.numel()  # the bound is of use


def test_every_row_of_diffuse_attention_is_ruled_out():
    query, key = (0.5 * torch.randn(2, 2, 196, 32, generator=torch.Generator().manual_seed(0))).unbind()
    assert rule_out(query, key, 0.1, 32**-0.5).all()


def test_no_row_is_ruled_out_by_numbers_too_small_too_large_or_none():
    for query, key in [(1e-25, 1e25), (1e25, 1e-25), (1e25, 1e25), (math.nan, 1.0), (1.0, math.nan), (math.inf, 0.0)]:
        rows = torch.tensor([[[query]]]).expand(1, 5, 1)
        keys = torch.tensor([[[key], [-key], [-key]]])
        assert not rule_out(rows, keys, 0.4, 1.0).any(), (query, key)  # logits 1, -1, -1 give .79


# Numbers, each in a process of its own


@needs_triton
@on_each_device
@pytest.mark.parametrize(
    "check",
    ["random_maps", "long_keys", "second_entries", "nan_and_infinite_inputs", "ruled_out_rows_cost_nothing"],
)
def test_gate(check, device):
    run_check(check, device)


@needs_triton
@needs_gpu
def test_gate_never_waits_and_replays_in_a_graph():
    run_check("graph", "cuda")


@needs_triton
@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_kernels_compile_and_fit_the_shared_memory_of_a_small_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    run_check("compile", "none")


@needs_triton
def test_shape_checks_leave_kernels_alone():
    from smooth_attention.ops import triton_kernels as kernels

    assert kernels.find_peaks.fn.__globals__ is vars(kernels)  # else Triton would look for its names elsewhere


def draw(grid, dtype, *, num_keys, width, spread, num_maps=2, seed=0) -> tuple[Tensor, Tensor]:
    """Queries that are alike at the start of a map and differ more and more towards its end."""
    generator = torch.Generator().manual_seed(seed)
    num_positions = math.prod(grid)
    shared, own = torch.randn(2, num_maps, num_positions, width, generator=generator).unbind()
    ramp = torch.linspace(0, 1, num_positions).unsqueeze(-1)
    query = spread * (shared[:, :1] + ramp**2 * own)
    return query.to(dtype), torch.randn(num_maps, num_keys, width, generator=generator).to(dtype)


def run_gate(query, key, grid, threshold, scale=None) -> Tensor:
    query, key = query.to(DEVICE), key.to(DEVICE)
    return triton_gate(query, key, grid=grid, threshold=threshold, fraction=None, scale=scale).cpu()


def compare(query, key, grid, threshold, scale=None) -> tuple[int, int, int]:
    """Assert the gate wherever rounding can't decide; return how many were left out, are rough, and are smooth."""
    gate = run_gate(query, key, grid, threshold, scale)
    assert gate.dtype == torch.bool
    assert gate.shape == query.shape[:-1]
    want = reference(query.double(), key.double(), key.double()[..., :1], grid=grid, threshold=threshold, scale=scale)
    logits = (query.shape[-1] ** -0.5 if scale is None else scale) * (query.double() @ key.double().mT)
    highest = max(1.0, logits[logits.isfinite()].abs().max().item())
    margin = 4 * torch.finfo(torch.float32).eps * highest * query.shape[-1] ** 0.5
    is_certain = ~((want.roughness - threshold).abs() <= margin)  # NaN is certain: False
    wrong = (is_certain & (gate != want.gate)).nonzero().tolist()
    assert not wrong, f"{grid=} {query.dtype} {threshold=} {scale=} S={key.shape[1]}: {wrong=}"
    return int((~is_certain).sum()), int(want.gate.sum()), int((~want.gate).sum())


def compare_all(calls) -> None:
    """Compare each; assert that few positions were left out and that the gates were open and closed in turn."""
    left_out, rough, smooth = (sum(counts) for counts in zip(*(compare(*call) for call in calls), strict=True))
    assert left_out <= 0.005 * (rough + smooth), f"{left_out=} {rough=} {smooth=}"
    assert min(rough, smooth) > 0.2 * (rough + smooth), f"{left_out=} {rough=} {smooth=}"


def check_random_maps():
    rules = [(0.7, 0.02, None), (3.0, 0.1, None), (2.0, 0.3, -0.7), (20.0, 0.6, 1), (9.0, 0.9, None)]
    sizes = [(90, 20), (5, 33), (70, 3), (7, 16), (65, 70)]
    calls = []
    for number in range(30):  # two rules for each grid and dtype; each rule with each size
        grid, dtype = GRIDS[number // 2 % 5], DTYPES[number // 10]
        spread, threshold, scale = rules[number % 5]
        num_keys, width = sizes[number // 5 % 5]
        query, key = draw(grid, dtype, num_keys=num_keys, width=width, spread=spread, seed=number)
        calls.append((query, key, grid, threshold, scale))
    compare_all(calls)
    query, key = draw((7,), torch.float32, num_keys=11, width=256, spread=4.0)
    compare_all([(query, key, (7,), 0.2), (query, key, (1, 7), 0.4)])
    assert compare(query, key, (7,), 0.2, 0.0)[1] == 0  # equal logits


def check_long_keys():
    calls = []
    for dtype, length in zip(DTYPES, (40.0, 20.0, 40.0), strict=True):
        for threshold in (0.05, 0.3, 0.8):
            query, key = draw((7, 7), torch.float32, num_keys=70, width=24, spread=4.0, seed=len(calls))
            calls.append((query.to(dtype), (key + length).to(dtype), (7, 7), threshold))
    compare_all(calls)


def gate_by_largest(attention: Tensor, grid: tuple[int, ...], threshold: float) -> Tensor:
    """The gate if rows were compared at the largest entry of either alone."""
    gate = torch.zeros(attention.shape[:-1], dtype=torch.bool)
    peaks = attention.argmax(-1, keepdim=True)
    for offset in neighbour_offsets(len(grid)):
        other = shift_positions(torch.arange(attention.shape[-2]), offset, grid)
        distance = (attention - attention[:, other]).abs()
        gate |= (distance.gather(-1, peaks) > threshold).squeeze(-1)
        gate |= (distance.gather(-1, peaks[:, other]) > threshold).squeeze(-1)
    return gate


def check_second_entries():
    # One cell looks at a key at which its neighbours do not, though not mostly.
    cells = {(5,): (2, 3), (1, 9): (0, 2), (4, 5): (7, 9), (13, 10): (64, 9), (3, 3, 4): (17, 27)}
    for shares, keys in [((0.42, 0.4), [3, 75]), ((0.29, 0.28, 0.27), [70, 69, 0])]:
        for grid, (cell, num_rough) in cells.items():
            attention = torch.full((2, math.prod(grid), 80), (1 - sum(shares[:-1])) / (81 - len(shares)))
            attention[..., keys[:-1]] = torch.tensor(shares[:-1])
            attention[1, cell] = (1 - sum(shares)) / (80 - len(shares))
            attention[1, cell, keys] = torch.tensor(shares)
            query, key = attention.log(), torch.eye(80).expand(2, 80, 80)
            assert not gate_by_largest(compute_attention(query.double(), key.double(), 1.0), grid, 0.2).any()
            for dtype in DTYPES if grid == (4, 5) else DTYPES[:1]:
                assert compare(query.to(dtype), key.to(dtype), grid, 0.2, 1.0)[:2] == (0, num_rough)


def check_nan_and_infinite_inputs():
    grid = (4, 5)
    query, key = (9 * torch.randn(2, 5, 20, 20, generator=torch.Generator().manual_seed(0))).unbind()
    assert compare(query, key, grid, 0.1)[1] == 100  # rough everywhere, but for what follows
    around = torch.zeros(20, dtype=torch.bool)
    around[[1, 2, 3, 6, 7, 8, 11, 12, 13]] = True
    query[0, 7, 3] = math.nan
    key[1, 4, 2] = math.nan
    query[2, 7, 0] = -math.inf
    key[3, 2, 0] = math.inf  # takes part nowhere but in row 7, where its logit is not -inf
    query[3, :, 0] = -1.0
    query[3, 7, 0] = 1.0
    for threshold in (0.1, 0.6):
        compare(query, key, grid, threshold)
        gate = run_gate(query, key, grid, threshold)
        assert not gate[1].any()
        for index in (0, 2, 3):
            assert not gate[index, around].any()
            assert gate[index, ~around].sum() >= 10
        assert gate[4].all()
    # what float32 can't hold is no row either
    assert not run_gate(torch.full((1, 20, 2), 1e30), 1e30 * torch.eye(2).unsqueeze(0), grid, 0.1).any()


def check_ruled_out_rows_cost_nothing():
    grid = (13, 10)
    query, key = draw(grid, torch.float32, num_keys=70, width=16, spread=30.0)
    query[:, :100] = 0.0
    is_needed = dilate(~rule_out(query, key, 0.1, 0.25), (1, *grid))
    assert torch.equal(is_needed, torch.arange(130).expand(2, 130) >= 90)
    _, log_total = compare_tiles(query.to(DEVICE), key.to(DEVICE), is_needed.to(DEVICE), (1, *grid), 0.1, 0.25)
    # sums are at least 1, and more than 1 for an equal row; 64 is where the second block begins
    assert (log_total[:, :64] == 0).all()
    assert (log_total[:, 64:100] > 1).all()
    left_out, rough, _ = compare(query, key, grid, 0.1)
    assert left_out == 0
    assert 0 < rough <= 2 * 41
    # rows that are ruled out beside rows that are not: .094 and .108 at the first key
    query = torch.tensor([1.6, 1.75] * 4 + [1.6]).view(1, 9, 1)
    key = torch.full((1, 50, 1), -1 / 49)
    key[0, 0] = 1.0
    assert rule_out(query, key, 0.1, 1.0).tolist() == [[True, False] * 4 + [True]]
    assert compare(query, key, (9,), 0.1) == (0, 0, 9)


def check_graph():
    grid = (16, 16)
    query, key = (x.cuda() for x in draw(grid, torch.float32, num_keys=256, width=64, spread=6.0))
    options = {"grid": grid, "threshold": 0.1, "fraction": None, "scale": None}
    triton_gate(query, key, **options)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    want = triton_gate(query, key, **options)
    torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    static = torch.zeros_like(query)
    with torch.cuda.graph(graph):
        gate = triton_gate(static, key, **options)
    static.copy_(query)
    graph.replay()
    torch.cuda.synchronize()
    assert 0 < want.sum() < want.numel()
    assert torch.equal(gate, want)


def check_compile():
    """The interpreter lets pass what the compiler does not; compiling takes no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from smooth_attention.ops import triton_kernels as kernels

    pointers = {"is_needed": "*u8", "is_rough": "*u8", "peak": "*fp32", "log_total": "*fp32", "peak_key": "*i32"}
    for dtype, name, width in [(torch.float32, "fp32", 48), (torch.bfloat16, "bf16", 256)]:
        tiles = choose_tiles(dtype, width)
        constants = {"NUM_NEIGHBOURS": 8, "WIDTH": width, "PADDED_WIDTH": 256, "BLOCK_E": tiles.columns}
        constants |= {"BLOCK_N": tiles.positions, "BLOCK_S": tiles.keys}
        types = pointers | {"query": f"*{name}", "key": f"*{name}", "scale": "fp32", "threshold": "fp32"}
        for kernel in (kernels.find_peaks, kernels.check_peaks, kernels.check_others):
            own = {k: v for k, v in constants.items() if k in kernel.arg_names}
            if kernel is kernels.check_peaks:
                own["BLOCK_N"] = 16
            signature = {k: "constexpr" if k in own else types.get(k, "i32") for k in kernel.arg_names}
            stages = tiles.stages if kernel is kernels.find_peaks else 1
            options = {"num_warps": tiles.warps, "num_stages": stages, "enable_fp_fusion": True}
            source = ASTSource(kernel, signature, own)
            built = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
            assert built.metadata.shared <= 99 * 1024, (kernel.__name__, name, built.metadata.shared)


if __name__ == "__main__":
    DEVICE = sys.argv[2]
    globals()[f"check_{sys.argv[1]}"]()
