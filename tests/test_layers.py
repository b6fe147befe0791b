"""The rooms of the package: each imports only rooms to its left, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "smooth_attention"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE
ROOMS = ["core", "ops", "models", "data", "metrics", "viz", "runs", "look", "study", "app", "cli"]
WINGS = ["statistics", "design", "execution", "verdicts", "reporting", "conduct"]  # of the study, in one line too
ONLY_IN = {
    "lightning": {"runs"},
    "gradio": {"app"},
    "tyro": {"cli"},
    "rich": {"cli"},
    "matplotlib": {"viz"},
    "plotly": {"viz"},
}
FILES = {"__main__.py": "cli"}  # beside the rooms; the package's own __init__ has none
LIGHT = {"", "core"}  # the package itself and core: no torch there
VAGUE_NAMES = {"utils.py", "helpers.py", "common.py"}


def walk_imports(file: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports, in functions too; not what only types need."""
    package = [root.name, *file.relative_to(root).parent.parts]
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"), str(file))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting.extend(node.orelse)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def find_violations(root: Path) -> list[str]:
    """One sentence for each import that a room may not have."""
    found = []
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).parts
        room = parts[0] if len(parts) > 1 else FILES.get(parts[0], "")
        for line, name in sorted(walk_imports(file, root)):
            top, _, rest = name.partition(".")
            where = f"{'/'.join(parts)}:{line} imports {name}"
            if top == root.name:
                target = rest.partition(".")[0]
                if target not in ROOMS:
                    found.append(f"{where}: a door, import it from its room")
                elif not room or ROOMS.index(target) > ROOMS.index(room):
                    found.append(f"{where}: {target} stands to the right of {room or 'the package'}")
                elif room == target == "study" and len(parts) > 1 and parts[1] != "__init__.py":
                    wing, other = parts[1].removesuffix(".py"), rest.split(".")[1]
                    if WINGS.index(other) > WINGS.index(wing):
                        found.append(f"{where}: {other} stands to the right of {wing}")
            elif top == "torch" and room in LIGHT:
                found.append(f"{where}: no torch at import of {room or 'the package'}")
            elif room not in ONLY_IN.get(top, {room}):
                found.append(f"{where}: {top} belongs to {', '.join(ONLY_IN[top])} only")
    return found


def is_reexport(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, an import or ``__all__``."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] == ["__all__"]
    return isinstance(node, (ast.Import, ast.ImportFrom))


def test_rooms_import_only_rooms_to_their_left():
    assert find_violations(ROOT) == []


def test_rooms_are_the_known_ones():
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert {"core", "ops", "models"} <= rooms <= set(ROOMS)
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", *FILES}


def test_walker_reads_the_whole_package():
    imports = {name for file in ROOT.rglob("*.py") for _, name in walk_imports(file, ROOT)}
    assert {"torch", "smooth_attention.ops", "smooth_attention.core.errors.OptionError"} <= imports


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("core/grids.py", "from house.ops import api", ["core/grids.py:1 imports house.ops.api: ops stands to the"]),
        ("ops/api.py", "import house.models.blocks", ["models stands to the right of ops"]),
        ("ops/api.py", "from ..models.blocks import Block", ["house.models.blocks.Block: models stands to the right"]),
        ("ops/deep/api.py", "from ...viz import maps", ["house.viz.maps: viz stands to the right of ops"]),
        ("ops/api.py", "from .. import cli", ["house.cli: cli stands to the right of ops"]),
        ("ops/__init__.py", "from ..app import page", ["house.app.page: app stands to the right of ops"]),
        (
            "ops/api.py",
            "def run():\n    from house import models",
            ["ops/api.py:2 imports house.models: models stands"],
        ),
        ("ops/api.py", "try:\n    import house.runs\nexcept ImportError:\n    pass", ["runs stands to the right"]),
        ("data/a.py", "import house", ["imports house: a door, import it from its room"]),
        ("data/a.py", "from house import create_model", ["imports house.create_model: a door"]),
        ("data/a.py", "from house.rooms import x", ["imports house.rooms.x: a door"]),
        ("__init__.py", "from house.core import grids", ["core stands to the right of the package"]),
        ("__init__.py", "def door():\n    import torch", ["no torch at import of the package"]),
        ("core/seeds.py", "def draw():\n    from torch import nn", ["no torch at import of core"]),
        ("models/a.py", "import lightning.pytorch as pl", ["lightning belongs to runs only"]),
        (
            "runs/a.py",
            "from matplotlib.figure import Figure\nimport gradio",
            ["1 imports matplotlib.figure.Figure: matplotlib belongs", "2 imports gradio: gradio belongs"],
        ),
        (
            "study/design/a.py",
            "class A:\n    def run(self):\n        import plotly.express",
            ["plotly belongs to viz only"],
        ),
        ("study/design/a.py", "from house.study.verdicts.x import y", ["verdicts stands to the right of design"]),
        ("study/statistics.py", "from .conduct import y", ["conduct stands to the right of statistics"]),
        ("runs/a.py", "from rich.table import Table", ["rich belongs to cli only"]),
        ("app/a.py", "import tyro", ["tyro belongs to cli only"]),
        ("ops/api.py", "if TYPE_CHECKING:\n    x = 1\nelse:\n    import house.cli", ["cli stands to the right of ops"]),
        ("__main__.py", "import lightning", ["lightning belongs to runs only"]),
        # and what is allowed
        ("__main__.py", "from house.cli.main import main", []),
        ("ops/api.py", "if TYPE_CHECKING:\n    from house.cli import main", []),
        ("ops/api.py", "import torch\nfrom .dense import x\nfrom house.ops.gates import y\nfrom ..core import z", []),
        ("cli/a.py", "import tyro, rich\nfrom house import app, core", []),
        ("study/verdicts/a.py", "from ..statistics import x\nfrom .b import y\nfrom ..design.config import z", []),
        ("viz/a.py", "import matplotlib.pyplot, plotly", []),
        ("runs/a.py", "import lightning as L\nimport torch\nimport torchmetrics", []),
    ],
)
def test_walker_finds_a_planted_violation(tmp_path, file, source, found):
    path = tmp_path / "house" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    violations = find_violations(tmp_path / "house")
    assert len(violations) == len(found), violations
    for got, want in zip(violations, found, strict=True):
        assert want in got


@pytest.mark.parametrize("name", sorted(VAGUE_NAMES))
def test_files_are_named_after_what_is_in_them(name):
    assert list(ROOT.rglob(name)) == []


@pytest.mark.parametrize("room", [str(p.parent.relative_to(ROOT)) for p in sorted(ROOT.glob("*/**/__init__.py"))])
def test_init_of_a_room_only_reexports(room):
    source = (ROOT / room / "__init__.py").read_text(encoding="utf-8")
    assert [ast.unparse(node) for node in ast.parse(source).body if not is_reexport(node)] == []


@pytest.mark.parametrize("statement", ["x = 1", "print()", "def f(): ...", "__all__ += ['x']", "if x: import y", "1"])
def test_statement_that_is_no_reexport_is_told(statement):
    assert not is_reexport(ast.parse(statement).body[0])
