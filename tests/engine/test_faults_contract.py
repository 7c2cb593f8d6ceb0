"""Faults of the contract, on the tasks that there are: views and options act, data can be read by spawned processes."""

import ast
import pickle
from pathlib import Path

import pytest
import torch
from runner_tools import write_suite  # makes the plug-ins importable

import run_all
from backbones import build_backbone
from benchmarks.engine.batches.evaluation import Numbered, eval_batches
from benchmarks.engine.conformance.changes import resize_acts
from benchmarks.engine.conformance.trying import shaken, shortened
from benchmarks.engine.identity import cell_key
from benchmarks.engine.plan import plan
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import SuiteError, cell_task, load_suite
from benchmarks.engine.sweep import sweep
from benchmarks.store import Store
from tasks import View, build_task, registry, task_class

Toy = task_class("toy")
ROW = {"task": "toy", "backbone": "b", "split": "test", "eval_grid": 4, "metrics": {"top1": 0.5}}
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


@pytest.mark.parametrize("method", ["missing", "start", "passes", "fingerprint"])
def test_a_task_that_raises_costs_a_plan_its_own_cells_alone(tmp_path: Path, monkeypatch, method: str) -> None:
    """The plan of all cells ended with the words of one task, as a fault of this software."""

    class Raising(Toy):
        def __init__(self, *arguments: object, **more: object) -> None:
            super().__init__(*arguments, **more)
            if self.options.noise:
                setattr(self, method, boom)

    def boom(*arguments: object, **more: object) -> None:
        raise RuntimeError("boom\nin two lines")

    monkeypatch.setitem(registry._REGISTERED, "toy", Raising)
    tasks = [{"task": "toy", "options": {"noise": noise}, "recipe": {"steps": 1}} for noise in (0.1, 0.0)]
    suite, store = load_suite(write_suite(tmp_path, tasks=tasks, eval=[4]), tmp_path), Store(tmp_path / "out")
    # rows of either, so that their keys are asked for
    asked = [cell_key(cell, cell_task(cell, tmp_path)) for cell in suite.cells]
    store.append([{**ROW, "row_key": key, "cell_key": key} for key in asked])
    first, second = plan(suite, store, tmp_path)
    assert (first.state, first.missing, second.state) == ("blocked", ["toy: RuntimeError: boom"], "to do")


@pytest.mark.parametrize("method", ["__init__", "card"])
def test_a_task_that_cannot_be_made_is_told_with_its_line(tmp_path: Path, monkeypatch, method: str) -> None:
    def boom(*arguments: object, **more: object) -> None:
        raise KeyError("width")

    made = {"__init__": boom, "card": property(boom)}[method]
    monkeypatch.setitem(registry._REGISTERED, "toy", type("Raising", (Toy,), {method: made}))
    with pytest.raises(SuiteError, match=r"toy.yaml:\d+: toy: KeyError: 'width'$"):
        load_suite(write_suite(tmp_path), tmp_path)
    monkeypatch.setitem(registry._REGISTERED, "toy", type("Bare", (Toy,), {"card": None}))
    with pytest.raises(SuiteError, match=r"toy.yaml:\d+: task 'toy' has no card"):
        load_suite(write_suite(tmp_path), tmp_path)


def test_a_plan_asks_no_server(tmp_path: Path, monkeypatch) -> None:
    """It looked for servers of weights that are not in the cache, a pause for each where there is no network."""
    from backbones.weights import download

    def asked(*arguments: object, **more: object) -> None:
        raise AssertionError(f"a server was asked: {arguments}")

    monkeypatch.setattr("socket.getaddrinfo", asked)
    monkeypatch.setattr("socket.create_connection", asked)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "no_network", lambda: None)
    names = ["timm:vit_tiny_patch16_224", "timm:hf-hub:someone/model", "flexivit_s_i1k", "tiny_backbone:tiny"]
    suite, store = load_suite(write_suite(tmp_path, backbones=names, train=[4]), tmp_path), Store(tmp_path / "out")
    # with rows of an earlier run, whose weights have gone from the cache: no key can be made of them
    keys = [cell_key(cell, cell_task(cell, tmp_path)) for cell in suite.cells]
    store.append([{**ROW, "row_key": key, "cell_key": key} for key in keys])
    planned = plan(suite, store, tmp_path)
    assert [p.state for p in planned] == ["to do"] * 4 and planned[3].downloads == []
    told = [
        "about 23 MB from https://huggingface.co",
        "them from https://huggingface.co",
        "about 92 MB from https://sto",
    ]
    for entry, words in zip(planned, told, strict=False):
        (line,) = entry.downloads
        assert "not in the cache; a run downloads " in line and words in line and entry.as_json()["downloads"] == [line]
    monkeypatch.setattr(download, "no_network", lambda: "this machine has no network")
    assert [p.state for p in plan(suite, store, tmp_path)] == ["blocked"] * 3 + ["to do"]
    # a run may ask, and says what came of it
    monkeypatch.setattr(download, "unreachable", lambda url: "no route to host")
    said: list[str] = []
    summary = Runner(suite, Store(tmp_path / "run"), tmp_path, RunOptions(device="cpu"), said.append).run()
    assert len(summary.blocked) == 3 and all(
        "cannot be reached (no route to host)" in why for _, why in summary.blocked
    )


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
