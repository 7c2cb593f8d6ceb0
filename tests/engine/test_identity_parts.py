"""Each part of a row's identity changes its keys; nothing else does."""

import dataclasses

import runner_tools  # noqa: F401  (makes the plug-in importable)
from flexivit_toy import Toy

from benchmarks.engine import identity
from benchmarks.engine.suite.cells import Cell
from tasks.contract import Recipe, View

CELL = Cell("s", "toy", {}, {}, "tiny_backbone:tiny", {}, "4", (View((4, 4)),), ("test",), 0)


def keys(monkeypatch, precision="float32", weights="w", data="d", cell=CELL, recipe=None, protocol="v1"):
    monkeypatch.setattr(identity.Identities, "weights", lambda self, cell: weights)
    monkeypatch.setattr(Toy, "fingerprint", lambda self, split="train": f"{data} {split}", raising=False)
    task = Toy()
    task.recipe = recipe or Recipe(steps=4, batch=8)
    task.card = dataclasses.replace(Toy.card, protocol=protocol)
    found = identity.Identities(precision).of(cell, task)
    return found.cell, found.train, tuple(found.rows.values())


def test_each_part_makes_another_training(monkeypatch) -> None:
    usual = keys(monkeypatch)
    changes = (
        {"precision": "bf16"}, {"weights": "x"}, {"data": "e"}, {"cell": dataclasses.replace(CELL, seed=1)},
        {"cell": dataclasses.replace(CELL, train="8")}, {"recipe": Recipe(steps=5, batch=8)}, {"protocol": "v2"},
        {"cell": dataclasses.replace(CELL, backbone_options={"patch": 8})},
        {"cell": dataclasses.replace(CELL, backbone="other")},
    )  # fmt: skip
    for change in changes:
        assert keys(monkeypatch, **change)[1] != usual[1], change
    assert keys(monkeypatch) == usual


def test_splits_and_views_make_other_rows_of_one_training(monkeypatch) -> None:
    views = (View((4, 4)), View((8, 8)), View((4, 4), "area"))
    _, train, rows = keys(monkeypatch, cell=dataclasses.replace(CELL, views=views, splits=("test", "minival")))
    assert len(set(rows)) == 6 and train == keys(monkeypatch)[1]
