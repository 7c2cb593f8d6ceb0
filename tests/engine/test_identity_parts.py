"""Each part of a row's identity changes its keys; nothing else does."""

import dataclasses
import os
import time

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
from flexivit_toy import Toy

import backbones
from backbones import build_backbone
from backbones.weights.own import save_backbone
from benchmarks.engine import identity, weights
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


@pytest.fixture
def builds(monkeypatch, tmp_path) -> list[str]:
    """Names of the backbones that are built meanwhile; what was remembered before is not known."""
    made: list[str] = []

    def counted(name, *args, **options):
        made.append(name)
        return build_backbone(name, *args, **options)

    monkeypatch.setattr(backbones, "build_backbone", counted, raising=False)
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path / "cache"))
    return made


def saved(path, seed: int = 0, age: float = 60.0) -> str:
    """A file of a tiny backbone, written so many seconds ago."""
    import tiny_backbone

    save_backbone(tiny_backbone.tiny(seed=seed), path, half=False)
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def test_weights_of_a_file_are_hashed_once_and_anew_where_it_changes(builds, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "SETTLED", -1.0)  # the entry has just changed, whatever the time of its content
    name = saved(tmp_path / "own.safetensors")
    found = [weights.hash_of_weights(name, {}) for _ in range(3)]
    assert set(found) == {build_backbone(name).weights_hash()} and builds == [name]
    # same size, same time of content: the entry's own time tells
    before = os.stat(name)
    saved(tmp_path / "own.safetensors", seed=1)
    os.utime(name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(name).st_size == before.st_size
    other = weights.hash_of_weights(name, {})
    assert other == build_backbone(name).weights_hash() != found[0] and len(builds) == 2
    # another head is other weights; other code may read the same file otherwise; a torn memory costs time
    assert weights.hash_of_weights(name, {"num_classes": 3}) != other and len(builds) == 3
    monkeypatch.setattr(weights, "_code", lambda: {"code": "changed"})
    assert weights.hash_of_weights(name, {}) == other and len(builds) == 4
    for file in (tmp_path / "cache" / "weights").iterdir():
        file.write_text('{"files": [')
    assert weights.hash_of_weights(name, {}) == other and len(builds) == 5


def test_what_no_file_decides_or_what_may_still_change_is_hashed_each_time(builds, tmp_path) -> None:
    fresh = saved(tmp_path / "fresh.safetensors", age=0.0)
    asked = ((fresh, {}), ("flexivit_nano", {"pretrained": False}), ("tiny_backbone:tiny", {}))
    for name, options in asked:
        assert weights.hash_of_weights(name, options) == weights.hash_of_weights(name, options)
    assert len(builds) == 2 * len(asked) and not (tmp_path / "cache" / "weights").exists()


def test_code_and_packages_are_part_of_what_is_remembered(monkeypatch) -> None:
    usual = weights._code.__wrapped__()
    assert usual == weights._code.__wrapped__() and set(usual) == {"code", *weights.BUILDERS}
    monkeypatch.setattr(weights.importlib.metadata, "version", lambda name: "0.0")
    assert weights._code.__wrapped__() != usual


def test_backbones_name_the_files_that_decide_their_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path))
    spec = backbones.backbone_spec("flexivit_b_i1k")
    assert spec.files(resize="area") == [tmp_path / "flexivit_b_i1k.npz"] and spec.files(pretrained=False) == []
    assert [str(file) for file in spec.files(path="lit.npz:img")] == ["lit.npz"]
    assert [str(file) for file in backbones.backbone_spec("lit.npz:img").files()] == ["lit.npz"]
    nano = [backbones.backbone_spec(name) for name in ("flexivit_nano", "flexivit_nano_scratch")]
    assert nano[0].files()[0].is_file() and nano[1].files is None
