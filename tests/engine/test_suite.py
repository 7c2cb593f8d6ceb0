"""Suites: their cells, and what a user reads when one is wrong."""

import pytest

from benchmarks.engine.suite import SuiteError, list_suites, load_suite

GOOD = """\
name: mine
backbones: [flexivit_nano, {name: vit_nano_g8, train: [{patch: 15}]}]
train: [8, 15, "random:4,8"]
eval: [4, {patch: 8}, {grid: 8, resize: area}]
seeds: [0, 1]
tasks:
  - task: classification
    options: {data: imagewoof9}
  - {task: classification, options: {data: imagewoof9, protocol: knn}}
"""


def load(tmp_path, text: str, **more):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_suite(str(path), tmp_path, **more)


def test_cells(tmp_path) -> None:
    cells = load(tmp_path, GOOD).cells
    assert len(cells) == 2 * (3 + 1) + 2 * 2  # fine-tuned; k-NN trains nothing, so it has no training grid
    flexible = [c.train for c in cells if c.backbone == "flexivit_nano" and c.seed == 0]
    assert flexible == ["8", "15", "random:4,8", None]
    assert [c.train for c in cells if c.backbone == "vit_nano_g8" and c.seed == 0] == ["8", None]
    assert [(v.grid, v.resize) for v in cells[0].views] == [((4, 4), "pi"), ((15, 15), "pi"), ((8, 8), "area")]


def test_same_is_the_training_grid(tmp_path) -> None:
    settings = ["eval=[same]", "seeds=[0]", "train=[8, 15]"]
    trained = GOOD.rsplit("\n", 2)[0]
    cells = load(tmp_path, trained, settings=settings).cells
    assert [(c.train, [v.grid for v in c.views]) for c in cells][:2] == [("8", [(8, 8)]), ("15", [(15, 15)])]
    with pytest.raises(SuiteError, match=r"mine.yaml:9: .*no grid to evaluate"):  # k-NN has no training grid
        load(tmp_path, GOOD, settings=settings)


def test_settings_and_filters(tmp_path) -> None:
    settings = ["recipe.steps=3", "tasks.0.options.crop=resmall", "seeds=[7]"]
    cells = load(tmp_path, GOOD, settings=settings, only=["backbone=flex*|nothing", "train=8"]).cells
    assert len(cells) == 2  # a recipe with steps makes k-NN a trained task too
    assert cells[0].recipe == {"steps": 3} and cells[0].options["crop"] == "resmall" and cells[0].seed == 7


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("flexivit_nano", "flexvit_nano", ["mine.yaml:2:", "flexvit_nano", "flexivit_nano"]),
        ("seeds: [0, 1]", "seed: [0, 1]", ["mine.yaml:5:", "'seed'", "seeds"]),
        ("options: {data: imagewoof9}", "optoins: {data: imagewoof9}", ["mine.yaml:8:", "optoins", "options"]),
        ("task: classification\n", "task: clasification\n", ["mine.yaml:7:", "clasification", "classification"]),
        ("{data: imagewoof9}", "{data: imagewoof}", ["mine.yaml:8:", "imagewoof", "imagewoof9"]),
        ("{data: imagewoof9}", "{dat: imagewoof9}", ["mine.yaml:8:", "dat", "data"]),
        ("train: [8, 15,", "train: [8, 7,", ["mine.yaml:3:", "grid 7", "8, 10"]),
        ("{patch: 8}", "{patch: 7}", ["mine.yaml:4:", "patch 7", "8, 10"]),
        ("resize: area", "resize: aera", ["mine.yaml:4:", "aera", "area"]),
        ("name: mine\n", "", ["mine.yaml:1:", "'name'"]),
        ("[0, 1]", "[zero]", ["mine.yaml:5:", "seeds", "zero"]),
        ("eval: [4,", "eval: [4", ["mine.yaml:4:", "not YAML"]),
        ("options: {data: imagewoof9}", "recipe: {step: 3}", ["mine.yaml:8:", "'step'", "steps"]),
    ],
)  # fmt: skip
def test_mistakes_name_their_line_and_the_nearest(tmp_path, old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    with pytest.raises(SuiteError) as found:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert "\n" not in str(found.value) and all(w in str(found.value) for w in words), str(found.value)


def test_mistakes_on_the_command_line(tmp_path) -> None:
    for more in ({"settings": ["steps"]}, {"only": ["colour=red"]}, {"only": ["backbone=none"]}):
        with pytest.raises(SuiteError):
            load(tmp_path, GOOD, **more)
    with pytest.raises(SuiteError, match="mini/classification"):
        load_suite("mini/clasification")


@pytest.mark.parametrize("name", list_suites())
def test_suites_that_come_with_the_software_are_valid(tmp_path, name: str) -> None:
    assert load_suite(name, tmp_path).cells
