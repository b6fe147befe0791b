"""README and docs: README stays short, every link leads somewhere, the index lists every page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_LINES = 110
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def read_links(page):
    """Return the targets of a page's links and images inside the repository."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target.partition("#")[0] for target in targets if not target.startswith(("http", "#"))]


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES, f"README.md has {len(lines)} lines; move detail to a page under docs/"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert [target for target in read_links(page) if not (page.parent / target).exists()] == []


def test_index_lists_every_page():
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"index.md"}
    assert pages == set(read_links(DOCS / "index.md")) - {"../README.md"}
