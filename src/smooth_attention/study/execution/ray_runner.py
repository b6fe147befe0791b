"""The same runs on a Ray cluster whose nodes share the study's directory and data, a whole node or a GPU for each."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smooth_attention.core.errors import ConfigError
from smooth_attention.study.design.plan import PlannedRun
from smooth_attention.study.execution.worker import perform

__all__ = ["check_address", "ray_executor"]

CONNECT_SECONDS = 5
MAX_RETRIES = 10  # of a run whose node died; it continues from its last epoch


class RayExecutor:
    """Runs as Ray tasks; one whose node dies goes on elsewhere.

    Args:
        cache: where decoded images live, on the shared disk or on each node.
        corruptions: whether corrupted test images are scored too.
    """

    def __init__(self, cache: Path, *, corruptions: bool) -> None:
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not nodes:
            raise ConfigError("the Ray cluster has no node with a CPU; start one with: ray start --address ADDRESS")
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        cpus = int(min(node["CPU"] for node in nodes))  # every run has as many threads, so that all are alike
        self.slots = gpus or len(nodes)
        self.task = ray.remote(max_retries=MAX_RETRIES, num_cpus=1 if gpus else cpus, num_gpus=1 if gpus else 0)(
            perform_there
        )
        self.cache, self.corruptions = cache, corruptions
        self.pending: dict[Any, PlannedRun] = {}

    def start(self, run: PlannedRun, directory: Path) -> None:
        config = run.config.model_dump(mode="json")
        reference = self.task.remote(
            str(Path.cwd()), config, str(directory.resolve()), str(self.cache.resolve()), self.corruptions
        )
        self.pending[reference] = run

    def poll(self, timeout: float) -> tuple[PlannedRun, dict[str, Any]] | None:
        import ray

        ready, _ = ray.wait([*self.pending], num_returns=1, timeout=timeout)
        if not ready:
            return None
        run = self.pending.pop(ready[0])
        try:
            answer: dict[str, Any] = ray.get(ready[0])
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            return run, {"status": "died", "reason": f"Ray gave the run up: {type(error).__name__}: {reason}"}
        return run, answer


def perform_there(place: str, config: dict[str, Any], directory: str, cache: str, corruptions: bool) -> dict[str, Any]:
    """Do one run on a node, from the directory where the study was started, since data may be named relative to it."""
    from smooth_attention.runs.inputs import open_once

    os.chdir(place)
    return perform(config, Path(directory), cache=Path(cache), corruptions=corruptions, open_data=open_once())


def check_address(address: str) -> None:
    """Raise at once where nothing answers, since Ray itself tries for minutes.

    Args:
        address: ``host:port``, or ``auto`` or ``local``, which Ray resolves.

    Raises:
        ConfigError: where Ray is not installed, or nothing listens there.
    """
    if find_spec("ray") is None:
        raise ConfigError("--ray needs Ray: pip install 'smooth-attention[ray]'")
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address!r} ({error}); give HOST:PORT as 'ray start --head' says, or 'local'"
        ) from error


@contextmanager
def ray_executor(address: str, cache: Path, *, corruptions: bool) -> Iterator[RayExecutor]:
    """Give an executor on a Ray cluster.

    Args:
        address: of the cluster, ``auto`` for the one of this machine, ``local`` for a new one that ends with the study.
        cache: where decoded images live.
        corruptions: whether corrupted test images are scored too.

    Raises:
        ConfigError: where no cluster answers, or it has no node that can work.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, include_dashboard=False if address == "local" else None, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no Ray cluster at {address!r} ({error}); start one with: ray start --head") from error
    try:
        yield RayExecutor(cache, corruptions=corruptions)
    finally:
        ray.shutdown()
