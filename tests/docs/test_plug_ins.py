"""The plug-ins of the documentation, as they stand there: through check, run and report."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from front_door import call
from PIL import Image

from benchmarks.store import Store

DOCS = Path(__file__).parents[2] / "docs"


def block(page: str, language: str = "python") -> str:
    """The first block of a page in a language."""
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{page} has no block of {language}"
    return found.group(1)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_height", "my_colours"):
        sys.modules.pop(name, None)


def heights(root: Path) -> None:
    """Bars on a ground; a pixel is two centimetres."""
    for split, count in (("train", 12), ("test", 6)):
        lines = []
        for i in range(count):
            tall = 20 + 5 * i
            pixels = np.full((120, 120, 3), 220, np.uint8)
            pixels[120 - tall :, 50:70] = (40, 90, 60)
            path = root / "heights" / f"{split}_{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
            lines.append(f"{path.name},{0.02 * tall:.2f}")
        (root / "heights" / f"{split}.csv").write_text("\n".join(lines) + "\n")


def test_the_task_of_the_documentation(folder, monkeypatch, capsys) -> None:
    text = block("add-a-task.md")
    assert len(text.splitlines()) <= 60
    (folder / "my_height.py").write_text(text)
    heights(folder)
    places = ("--data-root", str(folder))
    code, out, _ = call(monkeypatch, capsys, "check", "task", "my_height:Height", *places)
    assert code == 0 and "FAIL" not in out and out.count("ok ") > 10, out
    (folder / "heights.yaml").write_text(block("add-a-task.md", "yaml"))
    run = ("run", str(folder / "heights.yaml"), *places, "--out", str(folder / "out"), "--device", "cpu")
    code, out, err = call(monkeypatch, capsys, *run, "--set", "recipe.steps=4", "--set", "recipe.batch=4")
    assert code == 0 and "2 run" in out and "rmse in m at grid" in out, (out, err)
    rows = Store(folder / "out").rows()
    assert len(rows) == 8 and {r.eval_options["tallest"] for r in rows} == {3.0, 2.0}
    code, out, _ = call(monkeypatch, capsys, "report", str(folder / "out"))
    assert code == 0 and "rmse in m" in out and "%" not in out.split("written to")[0].split("###")[1]
    # other labels are other rows, though no name and no size has changed
    path = folder / "heights" / "test.csv"
    path.write_text(path.read_text().replace("0.40", "0.90"))
    code, out, _ = call(monkeypatch, capsys, "plan", *run[1:-2], "--set", "recipe.steps=4", "--set", "recipe.batch=4")
    assert "0 done, 2 to do" in out


def test_the_backbone_of_the_documentation(folder, monkeypatch, capsys) -> None:
    text = block("add-a-backbone.md")
    assert len(text.splitlines()) <= 20
    (folder / "my_colours.py").write_text(text)
    code, out, _ = call(monkeypatch, capsys, "check", "backbone", "my_colours:Colours")
    assert code == 0 and "FAIL" not in out and "declared indifferent" in out, out
    places = ("--data-root", str(folder), "--out", str(folder / "out"), "--device", "cpu")
    chosen = ("--set", 'backbones=["my_colours:Colours"]', "--only", "task=classification", "--set", "seeds=[0]")
    code, out, err = call(monkeypatch, capsys, "run", "demo", *places, *chosen, "--set", "recipe.steps=4")
    assert code == 0 and "1 run" in out, (out, err)
    assert all(row.cost["macs"] > 0 and row.flexible is None for row in Store(folder / "out").rows())
    code, out, _ = call(monkeypatch, capsys, "report", str(folder / "out"))
    assert code == 0 and "my_colours:Colours" in out
