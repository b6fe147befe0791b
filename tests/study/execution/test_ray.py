"""The same study on a Ray cluster of two nodes, one of which is killed while both work."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deadlines import LAST_RESORT_S

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()


def running(study: Path) -> list[Path]:
    """Return the runs that have begun and are not done."""
    found = study.glob("runs/*/*/*/record.json")
    return [path for path in found if json.loads(path.read_text())["status"] == "running"]


def test_study_survives_the_loss_of_a_node_and_gives_the_local_results(
    cluster: Any, undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    lost = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    spread = subprocess.Popen(
        **command(tmp_path / "ray", "--ray", cluster.address), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + LAST_RESORT_S
        while len(running(tmp_path / "ray")) < 2:
            assert spread.poll() is None, spread.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        cluster.remove_node(lost, allow_graceful=False)
        said, _ = spread.communicate(timeout=LAST_RESORT_S)
    finally:
        spread.kill()
        spread.wait()
    assert spread.returncode == 0, said
    assert "4 of 4 runs are finished" in said
    assert (tmp_path / "ray" / "results.csv").read_bytes() == (undisturbed[0] / "results.csv").read_bytes()
