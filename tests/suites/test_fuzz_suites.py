"""Damaged suites: cells, or one line that names the file; never a traceback, no alias that fills the memory."""

import math
import random
from pathlib import Path

import pytest
import yaml
from fuzz_tools import damaged, fuzzed
from hypothesis import strategies as st

from backbones.grids import parse_schedule
from benchmarks.engine.suite import SuiteError, load_suite
from benchmarks.engine.suite.reading import MOST

SUITE = {
    "name": "mine", "description": "words", "seeds": [0, 1],
    "backbones": ["flexivit_nano", {"name": "vit_nano_g8", "flexible": False, "train": [{"patch": 15}]}],
    "train": [8, 15, "random:4,8", [8, 10]], "eval": [4, {"patch": 8}, {"grid": 8, "resize": "area"}, "same"],
    "tasks": [
        {"task": "classification", "options": {"data": "scenes"}, "splits": ["test"],
         "recipe": {"steps": 20, "lr": 0.1, "lr_groups": {"head": 10}, "candidates": [{"lr": 0.01}]}},
        {"task": "detection", "options": {"data": "scenes", "side": 120}, "eval": [{"grid": 8, "options": {"pad": 0}}]},
        "segmentation",
    ],
}  # fmt: skip
ODD = [
    None, True, -1, 0, 1.5, "8", float("nan"), float("inf"), 2**63, 10**400, "", "a\0b", "x" * 300, "..", "/", [], [1],
    [[]], {}, {"a": 1}, {1: 2}, {None: 3}, "٨", "random:", "curriculum:0", {"patch": 15, "grid": 8}, {"grid": "8x"},
]  # fmt: skip
LINES = [
    "tasks: null\n", "tasks:\n\t- classification\n", "a: &a [*a]\n", "? [1, 2]\n: 3\n", "<<: 3\n",
    "x: !!python/name:os\n", "seeds: [0]\n", "---\n", "...\n", "%TAG ! x\n", "'", "{", "*b",
    "\ufeff", "\u2028", "&", "!", "\\", ":\n", "- -\n",
]  # fmt: skip


def outcome(path: Path) -> None:
    """The cells, each as the schema allows it, or one line that begins with the file."""
    try:
        suite = load_suite(str(path), path.parent)
    except SuiteError as error:
        text = str(error)
        assert text.startswith(str(path)) and "\n" not in text and len(text) < 2200 and text.isprintable(), repr(text)
        return
    assert suite.name and suite.cells
    for cell in suite.cells:
        assert type(cell.seed) is int and 0 <= cell.seed < 2**63
        assert cell.train is None or parse_schedule(cell.train).grids and cell.train.isascii()
        assert cell.views and all(min(view.grid) >= 1 for view in cell.views)
        rates = [cell.recipe.get(n, 0) for n in ("steps", "lr", "batch", "clip") if cell.recipe.get(n) is not None]
        assert cell.problem or all(math.isfinite(r) and r >= 0 for r in rates), cell.recipe


def values(folder: Path, seed: int, times: int) -> None:
    chance, value, path = random.Random(seed), SUITE, folder / "values.yaml"
    for _ in range(times):
        value = damaged(value, chance, ODD, wrap=True)
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    outcome(path)


def content(folder: Path, at: int, gone: int, noise: bytes) -> None:
    path, whole = folder / "content.yaml", bytearray(yaml.safe_dump(SUITE, sort_keys=False).encode())
    at %= len(whole)
    whole[at : at + gone] = noise
    path.write_bytes(bytes(whole))
    outcome(path)


SEEDS = {"seed": st.integers(0, 2**32), "times": st.integers(1, 3)}
BYTES = {
    "at": st.integers(0, 2000), "gone": st.integers(0, 8),
    "noise": st.binary(max_size=4) | st.sampled_from([line.encode() for line in LINES]),
}  # fmt: skip


@fuzzed(60, 3000, **SEEDS)
def test_damaged_values(tmp_path_factory, seed: int, times: int) -> None:
    values(tmp_path_factory.getbasetemp(), seed, times)


@fuzzed(60, 3000, **BYTES)
def test_damaged_text(tmp_path_factory, at: int, gone: int, noise: bytes) -> None:
    content(tmp_path_factory.getbasetemp(), at, gone, noise)


GOOD = "name: a\nbackbones: [flexivit_nano]\ntrain: [8]\neval: [8]\ntasks: [{task: segmentation, options: {data: d}}]\n"
BOMB = "&a [x, x, x, x, x, x, x, x, x], " + ", ".join(
    f"&{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", ":1: a suite is a mapping"),
        (b"null\n", ":1: a suite is a mapping"),
        (GOOD.encode("utf-16"), ": not YAML: 'utf-8' codec"),
        (GOOD.replace("name: a", "name: \xe9").encode("latin-1"), ": not YAML: 'utf-8' codec"),
        (GOOD.replace("tasks: [", "tasks: null #["), ":5: tasks: Input should be a valid list, not None"),
        (GOOD.replace("{data: d}", "\n\t- x"), ":6: not YAML: found character '\\t'"),
        (GOOD + "name: b\n", ":6: key 'name' stands here twice (first in line 1)"),
        (GOOD + f"description: [{BOMB}]\n", ":6: stands for"),
        (GOOD.replace("data: d", f"data: [{BOMB}]"), ":5: stands for"),
        (GOOD + "<<: &x {<<: *x}\n", ":6: an alias of what it stands in"),
        (GOOD.replace("[flexivit_nano]", "&x [*x]"), ":2: an alias of what it stands in"),
        (GOOD + "? [1]\n: 2\n", ":6: a key must be a word or number"),
        (GOOD + "seeds: [9223372036854775808]\n", ":6: an integer must be below 2**63"),
        (GOOD + "seeds: [" + "9" * 5000 + "]\n", ":6: an integer must be below 2**63"),
        (GOOD + "seeds: [-1]\n", ":6: seeds.0: Input should be greater than or equal to 0"),
        (GOOD + "seeds: []\n", ":5: segmentation has no backbones, no seeds, or no grids"),
        (GOOD.replace("train: [8]", "train: [0]"), ":3: size (0, 0) must be at least 1"),
        (GOOD.replace("train: [8]", "train: [-1]"), ":3: size (-1, -1) must be at least 1"),
        (GOOD.replace("train: [8]", "train: [1.5]"), ":3: train.0.grid: a grid is"),
        (GOOD.replace("train: [8]", "train: ['٨']"), ":3: cannot read grid schedule"),
        (GOOD.replace("train: [8]", "train: [{grid: 8, patch: 8}]"), ":3: train.0: write either grid or patch"),
        (GOOD.replace("name: a", "name: ''"), ":1: name: String should have at least 1 character"),
        (GOOD.replace("data: d", f"data: {'d' * 300}"), ":5: data 'ddd"),
        (GOOD.replace("data: d", f"data: {'d/' * 3000}"), ":5: data 'd/d"),
        (GOOD.replace("data: d", "data: ' '"), ":5: data: must be a set's name or a path"),
        (GOOD.replace("data: d", 'data: "a\\0b"'), ":5: data 'a\\x00b': has characters that cannot be printed"),
        (GOOD.replace("options:", "recipe: {lr: 1" + "0" * 400 + "}, options:"), ":5: an integer must be below 2**63"),
        (GOOD.replace("options:", "recipe: {lr_groups: {3: 4}}, options:"), ":5: recipe: lr_groups must have texts"),
    ],
    ids=range(28),
)
def test_what_is_no_suite_is_named_with_its_line(tmp_path, text: str | bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    outcome(path)
    with pytest.raises(SuiteError) as found:
        load_suite(str(path), tmp_path)
    assert str(found.value).startswith(f"{path}{said}"), str(found.value)


def test_forms_that_are_one_grid_are_one_cell(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("\ufeff" + GOOD.replace("train: [8]", 'train: [8, "8", " 8 ", 0x8, {grid: 8}]'))
    assert [c.train for c in load_suite(str(path), tmp_path).cells] == ["8"]


def test_aliases_that_are_few_are_taken(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: &g [8]\neval: *g\nname: a\nbackbones: [flexivit_nano]\ntasks: [segmentation]\n")
    assert MOST > 1000 and load_suite(str(path), tmp_path).cells[0].train == "8"


def test_a_suite_that_cannot_be_opened_is_one_line(tmp_path) -> None:
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(SuiteError, match="no suite file"):
        load_suite(str(tmp_path / "mine.yaml"))
    with pytest.raises(SuiteError, match="no suite file"):
        load_suite(f"{'x' * 300}.yaml")
