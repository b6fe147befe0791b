"""The hub through its real client, against a server of this machine: pushing, reading by name, and what is refused."""

import base64
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import ModelCard, close_session, constants

from smooth_attention.core.errors import DataError, OptionError
from smooth_attention.models import create_model, load_model
from smooth_attention.models.hub import is_hub_name

NAME = "owner/name"
FILES = ["README.md", "config.json", "model.safetensors"]
COMMIT = "0123456789" * 4


class LocalHub:
    """What the client asks of a hub, over HTTP; it keeps the repositories and what it was asked.

    Attributes:
        files: of each repository, content by path.
        created: the bodies of the requests for a repository.
        log: method and path of each request.
        tokens: of the requests.
        refusal: the status that answers everything, or None.
        complaint: what is wrong with the metadata of any model card, or None.
    """

    def __init__(self):
        self.files, self.created, self.log, self.tokens = {}, [], [], set()
        self.refusal, self.complaint = None, None

    def answer(self, method, path, body):
        """Return status, headers and content for a request."""
        if self.refusal is not None:
            return self.refusal, {}, b'{"error": "not for you"}'
        if path == "/api/repos/create":
            request = json.loads(body)
            self.created.append(request)
            self.files.setdefault(f"{request['organization']}/{request['name']}", {})
            return 200, {}, json.dumps({"url": f"{constants.ENDPOINT}/{NAME}"}).encode()
        if path == "/api/validate-yaml":
            errors = [] if self.complaint is None else [{"message": self.complaint}]
            return (400 if errors else 200), {}, json.dumps({"errors": errors, "warnings": []}).encode()
        if found := re.fullmatch(r"/api/models/(\w+/\w+)/(preupload|commit)/main", path):
            return self.take(*found.groups(), body)
        if found := re.fullmatch(r"/(\w+/\w+)/resolve/main/(.+)", path):
            return self.give(*found.groups())
        return 404, {}, b"{}"

    def take(self, repository, step, body):
        if step == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return 200, {}, json.dumps({"files": modes}).encode()
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.files[repository][line["value"]["path"]] = content
        page = f"{constants.ENDPOINT}/{repository}"
        commit = {"commitUrl": f"{page}/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": None}
        return 200, {}, json.dumps(commit).encode()

    def give(self, repository, path):
        if repository not in self.files:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if path not in self.files[repository]:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        content = self.files[repository][path]
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, content


@pytest.fixture
def point_client_at(monkeypatch, tmp_path):
    """Let the client of the hub know only one address, an empty cache, a token that is none, and no patience."""

    def point(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)  # where a directory owner/name would be looked for
    close_session()
    yield point
    close_session()


@pytest.fixture
def hub(point_client_at):
    """A hub without models."""
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        def handle_request(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            hub.log.append((self.command, path))
            hub.tokens.add(self.headers.get("Authorization"))
            status, headers, content = hub.answer(self.command, path, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = handle_request  # noqa: N815 - the names that http.server calls

        def log_message(self, *args):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        point_client_at(f"http://127.0.0.1:{server.server_address[1]}")
        yield hub
        server.shutdown()
        thread.join()


@pytest.fixture
def nowhere(point_client_at):
    """The address of a hub that does not listen."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    point_client_at(address)
    return address


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create_model(
        encoder_name="mobilenet_v2",
        encoder_weights=None,
        decoder_channels=(32, 16, 16, 8, 8),
        block_options={"threshold": 0.3, "gamma_init": 0.5},
    ).eval()


def test_pushed_network_is_read_back_by_its_name(hub, net, images):
    assert net.push_to_hub(NAME) == f"{constants.ENDPOINT}/{NAME}"
    again = load_model(NAME)
    assert again.recipe == json.loads(json.dumps(net.recipe))
    assert again.preprocessing == net.preprocessing
    with torch.no_grad():
        assert torch.equal(again(images), net(images))


def test_push_uploads_the_model_directory_and_the_card_names_the_model(hub, net):
    net.push_to_hub(NAME)
    assert sorted(hub.files[NAME]) == FILES
    card = hub.files[NAME]["README.md"].decode()
    assert f'net = sa.load_model("{NAME}")' in card
    assert f"\n# {NAME}\n" in card
    assert ModelCard(card).data.model_name == NAME


def test_push_makes_the_repository_with_the_users_token(hub, net):
    net.push_to_hub(NAME)
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("owner", "name")
    assert hub.tokens == {"Bearer hf_of_nobody"}


@pytest.mark.parametrize(("private", "visibility"), [(True, "private"), (False, "public")])
def test_push_passes_on_whether_the_model_is_private(hub, net, private, visibility):
    net.push_to_hub(NAME, private=private)
    assert hub.created[0]["visibility"] == visibility


def test_push_passes_the_licence_on(hub, net, monkeypatch):
    monkeypatch.setattr(net, "facts", {})
    net.push_to_hub(NAME, licence="cc-by-4.0")
    assert ModelCard(hub.files[NAME]["README.md"].decode()).data.license == "cc-by-4.0"
    assert load_model(NAME).facts == {"licence": "cc-by-4.0"}


def test_push_to_a_name_that_is_taken_replaces_the_model(hub, net):
    other = create_model(encoder_name="mobilenet_v2", encoder_weights=None, block="none").eval()
    other.push_to_hub(NAME)
    net.push_to_hub(NAME)
    assert load_model(NAME).recipe["block"] == "smooth"


def test_second_load_downloads_nothing_again(hub, net):
    net.push_to_hub(NAME)
    load_model(NAME)
    downloads = [path for method, path in hub.log if method == "GET"]
    assert downloads == [f"/{NAME}/resolve/main/{file}" for file in FILES[1:]]
    load_model(NAME)
    assert [path for method, path in hub.log if method == "GET"] == downloads


def test_loaded_model_is_read_again_without_the_hub(hub, net):
    net.push_to_hub(NAME)
    load_model(NAME)
    hub.refusal = 503
    assert load_model(NAME).recipe["block"] == "smooth"


def test_local_directory_wins_over_the_hub(hub, net, tmp_path):
    net.save_pretrained(tmp_path / NAME)
    assert load_model(NAME).recipe["encoder_name"] == "mobilenet_v2"
    assert hub.log == []


def test_misspelt_run_is_not_asked_for_on_the_hub(hub, tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(DataError, match=r"runs/flod/config.json is missing; give what save_pretrained wrote"):
        load_model("runs/flod")
    assert hub.log == []


def test_name_that_the_hub_does_not_know_is_refused(hub):
    with pytest.raises(
        DataError,
        match=r"no directory owner/other, and the hub gave no model of that name \(404 .*\); give a run, what",
    ):
        load_model("owner/other")


@pytest.mark.parametrize("missing", FILES[1:])
def test_repository_that_lacks_a_file_is_refused(hub, net, missing):
    net.push_to_hub(NAME)
    del hub.files[NAME][missing]
    with pytest.raises(DataError, match=rf"the hub gave no model of that name \(404 .*{missing}.*\); give a run"):
        load_model(NAME)


def test_model_that_was_changed_on_the_hub_is_refused(hub, net):
    net.push_to_hub(NAME)
    hub.files[NAME]["config.json"] = hub.files[NAME]["config.json"].replace(b'"threshold": 0.3', b'"threshold": 0.9')
    with pytest.raises(DataError, match=r"config.json is not the one saved with model.safetensors: it was changed"):
        load_model(NAME)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_hub_that_refuses_to_give_is_reported(hub, status):
    hub.refusal = status
    with pytest.raises(DataError, match=rf"the hub gave no model of that name \(.*{status} .*\); give a run") as caught:
        load_model(NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_hub_that_refuses_to_take_is_reported(hub, net, status):
    hub.refusal = status
    with pytest.raises(
        DataError, match=rf"the hub did not take {NAME} \(.*{status} .*\); see `hf auth login`"
    ) as caught:
        net.push_to_hub(NAME)
    assert "\n" not in str(caught.value)


def test_hub_that_refuses_the_card_is_reported(hub, net):
    hub.complaint = '"license" must be one of its list'
    with pytest.raises(DataError, match=r'did not take owner/name \(Invalid metadata .*"license" must be one of'):
        net.push_to_hub(NAME)
    assert hub.files[NAME] == {}


def test_hub_out_of_reach_is_reported(nowhere, net):
    with pytest.raises(DataError, match=r"hub gave no model of that name \(.*refused.*\); give a run"):
        load_model(NAME)
    with pytest.raises(DataError, match=r"the hub did not take owner/name \(.*refused.*\); see"):
        net.push_to_hub(NAME)


@pytest.mark.parametrize("error", [RuntimeError("Data processing error"), ValueError("no url"), OSError()], ids=repr)
def test_error_of_the_client_is_reported(hub, net, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", fail)
    reason = str(error) or "OSError"
    with pytest.raises(DataError, match=rf"gave no model of that name \({reason}\); give a run"):
        load_model(NAME)
    with pytest.raises(DataError, match=rf"did not take owner/name \({reason}\); see"):
        net.push_to_hub(NAME)


@pytest.mark.parametrize("name", ["name", "owner/name/more", "/owner/name", "owner/", "../name", "owner/na me", ""])
def test_name_that_is_no_owner_and_name_is_refused(hub, net, name):
    with pytest.raises(OptionError, match=rf"a model on the hub is called owner/name, got {re.escape(repr(name))}"):
        net.push_to_hub(name)
    with pytest.raises(DataError, match="is missing; give what save_pretrained wrote"):
        load_model(name)
    assert hub.log == []


@pytest.mark.parametrize("name", ["owner/na..me", "owner/name.git", "owner/na--me"])
def test_name_that_the_client_does_not_allow_is_refused(hub, net, name):
    with pytest.raises(DataError, match=rf"the hub did not take {re.escape(name)} \(.*\); see"):
        net.push_to_hub(name)
    with pytest.raises(DataError, match=r"the hub gave no model of that name \(.*\); give a run"):
        load_model(name)
    assert hub.log == []


@pytest.mark.parametrize("name", ["owner/name", "o/n", "Some-One/net_1.2-b", "0/0"])
def test_owner_and_name_are_a_hub_name(name):
    assert is_hub_name(name)
