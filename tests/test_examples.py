"""What README and docs show: Python runs, page by page from top to bottom; commands are ones that can be given."""

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from smooth_attention.cli.main import VERBS
from smooth_attention.cli.options import read_options

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!--([^\n]*)-->\n+)?^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
REASON = re.compile(r" not run: \S.* ")  # a comment before a block that is not run says why


class Shown(NamedTuple):
    """A block of code on a page."""

    language: str
    code: str


def read_blocks(text: str) -> list[Shown]:
    """Return the blocks of a page that are to be run."""
    return [
        Shown(language, code) for comment, language, code in BLOCK.findall(text) if not REASON.fullmatch(comment or "")
    ]


def read_commands(text: str) -> list[str]:
    """Return the command lines of the package on a page."""
    lines = [line for block in read_blocks(text) if block.language == "sh" for line in block.code.splitlines()]
    return [line for line in lines if line.startswith("smooth-attention ")]


def parse_command(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the options of a command line and stop there; wrong ones end with status 2."""
    arguments = shlex.split(line, comments=True)[1:]
    verb = next(verb for verb in VERBS if tuple(arguments[: len(verb)]) == verb)
    module = import_module(f"smooth_attention.cli.{'_'.join(verb)}")

    def stop(*read, **options):
        read_options(*read, **options)
        raise SystemExit(0)

    monkeypatch.setattr(module, "read_options", stop)
    with pytest.raises(SystemExit) as ended:
        module.run(arguments[len(verb) :], "smooth-attention")
    assert ended.value.code == 0


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_runs(page, scenes, look_run, bare_run, tmp_path, monkeypatch):
    """Paths that a page names stand for small ones: a folder of images, a photo, two runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name, place in (("my-images", scenes), ("runs/smooth", look_run), ("runs/none", bare_run)):
        (tmp_path / name).symlink_to(place)
    Image.open(scenes / "images" / "scene01.png").save("photo.jpg")
    names: dict[str, object] = {}
    for block in read_blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            exec(compile(block.code, name_of(page), "exec"), names)


@pytest.mark.parametrize(
    "line", [line for page in PAGES for line in dict.fromkeys(read_commands(page.read_text(encoding="utf-8")))]
)
def test_command_can_be_given(line, monkeypatch):
    parse_command(line, monkeypatch)


@pytest.mark.parametrize("wrong", ["--outptu run", "--output run --fractoin 0.5", "--output run more images"])
def test_command_that_can_not_be_given_is_found(wrong, monkeypatch):
    with pytest.raises(AssertionError):
        parse_command(f"smooth-attention train my-images {wrong}", monkeypatch)


@pytest.mark.parametrize(
    ("before", "is_run"),
    [
        ("", True),
        ("<!-- a remark -->\n", True),
        ("<!-- not run: -->\n", True),
        ("<!-- not run: downloads weights -->\n", False),
        ("<!-- not run: downloads weights -->\n\n", False),
        ("<!-- not run: downloads weights -->\n\ntext\n", True),
    ],
)
def test_block_is_left_out_for_a_reason_alone(before, is_run):
    assert read_blocks(f"# Page\n\n{before}```python\nraise\n```\n") == [Shown("python", "raise\n")] * is_run


def test_pages_show_code():
    blocks = [block for page in PAGES for block in read_blocks(page.read_text(encoding="utf-8"))]
    assert {block.language for block in blocks} == {"python", "sh"}
    assert len([line for page in PAGES for line in read_commands(page.read_text(encoding="utf-8"))]) > 20
