"""The process that does a study's runs, one after the other: ``python -m smooth_attention.study.execution.worker LOG``.

Jobs come as JSON lines on standard input, answers leave as JSON lines on what was standard output; whatever training
prints goes to the log. When standard input ends, the study that asked is gone, and so is this process at once: nothing
is lost, since everything on disk is whole at any moment.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smooth_attention.core.errors import ConfigError, RequestError, SmoothAttentionError, reason_of
from smooth_attention.core.locks import exclusive
from smooth_attention.core.records import RECORD, Record, read_record, write_record

if TYPE_CHECKING:
    from smooth_attention.runs.inputs import Opener

__all__ = ["NO_SPACE", "fail", "perform", "tell_full"]

TIMED_STEPS = 3
TIMED_IMAGES = 4
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def perform(
    config: dict[str, Any], directory: Path, *, cache: Path, corruptions: bool, open_data: Opener
) -> dict[str, Any]:
    """Do one run, and say how it ended; a failure is in its record too.

    Args:
        config: of the run.
        directory: of the run.
        cache: where decoded images live.
        corruptions: whether corrupted test images are scored too.
        open_data: what opens its data.

    Returns:
        ``{"status": "done"}``, ``{"status": "failed", "reason": ...}``, or ``{"status": "stop", "reason": ...}`` where
        no further run can succeed.
    """
    from smooth_attention.runs.config import make_config
    from smooth_attention.runs.measure import measure_run
    from smooth_attention.runs.train import train_on

    try:
        with exclusive(
            directory.with_name(f".{directory.name}.lock"), refusal=f"{directory} is in use", patience_seconds=60
        ):
            try:
                train_on(open_data, make_config(config), directory, cache=cache)
                measure_run(directory, cache=cache, corruptions=corruptions, open_data=open_data)
                shutil.rmtree(directory / "checkpoints", ignore_errors=True)  # model/ has what was scored
            except Exception as error:  # whatever it is, it is told, and the other runs go on
                if isinstance(error, OSError) and error.errno in NO_SPACE:
                    raise
                return fail(directory, config, explain(error))
    except ConfigError as error:  # the lock's: what it guards belongs to another process
        return {"status": "failed", "reason": str(error)}
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return {"status": "stop", "reason": tell_full(directory)}
    return {"status": "done"}


def explain(error: Exception) -> str:
    """Return why a job failed; the log gets the rest where the error is not one of ours."""
    if not isinstance(error, SmoothAttentionError):
        traceback.print_exc()
    return reason_of(error)


def tell_full(directory: Path) -> str:
    return f"the disk of {directory} is full: free some space"


def fail(directory: Path, config: dict[str, Any], reason: str) -> dict[str, Any]:
    """Record why a run failed, whatever it had recorded before."""
    if (directory / RECORD).is_file():
        write_record(directory, replace(read_record(directory), status="failed", reason=reason))
    else:
        from smooth_attention.runs.config import make_config, write_config

        write_config(directory / "config.yaml", make_config(config))
        write_record(directory, Record(status="failed", reason=reason, config=config))
    return {"status": "failed", "reason": reason}


def time_steps(config: dict[str, Any], *, cache: Path, open_data: Opener) -> dict[str, float]:
    """Return seconds per training step and per scored image of a configuration, on real images of its data."""
    import torch
    from torch.utils.data import default_collate

    from smooth_attention.data.splits import keep_share
    from smooth_attention.runs.config import make_config
    from smooth_attention.runs.evaluate import evaluate_network
    from smooth_attention.runs.fit import autocast, check_batches
    from smooth_attention.runs.protocols import PROTOCOLS
    from smooth_attention.runs.train import build_network

    checked = make_config(config)
    protocol = PROTOCOLS[checked.protocol]
    source, _ = open_data(checked)
    split = keep_share(source, protocol.split(source, checked), checked.train_frac, checked.split_seed)
    pairs = protocol.pairs(source, image_size=checked.image_size, directory=cache)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build_network(checked, source)
    check_batches(net, checked, len(split.train), drops_last=protocol.task.drops_last)
    net = net.to(device).to(memory_format=torch.channels_last)
    task = protocol.task(net, checked).train()
    train_set = protocol.train_set(pairs, split, checked)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    marks = []
    for step in range(TIMED_STEPS + 1):  # the first one warms up
        marks.append(time.perf_counter())
        items = [train_set[0, (step * checked.batch_size + i) % len(train_set)] for i in range(checked.batch_size)]
        images, masks = (part.to(device) for part in default_collate(items))
        with autocast(checked.precision, device):
            logits = task(images)
        task.compute_loss(logits.float(), masks).backward()
        optimizer.step()
        optimizer.zero_grad()
    marks.append(time.perf_counter())
    evaluate_network(net, source, split.test[:TIMED_IMAGES], pairs, switch_blocks=True)
    marks.append(time.perf_counter())
    return {
        "step_seconds": (marks[-2] - marks[1]) / TIMED_STEPS,
        "image_seconds": (marks[-1] - marks[-2]) / min(TIMED_IMAGES, len(split.test)),
    }


def answer(job: dict[str, Any], cache: Path, open_data: Opener) -> dict[str, Any]:
    """Do one job."""
    if job["kind"] == "time":
        try:
            return {"status": "done", **time_steps(job["config"], cache=cache, open_data=open_data)}
        except Exception as error:  # noqa: BLE001 - the study ends with it
            status = "refused" if isinstance(error, RequestError) else "failed"
            return {"status": status, "reason": explain(error)}
    directory, corruptions = Path(job["directory"]), job["corruptions"]
    return perform(job["config"], directory, cache=cache, corruptions=corruptions, open_data=open_data)


def main(log: Path, cache: Path) -> None:
    """Answer jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=listen, args=(jobs,), daemon=True).start()
    from smooth_attention.runs.inputs import open_once  # late: by then it is known when the input ends

    open_data = open_once()
    while True:
        answers.write(json.dumps(answer(json.loads(jobs.get()), cache, open_data)) + "\n")
        answers.flush()
        gc.collect()  # a trainer and its network refer to each other


def listen(jobs: queue.Queue[str]) -> None:
    """Hand on jobs; end the process with its input, whatever it is doing."""
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
