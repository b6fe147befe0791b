"""Time and memory of calls: medians of alternating runs, and the allocator's own account of bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


def time_in_turn(calls: dict[str, Callable[[], object]], *, repeats: int, warmups: int = 2) -> dict[str, list[float]]:
    """Return seconds per call: every repeat runs each of them once, so that a slow moment hits all alike."""
    for call in calls.values():
        for _ in range(warmups):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            synchronize()
            start = time.perf_counter()
            call()
            synchronize()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summarise(seconds: list[float]) -> dict[str, float]:
    """Return median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    return {"median_ms": 1e3 * middle, "low_ms": 1e3 * low, "high_ms": 1e3 * high, "runs": len(seconds)}


def peak_extra_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes that torch's allocator held during the call beyond those held before.

    Everything is counted, also what operators allocate inside; nothing depends on time.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
