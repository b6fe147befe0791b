"""Does the checkout give what an earlier commit gave: records, tables, predictions, saved models, options, signatures.

Run by ``make same BEFORE=<commit>``. With the code of that commit it makes fixtures on generated images, in a folder
outside the repository, and keeps them; then the code of this checkout does the same work, finishes what was left half
done and reads what was saved. One line a check; exit status 1 where anything differs. Both sides are used through the
command line and the names in ``smooth_attention.__all__`` only, in processes with one thread.

    python benchmarks/same.py 29b3452                  # fixtures where they are missing, then all checks
    python benchmarks/same.py 29b3452 --only logits    # one check again
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = "tests/cli/options.txt"
LEFT_OUT = ("versions", "seconds")  # of record.json: what made it, and how long it took
# What may be there now and was not before, as "kind: place", each with its reason.
ALLOWED: dict[str, str] = {
    "record: config.mask_threshold": "masks of JPEG can be cut; None is as before",
    "options: * --mask-threshold": "the same, as an option",
}

NETWORK = {"name": "unet", "encoder": "resnet18", "encoder_weights": "none"}
TRAINING = {"epochs": 1, "batch_size": 4, "image_size": 64}
COMMON: dict[str, Any] = {"data": ["../data/discs"], "network": NETWORK, "training": TRAINING}
STUDIES: dict[str, dict[str, Any]] = {
    "study": {
        **COMMON,
        "arms": ["none", "median", "se", {"smooth-tuned": {"thresholds": [0.1, 0.4]}}],
        "contrasts": [["smooth-tuned", "none"], ["smooth-tuned", "se"], ["smooth-0.4", "none"], ["median", "none"]],
        "replicates": {"folds": 3, "seeds": 1},
    },
    "corrupted": {
        **COMMON,
        "arms": ["none", "smooth-0.1"],
        "replicates": {"seeds": 2},
        "half_data": False,
        "corruptions": True,
    },
    "arms": {**COMMON, "replicates": {"seeds": 1}, "half_data": False},  # its arms are those of the commit
    "half-study": {
        **COMMON,
        "arms": ["none", "smooth-0.1", "median"],
        "training": {**TRAINING, "epochs": 4, "batch_size": 2},
        "replicates": {"folds": 2, "seeds": 1},
        "half_data": False,
    },
}
SMALL = ("--encoder-weights", "none", "--image-size", "64", "--batch-size", "4")
RUNS: dict[str, tuple[str, ...]] = {
    "paper": ("../data/discs", "--protocol", "paper", "--epochs", "2", *SMALL),
    "classes": ("../data/bands", "--arm", "smooth", "--threshold", "0.1", "--epochs", "2", *SMALL),
    "half-run": ("../data/discs", "--arm", "smooth", "--threshold", "0.1", "--epochs", "6", *SMALL),
}
RETRAINED = "runs/discs/smooth-0.4/fold-1-seed-0"  # the run of "study" that is trained anew


@dataclass(frozen=True, slots=True)
class Side:
    """The code of one commit and the folder it works in; paths are the same on both sides.

    Attributes:
        source: the folder ``src`` of the code.
        folder: where its commands run.
    """

    source: Path
    folder: Path

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        places = {"PYTHONPATH": str(self.source), "SMOOTH_ATTENTION_CACHE": str(self.folder / ".cache")}
        environment = {**os.environ, **threads, **places, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
        self.folder.mkdir(parents=True, exist_ok=True)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen([sys.executable, *command], cwd=self.folder, env=environment, **pipes)

    def python(self, *command: str) -> str:
        """Return what a Python process prints.

        Raises:
            RuntimeError: with its last words where it fails.
        """
        with self.start(*command) as process:
            out, errors = process.communicate()
        if process.returncode:
            words = " ".join((errors.strip() or out.strip()).splitlines()[-1:])
            raise RuntimeError(f"{' '.join(command[:4])}: exit status {process.returncode}: {words}")
        return out

    def call(self, *arguments: str) -> str:
        return self.python("-m", "smooth_attention", *arguments)

    def train(self, name: str) -> None:
        self.call("train", *RUNS[name], "--output", name)

    def study(self, name: str) -> None:
        self.call("study", "--config", f"../data/{name}.json", "--output", name)

    def logits(self, models: Path, runs: Iterable[str]) -> None:
        self.python(__file__, "logits", str(models), *runs)

    def inventory(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.python(__file__, "inventory"))
        if not Path(found["file"]).is_relative_to(self.source):
            raise RuntimeError(f"{found['file']} was imported, expected the package in {self.source}")
        return found

    def options(self, verbs: Iterable[str]) -> list[str]:
        """Return every option of the verbs as the lines of the golden list."""
        words = {verb: set(re.findall(r"--[a-z][a-z-]*", self.call(*verb.split(), "--help"))) for verb in verbs}
        return [f"{verb} {word}" for verb, found in words.items() for word in sorted(found)]


# Fixtures


def draw_data(folder: Path) -> None:
    """Draw ``discs``, binary in groups of two images, and ``bands``, of four classes with ignored pixels."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:72, :88]
    groups = ["stem,group"]
    for index in range(24):
        noise = rng.normal(0, 18, (72, 88, 3))
        y, x, radius = rng.integers(16, 56), rng.integers(16, 72), rng.integers(8, 20)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image = np.where(disc[..., None], rng.integers(130, 230, 3), rng.integers(40, 150, 3)) + noise
        save_pair(folder / "discs", f"{index:02d}", image, 255 * disc)
        groups.append(f"{index:02d},{index // 2}")
        steps = np.sort(rng.integers(8, 64, 3))
        labels = (rows[..., None] + columns[..., None] // 8 > steps).sum(-1)
        image = rng.integers(0, 60, 3) + 55 * labels[..., None] + noise
        save_pair(folder / "bands", f"{index:02d}", image, np.where(disc, 255, labels))
    (folder / "discs" / "groups.csv").write_text("\n".join(groups) + "\n")
    (folder / "bands" / "classes.txt").write_text("sky\nwood\nfield\nwater\n")


def save_pair(folder: Path, stem: str, image: np.ndarray, mask: np.ndarray) -> None:
    for name, pixels in (("images", image), ("masks", mask)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{stem}.png")


def check_out(commit: str, folder: Path) -> None:
    """Write the package of a commit, and its golden list of options, into a folder."""
    files = subprocess.run(["git", "-C", ROOT, "archive", commit, "src", OPTIONS], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(files.stdout)) as archive:
        archive.extractall(folder, filter="data")


def write_studies(before: Side, data: Path) -> None:
    """Write the studies' configurations; JSON is YAML."""
    names = re.search(r"--arm \{([\w,-]+)\}", before.call("train", "--help"))
    assert names is not None, "train --help lists no arms"
    arms = {"arms": names[1].split(",")}
    for name, values in STUDIES.items():
        (data / f"{name}.json").write_text(json.dumps(values | (arms if name == "arms" else {})))


def kill_in_the_middle(half: Side, command: list[str], run: str) -> None:
    """Start a command and kill it once a run of it has finished its first epoch and not its last."""
    lines, last = half.folder / run / "metrics.jsonl", half.folder / run / "checkpoints" / "last.ckpt"
    with half.start(
        "-m", "smooth_attention", *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not (lines.is_file() and last.is_file()):
            time.sleep(0.02)
        process.kill()
    time.sleep(5)  # a study's worker ends with its input
    status = json.loads((half.folder / run / "record.json").read_text())["status"]
    assert status == "running", f"{run} was to be killed in the middle, it is {status}"


def make_fixtures(commit: str, place: Path) -> None:
    """Make what is missing of the fixtures of a commit."""
    before, half, finished = (Side(place / "source" / "src", place / name) for name in ("before", "half", "finished"))
    data, study = place / "data", ["study", "--config", "../data/half-study.json", "--output", "half-study"]
    steps: dict[str, tuple[list[Path], Callable[[], object]]] = {
        "source": ([place / "source"], lambda: check_out(commit, place / "source")),
        "data": ([data], lambda: draw_data(data)),
        "studies": ([], lambda: write_studies(before, data)),
        "half-run": (
            [half.folder / "half-run", finished.folder / "half-run"],
            lambda: kill_in_the_middle(half, ["train", *RUNS["half-run"], "--output", "half-run"], "half-run"),
        ),
        "half-study": (
            [half.folder / "half-study", finished.folder / "half-study"],
            lambda: kill_in_the_middle(half, study, "half-study/runs/discs/smooth-0.1/fold-0-seed-0"),
        ),
        "finished-run": ([], lambda: (copy("half-run", half, finished), finished.train("half-run"))),
        "finished-study": ([], lambda: (copy("half-study", half, finished), finished.study("half-study"))),
        **{name: ([before.folder / name], lambda name=name: before.train(name)) for name in ("paper", "classes")},
        **{
            name: ([before.folder / name], lambda name=name: before.study(name))
            for name in ("study", "corrupted", "arms")
        },
        "logits": ([], lambda: before.logits(before.folder, model_names(before.folder))),
        "inventory": ([], lambda: (place / "inventory.json").write_text(json.dumps(before.inventory()))),
    }
    for name, (paths, make) in steps.items():
        mark = place / f".{name}.done"
        if mark.is_file():
            continue
        for path in paths:  # left by a kill
            shutil.rmtree(path, ignore_errors=True)
        started = time.monotonic()
        make()
        mark.touch()
        print(f"made {name} in {time.monotonic() - started:.0f} s", flush=True)


def copy(name: str, source: Side, target: Side) -> None:
    shutil.rmtree(target.folder / name, ignore_errors=True)
    shutil.copytree(source.folder / name, target.folder / name)


def model_names(folder: Path) -> list[str]:
    """Return the runs whose models are compared: one of every arm, of protocol paper, of several classes."""
    arms = sorted(path.relative_to(folder).as_posix() for path in (folder / "arms" / "runs" / "discs").glob("*/fold-*"))
    return [*arms, "paper", "classes"]


# What runs on both sides, with the package of the side


def write_logits(models: Path, runs: list[str]) -> None:
    """Write logits of a fixed input, and the mask of an image of odd size, for each saved model in a folder."""
    import torch

    import smooth_attention as sa

    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    inputs = torch.from_numpy(rng.normal(size=(2, 3, 64, 64)).astype(np.float32))
    picture = rng.integers(0, 256, (51, 75, 3), np.uint8)
    found: dict[str, np.ndarray] = {}
    for run in runs:
        net = sa.load_model(models / run)
        with torch.inference_mode():
            found[f"{run} logits"] = net(inputs).numpy()
        found[f"{run} mask"] = sa.predict(net, picture)
    np.savez("logits.npz", **found)


def print_inventory() -> None:
    """Print signatures of the public names, and names and shapes of the state dicts of the networks."""
    import smooth_attention as sa

    signatures: dict[str, Any] = {}
    for name in sorted(set(sa.__all__) - {"__version__"}):
        door = getattr(sa, name)
        signatures[name] = {"call": describe_signature(door)}
        if inspect.isclass(door):
            methods = inspect.getmembers(door, lambda member: inspect.isfunction(member))
            own = [(key, found) for key, found in methods if found.__module__.startswith("smooth_attention")]
            signatures[name] |= {key: describe_signature(found) for key, found in own if not key.startswith("_")}
    networks = {"paper": sa.PaperUNet(encoder_weights=None), "unet": sa.create_model("unet", encoder_weights=None)}
    states = {name: {k: list(v.shape) for k, v in net.state_dict().items()} for name, net in networks.items()}
    print(json.dumps({"file": sa.__file__, "signatures": signatures, "states": states}))


def describe_signature(door: Callable[..., Any]) -> dict[str, str]:
    """Return the parameters in order with kind, annotation and default, and what is returned."""
    signature = inspect.signature(door)
    parameters = {name: f"{found.kind.description}: {found}" for name, found in signature.parameters.items()}
    return {"(order)": ", ".join(parameters), **parameters, "(returns)": str(signature.return_annotation)}


# Comparison: each gives sentences, none where both sides are the same


def diff(kind: str, before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Give the differences of two JSON values; what was not there before is one too, unless :data:`ALLOWED`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            inner = f"{place}.{key}" if place else key
            if key in after:
                yield from diff(kind, before[key], after[key], inner)
            else:
                yield f"{inner} is gone"
        for key in after.keys() - before.keys():
            inner = f"{place}.{key}" if place else key
            if not any(fnmatch.fnmatchcase(f"{kind}: {inner}", pattern) for pattern in ALLOWED):
                yield f"{inner} is new: {short(after[key])}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from diff(kind, one, other, f"{place}[{index}]")
    elif type(before) is not type(after) or before != after:
        yield f"{place}: {short(before)} before, {short(after)} now"


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def diff_lines(before: str, after: str) -> Iterator[str]:
    """Give the first line in which two texts differ."""
    ones, others = before.splitlines(keepends=True), after.splitlines(keepends=True)
    for number, (one, other) in enumerate(zip([*ones, ""], [*others, ""], strict=False), 1):
        if one != other:
            yield f"line {number}: {short(one)} before, {short(other)} now"
            return


def numbers(text: str) -> list[str]:
    """Return the numbers of a text in order; a hyphen or dash after a word is no sign."""
    plain = text.replace("$-$", "-").replace("−", "-")
    return re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", plain)


def diff_table(before: str, after: str, suffix: str) -> Iterator[str]:
    """Give the first difference of two tables: of a CSV header and numbers, of Markdown and LaTeX the numbers."""
    if suffix != ".csv":
        yield from diff_numbers(before, after, "number")
        return
    ones, others = (list(csv.reader(io.StringIO(text))) for text in (before, after))
    if ones[:1] != others[:1] or [len(row) for row in ones] != [len(row) for row in others]:
        yield f"columns or rows: {short(ones[:1])} x {len(ones)} before, {short(others[:1])} x {len(others)} now"
        return
    for number, (one, other) in enumerate(zip(ones, others, strict=True)):
        for name, a, b in zip(ones[0], one, other, strict=True):
            yield from diff_numbers(a, b, f"row {number}, {name}, number")


def diff_numbers(before: str, after: str, place: str) -> Iterator[str]:
    ones, others = numbers(before), numbers(after)
    for index, (one, other) in enumerate(zip([*ones, "none"], [*others, "none"], strict=False)):
        if one != other:
            yield f"{place} {index}: {one} before, {other} now"
            return


def diff_record(before: Path, after: Path) -> Iterator[str]:
    """Give the differences of two runs' records, but for :data:`LEFT_OUT`."""
    ones, others = (json.loads((run / "record.json").read_text()) for run in (before, after))
    for record in (ones, others):
        for key in LEFT_OUT:
            record.pop(key, None)
    yield from diff("record", ones, others)


def diff_folders(
    before: Path, after: Path, pattern: str, compare: Callable[[Path, Path], Iterable[str]]
) -> Iterator[str]:
    """Give the differences of files of the same name; which there are is compared too."""
    ones, others = ({path.relative_to(folder) for path in folder.glob(pattern)} for folder in (before, after))
    if not ones:
        yield f"nothing to compare: no {pattern} in {before}"
    if missing := sorted(ones ^ others):
        yield f"only on one side: {', '.join(map(str, missing[:4]))}"
    for path in sorted(ones & others):
        yield from (f"{path}: {sentence}" for sentence in compare(before / path, after / path))


def diff_bytes(before: Path, after: Path) -> Iterator[str]:
    if before.read_bytes() != after.read_bytes():
        yield "other bytes"


def diff_arrays(before: Path, after: Path) -> Iterator[str]:
    with np.load(before) as ones, np.load(after) as others:
        for name in ones.files:
            if name not in others.files:
                yield f"{name} is gone"
            elif ones[name].shape != others[name].shape:
                yield f"{name}: shape {ones[name].shape} before, {others[name].shape} now"
            elif not np.array_equal(ones[name], others[name]):
                yield f"{name}: largest difference {np.abs(ones[name].astype(float) - others[name]).max()}"


def diff_run(before: Path, after: Path) -> Iterator[str]:
    """Give the differences of record and predictions of a run."""
    yield from diff_record(before, after)
    yield from diff_folders(before, after, "predictions/*.png", diff_bytes)


def diff_study(before: Path, after: Path) -> Iterator[str]:
    """Give the differences of results and tables of a study."""
    yield from (
        f"results.csv, {s}" for s in diff_lines(*((folder / "results.csv").read_text() for folder in (before, after)))
    )
    yield from diff_folders(before, after, "tables/*", lambda a, b: diff_table(a.read_text(), b.read_text(), a.suffix))


# Checks


def list_checks(place: Path, source: Path) -> dict[str, Callable[[], Iterable[str]]]:
    """Return the checks by name, in order; each does its work and gives the differences."""
    before, half, finished = (Side(place / "source" / "src", place / name) for name in ("before", "half", "finished"))
    now = Side(source / "src", place / "now")

    def report(name: str) -> Iterable[str]:
        copy(name, before, now)
        (now.folder / name / "results.csv").unlink()
        shutil.rmtree(now.folder / name / "tables")
        now.call("study", "--report-only", "--output", name)
        return diff_study(before.folder / name, now.folder / name)

    def retrained(name: str) -> Iterable[str]:
        shutil.rmtree(now.folder / name, ignore_errors=True)
        now.train(name)
        return diff_run(before.folder / name, now.folder / name)

    def run_of_study() -> Iterator[str]:
        copy("study", before, now)
        shutil.rmtree(now.folder / "study" / RETRAINED)
        now.study("study")
        yield from diff_run(before.folder / "study" / RETRAINED, now.folder / "study" / RETRAINED)
        yield from diff_study(before.folder / "study", now.folder / "study")

    def continued_run() -> Iterable[str]:
        copy("half-run", half, now)
        now.train("half-run")
        return diff_run(finished.folder / "half-run", now.folder / "half-run")

    def continued_study() -> Iterator[str]:
        copy("half-study", half, now)
        now.study("half-study")
        folders = finished.folder / "half-study", now.folder / "half-study"
        yield from diff_study(*folders)
        yield from diff_folders(*folders, "runs/*/*/fold-*", diff_run)

    def logits() -> Iterable[str]:
        now.logits(before.folder, model_names(before.folder))
        return diff_arrays(before.folder / "logits.npz", now.folder / "logits.npz")

    def inventory(part: str) -> Iterable[str]:
        return diff(part, json.loads((place / "inventory.json").read_text())[part], now.inventory()[part])

    def options() -> Iterable[str]:
        listed = [(folder / OPTIONS).read_text().splitlines() for folder in (place / "source", source)]
        verbs = dict.fromkeys(line.rpartition(" ")[0] for line in listed[1])
        return diff("options", dict.fromkeys(listed[0]), dict.fromkeys(now.options(verbs)))

    return {
        "signatures": lambda: inventory("signatures"),
        "states": lambda: inventory("states"),
        "options": options,
        "logits": logits,
        **{f"report {name}": lambda name=name: report(name) for name in ("study", "corrupted", "arms")},
        "train paper": lambda: retrained("paper"),
        "train classes": lambda: retrained("classes"),
        "train a run of study": run_of_study,
        "continue half-run": continued_run,
        "continue half-study": continued_study,
    }


def run_checks(checks: dict[str, Callable[[], Iterable[str]]]) -> bool:
    """Print one line for each check, and return whether nothing differs."""
    is_same = True
    for name, check in checks.items():
        started = time.monotonic()
        try:
            found = list(check())
        except (RuntimeError, OSError, ValueError, KeyError) as error:  # the other checks are made all the same
            found = [f"{type(error).__name__}: {error}"]
        is_same &= not found
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        verdict = f"DIFFERS {name}: {found[0]}{more}" if found else f"ok      {name}"
        print(f"{verdict} [{time.monotonic() - started:.0f} s]", flush=True)
    return is_same


def main() -> None:
    """Make fixtures, do checks; with ``logits`` or ``inventory`` as the first word: what runs on both sides."""
    if sys.argv[1:2] == ["logits"]:
        write_logits(Path(sys.argv[2]), sys.argv[3:])
        return
    if sys.argv[1:2] == ["inventory"]:
        print_inventory()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="the commit to compare with")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "smooth-attention-same"),
                        help="where fixtures are kept, outside the repository; about 8 GB")  # fmt: skip
    parser.add_argument("--after", type=Path, default=ROOT, help="the checkout that is checked; left out: this one")
    parser.add_argument("--only", help="checks whose name matches, e.g. 'report*'")
    options = parser.parse_args()
    if options.work.resolve().is_relative_to(ROOT):
        parser.error(f"--work is a folder outside the repository, got {options.work}")
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", f"{options.before}^{{commit}}"], check=True, capture_output=True, text=True
    ).stdout.strip()
    place = options.work.resolve() / commit[:12]
    place.mkdir(parents=True, exist_ok=True)
    checks = list_checks(place, options.after.resolve())
    names = fnmatch.filter(checks, options.only or "*")
    if not names:
        parser.error(f"--only names no check, got {options.only!r}; known: {', '.join(checks)}")
    make_fixtures(commit, place)
    shutil.rmtree(place / "now", ignore_errors=True)
    print(f"{commit[:12]} before; left out of records: {', '.join(LEFT_OUT)}; allowed: {ALLOWED or 'nothing new'}")
    sys.exit(0 if run_checks({name: checks[name] for name in names}) else 1)


if __name__ == "__main__":
    main()
