"""Faults of the contract, on the tasks that there are: views and options act, data can be read by spawned processes."""

import ast
import pickle
from pathlib import Path

import pytest
import torch
from runner_tools import write_suite

import run_all
from backbones import build_backbone
from benchmarks.engine.batches.evaluation import Numbered, eval_batches
from benchmarks.engine.conformance.changes import resize_acts
from benchmarks.engine.conformance.trying import shaken, shortened
from benchmarks.engine.plan import plan
from benchmarks.engine.suite import load_suite
from benchmarks.engine.sweep import sweep
from benchmarks.store import Store
from tasks import View, build_task

TASKS = {
    "classification": {}, "segmentation": {}, "retrieval": {"text": "tiny"},
    "detection": {"text": "tiny", "train_prompts": "plain", "prompts": "plain", "mosaics": [1.0, 0.0, 0.0]},
    "image_retrieval": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def made(root: Path, name: str, **more: object):
    return build_task(name, root, {"data": "scenes", **TASKS[name], **more})


@pytest.mark.parametrize("name", TASKS)
def test_another_resize_method_gives_other_records(root: Path, name: str) -> None:
    """Detection gave bit-identical rows under `pi`, `bilinear` and `area`."""
    task = made(root, name)
    torch.manual_seed(0)
    model = shaken(task.in_training().model(build_backbone("flexivit_nano", pretrained=False)))
    split = next(s for s in task.card.splits if s not in ("train", "minival"))
    assert resize_acts(shortened(task, 2), model.eval(), split) == ""


def test_neighbours_vote(root: Path) -> None:
    """k-NN took 20 of them whatever the view said."""
    task = shortened(made(root, "classification", protocol="knn"), 24)
    torch.manual_seed(0)
    model = shaken(task.in_training().model(build_backbone("flexivit_nano", pretrained=False)))
    views = [View(4, options={"neighbours": n}) for n in (1, 20)]
    one, many = (samples["ranked"] for _, _, samples in sweep(task, model, views, "test").rows)
    assert not torch.equal(one, many)


@pytest.mark.parametrize("name", TASKS)
def test_data_is_read_by_processes_that_are_spawned(root: Path, name: str) -> None:
    """`--workers 2` where processes are spawned: "Can't pickle local object"."""
    task = made(root, name)
    split = next(s for s in task.card.splits if s not in ("train", "minival"))
    for reader, part in ((task, split), (task.in_training(), "train"), (task.reading(View(4)), split)):
        dataset = pickle.loads(pickle.dumps(Numbered(reader.dataset(part))))
        assert len(dataset) and dataset[0][0] == 0
    loader = eval_batches(task, split, 2, skip=True)
    collate, batches = pickle.loads(pickle.dumps((loader.collate_fn, loader.batch_sampler)))
    assert len(collate([loader.dataset[i] for i in batches[0]])[0]) == 2


def test_a_backbone_that_there_is_not_blocks_its_cells_alone(tmp_path: Path) -> None:
    """The cost of a cell was asked of a backbone that no one knows, and the plan of all others ended."""
    names = ["timm:nope", "./nope.npz", "os:system", "no_such:Thing", "tiny_backbone:tiny"]
    suite = load_suite(write_suite(tmp_path, backbones=names, train=[4]), tmp_path)
    planned = plan(suite, Store(tmp_path / "out"), tmp_path)
    assert [p.state for p in planned] == ["blocked"] * 4 + ["to do"]
    for entry, word in zip(planned, ("nope", "nope.npz", "os:system", "no_such"), strict=False):
        assert len(entry.missing) == 1 and word in entry.missing[0]


ALLOWED = {  # no type says it: torch tells of a worker's death by words alone
    ("benchmarks/engine/runner.py", "killed by signal: Terminated"),
    ("benchmarks/engine/running/interrupts.py", "killed by signal: Terminated"),
}


def test_nothing_is_decided_by_the_words_of_a_message() -> None:
    """Whether data was missing or wrong was read off "get it from" and "http"."""
    home = Path(run_all.__file__).parent
    found = set()
    for path in (p for room in ("backbones", "tasks", "benchmarks") for p in sorted((home / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn)):
                continue
            asked, where = node.left, node.comparators[0]
            of_error = isinstance(where, ast.Call) and any(
                isinstance(a, ast.Name) and a.id in ("error", "e", "problem") for a in where.args
            )
            if of_error and isinstance(asked, ast.Constant) and isinstance(asked.value, str):
                found.add((str(path.relative_to(home)), asked.value))
    assert found == ALLOWED
