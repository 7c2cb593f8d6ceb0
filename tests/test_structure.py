"""The house as promised: imports run one way, no circle, rooms of ten files, files of 400 lines."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("backbones", "tasks", "benchmarks")  # each may import itself and what stands before it


def sources() -> dict[str, Path]:
    """Module name -> file, of the three packages."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for layer in LAYERS
        for path in sorted((ROOT / layer).rglob("*.py"))
    }


def imported(path: Path, known: set[str]) -> set[str]:
    """Modules of ours that a file imports, inside of functions and for annotations alone as well."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (children & known) or {node.module}
    return names & known


def test_imports_run_one_way() -> None:
    modules = sources()
    for name, path in modules.items():
        allowed = LAYERS[: LAYERS.index(name.split(".")[0]) + 1]
        for other in imported(path, set(modules)):
            assert other.split(".")[0] in allowed, f"{name} imports {other}"


def test_no_circle_of_imports() -> None:
    modules = sources()
    edges = {name: imported(path, set(modules)) - {name} for name, path in modules.items()}
    # a package's own __init__ lends its names to others; its files are what import each other
    files = {name: {e for e in targets if not is_package(modules[e])} for name, targets in edges.items()}
    state: dict[str, int] = defaultdict(int)
    trail: list[str] = []

    def visit(name: str) -> None:
        state[name] = 1
        trail.append(name)
        for other in sorted(files[name]):
            assert state[other] != 1, f"circle: {' -> '.join([*trail[trail.index(other) :], other])}"
            if not state[other]:
                visit(other)
        trail.pop()
        state[name] = 2

    for name in files:
        if not state[name] and not is_package(modules[name]):
            visit(name)


def is_package(path: Path) -> bool:
    return path.name == "__init__.py"


@pytest.mark.parametrize("layer", [*LAYERS, "tests"])
def test_files_and_rooms_stay_small(layer: str) -> None:
    listed = subprocess.run(["git", "ls-files", layer], cwd=ROOT, capture_output=True, text=True).stdout.split()
    paths = [ROOT / name for name in listed if name.endswith(".py") and (ROOT / name).exists()]
    long = {str(p.relative_to(ROOT)): n for p in paths if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"over 400 lines: {long}"
    rooms = Counter(str(p.parent.relative_to(ROOT)) for p in paths if p.name != "__init__.py")
    assert not {room: count for room, count in rooms.items() if count > 10}, rooms.most_common(3)


def test_describing_modules_load_without_torch() -> None:
    code = (
        "import sys, tasks.contract, tasks.registry; from tasks import list_tasks, task_class\n"
        "[task_class(n) for n in list_tasks()]\n"
        "print([m for m in ('torch', 'timm', 'mmseg', 'transformers', 'faiss') if m in sys.modules])"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
