"""What is private: a name that its file leaves out of ``__all__``. Other files use those in it; none is unused."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import smooth_attention

ROOT = Path(__file__).parents[1]
SOURCES, BENCHMARKS = ROOT / "src", ROOT / "benchmarks"
PACKAGE = SOURCES / smooth_attention.__name__
ENTRY_POINT = ("smooth_attention.cli.main", "main")


def module_of(file: Path, sources: Path) -> str:
    return ".".join(file.relative_to(sources).with_suffix("").parts)


def uses_in(text: str, modules: set[str]) -> Iterator[tuple[str, str]]:
    """Each module and name in it that a text imports, or reads from a module that it imports."""
    tree, known = ast.parse(text), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if f"{node.module}.{alias.name}" in modules:
                    known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                elif node.module in modules:
                    yield node.module, alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            yield known[node.value.id], node.attr


def own_names(text: str) -> tuple[set[str], list[str] | None]:
    """The names that a file defines at its top, and those in its ``__all__``; None: it has none."""
    defined: set[str] = set()
    listed = None
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
            defined |= names
            if names == {"__all__"} and node.value is not None:
                listed = ast.literal_eval(node.value)
    return defined - {"__all__"}, listed


def find_breaches(sources: Path, others: Path, public: set[tuple[str, str]]) -> list[str]:
    """One sentence for each name that is used and not listed, listed and not used, or marked by an underscore."""
    files = {module_of(file, sources): file for file in sorted(sources.rglob("*.py")) if "__" not in file.stem}
    used: defaultdict[str, set[str]] = defaultdict(set)
    for module, name in public:
        used[module].add(name)
    for file in [*sources.rglob("*.py"), *others.rglob("*.py")]:
        for module, name in uses_in(file.read_text(encoding="utf-8"), set(files)):
            used[module].add(name)
    found = []
    for module, file in files.items():
        defined, listed = own_names(file.read_text(encoding="utf-8"))
        if listed is None:
            found.append(f"{module} has no __all__")
            continue
        found += [f"{module}.{name} is used elsewhere and not in __all__" for name in sorted(used[module] - {*listed})]
        found += [f"{module}.{name} is in __all__ and used nowhere else" for name in listed if name not in used[module]]
        found += [f"{module}.{name}: __all__ says what is private" for name in sorted(defined) if name[0] == "_"]
    return found


def test_all_is_what_other_files_use():
    public = {ENTRY_POINT, *((f"smooth_attention.{place}", name) for name, place in smooth_attention.DOORS.items())}
    assert find_breaches(SOURCES, BENCHMARKS, public) == []


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("__all__ = ['a']\na = 1\n", "from p.first import a\n", []),
        ("__all__ = ['a']\na = 1\n", "from p import first\nfirst.a\n", []),
        ("__all__ = []\na = 1\n", "from p.first import a\n", ["p.first.a is used elsewhere and not in __all__"]),
        (
            "__all__ = []\na = 1\n",
            "from p import first as f\nf.a\n",
            ["p.first.a is used elsewhere and not in __all__"],
        ),
        ("__all__ = ['a']\na = 1\n", "", ["p.first.a is in __all__ and used nowhere else"]),
        ("__all__ = []\n\ndef _a(): ...\n", "", ["p.first._a: __all__ says what is private"]),
        ("a = 1\n", "", ["p.first has no __all__"]),
    ],
    ids=["imported", "read", "hidden", "hidden and read", "unused", "underscore", "missing"],
)
def test_finder_finds_a_planted_breach(tmp_path, first, second, found):
    for name, text in (("first", first), ("second", f"__all__ = []\n{second}")):
        path = tmp_path / "src" / "p" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert find_breaches(tmp_path / "src", tmp_path / "none", set()) == found
