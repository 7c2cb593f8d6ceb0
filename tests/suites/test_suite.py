"""Suites: their cells, and what a user reads when one is wrong."""

import re

import pytest

from benchmarks.cli.options import listed
from benchmarks.engine.plan import plan
from benchmarks.engine.suite import SuiteError, list_suites, load_suite, recipe_of
from benchmarks.engine.suite.reading import read_value
from benchmarks.store import Store
from tasks import build_task
from tasks.contract import Recipe, TaskError

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
    # fine-tuned with two seeds; k-NN trains nothing, so it has neither a training grid nor a second seed
    assert len(cells) == 2 * (3 + 1) + 2
    assert [c.seed for c in cells if c.train is None] == [0, 0]
    asked = load(tmp_path, GOOD.replace("protocol: knn}}", "protocol: knn}, seeds: [3, 4]}")).cells
    assert [c.seed for c in asked if c.train is None] == [3, 4] * 2  # what a task asks for itself is done
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
    assert len(cells) == 1  # k-NN trains nothing
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


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("recipe: {steps: 100.0}", ["mine.yaml:9:", "steps must be an integer, not 100.0; write 100"]),
        ("recipe: {steps: 2.5}", ["mine.yaml:9:", "steps must be an integer, not 2.5"]),
        ("recipe: {batch: true}", ["mine.yaml:9:", "batch must be an integer, not True"]),
        ("recipe: {lr: '1e-3'}", ["mine.yaml:9:", "lr must be a number, not '1e-3'"]),
        ("recipe: {optimizer: foo}", ["mine.yaml:9:", "no optimizer 'foo'", "sgd"]),
        ("recipe: {schedule: cosin}", ["mine.yaml:9:", "'cosin'", "cosine"]),
        ("recipe: {candidates: 5}", ["mine.yaml:9:", "candidates must be", "not 5"]),
        ("recipe: {candidates: [5]}", ["mine.yaml:9:", "list of mappings", "not 5"]),
        ("recipe: {candidates: [{lrr: 5}]}", ["mine.yaml:9:", "'lrr'", "lr"]),
        ("recipe: {lr_groups: {head: x}}", ["mine.yaml:9:", "lr_groups head must be a number"]),
        ("recipe: {steps: 1, steps: 2}", ["mine.yaml:9:", "key 'steps' stands here twice"]),
        ("splits: [foo]", ["mine.yaml:9:", "no split 'foo'", "test"]),
        ("seeds: [true]", ["mine.yaml:9:", "integer"]),
        ("seeds: [0.5]", ["mine.yaml:9:", "integer"]),
        ("train: [{grid: 8, resize: area}]", ["mine.yaml:9:", "'resize'", "nearest: grid"]),
        ("train: [{grid: 8, patch: 15}]", ["mine.yaml:9:", "either grid or patch"]),
        ("eval: [true]", ["mine.yaml:9:", "a grid is"]),
        ("eval: [{patch: 15.0}]", ["mine.yaml:9:", "integer"]),
        ("eval: [{grid: 8, options: {nieghbours: 5}}]", ["mine.yaml:9:", "'nieghbours'", "nearest: neighbours"]),
        ("eval: [{grid: 8, options: {neighbours: 0}}]", ["mine.yaml:9:", "neighbours must be 1 or more"]),
        ("eval: [{grid: 8, options: {neighbours: 2.5}}]", ["mine.yaml:9:", "must be an integer, not 2.5"]),
        ("eval: [{grid: 8, options: {protocol: knn}}]", ["mine.yaml:9:", "changes weights"]),
        ("backbones: [{name: flexivit_nano, options: {resize: ara}}]", ["mine.yaml:9:", "'ara'", "area"]),
        ("options: {data: imagewoof9, neighbours: yes}", ["mine.yaml:9:", "an integer, not 'yes'"]),
        ("options: {data: imagewoof9, neighbours: 0}", ["mine.yaml:9:", "neighbours must be 1 or more, not 0"]),
        ("options: {data: imagewoof9, temperature: .nan}", ["mine.yaml:9:", "temperature must be a finite number"]),
        ("eval: [{grid: 8, options: {temperature: .inf}}]", ["mine.yaml:9:", "temperature must be a finite number"]),
        ("recipe: {candidates: [{candidates: [{lr: 1.0}]}]}", ["mine.yaml:9:", "has no candidates of its own"]),
        ("train: ['8x8x8']", ["mine.yaml:9:", "'8x8x8'", "write 15, 8x10"]),
        ("backbones: [{name: flexivit_nano, options: {drop_pth: 0}}]", ["mine.yaml:9:", "nearest: drop_path"]),
        ("backbones: [{name: flexivit_nano, options: {pretrained: no}}]", ["mine.yaml:9:", "true or false, not 'no'"]),
        ("backbones: [{name: a.pth, options: {drop_path: .nan}}]", ["mine.yaml:9:", "must be a finite number"]),
        ("backbones: [{name: 'timm:x', options: {pach: 8}}]", ["mine.yaml:9:", "no option 'pach'", "path"]),
    ],
)
def test_values_are_read_strictly_with_their_line(tmp_path, more: str, words: list[str]) -> None:
    own = "" if "options: {data" in more else "\n    options: {data: imagewoof9}"
    text = GOOD.rsplit("\n", 3)[0] + "\n  - task: classification\n    " + more + own + "\n"
    with pytest.raises(SuiteError) as found:
        load(tmp_path, text)
    assert "\n" not in str(found.value) and all(w in str(found.value) for w in words), str(found.value)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("lr: -1", "lr must be 0 or more, not -1"),
        ("lr: .nan", "lr must be a finite number, not nan"),
        ("weight_decay: .inf", "weight_decay must be a finite number, not inf"),
        ("clip: -1", "clip must be above 0, or null for no clipping, not -1"),
        ("lr_groups: {head: -5}", "lr_groups.head must be 0 or more, not -5"),
        ("batch: 0", "batch must be 1 or more, not 0"),
        ("ema: 1.0", "ema must be in [0, 1), not 1.0"),
        ("warmup: 50", "warmup of 50 steps must be shorter than the 50 steps"),
        ("accumulate: 999", "accumulate 999 is more than the batch"),
        ("candidates: [{lr: 0.1}, {lr: -1}]", "candidate {'lr': -1}: recipe: lr must be 0 or more"),
    ],
)
def test_a_recipe_that_cannot_be_blocks_its_cell_and_no_other(tmp_path, recipe: str, told: str) -> None:
    entry = "\n  - task: classification\n    options: {data: imagewoof9}\n    recipe:\n      steps: 50\n      "
    text = GOOD.rsplit("\n", 2)[0] + entry + recipe + "\n"
    cells = load(tmp_path, text).cells
    good, bad = cells[0], cells[-1]
    assert good.problem == "" and bad.problem.startswith(f"{tmp_path / 'mine.yaml'}:13: recipe: ")
    assert told in bad.problem and "\n" not in bad.problem
    first = plan(load(tmp_path, text, only=["backbone=vit_nano_g8", "seed=0"]), Store(tmp_path / "out"), tmp_path)
    assert first[-1].state == "blocked" and first[-1].missing == [bad.problem]


def test_numbers_are_those_of_yaml_1_2(tmp_path) -> None:
    first = "options: {data: imagewoof9}\n"
    text = GOOD.replace(first, first + "    recipe: {lr: 1e-3, steps: 0o17, batch: 0x10}\n", 1)
    cells = load(tmp_path, text, settings=["recipe.weight_decay=1e-4"]).cells
    assert cells[0].recipe == {"lr": 0.001, "steps": 15, "batch": 16, "weight_decay": 0.0001}
    assert read_value("on") == "on" and read_value("2026-01-02") == "2026-01-02" and read_value("~") is None
    assert read_value("[1_000, .5, -2E+3, .inf, true]") == [1000, 0.5, -2000.0, float("inf"), True]


def test_a_suite_with_repeated_keys_is_refused(tmp_path) -> None:
    repeated = ((GOOD + "name: other\n", 10, "name"), (GOOD.replace("seeds:", "train: [4]\nseeds:"), 5, "train"))
    for text, line, key in repeated:
        with pytest.raises(SuiteError, match=rf"mine.yaml:{line}: key '{key}' stands here twice \(first in line"):
            load(tmp_path, text)


def test_what_a_change_of_a_recipe_entails() -> None:
    tries = tuple({"steps": s, "warmup": w, "lr": r} for s, w in ((500, 100), (2500, 200)) for r in (0.003, 0.01))
    recipe = Recipe(steps=500, warmup=100, lr=0.01, candidates=tries)
    whole, notes = recipe_of(recipe, {})
    assert whole == recipe and notes[0].startswith("4 candidates compete on minival: steps 500, warmup 100, lr 0.003; ")
    one, notes = recipe_of(recipe, {"steps": 2500, "lr": 0.003})
    assert (one.steps, one.warmup, one.lr, one.candidates, notes) == (2500, 200, 0.003, (), [])
    left, notes = recipe_of(recipe, {"lr": 0.01})
    assert left.candidates == ({"steps": 500, "warmup": 100}, {"steps": 2500, "warmup": 200})
    assert notes == [
        "2 candidates are left and compete on minival: steps 500, warmup 100; steps 2500, warmup 200; "
        "candidates: [] trains once"
    ]
    short, notes = recipe_of(recipe, {"steps": 50})
    assert short.warmup == 10 and short.candidates == ({"lr": 0.003}, {"lr": 0.01})
    assert notes[0] == "warmup of 100 steps scaled to 10, as there are 50 steps"
    assert recipe_of(recipe, {"candidates": []})[0].candidates == ()
    assert recipe_of(Recipe(steps=100, warmup=50), {"steps": 100})[0].warmup == 50  # it still fits
    assert recipe_of(Recipe(steps=100, warmup=100), {"steps": 100})[0].warmup == 50
    with pytest.raises(TaskError, match="coupled is a property of the loss"):
        recipe_of(Recipe(steps=9, coupled=True), {"coupled": False})


def test_views_carry_the_resize_method_that_is_effective(tmp_path) -> None:
    text = GOOD.replace("[flexivit_nano,", "[{name: flexivit_nano, options: {resize: area}, flexible: false},")
    cell = load(tmp_path, text.replace("{grid: 8, resize: area}", "{grid: 8, resize: pi}, 8")).cells[0]
    views = [(v.grid[0], v.resize) for v in cell.views]
    assert views == [(4, "area"), (15, "area"), (8, "pi"), (8, "area")] and cell.flexible is False


def test_mistakes_on_the_command_line(tmp_path) -> None:
    with pytest.raises(SuiteError, match=r"^--set 'recipe.steps=\[1': not YAML: "):
        load(tmp_path, GOOD, settings=["recipe.steps=[1"])
    with pytest.raises(SuiteError, match=r"^--set 'recipe.steps=2.5': recipe: steps must be an integer"):
        load(tmp_path, GOOD, settings=["recipe.steps=2.5"])
    assert (
        load(tmp_path, GOOD, settings=["recipe.lr=-1"]).cells[0].problem.startswith("--set 'recipe.lr=-1': recipe: lr")
    )
    for setting, told in (
        ("recpie.steps=5", "no key 'recpie'; nearest: recipe"), ("task.0.seeds=[1]", "no key 'task'; nearest: tasks"),
        ("steps=5", "no key 'steps'; nearest: .*recipe.steps"), ("recipe=5", "no key 'recipe'; nearest: recipe"),
        ("tasks.²=3", "'²' is not one of the 2 entries"), ("tasks.٠.seeds=[1]", "'٠' is not one of"),
        ("backbones.0.name=x", "backbones.0 is 'flexivit_nano', which has no 'name'"),
        ("recipe.lr_groups.head=x", "recipe: lr_groups head must be a number"),
    ):  # fmt: skip
        with pytest.raises(SuiteError, match=f"^--set '{re.escape(setting)}': {told}"):
            load(tmp_path, GOOD, settings=[setting])
    with pytest.raises(
        SuiteError, match="no cell is left by --only task=clasification; there are: task=classification$"
    ):
        load(tmp_path, GOOD, only=["task=clasification"])
    for setting in ("tasks.9.seeds=[1]", "name.x=1", "=3", "a..b=1"):
        with pytest.raises(SuiteError, match="--set "):
            load(tmp_path, GOOD, settings=[setting])
    for more in ({"settings": ["steps"]}, {"only": ["colour=red"]}, {"only": ["backbone=none"]}):
        with pytest.raises(SuiteError):
            load(tmp_path, GOOD, **more)
    with pytest.raises(SuiteError, match="--only protcol=knn: no cell has a protcol; nearest: protocol"):
        load(tmp_path, GOOD, only=["protcol=knn"])
    with pytest.raises(SuiteError, match="mini/classification"):
        load_suite("mini/clasification")


def test_cells_are_chosen_by_what_a_suite_sets_of_them() -> None:
    """Two lengths of one training differ in nothing but their recipe."""
    chosen = load_suite("mini/acceleration", only=["steps=625|2679", "seed=0"]).cells
    assert [(c.train, c.recipe["steps"]) for c in chosen] == [("15", 625), ("curriculum-cost:5,10,15", 2679)]
    whole = listed(["train=curriculum-cost:5,10,15,seed=1,steps=2679"])
    assert whole == ["train=curriculum-cost:5,10,15", "seed=1", "steps=2679"]
    assert len(load_suite("mini/acceleration", only=whole).cells) == 1
    assert listed(["seed=0, steps=625,"]) == ["seed=0", "steps=625"]
    with pytest.raises(SuiteError, match="no cell has a protcol"):  # a wildcard chose every cell
        load_suite("mini/acceleration", only=["protcol=*"])
    assert len(load_suite("mini/acceleration", only=["protocol=None"]).cells) == 12
    with pytest.raises(SuiteError, match="no cell is left"):
        load_suite("mini/acceleration", only=["protocol=N*"])


def test_what_trains_nothing_has_no_steps(tmp_path) -> None:
    """`--set recipe.steps=50` gave k-NN steps as well, which then failed in words for who writes tasks."""
    cells = load(tmp_path, GOOD, settings=["recipe.steps=50", "recipe.warmup=5"]).cells
    assert [dict(c.recipe) for c in cells if c.options.get("protocol") == "knn"] == [{}, {}]
    assert {c.recipe["steps"] for c in cells if "protocol" not in c.options} == {50}
    for settings, told in ((["tasks.1.recipe.steps=5"], "steps"), (["tasks.1.recipe={candidates: [{lr: 1}]}"], "cand")):
        cells = load(tmp_path, GOOD, settings=settings).cells
        wrong = {c.problem for c in cells if c.options.get("protocol") == "knn"}
        assert len(wrong) == 1 and f"recipe: protocol knn trains nothing: leave {told}" in wrong.pop()
    for task in ("image_retrieval", "landmark_retrieval"):
        assert build_task(task, tmp_path).untrained == f"{task} trains nothing"


@pytest.mark.parametrize("code, told", [
    ("raise RuntimeError('torn\\nin two')", "RuntimeError: torn"), ("import no_such", "ModuleNotFoundError: No module"),
    ("raise SystemExit(3)", "SystemExit: 3"), ("x = ", "SyntaxError: invalid syntax"),
])  # fmt: skip
def test_a_plug_in_that_cannot_be_imported_is_told_with_its_line(tmp_path, monkeypatch, code: str, told: str) -> None:
    (tmp_path / "torn_plug_in.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, why in (("torn_plug_in", told), ("", "ValueError: Empty module name"), ("..", "TypeError: ")):
        with pytest.raises(SuiteError, match=rf"mine.yaml:10: cannot import '{re.escape(name)}': {re.escape(why)}"):
            load(tmp_path, GOOD + f"imports: ['{name}']\n")


@pytest.mark.parametrize("name", list_suites())
def test_suites_that_come_with_the_software_are_valid(tmp_path, name: str) -> None:
    cells = load_suite(name, tmp_path).cells
    assert len({cell.label for cell in cells}) == len(cells), (
        "two cells of one label: logs and errors would mean either"
    )


def test_cells_that_differ_in_options_alone_say_in_what(tmp_path) -> None:
    entry = "{task: classification, options: {data: scenes, protocol: %s}, backbones: [%s]}"
    scratch = "{name: flexivit_nano_scratch, options: {patch: %d, positions: 7}}"
    entries = [entry % (p, ", ".join(scratch % n for n in sizes)) for p, sizes in (("knn", (8, 16)), ("head", (8,)))]
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\neval: [4]\ntasks: [{', '.join(entries)}]\n")
    labels = [cell.label.partition(" seed 0")[2] for cell in load_suite(str(path), tmp_path).cells]
    assert labels == [" (patch=8)", " (patch=16)", ""]
