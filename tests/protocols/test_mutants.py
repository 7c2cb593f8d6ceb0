"""The list of changes is well-formed; the changes themselves are tried by `make mutants`, here among the slow tests."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = 8


def listed() -> list[dict[str, str]]:
    text = (ROOT / "tests" / "mutants.yaml").read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def test_each_change_fits_its_file_once_and_names_a_test() -> None:
    changes = listed()
    assert len(changes) >= 100
    assert not [name for name, count in Counter(m["name"] for m in changes).items() if count > 1]
    for change in changes:
        assert set(change) == {"name", "file", "before", "after", "test"} and change["before"] != change["after"]
        assert (ROOT / change["file"]).read_text(encoding="utf-8").count(change["before"]) == 1, change["name"]
        path, _, test = change["test"].partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, change["test"]


@pytest.mark.mutants
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_every_change_is_noticed(part: int) -> None:
    command = [sys.executable, "tests/mutants.py", "--part", f"{part}/{PARTS}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
