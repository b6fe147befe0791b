"""The command line as a user meets it: real processes, exit statuses, sentences."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smooth_attention.cli.main import VERBS, main
from smooth_attention.core.records import Record
from smooth_attention.data.files import open_image

GOLDEN = Path(__file__).parent / "options.txt"


@pytest.fixture
def call(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command line in this process; return exit status, output and errors."""
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(cache))

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        return (int(caught.value.code or 0), *capsys.readouterr())

    return run


def test_options_are_the_listed_ones(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    """The list of options is a golden file; ``--update`` in SMOOTH_ATTENTION_GOLDEN writes it anew."""
    monkeypatch.setenv("COLUMNS", "200")
    found = []
    for verb in VERBS:
        status, out, _ = call(*verb, "--help")
        assert status == 0
        words = set(re.findall(r"--[a-z][a-z-]*", out))
        found += [f"{' '.join(verb)} {word}" for word in sorted(words)]
    if os.environ.get("SMOOTH_ATTENTION_GOLDEN") == "--update":
        GOLDEN.write_text("\n".join(found) + "\n")
    assert found == GOLDEN.read_text().splitlines()


def test_without_a_verb_the_verbs_are_listed(call: Callable[..., Any]) -> None:
    for arguments in ((), ("--help",), ("data",), ("data", "--help")):
        status, out, _ = call(*arguments)
        assert status == 0
        assert all(" ".join(verb) in out for verb in VERBS)


def test_help_of_the_command_line_is_quick_and_needs_no_torch() -> None:
    code = "import sys; from smooth_attention.cli.main import run; run(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "no verb 'trian'; known: data check"),
        (["data", "chek"], "no verb 'data chek'"),
        (["train", "nowhere", "--output", "run"], "no such data directory: nowhere"),
        (["train", "shapes", "--output", "run", "--epochs", "many"], "invalid literal for int"),
        (["train", "shapes", "--output", "run", "--epochs", "0"], "epochs: Input should be greater than or equal to 1"),
        (["train", "shapes", "--output", "run", "--speed", "9"], "--speed"),
        (["train", "shapes"], "--output"),
        (["train", "shapes", "--output", "run", "--arm", "none", "--threshold", "0.4"], "takes neither threshold"),
        (["train", "shapes", "--output", "run", "--encoder", "resnet1"], "resnet1"),
        (["train", "shapes", "--output", "run", "--encoder-weights", "w.pth"], "'w.pth', which is no file"),
        (["train", "--config", "none.yaml", "--output", "run"], "can't read the configuration none.yaml"),
        (["train", "--config", "bad.yaml", "--output", "run"], "bad.yaml: epochs: "),
        (["evaluate", "nowhere"], "nowhere is no run"),
        (["predict", "nowhere", "a.png", "--output", "out"], "nowhere/config.json is missing"),
        (["compare", "a", "b", "--truth", "nowhere"], "no such folder of masks: nowhere"),
        (["data", "check", "nowhere"], "no such data directory: nowhere"),
        (["data", "check", "shapes", "--output", "g.csv"], "--output takes the groups"),
        (["data", "preview", "shapes", "--output", "p.gif"], "needs --output FILE.png"),
        (["train", "shapes", "--output", "bad.yaml/run"], "bad.yaml is no directory; name another place"),
        (["study", "shapes", "--output", "bad.yaml/run"], "bad.yaml is no directory; name another place"),
        (["evaluate", "nowhere", "--output", "bad.yaml/e.json"], "bad.yaml is no directory; name another place"),
        (["compare", "a", "b", "--truth", "c", "--output", "."], "is a directory; name a file in it"),
        (["data", "check", "shapes", "--near-duplicates", "--output", "."], "is a directory; name a file in it"),
        (["data", "preview", "shapes", "--output", "bad.yaml/p.png"], "bad.yaml is no directory; name another place"),
        (["train", "shapes", "--output", "n" * 256], "File name too long"),
        (["train", "n" * 256, "--output", "run"], "File name too long"),
        (["train", "--config", "utf16.yaml", "--output", "run"], "utf16.yaml is not in UTF-8: "),
        (["study", "--config", "latin1.yaml", "--output", "run"], "latin1.yaml is not in UTF-8: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_requests_get_a_sentence_status_2_and_leave_nothing(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "bad.yaml": b"epochs: many",
        "utf16.yaml": "epochs: 3".encode("utf-16"),
        "latin1.yaml": "data: größe".encode("latin-1"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    status, _, errors = call(*arguments)
    assert status == 2
    assert sentence in " ".join(errors.replace("│", " ").split())
    assert "Traceback" not in errors
    assert errors.count("error: ") <= 1
    assert {path.name for path in tmp_path.iterdir()} == files.keys()


def test_a_failed_run_has_status_1(call: Callable[..., Any], scenes: Path, tmp_path: Path) -> None:
    options = ["--encoder-weights", "none", "--image-size", 32, "--learning-rate", 1e36, "--clip-norm", 1e36]
    small = ["--output", tmp_path / "run", "--precision", 32, "--batch-size", 2]
    status, _, errors = call("train", scenes, *small, *options)
    assert (status, errors.startswith("failed: the loss became")) == (1, True)


def test_a_cache_that_cannot_be_written_is_told_before_training(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(tmp_path / "file" / "cache"))
    status, _, errors = call("train", "shapes", "--output", tmp_path / "run", "--encoder-weights", "none")
    assert (status, errors.count("\n")) == (2, 1)
    assert "can't be written (Not a directory); name another directory in SMOOTH_ATTENTION_CACHE" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (PermissionError(13, "Permission denied", "/data/a.png"), 2,
         "error: the system says: Permission denied (/data/a.png)"),
        (OSError(28, "No space left on device"), 1, "failed: the system says: No space left on device"),
        (OSError("<urlopen error\n timed out>"), 1, "failed: OSError: <urlopen error timed out>"),
        ("größe".encode("latin-1"), 2, "error: a text is not in the encoding that it should have: 'utf-8' codec can't"),
    ],
    ids=["right", "disk", "library", "text"],
)  # fmt: skip
def test_errors_of_the_system_are_sentences(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception | bytes, status: int, sentence: str
) -> None:
    def fail(*_: object) -> None:
        if isinstance(error, bytes):
            error.decode()
        else:
            raise error

    monkeypatch.setattr("smooth_attention.cli.data_list.run", fail)
    found, _, errors = call("data", "list")
    assert (found, errors.count("\n")) == (status, 1)
    assert errors.startswith(sentence)


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp932"])
def test_output_in_any_encoding_names_every_file(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    shutil.copy(data / "images" / "scene00.png", data / "images" / "lonely-ä-目-\N{BLACK STAR}.png")
    out, errors = io.TextIOWrapper(io.BytesIO(), encoding), io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", errors)
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", str(data)])
    out.seek(0)
    said = out.read()
    assert caught.value.code == 2
    assert "lonely-" in said
    assert any(f"\\{letter}" in said for letter in ("xe4", "u76ee", "u2605"))


def write_usage(to: int, unbuffered: str) -> tuple[int, str]:
    """Write the list of verbs from a process of its own; return its exit status and errors."""
    command, environment = [sys.executable, "-m", "smooth_attention"], {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=to, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    return done.returncode, done.stderr


def test_numbers_keep_their_signs_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("smooth_attention.cli.data_list.run", lambda *_: out.write("−0.27 ± 1, größer\n"))
    with pytest.raises(SystemExit):
        main(["data", "list"])
    out.seek(0)
    assert out.read() == "-0.27 +/- 1, gr\\xf6\\xdfer\n"


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_output_onto_a_full_disk_is_told(unbuffered: str) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        assert write_usage(full.fileno(), unbuffered) == (1, "failed: the system says: No space left on device\n")


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_output_that_nobody_reads_ends_the_command_quietly(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as out:
        assert write_usage(out.fileno(), unbuffered) == (1, "")


def test_home_is_read_in_every_path(
    call: Callable[..., Any], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    shutil.copytree(scenes, home / "scenes")
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    (home / "c.yaml").write_text("data: ~/scenes/\nencoder_weights: none\nimage_size: 32\nbatch_size: 4\nepochs: 1\n")
    assert call("train", "--config=~/c.yaml", "--output=~/run")[0] == 0
    assert json.loads((home / "run" / "record.json").read_text())["config"]["data"] == str(home / "scenes")
    assert (home / "run" / "checkpoints" / "last.ckpt").is_file()
    assert call("data", "preview", "~/scenes", "--output=~/p.png")[0] == 0
    assert (home / "p.png").is_file()
    assert [*here.iterdir()] == []


@pytest.mark.slow
def test_an_interrupted_run_has_status_130(scenes: Path, cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "smooth_attention", "train", str(scenes), "--output", str(tmp_path / "run")]
    options = ["--encoder-weights", "none", "--image-size", "32", "--epochs", "1000"]
    environment = {**os.environ, "SMOOTH_ATTENTION_CACHE": str(cache)}
    with subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("epoch 1/1000")
        process.send_signal(2)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert "the same command continues where it stopped" in errors


def test_config_file_gives_defaults_and_options_win(call: Callable[..., Any], scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        f"data: {scenes}\nencoder_weights: none\nimage_size: 64\nbatch_size: 4\n"
        "epochs: 1\nstages: [-1]\nthreshold: 0.3\n"
    )
    run = tmp_path / "run"
    status, out, _ = call("train", "--config", tmp_path / "c.yaml", "--output", run, "--threshold", 0.2)
    assert status == 0
    config = json.loads((run / "record.json").read_text())["config"]
    assert (config["threshold"], config["stages"], config["epochs"]) == (0.2, [-1], 1)
    assert "epoch 1/1: train loss" in out
    assert "protocol standard, " in out
    assert ", one seed" in out


def test_evaluate_prints_its_convention_and_writes_json(
    call: Callable[..., Any], finished_run: tuple[Path, Record], tmp_path: Path
) -> None:
    run, record = finished_run
    status, out, _ = call("evaluate", run, "--gate", "off", "--output", tmp_path / "e.json")
    written = json.loads((tmp_path / "e.json").read_text())
    assert (status, written["mode"]) == (0, "gate_off")
    assert written["metrics"]["pooled"]["iou"] == pytest.approx(record.metrics.test.gate_off.iou, abs=1e-3)
    assert "pooled: counts added over images; per image: mean over images" in " ".join(out.split())


def test_predict_and_compare_work_on_their_files(
    call: Callable[..., Any], finished_run: tuple[Path, Record], scenes: Path, tmp_path: Path
) -> None:
    run, record = finished_run
    status, out, _ = call("predict", run, scenes / "images", "--output", tmp_path / "masks", "--overlay")
    assert status == 0
    assert "12 masks in" in out
    for path in (scenes / "masks").iterdir():
        assert open_image(tmp_path / "masks" / path.name).size == open_image(path).size
        (tmp_path / "masks" / f"{path.stem}_overlay.png").unlink()
    status, out, _ = call("compare", run, tmp_path / "masks", "--truth", scenes, "--output", tmp_path / "c.json")
    assert status == 0
    assert "these two networks only" in " ".join(out.split())
    result = json.loads((tmp_path / "c.json").read_text())
    assert result["a"]["pooled"]["iou"] == pytest.approx(record.metrics.test.pooled.iou)
    assert result["num_images"] == len(record.data.split.test)


def test_predict_goes_on_after_an_image_that_is_broken(
    call: Callable[..., Any], finished_run: tuple[Path, Record], scenes: Path, tmp_path: Path
) -> None:
    whole, broken = sorted((scenes / "images").iterdir())[:2]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / whole.name).write_bytes(whole.read_bytes())
    (tmp_path / "in" / broken.name).write_bytes(broken.read_bytes()[:300])
    status, out, err = call("predict", finished_run[0], tmp_path / "in", "--output", tmp_path / "out")
    assert (status, [path.name for path in (tmp_path / "out").iterdir()]) == (1, [whole.name])
    assert f"left out: {tmp_path}/in/{broken.name} is broken" in out
    assert "1 of 2 images can't be read" in err
    (tmp_path / "file").touch()
    status, _, err = call("predict", finished_run[0], tmp_path / "in", "--output", tmp_path / "file" / "out")
    assert (status, "can't be written" in err) == (2, True)


def test_data_check_lists_problems_and_proposes_groups(call: Callable[..., Any], scenes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    status, out, _ = call("data", "check", data)
    assert status == 0
    assert "12 readable pairs in 12 groups" in out
    flipped = np.asarray(open_image(data / "images" / "scene00.png"))[:, ::-1]
    Image.fromarray(flipped).save(data / "images" / "zcopy.png")
    shutil.copy(data / "masks" / "scene00.png", data / "masks" / "zcopy.png")
    (data / "images" / "scene01.png").write_bytes(b"no image")
    (data / "images" / "lonely.png").write_bytes((data / "images" / "scene02.png").read_bytes())
    status, out, errors = call("data", "check", data, "--near-duplicates", "--output", tmp_path / "groups.csv")
    assert status == 2
    assert "2 problems" in errors
    assert "scene01.png is no image that can be read" in out
    assert "lonely.png has no mask of the same stem" in out
    rows = dict(line.split(",") for line in (tmp_path / "groups.csv").read_text().splitlines())
    assert rows["scene00"] == rows["zcopy"]
    assert rows["scene02"] != rows["scene00"]


def test_data_preview_writes_a_picture(call: Callable[..., Any], scenes: Path, tmp_path: Path) -> None:
    status, out, _ = call("data", "preview", scenes, "--output", tmp_path / "p.png", "--count", 4)
    assert status == 0
    assert "4 of 12 pairs of scenes" in out
    assert min(open_image(tmp_path / "p.png").size) > 200
