"""The server from outside: what it refuses to start with, where it listens, what can be read through it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app_page import Served
from app_page import serve as serve_app
from deadlines import LAST_RESORT_S
from smooth_attention.app.serve import serve
from smooth_attention.cli.main import WRONG_REQUEST, run
from smooth_attention.core.errors import ConfigError
from smooth_attention.core.records import read_record


def fetch(url: str, data: Any = None) -> tuple[int, str]:
    body = None if data is None else json.dumps(data).encode()
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=LAST_RESORT_S) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def call(served: Served, event: str, *data: Any, person: str | None = None, at: tuple[int, int] | None = None) -> str:
    """Call an event, ``"load"`` or ``"part.event"``, as the page of a person would; return all that the server says.

    Args:
        at: where a click was, in pixels of the picture.
    """
    config = json.loads(fetch(served.url + "config")[1])
    part_name, _, event = event.rpartition(".")
    parts = [part["id"] for part in config["components"] if part["props"].get("elem_id") == part_name]
    number, inputs = next(
        (dependency["id"], dependency["inputs"])
        for dependency in config["dependencies"]
        if any(name == event and (not part_name or part in parts) for part, name in dependency["targets"])
    )
    values = {part["id"]: part["props"].get("value") for part in config["components"]}
    sent = [*data, *(values[part] for part in inputs[len(data) :])]
    person = person or f"test{os.urandom(4).hex()}"
    asked = {
        "data": sent,
        "fn_index": number,
        "session_hash": person,
        "event_data": at and {"index": at, "value": None},
    }
    status, said = fetch(served.url + "gradio_api/queue/join", asked)
    assert status == 200, said
    return fetch(served.url + f"gradio_api/queue/data?session_hash={person}")[1]


@pytest.mark.parametrize("how", ["gradio_api/file={}", "file={}", "gradio_api/file=..{}", "static/..{}", "assets/..{}"])
def test_no_file_of_the_machine_is_served(served: Served, app_runs: dict[str, Path], how: str) -> None:
    for path in ("/etc/passwd", str(app_runs["smooth"] / "record.json"), str(Path(__file__).resolve())):
        status, said = fetch(served.url + how.format(path))
        assert status in (403, 404, 405), said[:200]
        assert "smooth-attention" not in said
        assert "fingerprint" not in said
        assert "root:" not in said


def test_upload_takes_uploaded_files_only(served: Served, app_runs: dict[str, Path], wide_scenes: Path) -> None:
    for path in (wide_scenes / "images" / "scene00.png", Path("/etc/passwd"), app_runs["smooth"] / "record.json"):
        said = call(served, "upload.upload", {"path": str(path), "meta": {"_type": "gradio.FileData"}})
        assert '"success":false' in said
        assert "image scene00" not in said


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """Give the address of another server, and what was asked of it."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret.png", paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_server_fetches_nothing_for_a_stranger(served: Served, asked: tuple[str, list[str]]) -> None:
    address, paths = asked
    for file in ({"path": address}, {"path": address, "url": address}):
        assert '"success":false' in call(served, "upload.upload", {**file, "meta": {"_type": "gradio.FileData"}})
    assert paths == []


def test_sample_is_one_of_the_list(served: Served, app_runs: dict[str, Path]) -> None:
    person = "lists"  # who has loaded the page has a list
    assert '"success":true' in call(served, "load", person=person)
    stem = read_record(app_runs["smooth"]).data.split.test[-1]
    said = call(served, "sample.input", stem, person=person)
    assert '"success":true' in said
    assert f"image {stem}" in said
    for name in ("../../etc/passwd", "/etc/passwd", {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}):
        said = call(served, "sample.input", name, person=person)
        assert "root:" not in said
        assert '"success":false' in said or "no sample image" in said


def test_every_click_into_a_picture_is_answered(served: Served) -> None:
    """In Gradio's other modes a click while one is answered is lost, or the first is answered once more."""
    config = json.loads(fetch(served.url + "config")[1])
    pictures = {part["id"] for part in config["components"] if part["type"] == "image"}
    modes = [
        dependency["trigger_mode"]
        for dependency in config["dependencies"]
        if any(part in pictures and event == "select" for part, event in dependency["targets"])
    ]
    assert modes == ["multiple"] * 11  # the image, and five pictures of each of two networks


@pytest.mark.slow
def test_memory_stays_flat_over_two_hundred_clicks(served: Served) -> None:
    call(served, "load", person="clicks")

    def click(x: int, y: int) -> None:
        """Click into the image and fetch every picture of the answer, as a page does."""
        said = call(served, "main.select", person="clicks", at=(x, y))
        assert "of 6 x 6 positions" in said
        pictures = set(re.findall(r'"url": ?"(http[^"]+)"', said))
        assert len(pictures) >= 5
        assert all(fetch(url)[0] == 200 for url in pictures)

    places = np.random.default_rng(0).integers(0, 370, (220, 2)).tolist()  # within the shorter side
    for place in places[:20]:
        click(*place)
    before = resident_mib(served.pid)
    for place in places[20:]:
        click(*place)
    assert resident_mib(served.pid) < 1.05 * before


def resident_mib(pid: int) -> float:
    fields = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", fields)
    assert found is not None
    return int(found[1]) / 1024


def test_server_listens_on_this_machine_alone(served: Served) -> None:
    port = int(re.search(r":(\d+)/$", served.url)[1])
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    assert [place for place in listening if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


FIRST_PAGE = """
import sys, urllib.request
from smooth_attention.app.serve import serve

def announce(address):
    page = urllib.request.urlopen(address + "config").read().decode()
    print("Loading the network" in page, "torch" in sys.modules)
    raise KeyboardInterrupt

try:
    serve([], host="127.0.0.1", port=None, announce=announce)
except KeyboardInterrupt:
    print("ended")
"""


def test_first_page_is_served_before_torch_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_PAGE], capture_output=True, text=True, timeout=LAST_RESORT_S)
    assert done.stdout.split() == ["True", "False", "ended"], done.stderr


def test_page_names_no_other_machine(served: Served) -> None:
    page = fetch(served.url)[1]
    assert set(re.findall(r"(?:src|href)=[\"'](https?://[^\"']+)", page)) == set()


def test_requests_that_can_not_be_served(
    app_runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["app", str(tmp_path)]) == WRONG_REQUEST
    assert "is no run and no model: it holds neither record.json nor config.json" in capsys.readouterr().err
    run_path = str(app_runs["smooth"])
    assert run(["app", run_path, run_path]) == WRONG_REQUEST
    assert "named twice" in capsys.readouterr().err
    assert run(["app", run_path, "--port", "99999"]) == WRONG_REQUEST
    assert "a port is a number from 1 to 65535, got 99999" in capsys.readouterr().err
    assert run(["app", run_path, "--host", "256.0.0.1"]) == WRONG_REQUEST
    assert "can't listen at 256.0.0.1" in capsys.readouterr().err


def test_taken_port_is_a_sentence(served: Served) -> None:
    port = served.url.rstrip("/").rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-c", "from smooth_attention.cli.main import main; main()", "app", "--port", port],
        capture_output=True,
        text=True,
        timeout=LAST_RESORT_S,
    )
    assert done.returncode == WRONG_REQUEST
    assert f"can't listen at 127.0.0.1, port {port}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_gradio_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"needs Gradio; install smooth-attention\[app\]"):
        serve([], host="127.0.0.1", port=None, announce=print)


def test_page_of_a_damaged_model_says_so(app_runs: dict[str, Path], tmp_path: Path, cache: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "record.json").write_text("{")
    with serve_app(broken, cache=cache, folder=tmp_path) as page:
        assert "record.json is damaged" in call(page, "load")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_is_served(host: str, cache: Path, tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with serve_app("--host", host, cache=cache, folder=tmp_path) as page:
        assert page.url.startswith("http://[::1]:")
        assert fetch(page.url)[0] == 200


def test_free_port_is_found_beside_a_taken_one(served: Served, cache: Path, tmp_path: Path) -> None:
    with serve_app(cache=cache, folder=tmp_path) as other:
        assert other.url != served.url
        host, _, port = other.url.rstrip("/").rpartition("//")[2].partition(":")
        with socket.create_connection((host, int(port)), timeout=LAST_RESORT_S):
            pass
