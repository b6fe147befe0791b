"""The rooms of the package: each imports only rooms to its left, heavy libraries stay where they belong, no circles."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "smooth_attention"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE
ROOMS = ["core", "ops", "models", "data", "metrics", "viz", "runs", "look", "study", "app", "cli"]
WINGS = ["statistics", "quantities", "design", "execution", "verdicts", "reporting", "conduct"]  # of the study
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


def read_graph(root: Path) -> dict[str, set[str]]:
    """From each file to the files of the package that it imports, by their paths below the root."""
    files = {file.relative_to(root).as_posix(): file for file in sorted(root.rglob("*.py"))}
    return {
        name: {target for _, imported in walk_imports(file, root) if (target := file_of(imported, root.name, files))}
        for name, file in files.items()
    }


def file_of(name: str, package: str, files: Container[str]) -> str | None:
    """The file behind a dotted name: a module, or the ``__init__`` of a room; None outside the package."""
    top, *parts = name.split(".")
    for end in range(len(parts), -1, -1) if top == package else ():
        path = "/".join(parts[:end])
        for file in (f"{path}.py", f"{path}/__init__.py".removeprefix("/")):
            if file in files:
                return file
    return None


def find_circles(root: Path) -> list[str]:
    """One chain of files for each circle of imports."""
    imports, circles = read_graph(root), []
    while imports:
        if free := [file for file, targets in imports.items() if not targets & imports.keys()]:
            imports = {file: targets for file, targets in imports.items() if file not in free}
            continue
        chain = [min(imports)]
        while chain.count(chain[-1]) == 1:
            chain.append(min(imports[chain[-1]] & imports.keys()))
        circle = chain[chain.index(chain[-1]) :]
        circles.append(" -> ".join(circle))
        imports = {file: targets for file, targets in imports.items() if file not in circle}
    return sorted(circles)


def find_second_addresses(root: Path) -> list[str]:
    """One sentence for each name that is imported from a file that only imports it itself."""
    own = {
        file.relative_to(root).as_posix(): names_of(file) for file in root.rglob("*.py") if file.name != "__init__.py"
    }
    found = []
    for file in sorted(root.rglob("*.py")):
        for line, name in sorted(walk_imports(file, root)):
            home, word = file_of(name, root.name, own), name.rpartition(".")[2]
            if home and word != Path(home).stem and word not in own[home]:
                found.append(f"{file.relative_to(root).as_posix()}:{line} imports {name}: {home} does not define it")
    return found


def names_of(file: Path) -> set[str]:
    """What a file defines and assigns."""
    nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file)))]
    named = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return named | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def is_reexport(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, an import or ``__all__``."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] == ["__all__"]
    return isinstance(node, (ast.Import, ast.ImportFrom))


def test_rooms_import_only_rooms_to_their_left():
    assert find_violations(ROOT) == []


def test_no_files_import_each_other_in_a_circle():
    assert find_circles(ROOT) == []


def test_specification_serves_no_fast_path():
    assert [file for file, targets in read_graph(ROOT).items() if "ops/reference.py" in targets] == []


def test_names_are_imported_from_where_they_are_defined():
    assert find_second_addresses(ROOT) == []


def test_rooms_are_the_known_ones():
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert {"core", "ops", "models"} <= rooms <= set(ROOMS)
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", *FILES}


def test_walker_reads_the_whole_package():
    imports = {name for file in ROOT.rglob("*.py") for _, name in walk_imports(file, ROOT)}
    assert {"torch", "smooth_attention.ops", "smooth_attention.core.errors.OptionError"} <= imports
    assert {"data/sources.py", "models/__init__.py"} <= read_graph(ROOT)["runs/train.py"]


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
    violations = find_violations(plant(tmp_path, {file: source}))
    assert len(violations) == len(found), violations
    for got, want in zip(violations, found, strict=True):
        assert want in got


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        (
            {"data/a.py": "from house.data.b import x", "data/b.py": "from . import a"},
            ["data/a.py -> data/b.py -> data/a.py"],
        ),
        (
            {"ops/a.py": "import house.ops.b", "ops/b.py": "from .c import x", "ops/c.py": "from ..ops.a import y"},
            ["ops/a.py -> ops/b.py -> ops/c.py -> ops/a.py"],
        ),
        (
            {"ops/a.py": "def run():\n    from house.ops.b import x", "ops/b.py": "from house.ops.a import y"},
            ["ops/a.py -> ops/b.py -> ops/a.py"],
        ),
        (
            {"ops/__init__.py": "from house.ops.a import run", "ops/a.py": "from house.ops import x"},
            ["ops/__init__.py -> ops/a.py -> ops/__init__.py"],
        ),
        (  # two circles, and files that lead into one and out of one
            {
                "ops/a.py": "from .b import x\nfrom .z import x",
                "ops/b.py": "from .a import x",
                "data/a.py": "from .b import x",
                "data/b.py": "from .a import x",
                "ops/z.py": "",
                "cli/a.py": "from ..ops.a import x",
            },
            ["data/a.py -> data/b.py -> data/a.py", "ops/a.py -> ops/b.py -> ops/a.py"],
        ),
        ({"ops/a.py": "if TYPE_CHECKING:\n    from house.ops.b import x", "ops/b.py": "from house.ops.a import y"}, []),
        ({"ops/a.py": "from house.ops.b import c", "ops/b.py": "import ops.a", "ops/c.py": "from .b import x"}, []),
    ],
    ids=["two files", "three files", "in a function", "room", "two circles", "types only", "none"],
)
def test_finder_finds_a_planted_circle(tmp_path, sources, found):
    assert find_circles(plant(tmp_path, sources)) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from house.ops.b import x", ["ops/a.py:1 imports house.ops.b.x: ops/b.py does not define it"]),
        ("def run():\n    from .b import x", ["ops/a.py:2 imports house.ops.b.x: ops/b.py does not define it"]),
        ("from house.ops.b import Y, Z, z\nfrom house.ops import b, x\nimport house.ops.b", []),
    ],
)
def test_finder_finds_a_planted_second_address(tmp_path, source, found):
    there = "from house.core.c import x\nY: int = 1\nclass Z: ...\ndef z(): ..."
    root = plant(tmp_path, {"ops/a.py": source, "ops/b.py": there, "ops/__init__.py": "from house.core.c import x"})
    assert find_second_addresses(root) == found


def plant(tmp_path: Path, sources: Mapping[str, str]) -> Path:
    """Write files of a small package and return its root."""
    root = tmp_path / "house"
    for file, source in sources.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(source)
    return root


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
