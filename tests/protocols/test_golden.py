"""Every paper and mini cell is what tests/golden_recipes.yaml says; a failure shows the lines that differ."""

import difflib

import pytest
import yaml
from protocols import golden


def difference() -> str:
    old, new = golden.FILE.read_text(encoding="utf-8"), golden.text()
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "golden", "now", lineterm="", n=4)
    return "\n".join(list(lines)[:80])


def test_constants_and_recipes_are_the_golden_ones() -> None:
    stored = yaml.load(golden.FILE.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert golden.protocols() == stored["protocols"]


def test_cells_are_the_golden_ones() -> None:
    found = difference()
    assert not found, (
        f"recipes changed; meant so? raise the protocol's version, then python tests/protocols/golden.py\n{found}"
    )


def test_a_changed_constant_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.detection import Detection

    monkeypatch.setattr(Detection, "recipe", Detection.recipe.replaced({"lr": 0.0003}))
    found = difference()
    assert "-      lr: 0.0002" in found and "+      lr: 0.0003" in found
