"""Keys: what is in them, and that plan, runner and report never disagree."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runner_tools import SUITE, run_toy, write_suite

from benchmarks.engine.identity import Identities, cell_key, samples_key, view_key
from benchmarks.engine.plan import plan
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import Cell, cell_task, load_suite
from benchmarks.report.answers.questions import entries
from benchmarks.store import Store
from tasks import View, build_task
from tasks.contract import Recipe

CELL = Cell("s", "toy", {"noise": 0.1}, {"steps": 12}, "tiny_backbone:tiny", {}, "4", (View(4, "pi"),), ("test",))


def identity(cell: Cell = CELL, precision: str = "float32", **changes):
    cell = dataclasses.replace(cell, **changes)
    return Identities(precision).of(cell, cell_task(cell, "."))


def test_the_train_key_holds_all_that_changes_weights() -> None:
    base = identity()
    changes = (
        {"options": {"noise": 0.2}}, {"recipe": {"steps": 13}}, {"backbone": "tiny_backbone:Plain"}, {"train": "6"},
        {"backbone_options": {"seed": 1}}, {"backbone_options": {"drop_path": 0.1}}, {"seed": 1},
        {"train": "random:2,4"},
    )  # fmt: skip
    found = [identity(**change) for change in changes] + [identity(precision="bf16")]
    keys = [i.train for i in (base, *found)]
    assert len(set(keys)) == len(keys) and identity().train == base.train
    rows = [next(iter(i.rows.values())) for i in (base, *found)]
    assert len(set(rows)) == len(rows)
    others = ({"views": (View(6, "pi"),)}, {"splits": ("minival",)}, {"suite": "other"}, {"flexible": True})
    assert {identity(**change).train for change in others} == {base.train}
    # `steps: 12` as the suite's own word or as the task's own value: what is effective counts
    assert identity(recipe={"steps": 12, "lr": 0.05}).train == base.train


def test_data_and_weights_are_known_by_their_content(monkeypatch) -> None:
    from flexivit_toy import Toy

    base = identity()
    plain = Toy.fingerprint

    def moved(split: str):
        monkeypatch.setattr(Toy, "fingerprint", lambda self, s: "other" if s == split else plain(self, s))
        return identity()

    assert moved("test").train == base.train and moved("test").rows != base.rows
    assert moved("train").train != base.train and moved("minival") == base  # nothing is chosen there
    searched = {"recipe": {"steps": 12, "candidates": [{"lr": 0.1}, {"lr": 0.2}]}}
    monkeypatch.undo()
    before = identity(**searched)
    monkeypatch.setattr(Toy, "fingerprint", lambda self, s: "other" if s == "minival" else plain(self, s))
    assert identity(**searched).train != before.train
    monkeypatch.undo()
    import tiny_backbone

    build = tiny_backbone.tiny
    monkeypatch.setattr(tiny_backbone, "tiny", lambda **options: build(seed=7, **options))
    other = identity()
    assert other.weights != base.weights and other.train != base.train and other.cell == base.cell


def test_what_is_not_trained_has_no_recipe_in_its_key() -> None:
    pairs = (({"steps": 0}, None), ({"steps": 0, "lr": 9.0}, "4"))
    cells = [dataclasses.replace(CELL, recipe=recipe, train=train) for recipe, train in pairs]
    one, other = (cell_key(c, cell_task(c, ".")) for c in cells)
    assert one == other
    tasks = [cell_task(CELL, "."), cell_task(CELL, ".")]
    tasks[1].recipe = Recipe(steps=12, lr=0.06)
    assert cell_key(CELL, tasks[0]) != cell_key(CELL, tasks[1])


def test_views_are_what_is_effective() -> None:
    task = build_task("classification", options={"data": "scenes", "protocol": "knn", "neighbours": 5})
    plain = view_key(task, View(8, "pi"))
    assert plain == view_key(task, View(8, "pi", {"neighbours": 5}))  # set to what it is
    pair = {"neighbours": 9, "temperature": 0.1}
    assert view_key(task, View(8, "pi", pair)) == view_key(task, View(8, "pi", dict(reversed(pair.items()))))
    others = [View(8, "area"), View((8, 6), "pi"), View(8, "pi", {"neighbours": 9}), View(8, "pi", {"temperature": 1})]
    assert len({plain, *(view_key(task, v) for v in others)}) == 5
    direct = build_task("classification", options={"data": "scenes", "protocol": "knn", "neighbours": 9})
    assert view_key(direct, View(8, "pi")) == view_key(task, others[2])


def test_samples_are_compared_to_the_byte() -> None:
    one = {"ids": torch.arange(3), "score": torch.rand(3)}
    assert samples_key(one) == samples_key({k: v.clone() for k, v in reversed(one.items())})
    assert samples_key(None) is None
    others = ({"ids": torch.arange(3)}, {**one, "score": one["score"] + 1e-7}, {**one, "score": one["score"].double()})
    assert len({samples_key(one), *(samples_key(o) for o in others)}) == 4


def pictures(root: Path, count: int = 6) -> Path:
    folder = root / "own"
    for split in ("train", "test"):
        for label, colour in enumerate(((200, 30, 30), (30, 200, 30))):
            (folder / split / f"class_{label}").mkdir(parents=True)
            for i in range(count):
                noise = np.random.default_rng(100 * label + i).integers(-20, 20, (24, 24, 3))
                Image.fromarray((np.array(colour) + noise).clip(0, 255).astype("uint8")).save(
                    folder / split / f"class_{label}" / f"{i}.png"
                )
    return folder


def knn(root: Path, grids: list[int]) -> str:
    options = {"data": "own/", "protocol": "knn", "image_size": 24, "neighbours": 3}
    return write_suite(root, train=[], eval=grids, tasks=[{"task": "classification", "options": options}])


def test_other_pictures_are_other_rows_for_plan_run_and_report(tmp_path, recwarn) -> None:
    folder = pictures(tmp_path)

    def run(grids: list[int]) -> tuple[list[str], int, list]:
        suite, store = load_suite(knn(tmp_path, grids), tmp_path), Store(tmp_path / "out")
        (told,) = plan(suite, store, tmp_path)
        before, said = len(store.rows()), []
        summary = Runner(suite, store, tmp_path, RunOptions(device="cpu"), said.append).run()
        assert summary.status == 0, summary.lines()
        rows = store.rows()[before:]
        assert (told.state == "done") == (not rows) == bool(summary.done)
        assert len(told.rows_done) + len(rows) == len(grids)
        return [told.state], len(rows), rows

    assert run([2, 4])[:2] == (["to do"], 2)
    assert run([2, 4])[:2] == (["done"], 0)
    first = Store(tmp_path / "out").rows()
    target = folder / "test" / "class_0" / "0.png"
    changes = [
        lambda: target.rename(folder / "test" / "class_1" / "x.png"),  # relabelled
        lambda: (folder / "test" / "class_0" / "1.png").unlink(),
        lambda: Image.new("RGB", (24, 24), "red").save(folder / "test" / "class_0" / "2.png"),  # replaced, same name
        lambda: Image.new("RGB", (24, 24), "red").save(folder / "train" / "class_0" / "2.png"),
    ]
    seen = {tuple(sorted(first[0].data_identity.items()))}
    for number, change in enumerate(changes, 1):
        change()
        state, count, rows = run([2, 4, 6][: 2 + number % 2])
        assert state == ["to do"] and count == 2 + number % 2
        seen.add(tuple(sorted(rows[0].data_identity.items())))
    assert len(seen) == 5 and set(first[0].data_identity) == {"train", "test"}
    tables = {e.group for e in entries([Store(tmp_path / "out")])}
    assert len(tables) == 5  # rows of different pictures are never in one


def test_rows_say_what_was_done(tmp_path) -> None:
    backbones = [{"name": "tiny_backbone:tiny", "options": {"resize": "area"}, "flexible": True}, "tiny_backbone:Plain"]
    views = [4, {"grid": 4, "resize": "bilinear"}, {"grid": 4, "resize": "pi"}]
    said: list[str] = []
    summary, rows = run_toy(tmp_path, said=said, backbones=backbones, eval=views)
    assert summary.status == 0, summary.lines()
    flexible, plain = ([r for r in rows if r.backbone.endswith(name)] for name in (":tiny", ":Plain"))
    assert [r.resize for r in flexible] == ["area", "bilinear", "pi"] and {r.flexible for r in flexible} == {True}
    assert len({r.samples_hash for r in rows}) >= 2 and {r.flexible for r in plain} == {None}
    # a plain backbone resizes nothing: that is told
    keys = [r.row_key for r in plain]
    assert [r.identical_to for r in plain] == [[keys[1]], [keys[0]]]
    assert [r.resize for r in plain] == ["pi", "bilinear"]
    assert "  identical samples at 4x4, 4x4 (bilinear)" in said
    assert flexible[0].measure["unit"] == "%" and set(flexible[0].data_identity) == {"train", "test"}


def test_a_backbone_that_is_not_finite_at_one_grid_costs_its_view_alone(tmp_path) -> None:
    sick = {"backbones": ["tiny_backbone:sick"], "tasks": [{"task": "toy", "recipe": {"steps": 0}}]}
    summary, rows = run_toy(tmp_path, **sick)
    assert [(r.status, r.eval_grid) for r in rows] == [("ok", 2), ("ok", 6), ("failed", 4)]
    assert rows[2].error == "Diverged: predictions at 4x4 are not finite: the output of backbone, images of test"
    assert rows[2].split == "test" and summary.status == 1 and len(summary.failed) == 1
    (told,) = plan(load_suite(write_suite(tmp_path, **sick), tmp_path), Store(tmp_path / "out"), tmp_path)
    assert told.state == "to do" and len(told.rows_done) == 2


@pytest.mark.parametrize("steps", [0, 1])
def test_what_has_diverged_has_no_accuracy(tmp_path, steps: int) -> None:
    recipe = {"steps": steps, "lr": 1e30, "clip": None, "warmup": 0}
    backbone = "tiny_backbone:tiny" if steps else "tiny_backbone:ruined"
    tasks = [{"task": "toy", "recipe": recipe}, SUITE["tasks"][0]]
    summary, rows = run_toy(tmp_path, backbones=[backbone], tasks=tasks)
    bad = [r for r in rows if r.steps == steps]
    assert bad and all(r.status == "failed" and "Diverged" in r.error for r in bad) and summary.status == 1
    assert sum(r.status == "ok" for r in rows) == (3 if steps else 0)
