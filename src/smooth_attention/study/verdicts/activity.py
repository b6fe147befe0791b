"""Whether what a contrast is about does anything in the trained networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smooth_attention.core.records import PooledMetrics
from smooth_attention.study.execution.collect import Result
from smooth_attention.study.quantities import diagnostic

__all__ = ["Activity", "measure_activity"]

SMALL_GAMMA, FEW, SINK = 0.3, 0.01, 0.5


@dataclass(frozen=True, slots=True)
class Activity:
    """What switching off changes in the trained networks, mean over replicates.

    Attributes:
        has_gate: whether the gate was switched off; else the whole block.
        changed: share of the test pixels whose label changes.
        reach: the most by which these pixels could move the pooled IoU.
        margin: difference of IoU that matters.
        gamma: learned weight of the update, in the chosen epoch; None without.
        smoothed: smoothed fraction, on validation images; None without a gate.
        sink: attention that the most attended key gets; None without attention.
    """

    has_gate: bool
    changed: float
    reach: float
    margin: float
    gamma: float | None
    smoothed: float | None
    sink: float | None

    @property
    def is_active(self) -> bool:
        return self.reach >= self.margin

    def explain(self) -> str:
        """Return what was measured and what to change."""
        what = "the gate" if self.has_gate else "the block"
        facts = [f"switching {what} off changes {100 * self.changed:.2g} % of the test pixels"]
        facts += [
            f"{name} {value:.3g}"
            for name, value in (
                ("gamma", self.gamma),
                ("smoothed fraction", self.smoothed),
                ("share of attention on one key", self.sink),
            )
            if value is not None
        ]
        return f"{', '.join(facts)}; {self.advise()}"

    def advise(self) -> str:
        """Return what to change, the likeliest cause first."""
        advice = []
        if self.gamma is not None and abs(self.gamma) < SMALL_GAMMA:
            advice.append("start gamma higher (gamma_init 1) or let it learn faster (gamma_rate 10)")
        if self.smoothed is not None and self.smoothed < FEW:
            advice.append("lower the threshold, or smooth by fraction 0.25")
        if self.smoothed is not None and self.smoothed > 1 - FEW:
            advice.append("raise the threshold, or smooth by fraction 0.25: everywhere the same is no rule")
        if self.sink is not None and self.sink > SINK:
            advice.append("give the block an earlier stage or larger images: here nearly all rows attend to one key")
        if not advice:
            advice.append("train longer, or put the block at an earlier stage")
        return "try: " + "; ".join(advice)


def measure_activity(results: Sequence[Result], margin: float) -> Activity | None:
    """Return what the trained networks of an arm do; None for an arm that has nothing to switch off."""
    tests = [result.record.metrics.test for result in results]
    has_gate = tests[0].gate_off is not None
    switched = [(test.pooled, changes) for test in tests if (changes := test.gate_off if has_gate else test.bypass)]
    if not switched:
        return None
    return Activity(
        has_gate=has_gate,
        changed=float(np.mean([changes.changed_pixels for _, changes in switched])),
        reach=float(np.mean([reach_of(changes.changed_pixels, pooled) for pooled, changes in switched])),
        margin=margin,
        gamma=mean_of(results, "gamma"),
        smoothed=mean_of(results, "smoothed_fraction") if has_gate else None,
        sink=mean_of(results, "sink_share"),
    )


def reach_of(changed: float, pooled: PooledMetrics) -> float:
    """Return the most by which a share of changed pixels could move the pooled IoU: it over the union, by class.

    The union's share of the pixels follows from the figures: ``(1 - accuracy) / (1 - IoU)`` of one class against the
    rest. Of a perfect class the union is unknown, so that it counts as if it were the changed pixels alone.
    """
    classes = [pooled] if pooled.classes is None else pooled.classes.values()
    found = [(each.iou, each.accuracy) for each in classes if each.iou is not None and each.accuracy is not None]
    if changed == 0 or not found:
        return 0.0
    unions = [0.0 if iou == 1 else (1 - accuracy) / (1 - iou) for iou, accuracy in found]
    return float(np.mean([min(1.0, changed / max(union, changed)) for union in unions]))


def mean_of(results: Sequence[Result], name: str) -> float | None:
    values = [value for result in results if (value := diagnostic(name, result.record)) is not None]
    return float(np.mean(values)) if values else None
