"""Fetching, from a server on this machine: licence, resumption, checksums, safe unpacking, placing by hand."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import sys
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from smooth_attention.cli.main import main
from smooth_attention.core.errors import DataError, OptionError, RunError
from smooth_attention.data import fetch
from smooth_attention.data.archives import unpack
from smooth_attention.data.fetch import DATASETS, fetch_dataset
from smooth_attention.data.layouts import PUBLISHED
from smooth_attention.data.opening import open_source


@dataclass
class Site:
    """What the server holds, and what was asked of it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    breaks_at: int | None = None  # cut the connection after so many bytes
    has_ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def site():
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            name = self.path.rpartition("/")[2]
            site.asked.append((name, wanted))
            if name not in site.files:
                return self.send_error(404)
            whole = site.files[name]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.has_ranges else 0
            if start >= len(whole) > 0 and start:
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(whole) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
            self.end_headers()
            self.wfile.write(whole[start : site.breaks_at])
            return None

        def do_POST(self):  # as Kaggle's client asks
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            site.asked.append((self.path.rpartition("/")[2], None))
            if self.path.endswith("GetDataset") and site.files:
                body = json.dumps({"currentVersionNumber": 3}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
            elif site.files:
                body = site.files["archive.zip"]
                self.send_response(200)
                self.send_header("Content-Type", "application/zip")
            else:
                return self.send_error(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


def encode(array, kind):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
JPEG, PNG = encode(NOISE, "JPEG"), encode(np.uint8(255) * (NOISE > 128)[..., [0, 0, 0]], "PNG")


def tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def instruments_zip(padding=2):
    stems = "abcdef"
    return zipped(
        {
            "kvasir-instrument/images.tar.gz": tar({f"images/{stem}.jpg": JPEG for stem in stems}),
            "kvasir-instrument/masks.tar.gz": tar({f"masks/{stem}.png": PNG for stem in stems}),
            "kvasir-instrument/train.txt": "a\nb\nc\nd\n",
            "kvasir-instrument/test.txt": "e\nf\n",
            "kvasir-instrument/bboxes.json": " " * padding,
        }
    )


def flood_zip():
    parts = {"train": range(3), "val": range(2)}
    images = {f"dataset/{part}/images/{i}.jpg": JPEG for part, some in parts.items() for i in some}
    masks = {f"dataset/{part}/labels/{i}.png": PNG for part, some in parts.items() for i in some}
    return zipped(images | masks)


@pytest.fixture
def birds(site, monkeypatch):
    """Birds of one class on the site, their sizes and checksums published."""
    stems = [f"001.Albatross/Albatross_{index}" for index in range(4)]
    site.files = {
        "CUB_200_2011.tgz": tar({f"CUB_200_2011/images/{stem}.jpg": JPEG for stem in stems}),
        "segmentations.tgz": tar({f"segmentations/{stem}.png": PNG for stem in stems}),
    }
    downloads = tuple(
        replace(
            item, checksum=f"md5:{hashlib.md5(site.files[item.name]).hexdigest()}", num_bytes=len(site.files[item.name])
        )
        for item in DATASETS["birds"].downloads
    )
    monkeypatch.setitem(DATASETS, "birds", replace(DATASETS["birds"], downloads=downloads))
    return site


def fetched(name, root, site, **options):
    return fetch_dataset(name, root, base_url=site.url, **{"accept_licence": True, **options})


def test_datasets_are_the_published_layouts():
    assert list(DATASETS) == list(PUBLISHED)
    assert [len(dataset.downloads) for dataset in DATASETS.values()] == [2, 0, 0, 1, 0]
    assert [dataset.handle is None for dataset in DATASETS.values()] == [True, False, False, True, False]
    urls = [item.base_url for dataset in DATASETS.values() for item in dataset.downloads]
    assert all(url.startswith("https://") for url in urls)


@pytest.mark.parametrize("name", DATASETS)
def test_licence_comes_before_the_first_byte(tmp_path, site, name):
    with pytest.raises(
        OptionError, match=r"comes under this licence: .*; give --accept-licence to accept it"
    ) as raised:
        fetched(name, tmp_path, site, accept_licence=False)
    assert DATASETS[name].licence in str(raised.value)
    assert (site.asked, list(tmp_path.iterdir())) == ([], [])


def test_unknown_name_is_refused(tmp_path, site):
    with pytest.raises(OptionError, match="no dataset 'cats' to fetch; known: birds, fish, fire, instruments, flood"):
        fetched("cats", tmp_path, site)


def test_birds_come_from_two_archives_with_their_checksums(tmp_path, birds):
    lines = []
    path = fetched("birds", tmp_path, birds, report=lines.append)
    assert path == tmp_path / "birds"
    assert len(open_source(path).stems) == 4
    assert [name for name, _ in birds.asked] == ["CUB_200_2011.tgz", "segmentations.tgz"]
    assert "licence, accepted: non-commercial research" in lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["birds", "birds-archives"]
    asked = [*birds.asked]
    assert fetched("birds", tmp_path, birds, accept_licence=False, report=lines.append) == path
    assert (birds.asked, lines[-1]) == (asked, f"{path} is there already")


def test_instruments_unpack_archives_inside_an_archive(tmp_path, site):
    site.files["kvasir-instrument.zip"] = instruments_zip()
    path = fetched("instruments", tmp_path, site)
    source = open_source(path)
    assert (source.name, source.stems, source.problems) == ("instruments", tuple("abcdef"), ())
    assert source.given_splits == {"train": tuple("abcd"), "test": tuple("ef")}
    assert list(path.rglob("*.tar.gz")) == []


@pytest.mark.parametrize("has_ranges", [True, False], ids=["ranges", "no ranges"])
def test_broken_download_goes_on_where_it_stopped(tmp_path, site, has_ranges):
    whole = instruments_zip(padding=300_000)
    site.files["kvasir-instrument.zip"], site.breaks_at, site.has_ranges = whole, 200_000, has_ranges
    match = (
        r"kvasir-instrument\.zip could not be fetched \(.*\); the same command continues .*put into .*instruments-arc"
    )
    with pytest.raises(RunError, match=match):
        fetched("instruments", tmp_path, site)
    begun = tmp_path / "instruments-archives" / "kvasir-instrument.zip.part"
    have = begun.stat().st_size
    assert 100_000 < have <= 200_000
    assert begun.read_bytes() == whole[:have]
    assert not (tmp_path / "instruments").exists()
    site.breaks_at = None
    fetched("instruments", tmp_path, site)
    assert site.asked == [("kvasir-instrument.zip", None), ("kvasir-instrument.zip", f"bytes={have}-")]
    assert (tmp_path / "instruments-archives" / "kvasir-instrument.zip").read_bytes() == whole
    assert not begun.exists()


def test_part_that_is_no_beginning_is_fetched_anew(tmp_path, site):
    site.files["kvasir-instrument.zip"] = instruments_zip()
    begun = tmp_path / "instruments-archives" / "kvasir-instrument.zip.part"
    begun.parent.mkdir()
    begun.write_bytes(bytes(len(site.files["kvasir-instrument.zip"])))
    fetched("instruments", tmp_path, site)
    assert [wanted is None for _, wanted in site.asked] == [False, True]


def test_archive_placed_by_hand_is_not_asked_for(tmp_path, birds):
    store = tmp_path / "birds-archives"
    store.mkdir()
    for name, content in birds.files.items():
        (store / name).write_bytes(content)
    fetched("birds", tmp_path, birds)
    assert birds.asked == []


def test_content_other_than_published_is_refused(tmp_path, birds):
    whole = birds.files["segmentations.tgz"]
    birds.files["segmentations.tgz"] = bytes(len(whole))
    with pytest.raises(
        RunError, match=r"segmentations\.tgz could not be fetched \(MD5 hash of downloaded file .* does n"
    ):
        fetched("birds", tmp_path, birds)
    birds.files["segmentations.tgz"] = whole + b"more"
    with pytest.raises(RunError, match=rf"the server offers {len(whole) + 4} bytes, published are {len(whole)}"):
        fetched("birds", tmp_path, birds)
    assert [path.name for path in tmp_path.iterdir()] == ["birds-archives"]
    birds.files["segmentations.tgz"] = whole
    fetched("birds", tmp_path, birds)


def test_absent_file_and_absent_server_are_told_with_the_way_by_hand(tmp_path, site):
    with pytest.raises(RunError, match=r"404.*get kvasir-instrument\.zip from https://datasets\.simula\.no/.*put into"):
        fetched("instruments", tmp_path, site)
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9/kvasir-instrument\.zip could not be fetched"):
        fetch_dataset("instruments", tmp_path, accept_licence=True, base_url="http://127.0.0.1:9")


def test_directory_that_holds_something_else_is_refused(tmp_path, site):
    (tmp_path / "flood").mkdir()
    with pytest.raises(
        DataError, match=r"flood is there and does not hold Flood Semantic .*; remove it, or name another"
    ):
        fetched("flood", tmp_path, site)


def test_archive_of_something_else_is_refused_and_leaves_no_tree(tmp_path, site):
    site.files["kvasir-instrument.zip"] = zipped({"readme.txt": "moved"})
    with pytest.raises(DataError, match=r"what was fetched for 'instruments' has not images/, masks/, .*; see https:"):
        fetched("instruments", tmp_path, site)
    assert [path.name for path in tmp_path.iterdir()] == ["instruments-archives"]


def test_kaggle_archive_placed_by_hand_is_unpacked(tmp_path, site):
    (tmp_path / "flood-archives").mkdir()
    (tmp_path / "flood-archives" / "archive.zip").write_bytes(flood_zip())
    source = open_source(fetched("flood", tmp_path, site))
    assert {part: len(stems) for part, stems in source.given_splits.items()} == {"train": 3, "test": 2}


@pytest.fixture
def kaggle(site, tmp_path, monkeypatch):
    """Kaggle's own client, pointed at the site; its table of servers is the only seam it has."""
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, site.url)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nobody"))
    return site


def test_kaggle_dataset_comes_through_its_own_client(tmp_path, kaggle):
    kaggle.files["archive.zip"] = flood_zip()
    path = fetched("flood", tmp_path / "data", kaggle)
    assert [name for name, _ in kaggle.asked] == ["GetDataset", "DownloadDataset"]
    assert len(open_source(path).stems) == 5


def test_kaggle_failure_is_told_with_the_way_by_hand(tmp_path, kaggle):
    with pytest.raises(RunError, match=r"dataset could not be fetched from Kaggle \((.|\n)*put into .*flood-archives"):
        fetched("flood", tmp_path / "data", kaggle)


def test_link_or_copy_copies_where_links_are_not_possible(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("text")
    fetch.link_or_copy(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(*paths):
        raise OSError("another device")

    monkeypatch.setattr(fetch.os, "link", refuse)
    fetch.link_or_copy(str(tmp_path / "a"), str(tmp_path / "c"))
    assert (tmp_path / "c").read_text() == "text"
    assert not (tmp_path / "c").samefile(tmp_path / "a")


@pytest.mark.parametrize(("name", "module"), [("birds", "pooch"), ("fish", "kagglehub")])
def test_missing_package_names_what_to_install(tmp_path, site, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptionError, match=rf"fetching needs {module}: pip install 'smooth-attention\[data\]'"):
        fetched(name, tmp_path, site)


def symlink(name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, to
    return info


def zip_link():
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        tar({"../out.txt": b"x"}),
        tar({"link": symlink("link", "../../out")}),
        tar({"link": symlink("link", "/etc/passwd")}),
        zipped({"../out.txt": "x"}),
        zipped({"a/../../out.txt": "x"}),
        zipped({"/out.txt": "x"}),
        zipped({"..\\out.txt": "x"}),
        zipped({"C:/out.txt": "x"}),
        zip_link(),
        zipped({"inner.tar.gz": tar({"../../out.txt": b"x"})}),
    ],
    ids=[
        *("tar up", "tar link", "tar absolute link", "zip up", "zip inner up", "zip absolute", "zip backslash"),
        *("zip drive", "zip link", "nested"),
    ],
)
def test_member_that_would_leave_the_directory_is_refused(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    (tmp_path / "deep" / "tree").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has a member that is not safe to unpack \(.*\); refused"):
        unpack(tmp_path / "archive", tmp_path / "deep" / "tree")
    assert {path.name for path in tmp_path.rglob("*")} <= {"archive", "deep", "tree", ".inner.tar.gz.packed"}


@pytest.mark.parametrize(
    "content",
    [b"text", b"", tar({"a": NOISE.tobytes()})[:-900], instruments_zip()[:-40]],
    ids=["text", "empty", "tar", "zip"],
)
def test_damaged_archive_is_told(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(DataError, match=r"archive is no archive or damaged \(.*\); remove it and fetch it again"):
        unpack(tmp_path / "archive", tmp_path / "tree")


def test_archives_nested_too_deep_are_refused(tmp_path):
    content = b"x"
    for _ in range(5):
        content = zipped({"inner.zip": content})
    (tmp_path / "archive.zip").write_bytes(content)
    (tmp_path / "tree").mkdir()
    with pytest.raises(DataError, match=r"holds archives more than 3 deep; unpack it by hand"):
        unpack(tmp_path / "archive.zip", tmp_path / "tree")


def call(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_command_line_lists_and_refuses_without_the_licence(tmp_path, capsys):
    assert call("data", "list") == 0
    out = capsys.readouterr().out
    assert all(name in out and dataset.title in out for name, dataset in DATASETS.items())
    assert call("data", "fetch", "instruments", "--root", tmp_path) == 2
    assert "licence: research and education only" in capsys.readouterr().err


def test_command_line_fetches_what_lies_in_the_archives(tmp_path, capsys):
    (tmp_path / "flood-archives").mkdir()
    (tmp_path / "flood-archives" / "archive.zip").write_bytes(flood_zip())
    assert call("data", "fetch", "flood", "--root", tmp_path, "--accept-licence") == 0
    assert f"data: {tmp_path}/flood" in capsys.readouterr().out
    assert call("data", "check", tmp_path / "flood") == 0
    out = capsys.readouterr().out
    assert "note: stems carry the name of their folder" in out
    assert "0 problems" in out
